package deliver

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
)

// Vault is where events lie that are too large for a record.
type Vault interface {
	PutObject(ctx context.Context, session, name string, body []byte) (versionID string, err error)
	GetObject(ctx context.Context, session, name, versionID string) ([]byte, error)
	DeleteObject(ctx context.Context, session, name, versionID string) error
}

// large reads the bytes of a large event as they were sealed. An error wraps
// state.ErrCorrupt where they are missing or altered.
func (q *Queue) large(ctx context.Context, at state.LargeEvent) ([]byte, error) {
	sealed, err := q.d.cfg.Vault.GetObject(ctx, q.s.Name, at.Name, at.VersionID)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil, fmt.Errorf("%w: its object in the vault is missing", state.ErrCorrupt)
	case err != nil:
		return nil, fmt.Errorf("reading a large event in the vault: %w", err)
	}
	if sum := sha256.Sum256(sealed); hex.EncodeToString(sum[:]) != at.SHA256 {
		return nil, fmt.Errorf("%w: its object in the vault has been altered", state.ErrCorrupt)
	}
	return sealed, nil
}

// putLarge stores a sealed event in the vault; nil where there is none.
func (q *Queue) putLarge(ctx context.Context, sealed []byte) (*state.LargeEvent, error) {
	if q.d.cfg.Vault == nil {
		return nil, nil
	}
	sum := sha256.Sum256(sealed)
	at := state.LargeEvent{SHA256: hex.EncodeToString(sum[:]),
		Name: state.LargeEventPrefix + strings.ToLower(ulid.MustNew(ulid.Timestamp(q.d.cfg.Now()), rand.Reader).String())}
	var err error
	if at.VersionID, err = q.d.cfg.Vault.PutObject(ctx, q.s.Name, at.Name, sealed); err != nil {
		return nil, fmt.Errorf("storing a large event in the vault: %w", err)
	}
	return &at, nil
}

// withoutData is an event whose data lies elsewhere.
func withoutData(e state.Event) state.Event {
	e.Data = json.RawMessage(fmt.Sprintf(`{"large":true,"bytes":%d}`, len(e.Data)))
	return e
}
