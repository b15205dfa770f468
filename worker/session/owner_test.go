package session

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/worker/lease"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// TestReplacedByTheNextOwnerIsNoConflict: a worker that was frozen for too long
// learns from the service that somebody else has logged in, asks whose the session
// is, and goes without a word.
func TestReplacedByTheNextOwnerIsNoConflict(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		before := w.status()
		if _, err := statetest.Take(context.Background(), w.store, "shop", "w-next"); err != nil {
			t.Fatal(err)
		}
		w.last().signal(policy.Signal{Kind: policy.SignalStreamReplaced})
		if err := <-w.ended; err != nil {
			t.Error(err)
		}
		if cause := context.Cause(w.lease.Context()); !errors.Is(cause, lease.ErrLost) {
			t.Errorf("the lease ended with %v", cause)
		}
		if st := w.status(); st.State != before.State || st.Cause != before.Cause || st.Disconnects[state.CauseReplaced] != 0 {
			t.Errorf("%s %s: the next owner's status was touched", st.State, st.Cause)
		}
		if n := len(w.dialled()); n != 1 {
			t.Errorf("%d dials", n)
		}
	})
}

// TestWithoutTrustNothingConnects, also when it ends between the decision to dial
// and the dial.
func TestWithoutTrustNothingConnects(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		online := 0
		w.behave = func(l *fakeLine) { l.login(); online++ }
		faults := statetest.Fault(w.store)
		w.store = faults
		faults.FailBefore(func(c statetest.Call) bool {
			if c.Method == statetest.Commit { // that of the status before the dial
				w.lease.Lose(errors.New("trust is over"))
			}
			return false
		}, 1, nil)
		w.start()
		if err := <-w.ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if online != 0 {
			t.Error("it connected after its trust had ended")
		}
	})
}

// TestDeathsThatNobodyExplains park a session at the tenth in a row, each soon
// after a login; one that came later forgives those before.
func TestDeathsThatNobodyExplains(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		die := func(after time.Duration) {
			w.start()
			time.Sleep(after)
			w.lease.Lose(context.DeadlineExceeded)
			synctest.Wait()
			if err := <-w.ended; err != nil {
				t.Error(err)
			}
		}
		for range policy.UnexplainedToPoison - 1 {
			die(10 * time.Second)
		}
		if st := w.status(); st.Cause == state.CausePoisoned {
			t.Fatal("poisoned too early")
		}
		die(time.Minute)
		for range policy.UnexplainedToPoison - 1 {
			die(10 * time.Second)
		}
		if st := w.status(); st.Cause == state.CausePoisoned {
			t.Fatal("what was before a minute online still counts")
		}
		die(10 * time.Second)
		w.start()
		time.Sleep(30 * time.Minute)
		if st := w.status(); st.Cause != state.CausePoisoned || !st.Paired {
			t.Fatalf("after %d deaths %s %s", policy.UnexplainedToPoison, st.State, st.Cause)
		}
		time.Sleep(time.Hour)
		if st := w.status(); st.State != state.Online {
			t.Errorf("after the hour %s", st.State)
		}
	})
}

// TestACommandIsSeenRunning with the epoch that runs it, before it ends.
func TestACommandIsSeenRunning(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		var seen []state.Command
		faults := statetest.Fault(w.store)
		faults.FailBefore(func(c statetest.Call) bool {
			for _, write := range c.Writes {
				var cmd state.Command
				if c.Method == statetest.Commit && write.Key.Kind == state.KindCommand && state.Decode(write.Value, &cmd) == nil {
					seen = append(seen, cmd)
				}
			}
			return false
		}, 1, nil)
		w.store = faults
		w.start()
		time.Sleep(time.Minute)
		c := w.command(state.VerbRestart, nil)
		epoch := w.lease.Fence().Epoch
		if len(seen) != 2 || seen[0].State != state.CommandRunning || seen[0].Epoch != epoch || seen[1].State != state.CommandDone {
			t.Errorf("stored: %+v", seen)
		}
		if c.State != state.CommandDone || c.Epoch != epoch {
			t.Errorf("it ended as %+v", c)
		}
	})
}
