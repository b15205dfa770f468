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

// OpenKeyset reads the fleet's keyset, and makes it at the first use of a
// store. An error that wraps state.ErrCorrupt means another master key than the
// store was made with.
func OpenKeyset(ctx context.Context, store state.Records, master seal.Master) (*seal.Keyset, error) {
	key := state.Key{Kind: state.KindFleet, ID: "KEYSET"}
	for {
		rec, err := store.Get(ctx, state.Fleet, key)
		if err == nil {
			var doc fleetKeyset
			if err := state.Decode(rec.Value, &doc); err != nil {
				return nil, fmt.Errorf("fleet keyset: %w", err)
			}
			keyset, err := seal.Unwrap(ctx, master, state.Fleet, doc.Wrapped)
			if err != nil {
				return nil, fmt.Errorf("fleet keyset: %w", err)
			}
			return keyset, nil
		}
		if !errors.Is(err, state.ErrNotFound) {
			return nil, fmt.Errorf("reading the fleet keyset: %w", err)
		}
		fresh, err := seal.NewKeyset()
		if err != nil {
			return nil, err
		}
		wrapped, err := fresh.Wrap(ctx, master, state.Fleet)
		if err != nil {
			return nil, fmt.Errorf("wrapping the fleet keyset: %w", err)
		}
		value, err := state.Encode(fleetKeyset{V: state.Format, ID: fresh.ID(), Wrapped: wrapped})
		if err != nil {
			return nil, err
		}
		w := state.Put(key.Kind, key.ID, value)
		w.If = state.Absent()
		// Whoever is first decides; a second one reads what the first wrote.
		if err := store.Update(ctx, state.Fleet, []state.Write{w}); err != nil && !errors.Is(err, state.ErrConflict) {
			return nil, fmt.Errorf("storing the fleet keyset: %w", err)
		}
	}
}
