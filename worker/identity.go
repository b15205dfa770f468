package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// tableIdentity is the fleet's record TABLE: what told the store from any other
// one when it was first used. A copy that was restored from a backup has the
// record of the original and an identity of its own.
type tableIdentity struct {
	V        int       `json:"v"`
	Identity string    `json:"identity"`
	At       time.Time `json:"at"`
}

var identityKey = state.Key{Kind: state.KindFleet, ID: "TABLE"}

// RestoredError says that a store is a copy, restored from a backup: its ratchets
// are older than those that the phones and contacts know, so nothing in it may
// connect.
type RestoredError struct {
	Since time.Time // when the original was first used

	rev uint64
}

func (e *RestoredError) Error() string {
	return fmt.Sprintf("was restored from a backup (it was first used on %s, in other tables): its sessions must be paired anew, because old ratchets cannot be used again",
		e.Since.UTC().Format(time.DateOnly))
}

// StoredIdentity is the identity that a store had at its first use, and when that
// was. state.ErrNotFound if it has not been used yet.
func StoredIdentity(ctx context.Context, store state.Records) (identity string, since time.Time, err error) {
	doc, _, err := storedIdentity(ctx, store)
	return doc.Identity, doc.At, err
}

func storedIdentity(ctx context.Context, store state.Records) (tableIdentity, uint64, error) {
	var doc tableIdentity
	rec, err := store.Get(ctx, state.Fleet, identityKey)
	if err != nil {
		return doc, 0, fmt.Errorf("reading the identity of the store: %w", err)
	}
	if err := state.Decode(rec.Value, &doc); err != nil {
		return doc, 0, fmt.Errorf("identity of the store: %w", err)
	}
	return doc, rec.Rev, nil
}

// CheckIdentity compares a store's identity with the one that it had at its first
// use, which it notes where this is that. A *RestoredError if they differ.
func CheckIdentity(ctx context.Context, store state.Records, identity string) error {
	for {
		doc, rev, err := storedIdentity(ctx, store)
		switch {
		case err == nil && doc.Identity != identity:
			return &RestoredError{Since: doc.At, rev: rev}
		case err == nil || !errors.Is(err, state.ErrNotFound):
			return err
		}
		err = putIdentity(ctx, store, identity, time.Now(), state.Absent(), 1)
		if err == nil || !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
}

func putIdentity(ctx context.Context, store state.Records, identity string, at time.Time, only state.Condition, rev uint64) error {
	value, err := state.Encode(tableIdentity{V: state.Format, Identity: identity, At: at.UTC()})
	if err != nil {
		return err
	}
	w := state.Put(identityKey.Kind, identityKey.ID, value)
	w.If, w.Rev = only, rev
	if err := store.Update(ctx, state.Fleet, []state.Write{w}); err != nil {
		return fmt.Errorf("noting the identity of the store: %w", err)
	}
	return nil
}
