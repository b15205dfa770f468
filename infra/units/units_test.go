package units

import (
	"strings"
	"testing"
)

// What is off by more than a tenth is named; what was not counted is not.
func TestDrift(t *testing.T) {
	noted := Counts{Received: Use{Requests: 1, Write: 14}, Sent: Use{Requests: 10, Write: 40}, Resume: Use{Keys: 1}}
	for what, c := range map[string]struct {
		now  Counts
		want string
	}{
		"the same":             {noted, ""},
		"nothing was counted":  {Counts{}, ""},
		"a tenth more":         {Counts{Sent: Use{Requests: 10.9, Write: 44}}, ""},
		"more":                 {Counts{Sent: Use{Requests: 10, Write: 45}}, "message sent: 45.00 write units, noted are 40.00"},
		"less":                 {Counts{Sent: Use{Requests: 5, Write: 40}}, "message sent: 5.00 requests, noted are 10.00"},
		"a master key more":    {Counts{Resume: Use{Keys: 2}}, "resume: 2.00 requests to the master key, noted are 1.00"},
		"a write of a message": {Counts{Received: Use{Requests: 1, Write: 16}}, "message received: 16.00 write units, noted are 14.00"},
	} {
		if got := strings.Join(Drift(c.now, noted), "; "); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}

// Every cost has a name of its own, and something was counted of each.
func TestCounted(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range Counted.List() {
		if seen[n.Name] || n.Name == "" {
			t.Errorf("the name %q", n.Name)
		}
		seen[n.Name] = true
		if n.Read < 0 || n.Write < 0 || !n.any() && n.Name != "idle session, an hour" {
			t.Errorf("%s: %+v", n.Name, n.Use)
		}
	}
}
