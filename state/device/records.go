package device

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

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// A record's value begins with where its body is: sealed in the record itself,
// or, for bodies that are too large for one, sealed in the vault, with a pointer
// in the record. The body begins with its format.
const (
	bodyInline = 1
	bodyVault  = 2

	bodyFormat = 1

	// maxInline is the largest body that goes into a record.
	maxInline = state.MaxValue - seal.Overhead - 16
)

// largePrefix begins the names of vault objects that are bodies of records.
const largePrefix = "value-"

// largePointer says where a large body is.
type largePointer struct {
	Name      string `json:"name"`
	VersionID string `json:"versionId,omitempty"`
	SHA256    string `json:"sha256"`
}

// change is one write of a record, not sealed yet.
type change struct {
	key     state.Key
	value   []byte
	del     bool
	absent  bool      // only if there is no such record; else the write is left out
	early   bool      // may be committed before the rest of its unit
	expires time.Time // zero: never
}

func (r *ring) key(kind state.Kind, id string) state.Key {
	return state.Key{Kind: kind, ID: r.prefix + id}
}

// key names a record of the keyset in use.
func (d *Device) key(kind state.Kind, id string) state.Key { return d.ring.Load().key(kind, id) }

func (d *Device) blind(label, value string) string { return d.ring.Load().Blind(label, value) }

// sealed turns a change into a write.
func (d *Device) sealed(ctx context.Context, c change) (state.Write, error) {
	if c.del {
		return state.Del(c.key.Kind, c.key.ID), nil
	}
	body := append(make([]byte, 0, 1+len(c.value)), bodyFormat)
	body = append(body, c.value...)
	place := seal.Place{Partition: d.partition, Kind: c.key.Kind, ID: c.key.ID}
	sealed, err := d.ring.Load().Seal(place, body)
	if err != nil {
		return state.Write{}, err
	}
	value := append(make([]byte, 0, 1+len(sealed)), bodyInline)
	value = append(value, sealed...)
	if len(body) > maxInline {
		if value, err = d.putLarge(ctx, sealed); err != nil {
			return state.Write{}, err
		}
	}
	w := state.Put(c.key.Kind, c.key.ID, value)
	w.Expires = c.expires
	if c.absent {
		w.If = state.Absent()
	}
	return w, nil
}

// putLarge stores a sealed body in the vault and returns the record's value.
// Objects that no record points to any more are removed by Sweep.
func (d *Device) putLarge(ctx context.Context, sealed []byte) ([]byte, error) {
	p := largePointer{Name: largePrefix + strings.ToLower(ulid.Make().String())}
	sum := sha256.Sum256(sealed)
	p.SHA256 = hex.EncodeToString(sum[:])
	var err error
	if p.VersionID, err = d.cfg.Vault.PutObject(ctx, d.cfg.Session, p.Name, sealed); err != nil {
		return nil, fmt.Errorf("storing a large record in the vault: %w", err)
	}
	pointer, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return append([]byte{bodyVault}, pointer...), nil
}

// opened reads a record's value with the keyset that its id names.
func opened(ctx context.Context, vault state.Vault, p state.Partition, k *seal.Keyset, r state.Record) ([]byte, error) {
	place := seal.Place{Partition: p, Kind: r.Key.Kind, ID: r.Key.ID}
	if len(r.Value) == 0 {
		return nil, fmt.Errorf("%w: %s is empty", state.ErrCorrupt, place)
	}
	sealed := r.Value[1:]
	switch r.Value[0] {
	case bodyInline:
	case bodyVault:
		pointer, err := decodePointer(r)
		if err != nil {
			return nil, err
		}
		session, _ := p.Session()
		sealed, err = vault.GetObject(ctx, session, pointer.Name, pointer.VersionID)
		if errors.Is(err, state.ErrNotFound) {
			return nil, fmt.Errorf("%w: %s: its object in the vault is missing", state.ErrCorrupt, place)
		} else if err != nil {
			return nil, err
		}
		if sum := sha256.Sum256(sealed); hex.EncodeToString(sum[:]) != pointer.SHA256 {
			return nil, fmt.Errorf("%w: %s: its object in the vault has been altered", state.ErrCorrupt, place)
		}
	default:
		return nil, fmt.Errorf("%w: %s has format %d, this release reads up to %d", state.ErrCorrupt, place, r.Value[0], bodyVault)
	}
	body, err := k.Open(place, sealed)
	if err != nil {
		return nil, err
	}
	if len(body) == 0 || body[0] != bodyFormat {
		return nil, fmt.Errorf("%w: %s has a body of a format that this release does not read", state.ErrCorrupt, place)
	}
	return body[1:], nil
}

func decodePointer(r state.Record) (largePointer, error) {
	var p largePointer
	if err := json.Unmarshal(r.Value[1:], &p); err != nil {
		return p, fmt.Errorf("%w: %s: not a pointer: %w", state.ErrCorrupt, r.Key, err)
	}
	return p, nil
}

// get returns what the unit sees under a key: what it has staged, else what is
// cached, waiting in the journal, or stored.
func (d *Device) get(ctx context.Context, u *unit, key state.Key) (value []byte, found bool, err error) {
	if err := d.check(); err != nil {
		return nil, false, err
	}
	if c, ok := u.peek(key); ok {
		return c.value, !c.del, nil
	}
	if value, found, known := d.cache.get(key); known {
		return value, found, nil
	}
	got, err := d.fetch(ctx, []state.Key{key})
	if err != nil {
		return nil, false, err
	}
	value, found = got[key]
	return value, found, nil
}

// getMany is get for several keys with one round trip. Absent ones are not in
// the result.
func (d *Device) getMany(ctx context.Context, u *unit, wanted []state.Key) (map[state.Key][]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	result := make(map[state.Key][]byte, len(wanted))
	var missing []state.Key
	for _, key := range wanted {
		if c, ok := u.peek(key); ok {
			if !c.del {
				result[key] = c.value
			}
		} else if value, found, known := d.cache.get(key); known {
			if found {
				result[key] = value
			}
		} else {
			missing = append(missing, key)
		}
	}
	if len(missing) == 0 {
		return result, nil
	}
	got, err := d.fetch(ctx, missing)
	if err != nil {
		return nil, err
	}
	for key, value := range got {
		result[key] = value
	}
	return result, nil
}

// fetch reads records that are not cached, and caches what it finds.
func (d *Device) fetch(ctx context.Context, wanted []state.Key) (map[state.Key][]byte, error) {
	mark := d.cache.mark()
	result := make(map[state.Key][]byte, len(wanted))
	open := func(r state.Record) error {
		value, err := opened(ctx, d.cfg.Vault, d.partition, d.ring.Load().Keyset, r)
		if err == nil {
			result[r.Key] = value
		}
		return err
	}
	ask := make([]state.Key, 0, len(wanted))
	asked := make(map[state.Key]bool, len(wanted))
	for _, key := range wanted {
		w, waiting := d.cfg.Journal.Pending(key)
		switch {
		case asked[key]:
		case !waiting:
			asked[key] = true
			ask = append(ask, key)
		case !w.Delete:
			if err := open(w.Record); err != nil {
				return nil, d.fail(err)
			}
		}
	}
	err := d.reading(ctx, func(ctx context.Context) error {
		if len(ask) == 1 {
			r, err := d.cfg.Store.Get(ctx, d.partition, ask[0])
			if errors.Is(err, state.ErrNotFound) {
				return nil
			} else if err != nil {
				return err
			}
			return open(r)
		}
		if len(ask) == 0 {
			return nil
		}
		records, err := d.cfg.Store.GetMany(ctx, d.partition, ask)
		for _, r := range records {
			if err == nil {
				err = open(r)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, key := range wanted {
		value, found := result[key]
		d.cache.fill(mark, key, value, found)
	}
	return result, nil
}

// found is a record that a scan came across.
type found struct {
	key   state.Key
	value []byte
}

// scan reads the stored records of a kind whose id begins with prefix. What is
// staged is not seen; lazy writes are written first.
func (d *Device) scan(ctx context.Context, kind state.Kind, prefix string) ([]found, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	if err := d.cfg.Journal.Flush(context.WithoutCancel(ctx)); err != nil {
		return nil, d.fail(err)
	}
	var all []found
	q := state.Query{Kind: kind, Prefix: d.ring.Load().prefix + prefix}
	err := d.reading(ctx, func(ctx context.Context) error {
		all, q.After = nil, ""
		for {
			page, err := d.cfg.Store.Query(ctx, d.partition, q)
			if err != nil {
				return err
			}
			for _, r := range page.Records {
				value, err := opened(ctx, d.cfg.Vault, d.partition, d.ring.Load().Keyset, r)
				if err != nil {
					return err
				}
				all = append(all, found{r.Key, value})
				q.After = r.Key.ID
			}
			if !page.More || len(page.Records) == 0 {
				return nil
			}
		}
	})
	return all, err
}

// reading runs a read, again and again while the store is unavailable, for
// ReadWait at most. Other failures, and giving up, poison the Device. The
// caller's ctx does not end it: a connection that goes away is no failure.
func (d *Device) reading(ctx context.Context, read func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.ReadWait)
	defer cancel()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		err := read(ctx)
		if err == nil {
			return nil
		}
		if !retryable(err) {
			return d.fail(err)
		}
		t := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return d.fail(err)
		}
	}
}
