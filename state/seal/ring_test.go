package seal_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

func fileKey(t *testing.T) seal.Master {
	t.Helper()
	m, err := seal.CreateFile(filepath.Join(t.TempDir(), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// silent is a master whose service does not answer; what another key has wrapped
// it refuses without asking anybody, as KMS's does.
type silent struct{ seal.Master }

func (s silent) Unwrap(_ context.Context, wrapped []byte, _ map[string]string) ([]byte, error) {
	if id, _, err := seal.WrappedWith(wrapped); err != nil || id != s.ID() {
		return nil, errors.Join(err, seal.WrongMaster(id, s.ID()))
	}
	return nil, state.ErrUnavailable
}

func (s silent) Ping(context.Context) error { return state.ErrUnavailable }

func TestFormerMasterKeys(t *testing.T) {
	ctx := t.Context()
	first, second, third, stranger := fileKey(t), fileKey(t), fileKey(t), fileKey(t)
	part := state.OfSession("shop")
	wrappedBy := func(m seal.Master) []byte {
		t.Helper()
		k, err := seal.NewKeyset()
		if err != nil {
			t.Fatal(err)
		}
		b, err := k.Wrap(ctx, m, part)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	all := seal.WithFormer(third, second, first)
	if all.ID() != third.ID() {
		t.Errorf("it is called %s, not as the present key", all.ID())
	}
	if only := seal.WithFormer(third); only != third {
		t.Error("without former keys it is not the key itself")
	}
	for name, m := range map[string]seal.Master{"the present": third, "the last": second, "the first": first} {
		if _, err := seal.Unwrap(ctx, all, part, wrappedBy(m)); err != nil {
			t.Errorf("wrapped with %s key: %v", name, err)
		}
	}
	if id, _, err := seal.WrappedWith(wrappedBy(all)); err != nil || id != third.ID() {
		t.Errorf("it wraps with %s, %v; want the present key", id, err)
	}

	var wrong *seal.WrongMasterError
	_, err := seal.Unwrap(ctx, all, part, wrappedBy(stranger))
	if !errors.As(err, &wrong) || wrong.Wanted != stranger.ID() || wrong.Had != third.ID() || !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("wrapped with a key that is not among them: %v", err)
	}
	// The context is compared whichever key it is.
	if _, err := seal.Unwrap(ctx, all, state.OfSession("other"), wrappedBy(first)); !errors.Is(err, state.ErrCorrupt) || errors.As(err, &wrong) {
		t.Errorf("of another partition: %v", err)
	}
	// A former key that cannot be asked now must not look like damage.
	if _, err := seal.Unwrap(ctx, seal.WithFormer(third, silent{second}, first), part, wrappedBy(second)); !errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrCorrupt) {
		t.Errorf("a former key that does not answer: %v", err)
	}
	if _, err := seal.Unwrap(ctx, seal.WithFormer(third, silent{second}, first), part, wrappedBy(first)); err != nil {
		t.Errorf("another former key does not answer: %v", err)
	}

	old := wrappedBy(first)
	next, err := seal.Rewrap(ctx, all, third, part, old)
	if err != nil {
		t.Fatal(err)
	}
	if id, _, err := seal.WrappedWith(next); err != nil || id != third.ID() || bytes.Equal(next, old) {
		t.Errorf("rewrapped with %s, %v", id, err)
	}
	if _, err := seal.Unwrap(ctx, third, part, next); err != nil {
		t.Errorf("the present key alone: %v", err)
	}

	if err := seal.Ping(ctx, all); err != nil {
		t.Errorf("keys in files: %v", err)
	}
	if err := seal.Ping(ctx, seal.WithFormer(silent{third}, first)); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("the present key does not answer: %v", err)
	}
	if err := seal.Ping(ctx, seal.WithFormer(third, silent{first})); err != nil {
		t.Errorf("a former key does not answer: %v", err)
	}
}

// In a fleet one process gives the keyset a new key and seals with it before the
// others have heard of that.
func TestAKeysetThatWasRotatedElsewhere(t *testing.T) {
	place := seal.Place{Partition: state.Fleet, Kind: state.KindStatus}
	mine, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	stored, err := mine.AddKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := stored.Seal(place, []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mine.Open(place, sealed); !errors.Is(err, state.ErrCorrupt) {
		t.Fatalf("without a way to read it again: %v", err)
	}

	reads, fails := 0, state.ErrUnavailable
	mine.ReadAgain(func(context.Context) (*seal.Keyset, error) {
		reads++
		return stored, fails
	})
	// What could not be found out is no damage, and is not asked for at each value.
	for range 3 {
		if _, err := mine.Open(place, sealed); !errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrCorrupt) {
			t.Fatalf("the store does not answer: %v", err)
		}
	}
	if reads != 1 {
		t.Errorf("%d reads, want 1", reads)
	}

	fails, reads = nil, 0
	mine.ReadAgain(func(context.Context) (*seal.Keyset, error) {
		reads++
		return stored, fails
	})
	for range 3 {
		if got, err := mine.Open(place, sealed); err != nil || string(got) != "new" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if reads != 1 || mine.Keys() != 2 {
		t.Errorf("%d reads, want 1; %d keys, want 2", reads, mine.Keys())
	}
	// From now on it seals with the new key too.
	again, err := mine.Seal(place, []byte("later"))
	if err != nil || !bytes.Equal(again[1:6], sealed[1:6]) {
		t.Errorf("it seals with the old key: %v", err)
	}

	// A value that no key fits is damage, and costs one look in ten seconds.
	foreign, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	alien, err := foreign.Seal(place, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := mine.Open(place, alien); !errors.Is(err, state.ErrCorrupt) {
			t.Errorf("sealed by another keyset: %v", err)
		}
	}
	if reads != 1 {
		t.Errorf("%d reads, want no more", reads)
	}

	// Another keyset in the same place is nothing to go over to.
	mine.ReadAgain(func(context.Context) (*seal.Keyset, error) { return foreign, nil })
	if _, err := mine.Open(place, alien); !errors.Is(err, state.ErrCorrupt) || mine.ID() == foreign.ID() {
		t.Errorf("went over to another keyset: %v", err)
	}
}

func TestAKeysetThatComesLater(t *testing.T) {
	place := seal.Place{Partition: state.Fleet, Kind: state.KindStatus}
	k := seal.Later()
	if _, err := k.Seal(place, nil); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("sealing: %v", err)
	}
	if _, err := k.Open(place, make([]byte, seal.Overhead)); err == nil {
		t.Error("opening went well")
	}
	if _, err := k.Wrap(t.Context(), fileKey(t), state.Fleet); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("wrapping: %v", err)
	}
	if _, err := k.AddKey(); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("rotating: %v", err)
	}
	if k.There() || k.ID() != "" || k.Keys() != 0 {
		t.Errorf("there %v, id %q, %d keys", k.There(), k.ID(), k.Keys())
	}
	full, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := full.Seal(place, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	k.Become(full)
	if got, err := k.Open(place, sealed); err != nil || string(got) != "x" || k.ID() != full.ID() || !k.There() || k.Blind("a", "b") != full.Blind("a", "b") {
		t.Errorf("%q, %v", got, err)
	}
}
