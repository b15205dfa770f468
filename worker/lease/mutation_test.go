package lease

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// TestMutations tests the schedules: with a rule of the protocol taken out,
// they must find a violation of what that rule is for. Each mutant is run over
// seeds until they do.
func TestMutations(t *testing.T) {
	most := uint64(3000)
	if n, ok := envInt(t, "HOLDFAST_SCHEDULES"); ok {
		most = n
	}
	// Trust ends a moment before the takeover and all clocks run alike: enough for
	// the protocol, and nothing to spare.
	tight := func() plan {
		p := defaultPlan()
		p.f, p.evenClocks = p.t-500*time.Millisecond, true
		return p
	}
	// Most of what happens is that one worker is cut off from the store for longer
	// than a takeover takes, and lives on.
	cut := func(p plan) plan {
		p.kinds = []trouble{cutOff, fade, fade, join, crash}
		return p
	}
	late := func() plan {
		p := defaultPlan()
		p.kinds, p.troubles, p.chatty = []trouble{freeze, freeze, freeze, late, crash, join}, 16, true
		return p
	}
	for _, m := range []struct {
		name  string
		plan  func() plan
		spoil func(*plan)
		rules []string // of which one must be found broken
	}{
		{"no fence in the store", defaultPlan, func(p *plan) { p.noFence = true }, []string{"I2"}},
		{"no fence, seen by the server", late, func(p *plan) { p.noFence = true }, []string{"I4"}},
		{"F = T", func() plan { return cut(defaultPlan()) }, func(p *plan) { p.f = p.t }, []string{"I1"}},
		{"trust from the reply", func() plan { return cut(tight()) }, func(p *plan) {
			p.careless = func(k *Keeper) { k.trustFrom = func(_, answered stamp) stamp { return answered } }
		}, []string{"I1"}},
		{"claim before declare", defaultPlan, func(p *plan) { p.noDeclare = true }, []string{"I1"}},
		{"a clock that stops in suspend", func() plan {
			p := defaultPlan()
			p.kinds = []trouble{suspend, suspend, join}
			return p
		}, func(p *plan) { p.noBoot = true }, []string{"I1"}},
	} {
		t.Run(m.name, func(t *testing.T) {
			p := m.plan()
			m.spoil(&p)
			for seed := uint64(1); seed <= most; seed++ {
				w := run(t, seed, p, false)
				i := slices.IndexFunc(w.faults, func(v violation) bool { return slices.Contains(m.rules, v.rule) })
				if i >= 0 {
					t.Logf("found by seed %d: %s: %s", seed, w.faults[i].rule, w.faults[i].what)
					return
				}
			}
			t.Errorf("%d schedules found nothing", most)
		})
	}
	t.Run("nothing", func(t *testing.T) {
		few := min(most, 100)
		if detecting {
			few = 20
		}
		for seed := uint64(1); seed <= few; seed++ {
			report(t, run(t, seed, tight(), false))
			report(t, run(t, seed, late(), false))
			report(t, run(t, seed, cut(tight()), false))
			report(t, run(t, seed, cut(defaultPlan()), false))
		}
	})
}

// TestTheRegisterIsChecked tests the check of the owners that workers saw.
func TestTheRegisterIsChecked(t *testing.T) {
	nobody, a, b := state.Owner{Session: "s", Epoch: 1}, state.Owner{Session: "s", Incarnation: "a", Epoch: 2}, state.Owner{Session: "s", Incarnation: "b", Epoch: 3}
	claim := func(from state.Owner, to string) deed { return deed{kind: "claim", session: "s", to: to, from: from} }
	commit := func(as state.Owner) deed { return deed{kind: "commit", session: "s", from: as} }
	release := func(as state.Owner) deed { return deed{kind: "release", session: "s", from: as} }
	read := deed{kind: "read", session: "s"}
	type step struct {
		deed
		err error
		got []state.Owner
	}
	done := func(d deed) step { return step{deed: d} }
	saw := func(o state.Owner) step { return step{deed: read, got: []state.Owner{o}} }
	failed := func(d deed, err error) step { return step{deed: d, err: err} }
	for _, tt := range []struct {
		name  string
		steps []step
		legal bool
	}{
		{"a life", []step{saw(nobody), done(claim(nobody, "a")), done(commit(a)), done(claim(a, "b")), failed(commit(a), state.ErrFenced), done(commit(b)), saw(b)}, true},
		{"a stale writer", []step{done(claim(nobody, "a")), done(claim(a, "b")), done(commit(a))}, false},
		{"a fence without a reason", []step{done(claim(nobody, "a")), failed(commit(a), state.ErrFenced)}, false},
		{"two winners", []step{done(claim(nobody, "a")), done(claim(nobody, "b"))}, false},
		{"a stale read", []step{done(claim(nobody, "a")), done(claim(a, "b")), saw(a)}, false},
		{"a claim of unknown outcome that happened", []step{failed(claim(nobody, "a"), state.ErrUnavailable), saw(a), done(commit(a))}, true},
		{"one that did not", []step{failed(claim(nobody, "a"), state.ErrUnavailable), saw(nobody)}, true},
		{"one that happened late", []step{failed(claim(nobody, "a"), state.ErrUnavailable), saw(nobody), saw(a)}, true},
		{"one that was undone", []step{failed(claim(nobody, "a"), state.ErrUnavailable), saw(a), saw(nobody)}, false},
		{"a release that is not one", []step{done(claim(nobody, "a")), done(release(a)), saw(a)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r register
			for i, s := range tt.steps {
				_, _ = r.note(i, []deed{s.deed}, func() ([]state.Owner, error) { return s.got, s.err })
			}
			if err := r.check(time.Second); (err == nil) != tt.legal {
				t.Errorf("legal: %v; %v", tt.legal, err)
			}
		})
	}
}
