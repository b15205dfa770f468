package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// fleetKeyset is the fleet's record KEYSET: the keyset that seals what the admin
// side may read, wrapped by the master key.
type fleetKeyset struct {
	V       int    `json:"v"`
	ID      string `json:"id"`
	Wrapped []byte `json:"wrapped"`
}

var fleetKeysetKey = state.Key{Kind: state.KindFleet, ID: "KEYSET"}

// storedKeyset reads the fleet's keyset as it is stored, and its revision.
func storedKeyset(ctx context.Context, store state.Records) (fleetKeyset, uint64, error) {
	var doc fleetKeyset
	rec, err := store.Get(ctx, state.Fleet, fleetKeysetKey)
	if err != nil {
		return doc, 0, fmt.Errorf("reading the fleet keyset: %w", err)
	}
	if err := state.Decode(rec.Value, &doc); err != nil {
		return doc, 0, fmt.Errorf("fleet keyset: %w", err)
	}
	return doc, rec.Rev, nil
}

func readKeyset(ctx context.Context, store state.Records, master seal.Master) (*seal.Keyset, error) {
	doc, _, err := storedKeyset(ctx, store)
	if err != nil {
		return nil, err
	}
	keyset, err := seal.Unwrap(ctx, master, state.Fleet, doc.Wrapped)
	if err != nil {
		return nil, fmt.Errorf("fleet keyset: %w", err)
	}
	return keyset, nil
}

// OpenKeyset reads the fleet's keyset, and makes it at the first use of a store.
// What another process seals after a rotation opens too: the keyset is then read
// again. An error that wraps a *seal.WrongMasterError means another master key
// than the store was made with.
func OpenKeyset(ctx context.Context, store state.Records, master seal.Master) (*seal.Keyset, error) {
	for {
		keyset, err := readKeyset(ctx, store, master)
		if err == nil {
			keyset.ReadAgain(func(ctx context.Context) (*seal.Keyset, error) { return readKeyset(ctx, store, master) })
			return keyset, nil
		}
		if !errors.Is(err, state.ErrNotFound) {
			return nil, err
		}
		fresh, err := seal.NewKeyset()
		if err != nil {
			return nil, err
		}
		// Whoever is first decides; a second one reads what the first wrote.
		if err := storeKeyset(ctx, store, master, fresh, state.Absent(), 1); err != nil && !errors.Is(err, state.ErrConflict) {
			return nil, err
		}
	}
}

func storeKeyset(ctx context.Context, store state.Records, master seal.Master, k *seal.Keyset, only state.Condition, rev uint64) error {
	wrapped, err := k.Wrap(ctx, master, state.Fleet)
	if err != nil {
		return fmt.Errorf("wrapping the fleet keyset: %w", err)
	}
	return putKeyset(ctx, store, fleetKeyset{V: state.Format, ID: k.ID(), Wrapped: wrapped}, only, rev)
}

func putKeyset(ctx context.Context, store state.Records, doc fleetKeyset, only state.Condition, rev uint64) error {
	value, err := state.Encode(doc)
	if err != nil {
		return err
	}
	w := state.Put(fleetKeysetKey.Kind, fleetKeysetKey.ID, value)
	w.If, w.Rev = only, rev
	if err := store.Update(ctx, state.Fleet, []state.Write{w}); err != nil {
		return fmt.Errorf("storing the fleet keyset: %w", err)
	}
	return nil
}

// KeysetMaster returns the id of the master key that the fleet's keyset is
// wrapped with. state.ErrNotFound if the store has not been used yet.
func KeysetMaster(ctx context.Context, store state.Records) (string, error) {
	doc, _, err := storedKeyset(ctx, store)
	if err != nil {
		return "", err
	}
	id, _, err := seal.WrappedWith(doc.Wrapped)
	return id, err
}

// RewrapKeyset wraps the fleet's keyset with the present master key, where it is
// wrapped with another one that the given master opens too. It is false if there
// was nothing to do. It may be broken off anywhere and begun again.
func RewrapKeyset(ctx context.Context, store state.Records, master seal.Master) (bool, error) {
	doc, rev, err := storedKeyset(ctx, store)
	if err != nil {
		return false, err
	}
	if id, _, err := seal.WrappedWith(doc.Wrapped); err == nil && id == master.ID() {
		return false, nil
	}
	if doc.Wrapped, err = seal.Rewrap(ctx, master, master, state.Fleet, doc.Wrapped); err != nil {
		return false, fmt.Errorf("fleet keyset: %w", err)
	}
	return true, putKeyset(ctx, store, doc, state.AtRev(rev), rev+1)
}

// RotateKeyset gives the fleet's keyset a new primary key. What the old ones have
// sealed stays readable. Processes that run take the new key when they start
// again, or when they meet a value that is sealed with it.
func RotateKeyset(ctx context.Context, store state.Records, master seal.Master) error {
	doc, rev, err := storedKeyset(ctx, store)
	if err != nil {
		return err
	}
	keyset, err := seal.Unwrap(ctx, master, state.Fleet, doc.Wrapped)
	if err != nil {
		return fmt.Errorf("fleet keyset: %w", err)
	}
	next, err := keyset.AddKey()
	if err != nil {
		return fmt.Errorf("fleet keyset: %w", err)
	}
	return storeKeyset(ctx, store, master, next, state.AtRev(rev), rev+1)
}
