package chaos

import (
	"fmt"
	"strings"
	"testing"
)

// The times without a socket are those of the clean history, each with its
// reason; a report names every rule that was broken.
func TestReport(t *testing.T) {
	h := clean()
	is := func(want ...string) {
		t.Helper()
		var got []string
		for _, g := range gaps(h) {
			got = append(got, fmt.Sprintf("%s %s %.2fs moved %v", g.Session, g.Why, g.Took.Seconds(), g.Moved))
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("gaps:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	is("shop ban 4.00s moved true", "shop frozen 4.10s moved true", "shop kill -9 4.09s moved true")
	h.Bans = nil
	is("shop frozen 4.10s moved true", "shop kill -9 4.09s moved true", "shop parted from dynamodb 4.00s moved true")
	var b strings.Builder
	r := Report{Seed: 42, Findings: Check(h), Gaps: gaps(h), History: h, Steps: map[What]int{Kill: 1, Freeze: 2}}
	r.Write(&b)
	for _, text := range []string{"seed 42", "1 kill, 2 freeze", "messages: 4 to 1 sessions, 4 from them", "kick", "kill -9", "nothing lost"} {
		if !strings.Contains(b.String(), text) {
			t.Errorf("no %q in:\n%s", text, b.String())
		}
	}
	h.Truth.Pairings = nil
	h.Arrivals = h.Arrivals[1:]
	b.Reset()
	Report{Findings: Check(h), History: h}.Write(&b)
	for _, rule := range []string{RulePairing, RuleLost, RuleGap} {
		if !strings.Contains(b.String(), rule+": 1\n") {
			t.Errorf("no %s in:\n%s", rule, b.String())
		}
	}
	if strings.Contains(b.String(), "nothing lost") {
		t.Error("it says that nothing was lost")
	}
}
