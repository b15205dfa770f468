package seal

import (
	"errors"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
)

// The keyset's id is bound to what it seals, beside the keys themselves: with
// the same keys under another id nothing opens. Such a keyset cannot be made
// through the API.
func TestKeysetIDIsBound(t *testing.T) {
	k, err := NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	p := Place{Partition: "S/shop", Kind: state.KindSignal, ID: "abc"}
	sealed, err := k.Seal(p, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	other := *k.now.Load()
	other.id = "another"
	renamed := newKeyset(&other)
	if got, err := renamed.Open(p, sealed); !errors.Is(err, state.ErrCorrupt) || got != nil {
		t.Errorf("the same keys under another id: %q, %v", got, err)
	}
	if got, err := k.Open(p, sealed); err != nil || string(got) != "secret" {
		t.Errorf("under its own id: %q, %v", got, err)
	}
}
