package journal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
)

// flaky is a vault that fails so many times.
type flaky struct {
	*memory.Vault
	fails int
}

func (v *flaky) PutObject(ctx context.Context, session, name string, body []byte) (string, error) {
	if v.fails != 0 {
		v.fails--
		return "", fmt.Errorf("%w: injected", state.ErrUnavailable)
	}
	return v.Vault.PutObject(ctx, session, name, body)
}

func largeText() string { return strings.Repeat("0123456789", 45_000) }

// TestLargeEvent: an event of 450 KB lies whole in the vault, sealed, before its
// record names it; its record stands for it; and the object goes with the content
// once every sink has had it.
func TestLargeEvent(t *testing.T) {
	ctx := context.Background()
	o := newOwner(t)
	vault := &flaky{Vault: memory.NewVault(), fails: 2}
	j := o.open(func(c *journal.Config) { c.Vault = vault })
	must(t, j.Commit(ctx, event(largeText())))
	must(t, j.Commit(ctx, event("small")))
	if len(o.events) != 2 || len(o.events[0].Data) != len(largeText())+2 {
		t.Fatalf("told of %d events", len(o.events))
	}
	records := o.stored(state.KindEvent)
	var stored state.StoredEvent
	must(t, state.Decode(records[0].Value, &stored))
	if stored.Large == nil || len(records[0].Value) > 2000 {
		t.Fatalf("the record has %d bytes and points to %v", len(records[0].Value), stored.Large)
	}
	cut, err := j.OpenEvent(records[0])
	must(t, err)
	if cut.ID != o.events[0].ID || string(cut.Data) != fmt.Sprintf(`{"large":true,"bytes":%d}`, len(largeText())+2) {
		t.Errorf("the record reads as %+v", cut)
	}
	whole, err := journal.OpenLarge(ctx, vault, o.fleet.Open, partition, records[0].Key.ID, *stored.Large)
	must(t, err)
	if whole.ID != cut.ID || string(whole.Data) != `"`+largeText()+`"` {
		t.Errorf("the object reads as %s with %d bytes", whole.ID, len(whole.Data))
	}
	body, err := vault.GetObject(ctx, session, stored.Large.Name, "")
	must(t, err)
	if strings.Contains(string(body), "0123456789") {
		t.Error("in the clear")
	}
	if _, err := journal.OpenLarge(ctx, vault, o.fleet.Open, partition, state.EventID(2), *stored.Large); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("an object in another's place: %v", err)
	}
	j.Delivered("hook", 1)
	must(t, j.Flush(ctx))
	if names, _ := vault.ListObjects(ctx, session); len(names) != 0 {
		t.Errorf("left in the vault: %v", names)
	}
	must(t, state.Decode(o.stored(state.KindEvent)[0].Value, &stored))
	_, err = journal.OpenLarge(ctx, vault, o.fleet.Open, partition, records[0].Key.ID, state.LargeEvent{Name: "event-x"})
	if !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("a missing object: %v", err)
	}
	var trimmed state.StoredEvent
	must(t, state.Decode(o.stored(state.KindEvent)[0].Value, &trimmed))
	if !trimmed.Trimmed || trimmed.Large != nil {
		t.Errorf("after the delivery: %+v", trimmed)
	}
}

// TestLargeEventFails: without the vault nothing of the event is stored and the
// journal breaks, so that its message is not acknowledged; where there is no vault
// at all the event is stored without its data.
func TestLargeEventFails(t *testing.T) {
	ctx := context.Background()
	o := newOwner(t)
	j := o.open(func(c *journal.Config) {
		c.Vault, c.Retry = &flaky{Vault: memory.NewVault(), fails: -1}, 50*time.Millisecond
	})
	if err := j.Commit(ctx, event(largeText())); !errors.Is(err, state.ErrUnavailable) || j.Err() == nil {
		t.Fatalf("got %v", err)
	}
	if n := len(o.stored(state.KindEvent)); n != 0 || len(o.events) != 0 {
		t.Fatalf("%d events", n)
	}
	j = o.open(nil)
	must(t, j.Commit(ctx, event(largeText())))
	if e, err := j.OpenEvent(o.stored(state.KindEvent)[0]); err != nil || !strings.Contains(string(e.Data), `"large":true`) {
		t.Errorf("%+v, %v", e, err)
	}
}
