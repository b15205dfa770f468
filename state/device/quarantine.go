package device

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
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
func readMeta(ctx context.Context, store state.Store, p state.Partition) (state.Meta, metaAt, error) {
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
	wrapped, err := k.Wrap(ctx, d.cfg.Master, d.partition)
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
// Destroy. It may be called again, and after the library's own deletion: the
// cause of the last call is kept.
func (d *Device) Quarantine(ctx context.Context, cause state.Cause, extra journal.Batch) error {
	if d.cfg.Quarantine <= 0 {
		return d.Destroy(ctx, extra)
	}
	d.life.Lock()
	defer d.life.Unlock()
	d.retired.Store(true)
	now := d.cfg.Now()
	own := d.retiredSet
	err := d.updateMeta(ctx, &extra, func(m *state.Meta) error {
		if m.Credential == nil {
			for i := range m.Quarantined {
				if m.Quarantined[i].KeysetID == d.retiredSet {
					m.Quarantined[i].Cause = cause
				}
			}
			return nil
		}
		own = m.KeysetID
		m.Quarantined = append(m.Quarantined, state.QuarantinedSet{Credential: *m.Credential, Keyset: m.Keyset,
			KeysetID: m.KeysetID, Cause: cause, At: now, Until: now.Add(d.cfg.Quarantine)})
		m.Credential, m.Keyset, m.KeysetID = nil, nil, ""
		return nil
	})
	if err != nil {
		return d.failRetiring(err)
	}
	d.retiredSet = own
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
		return nil
	})
	if err != nil {
		return d.failRetiring(err)
	}
	d.paired.Store(false)
	d.cache.clear()
	names, err := d.cfg.Vault.ListObjects(ctx, d.cfg.Session)
	for _, name := range names {
		if err == nil {
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

// Restore makes the newest quarantined credentials that have not expired the
// session's again. ErrPaired if it has others, ErrNothingToRestore if there are
// none. A Device that is open must be opened anew.
func Restore(ctx context.Context, cfg Config) error {
	if err := cfg.fill(); err != nil {
		return err
	}
	return updateMeta(ctx, cfg, nil, func(m *state.Meta) error {
		if m.Credential != nil {
			return ErrPaired
		}
		best := -1
		for i, q := range m.Quarantined {
			if q.Until.After(cfg.Now()) && (best < 0 || q.At.After(m.Quarantined[best].At)) {
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
	})
}

// orphanAge is how old an object must be that nothing points to, so that one
// whose pointer is about to be written is left alone.
const orphanAge = time.Hour

// Sweep destroys quarantined credentials that are past their time, and removes
// objects and records that nothing points to. It may run beside an open Device.
func Sweep(ctx context.Context, cfg Config) error {
	if err := cfg.fill(); err != nil {
		return err
	}
	p := state.OfSession(cfg.Session)
	now := cfg.Now()
	m, _, err := readMeta(ctx, cfg.Store, p)
	if err != nil {
		return err
	}
	expired := func(q state.QuarantinedSet) bool { return !q.Until.After(now) }
	if slices.ContainsFunc(m.Quarantined, expired) {
		err := updateMeta(ctx, cfg, nil, func(m *state.Meta) error {
			m.Quarantined = slices.DeleteFunc(m.Quarantined, expired)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := sweepObjects(ctx, cfg, now); err != nil {
		return err
	}
	return sweepRecords(ctx, cfg, 0)
}

// sweepObjects removes objects that nothing points to.
func sweepObjects(ctx context.Context, cfg Config, now time.Time) error {
	p := state.OfSession(cfg.Session)
	names, err := cfg.Vault.ListObjects(ctx, cfg.Session)
	if err != nil {
		return err
	}
	var large bool
	var old []string
	for _, name := range names {
		_, stamp, _ := strings.Cut(name, "-")
		id, err := ulid.ParseStrict(strings.ToUpper(stamp))
		if err != nil || now.Sub(ulid.Time(id.Time())) < orphanAge {
			continue // not one of ours, or too new to judge
		}
		old = append(old, name)
		large = large || strings.HasPrefix(name, largePrefix)
	}
	if len(old) == 0 {
		return nil
	}
	used := make(map[string]bool)
	if large {
		if err := cfg.Journal.Flush(ctx); err != nil {
			return err
		}
		err := eachRecord(ctx, cfg.Store, p, deviceKinds, func(r state.Record) error {
			if len(r.Value) > 0 && r.Value[0] == bodyVault {
				pointer, err := decodePointer(r)
				used[pointer.Name] = true
				return err
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	m, _, err := readMeta(ctx, cfg.Store, p) // after the listing: it names what was made meanwhile
	if err != nil {
		return err
	}
	if m.Credential != nil {
		used[m.Credential.Name] = true
	}
	for _, q := range m.Quarantined {
		used[q.Credential.Name] = true
	}
	for _, name := range old {
		if !used[name] {
			if err := cfg.Vault.DeleteObject(ctx, cfg.Session, name, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweepRecords deletes device records of keysets that META does not hold, in at
// most so many commits; 0: as many as it takes.
func sweepRecords(ctx context.Context, cfg Config, commits int) error {
	p := state.OfSession(cfg.Session)
	generations := make(map[state.Kind][]string)
	for _, kind := range deviceKinds {
		for after := ""; ; {
			page, err := cfg.Store.Query(ctx, p, state.Query{Kind: kind, After: after, Limit: 1})
			if err != nil {
				return err
			}
			if len(page.Records) == 0 {
				break
			}
			generation, _, _ := strings.Cut(page.Records[0].Key.ID, ".")
			generations[kind] = append(generations[kind], generation)
			after = generation + "/" // '/' follows '.': past all of this generation
		}
	}
	m, _, err := readMeta(ctx, cfg.Store, p) // after the listing: it names the keyset of what was written meanwhile
	if err != nil {
		return err
	}
	used := map[string]bool{m.KeysetID: m.KeysetID != ""}
	for _, q := range m.Quarantined {
		used[q.KeysetID] = true
	}
	for _, kind := range deviceKinds {
		for _, generation := range generations[kind] {
			if used[generation] {
				continue
			}
			for {
				page, err := cfg.Store.Query(ctx, p, state.Query{Kind: kind, Prefix: generation + ".", Limit: state.MaxItems})
				if err != nil {
					return err
				}
				if len(page.Records) == 0 {
					break
				}
				b := journal.Batch{}
				for _, r := range page.Records[:min(len(page.Records), state.MaxItems)] {
					b.Writes = append(b.Writes, state.Del(kind, r.Key.ID))
				}
				if err := cfg.Journal.Commit(ctx, b); err != nil {
					return err
				}
				if commits--; commits == 0 {
					return nil
				}
			}
		}
	}
	return nil
}

// eachRecord reads all records of some kinds.
func eachRecord(ctx context.Context, store state.Store, p state.Partition, kinds []state.Kind, do func(state.Record) error) error {
	for _, kind := range kinds {
		q := state.Query{Kind: kind}
		for {
			page, err := store.Query(ctx, p, q)
			if err != nil {
				return err
			}
			for _, r := range page.Records {
				if err := do(r); err != nil {
					return err
				}
				q.After = r.Key.ID
			}
			if !page.More || len(page.Records) == 0 {
				break
			}
		}
	}
	return nil
}

// Finding is something that Verify found wrong.
type Finding struct {
	Where   string // the record's key, or the object's name
	Problem string
	Err     error
}

func (f Finding) String() string { return f.Where + ": " + f.Problem }

// Verify reads and opens every record and object of a session, also quarantined
// ones and the events of its queue, and tells what is wrong. An error means that
// it could not be found out.
func Verify(ctx context.Context, cfg Config) ([]Finding, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	p := state.OfSession(cfg.Session)
	var findings []Finding
	report := func(where string, err error) error {
		if stale := (*StaleError)(nil); !errors.As(err, &stale) && !errors.Is(err, state.ErrCorrupt) {
			return err
		}
		findings = append(findings, Finding{where, err.Error(), err})
		return nil
	}
	m, _, err := readMeta(ctx, cfg.Store, p)
	if err != nil {
		return findings, report(string(state.KindMeta), err)
	}
	keysets := make(map[string]*seal.Keyset)
	check := func(wrapped []byte, id string, at *state.ObjectPointer) error {
		if len(wrapped) == 0 && at == nil {
			return nil
		}
		k, err := seal.Unwrap(ctx, cfg.Master, p, wrapped)
		if err == nil && k.ID() != id {
			err = fmt.Errorf("%w: it is keyset %s, META says %s", state.ErrCorrupt, k.ID(), id)
		}
		if err != nil {
			return report("keyset "+id, err)
		}
		keysets[id] = k
		if at != nil {
			if _, err := loadCredential(ctx, cfg.Vault, p, k, *at); err != nil {
				return report(at.Name, err)
			}
		}
		return nil
	}
	if err := check(m.Keyset, m.KeysetID, m.Credential); err != nil {
		return nil, err
	}
	for _, q := range m.Quarantined {
		if err := check(q.Keyset, q.KeysetID, &q.Credential); err != nil {
			return nil, err
		}
	}
	err = eachRecord(ctx, cfg.Store, p, deviceKinds, func(r state.Record) error {
		generation, _, _ := strings.Cut(r.Key.ID, ".")
		k := keysets[generation]
		if k == nil {
			return report(r.Key.String(), fmt.Errorf("%w: it is of keyset %s, which the session does not have (left over, or of another session)", state.ErrCorrupt, generation))
		}
		if _, err := opened(ctx, cfg.Vault, p, k, r); err != nil {
			return report(r.Key.String(), err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = eachRecord(ctx, cfg.Store, p, []state.Kind{state.KindEvent}, func(r state.Record) error {
		if _, err := cfg.Journal.OpenEvent(r); err != nil {
			return report(r.Key.String(), err)
		}
		return nil
	})
	return findings, err
}
