package device

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// ErrPaired is returned where an unpaired session is needed.
var ErrPaired = errors.New("the session is paired: disconnect it first")

// ErrNothingToRestore says that no quarantined credentials are left.
var ErrNothingToRestore = errors.New("no quarantined credentials are left to restore: pair the session again")

// deviceKinds are the kinds of records that are a device's.
var deviceKinds = []state.Kind{state.KindDevice, state.KindSignal, state.KindPreKey, state.KindSenderKey,
	state.KindAppStateKey, state.KindAppStateVer, state.KindAppStateMAC, state.KindEventHash, state.KindOutgoing,
	state.KindContact, state.KindChat, state.KindSecret, state.KindPrivacyToken, state.KindNCT, state.KindLID}

// readMeta reads a session's META record and the condition that it has not
// changed since; an empty one if there is none.
func readMeta(ctx context.Context, store state.Records, p state.Partition) (state.Meta, metaAt, error) {
	r, err := store.Get(ctx, p, state.Key{Kind: state.KindMeta})
	if errors.Is(err, state.ErrNotFound) {
		return state.Meta{V: state.Format}, metaAt{}, nil
	} else if err != nil {
		return state.Meta{}, metaAt{}, fmt.Errorf("reading META of %s: %w", p, err)
	}
	var m state.Meta
	if err := state.Decode(r.Value, &m); err != nil {
		return state.Meta{}, metaAt{}, fmt.Errorf("META of %s: %w", p, err)
	}
	return m, metaAt{r.Rev, true}, nil
}

// metaAt is the revision that META was read at.
type metaAt struct {
	rev   uint64
	found bool
}

func (a metaAt) unchanged() state.Condition {
	if !a.found {
		return state.Absent()
	}
	return state.AtRev(a.rev)
}

// updateMeta changes META, together with extra, in one fenced commit, if nobody
// else has changed it meanwhile; else it starts over. An empty Meta is written
// too: it keeps the counter of prekeys.
func updateMeta(ctx context.Context, cfg Config, extra *journal.Batch, change func(*state.Meta) error) error {
	p := state.OfSession(cfg.Session)
	for attempt := 0; ; attempt++ {
		m, at, err := readMeta(ctx, cfg.Store, p)
		if err != nil {
			return err
		}
		if err := change(&m); err != nil {
			return err
		}
		m.V = state.Format
		value, err := state.Encode(m)
		if err != nil {
			return err
		}
		w := state.Put(state.KindMeta, "", value)
		w.Rev, w.If = at.rev+1, at.unchanged()
		b := journal.Batch{Writes: []state.Write{w}}
		if extra != nil {
			b.Writes = append(b.Writes, extra.Writes...)
			b.Events = extra.Events
		}
		err = cfg.Journal.Commit(ctx, b)
		if !errors.Is(err, state.ErrConflict) || attempt == 3 {
			return err
		}
	}
}

func (d *Device) updateMeta(ctx context.Context, extra *journal.Batch, change func(*state.Meta) error) error {
	return updateMeta(ctx, d.cfg, extra, change)
}

// storeRing writes the keyset in use to META, before the first record that it
// seals.
func (d *Device) storeRing(ctx context.Context) error {
	k := d.ring.Load()
	wrapped, err := k.Wrap(ctx, d.master(), d.partition)
	if err != nil {
		return err
	}
	err = d.updateMeta(ctx, nil, func(m *state.Meta) error {
		if m.Credential != nil && m.KeysetID != k.ID() {
			return ErrPaired
		}
		if m.KeysetID != k.ID() {
			m.Keyset, m.KeysetID = wrapped, k.ID()
		}
		return nil
	})
	if err == nil {
		k.stored.Store(true)
	}
	return err
}

// Quarantine takes the credentials out of use, in one fenced commit with extra:
// the Device works no more, the session has no credentials, and what it had is
// kept sealed for Config.Quarantine, for Restore. With no time to keep it is
// Destroy. Where there are no credentials it commits extra alone.
func (d *Device) Quarantine(ctx context.Context, cause state.Cause, extra journal.Batch) error {
	if d.cfg.Quarantine <= 0 {
		return d.Destroy(ctx, extra)
	}
	d.life.Lock()
	defer d.life.Unlock()
	d.retired.Store(true)
	now := d.cfg.Now()
	err := d.updateMeta(ctx, &extra, func(m *state.Meta) error {
		if m.Credential == nil {
			return nil
		}
		m.Quarantined = append(m.Quarantined, state.QuarantinedSet{Credential: *m.Credential, Keyset: m.Keyset,
			KeysetID: m.KeysetID, Cause: cause, At: now, Until: now.Add(d.cfg.Quarantine)})
		m.Credential, m.Keyset, m.KeysetID = nil, nil, ""
		return nil
	})
	if err != nil {
		return d.failRetiring(err)
	}
	d.paired.Store(false)
	d.cache.clear()
	return nil
}

// failRetiring reports that credentials could not be taken out of use. The
// Device stays out of use all the same.
func (d *Device) failRetiring(err error) error {
	d.cache.clear()
	return d.fail(fmt.Errorf("taking the credentials out of use: %w", err))
}

// Destroy makes the credentials, also quarantined ones, unreadable for good: the
// wrapped keysets and pointers go in one fenced commit with extra, the objects
// and records after it. What is not removed then is removed by Sweep.
func (d *Device) Destroy(ctx context.Context, extra journal.Batch) error {
	d.life.Lock()
	defer d.life.Unlock()
	d.retired.Store(true)
	err := d.updateMeta(ctx, &extra, func(m *state.Meta) error {
		m.Credential, m.Keyset, m.KeysetID, m.Quarantined = nil, nil, "", nil
		m.Moved = nil // given up here, wherever it lives
		if m.Imported != nil && !m.Imported.Done {
			m.Imported = nil
		}
		return nil
	})
	if err != nil {
		return d.failRetiring(err)
	}
	d.paired.Store(false)
	d.cache.clear()
	names, err := d.cfg.Vault.ListObjects(ctx, d.cfg.Session)
	for _, name := range names {
		// Events that are still to be delivered, and files that are still to be sent, are
		// none of the credentials.
		if err == nil && !strings.HasPrefix(name, state.LargeEventPrefix) && !strings.HasPrefix(name, state.MediaPrefix) {
			err = d.cfg.Vault.DeleteObject(ctx, d.cfg.Session, name, "")
		}
	}
	if err == nil {
		err = sweepRecords(ctx, d.cfg, 20)
	}
	if err != nil {
		d.cfg.Log.Warn("what is left of destroyed credentials is removed later; it is unreadable", "session", d.cfg.Session, "err", err)
	}
	return nil
}

// discard drops the credentials of a pairing that did not end. Called with life
// held.
func (d *Device) discard(ctx context.Context) error {
	d.retired.Store(true)
	d.paired.Store(false)
	k := d.ring.Load()
	if k == nil || !k.stored.Load() {
		return nil
	}
	var old *state.ObjectPointer
	err := d.updateMeta(ctx, nil, func(m *state.Meta) error {
		if m.KeysetID != k.ID() {
			return nil
		}
		old = m.Credential
		m.Credential, m.Keyset, m.KeysetID = nil, nil, ""
		return nil
	})
	if err != nil {
		return d.failRetiring(err)
	}
	if old != nil {
		d.removeObject(ctx, *old)
	}
	return nil
}

// Fresh discards a device that is not paired, or whose pairing failed, and makes
// new keys; Library returns a new device. The ids of prekeys go on from where
// they were. ErrPaired if the pairing has ended; a poisoned Device stays so.
func (d *Device) Fresh() error {
	if p := d.poisoned.Load(); p != nil {
		return p
	}
	d.life.Lock()
	defer d.life.Unlock()
	if d.paired.Load() && d.established.Load() {
		return ErrPaired
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.discard(ctx); err != nil {
		return err
	}
	m, _, err := readMeta(ctx, d.cfg.Store, d.partition)
	if err != nil {
		return err
	}
	if m.Credential != nil {
		return ErrPaired
	}
	return d.renew()
}

// Restorable returns nil if Restore would find something, else what it would fail
// with, or that the store does not answer. A *StaleError: META cannot be read, or the
// credentials are elsewhere. It changes nothing.
func Restorable(ctx context.Context, cfg Config) error {
	if err := cfg.fill(); err != nil {
		return err
	}
	m, _, err := readMeta(ctx, cfg.Store, state.OfSession(cfg.Session))
	if errors.Is(err, state.ErrCorrupt) {
		return &StaleError{unreadableMeta, err}
	} else if err != nil {
		return err
	}
	return restore(&m, cfg.Now())
}

// Restore makes the newest quarantined credentials that have not expired the
// session's again. ErrPaired if it has others, ErrNothingToRestore if there are
// none, ErrMoved if they were exported: those come back with TakeBack alone. A
// Device that is open must be opened anew.
func Restore(ctx context.Context, cfg Config) error {
	if err := cfg.fill(); err != nil {
		return err
	}
	return updateMeta(ctx, cfg, nil, func(m *state.Meta) error { return restore(m, cfg.Now()) })
}

func restore(m *state.Meta, now time.Time) error {
	if err := away(*m); err != nil {
		return err
	}
	if m.Credential != nil {
		return ErrPaired
	}
	best := -1
	for i, q := range m.Quarantined {
		if q.Cause != state.CauseMoved && q.Cause != state.CauseStaleCredentials && q.Until.After(now) && (best < 0 || q.At.After(m.Quarantined[best].At)) {
			best = i
		}
	}
	if best < 0 {
		return ErrNothingToRestore
	}
	q := m.Quarantined[best]
	m.Credential, m.Keyset, m.KeysetID = &q.Credential, q.Keyset, q.KeysetID
	m.Quarantined = slices.Delete(m.Quarantined, best, best+1)
	return nil
}
