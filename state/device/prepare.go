package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// DefaultPreparedFor is how long what Prepare has loaded may be used.
const DefaultPreparedFor = 2 * time.Minute

// PrepareConfig is what Prepare needs. Store, Vault, Master and Session are
// required.
type PrepareConfig struct {
	Store   state.Records
	Vault   state.Vault
	Master  seal.Master
	Session string

	// For is how long the result may be used. Default 2 min.
	For time.Duration
	Log *slog.Logger
}

// Prepared is what a session needs before it is claimed or handed over: its
// keyset and its credentials, never Signal records, which the present owner may
// still be writing. It serves one Open.
type Prepared struct {
	session string
	at      time.Time
	life    time.Duration

	mu         sync.Mutex
	pointer    *state.ObjectPointer // nil: nothing to use
	wrapped    []byte               // the keyset as META had it
	keyset     *seal.Keyset
	credential *credential
}

// Prepare loads a session's keyset and credentials ahead of its claim: one read
// of META, one unwrapping, one object.
//
// An error means that they cannot be loaded now (the store, the vault or the
// master key does not answer), so that the session is better left to somebody
// else. Credentials that are missing, corrupt or stale are no reason for that,
// and neither is a session that has none or was moved away: then the result is
// empty, and Open finds out again.
func Prepare(ctx context.Context, cfg PrepareConfig) (*Prepared, error) {
	if cfg.Store == nil || cfg.Vault == nil || cfg.Master == nil || cfg.Session == "" {
		return nil, errors.New("device: store, vault, master key and session are required")
	}
	if cfg.For <= 0 {
		cfg.For = DefaultPreparedFor
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Prepared{session: cfg.Session, at: time.Now(), life: cfg.For}
	partition := state.OfSession(cfg.Session)
	meta, _, err := readMeta(ctx, cfg.Store, partition)
	if err == nil && (meta.Credential == nil || away(meta) != nil) {
		return p, nil
	}
	var k *seal.Keyset
	var c *credential
	if err == nil {
		k, c, err = loadKeys(ctx, cfg.Vault, cfg.Master, partition, meta)
	}
	var stale *StaleError
	switch {
	case errors.As(err, &stale), errors.Is(err, state.ErrCorrupt):
		cfg.Log.Warn("the credentials cannot be used; the session is claimed all the same and parked", "session", cfg.Session, "error", err)
		return p, nil
	case err != nil:
		return nil, fmt.Errorf("preparing %s: %w", cfg.Session, err)
	}
	at := *meta.Credential
	p.pointer, p.wrapped, p.keyset, p.credential = &at, meta.Keyset, k, c
	return p, nil
}

// loadKeys unwraps the keyset that META names and loads the credentials. A
// *StaleError says that they must not be used; any other error that they could
// not be loaded now.
func loadKeys(ctx context.Context, vault state.Vault, master seal.Master, p state.Partition, meta state.Meta) (*seal.Keyset, *credential, error) {
	session, _ := p.Session()
	k, err := seal.Unwrap(ctx, master, p, meta.Keyset)
	if err != nil {
		if errors.Is(err, state.ErrCorrupt) {
			return nil, nil, &StaleError{"the keyset cannot be unwrapped", err}
		}
		return nil, nil, fmt.Errorf("unwrapping the keyset of %s: %w", session, err)
	}
	c, err := loadCredential(ctx, vault, p, k, *meta.Credential)
	return k, c, err
}

// Session names the session that was prepared.
func (p *Prepared) Session() string { return p.session }

// Discard forgets the keys and overwrites what of them can be overwritten. What
// Open has taken is the Device's and stays. A nil Prepared has nothing to forget.
func (p *Prepared) Discard() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.credential != nil {
		p.credential.wipe()
	}
	p.pointer, p.keyset, p.credential = nil, nil, nil
}

// take hands the keys over if they are those that META names now, and are not
// too old. They are gone from p in any case.
func (p *Prepared) take(session string, meta state.Meta) (*seal.Keyset, *credential, bool) {
	if p == nil {
		return nil, nil, false
	}
	p.mu.Lock()
	at, k, c := p.pointer, p.keyset, p.credential
	fits := at != nil && p.session == session && time.Since(p.at) < p.life &&
		meta.Credential != nil && *meta.Credential == *at && bytes.Equal(meta.Keyset, p.wrapped)
	if fits {
		p.pointer, p.keyset, p.credential = nil, nil, nil
	}
	p.mu.Unlock()
	if !fits {
		p.Discard()
		return nil, nil, false
	}
	return k, c, true
}

// wipe overwrites the private keys.
func (c *credential) wipe() {
	for _, secret := range [][]byte{c.NoiseKey, c.IdentityKey, c.SignedPreKey, c.AdvSecretKey} {
		clear(secret)
	}
}
