package statetest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// The wrappers are stores: with nothing to do they pass the suite.
func TestWrappersAreStores(t *testing.T) {
	for name, wrap := range map[string]func(state.Store) state.Store{
		"Delay":    func(s state.Store) state.Store { return statetest.Delay(s, 0) },
		"Fault":    func(s state.Store) state.Store { return statetest.Fault(s) },
		"Counting": func(s state.Store) state.Store { return statetest.Counting(s) },
	} {
		t.Run(name, func(t *testing.T) {
			statetest.Store(t, func(*testing.T) state.Store { return wrap(memory.New(nil)) })
		})
	}
}

func put(s state.Store, id string) error {
	return s.Update(context.Background(), state.Fleet, []state.Write{state.Put(state.KindFleet, id, nil)})
}

func there(t *testing.T, s state.Store, id string) bool {
	t.Helper()
	_, err := s.Get(t.Context(), state.Fleet, state.Key{Kind: state.KindFleet, ID: id})
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory.New(nil)
		s := statetest.Delay(m, 6*time.Millisecond)
		start := time.Now()
		if err := put(s, "1"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 6*time.Millisecond {
			t.Errorf("a call took %v", took)
		}
		// Given up on the way there it has no effect, on the way back it has.
		for id, patience := range map[string]time.Duration{"before": 2 * time.Millisecond, "after": 4 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			err := s.Update(ctx, state.Fleet, []state.Write{state.Put(state.KindFleet, id, nil)})
			cancel()
			if !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("given up %s: %v", id, err)
			}
			if got := there(t, m, id); got != (id == "after") {
				t.Errorf("given up %s the effect: %v", id, got)
			}
		}
	})
}

func TestFault(t *testing.T) {
	m := memory.New(nil)
	s := statetest.Fault(m)
	s.FailBefore(statetest.Of(statetest.Update), 1, nil)
	s.FailAfter(statetest.Nth(2), 1, nil)
	if err := put(s, "1"); !errors.Is(err, state.ErrUnavailable) || there(t, m, "1") {
		t.Errorf("failed before: %v, effect %v", err, there(t, m, "1"))
	}
	if err := put(s, "2"); !errors.Is(err, state.ErrUnavailable) || !there(t, m, "2") {
		t.Errorf("failed after: %v, effect %v", err, there(t, m, "2"))
	}
	if err := put(s, "3"); err != nil || !there(t, m, "3") {
		t.Errorf("not to fail: %v", err)
	}
	mine := errors.New("mine")
	s.FailBefore(nil, -1, mine)
	for range 5 {
		if err := s.Ping(t.Context()); !errors.Is(err, mine) {
			t.Errorf("to fail for ever: %v", err)
		}
	}
	if _, err := s.Sessions(t.Context(), "", 0); !errors.Is(err, mine) {
		t.Errorf("to fail for ever: %v", err)
	}
	s.Heal()
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("healed: %v", err)
	}
	if got := s.Calls(); got != 10 {
		t.Errorf("%d calls, want 10", got)
	}
	// The answer of a call that fails afterwards is lost as well.
	if err := s.CreateSession(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	o, err := s.Owner(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	s.FailAfter(func(c statetest.Call) bool { return c.Method == statetest.Claim && c.Session == "a" }, 1, nil)
	if got, err := s.Claim(t.Context(), o, "w"); !errors.Is(err, state.ErrUnavailable) || got != (state.Owner{}) {
		t.Errorf("a claim whose answer is lost: %v, %v", got, err)
	}
	if o, err := m.Owner(t.Context(), "a"); err != nil || o.Incarnation != "w" {
		t.Errorf("it took effect all the same: %v, %v", o, err)
	}
}

func TestCounting(t *testing.T) {
	s := statetest.Counting(memory.New(nil))
	for _, id := range []string{"1", "2"} {
		if err := put(s, id); err != nil {
			t.Fatal(err)
		}
	}
	there(t, s, "1")
	if got := []int{s.Count(statetest.Update), s.Count(statetest.Get), s.Count(statetest.Commit), s.Count(statetest.Get, statetest.Update), s.Count()}; got[0] != 2 || got[1] != 1 || got[2] != 0 || got[3] != 3 || got[4] != 3 {
		t.Errorf("counts of Update, Get, Commit, Get and Update, all: %v", got)
	}
	s.Reset()
	if got := s.Count(); got != 0 {
		t.Errorf("after a reset: %d", got)
	}
}
