package session

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// order puts a command into the store without telling the actor.
func (w *world) order(id string, verb state.Verb, args map[string]string) Order {
	w.t.Helper()
	c := state.Command{V: state.Format, ID: id, Session: "shop", Verb: verb, State: state.CommandPending,
		By: "test", At: time.Now(), ExpiresAt: time.Now().Add(time.Hour), Args: args}
	value, err := state.Encode(c)
	if err != nil {
		w.t.Fatal(err)
	}
	write := state.Put(state.KindCommand, id, value)
	write.Rev, write.If = 1, state.Absent()
	if err := w.store.Update(context.Background(), state.OfSession("shop"), []state.Write{write}); err != nil {
		w.t.Fatal(err)
	}
	return Order{c, 1}
}

func (w *world) ordered(id string) state.Command {
	w.t.Helper()
	synctest.Wait()
	rec, err := w.store.Get(context.Background(), state.OfSession("shop"), state.Key{Kind: state.KindCommand, ID: id})
	if err != nil {
		w.t.Fatal(err)
	}
	var c state.Command
	if err := state.Decode(rec.Value, &c); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// want changes what is wanted as the admin side does.
func (w *world) want(change func(*state.Spec)) {
	w.t.Helper()
	rec, err := w.store.Get(context.Background(), state.OfSession("shop"), state.Key{Kind: state.KindSpec})
	if err != nil {
		w.t.Fatal(err)
	}
	var spec state.Spec
	if err := state.Decode(rec.Value, &spec); err != nil {
		w.t.Fatal(err)
	}
	change(&spec)
	spec.Generation++
	w.putSpec(spec, false)
}

// TestACommandHasItsEffectOnce however often it is brought.
func TestACommandHasItsEffectOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		o := w.order("01", state.VerbRestart, nil)
		for range 5 { // the nudge, and polls that read it before it had ended
			w.s.Command(o)
		}
		time.Sleep(time.Minute)
		if n := len(w.dialled()); n != 2 {
			t.Errorf("%d dials, want the first and one for the restart", n)
		}
	})
}

// TestTheNewestWishHolds in whatever order the commands are found: the index of a
// store may show a later one first, and ids made of idempotency keys do not sort
// by time.
func TestTheNewestWishHolds(t *testing.T) {
	for _, wishes := range [][]state.Verb{
		{state.VerbStop, state.VerbStart}, {state.VerbStart, state.VerbStop}, {state.VerbRestart, state.VerbStop},
		{state.VerbStop, state.VerbRestart}, {state.VerbDisconnect, state.VerbStart}, {state.VerbRepair, state.VerbStop},
		{state.VerbStop, state.VerbStart, state.VerbStop}, {state.VerbDisconnect, state.VerbStop},
	} {
		for _, reversed := range []bool{false, true} {
			for _, polled := range []bool{false, true} {
				t.Run(fmt.Sprint(wishes, " reversed=", reversed, " polled=", polled), func(t *testing.T) {
					bubble(t, func(t *testing.T, w *world) {
						w.pair()
						w.behave = func(l *fakeLine) {
							if l.call.Device.Paired() {
								l.login()
							} else {
								showCodes(l)
							}
						}
						w.start()
						time.Sleep(time.Minute)
						var orders []Order
						for i, v := range wishes {
							id := fmt.Sprint(i)
							if reversed {
								id = fmt.Sprint(9 - i)
							}
							w.wish(v)
							if v == state.VerbRepair {
								w.want(func(s *state.Spec) { s.RepairGeneration++ })
							}
							orders = append(orders, w.order(id, v, nil))
							time.Sleep(time.Millisecond)
						}
						if polled {
							w.s.Wake()
						} else {
							slices.SortFunc(orders, func(a, b Order) int { return strings.Compare(a.ID, b.ID) })
							for _, o := range orders {
								w.s.Command(o)
							}
						}
						time.Sleep(2 * time.Minute)
						for _, o := range orders {
							if c := w.ordered(o.ID); c.State != state.CommandDone {
								t.Errorf("%s is %s: %s", o.Verb, c.State, c.Problem)
							}
						}
						st := w.status()
						if got := stateFor(wishes); st.State != got {
							t.Errorf("%s %s, want %s", st.State, st.Cause, got)
						}
						if cleared := slices.Contains(wishes, state.VerbDisconnect) || slices.Contains(wishes, state.VerbRepair); st.Paired == cleared {
							t.Errorf("paired %v", st.Paired)
						}
						if st.ObservedGeneration < uint64(len(wishes)) {
							t.Errorf("observed generation %d", st.ObservedGeneration)
						}
					})
				})
			}
		}
	}
}

// stateFor is where a paired session is after some wishes.
func stateFor(wishes []state.Verb) state.State {
	switch _, wanted := wishOf(wishes[len(wishes)-1]); {
	case wanted == state.WantStopped:
		return state.Stopped
	case slices.Contains(wishes, state.VerbDisconnect):
		return state.Pairing
	}
	return state.Online
}

// TestACommandWhoseRecordMoved while it was on its way, as at a claim, which lists
// open commands under the new owner, ends all the same, and once.
func TestACommandWhoseRecordMoved(t *testing.T) {
	for _, verb := range []state.Verb{state.VerbStop, state.VerbRestart} {
		t.Run(string(verb), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.pair()
				w.behave = func(l *fakeLine) { l.login() }
				w.start()
				time.Sleep(time.Minute)
				w.wish(verb)
				o := w.order("01", verb, nil)
				value, err := state.Encode(o.Command)
				if err != nil {
					t.Fatal(err)
				}
				moved := state.Put(state.KindCommand, o.ID, value)
				moved.Rev, moved.If, moved.Index = o.Rev+1, state.AtRev(o.Rev), state.CommandIndex("w-new")
				if err := w.store.Update(context.Background(), state.OfSession("shop"), []state.Write{moved}); err != nil {
					t.Fatal(err)
				}
				w.s.Command(o) // as it was read before
				time.Sleep(10 * time.Second)
				if c := w.ordered(o.ID); c.State != state.CommandDone {
					t.Errorf("%s is %s", verb, c.State)
				}
				if n := w.count(state.EventCommandDone); n != 1 {
					t.Errorf("its end was told of %d times", n)
				}
			})
		})
	}
}

// TestANudgeDoesNotRunACommandTwice: the change of the wanted state and the
// command that came with it are one thing.
func TestANudgeDoesNotRunACommandTwice(t *testing.T) {
	for _, tt := range []struct {
		verb   state.Verb
		change func(*state.Spec)
		check  func(*testing.T, *world, state.Command)
	}{
		{state.VerbDisconnect, func(s *state.Spec) { s.Wanted = state.WantDisconnected }, func(t *testing.T, w *world, c state.Command) {
			if !strings.HasPrefix(c.Result, "unlinked") {
				t.Errorf("result %q does not say what became of the device", c.Result)
			}
			if n := w.status().Disconnects[state.CauseDisconnected]; n != 1 {
				t.Errorf("disconnected %d times", n)
			}
		}},
		{state.VerbStop, func(s *state.Spec) { s.Wanted = state.WantStopped }, func(t *testing.T, w *world, _ state.Command) {
			if n := w.status().Disconnects[state.CauseStopped]; n != 1 {
				t.Errorf("stopped %d times", n)
			}
		}},
		{state.VerbRepair, func(s *state.Spec) { s.RepairGeneration++ }, func(t *testing.T, w *world, _ state.Command) {
			if n := len(w.dialled()); n != 2 {
				t.Errorf("%d dials, want the first and one for the pairing", n)
			}
		}},
	} {
		t.Run(string(tt.verb), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.pair()
				w.behave = func(l *fakeLine) {
					if l.call.Device.Paired() {
						l.login()
					}
				}
				w.start()
				time.Sleep(time.Minute)
				w.want(tt.change)
				w.order("01", tt.verb, nil)
				w.s.Wake()
				time.Sleep(time.Minute)
				c := w.ordered("01")
				if c.State != state.CommandDone {
					t.Fatalf("command %+v", c)
				}
				tt.check(t, w, c)
				if st := w.status(); st.ObservedGeneration != 2 {
					t.Errorf("observed generation %d", st.ObservedGeneration)
				}
			})
		})
	}
}

// TestARefusedCommandLeavesTheGenerationObserved: at rest both are equal.
func TestARefusedCommandLeavesTheGenerationObserved(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) {
			l.login()
			l.signal(policy.Signal{Kind: policy.SignalTemporaryBan, Expire: 3 * time.Hour})
		}
		w.start()
		time.Sleep(time.Minute)
		if c := w.command(state.VerbStart, nil); c.Code != "cooldown" {
			t.Fatalf("%+v", c)
		}
		if st := w.status(); st.ObservedGeneration != 2 { // the start asked for it
			t.Errorf("observed generation %d, want 2", st.ObservedGeneration)
		}
	})
}

// TestAPairCodeThatCannotBeHadFails instead of dialling once a second.
func TestAPairCodeThatCannotBeHadFails(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.behave = func(l *fakeLine) { l.signal(policy.Signal{Kind: policy.SignalFailure, Code: 405}) }
		w.start()
		time.Sleep(time.Minute)
		o := w.pairCodeOrder("01", "491700000001")
		for range 60 { // the poll brings it as long as it is open
			if w.ordered("01").State.Final() {
				break
			}
			w.s.Command(o)
			time.Sleep(time.Second)
		}
		if n := len(w.dialled()); n != 2 {
			t.Errorf("%d dials, want the first and one for the command", n)
		}
		if c := w.ordered("01"); c.State != state.CommandFailed {
			t.Errorf("the command is %s", c.State)
		}
	})
}

// TestARestartIsTold: every change of state has its event and its time.
func TestARestartIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		var slow atomic.Bool
		w.behave = func(l *fakeLine) {
			if slow.Load() {
				time.Sleep(20 * time.Second)
			}
			l.login()
		}
		w.start()
		time.Sleep(time.Minute)
		slow.Store(true)
		told := w.count(state.EventState)
		w.s.Command(w.order("01", state.VerbRestart, nil))
		time.Sleep(5 * time.Second)
		if st := w.status(); st.State != state.Connecting || time.Since(st.Since) > 6*time.Second {
			t.Errorf("%s since %s", st.State, time.Since(st.Since))
		}
		if w.count(state.EventState) != told+1 {
			t.Error("no event tells of it")
		}
		time.Sleep(time.Minute)
	})
}

// TestChangedReceiversTakeEffect: the journal keeps events for those of now.
func TestChangedReceiversTakeEffect(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		var jrn *journal.Journal
		w.cfg = func(c *Config) {
			c.Sinks = func(own state.SessionSettings) []string {
				if own.WebhookURL == "" {
					return nil
				}
				return []string{"webhook"}
			}
			c.KeepContent = func(own state.SessionSettings) bool { return own.WebhookURL == "" }
			c.Journal = func(_ string, j *journal.Journal, _ state.SessionSettings) { jrn = j }
		}
		w.start()
		time.Sleep(time.Minute)
		for i, url := range []string{"https://example.org/hook", ""} {
			w.want(func(s *state.Spec) {
				body, err := json.Marshal(state.SessionSettings{WebhookURL: url})
				if err != nil {
					t.Fatal(err)
				}
				if s.Settings, err = w.fleet.Seal(seal.Place{Partition: state.OfSession("shop"), Kind: state.KindSpec}, body); err != nil {
					t.Fatal(err)
				}
			})
			w.s.Wake()
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := len(jrn.Sinks()); got != 1-i {
				t.Errorf("with the webhook %q the journal has %d receivers", url, got)
			}
			if st := w.status(); st.State != state.Online || int(st.ObservedGeneration) != 2+i {
				t.Errorf("%s, observed %d", st.State, st.ObservedGeneration)
			}
		}
	})
}

// TestAChangedProfileTakesEffect on the connection that is there.
func TestAChangedProfileTakesEffect(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		var profile atomic.Value
		profile.Store("guide")
		w.cfg = func(c *Config) {
			c.Effective = func(state.SessionSettings) (policy.Settings, error) { return policy.For(profile.Load().(string)) }
		}
		w.start()
		time.Sleep(time.Minute)
		profile.Store("gentle")
		w.want(func(*state.Spec) {})
		w.s.Wake()
		time.Sleep(time.Minute)
		for range 40 { // a ping a minute is in order now
			time.Sleep(15 * time.Second)
			if l := w.s.Live(); l.Health != state.Healthy {
				t.Fatalf("health %s", l.Health)
			}
		}
		if n := w.count(state.EventHealth); n != 0 {
			t.Errorf("%d changes of health", n)
		}
		if n := len(w.dialled()); n != 1 {
			t.Errorf("%d dials", n)
		}
	})
}

// TestAStopDoesNotShortenACooldown that a start would have to wait for.
func TestAStopDoesNotShortenACooldown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		first := true
		w.behave = func(l *fakeLine) {
			l.login()
			if first {
				first = false
				l.signal(policy.Signal{Kind: policy.SignalTemporaryBan, Expire: 3 * time.Hour})
			}
		}
		w.start()
		time.Sleep(time.Minute)
		for _, step := range []struct {
			verb state.Verb
			want state.Wanted
		}{{state.VerbStop, state.WantStopped}, {state.VerbStart, state.WantRunning}} {
			w.want(func(s *state.Spec) { s.Wanted = step.want })
			w.order(string(step.verb), step.verb, nil)
			w.s.Wake()
			time.Sleep(time.Minute)
		}
		if n := len(w.dialled()); n != 1 {
			t.Fatalf("%d dials during the ban", n)
		}
		if st := w.status(); st.ObservedGeneration != 3 {
			t.Errorf("observed generation %d", st.ObservedGeneration)
		}
		time.Sleep(3 * time.Hour)
		if st := w.status(); st.State != state.Online {
			t.Errorf("after the ban %s", st.State)
		}
	})
}

// TestARepairKeepsTheQuarantine: it asks for a new QR, and the old credentials
// were retired for an error that may prove to be none of theirs.
func TestARepairKeepsTheQuarantine(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) {
			if l.call.Device.Paired() {
				l.login()
			}
		}
		w.start()
		time.Sleep(time.Minute)
		w.last().signal(policy.Signal{Kind: policy.SignalLoggedOut, Code: 401})
		time.Sleep(6 * time.Minute)
		if c := w.command(state.VerbRepair, nil); c.State != state.CommandDone {
			t.Fatalf("repair: %+v", c)
		}
		if c := w.command(state.VerbRestore, nil); c.State != state.CommandDone {
			t.Errorf("restore: %+v", c)
		}
		if st := w.status(); st.State != state.Online || !st.Paired {
			t.Errorf("%s paired %v", st.State, st.Paired)
		}
	})
}

// pairCodeOrder asks for a code, as the admin side does.
func (w *world) pairCodeOrder(id, phone string) Order {
	w.t.Helper()
	o := w.order(id, state.VerbPairCode, nil)
	body, err := json.Marshal(state.CommandSecret{Phone: phone})
	if err != nil {
		w.t.Fatal(err)
	}
	if o.Sealed, err = w.fleet.Seal(seal.Place{Partition: state.OfSession("shop"), Kind: state.KindCommand, ID: id}, body); err != nil {
		w.t.Fatal(err)
	}
	return o
}
