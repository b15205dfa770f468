package policy

import (
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

func TestThreeDeathsPoison(t *testing.T) {
	var d Deaths
	for i := range DeathsToPoison {
		if d.Poisoned() {
			t.Fatalf("poisoned after %d deaths", i)
		}
		d = d.Begin() // and the process dies
	}
	if !d.Poisoned() {
		t.Fatal("three deaths and not poisoned")
	}
	// One more try after the parking: a death parks it again, ten minutes forgive all.
	try := d.Pardon().Begin()
	if !try.Poisoned() {
		t.Error("the try after the parking is not counted")
	}
	if try.Online(9*time.Minute+59*time.Second) != try || try.Online(10*time.Minute) != 0 {
		t.Error("forgotten at another time than after 10 min online")
	}
}

func TestOrderlyEndsAreNoDeaths(t *testing.T) {
	var d Deaths
	for range 100 {
		d = d.Begin().End()
	}
	if d != 0 || d.End() != 0 || Deaths(-4).Begin() != 1 {
		t.Errorf("%d deaths after a hundred orderly ends", d)
	}
}

func TestResume(t *testing.T) {
	soon, past := t0.Add(time.Minute), t0.Add(-time.Minute)
	tests := []struct {
		name string
		st   Stored
		want Resumption
	}{
		{"as it should be", Stored{Paired: true}, Resumption{}},
		{"killed while online", Stored{Paired: true, State: state.Online, Deaths: 1}, Resumption{}},
		{"new, never paired", Stored{}, Resumption{}},
		{"the next attempt is due later", Stored{Paired: true, Cause: state.CauseTimedOut, NextAttemptAt: soon}, Resumption{Until: soon}},
		{"the next attempt is overdue", Stored{Paired: true, Cause: state.CauseTimedOut, NextAttemptAt: past}, Resumption{}},
		{"rate limited", Stored{Paired: true, Cause: state.CauseRateLimited, NextAttemptAt: soon, CooldownUntil: soon}, Resumption{Parked: true, Until: soon}},
		{"resting", Stored{Paired: true, Cause: state.CauseServerError, NextAttemptAt: soon, CooldownUntil: soon}, Resumption{Parked: true, Until: soon}},
		{"used up for good", Stored{Paired: true, State: state.Stopped, Cause: state.CauseServerError}, Resumption{Parked: true}},
		{"started again after a stop", Stored{Paired: true, State: state.Stopped, Cause: state.CauseStopped}, Resumption{}},
		{"banned for a while", Stored{Paired: true, Cause: state.CauseTemporaryBan, NextAttemptAt: soon, CooldownUntil: soon}, Resumption{Parked: true, Until: soon}},
		{"the ban is over", Stored{Paired: true, Cause: state.CauseTemporaryBan, NextAttemptAt: past, CooldownUntil: past}, Resumption{}},
		{"rejected, later", Stored{Paired: true, Cause: state.CauseRejected, NextAttemptAt: soon, CooldownUntil: soon}, Resumption{Parked: true, Until: soon}},
		{"replaced", Stored{Paired: true, Cause: state.CauseReplaced}, Resumption{Parked: true}},
		{"moved", Stored{State: state.Stopped, Cause: state.CauseMoved}, Resumption{Parked: true}},
		{"stale credentials", Stored{Paired: true, Cause: state.CauseStaleCredentials}, Resumption{Parked: true}},
		{"logged out", Stored{Cause: state.CauseLoggedOut, CooldownUntil: soon}, Resumption{Parked: true}},
		{"the QR expired", Stored{Cause: state.CauseQRExpired}, Resumption{Parked: true}},
		{"started again after a disconnect", Stored{Cause: state.CauseDisconnected}, Resumption{}},
		{"disconnected in a cooldown", Stored{Cause: state.CauseDisconnected, CooldownUntil: soon}, Resumption{Parked: true, Until: soon}},
		{"three deaths", Stored{Paired: true, Deaths: 3, State: state.Online}, Resumption{Poisoned: true}},
		{"poisoned, parked", Stored{Paired: true, Deaths: 3, Cause: state.CausePoisoned, NextAttemptAt: soon}, Resumption{Parked: true, Until: soon}},
		{"poisoned, the hour is over", Stored{Paired: true, Deaths: 3, Cause: state.CausePoisoned, NextAttemptAt: past}, Resumption{Pardon: true}},
		{"a cause of a later release", Stored{Paired: true, Cause: "new"}, Resumption{}},
	}
	for _, tt := range tests {
		got := Resume(tt.st, t0)
		if got.Why == "" {
			t.Errorf("%s: no reason", tt.name)
		}
		if got.Why = ""; got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
