package chaos

import (
	"slices"
	"testing"
)

// Whatever verify does not call ok is held against the release that says so.
func TestUnread(t *testing.T) {
	sessions := []Account{{Session: "a"}, {Session: "b"}}
	for _, c := range []struct {
		out  string
		want []string
	}{
		{"ok    a\nok    b\n", nil},
		{"ok    a\nfail  b: status record: format 2, this release reads up to 1\n",
			[]string{"old: fail  b: status record: format 2, this release reads up to 1", "old: b: was not read to its end"}},
		{"ok    b\n", []string{"old: a: was not read to its end"}},
		{"holdfast: state: cannot be opened\n", []string{"old: holdfast: state: cannot be opened", "old: a: was not read to its end", "old: b: was not read to its end"}},
	} {
		if got := unread("old", c.out, sessions); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.out, got, c.want)
		}
	}
}
