package main

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
)

// received waits for an event of a text that came in.
func (p *process) received(ctx context.Context, t *testing.T, text string) map[string]any {
	t.Helper()
	for {
		p.mu.Lock()
		for _, e := range p.events {
			var data map[string]any
			if e.Type == state.EventMessage && json.Unmarshal(e.Data, &data) == nil && data["text"] == text {
				p.mu.Unlock()
				return data
			}
		}
		p.mu.Unlock()
		if ctx.Err() != nil {
			t.Fatalf("%q never came in", text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestGroupsCodesAndAPhoneThatTalks goes beyond texts between two: a pairing by
// code, a phone that shares its keys and history, groups both ways, a message
// that does not decrypt and is asked for again, and all of it across a kill.
func TestGroupsCodesAndAPhoneThatTalks(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sim := startSim(t, wasim.Options{})
	p := newProcess(t, sim, quickly...)
	p.start()

	// Pairing by a code that is typed on the phone.
	var cmd adminapi.Command
	for cmd.PairCode == "" {
		status, err := p.ask(ctx, "POST", "/api/sessions/default/pair-code?wait=20s", map[string]string{"phone": "491700000001"}, &cmd)
		if ctx.Err() != nil {
			t.Fatalf("no pairing code: %d %v %+v", status, err, cmd)
		}
		time.Sleep(50 * time.Millisecond)
	}
	dev, err := sim.Phone("491700000001").EnterCode(ctx, cmd.PairCode)
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}

	group, err := sim.NewGroup("friends", "491700000002", "491700000003", "491700000001")
	if err != nil {
		t.Fatal(err)
	}
	ada, bob := sim.Contact("491700000002"), sim.Contact("491700000003")
	jid := group.JID.String()
	for round := range 3 {
		hello := fmt.Sprintf("hello all %d", round)
		if _, err := ada.SendGroup(ctx, jid, hello); err != nil {
			t.Fatal(err)
		}
		if got := p.received(ctx, t, hello); got["isGroup"] != true || got["chat"] != jid {
			t.Errorf("%v", got)
		}
		answer := fmt.Sprintf("hello back %d", round)
		if status, err := p.ask(ctx, "POST", "/api/sessions/default/messages", map[string]string{"to": jid, "text": answer}, nil); err != nil || status != 202 {
			t.Fatalf("%d %v", status, err)
		}
		for _, c := range []*wasim.Contact{ada, bob} {
			if _, err := c.WaitText(ctx, answer); err != nil {
				t.Fatalf("%s never read %q", c.Number(), answer)
			}
		}
		if round == 1 {
			p.kill()
			p.start()
			if err := dev.WaitOnline(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}

	// A message that does not open is asked for again, and comes.
	if _, err := sim.Inject(wasim.Fault{Kind: wasim.CorruptMessage, Device: "491700000001", Contact: "491700000003"}); err != nil {
		t.Fatal(err)
	}
	if _, err := bob.SendText(ctx, "491700000001", "damaged on the way"); err != nil {
		t.Fatal(err)
	}
	p.received(ctx, t, "damaged on the way")
	if err := dev.WaitDrained(ctx); err != nil {
		t.Error(err)
	}
	if _, err := p.until(ctx, "default", func(s adminapi.Session) bool { return s.State == state.Online && s.Undecryptable > 0 }); err != nil {
		t.Errorf("the message that could not be decrypted was not counted: %v", err)
	}
	if took := p.terminate(); took > 10*time.Second {
		t.Errorf("SIGTERM took %v", took)
	}
	truth := sim.Truth()
	if len(truth.Pairings) != 1 || len(truth.Overlaps) != 0 {
		t.Errorf("pairings %v, overlaps %v", truth.Pairings, truth.Overlaps)
	}
	for _, a := range truth.Anomalies {
		t.Errorf("the server saw: %+v", a)
	}
	for _, c := range []*wasim.Contact{ada, bob} {
		for _, f := range c.Undecryptable() {
			t.Errorf("%s could not read: %+v", c.Number(), f)
		}
	}
}
