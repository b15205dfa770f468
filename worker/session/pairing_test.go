package session

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// showCodes sends six QR codes, as the server does.
func showCodes(l *fakeLine) {
	codes := make([]string, 6)
	lasts := make([]time.Duration, 6)
	for i := range codes {
		codes[i], lasts[i] = string(rune('a'+i)), 20*time.Second
	}
	lasts[0] = time.Minute
	l.post(whatsapp.QRCodes{On: whatsapp.On{N: l.call.N}, Codes: codes, Lasts: lasts})
}

func TestAQRIsValidForItsTimeAndThenThePairingEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.behave = showCodes
		w.start()
		time.Sleep(time.Second)
		if st := w.status(); st.State != state.Pairing {
			t.Fatalf("state %s", st.State)
		}
		if _, err := w.store.Get(context.Background(), state.OfSession("shop"), state.Key{Kind: state.KindQR}); err != nil {
			t.Errorf("the QR is not to be had: %v", err)
		}
		time.Sleep(10 * time.Minute)
		st := w.status()
		if st.State != state.Unpaired || st.Cause != state.CauseQRExpired {
			t.Errorf("state %s cause %s", st.State, st.Cause)
		}
		dials := w.dialled()
		if len(dials) != 2 {
			t.Fatalf("%d dials: the codes are renewed once", len(dials))
		}
		if renewed := dials[1].Sub(dials[0]); renewed < 159*time.Second || renewed > 162*time.Second {
			t.Errorf("renewed after %v, want when the codes ran out (160 s)", renewed)
		}
		if ended := st.Since.Sub(dials[0]); ended < 179*time.Second || ended > 182*time.Second {
			t.Errorf("ended after %v, want 180 s", ended)
		}
		if _, err := w.store.Get(context.Background(), state.OfSession("shop"), state.Key{Kind: state.KindQR}); err == nil {
			t.Error("the QR is still to be had")
		}
		// A command starts again, at once.
		if c := w.command(state.VerbStart, nil); c.State != state.CommandDone {
			t.Errorf("start: %+v", c)
		}
		if st := w.status(); st.State != state.Pairing || len(w.dialled()) != 3 {
			t.Errorf("after start: %s, %d dials", st.State, len(w.dialled()))
		}
	})
}

// TestAServerThatClosesWhenTheCodesAreUsedUp does not end the pairing early.
func TestAServerThatClosesWhenTheCodesAreUsedUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.behave = func(l *fakeLine) {
			showCodes(l)
			select {
			case <-time.After(159 * time.Second):
				l.signal(policy.Signal{Kind: policy.SignalClosed})
			case <-l.gone:
			}
		}
		w.start()
		time.Sleep(170 * time.Second)
		if st := w.status(); st.State != state.Pairing || len(w.dialled()) != 2 {
			t.Errorf("%s %s, %d dials", st.State, st.Cause, len(w.dialled()))
		}
	})
}

// TestAPairingThatTheServerNeverHeardOf is what a process leaves that died
// between storing the credentials and telling the server.
func TestAPairingThatTheServerNeverHeardOf(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		// The record still says unpaired.
		o, err := w.store.Owner(context.Background(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		value, err := state.Encode(state.Status{V: state.Format, State: state.Pairing, Since: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.Commit(context.Background(), o.Fence(), "", []state.Write{state.Put(state.KindStatus, "", value)}); err != nil {
			t.Fatal(err)
		}
		w.behave = func(l *fakeLine) {
			if l.call.Device.Paired() {
				l.signal(policy.Signal{Kind: policy.SignalLoggedOut, Code: 401})
				return
			}
			showCodes(l)
		}
		w.start()
		time.Sleep(time.Minute)
		st := w.status()
		if st.Cause != state.CausePairingFailed || st.State != state.Unpaired || !st.CooldownUntil.IsZero() {
			t.Errorf("%s %s cooldown %v", st.State, st.Cause, st.CooldownUntil)
		}
		if c := w.command(state.VerbStart, nil); c.State != state.CommandDone {
			t.Errorf("%+v", c)
		}
		if st := w.status(); st.State != state.Pairing || st.Paired {
			t.Errorf("%s paired %v", st.State, st.Paired)
		}
	})
}

func TestAScanLeadsToALoginWithoutAnotherQR(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.behave = func(l *fakeLine) {
			if l.call.Device.Paired() {
				l.login()
				return
			}
			showCodes(l)
			time.Sleep(30 * time.Second)
			w.adopt(l)
			l.post(whatsapp.Paired{On: whatsapp.On{N: l.call.N}, JID: "491700000001:2@s.whatsapp.net", LID: "987654321:2@lid", Platform: "android"})
			time.Sleep(time.Second)
			l.signal(policy.Signal{Kind: policy.SignalLoginReconnect, Code: 515})
		}
		w.start()
		time.Sleep(time.Minute)
		if st := w.status(); st.State != state.Online || !st.Paired {
			t.Fatalf("state %s paired %v", st.State, st.Paired)
		}
		if st := w.status(); st.Attempt != 0 {
			t.Errorf("the restart after the pairing counts as attempt %d", st.Attempt)
		}
		if w.count(state.EventPaired) != 1 {
			t.Error("session.paired was not raised once")
		}
		dials := w.dialled()
		if len(dials) != 2 {
			t.Fatalf("%d dials", len(dials))
		}
		if gap := dials[1].Sub(dials[0]); gap != 31*time.Second+2*time.Second+50*time.Millisecond {
			t.Errorf("the login came %v after the first dial, want 2 s after the 515", gap)
		}
	})
}

// TestARestartBeforeTheWordOfThePairing: the library tells of a pairing from a
// goroutine of its own, and the server may be quicker.
func TestARestartBeforeTheWordOfThePairing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.behave = func(l *fakeLine) {
			if l.call.Device.Paired() {
				l.login()
				return
			}
			showCodes(l)
			w.adopt(l)
			l.signal(policy.Signal{Kind: policy.SignalLoginReconnect, Code: 515})
			l.post(whatsapp.Paired{On: whatsapp.On{N: l.call.N}, JID: "491700000001:2@s.whatsapp.net"})
		}
		w.start()
		time.Sleep(time.Minute)
		st := w.status()
		if st.State != state.Online || !st.Paired || st.Attempt != 0 {
			t.Errorf("%s paired %v attempt %d", st.State, st.Paired, st.Attempt)
		}
		if n := w.count(state.EventPaired); n != 1 {
			t.Errorf("session.paired was raised %d times", n)
		}
	})
}

// TestALineThatEndsBeforeTheWordOfThePairing: what was stored is not thrown away; a
// login tells whether the server knows the device.
func TestALineThatEndsBeforeTheWordOfThePairing(t *testing.T) {
	for _, known := range []bool{true, false} {
		for _, end := range []policy.Signal{{Kind: policy.SignalClosed}, {Kind: policy.SignalClosed, Err: syscall.ECONNRESET}, {Kind: policy.SignalStreamEnd},
			{Kind: policy.SignalPairError, Err: errors.New("failed to send pairing confirmation")}} {
			t.Run(fmt.Sprint(known, end.Kind, end.Err), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.behave = func(l *fakeLine) {
						switch {
						case !l.call.Device.Paired():
							showCodes(l)
							w.adopt(l)
							l.signal(end)
						case known:
							l.login()
						default:
							l.signal(policy.Signal{Kind: policy.SignalLoggedOut, Code: 401})
						}
					}
					w.start()
					time.Sleep(time.Minute)
					st := w.status()
					if want := map[bool]state.State{true: state.Online, false: state.Unpaired}[known]; st.State != want || st.Paired != known {
						t.Errorf("%s %s paired %v, want %s", st.State, st.Cause, st.Paired, want)
					}
					if !known && !st.CooldownUntil.IsZero() {
						t.Errorf("a pairing that never ended cools down until %s", st.CooldownUntil)
					}
				})
			})
		}
	}
}

// TestAScanAtTheLastMoment: the codes run out, or the time does, while the word of
// the pairing is on its way.
func TestAScanAtTheLastMoment(t *testing.T) {
	for name, at := range map[string]time.Duration{"the last code": 159 * time.Second, "the last of the session's time": policy.Guide().QRTimeout - time.Second} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				started := time.Now()
				var adopted atomic.Bool
				w.behave = func(l *fakeLine) {
					if l.call.Device.Paired() {
						l.login()
						return
					}
					showCodes(l)
					if left := at - time.Since(started); left < 160*time.Second && !adopted.Swap(true) {
						time.Sleep(left)
						w.adopt(l) // and the line says nothing
					}
				}
				w.start()
				time.Sleep(policy.Guide().QRTimeout + time.Minute)
				if st := w.status(); !adopted.Load() || st.State != state.Online || !st.Paired {
					t.Errorf("adopted %v, %s %s, paired %v", adopted.Load(), st.State, st.Cause, st.Paired)
				}
			})
		})
	}
}

func TestASilentSocketAfterTheScanIsNoticed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.behave = func(l *fakeLine) {
			if l.call.Device.Paired() {
				l.login()
				return
			}
			showCodes(l)
			w.adopt(l)
			l.post(whatsapp.Paired{On: whatsapp.On{N: l.call.N}, JID: "491700000001:2@s.whatsapp.net"})
		}
		w.start()
		time.Sleep(time.Minute)
		if st := w.status(); st.State != state.Online {
			t.Fatalf("state %s cause %s", st.State, st.Cause)
		}
	})
}

func TestAFailureWhileUnpairedEndsThePairing(t *testing.T) {
	for _, sig := range []policy.Signal{
		{Kind: policy.SignalFailure, Code: 405}, {Kind: policy.SignalPairError}, {Kind: policy.SignalFailure, Code: 500}, {Kind: policy.SignalClosed},
	} {
		t.Run(string(sig.Kind), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.behave = func(l *fakeLine) { showCodes(l); l.signal(sig) }
				w.start()
				time.Sleep(time.Hour)
				st := w.status()
				if st.State != state.Unpaired || st.Cause != state.CausePairingFailed || !st.CooldownUntil.IsZero() {
					t.Errorf("state %s cause %s cooldown %v", st.State, st.Cause, st.CooldownUntil)
				}
				if n := len(w.dialled()); n != 1 {
					t.Errorf("%d dials", n)
				}
				if want := sig.Code == 405; (w.refreshes > 0) != want {
					t.Errorf("version refreshed %d times", w.refreshes)
				}
				w.behave = showCodes
				if c := w.command(state.VerbStart, nil); c.State != state.CommandDone {
					t.Errorf("start at once: %+v", c)
				}
				if st := w.status(); st.State != state.Pairing {
					t.Errorf("a retry shows %s", st.State)
				}
			})
		})
	}
}

func TestCommands(t *testing.T) {
	online := func(t *testing.T, f func(t *testing.T, w *world)) {
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
			f(t, w)
		})
	}
	t.Run("stop and start", func(t *testing.T) {
		online(t, func(t *testing.T, w *world) {
			if c := w.command(state.VerbStop, nil); c.State != state.CommandDone {
				t.Fatalf("%+v", c)
			}
			if st := w.status(); st.State != state.Stopped || !st.Paired || st.Holding {
				t.Fatalf("%+v", st)
			}
			time.Sleep(24 * time.Hour)
			if n := len(w.dialled()); n != 1 {
				t.Fatalf("%d dials while stopped", n)
			}
			w.command(state.VerbStart, nil)
			if st := w.status(); st.State != state.Online {
				t.Errorf("after start %s %s", st.State, st.Cause)
			}
		})
	})
	t.Run("restart", func(t *testing.T) {
		online(t, func(t *testing.T, w *world) {
			w.command(state.VerbRestart, nil)
			if st := w.status(); st.State != state.Online || len(w.dialled()) != 2 {
				t.Errorf("%s, %d dials", st.State, len(w.dialled()))
			}
		})
	})
	t.Run("disconnect", func(t *testing.T) {
		online(t, func(t *testing.T, w *world) {
			line := w.last()
			c := w.command(state.VerbDisconnect, nil)
			if c.State != state.CommandDone || c.Result != "unlinked at the server" || !line.loggedOut {
				t.Errorf("%+v, logged out %v", c, line.loggedOut)
			}
			st := w.status()
			if st.State != state.Disconnected || st.Paired || !st.CooldownUntil.IsZero() {
				t.Errorf("%+v", st)
			}
			if names, _ := w.vault.ListObjects(context.Background(), "shop"); len(names) != 0 {
				t.Errorf("credentials are left: %v", names)
			}
			if c := w.command(state.VerbStart, nil); c.State != state.CommandDone {
				t.Errorf("pairing again at once: %+v", c)
			}
			if st := w.status(); st.State != state.Pairing {
				t.Errorf("after start %s", st.State)
			}
		})
	})
	t.Run("repair", func(t *testing.T) {
		online(t, func(t *testing.T, w *world) {
			if c := w.command(state.VerbRepair, nil); c.State != state.CommandDone {
				t.Fatalf("%+v", c)
			}
			if st := w.status(); st.State != state.Pairing || st.Paired {
				t.Errorf("%s paired %v", st.State, st.Paired)
			}
		})
	})
	t.Run("repair in a cooldown", func(t *testing.T) {
		online(t, func(t *testing.T, w *world) {
			w.last().signal(policy.Signal{Kind: policy.SignalLoggedOut, Code: 401})
			time.Sleep(time.Minute)
			if c := w.command(state.VerbRepair, nil); c.State != state.CommandFailed || c.Code != "cooldown" {
				t.Errorf("%+v", c)
			}
			if c := w.command(state.VerbRepair, map[string]string{"force": "true"}); c.State != state.CommandDone {
				t.Errorf("forced: %+v", c)
			}
			if st := w.status(); st.State != state.Pairing {
				t.Errorf("%s", st.State)
			}
		})
	})
	t.Run("restore", func(t *testing.T) {
		online(t, func(t *testing.T, w *world) {
			w.last().signal(policy.Signal{Kind: policy.SignalLoggedOut, Code: 401})
			time.Sleep(10 * time.Minute)
			if st := w.status(); st.Paired || st.State != state.Conflict {
				t.Fatalf("%+v", st)
			}
			if c := w.command(state.VerbRestore, nil); c.State != state.CommandDone {
				t.Fatalf("%+v", c)
			}
			if st := w.status(); st.State != state.Online || !st.Paired {
				t.Errorf("%s paired %v", st.State, st.Paired)
			}
		})
	})
	t.Run("restore of nothing while a code is shown", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			w.behave = showCodes
			w.start()
			time.Sleep(time.Second)
			if c := w.command(state.VerbRestore, nil); c.State != state.CommandFailed || c.Code != "nothing_to_restore" {
				t.Errorf("%+v", c)
			}
			if n, st := len(w.dialled()), w.status(); n != 1 || st.State != state.Pairing {
				t.Errorf("%d dials, %s: the code that somebody is scanning was taken away", n, st.State)
			}
		})
	})
	t.Run("restore where META is garbage", func(t *testing.T) {
		online(t, func(t *testing.T, w *world) {
			w.last().signal(policy.Signal{Kind: policy.SignalLoggedOut, Code: 401})
			time.Sleep(time.Minute)
			meta, err := w.store.Get(context.Background(), state.OfSession("shop"), state.Key{Kind: state.KindMeta})
			if err != nil {
				t.Fatal(err)
			}
			garbage := state.Put(state.KindMeta, "", []byte("garbage"))
			garbage.Rev = meta.Rev + 1
			if err := w.store.Update(context.Background(), state.OfSession("shop"), []state.Write{garbage}); err != nil {
				t.Fatal(err)
			}
			if c := w.command(state.VerbRestore, nil); c.State != state.CommandFailed || c.Code != "nothing_to_restore" {
				t.Errorf("%+v", c)
			}
			if st := w.status(); st.State != state.Conflict {
				t.Errorf("%s", st.State)
			}
		})
	})
	t.Run("an old code is hidden before the restart is done", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			w.behave = func(l *fakeLine) {
				if len(w.dialled()) == 1 {
					showCodes(l)
				}
			}
			restarted := 0
			w.cfg = func(c *Config) {
				next := c.Committed
				c.Committed = func(name string, events []state.Event) {
					next(name, events)
					for _, e := range events {
						if e.Type != state.EventCommandDone {
							continue
						}
						restarted++
						if _, err := w.store.Get(context.Background(), state.OfSession("shop"), state.Key{Kind: state.KindQR}); err == nil {
							t.Error("the restart is done, and the old code is still to be had")
						}
					}
				}
			}
			w.start()
			time.Sleep(time.Second)
			if c := w.command(state.VerbRestart, nil); c.State != state.CommandDone || restarted != 1 {
				t.Errorf("%+v, told of %d times", c, restarted)
			}
		})
	})
	t.Run("quarantine ends", func(t *testing.T) {
		online(t, func(t *testing.T, w *world) {
			w.last().signal(policy.Signal{Kind: policy.SignalLoggedOut, Code: 401})
			time.Sleep(8 * 24 * time.Hour)
			if c := w.command(state.VerbRestore, nil); c.State != state.CommandFailed || c.Code != "nothing_to_restore" {
				t.Errorf("%+v", c)
			}
			if names, _ := w.vault.ListObjects(context.Background(), "shop"); len(names) != 0 {
				t.Errorf("credentials are left after their quarantine: %v", names)
			}
		})
	})
	t.Run("delete", func(t *testing.T) {
		online(t, func(t *testing.T, w *world) {
			w.command(state.VerbDelete, nil)
			if err := <-w.ended; err != nil || !w.s.Removed() {
				t.Errorf("%v, removed %v", err, w.s.Removed())
			}
			if _, err := w.store.Owner(context.Background(), "shop"); err == nil {
				t.Error("the session is still there")
			}
		})
	})
}

func TestAProcessThatDiesThreeTimesParksTheSession(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		die := func(cfg func(*Config)) {
			w.cfg = cfg
			w.start()
			time.Sleep(time.Minute)
			// The actor of a dead process neither commits nor releases.
			w.lease.Lose(context.DeadlineExceeded)
			synctest.Wait()
			<-w.ended //nolint:errcheck // how a dead process ended tells nothing
		}
		blamed := func(c *Config) { c.Blamed = true }
		for range 20 {
			die(func(c *Config) { c.Innocent = true }) // killed from outside
		}
		if n := len(w.dialled()); n != 20 {
			t.Fatalf("%d dials after 20 kills: a kill must not park it", n)
		}
		for range 3 {
			die(blamed)
		}
		w.cfg = blamed
		w.start()
		time.Sleep(30 * time.Minute)
		st := w.status()
		if st.Cause != state.CausePoisoned || st.State != state.Failing || !st.Paired {
			t.Fatalf("%s %s paired %v", st.State, st.Cause, st.Paired)
		}
		time.Sleep(time.Hour)
		if st := w.status(); st.State != state.Online {
			t.Errorf("after the hour %s", st.State)
		}
	})
}

func TestDamagedCredentialsAreNeverUsed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		ctx := context.Background()
		names, err := w.vault.ListObjects(ctx, "shop")
		if err != nil || len(names) != 1 {
			t.Fatalf("%v %v", names, err)
		}
		body, _ := w.vault.GetObject(ctx, "shop", names[0], "")
		_ = w.vault.DeleteObject(ctx, "shop", names[0], "")
		if _, err := w.vault.PutObject(ctx, "shop", names[0], body[:len(body)/2]); err != nil {
			t.Fatal(err)
		}
		w.start()
		time.Sleep(24 * time.Hour)
		st := w.status()
		if st.Cause != state.CauseStaleCredentials || st.State != state.Failing || len(w.dialled()) != 0 {
			t.Errorf("%s %s, %d dials", st.State, st.Cause, len(w.dialled()))
		}
		w.behave = showCodes
		if c := w.command(state.VerbRepair, nil); c.State != state.CommandDone {
			t.Errorf("%+v", c)
		}
		if st := w.status(); st.State != state.Pairing {
			t.Errorf("after repair %s %s", st.State, st.Cause)
		}
	})
}
