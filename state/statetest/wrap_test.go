package statetest_test

import (
	"context"
	"errors"
	"reflect"
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
	if _, err := s.Join(t.Context(), "w", state.MemberInfo{}); err != nil {
		t.Fatal(err)
	}
	s.FailAfter(func(c statetest.Call) bool { return c.Method == statetest.Claim && c.Session == "a" }, 1, nil)
	if got, err := s.Claim(t.Context(), "w", o); !errors.Is(err, state.ErrUnavailable) || got != nil {
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

// No method of a store goes past the wrappers, and each says what it is about.
func TestEveryCallIsSeen(t *testing.T) {
	ctx, s := t.Context(), statetest.Fault(memory.New(nil))
	seen := map[statetest.Method]statetest.Call{}
	s.FailBefore(func(c statetest.Call) bool {
		seen[c.Method] = c
		return true
	}, -1, nil)
	f := state.Fence{Session: "a", Owner: "w1", Epoch: 1}
	o, p := state.Owner{Session: "a"}, state.OfSession("a")
	for _, call := range []func() error{
		func() error { _, err := s.Get(ctx, p, state.Key{}); return err },
		func() error { _, err := s.GetMany(ctx, p, nil); return err },
		func() error { _, err := s.Query(ctx, p, state.Query{}); return err },
		func() error { _, err := s.Indexed(ctx, "", nil, 0); return err },
		func() error { return s.Commit(ctx, f, "t", []state.Write{{}}) },
		func() error { return s.Update(ctx, p, []state.Write{{}}) },
		func() error { return s.CreateSession(ctx, "a", nil) },
		func() error { return s.RemoveSession(ctx, f) },
		func() error { _, err := s.Owner(ctx, "a"); return err },
		func() error { _, err := s.OwnedBy(ctx, "", "", 0); return err },
		func() error { _, err := s.Sessions(ctx, "", 0); return err },
		func() error { _, err := s.Claim(ctx, "w2", o, state.Owner{Session: "b"}); return err },
		func() error { _, err := s.HandOver(ctx, f, "w2"); return err },
		func() error { return s.Release(ctx, f) },
		func() error { _, err := s.Join(ctx, "w1", state.MemberInfo{}); return err },
		func() error { return s.Beat(ctx, "w1", state.Load{}) },
		func() error { _, err := s.Roster(ctx); return err },
		func() error { _, err := s.Watch(ctx, nil); return err },
		func() error { return s.DeclareDead(ctx, "w1", 1) },
		func() error { return s.DeclareStopped(ctx, "w1") },
		func() error { return s.Drain(ctx, "w1", true) },
		func() error { return s.Forget(ctx, "w1") },
		func() error { return s.Ping(ctx) },
	} {
		if err := call(); !errors.Is(err, state.ErrUnavailable) {
			t.Errorf("a call went past the fault: %v", err)
		}
	}
	// Now and Close are no calls of the store's.
	if got, want := len(seen), reflect.TypeFor[state.Store]().NumMethod()-2; got != want {
		t.Errorf("%d methods were seen, a store has %d", got, want)
	}
	for m, want := range map[statetest.Method][2]string{
		statetest.Commit: {"a", ""}, statetest.RemoveSession: {"a", ""}, statetest.Release: {"a", ""},
		statetest.Claim: {"a", "w2"}, statetest.HandOver: {"a", "w1"},
		statetest.Join: {"", "w1"}, statetest.Beat: {"", "w1"}, statetest.DeclareDead: {"", "w1"},
		statetest.DeclareStopped: {"", "w1"}, statetest.Drain: {"", "w1"}, statetest.Forget: {"", "w1"},
	} {
		if got := seen[m]; got.Session != want[0] || got.Worker != want[1] {
			t.Errorf("%s is about session %q and worker %q, want %q", m, got.Session, got.Worker, want)
		}
	}
}
