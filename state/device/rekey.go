package device

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// wrapper is the master key that keysets are wrapped with from now on.
type wrapper struct{ seal.Master }

func (d *Device) master() seal.Master { return d.wrapper.Load().Master }

// Rewrap wraps the session's keysets, quarantined ones included, with
// Config.Master, or with the master key that RewrapTo named last. It is for a
// Master that unwraps with more keys than the one that it wraps with, and for one
// whose provider has rotated what is behind it.
func (d *Device) Rewrap(ctx context.Context) error { return d.RewrapTo(ctx, d.master()) }

// RewrapTo wraps the session's keysets, quarantined ones included, with another
// master key, in one fenced commit of META. Nothing that they sealed is touched,
// and the Device goes on, with the new key. Before the commit the new key has
// proved that it unwraps what it has wrapped.
func (d *Device) RewrapTo(ctx context.Context, to seal.Master) error {
	d.life.Lock()
	defer d.life.Unlock()
	if err := d.Err(); err != nil {
		return err
	}
	if err := rewrap(ctx, d.cfg, d.master(), to); err != nil {
		if d.cfg.Journal.Err() != nil {
			return d.fail(err)
		}
		return err
	}
	d.wrapper.Store(&wrapper{to})
	return nil
}

// Rewrap is RewrapTo of a session that no Device is open of; Config.Master is
// what its keysets are wrapped with now.
func Rewrap(ctx context.Context, cfg Config, to seal.Master) error {
	if err := cfg.fill(); err != nil {
		return err
	}
	return rewrap(ctx, cfg, cfg.Master, to)
}

func rewrap(ctx context.Context, cfg Config, from, to seal.Master) error {
	p := state.OfSession(cfg.Session)
	return updateMeta(ctx, cfg, nil, func(m *state.Meta) error {
		if len(m.Keyset) > 0 {
			wrapped, err := seal.Rewrap(ctx, from, to, p, m.Keyset)
			if err != nil {
				return fmt.Errorf("wrapping the keyset of %s anew: %w", cfg.Session, err)
			}
			m.Keyset = wrapped
		}
		for i := range m.Quarantined {
			q := &m.Quarantined[i]
			wrapped, err := seal.Rewrap(ctx, from, to, p, q.Keyset)
			switch {
			case errors.Is(err, state.ErrCorrupt):
				// It was of no use before; that must not keep the rest from it.
				cfg.Log.Warn("a retired keyset cannot be unwrapped and stays as it is", "session", cfg.Session, "error", err)
			case err != nil:
				return fmt.Errorf("wrapping a retired keyset of %s anew: %w", cfg.Session, err)
			default:
				q.Keyset = wrapped
			}
		}
		return nil
	})
}

// rewrapped ends an Open that found the keyset wrapped with another key than the
// present one. That this cannot be changed now is no reason not to open: the
// next Open tries again.
func (d *Device) rewrapped(ctx context.Context) (*Device, error) {
	err := rewrap(ctx, d.cfg, d.cfg.Master, d.cfg.Master)
	switch {
	case d.cfg.Journal.Err() != nil:
		d.Close()
		return nil, err
	case err != nil:
		d.cfg.Log.Warn("the keyset is still wrapped with an old master key", "session", d.cfg.Session, "error", err)
	}
	return d, nil
}

// Rotate gives the session's keyset a new primary key, in one fenced commit.
// From then on records are sealed with it as they are written; what older keys
// sealed stays readable.
func (d *Device) Rotate(ctx context.Context) error {
	d.life.Lock()
	defer d.life.Unlock()
	if err := d.check(); err != nil {
		return err
	}
	old := d.ring.Load()
	if !old.stored.Load() {
		return nil // new as it is: nothing was sealed with it yet
	}
	next, err := old.AddKey()
	if err != nil {
		return err
	}
	wrapped, err := next.Wrap(ctx, d.master(), d.partition)
	if err != nil {
		return err
	}
	err = d.updateMeta(context.WithoutCancel(ctx), nil, func(m *state.Meta) error {
		if m.KeysetID != next.ID() {
			return fmt.Errorf("%w: META names keyset %s, and %s is in use", state.ErrConflict, m.KeysetID, next.ID())
		}
		m.Keyset = wrapped
		return nil
	})
	if err != nil {
		if d.cfg.Journal.Err() != nil {
			return d.fail(fmt.Errorf("storing a new key: %w", err))
		}
		return err
	}
	d.ring.Store(newRing(next, true))
	return nil
}
