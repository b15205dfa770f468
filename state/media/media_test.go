package media_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/media"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
)

const session = "shop"

// bench is a shelf over stores in memory.
type bench struct {
	media.Shelf
	t     *testing.T
	store *memory.Store
	vault *memory.Vault
	now   time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	fleet, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, vault: memory.NewVault(), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	b.store = memory.New(func() time.Time { return b.now })
	b.Shelf = media.Shelf{Store: b.store, Vault: b.vault, Fleet: fleet}
	if err := b.store.CreateSession(t.Context(), session, nil); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) write(ctx context.Context, writes []state.Write) error {
	return b.store.Update(ctx, state.OfSession(session), writes)
}

func (b *bench) put(id string, data []byte, keep time.Time) media.Stored {
	b.t.Helper()
	m, w, err := b.Put(b.t.Context(), session, id, "01JD8Q3W2N5C7G9K1M4P6R8T0V"[:26-len(id)]+strings.ToUpper(id), state.MediaInfo{MIME: "image/png", FileName: "cat.png"}, data, b.now, keep)
	if err == nil {
		err = b.write(b.t.Context(), []state.Write{w})
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

func (b *bench) name(id, message string) error {
	m, err := b.Get(b.t.Context(), session, id)
	if err != nil {
		return err
	}
	w, err := m.Name(message)
	if err != nil {
		return err
	}
	return b.write(b.t.Context(), []state.Write{w})
}

func (b *bench) there(id string) bool {
	b.t.Helper()
	m, err := b.Get(b.t.Context(), session, id)
	if errors.Is(err, state.ErrNotFound) {
		names, err := b.vault.ListObjects(b.t.Context(), session)
		if err != nil || len(names) != 0 {
			b.t.Errorf("the record is gone, and the vault has %v (%v)", names, err)
		}
		return false
	}
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.vault.GetObject(b.t.Context(), session, m.Object, m.VersionID); err != nil {
		b.t.Errorf("the record is there, its object not: %v", err)
	}
	return true
}

// TestAnUploadOpensAsItWas and as nothing else: of no other session, under no other
// id, and not once a byte of it has changed.
func TestAnUploadOpensAsItWas(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	data := bytes.Repeat([]byte("meow"), 500_000)
	m := b.put("a", data, time.Time{})
	got, opened, err := b.Open(ctx, session, "a")
	if err != nil || !bytes.Equal(opened, data) || got.Info.MIME != "image/png" || got.Info.FileName != "cat.png" || got.Info.SHA256 != media.Sum(data) || got.Size != int64(len(data)) {
		t.Fatalf("%+v, %d bytes, %v", got, len(opened), err)
	}
	sealed, err := b.vault.GetObject(ctx, session, m.Object, "")
	if err != nil || bytes.Contains(sealed, []byte("meowmeow")) {
		t.Errorf("in the vault it is in the clear (%v)", err)
	}
	if r, err := b.store.Get(ctx, state.OfSession(session), state.Key{Kind: state.KindMedia, ID: "a"}); err != nil || bytes.Contains(r.Value, []byte("cat.png")) {
		t.Errorf("the record is %s (%v)", r.Value, err)
	}
	swap := func(body []byte) {
		t.Helper()
		if err := b.vault.DeleteObject(ctx, session, m.Object, ""); err != nil {
			t.Fatal(err)
		}
		if body != nil {
			if _, err := b.vault.PutObject(ctx, session, m.Object, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	bent := bytes.Clone(sealed)
	bent[len(bent)/2] ^= 1
	swap(bent)
	if _, _, err := b.Open(ctx, session, "a"); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("an altered one: %v", err)
	}
	other := b.put("b", []byte("woof"), time.Time{})
	foreign, err := b.vault.GetObject(ctx, session, other.Object, "")
	if err != nil {
		t.Fatal(err)
	}
	swap(foreign)
	if _, _, err := b.Open(ctx, session, "a"); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("another's: %v", err)
	}
	swap(nil)
	if _, _, err := b.Open(ctx, session, "a"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("none: %v", err)
	}
	if _, _, err := b.Open(ctx, session, "never"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("one that never was: %v", err)
	}
}

// TestHowLongAnUploadIsKept: as long as a message needs it, and its own time.
func TestHowLongAnUploadIsKept(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	begun := b.now
	b.put("a", []byte("x"), time.Time{})
	for _, message := range []string{"m1", "m2", "m1"} { // the last is a repetition
		if err := b.name("a", message); err != nil {
			t.Fatal(err)
		}
	}
	b.now = begun.Add(48 * time.Hour) // past the time of one that nobody needs
	if !b.there("a") {
		t.Fatal("gone while two messages need it")
	}
	for message, there := range map[string]bool{"other": true} {
		if err := b.Release(ctx, session, "a", message, b.now, b.write); err != nil || b.there("a") != there {
			t.Errorf("after %s: %v", message, err)
		}
	}
	if err := b.Release(ctx, session, "a", "m1", b.now, b.write); err != nil || !b.there("a") {
		t.Errorf("after the first of two: %v", err)
	}
	for range 2 { // the second time there is nothing left to do
		if err := b.Release(ctx, session, "a", "m2", b.now, b.write); err != nil || b.there("a") {
			t.Errorf("after the last: %v", err)
		}
	}

	b.put("k", []byte("x"), b.now.Add(time.Hour))
	if err := b.name("k", "m"); err != nil {
		t.Fatal(err)
	}
	if err := b.Release(ctx, session, "k", "m", b.now, b.write); err != nil || !b.there("k") {
		t.Errorf("one that is to be kept: %v", err)
	}
	if err := b.name("k", "m"); err != nil {
		t.Fatal(err)
	}
	if err := b.Settle(ctx, session, "k", b.now.Add(2*time.Hour), b.write, func(string) bool { return false }); err != nil || b.there("k") {
		t.Errorf("after its time, with a message that has ended: %v", err)
	}
	b.put("u", []byte("x"), time.Time{})
	b.now = b.now.Add(media.Unused + time.Second)
	if _, err := b.Get(ctx, session, "u"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("one that nobody ever named: %v", err)
	}
}

func TestTooManyMessagesForOneUpload(t *testing.T) {
	b := newBench(t)
	b.put("a", []byte("x"), time.Time{})
	for i := range state.MaxMediaMessages {
		if err := b.name("a", fmt.Sprintf("01JD8Q3W2N5C7G9K1M4P6R%04d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.name("a", "one more"); !errors.Is(err, state.ErrTooLarge) {
		t.Errorf("%v", err)
	}
}

// TestWritersMeet: the admin side names an upload while the owner lets go of it. It
// is never gone under a message that was told that it is there.
func TestWritersMeet(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	for round := range 50 {
		id := fmt.Sprintf("r%02d", round)
		b.put(id, []byte("x"), time.Time{})
		if err := b.name(id, "old"); err != nil {
			t.Fatal(err)
		}
		var named error
		var both sync.WaitGroup
		both.Go(func() { named = b.name(id, "new") })
		both.Go(func() {
			if err := b.Release(ctx, session, id, "old", b.now, b.write); err != nil {
				t.Errorf("release: %v", err)
			}
		})
		both.Wait()
		_, _, err := b.Open(ctx, session, id)
		if named == nil && err != nil {
			t.Fatalf("round %d: named, and gone: %v", round, err)
		}
		if named == nil {
			if err := b.Remove(ctx, session, id, b.write); err != nil {
				t.Fatal(err)
			}
		} else if !errors.Is(named, state.ErrNotFound) && !errors.Is(named, state.ErrConflict) {
			t.Fatalf("naming: %v", named)
		}
	}
	if b.there("r00") {
		t.Error("the first is still there")
	}
}
