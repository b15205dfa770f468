package seal_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

func wrap(t *testing.T, k *seal.Keyset, m seal.Master, p state.Partition) []byte {
	t.Helper()
	wrapped, err := k.Wrap(t.Context(), m, p)
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

func TestRewrap(t *testing.T) {
	ctx := t.Context()
	from, _ := newMaster(t)
	to, _ := newMaster(t)
	k := newKeyset(t)
	p := state.OfSession("shop")
	sealed := seals(t, k, home, "secret")
	old := wrap(t, k, from, p)
	wrapped, err := seal.Rewrap(ctx, from, to, p, old)
	if err != nil {
		t.Fatal(err)
	}
	if id, _, err := seal.WrappedWith(wrapped); err != nil || id != to.ID() {
		t.Errorf("wrapped with %q, %v; want %q", id, err, to.ID())
	}
	got, err := seal.Unwrap(ctx, to, p, wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := got.Open(home, sealed); err != nil || string(plain) != "secret" || got.ID() != k.ID() {
		t.Errorf("what was sealed before: %q, %v, by keyset %s", plain, err, got.ID())
	}
	if _, err := seal.Unwrap(ctx, from, p, wrapped); !errors.Is(err, state.ErrCorrupt) || !strings.Contains(err.Error(), to.ID()) {
		t.Errorf("with the old key: %v", err)
	}

	again, err := seal.Rewrap(ctx, from, to, p, wrapped)
	if err != nil || !bytes.Equal(again, wrapped) {
		t.Errorf("a second run changed it: %v", err)
	}
	same, err := seal.Rewrap(ctx, to, to, p, wrapped)
	if err != nil || bytes.Equal(same, wrapped) {
		t.Errorf("for the same key it was not wrapped anew: %v", err)
	}
	for name, c := range map[string]struct {
		p       state.Partition
		wrapped []byte
	}{
		"another partition": {state.OfSession("other"), old},
		"damaged":           {p, old[:len(old)-1]},
		"nothing":           {p, nil},
		"another's key":     {p, wrap(t, k, to, state.Fleet)[:1]},
	} {
		if got, err := seal.Rewrap(ctx, from, to, c.p, c.wrapped); !errors.Is(err, state.ErrCorrupt) || got != nil {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	stranger, _ := newMaster(t)
	if _, err := seal.Rewrap(ctx, stranger, to, p, old); !errors.Is(err, state.ErrCorrupt) || !strings.Contains(err.Error(), from.ID()) {
		t.Errorf("from another key than it is wrapped with: %v", err)
	}
}

// A key that can wrap and not unwrap, or that gives back something else, is
// found out before what it made replaces anything.
func TestRewrapChecksTheNewKey(t *testing.T) {
	from, _ := newMaster(t)
	to, _ := newMaster(t)
	k := newKeyset(t)
	old := wrap(t, k, from, "S/shop")
	if got, err := seal.Rewrap(t.Context(), from, &service{Master: to}, "S/shop", old); !errors.Is(err, state.ErrUnavailable) || got != nil {
		t.Errorf("a key that does not unwrap: %x, %v", got, err)
	}
	other := wrap(t, newKeyset(t), to, "S/shop")
	if got, err := seal.Rewrap(t.Context(), from, swapper{to, other}, "S/shop", old); !errors.Is(err, state.ErrCorrupt) || got != nil {
		t.Errorf("a key that gives back another keyset: %x, %v", got, err)
	}
}

// swapper wraps another keyset than it is given.
type swapper struct {
	seal.Master
	other []byte
}

func (s swapper) Wrap(context.Context, []byte, map[string]string) ([]byte, error) {
	return s.other, nil
}
