package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// what the moves add to the events of a furnished session.
const movedEvent = `{"attempt":0,"cause":"moved","code":0,"paired":true,"previous":"online","since":`

// TestMove: a session goes to another store with all that it has, is refused
// where it was, and comes back with what it became.
func TestMove(t *testing.T) {
	ctx := context.Background()
	home, cloud := newMemory(t, "home"), newMemory(t, "cloud")
	home.furnished()
	file, k := temp(t), newKey(t)
	report, err := exportTo(home, file, k)
	must(t, err)
	if report.Session != shop || report.Unsent != 2 || report.Events != 4 || report.Objects != 2 || report.Left != 0 || report.Unread != 0 || report.Size == 0 {
		t.Errorf("%+v", report)
	}
	tidy(t, file, "shop.holdfast")
	content, err := os.ReadFile(file)
	must(t, err)
	for _, secret := range []string{shop, "ratchet", "example.com", "15550001111", "event 2"} {
		if bytes.Contains(content, []byte(secret)) {
			t.Errorf("the file shows %q", secret)
		}
	}
	home.refuses(device.ErrMoved)
	if st := home.status(); st.State != state.Stopped || st.Cause != state.CauseMoved || st.Paired || st.Holding {
		t.Errorf("the source's status is %+v", st)
	}
	if due := home.due(); len(due) != 0 {
		t.Errorf("the source would still send %v", due)
	}
	if m := home.meta(); m.Credential != nil || !m.Moved.Done || m.Moved.To != "the cloud" || len(m.Quarantined) != 1 {
		t.Errorf("the source's META is %+v", m)
	}

	got, err := importFrom(cloud, file, k)
	must(t, err)
	if got.Records != report.Records || got.Objects != report.Objects || got.ID != report.ID {
		t.Errorf("exported %+v, imported %+v", report, got)
	}
	history := cloud.history()
	moved := string(history[3].Data)
	if !strings.HasPrefix(moved, movedEvent) {
		t.Errorf("the last event is %s", moved)
	}
	events := []string{`{"trimmed":true}`, `"event 2"`, `"event 3"`, moved}
	cloud.whole(events...)
	st, spec := cloud.status(), cloud.spec()
	if !st.Paired || st.State != state.Connecting || st.Cause != state.CauseNone || st.Holding || st.CooldownUntil.Unix() != 5000000000 {
		t.Errorf("the target's status is %+v", st)
	}
	if spec.Wanted != state.WantRunning || spec.Generation <= 3 || st.ObservedGeneration > spec.Generation {
		t.Errorf("the target's spec is %+v, observed %d", spec, st.ObservedGeneration)
	}
	settings, err := cloud.fleet.Open(seal.Place{Partition: partition, Kind: state.KindSpec}, spec.Settings)
	if err != nil || !strings.Contains(string(settings), "example.com") {
		t.Errorf("the settings read %q, %v", settings, err)
	}
	identity, err := cloud.fleet.Open(seal.Place{Partition: partition, Kind: state.KindStatus}, st.Sealed)
	if err != nil || !strings.Contains(string(identity), "Shop") {
		t.Errorf("the identity reads %q, %v", identity, err)
	}
	if due := cloud.due(); len(due) != 2 || due["01A"] != "first" || due["01B"] != "second" {
		t.Errorf("the target has %v to send", due)
	}
	j := cloud.own()
	if j.Cursor("hook") != 1 {
		t.Errorf("the sink's cursor is at %d", j.Cursor("hook"))
	}

	// It lives on there: ratchets move, one message is sent, one event comes.
	d, err := cloud.device(j)
	must(t, err)
	must(t, d.Library().Sessions.PutSession(ctx, "0:0", []byte("ratchet 0"))) // as it was, so that whole holds
	must(t, d.Library().Sessions.DeleteSession(ctx, "5:0"))
	must(t, d.Library().Sessions.PutSession(ctx, "new:0", []byte("new")))
	must(t, j.Commit(ctx, event("in the cloud")))
	must(t, j.Flush(ctx))
	var item state.Outbox
	r, err := cloud.store.Get(ctx, partition, state.Key{Kind: state.KindOutbox, ID: "01A"})
	must(t, err)
	must(t, state.Decode(r.Value, &item))
	item.State = state.OutSent
	value, err := state.Encode(item)
	must(t, err)
	must(t, j.Commit(ctx, journal.Batch{Writes: []state.Write{state.Put(state.KindOutbox, "01A", value)}}))
	d.Close()
	j.Close()
	cloud.release()

	back, k2 := temp(t), newKey(t)
	_, err = exportTo(cloud, back, k2)
	must(t, err)
	cloud.refuses(device.ErrMoved)
	_, err = importFrom(home, back, k2)
	must(t, err)
	history = home.history()
	home.whole(append(events, `"in the cloud"`, string(history[len(history)-1].Data))...)
	if due := home.due(); len(due) != 1 || due["01B"] != "second" {
		t.Errorf("back home there is %v to send", due)
	}
	d = home.open()
	if got, err := d.Library().Sessions.HasSession(ctx, "5:0"); err != nil || got {
		t.Errorf("a ratchet from before the move: %v, %v", got, err)
	}
	if got, err := d.Library().Sessions.GetSession(ctx, "new:0"); err != nil || string(got) != "new" {
		t.Errorf("a ratchet of the cloud: %q, %v", got, err)
	}
	if m := home.meta(); m.Moved != nil || len(m.Quarantined) != 0 || !m.Imported.Done {
		t.Errorf("META is %+v", m)
	}
	d.Close()
	home.release()

	// An old file never comes back to life.
	for _, p := range []*place{home, cloud} {
		_, err = importFrom(p, file, k)
		switch p {
		case home:
			wantErr(t, err, ErrPaired)
		case cloud:
			wantErr(t, err, ErrImported)
		}
	}
	_, err = importFrom(home, back, k2)
	wantErr(t, err, ErrImported)
	must(t, cloud.store.RemoveSession(ctx, state.Fence{Session: shop, Epoch: epoch(t, cloud)}))
	_, err = importFrom(cloud, file, k)
	wantErr(t, err, ErrImported)
}

func epoch(t *testing.T, p *place) uint64 {
	t.Helper()
	o, err := p.store.Owner(context.Background(), shop)
	must(t, err)
	return o.Epoch
}

// TestExportRefuses: what cannot be moved is not touched.
func TestExportRefuses(t *testing.T) {
	ctx := context.Background()
	k := newKey(t)
	file := temp(t)
	t.Run("no such session", func(t *testing.T) {
		_, err := exportTo(newMemory(t, "home"), file, k)
		wantErr(t, err, state.ErrNotFound)
	})
	t.Run("not paired", func(t *testing.T) {
		p := newMemory(t, "home")
		p.create()
		_, err := exportTo(p, file, k)
		wantErr(t, err, ErrNotPaired)
	})
	t.Run("a file is there", func(t *testing.T) {
		p := newMemory(t, "home")
		p.furnished()
		file := temp(t)
		must(t, os.WriteFile(file, []byte("mine"), 0o600))
		_, err := exportTo(p, file, k)
		wantErr(t, err, ErrThere)
		if p.meta().Moved != nil {
			t.Error("marked all the same")
		}
		if b, _ := os.ReadFile(file); string(b) != "mine" {
			t.Error("overwritten")
		}
	})
	t.Run("the folder is not there", func(t *testing.T) {
		p := newMemory(t, "home")
		p.furnished()
		_, err := exportTo(p, filepath.Join(t.TempDir(), "none", "x"), k)
		if err == nil || !strings.Contains(err.Error(), "--take-back") {
			t.Fatal(err)
		}
		must(t, TakeBack(ctx, p.config(), shop))
		p.whole(`{"trimmed":true}`, `"event 2"`, `"event 3"`, string(p.history()[3].Data))
	})
	t.Run("credentials that cannot be used", func(t *testing.T) {
		p := newMemory(t, "home")
		p.furnished()
		must(t, p.vault.DeleteObject(ctx, shop, p.meta().Credential.Name, ""))
		_, err := exportTo(p, file, k)
		wantErr(t, err, state.ErrNotFound)
		if p.meta().Moved != nil {
			t.Error("marked all the same")
		}
	})
	t.Run("twice", func(t *testing.T) {
		p := newMemory(t, "home")
		p.furnished()
		first, second := temp(t), temp(t)
		report, err := exportTo(p, first, k)
		must(t, err)
		_, err = exportTo(p, second, k)
		wantErr(t, err, ErrMoved)
		again, err := Export(ctx, p.config(), ExportConfig{Session: shop, Path: second, Lock: k.lock, Again: true})
		must(t, err)
		if again.ID != report.ID || again.Records != report.Records || again.Unsent != 2 {
			t.Errorf("first %+v, again %+v", report, again)
		}
		cloud := newMemory(t, "cloud")
		_, err = importFrom(cloud, second, k)
		must(t, err)
		if due := cloud.due(); len(due) != 2 {
			t.Errorf("to send: %v", due)
		}
		_, err = importFrom(cloud, first, k)
		wantErr(t, err, ErrImported)
	})
	t.Run("nothing is kept", func(t *testing.T) {
		p := newMemory(t, "home")
		p.furnished()
		p.tune = func(c *Config) { c.Quarantine = 0 }
		_, err := exportTo(p, temp(t), k)
		must(t, err)
		if m := p.meta(); len(m.Quarantined) != 0 || m.Keyset != nil {
			t.Errorf("META is %+v", m)
		}
		wantErr(t, TakeBack(ctx, p.config(), shop), device.ErrNothingToRestore)
		_, err = Export(ctx, p.config(), ExportConfig{Session: shop, Path: temp(t), Lock: k.lock, Again: true})
		wantErr(t, err, ErrMoved)
	})
}

// TestImportRefuses: a session that lives here is not touched.
func TestImportRefuses(t *testing.T) {
	ctx := context.Background()
	home, k, file := newMemory(t, "home"), newKey(t), temp(t)
	home.furnished()
	_, err := exportTo(home, file, k)
	must(t, err)
	other := newMemory(t, "other")
	other.furnished()
	_, err = importFrom(other, file, k)
	wantErr(t, err, ErrPaired)
	other.whole(`{"trimmed":true}`, `"event 2"`, `"event 3"`)
	_, err = importFrom(home, file, k)
	wantErr(t, err, ErrOwnFile)
	home.refuses(device.ErrMoved)
	_, err = Import(ctx, home.config(), ImportConfig{Path: file, Key: k.key, TakeBack: true})
	must(t, err)
	home.whole(`{"trimmed":true}`, `"event 2"`, `"event 3"`, string(home.history()[3].Data))
}

// TestIntoAnUnpairedSession: a session that was made and never paired is filled,
// also when its worker shows a QR just then.
func TestIntoAnUnpairedSession(t *testing.T) {
	home, cloud, k, file := newMemory(t, "home"), newMemory(t, "cloud"), newKey(t), temp(t)
	home.furnished()
	_, err := exportTo(home, file, k)
	must(t, err)
	cloud.create()
	d := cloud.open()
	must(t, d.Library().Sessions.PutSession(context.Background(), "x:0", []byte("of a pairing that never ended")))
	d.Close()
	cloud.release()
	_, err = importFrom(cloud, file, k)
	must(t, err)
	cloud.whole(`{"trimmed":true}`, `"event 2"`, `"event 3"`, string(cloud.history()[3].Data))
}

// TestTakeBack: after an export whose file was lost the session goes on where it
// was, with its messages to send.
func TestTakeBack(t *testing.T) {
	ctx := context.Background()
	home, k := newMemory(t, "home"), newKey(t)
	home.furnished()
	wantErr(t, TakeBack(ctx, home.config(), shop), device.ErrNotMoved)
	wantErr(t, TakeBack(ctx, home.config(), "none"), state.ErrNotFound)
	_, err := exportTo(home, temp(t), k)
	must(t, err)
	j := home.own()
	wantErr(t, device.Restore(ctx, device.Config{Journal: j, Store: home.store, Vault: home.vault, Master: home.master, Session: shop}), device.ErrMoved)
	j.Close()
	home.release()
	must(t, TakeBack(ctx, home.config(), shop))
	home.whole(`{"trimmed":true}`, `"event 2"`, `"event 3"`, string(home.history()[3].Data))
	if due := home.due(); len(due) != 2 || due["01A"] != "first" {
		t.Errorf("to send: %v", due)
	}
	if st := home.status(); !st.Paired || st.Cause != state.CauseNone || st.State != state.Online && st.State != state.Connecting {
		t.Errorf("%+v", st)
	}
}

// TestGiveUp: a moved session can be paired anew; what went along is not sent.
func TestGiveUp(t *testing.T) {
	ctx := context.Background()
	home, k := newMemory(t, "home"), newKey(t)
	home.furnished()
	_, err := exportTo(home, temp(t), k)
	must(t, err)
	home.queue("01C", "too late")
	j := home.own()
	must(t, device.GiveUp(ctx, device.Config{Journal: j, Store: home.store, Vault: home.vault, Master: home.master, Session: shop}))
	d, err := home.device(j)
	must(t, err)
	if d.Paired() {
		t.Error("paired")
	}
	if due := home.due(); len(due) != 1 || due["01C"] != "too late" {
		t.Errorf("to send: %v", due)
	}
	r, err := home.store.Get(ctx, partition, state.Key{Kind: state.KindOutbox, ID: "01A"})
	must(t, err)
	var item state.Outbox
	must(t, json.Unmarshal(r.Value, &item))
	if item.State != state.OutCancelled || item.Code != state.CodeMoved || r.Expires.IsZero() {
		t.Errorf("%+v", item)
	}
}

// TestLate: a message that is queued after the file was written stays, is told
// of, and is sent once the session is back.
func TestLate(t *testing.T) {
	home, k, file := newMemory(t, "home"), newKey(t), temp(t)
	home.furnished()
	_, err := exportTo(home, file, k)
	must(t, err)
	home.queue("01C", "too late")
	cloud := newMemory(t, "cloud")
	_, err = importFrom(cloud, file, k)
	must(t, err)
	back := temp(t)
	_, err = exportTo(cloud, back, k)
	must(t, err)
	_, err = importFrom(home, back, k)
	must(t, err)
	if due := home.due(); len(due) != 3 || due["01C"] != "too late" {
		t.Errorf("to send: %v", due)
	}
}

// TestUnreadable: what cannot be opened here comes along as what it is, and the
// move is not held up.
func TestUnreadable(t *testing.T) {
	ctx := context.Background()
	home, cloud, k, file := newMemory(t, "home"), newMemory(t, "cloud"), newKey(t), temp(t)
	home.furnished()
	j := home.own()
	other, err := seal.NewKeyset()
	must(t, err)
	sealed, err := other.Seal(seal.Place{Partition: partition, Kind: state.KindEvent, ID: state.EventID(2)}, []byte("{}"))
	must(t, err)
	value, err := state.Encode(state.StoredEvent{V: state.Format, ID: "x", Type: state.EventMessage, At: time.Now(), Sealed: sealed})
	must(t, err)
	must(t, j.Commit(ctx, journal.Batch{Writes: []state.Write{state.Put(state.KindEvent, state.EventID(2), value),
		state.Put(state.KindDead, "garbage", []byte("garbage"))}}))
	j.Close()
	home.release()
	report, err := exportTo(home, file, k)
	must(t, err)
	if report.Unread != 2 {
		t.Errorf("%+v", report)
	}
	_, err = importFrom(cloud, file, k)
	must(t, err)
	d := cloud.open()
	if !d.Paired() {
		t.Error("not paired")
	}
}

// TestLargeEvents come along whole, and those that cannot be read do not hold the
// others up.
func TestLargeEvents(t *testing.T) {
	ctx := context.Background()
	home, cloud, k, file := newMemory(t, "home"), newMemory(t, "cloud"), newKey(t), temp(t)
	home.furnished()
	j := home.own()
	text := strings.Repeat("0123456789", 45_000)
	for range 2 {
		must(t, j.Commit(ctx, journal.Batch{Events: []journal.Draft{{Type: state.EventMessage, Data: text}}}))
	}
	large := func(p *place, seq uint64) *state.LargeEvent {
		t.Helper()
		r, err := p.store.Get(ctx, partition, state.Key{Kind: state.KindEvent, ID: state.EventID(seq)})
		must(t, err)
		var stored state.StoredEvent
		must(t, state.Decode(r.Value, &stored))
		return stored.Large
	}
	must(t, home.vault.DeleteObject(ctx, shop, large(home, 5).Name, ""))
	j.Close()
	home.release()
	report, err := exportTo(home, file, k)
	must(t, err)
	if report.Unread != 1 || report.Objects != 3 {
		t.Errorf("%+v", report)
	}
	for range 2 { // once more over the objects of a run that was broken off
		_, err = importFrom(cloud, file, k)
		if err == nil {
			must(t, cloud.store.Update(ctx, state.Fleet, []state.Write{state.Del(state.KindFleet, "IMPORT#"+report.ID)}))
			o := cloud.own()
			m := cloud.meta()
			m.Credential, m.Imported.Done = nil, false
			value, err := state.Encode(m)
			must(t, err)
			must(t, o.Commit(ctx, journal.Batch{Writes: []state.Write{state.Put(state.KindMeta, "", value)}}))
			o.Close()
			cloud.release()
		}
		must(t, err)
	}
	e, err := journal.OpenLarge(ctx, cloud.vault, cloud.fleet.Open, partition, state.EventID(4), *large(cloud, 4))
	must(t, err)
	if string(e.Data) != `"`+text+`"` || e.Seq != 4 {
		t.Errorf("it reads as %d with %d bytes", e.Seq, len(e.Data))
	}
	if large(cloud, 5) != nil || len(cloud.history()) != 6 {
		t.Error("the one that was lost")
	}
}
