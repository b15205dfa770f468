package gateway

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/emf"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// The sweep tells how many workers there are, what they have and what they should
// have, also of those that say nothing themselves.
func TestLoadOfTheFleet(t *testing.T) {
	s := newScene(t)
	s.time = time.Date(2026, 5, 6, 7, 0, 0, 0, time.UTC)
	for id, capacity := range map[string]int{"w-1": 10, "w-2": 10, "w-3": 10} {
		if _, err := s.store.Join(t.Context(), id, state.MemberInfo{Capacity: capacity, Since: s.time}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.store.Join(t.Context(), "tool", state.MemberInfo{Tool: true, Since: s.time}); err != nil {
		t.Fatal(err)
	}
	for name, owner := range map[string]string{"a": "w-1", "b": "w-1", "c": "w-2", "d": "w-3", "e": "", "f": ""} {
		s.session(name, state.WantRunning, owner)
	}
	s.session("stopped", state.WantStopped, "")
	s.says("w-1", state.Load{Sessions: 2, Online: 2})
	s.says("w-2", state.Load{Sessions: 1, Online: 0})
	s.says("w-3", state.Load{Sessions: 1, Online: 1, Draining: true})
	s.says("tool", state.Load{Sessions: 9, Online: 9})
	expect := func(when string, want map[string]float64) {
		t.Helper()
		for name, value := range want {
			if got := s.value(name); got != value {
				t.Errorf("%s: %s is %g, want %g", when, name, got, value)
			}
		}
	}
	s.sweep()
	expect("at first", map[string]float64{"Sessions": 7, "SessionsWanted": 6, "SessionsOwned": 4, "SessionsOnline": 3, "SessionsOwnerless": 2,
		"WorkersAlive": 3, "WorkersDraining": 1, "WorkersStale": 0, "SessionsPerWorker": 3, "CapacityUsed": 30})

	// Between the looks at all of them what is wanted is what was found last.
	value, err := state.Encode(state.Spec{V: state.Format, Name: "a", Wanted: state.WantStopped, Generation: 2})
	if err == nil {
		err = s.store.Update(t.Context(), state.OfSession("a"), []state.Write{state.Put(state.KindSpec, "", value)})
	}
	if err != nil {
		t.Fatal(err)
	}
	s.time = s.time.Add(time.Minute)
	s.beat("w-1", "w-2", "w-3")
	s.sweep()
	expect("a minute later", map[string]float64{"SessionsWanted": 6, "SessionsOnline": 0})
	s.time = s.time.Add(lookEvery)
	s.beat("w-1", "w-2", "w-3")
	s.sweep()
	expect("at the next look", map[string]float64{"SessionsWanted": 5})

	// Workers that have stopped beating are not there, whatever they said last.
	s.time = s.time.Add(time.Minute)
	s.beat("w-1")
	s.sweep()
	expect("when two are gone", map[string]float64{"WorkersAlive": 1, "WorkersStale": 2, "SessionsOwned": 2, "SessionsOnline": 0, "SessionsOwnerless": 4, "SessionsPerWorker": 6, "CapacityUsed": 60})
	s.time = s.time.Add(time.Minute)
	s.sweep()
	expect("when all are", map[string]float64{"WorkersAlive": 0, "SessionsOwned": 0, "SessionsPerWorker": 5})
	if _, there := s.points()["CapacityUsed"]; there {
		t.Error("a share of no capacity")
	}

	// Without a bound there is no share of it.
	s.time = s.time.Add(time.Minute)
	if _, err := statetest.Take(t.Context(), s.store, "e", "w-free"); err != nil {
		t.Fatal(err)
	}
	s.beat("w-1", "w-free")
	s.sweep()
	if _, there := s.points()["CapacityUsed"]; there || s.value("WorkersAlive") != 2 {
		t.Errorf("%s", s.metrics.Bytes())
	}
}

// What workers and sweep write has the same namespace and dimension, so one name
// must not be written by both: sums would count twice.
func TestNamesOfTheSweepAreItsOwn(t *testing.T) {
	s := newScene(t)
	s.sweep()
	sweep := s.points()
	for _, row := range emf.WorkerRows() {
		for name := range sweep {
			if name == row.Name || row.Each != "" && strings.HasPrefix(name, row.Name) {
				t.Errorf("%s is one of the workers' names, by %+v", name, row)
			}
		}
	}
}
