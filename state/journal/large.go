package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// Vault is where events lie that are too large for a record.
type Vault interface {
	PutObject(ctx context.Context, session, name string, body []byte) (versionID string, err error)
	GetObject(ctx context.Context, session, name, versionID string) ([]byte, error)
	DeleteObject(ctx context.Context, session, name, versionID string) error
}

// removeWithin bounds the removal of an object; what is left is swept later.
const removeWithin = 2 * time.Second

// WithoutData is an event whose data lies elsewhere, or is lost: it says so and
// how large it was.
func WithoutData(e state.Event) state.Event {
	e.Data = json.RawMessage(fmt.Sprintf(`{"large":true,"bytes":%d}`, len(e.Data)))
	return e
}

// putLarge stores a sealed event in the vault, for as long as a commit is tried.
// nil where there is no vault.
func (j *Journal) putLarge(ctx context.Context, sealed []byte) (*state.LargeEvent, error) {
	if j.cfg.Vault == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), j.cfg.Retry)
	defer cancel()
	sum := sha256.Sum256(sealed)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		at := state.LargeEvent{Name: state.LargeEventPrefix + strings.ToLower(newULID(j.cfg.Now())), SHA256: hex.EncodeToString(sum[:])}
		var err error
		if at.VersionID, err = j.cfg.Vault.PutObject(ctx, j.cfg.Fence.Session, at.Name, sealed); err == nil {
			return &at, nil
		}
		if !passing(err) || ctx.Err() != nil || !sleep(ctx, wait/2+rand.N(wait/2+1)) {
			return nil, fmt.Errorf("storing a large event in the vault: %w", err)
		}
	}
}

// OpenLarge reads an event that lies in the vault. Errors wrap state.ErrCorrupt
// where the object is missing, altered, or of another place; any other means
// that it could not be read now.
func OpenLarge(ctx context.Context, vault interface {
	GetObject(ctx context.Context, session, name, versionID string) ([]byte, error)
}, open func(seal.Place, []byte) ([]byte, error), p state.Partition, id string, at state.LargeEvent) (state.Event, error) {
	var e state.Event
	session, _ := p.Session()
	sealed, err := vault.GetObject(ctx, session, at.Name, at.VersionID)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return e, fmt.Errorf("%w: event %s: its object in the vault is missing", state.ErrCorrupt, id)
	case err != nil:
		return e, err
	}
	if sum := sha256.Sum256(sealed); hex.EncodeToString(sum[:]) != at.SHA256 {
		return e, fmt.Errorf("%w: event %s: its object in the vault has been altered", state.ErrCorrupt, id)
	}
	body, err := open(eventPlace(p, id), sealed)
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return e, fmt.Errorf("%w: event %s: not an event: %w", state.ErrCorrupt, id, err)
	}
	return e, nil
}

// replaced returns the objects of events that a commit has just trimmed. Called
// with mu held.
func (j *Journal) replaced(writes []state.Write) []state.LargeEvent {
	if len(j.large) == 0 {
		return nil
	}
	var gone []state.LargeEvent
	for _, w := range writes {
		if at, ok := j.large[w.Key.ID]; ok && w.Key.Kind == state.KindEvent {
			gone = append(gone, at)
			delete(j.large, w.Key.ID)
		}
	}
	return gone
}

// removeLarge removes objects that nothing points to any more. What is not removed
// now is swept later.
func (j *Journal) removeLarge(gone []state.LargeEvent) {
	if j.cfg.Vault == nil {
		return
	}
	for _, at := range gone {
		ctx, cancel := context.WithTimeout(context.Background(), removeWithin)
		_ = j.cfg.Vault.DeleteObject(ctx, j.cfg.Fence.Session, at.Name, at.VersionID)
		cancel()
	}
}

// OpenLarge reads an event of this session that lies in the vault.
func (j *Journal) OpenLarge(ctx context.Context, vault Vault, id string, at state.LargeEvent) (state.Event, error) {
	return OpenLarge(ctx, vault, j.cfg.Fleet.Open, j.partition, id, at)
}
