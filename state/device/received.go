package device

import (
	"bytes"
	"context"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/petermattis/goid"
	"go.mau.fi/whatsmeow/store"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// hashLife is how long the hash of a received ciphertext is kept: the server
// keeps undelivered messages for as long.
const hashLife = 14 * 24 * time.Hour

var hashText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func hashID(hash [32]byte) string { return hashText.EncodeToString(hash[:]) }

// hashChange writes a hash, with the plaintext if the message is not handled yet.
//
//	0  insert time, Unix ms, 8 bytes
//	8  server time, Unix s, 8 bytes
//	16 1 if there is a plaintext
//	17 plaintext
func (d *Device) hashChange(s seen, plaintext bool) change {
	value := binary.BigEndian.AppendUint64(make([]byte, 0, 17), uint64(s.insertedAt.UnixMilli()))
	value = binary.BigEndian.AppendUint64(value, uint64(s.serverTime.Unix()))
	if plaintext {
		value = append(append(value, 1), s.plaintext...)
	} else {
		value = append(value, 0)
	}
	return change{key: d.key(state.KindEventHash, hashID(s.hash)), value: value, expires: s.insertedAt.Add(hashLife)}
}

func decodeHash(hash [32]byte, value []byte) (*seen, error) {
	if len(value) < 17 {
		return nil, fmt.Errorf("%w: the record of a received message is cut short", state.ErrCorrupt)
	}
	s := &seen{hash: hash,
		insertedAt: time.UnixMilli(int64(binary.BigEndian.Uint64(value))),
		serverTime: time.Unix(int64(binary.BigEndian.Uint64(value[8:])), 0)}
	if value[16] == 1 {
		s.plaintext = append([]byte{}, value[17:]...)
	}
	return s, nil
}

// loadHashes reads the hashes that have not expired, for the set.
func (d *Device) loadHashes(ctx context.Context) ([]uint32, error) {
	prefix := d.ring.Load().prefix
	q := state.Query{Kind: state.KindEventHash, Prefix: prefix}
	var all []uint32
	err := d.reading(ctx, func(ctx context.Context) error {
		all, q.After = nil, ""
		for {
			page, err := d.cfg.Store.Query(ctx, d.partition, q)
			if err != nil {
				return err
			}
			for _, r := range page.Records {
				q.After = r.Key.ID
				raw, err := hashText.DecodeString(strings.TrimPrefix(r.Key.ID, prefix))
				if err != nil || len(raw) != 32 {
					return fmt.Errorf("%w: %s is not the id of a hash", state.ErrCorrupt, r.Key)
				}
				all = append(all, fingerprint([32]byte(raw)))
			}
			if !page.More || len(page.Records) == 0 {
				return nil
			}
		}
	})
	return all, err
}

// GetBufferedEvent tells whether a ciphertext was received before. One whose
// processing did not end is returned with its plaintext, and is then handled as
// a newly decrypted one is.
func (s *libraryStore) GetBufferedEvent(ctx context.Context, hash [32]byte) (*store.BufferedEvent, error) {
	d := s.d
	if err := d.check(); err != nil {
		return nil, err
	}
	u := d.unit(ctx)
	if u != nil {
		u.mu.Lock()
		staged := u.hash
		u.mu.Unlock()
		if staged != nil && staged.hash == hash {
			return staged.event(), nil
		}
	}
	maybe, err := d.hashes.has(ctx, hash, d.loadHashes)
	if err != nil || !maybe {
		return nil, err
	}
	value, ok, err := d.get(ctx, u, d.key(state.KindEventHash, hashID(hash)))
	if err != nil || !ok {
		return nil, err
	}
	known, err := decodeHash(hash, value)
	if err != nil {
		return nil, d.fail(err)
	}
	if known.plaintext != nil && u == nil {
		u = newUnit(received, 0)
		u.hash = known
		d.bind(u, goid.Get())
	}
	return known.event(), nil
}

func (s *seen) event() *store.BufferedEvent {
	return &store.BufferedEvent{Plaintext: bytes.Clone(s.plaintext), InsertTime: s.insertedAt, ServerTime: s.serverTime}
}

// PutBufferedEvent notes the ciphertext that the message came in. Within the unit
// of a received message the plaintext is not stored.
func (s *libraryStore) PutBufferedEvent(ctx context.Context, hash [32]byte, plaintext []byte, serverTimestamp time.Time) error {
	d := s.d
	if err := d.check(); err != nil {
		return err
	}
	noted := seen{hash: hash, plaintext: append([]byte{}, plaintext...), insertedAt: d.cfg.Now(), serverTime: serverTimestamp}
	if u := d.message(); u != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.hash = &noted
		return nil
	}
	if err := d.apply(ctx, []change{d.hashChange(noted, true)}, journal.Batch{}, false); err != nil {
		return err
	}
	d.hashes.add(hash)
	return nil
}

// DoDecryptionTxn runs a decryption under the ratchet lock. What it writes is
// staged, and dropped if fn fails; if it succeeds the lock stays with this
// goroutine until ClearBufferedEventPlaintext, Drop or BeforeSend.
func (s *libraryStore) DoDecryptionTxn(ctx context.Context, fn func(context.Context) error) error {
	d := s.d
	if err := d.check(); err != nil {
		return err
	}
	g := goid.Get()
	if u := d.ofGoroutine(g); u != nil {
		// The child before this one was not a message that could be handled.
		if err := d.conclude(ctx, u); err != nil {
			return err
		}
	}
	u := newUnit(received, 0)
	u.deciding = true
	d.bind(u, g)
	ok := false
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.deciding, u.moving = false, false
		u.touched = time.Now()
		if !ok { // failed, or panicked
			d.end(u)
		}
	}()
	if err := d.acquire(ctx, u); err != nil {
		return err
	}
	if err := fn(ctx); err != nil {
		return err
	}
	if err := d.check(); err != nil {
		return err // something failed that the library only logs
	}
	ok = true
	return nil
}

func (d *Device) conclude(ctx context.Context, u *unit) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.kind == sending {
		return nil // it goes on after what this goroutine received
	}
	return d.finish(ctx, u)
}

// ClearBufferedEventPlaintext commits the received message: ratchet, identity,
// prekey, hash, whatever its processing wrote, and our event, in one commit.
func (s *libraryStore) ClearBufferedEventPlaintext(ctx context.Context, hash [32]byte) error {
	d := s.d
	if err := d.check(); err != nil {
		return err
	}
	if u := d.message(); u != nil {
		u.mu.Lock()
		same := u.hash != nil && u.hash.hash == hash
		err := d.finish(ctx, u)
		u.mu.Unlock()
		if err != nil || same {
			return err
		}
	}
	maybe, err := d.hashes.has(ctx, hash, d.loadHashes)
	if err != nil || !maybe {
		return err
	}
	value, ok, err := d.get(ctx, nil, d.key(state.KindEventHash, hashID(hash)))
	if err != nil || !ok {
		return err
	}
	known, err := decodeHash(hash, value)
	if err != nil {
		return d.fail(err)
	}
	if known.plaintext == nil {
		return nil
	}
	return d.apply(ctx, []change{d.hashChange(*known, false)}, journal.Batch{}, false)
}

// DeleteOldBufferedHashes forgets what has expired. The records expire by
// themselves; the set in memory is read anew.
func (s *libraryStore) DeleteOldBufferedHashes(ctx context.Context) error {
	d := s.d
	if err := d.check(); err != nil {
		return err
	}
	d.cache.clearKind(state.KindEventHash)
	return d.hashes.refresh(ctx, d.loadHashes)
}

// Stage adds to what the message being handled on this goroutine will commit.
// Outside of a message it commits at once. Conditions in a batch must hold, or
// the Device is poisoned. The handler calls Stage before it sends anything.
func (d *Device) Stage(b journal.Batch) error {
	if err := d.check(); err != nil {
		return err
	}
	if u := d.message(); u != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		if !u.done {
			u.touched = time.Now()
			u.batch.Writes = append(u.batch.Writes, b.Writes...)
			u.batch.Events = append(u.batch.Events, b.Events...)
			return nil
		}
	}
	if err := d.cfg.Journal.Commit(context.Background(), b); err != nil {
		return d.fail(err)
	}
	return nil
}

// Drop forgets what the message being handled on this goroutine has staged: it
// is as if it had not been received. The handler calls it before it returns
// false, on which the library acknowledges nothing.
func (d *Device) Drop() {
	u := d.message()
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	d.end(u)
}

// BeforeSend is called with the tag of each frame before it leaves, on the
// goroutine that sends it. What this goroutine has staged is committed first. An
// acknowledgement or receipt that another goroutine sends waits until the
// messages that are being handled are committed, because the library
// acknowledges some of them from a goroutine of its own. On an error the
// connection has been cut already.
func (d *Device) BeforeSend(tag string) error {
	if err := d.check(); err != nil {
		return err
	}
	acks := tag == "ack" || tag == "receipt"
	u := d.ofGoroutine(goid.Get())
	if u == nil {
		if acks {
			return d.awaitReceived()
		}
		return nil
	}
	for ; u != nil; u = d.below(u) {
		if err := d.beforeSend(u, tag, acks); err != nil {
			return err
		}
	}
	return nil
}

func (d *Device) below(u *unit) *unit {
	d.unitMu.Lock()
	defer d.unitMu.Unlock()
	return u.before
}

func (d *Device) beforeSend(u *unit, tag string, acks bool) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.done:
		return nil
	case u.kind == sending && tag != "message":
		return nil // the queries on the way to the frame depend on nothing staged
	case u.kind == received && !acks:
		return d.yield(context.Background(), u)
	}
	return d.finish(context.Background(), u)
}

// awaitReceived waits until the received messages that are open now have ended.
func (d *Device) awaitReceived() error {
	d.unitMu.Lock()
	open := make([]*unit, 0, len(d.open))
	for u := range d.open {
		open = append(open, u)
	}
	d.unitMu.Unlock()
	if len(open) == 0 {
		return nil
	}
	limit := time.NewTimer(d.cfg.LockWait)
	defer limit.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for _, u := range open {
		for waiting := true; waiting; {
			select {
			case <-u.ended:
				waiting = false
			case <-look.C:
				if err := d.check(); err != nil {
					return err
				}
			case <-limit.C:
				return d.fail(fmt.Errorf("%w: an acknowledgement waited for a message being handled", ErrLockWait))
			}
		}
	}
	return d.check()
}
