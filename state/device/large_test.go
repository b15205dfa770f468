package device_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// TestLargeMessage has a message of 450 KB arrive, whose event does not fit into a
// record, over a store and a vault that die at every call on its way. It is
// acknowledged when its event is whole and durable, and not before; the server's
// next delivery makes it one event.
func TestLargeMessage(t *testing.T) {
	ctx := context.Background()
	text := strings.Repeat("0123456789", 45_000)
	for _, fault := range []string{"none", "vault", "before the commit", "after the commit"} {
		t.Run(fault, func(t *testing.T) {
			store := statetest.Fault(memory.New(time.Now))
			w := newWorld(t, store)
			d := w.paired()
			ann := newContact(t)
			m := ann.write(ours, d.Library(), "M1", text)
			inner := w.vault
			switch fault {
			case "vault":
				w.vault = downVault{inner}
				d = w.open()
				w.vault = inner
			case "before the commit":
				store.FailBefore(statetest.Of(statetest.Commit), -1, nil)
			case "after the commit":
				store.FailAfter(statetest.Of(statetest.Commit), -1, nil)
			}
			got := newClient(w, d).receive(ann.jid, m)
			if fault == "none" {
				if got != "receipt" {
					t.Fatalf("answered with %q", got)
				}
			} else {
				if got != "" {
					t.Fatalf("acknowledged with %q", got)
				}
				store.Heal()
				w.mu.Lock()
				w.poison = nil // another line
				w.mu.Unlock()
				d = w.open()
				if got := newClient(w, d).receive(ann.jid, m); got != "receipt" {
					t.Fatalf("the next delivery is answered with %q", got)
				}
			}
			page, err := w.store.Query(ctx, state.OfSession(session), state.Query{Kind: state.KindEvent})
			must(t, err)
			if len(page.Records) != 1 {
				t.Fatalf("%d events", len(page.Records))
			}
			var stored state.StoredEvent
			must(t, state.Decode(page.Records[0].Value, &stored))
			if stored.Large == nil {
				t.Fatal("not in the vault")
			}
			e, err := journal.OpenLarge(ctx, w.vault, w.fleet.Open, state.OfSession(session), page.Records[0].Key.ID, *stored.Large)
			must(t, err)
			if string(e.Data) != fmt.Sprintf("%q", "M1 "+text) {
				t.Errorf("the event has %d bytes", len(e.Data))
			}
			findings, err := device.Verify(ctx, w.config(w.claim()))
			must(t, err)
			if len(findings) > 0 {
				t.Error(findings)
			}
		})
	}
}

// downVault takes nothing.
type downVault struct{ state.Vault }

func (downVault) PutObject(context.Context, string, string, []byte) (string, error) {
	return "", fmt.Errorf("%w: injected", state.ErrUnavailable)
}

// TestLargeEventsAreSwept: objects of events that no record points to go after a
// while; those that wait for a receiver stay, also when the device is destroyed.
func TestLargeEventsAreSwept(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, memory.New(time.Now))
	now := time.Now()
	w.now = func() time.Time { return now }
	w.paired()
	j := w.claim()
	text := strings.Repeat("0123456789", 45_000)
	must(t, j.Commit(ctx, journal.Batch{Events: []journal.Draft{{Type: state.EventMessage, Data: text}}}))
	must(t, j.Commit(ctx, journal.Batch{Events: []journal.Draft{{Type: state.EventMessage, Data: text}}}))
	must(t, j.Commit(ctx, journal.Batch{Writes: []state.Write{state.Del(state.KindEvent, state.EventID(1))}}))
	events := func() (n int) {
		for _, name := range w.objects() {
			if strings.HasPrefix(name, state.LargeEventPrefix) {
				n++
			}
		}
		return n
	}
	d := w.open()
	must(t, d.Destroy(ctx, journal.Batch{}))
	must(t, device.Sweep(ctx, w.config(w.claim())))
	if n := events(); n != 2 {
		t.Fatalf("%d objects at first", n)
	}
	now = now.Add(2 * time.Hour)
	must(t, device.Sweep(ctx, w.config(w.claim())))
	if n := events(); n != 1 {
		t.Fatalf("%d objects after the sweep", n)
	}
	must(t, device.Purge(ctx, w.vault, session))
	if n := len(w.objects()); n != 0 {
		t.Fatalf("%d objects of a session that is gone", n)
	}
}
