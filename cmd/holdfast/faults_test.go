package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/sqlite"
)

// quickly are settings under which a redial does not take long.
var quickly = []string{"--backoff", "200ms", "--network-delay", "200ms-300ms", "--restart-delay", "200ms", "--login-burst", "1000", "--connect-timeout", "5s",
	"--keepalive-interval", "1s", "--keepalive-deadline", "1s", "--pong-timeout", "4s", "--monitor-tick", "1s"}

// TestEachFaultOfTheService drives the whole program, with its unmodified
// client, through every row of the table of signals.
func TestEachFaultOfTheService(t *testing.T) {
	const kept, gone = true, false
	rows := []struct {
		name   string
		fault  wasim.Fault
		cause  state.Cause // of the state that it leads to, or of the reconnect
		state  state.State // where it stays; Online: it comes back by itself
		paired bool
	}{
		{"drop", wasim.Fault{Kind: wasim.DropFault, Now: true}, state.CauseConnectionLost, state.Online, kept},
		{"reset", wasim.Fault{Kind: wasim.ResetFault, Now: true}, state.CauseNetwork, state.Online, kept},
		{"close", wasim.Fault{Kind: wasim.CloseFault, Now: true}, state.CauseConnectionLost, state.Online, kept},
		{"streamend", wasim.Fault{Kind: wasim.StreamEnd, Now: true}, state.CauseConnectionLost, state.Online, kept},
		{"stream-515", wasim.Fault{Kind: wasim.StreamError, Code: 515, Now: true}, state.CauseRestartRequired, state.Online, kept},
		{"stream-503", wasim.Fault{Kind: wasim.StreamError, Code: 503, Now: true}, state.CauseUnavailable, state.Online, kept},
		{"stream-516", wasim.Fault{Kind: wasim.StreamError, Code: 516, Now: true}, state.CauseServerError, state.Online, kept},
		{"replaced", wasim.Fault{Kind: wasim.Replaced, Now: true}, state.CauseReplaced, state.Conflict, kept},
		{"device-removed", wasim.Fault{Kind: wasim.DeviceRemoved, Now: true}, state.CauseLoggedOut, state.Conflict, gone},
		{"failure-401", wasim.Fault{Kind: wasim.Failure, Code: 401}, state.CauseLoggedOut, state.Conflict, gone},
		{"failure-402", wasim.Fault{Kind: wasim.Failure, Code: 402, Ban: 101, ExpireSeconds: 3600}, state.CauseTemporaryBan, state.Banned, kept},
		{"failure-403", wasim.Fault{Kind: wasim.Failure, Code: 403}, state.CauseAccountLocked, state.Banned, gone},
		{"failure-405", wasim.Fault{Kind: wasim.Failure, Code: 405}, state.CauseClientOutdated, state.Online, kept},
		{"failure-406", wasim.Fault{Kind: wasim.Failure, Code: 406}, state.CauseAccountBanned, state.Banned, gone},
		{"failure-500", wasim.Fault{Kind: wasim.Failure, Code: 500}, state.CauseServerError, state.Online, kept},
		{"failure-503", wasim.Fault{Kind: wasim.Failure, Code: 503}, state.CauseUnavailable, state.Online, kept},
		{"failure-408", wasim.Fault{Kind: wasim.Failure, Code: 408}, state.CauseTimedOut, state.Online, kept},
		{"failure-428", wasim.Fault{Kind: wasim.Failure, Code: 428}, state.CauseConnectionLost, state.Online, kept},
		{"failure-440", wasim.Fault{Kind: wasim.Failure, Code: 440}, state.CauseReplaced, state.Conflict, kept},
		{"failure-515", wasim.Fault{Kind: wasim.Failure, Code: 515}, state.CauseRestartRequired, state.Online, kept},
		{"failure-411", wasim.Fault{Kind: wasim.Failure, Code: 411}, state.CauseMultideviceMismatch, state.Online, kept},
		{"failure-429", wasim.Fault{Kind: wasim.Failure, Code: 429}, state.CauseRateLimited, state.Reconnecting, kept},
		{"failure-400", wasim.Fault{Kind: wasim.Failure, Code: 400}, state.CauseRejected, state.Failed, kept},
		{"failure-409", wasim.Fault{Kind: wasim.Failure, Code: 409}, state.CauseRejected, state.Failed, kept},
		{"failure-413", wasim.Fault{Kind: wasim.Failure, Code: 413}, state.CauseRejected, state.Failed, kept},
		{"failure-414", wasim.Fault{Kind: wasim.Failure, Code: 414}, state.CauseRejected, state.Failed, kept},
		{"failure-415", wasim.Fault{Kind: wasim.Failure, Code: 415}, state.CauseRejected, state.Failed, kept},
		{"failure-418", wasim.Fault{Kind: wasim.Failure, Code: 418}, state.CauseRejected, state.Failed, kept},
		{"failure-501", wasim.Fault{Kind: wasim.Failure, Code: 501}, state.CauseRejected, state.Failed, kept},
		{"mute-login", wasim.Fault{Kind: wasim.Mute}, state.CauseTimedOut, state.Online, kept},
		{"timelock", wasim.Fault{Kind: wasim.Timelock, Now: true, ExpireSeconds: 600}, state.CauseReachoutRestricted, state.Online, kept},
		{"garbage-frame", wasim.Fault{Kind: wasim.GarbageFrame, Now: true}, "", state.Online, kept},
		{"garbage-node", wasim.Fault{Kind: wasim.GarbageNode, Now: true}, "", state.Online, kept},
		{"lying-frame", wasim.Fault{Kind: wasim.LyingFrame, Now: true}, "", state.Online, kept},
		{"oversized", wasim.Fault{Kind: wasim.Oversized, Now: true}, "", state.Online, kept},
		{"out-of-order", wasim.Fault{Kind: wasim.OutOfOrder, Now: true}, "", state.Online, kept},
		{"unknown-stanza", wasim.Fault{Kind: wasim.UnknownStanza, Now: true}, "", state.Online, kept},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	sim := startSim(t, wasim.Options{QuietPhone: true})
	p := newProcess(t, sim, quickly...)
	p.start()

	each := func(t *testing.T, i int, test func(t *testing.T)) {
		t.Run(rows[i].name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
	t.Run("rows", func(t *testing.T) { // returns when all have
		for i, row := range rows {
			each(t, i, func(t *testing.T) {
				number := fmt.Sprintf("4917000%05d", i+100)
				dev := p.create(ctx, t, sim, "s-"+row.name, number)
				row.fault.Device = number
				id, err := sim.Inject(row.fault)
				if err != nil {
					t.Fatal(err)
				}
				if !row.fault.Now {
					if err := dev.Drop(wasim.DropTCP); err != nil {
						t.Fatal(err)
					}
				}
				want := func(s adminapi.Session) bool {
					seen := row.cause == "" || s.Cause == row.cause || s.Disconnects[row.cause] > 0
					return seen && s.State == row.state && s.Paired == row.paired
				}
				// What follows is not the state before the fault.
				if err := sim.Wait(ctx, func(tr wasim.Truth) bool { return struck(tr, id) }); err != nil {
					t.Fatalf("the fault never struck: %v", err)
				}
				s, err := p.until(ctx, "s-"+row.name, want)
				if err != nil {
					t.Fatalf("state %s cause %s paired %v disconnects %v: %v", s.State, s.Cause, s.Paired, s.Disconnects, err)
				}
				if s.State == state.Online {
					// And it works: a message goes through.
					ada := sim.Contact(fmt.Sprintf("4918000%05d", i))
					id, err := ada.SendText(ctx, number, "still there?")
					if err != nil {
						t.Fatal(err)
					}
					if err := sim.Wait(ctx, func(tr wasim.Truth) bool {
						for _, m := range tr.Incoming {
							if m.ID == id && m.Acked != nil {
								return true
							}
						}
						return false
					}); err != nil {
						t.Errorf("a message afterwards was not acknowledged: %v", err)
					}
				}
			})
		}
	})
}

// struck says that this fault took effect.
func struck(tr wasim.Truth, id string) bool {
	for _, f := range tr.Faults {
		if f.Fault == id {
			return true
		}
	}
	return false
}

// create makes a session and pairs it.
func (p *process) create(ctx context.Context, t *testing.T, sim *wasim.Server, name, number string) *wasim.Device {
	t.Helper()
	for {
		status, err := p.ask(ctx, "POST", "/api/sessions", map[string]string{"name": name}, nil)
		if status == 202 || status == 409 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("session %s could not be made: %d %v", name, status, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	var qr adminapi.QR
	for {
		status, err := p.ask(ctx, "GET", "/api/sessions/"+name+"/qr?wait=20s", nil, &qr)
		if status == 200 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no QR of %s: %d %v", name, status, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	dev, err := sim.Phone(number).Scan(ctx, qr.Code)
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := p.until(ctx, name, func(s adminapi.Session) bool { return s.State == state.Online }); err != nil {
		t.Fatal(err)
	}
	return dev
}

// until waits until a session is as wanted, and returns it as it was last.
func (p *process) until(ctx context.Context, name string, wanted func(adminapi.Session) bool) (adminapi.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	var s adminapi.Session
	for {
		var now adminapi.Session
		if status, err := p.ask(ctx, "GET", "/api/sessions/"+name, nil, &now); err == nil && status == 200 {
			if s = now; wanted(s) {
				return s, nil
			}
		}
		if ctx.Err() != nil {
			return s, errors.New("never was as wanted")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestAStanzaThatKillsTheProcess parks the session that it is meant for, alone:
// the library handles iqs in a goroutine that recovers from nothing.
func TestAStanzaThatKillsTheProcess(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sim := startSim(t, wasim.Options{QuietPhone: true})
	p := newProcess(t, sim, quickly...)
	p.start()
	p.create(ctx, t, sim, "poisoned", "491700000101")
	healthy := p.create(ctx, t, sim, "healthy", "491700000102")
	// A pair-success without an id.
	if _, err := sim.Inject(wasim.Fault{Kind: wasim.Node, Device: "491700000101", Times: -1, Node: &wasim.Stanza{
		Tag: "iq", Attrs: map[string]string{"from": "s.whatsapp.net", "type": "set"}, Children: []wasim.Stanza{{Tag: "pair-success"}}}}); err != nil {
		t.Fatal(err)
	}
	dev, err := sim.Device("491700000101")
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Drop(wasim.DropTCP); err != nil {
		t.Fatal(err)
	}
	for death := 1; death <= 3; death++ {
		p.read.Wait() // its output ends when it dies
		if err := p.cmd.Wait(); err == nil {
			t.Fatalf("death %d: it was to die", death)
		}
		p.start()
	}
	s, err := p.until(ctx, "poisoned", func(s adminapi.Session) bool { return s.Cause == state.CausePoisoned })
	if err != nil || s.State != state.Failing || !s.Paired {
		t.Fatalf("state %s cause %s paired %v: %v", s.State, s.Cause, s.Paired, err)
	}
	if err := healthy.WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := p.until(ctx, "healthy", func(s adminapi.Session) bool { return s.State == state.Online }); err != nil {
		t.Errorf("the other session is %s: %v", s.State, err)
	}
}

// TestASessionThatSaysConnectedAndReceivesNothing answers pings, delivers
// nothing, and is noticed all the same. What then comes proves it.
func TestASessionThatSaysConnectedAndReceivesNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sim := startSim(t, wasim.Options{QuietPhone: true})
	p := newProcess(t, sim, append([]string{"--inbound-stall", "6s"}, quickly...)...)
	p.start()
	dev := p.create(ctx, t, sim, "stalled", "491700000101")
	if _, err := sim.Inject(wasim.Fault{Kind: wasim.Zombie, Device: "491700000101", Now: true}); err != nil {
		t.Fatal(err)
	}
	ada := sim.Contact("491700000002")
	if _, err := ada.SendText(ctx, "491700000101", "anybody there?"); err != nil {
		t.Fatal(err)
	}
	if s, err := p.until(ctx, "stalled", func(s adminapi.Session) bool {
		return s.Disconnects[state.CauseInboundStalled] == 1 && s.State == state.Online
	}); err != nil {
		t.Fatalf("%s %s %v: %v", s.State, s.Cause, s.Disconnects, err)
	}
	p.received(ctx, t, "anybody there?")
	if err := dev.WaitDrained(ctx); err != nil {
		t.Fatal(err)
	}
	for {
		p.mu.Lock()
		proved := 0
		for _, e := range p.events {
			if e.Type == state.EventStallProved {
				proved++
			}
		}
		p.mu.Unlock()
		if proved == 1 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the stall was told of %d times", proved)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestASessionWhoseRecordsAreGarbageCanBeDeleted and does not hold up the others.
func TestASessionWhoseRecordsAreGarbageCanBeDeleted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sim := startSim(t, wasim.Options{QuietPhone: true})
	p := newProcess(t, sim, quickly...)
	p.start()
	p.create(ctx, t, sim, "broken", "491700000101")
	p.terminate()
	store, err := sqlite.Open(filepath.Join(p.dir, "holdfast.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Update(ctx, state.OfSession("broken"), []state.Write{state.Put(state.KindSpec, "", []byte("garbage"))}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	p.start()
	for {
		status, err := p.ask(ctx, "DELETE", "/api/sessions/broken?wait=30s", nil, nil)
		if status == 404 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("%d %v", status, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	if _, err := p.until(ctx, "default", func(s adminapi.Session) bool { return s.State == state.Pairing }); err != nil {
		t.Error(err)
	}
}
