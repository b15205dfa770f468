package device_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
)

// What a restored store names must not be used again: neither what is in use, nor
// what was put away before.
func TestDistrust(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, memory.New(time.Now))
	d := w.paired()
	if err := d.Quarantine(ctx, state.CauseLoggedOut, journal.Batch{}); err != nil {
		t.Fatal(err)
	}
	w.paired()

	cfg := w.config(w.claim())
	status := journal.Batch{Writes: []state.Write{state.Put(state.KindStatus, "", []byte("told"))}}
	// Neither vault nor master key are needed.
	cfg.Vault = nothing{}
	if taken, err := device.Distrust(ctx, cfg, status); !taken || err != nil {
		t.Fatalf("taken %v, %v", taken, err)
	}
	part := state.OfSession(session)
	if rec, err := w.store.Get(ctx, part, state.Key{Kind: state.KindStatus}); err != nil || string(rec.Value) != "told" {
		t.Errorf("what was to be committed with it: %q, %v", rec.Value, err)
	}
	rec, err := w.store.Get(ctx, part, state.Key{Kind: state.KindMeta})
	if err != nil {
		t.Fatal(err)
	}
	var m state.Meta
	if err := state.Decode(rec.Value, &m); err != nil {
		t.Fatal(err)
	}
	if m.Credential != nil || len(m.Keyset) > 0 || m.KeysetID != "" || len(m.Quarantined) != 2 {
		t.Errorf("META has credential %v, keyset %q and %d sets in quarantine", m.Credential, m.KeysetID, len(m.Quarantined))
	}
	for _, q := range m.Quarantined {
		if q.Cause != state.CauseStaleCredentials || len(q.Keyset) == 0 || !q.Until.After(time.Now()) {
			t.Errorf("in quarantine: %+v", q)
		}
	}
	if err := device.Restore(ctx, w.config(w.claim())); !errors.Is(err, device.ErrNothingToRestore) {
		t.Errorf("restored: %v", err)
	}

	// Once more there is nothing to do, and nothing is committed with it.
	again := journal.Batch{Writes: []state.Write{state.Put(state.KindStatus, "", []byte("again"))}}
	if taken, err := device.Distrust(ctx, w.config(w.claim()), again); taken || err != nil {
		t.Errorf("a second time: taken %v, %v", taken, err)
	}
	if rec, _ := w.store.Get(ctx, part, state.Key{Kind: state.KindStatus}); string(rec.Value) != "told" {
		t.Errorf("a second time it was committed: %q", rec.Value)
	}

	// The session pairs anew, with other keys, and what it has then can be put away
	// and restored as ever.
	d = w.paired()
	if err := d.Quarantine(ctx, state.CauseLoggedOut, journal.Batch{}); err != nil {
		t.Fatal(err)
	}
	if err := device.Restore(ctx, w.config(w.claim())); err != nil {
		t.Errorf("what was paired since: %v", err)
	}
}

// nothing is a vault that does not answer.
type nothing struct{ state.Vault }
