package device_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/state/statetest/libtest"
)

func (w *world) meta() state.Meta {
	w.t.Helper()
	r, err := w.store.Get(context.Background(), state.OfSession(session), state.Key{Kind: state.KindMeta})
	must(w.t, err)
	var m state.Meta
	must(w.t, state.Decode(r.Value, &m))
	return m
}

func (w *world) objects() []string {
	w.t.Helper()
	names, err := w.vault.ListObjects(context.Background(), session)
	must(w.t, err)
	return names
}

// records counts the device records that are stored.
func (w *world) records() int {
	w.t.Helper()
	n := 0
	for _, kind := range []state.Kind{state.KindSignal, state.KindPreKey, state.KindDevice, state.KindEventHash, state.KindContact} {
		page, err := w.store.Query(context.Background(), state.OfSession(session), state.Query{Kind: kind})
		must(w.t, err)
		n += len(page.Records)
	}
	return n
}

// fill writes some records.
func fill(t *testing.T, dev *store.Device) {
	t.Helper()
	ctx := context.Background()
	must(t, dev.Sessions.PutSession(ctx, "1:0", []byte("ratchet")))
	must(t, dev.Identities.PutIdentity(ctx, "1:0", [32]byte{1}))
	_, err := dev.PreKeys.GetOrGenPreKeys(ctx, 30)
	must(t, err)
}

// same compares all that a credential holds.
func same(t *testing.T, got, want *store.Device) {
	t.Helper()
	if *got.NoiseKey.Priv != *want.NoiseKey.Priv || *got.NoiseKey.Pub != *want.NoiseKey.Pub ||
		*got.IdentityKey.Priv != *want.IdentityKey.Priv || *got.SignedPreKey.Priv != *want.SignedPreKey.Priv ||
		got.SignedPreKey.KeyID != want.SignedPreKey.KeyID || *got.SignedPreKey.Signature != *want.SignedPreKey.Signature ||
		got.RegistrationID != want.RegistrationID || string(got.AdvSecretKey) != string(want.AdvSecretKey) ||
		*got.ID != *want.ID || got.LID != want.LID || got.Platform != want.Platform || got.BusinessName != want.BusinessName ||
		got.PushName != want.PushName || got.LIDMigrationTimestamp != want.LIDMigrationTimestamp ||
		got.CompanionMetaNonce != want.CompanionMetaNonce || got.FacebookUUID != want.FacebookUUID ||
		string(got.Account.GetDetails()) != string(want.Account.GetDetails()) ||
		string(got.Account.GetDeviceSignature()) != string(want.Account.GetDeviceSignature()) {
		t.Fatalf("the device reads as another:\n%+v\n%+v", got, want)
	}
}

// TestCredential: what is saved is what the next owner opens; the old object
// goes, and the object does not show what is in it.
func TestCredential(t *testing.T) {
	w := newWorld(t, memory.New(time.Now))
	d := w.open()
	if d.Paired() {
		t.Fatal("not paired yet")
	}
	dev := d.Library()
	libtest.Pair(t, dev)
	first := w.objects()
	dev.PushName, dev.LIDMigrationTimestamp, dev.CompanionMetaNonce = "Ann", 42, "nonce"
	dev.FacebookUUID[3] = 7
	must(t, dev.Save(context.Background()))
	if m := w.meta(); m.Credential.Version != 2 || len(w.objects()) != 1 || w.objects()[0] == first[0] {
		t.Fatalf("objects %v, then %v, version %d", first, w.objects(), m.Credential.Version)
	}
	body, err := w.vault.GetObject(context.Background(), session, w.objects()[0], "")
	must(t, err)
	if strings.Contains(string(body), "Ann") || strings.Contains(string(body), dev.ID.User) {
		t.Fatal("the object is not sealed")
	}
	next := w.open()
	if !next.Paired() {
		t.Fatal("not paired any more")
	}
	same(t, next.Library(), dev)
	wantErr(t, dev.Save(context.Background()), state.ErrFenced, context.Canceled)
	same(t, w.open().Library(), dev)
}

// TestStale: credentials that are not what the session's record says are not
// used, and may still be destroyed.
func TestStale(t *testing.T) {
	ctx := context.Background()
	for name, damage := range map[string]func(w *world){
		"missing object": func(w *world) { must(w.t, w.vault.DeleteObject(ctx, session, w.meta().Credential.Name, "")) },
		"truncated object": func(w *world) {
			w.replace(w.meta().Credential.Name, func(b []byte) []byte { return b[:len(b)/2] })
		},
		"altered object": func(w *world) {
			w.replace(w.meta().Credential.Name, func(b []byte) []byte { b[40] ^= 1; return b })
		},
		"older object": func(w *world) {
			old, err := w.vault.GetObject(ctx, session, w.meta().Credential.Name, "")
			must(w.t, err)
			d := w.open()
			must(w.t, d.Library().Save(ctx))
			w.replace(w.meta().Credential.Name, func([]byte) []byte { return old })
		},
		"wrong master key": func(w *world) {
			var err error
			w.master, err = seal.CreateFile(filepath.Join(w.t.TempDir(), "other.key"))
			must(w.t, err)
		},
		"keyset of another session": func(w *world) {
			k, err := seal.NewKeyset()
			must(w.t, err)
			wrapped, err := k.Wrap(ctx, w.master, state.OfSession("other"))
			must(w.t, err)
			m := w.meta()
			m.Keyset = wrapped
			w.putMeta(m)
		},
		"garbled META": func(w *world) {
			must(w.t, w.claim().Commit(ctx, journal.Batch{Writes: []state.Write{state.Put(state.KindMeta, "", []byte("{"))}}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, memory.New(time.Now))
			fill(t, w.paired().Library())
			damage(w)
			j := w.claim()
			d, err := device.Open(ctx, w.config(j))
			var stale *device.StaleError
			if !errors.As(err, &stale) || d == nil {
				t.Fatalf("got %v", err)
			}
			if strings.Contains(err.Error(), "15550001111") {
				t.Fatal("a phone number in an error")
			}
			_, err = d.Library().Sessions.GetSession(ctx, "1:0")
			wantErr(t, err, device.ErrRetired, context.Canceled)
			if name == "garbled META" {
				return
			}
			findings, err := device.Verify(ctx, w.config(j))
			must(t, err)
			if len(findings) == 0 {
				t.Fatal("Verify finds nothing wrong")
			}
			must(t, d.Destroy(ctx, journal.Batch{}))
			if m := w.meta(); m.Credential != nil || len(m.Keyset) != 0 || len(w.objects()) != 0 || w.records() != 0 {
				t.Fatalf("left: %+v, %v, %d records", m, w.objects(), w.records())
			}
			if w.open().Paired() {
				t.Fatal("still paired")
			}
		})
	}
}

// replace puts another body in the place of an object.
func (w *world) replace(name string, edit func([]byte) []byte) {
	w.t.Helper()
	ctx := context.Background()
	body, err := w.vault.GetObject(ctx, session, name, "")
	must(w.t, err)
	must(w.t, w.vault.DeleteObject(ctx, session, name, ""))
	_, err = w.vault.PutObject(ctx, session, name, edit(slices.Clone(body)))
	must(w.t, err)
}

func (w *world) putMeta(m state.Meta) {
	w.t.Helper()
	value, err := state.Encode(m)
	must(w.t, err)
	must(w.t, w.claim().Commit(context.Background(), journal.Batch{Writes: []state.Write{state.Put(state.KindMeta, "", value)}}))
}

// TestNotNow: a vault or master key that does not answer is no verdict on the
// credentials.
func TestNotNow(t *testing.T) {
	w := newWorld(t, memory.New(time.Now))
	w.paired()
	w.vault = silentVault{w.vault}
	d, err := device.Open(context.Background(), w.config(w.claim()))
	var stale *device.StaleError
	if d != nil || errors.As(err, &stale) || !errors.Is(err, state.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
}

type silentVault struct{ state.Vault }

func (silentVault) GetObject(context.Context, string, string, string) ([]byte, error) {
	return nil, state.ErrUnavailable
}

// TestQuarantine goes through the life of credentials that are taken out of use.
func TestQuarantine(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, memory.New(time.Now))
	now := time.Now()
	w.now = func() time.Time { return now }
	d := w.paired()
	first := *d.Library()
	fill(t, d.Library())
	given, err := d.Library().PreKeys.GenOnePreKey(ctx)
	must(t, err)

	if d.Library().Delete(ctx) == nil || !d.Paired() || w.meta().Credential == nil {
		t.Fatal("the library took the credentials out of use, on a 401")
	}
	must(t, d.Quarantine(ctx, state.CauseAccountBanned, journal.Batch{Events: []journal.Draft{{Type: state.EventState}}}))
	must(t, d.Quarantine(ctx, state.CauseBadMAC, journal.Batch{}))
	m := w.meta()
	if m.Credential != nil || m.Keyset != nil || len(m.Quarantined) != 1 || m.Quarantined[0].Cause != state.CauseAccountBanned ||
		!m.Quarantined[0].Until.Equal(now.Add(time.Hour)) {
		t.Fatalf("META is %+v", m)
	}
	if len(w.committed()) != 1 {
		t.Fatal("the extra batch was not committed")
	}
	if _, err := first.Sessions.GetSession(ctx, "1:0"); !errors.Is(err, device.ErrRetired) {
		t.Fatalf("the old device still works: %v", err)
	}

	// A new pairing sees nothing of the old one, and its prekey ids go on.
	must(t, d.Fresh())
	dev := d.Library()
	if *dev.NoiseKey.Priv == *first.NoiseKey.Priv {
		t.Fatal("the keys are the old ones")
	}
	libtest.Pair(t, dev)
	if has, err := dev.Sessions.HasSession(ctx, "1:0"); err != nil || has {
		t.Fatal("a session of the old device", err)
	}
	k, err := dev.PreKeys.GenOnePreKey(ctx)
	must(t, err)
	if k.KeyID <= given.KeyID {
		t.Fatalf("prekey id %d again, the highest was %d", k.KeyID, given.KeyID)
	}
	must(t, dev.Sessions.PutSession(ctx, "2:0", []byte("second")))
	_, err = dev.PreKeys.UploadedPreKeyCount(ctx)
	must(t, err)
	wantErr(t, device.Restore(ctx, w.config(w.claim())), device.ErrPaired)

	// The second goes too; the newest comes back, with its ratchets.
	now = now.Add(time.Minute)
	d = w.open()
	must(t, d.Quarantine(ctx, state.CauseLoggedOut, journal.Batch{}))
	must(t, device.Restore(ctx, w.config(w.claim())))
	d = w.open()
	if has, err := d.Library().Sessions.HasSession(ctx, "2:0"); err != nil || !has {
		t.Fatal("the restored device has lost its ratchets", err)
	}
	k2, err := d.Library().PreKeys.GenOnePreKey(ctx)
	must(t, err)
	if k2.KeyID <= k.KeyID {
		t.Fatalf("prekey id %d after %d", k2.KeyID, k.KeyID)
	}

	// The first is past its time: it is destroyed, the live one stays.
	now = now.Add(2 * time.Hour)
	before := w.records()
	must(t, device.Sweep(ctx, w.config(w.claim())))
	if m := w.meta(); len(m.Quarantined) != 0 || len(w.objects()) != 1 || w.records() >= before {
		t.Fatalf("after the sweep: %d sets, %v, %d of %d records", len(m.Quarantined), w.objects(), w.records(), before)
	}
	if has, err := w.open().Library().Sessions.HasSession(ctx, "2:0"); err != nil || !has {
		t.Fatal("the sweep took too much", err)
	}
	findings, err := device.Verify(ctx, w.config(w.claim()))
	must(t, err)
	if len(findings) != 0 {
		t.Fatal(findings)
	}
	must(t, w.open().Quarantine(ctx, state.CauseLoggedOut, journal.Batch{}))
	now = now.Add(2 * time.Hour)
	wantErr(t, device.Restore(ctx, w.config(w.claim())), device.ErrNothingToRestore)
}

// TestDestroy leaves nothing, also of what was quarantined just before, and can be
// repeated.
func TestDestroy(t *testing.T) {
	ctx := context.Background()
	for _, keep := range []time.Duration{time.Hour, 0} {
		w := newWorld(t, memory.New(time.Now))
		w.tune = func(c *device.Config) { c.Quarantine = keep }
		d := w.paired()
		fill(t, d.Library())
		must(t, d.Quarantine(ctx, state.CauseLoggedOut, journal.Batch{}))
		if keep > 0 {
			must(t, d.Destroy(ctx, journal.Batch{}))
			must(t, d.Destroy(ctx, journal.Batch{}))
		}
		if m := w.meta(); m.Credential != nil || m.Keyset != nil || len(m.Quarantined) != 0 || m.PreKeyHigh == 0 ||
			len(w.objects()) != 0 || w.records() != 0 {
			t.Fatalf("left: %+v, %v, %d records", m, w.objects(), w.records())
		}
		wantErr(t, device.Restore(ctx, w.config(w.claim())), device.ErrNothingToRestore)
	}
}

// TestHalfPaired: a pairing that is not known to have ended is the owner's to drop,
// with Fresh, which starts over.
func TestHalfPaired(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, memory.New(time.Now))
	d := w.open()
	must(t, d.Fresh()) // nothing was saved yet
	libtest.Pair(t, d.Library())
	must(t, d.Fresh())
	if d.Paired() || w.meta().Credential != nil {
		t.Fatal("still paired")
	}
	libtest.Pair(t, d.Library())
	_, err := d.Library().PreKeys.UploadedPreKeyCount(ctx) // logged in
	must(t, err)
	wantErr(t, d.Fresh(), device.ErrPaired)
	same(t, w.open().Library(), d.Library())
}

// TestDeletedByTheLibrary: the library deletes the device when the server has
// unlinked it, and when it could not send the confirmation of a pairing, or believes
// so. What is under way goes on, and the next client, of this process and of the
// next, asks the server with the same keys.
func TestDeletedByTheLibrary(t *testing.T) {
	ctx := context.Background()
	for _, loggedIn := range []bool{false, true} {
		w := newWorld(t, memory.New(time.Now))
		d := w.open()
		view := d.Library()
		libtest.Pair(t, view)
		if loggedIn {
			_, err := view.PreKeys.UploadedPreKeyCount(ctx)
			must(t, err)
		}
		if view.Delete(ctx) == nil || view.Deleted || !d.Paired() || w.meta().Credential == nil {
			t.Fatal("the credentials are gone")
		}
		must(t, view.Sessions.PutSession(ctx, "1:0", []byte("ratchet")))
		must(t, d.BeforeSend("receipt"))
		same(t, d.Library(), view)
		d = w.open()
		same(t, d.Library(), view)
		must(t, d.Destroy(ctx, journal.Batch{}))
		if m := w.meta(); m.Credential != nil || len(m.Quarantined) != 0 || len(w.objects()) != 0 {
			t.Fatalf("left: %+v, %v", m, w.objects())
		}
	}
}

// TestSavedAfterItWasDiscarded: a pairing goes on for a moment after its connection
// has ended. What it saves then does not become the next one's.
func TestSavedAfterItWasDiscarded(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, memory.New(time.Now))
	d := w.open()
	late := d.Library()
	must(t, d.Fresh())
	jid := types.NewADJID("491700000001", 0, 7)
	late.ID = &jid
	if err := late.Save(ctx); err == nil || d.Err() != nil || d.Paired() || len(w.objects()) != 0 {
		t.Fatalf("saved: %v, paired %v, poisoned %v", err, d.Paired(), d.Err())
	}
	libtest.Pair(t, d.Library())
	if !d.Paired() || w.meta().Credential == nil {
		t.Fatal("the next pairing did not come about")
	}
}

// TestFailedSave: a save that fails in the middle leaves the old credentials
// valid, and the new object is swept.
func TestFailedSave(t *testing.T) {
	ctx := context.Background()
	fault := statetest.Fault(memory.New(time.Now))
	w := newWorld(t, fault)
	now := time.Now()
	w.now = func() time.Time { return now }
	d := w.paired()
	fault.FailBefore(statetest.Of(statetest.Commit), -1, nil)
	d.Library().PushName = "new"
	wantErr(t, d.Library().Save(ctx), context.Canceled)
	fault.Heal()
	if n := len(w.objects()); n != 2 {
		t.Fatalf("%d objects", n)
	}
	d = w.open()
	if d.Library().PushName != "" {
		t.Fatal("the new object counts without its pointer")
	}
	must(t, device.Sweep(ctx, w.config(w.claim())))
	if n := len(w.objects()); n != 2 {
		t.Fatal("a new object may be waiting for its pointer")
	}
	now = now.Add(2 * time.Hour)
	must(t, device.Sweep(ctx, w.config(w.claim())))
	if n := len(w.objects()); n != 1 {
		t.Fatalf("%d objects after the sweep", n)
	}
	w.open()
}

// TestLargeRecords are in the vault, are swept when nothing points to them, and
// are missed when they are gone.
func TestLargeRecords(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, memory.New(time.Now))
	now := time.Now()
	w.now = func() time.Time { return now }
	d := w.paired()
	large := []byte(strings.Repeat("x", 400<<10))
	must(t, d.Library().Sessions.PutSession(ctx, "1:0", large))
	must(t, d.Library().Sessions.PutSession(ctx, "1:0", large))
	if n := len(w.objects()); n != 3 {
		t.Fatalf("%d objects", n)
	}
	now = now.Add(2 * time.Hour)
	must(t, device.Sweep(ctx, w.config(w.claim())))
	if n := len(w.objects()); n != 2 {
		t.Fatalf("%d objects after the sweep", n)
	}
	d = w.open()
	got, err := d.Library().Sessions.GetSession(ctx, "1:0")
	must(t, err)
	if string(got) != string(large) {
		t.Fatal("it reads as another")
	}
	for _, name := range w.objects() {
		if strings.HasPrefix(name, "value-") {
			w.replace(name, func(b []byte) []byte { return b[:1000] })
		}
	}
	findings, err := device.Verify(ctx, w.config(w.claim()))
	must(t, err)
	if len(findings) != 1 || !errors.Is(findings[0].Err, state.ErrCorrupt) {
		t.Fatal(findings)
	}
}

// TestVerify finds what was put into a place that it does not belong to.
func TestVerify(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, memory.New(time.Now))
	d := w.paired()
	fill(t, d.Library())
	must(t, d.Library().Sessions.PutSession(ctx, "2:0", []byte("another")))
	must(t, d.Stage(journal.Batch{Events: []journal.Draft{{Type: state.EventMessage}}}))
	findings, err := device.Verify(ctx, w.config(w.claim()))
	must(t, err)
	if len(findings) != 0 {
		t.Fatal(findings)
	}
	p := state.OfSession(session)
	page, err := w.store.Query(ctx, p, state.Query{Kind: state.KindSignal})
	must(t, err)
	if len(page.Records) != 2 {
		t.Fatalf("%d sessions", len(page.Records))
	}
	for _, r := range page.Records {
		if strings.Contains(r.Key.ID, "15550001111") || strings.Contains(string(r.Value), "ratchet") {
			t.Fatal("in the clear")
		}
	}
	// Another's ratchet in the place of this one's.
	swapped := state.Put(state.KindSignal, page.Records[0].Key.ID, page.Records[1].Value)
	must(t, w.claim().Commit(ctx, journal.Batch{Writes: []state.Write{swapped}}))
	findings, err = device.Verify(ctx, w.config(w.claim()))
	must(t, err)
	if len(findings) != 1 || findings[0].Where != page.Records[0].Key.String() || !errors.Is(findings[0].Err, state.ErrCorrupt) {
		t.Fatal(findings)
	}
	d = w.open()
	var failed error
	for _, a := range []string{"1:0", "2:0"} {
		if _, err := d.Library().Sessions.GetSession(ctx, a); err != nil {
			failed = err
		}
	}
	wantErr(t, failed, state.ErrCorrupt, context.Canceled)
	// A record of another session, under its own name.
	other := state.Put(state.KindSignal, "aaaabbbbccccdddd.x", page.Records[1].Value)
	must(t, w.claim().Commit(ctx, journal.Batch{Writes: []state.Write{other}}))
	findings, err = device.Verify(ctx, w.config(w.claim()))
	must(t, err)
	if len(findings) != 2 {
		t.Fatal(findings)
	}
}

// TestPreKeyIDsGoOn although all rows are lost, and a first upload takes few
// commits.
func TestPreKeyIDsGoOn(t *testing.T) {
	ctx := context.Background()
	counting := statetest.Counting(memory.New(time.Now))
	w := newWorld(t, counting)
	d := w.paired()
	counting.Reset()
	keys, err := d.Library().PreKeys.GetOrGenPreKeys(ctx, 812)
	must(t, err)
	if n := counting.Count(); n > 6 {
		t.Errorf("%d calls for 812 prekeys", n)
	}
	counting.Reset()
	must(t, d.Library().PreKeys.RemovePreKey(ctx, keys[5].KeyID))
	if n := counting.Count(); n != 1 {
		t.Errorf("%d calls to remove one prekey", n)
	}
	page, err := w.store.Query(ctx, state.OfSession(session), state.Query{Kind: state.KindPreKey})
	must(t, err)
	if n := len(page.Records); n < 30 || n > 40 {
		t.Errorf("812 prekeys are %d records", n)
	}
	b := journal.Batch{}
	for _, r := range page.Records {
		if len(r.Value) > 1500 {
			t.Errorf("a pack has %d bytes", len(r.Value))
		}
		b.Writes = append(b.Writes, state.Del(r.Key.Kind, r.Key.ID))
	}
	must(t, w.claim().Commit(ctx, b))
	again, err := w.open().Library().PreKeys.GetOrGenPreKeys(ctx, 5)
	must(t, err)
	if again[0].KeyID <= keys[811].KeyID {
		t.Fatalf("prekey id %d again", again[0].KeyID)
	}
}

// TestPreKeyIDsWrap at the end of their 24 bits, and leave out those in use.
func TestPreKeyIDsWrap(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, memory.New(time.Now))
	d := w.paired()
	first, err := d.Library().PreKeys.GetOrGenPreKeys(ctx, 3) // 1 to 3
	must(t, err)
	m := w.meta()
	m.PreKeyHigh = 1<<24 - 5
	w.putMeta(m)
	dev := w.open().Library()
	seen := map[uint32]bool{first[0].KeyID: true, first[1].KeyID: true, first[2].KeyID: true}
	for range 10 {
		k, err := dev.PreKeys.GenOnePreKey(ctx)
		must(t, err)
		if k.KeyID == 0 || k.KeyID > 1<<24-2 || seen[k.KeyID] {
			t.Fatalf("prekey id %d", k.KeyID)
		}
		seen[k.KeyID] = true
	}
	if !seen[4] {
		t.Fatal("the ids did not begin again")
	}
}
