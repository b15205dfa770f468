package session

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// bubble runs a test in virtual time and ends the session in order behind it.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() {
			if w.s != nil {
				w.stop()
				synctest.Wait()
			}
		}()
		f(t, w)
	})
}

// TestEachSignalDoesWhatItsCauseSays walks the contract's table of causes.
func TestEachSignalDoesWhatItsCauseSays(t *testing.T) {
	const kept, gone = true, false
	tests := []struct {
		sig    policy.Signal
		cause  state.Cause
		state  state.State
		paired bool
		redial time.Duration // the longest delay; 0: none by itself within an hour
		cool   time.Duration
	}{
		{policy.Signal{Kind: policy.SignalLoggedOut, Code: 401}, state.CauseLoggedOut, state.Conflict, gone, 0, 5 * time.Minute},
		{policy.Signal{Kind: policy.SignalStreamError, Code: 401, Conflict: "device_removed"}, state.CauseLoggedOut, state.Conflict, gone, 0, 5 * time.Minute},
		{policy.Signal{Kind: policy.SignalLoggedOut, Code: 403}, state.CauseAccountLocked, state.Banned, gone, 0, 5 * time.Minute},
		{policy.Signal{Kind: policy.SignalLoggedOut, Code: 406}, state.CauseAccountBanned, state.Banned, gone, 0, 5 * time.Minute},
		{policy.Signal{Kind: policy.SignalTemporaryBan, Expire: 2 * time.Hour}, state.CauseTemporaryBan, state.Banned, kept, 0, 2 * time.Hour},
		{policy.Signal{Kind: policy.SignalStreamReplaced}, state.CauseReplaced, state.Conflict, kept, 0, 0},
		{policy.Signal{Kind: policy.SignalClientOutdated}, state.CauseClientOutdated, state.Reconnecting, kept, 5 * time.Second, 0},
		{policy.Signal{Kind: policy.SignalClosed}, state.CauseConnectionLost, state.Reconnecting, kept, 5 * time.Second, 0},
		{policy.Signal{Kind: policy.SignalLoginReconnect}, state.CauseRestartRequired, state.Restarting, kept, 2 * time.Second, 0},
		{policy.Signal{Kind: policy.SignalFailure, Code: 500}, state.CauseServerError, state.Reconnecting, kept, 5 * time.Second, 0},
		{policy.Signal{Kind: policy.SignalFailure, Code: 503}, state.CauseUnavailable, state.Reconnecting, kept, 5 * time.Second, 0},
		{policy.Signal{Kind: policy.SignalFailure, Code: 429}, state.CauseRateLimited, state.Reconnecting, kept, time.Minute, time.Minute},
		{policy.Signal{Kind: policy.SignalFailure, Code: 418}, state.CauseRejected, state.Failed, kept, 15 * time.Minute, 15 * time.Minute},
		{policy.Signal{Kind: policy.SignalPongTimeout}, state.CauseTimedOut, state.Reconnecting, kept, 5 * time.Second, 0},
		{policy.Signal{Kind: policy.SignalDecryptStorm}, state.CauseBadMAC, state.Failing, gone, 0, 5 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s-%d-%s", tt.sig.Kind, tt.sig.Code, tt.sig.Conflict), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.pair()
				first := true
				w.behave = func(l *fakeLine) {
					l.login()
					if first {
						first = false
						time.Sleep(2 * time.Minute)
						l.signal(tt.sig)
					}
				}
				w.start()
				time.Sleep(time.Minute)
				if st := w.status(); st.State != state.Online || st.Health != state.Healthy || !st.Holding {
					t.Fatalf("before the signal: %+v", st)
				}
				time.Sleep(time.Minute + 100*time.Millisecond)
				at := time.Now()
				st := w.status()
				if st.State != tt.state || st.Cause != tt.cause || st.Paired != tt.paired {
					t.Errorf("state %s cause %s paired %v, want %s %s %v", st.State, st.Cause, st.Paired, tt.state, tt.cause, tt.paired)
				}
				if cool := st.CooldownUntil.Sub(at); tt.cool == 0 != st.CooldownUntil.IsZero() || tt.cool > 0 && (cool < tt.cool-tt.cool/8-time.Second || cool > tt.cool+time.Second) {
					t.Errorf("cooldown %v, want %v", cool, tt.cool)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				dials := w.dialled()
				if tt.redial == 0 {
					if len(dials) != 1 {
						t.Errorf("%d dials, want the first alone", len(dials))
					}
					return
				}
				if len(dials) != 2 {
					t.Fatalf("%d dials, want 2", len(dials))
				}
				if wait := dials[1].Sub(at); wait > tt.redial || wait < tt.redial*8/10-200*time.Millisecond {
					t.Errorf("redialled after %v, want about %v", wait, tt.redial)
				}
				if st := w.status(); st.State != state.Online {
					t.Errorf("afterwards %s", st.State)
				}
			})
		})
	}
}

// TestNoCauseMakesAHotLoop fails every connection for one cause, a thousand
// times or for a month, and bounds the dials.
func TestNoCauseMakesAHotLoop(t *testing.T) {
	signals := []policy.Signal{
		{Kind: policy.SignalClosed}, {Kind: policy.SignalLoginReconnect}, {Kind: policy.SignalFailure, Code: 500},
		{Kind: policy.SignalFailure, Code: 503}, {Kind: policy.SignalFailure, Code: 429}, {Kind: policy.SignalFailure, Code: 418},
		{Kind: policy.SignalClientOutdated}, {Kind: policy.SignalPongTimeout}, {Kind: policy.SignalStreamReplaced},
		{Kind: policy.SignalLoggedOut, Code: 401}, {Kind: policy.SignalTemporaryBan}, {Kind: policy.SignalHandlerPanic},
		{Kind: policy.SignalInboundStalled}, {Kind: policy.SignalStreamError, Code: 516}, {Kind: policy.SignalDialFailed},
	}
	for _, sig := range signals {
		t.Run(fmt.Sprintf("%s-%d", sig.Kind, sig.Code), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.pair()
				w.behave = func(l *fakeLine) { l.login(); l.signal(sig) }
				w.start()
				begun := time.Now()
				for len(w.dialled()) < 1000 && time.Since(begun) < 30*24*time.Hour {
					time.Sleep(time.Hour)
				}
				dials := w.dialled()
				for i := 1; i < len(dials); i++ {
					if gap := dials[i].Sub(dials[i-1]); gap < 1800*time.Millisecond {
						t.Fatalf("dial %d came %v after the one before", i, gap)
					}
				}
				hours := time.Since(begun).Hours()
				most := 1200.0 // network: one in 3 s
				if sig.Kind != policy.SignalDialFailed {
					most = 90
				}
				if perHour := float64(len(dials)) / hours; perHour > most {
					t.Errorf("%.0f dials an hour, at most %.0f", perHour, most)
				}
			})
		})
	}
}

func TestDeadlinesHoldAcrossARestart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) {
			l.login()
			l.signal(policy.Signal{Kind: policy.SignalTemporaryBan, Expire: 3 * time.Hour})
		}
		w.start()
		time.Sleep(time.Hour)
		w.end()
		begun := time.Now()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Hour)
		if n := len(w.dialled()); n != 1 {
			t.Fatalf("dialled %d times during the ban", n)
		}
		if c := w.command(state.VerbStart, nil); c.State != state.CommandFailed || c.Code != "cooldown" {
			t.Errorf("start during the ban: %+v", c)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		dials := w.dialled()
		if len(dials) != 2 {
			t.Fatalf("%d dials after the ban", len(dials))
		}
		if wait := dials[1].Sub(begun); wait < 2*time.Hour-time.Second || wait > 2*time.Hour+time.Minute {
			t.Errorf("waited %v of the 2 h that were left", wait)
		}
	})
}

// TestDeadlinesGoByTheServersClock: a host whose clock jumps does not shorten a
// ban.
func TestDeadlinesGoByTheServersClock(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) {
			l.login()
			l.signal(policy.Signal{Kind: policy.SignalTemporaryBan, Expire: 3 * time.Hour})
		}
		w.start()
		time.Sleep(time.Minute)
		w.end()
		// The next host is two hours ahead of the server, which knows better.
		time.Sleep(2 * time.Hour)
		w.off = -2 * time.Hour
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(2 * time.Hour)
		if n := len(w.dialled()); n != 1 {
			t.Fatalf("%d dials during the ban", n)
		}
		time.Sleep(time.Hour)
		if st := w.status(); st.State != state.Online || len(w.dialled()) != 2 {
			t.Errorf("%s, %d dials after it", st.State, len(w.dialled()))
		}
	})
}

func TestReplacedNeverComesBackByItself(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		once := true
		w.behave = func(l *fakeLine) {
			l.login()
			if once {
				once = false
				l.signal(policy.Signal{Kind: policy.SignalStreamReplaced})
			}
		}
		w.start()
		time.Sleep(30 * 24 * time.Hour)
		w.end()
		w.start()
		time.Sleep(24 * time.Hour)
		if n := len(w.dialled()); n != 1 {
			t.Fatalf("dialled %d times", n)
		}
		if c := w.command(state.VerbStart, nil); c.State != state.CommandDone {
			t.Fatalf("start: %+v", c)
		}
		if st := w.status(); st.State != state.Online || !st.Paired {
			t.Errorf("after start: %s paired %v", st.State, st.Paired)
		}
	})
}

func TestAMuteServerIsNoticed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		line := w.last()
		line.mu.Lock()
		line.mute = true
		line.mu.Unlock()
		muted := time.Now()
		for range 300 {
			time.Sleep(time.Second)
			if st := w.status(); st.Cause == state.CauseTimedOut {
				// 60 s without a pong, then 3 ticks of 15 s.
				if took := time.Since(muted); took < 60*time.Second || took > 125*time.Second {
					t.Errorf("noticed after %v", took)
				}
				return
			}
		}
		t.Fatal("never noticed")
	})
}

func TestAStallIsNoticedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.quiet = true
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(13 * time.Hour)
		if n := len(w.dialled()); n != 2 {
			t.Fatalf("%d dials after 13 h of silence, want 2 (the bound is 12 h where nothing is known)", n)
		}
		if st := w.status(); st.Disconnects[state.CauseInboundStalled] != 1 {
			t.Errorf("disconnects: %v", st.Disconnects)
		}
	})
}

// TestTheHoursReachToWhenTheStatusWasObserved: who reads the record counts on from
// there, so time in between would be lost.
func TestTheHoursReachToWhenTheStatusWasObserved(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(10 * time.Minute)
		w.want(func(*state.Spec) {}) // that it was seen is in the next status
		time.Sleep(time.Minute)
		st := w.status()
		up := 0
		for _, h := range st.Hours {
			up += h.Up
		}
		online := st.ObservedAt.Sub(st.Since)
		if st.State != state.Online || online < 10*time.Second {
			t.Fatalf("%s, observed %v after it came online: nothing to compare", st.State, online)
		}
		if off := online - time.Duration(up)*time.Second; off < -2*time.Second || off > 2*time.Second {
			t.Errorf("%d s are counted of %v", up, online)
		}
	})
}
