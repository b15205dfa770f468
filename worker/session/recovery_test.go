package session

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// TestTheOutboxGoesOnAfterTheStoreWasAway although a send was under way when it
// went.
func TestTheOutboxGoesOnAfterTheStoreWasAway(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		faults := statetest.Fault(w.store)
		w.store = faults
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		faults.FailBefore(statetest.Of(statetest.Commit), 1<<30, state.ErrUnavailable)
		w.put("01", "3EB001", "one", time.Time{})
		time.Sleep(time.Minute)
		faults.Heal()
		time.Sleep(5 * time.Minute)
		if st := w.status(); st.State != state.Online {
			t.Fatalf("afterwards %s %s", st.State, st.Cause)
		}
		w.put("02", "3EB002", "two", time.Time{})
		time.Sleep(time.Minute)
		for _, id := range []string{"01", "02"} {
			if got := w.item(id).State; got != state.OutSent {
				t.Errorf("message %s is %s", id, got)
			}
		}
	})
}

// TestACommandThatMetADeadStoreIsRunAfterwards and so ends.
func TestACommandThatMetADeadStoreIsRunAfterwards(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		faults := statetest.Fault(w.store)
		w.store = faults
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		o := w.order("01", state.VerbRestart, nil)
		faults.FailBefore(func(statetest.Call) bool { return true }, 1<<30, state.ErrUnavailable)
		w.s.Command(o)
		time.Sleep(time.Minute)
		faults.Heal()
		time.Sleep(5 * time.Minute)
		if c := w.ordered("01"); c.State != state.CommandDone {
			t.Errorf("the command is %s", c.State)
		}
	})
}

// TestTheEndWhileTheStoreIsAway is as orderly as any.
func TestTheEndWhileTheStoreIsAway(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		faults := statetest.Fault(w.store)
		w.store = faults
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		line := w.last()
		faults.FailBefore(statetest.Of(statetest.Commit), 1<<30, state.ErrUnavailable)
		faults.FailBefore(statetest.Of(statetest.Claim), 1<<30, state.ErrUnavailable)
		line.post(whatsapp.PushName{On: whatsapp.On{N: line.call.N}, Name: "new"})
		time.Sleep(time.Minute)
		w.stop()
		time.Sleep(time.Minute)
		select {
		case err := <-w.ended:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("it runs on")
		}
	})
}

// TestAFailedRemovalIsTriedAgain when the store answers.
func TestAFailedRemovalIsTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		faults := statetest.Fault(w.store)
		w.store = faults
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		w.want(func(s *state.Spec) { s.Wanted = state.WantDisconnected })
		o := w.order("01", state.VerbDelete, nil)
		faults.FailBefore(statetest.Of(statetest.RemoveSession), 1, state.ErrUnavailable)
		w.s.Command(o)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if !w.s.Removed() {
			t.Error("the session is still there")
		}
	})
}

// TestAPanicLeavesNoLineOpen: the next actor would be thrown out by it.
func TestAPanicLeavesNoLineOpen(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		var armed atomic.Bool
		w.cfg = func(c *Config) {
			effective := c.Effective
			c.Effective = func(own state.SessionSettings) (policy.Settings, error) {
				if armed.Load() {
					panic("settings")
				}
				return effective(own)
			}
		}
		w.recovers = true
		w.start()
		time.Sleep(time.Minute)
		line := w.last()
		armed.Store(true)
		w.s.Wake()
		time.Sleep(time.Minute)
		if <-w.ended == nil {
			t.Fatal("it did not panic")
		}
		if line.Open() {
			t.Error("the line is still open")
		}
	})
}

// TestTheRecordNamesThePhase that goes with its state.
func TestTheRecordNamesThePhase(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(5 * time.Second)
		if st := w.status(); st.Phase != "online" {
			t.Errorf("online in the phase %s", st.Phase)
		}
		w.last().signal(policy.Signal{Kind: policy.SignalStreamReplaced})
		time.Sleep(5 * time.Second)
		if st := w.status(); st.Phase != "parked" {
			t.Errorf("replaced in the phase %s", st.Phase)
		}
	})
}

// TestTheLossOfTheStoreIsCounted and told once the store takes it.
func TestTheLossOfTheStoreIsCounted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		faults := statetest.Fault(w.store)
		w.store = faults
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		line := w.last()
		faults.FailBefore(statetest.Of(statetest.Commit), 1<<30, state.ErrUnavailable)
		line.post(whatsapp.PushName{On: whatsapp.On{N: line.call.N}, Name: "new"})
		time.Sleep(time.Minute)
		faults.Heal()
		time.Sleep(5 * time.Minute)
		st := w.status()
		if st.State != state.Online || st.Disconnects[state.CauseStoreUnavailable] != 1 {
			t.Errorf("%s, disconnects %v", st.State, st.Disconnects)
		}
	})
}

// TestAnUnreadableStatusParks: it is visible, and a command helps.
func TestAnUnreadableStatusParks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		if err := w.store.Commit(context.Background(), w.lease.Fence(), "", []state.Write{state.Put(state.KindStatus, "", []byte("garbage"))}); err != nil {
			t.Fatal(err)
		}
		kill(w)
		w.start()
		time.Sleep(time.Hour)
		if st := w.status(); st.State != state.Failing || st.Cause != state.CauseStaleCredentials {
			t.Errorf("%s %s", st.State, st.Cause)
		}
		if n := len(w.dialled()); n != 1 {
			t.Errorf("%d dials", n)
		}
		if c := w.command(state.VerbStart, nil); c.State != state.CommandDone {
			t.Errorf("%+v", c)
		}
		if st := w.status(); st.State != state.Online || !st.Paired {
			t.Errorf("after start %s paired %v", st.State, st.Paired)
		}
	})
}

// TestWhatCannotBeReadIsShown although there is no record to write it into.
func TestWhatCannotBeReadIsShown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		if err := w.store.Update(context.Background(), state.OfSession("shop"), []state.Write{state.Put(state.KindSpec, "", []byte("garbage"))}); err != nil {
			t.Fatal(err)
		}
		w.start()
		synctest.Wait()
		if err := <-w.ended; !errors.Is(err, state.ErrCorrupt) {
			t.Fatalf("ended with %v", err)
		}
		if l := w.s.Live(); l.State != state.Failing || l.Status.Cause != state.CauseStaleCredentials || !strings.Contains(l.Status.Decision, "spec") {
			t.Errorf("%s %s %q", l.State, l.Status.Cause, l.Status.Decision)
		}
	})
}

// TestDamagedCursorsAreMadeAnew: at least once is kept, and numbers go on.
func TestDamagedCursorsAreMadeAnew(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(10 * time.Minute)
		last := w.status().LastSeq
		if err := w.store.Commit(context.Background(), w.lease.Fence(), "", []state.Write{
			state.Put(state.KindCursor, "", []byte("garbage")), state.Put(state.KindCursor, "webhook", []byte("garbage"))}); err != nil {
			t.Fatal(err)
		}
		kill(w)
		w.start()
		time.Sleep(time.Minute)
		if st := w.status(); st.State != state.Online || st.LastSeq < last {
			t.Errorf("%s, last event %d after %d", st.State, st.LastSeq, last)
		}
		if n := len(w.dialled()); n != 2 {
			t.Errorf("%d dials", n)
		}
	})
}

// kill ends the actor as a killed process does: nothing more is stored.
func kill(w *world) {
	if _, err := statetest.Take(context.Background(), w.store, "shop", "w-other"); err != nil {
		w.t.Fatal(err)
	}
	w.lease.Lose(errors.New("killed"))
	w.stop()
	if err := <-w.ended; err != nil {
		w.t.Log(err)
	}
}

// TestAStoreThatRefusesOneWriteForEver costs a login a minute, not one every
// five seconds.
func TestAStoreThatRefusesOneWriteForEver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		faults := statetest.Fault(w.store)
		w.store = faults
		w.behave = func(l *fakeLine) {
			l.login()
			time.Sleep(time.Second)
			faults.FailBefore(statetest.Of(statetest.Commit), 1, state.ErrTooLarge)
			l.post(whatsapp.PushName{On: whatsapp.On{N: l.call.N}, Name: time.Now().String()})
		}
		w.start()
		time.Sleep(time.Hour)
		dials := w.dialled()
		if last := dials[len(dials)-1].Sub(dials[len(dials)-2]); last < 50*time.Second {
			t.Errorf("%d dials in an hour, the last after %v", len(dials), last)
		}
	})
}
