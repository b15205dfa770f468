package device

import (
	"bytes"
	"context"
	"strings"

	"github.com/petermattis/goid"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/state"
)

// addressKey names a record of a Signal address, "user:device". User and device
// are named apart, so that all devices of a user have a common prefix.
func (d *Device) addressKey(kind state.Kind, address string) state.Key {
	return d.key(kind, d.addressID(address))
}

func (d *Device) addressID(address string) string {
	user, device, ok := strings.Cut(address, ":")
	if !ok {
		return d.blind("user", user)
	}
	return d.userPrefix(user) + d.deviceID(device)
}

// userPrefix begins the ids of all of a user's devices.
func (d *Device) userPrefix(user string) string { return d.blind("user", user) + "." }

// deviceID is the device number, which tells nothing; what is none is blinded.
func (d *Device) deviceID(device string) string {
	if device != "" && len(device) <= 10 && strings.Trim(device, "0123456789") == "" {
		return device
	}
	return "x" + d.blind("device", device)
}

func (s *libraryStore) PutIdentity(ctx context.Context, address string, key [32]byte) error {
	d := s.d
	id := d.addressKey(state.KindDevice, address)
	value, ok, err := d.get(ctx, d.unit(ctx), id)
	if err != nil || ok && bytes.Equal(value, key[:]) {
		return err // the library stores it with each message
	}
	d.unmigrate(address)
	return d.write(ctx, change{key: id, value: key[:]})
}

func (s *libraryStore) DeleteAllIdentities(ctx context.Context, phone string) error {
	return s.d.deleteAll(ctx, state.KindDevice, phone)
}

func (s *libraryStore) DeleteIdentity(ctx context.Context, address string) error {
	return s.d.locked(ctx, func(u *unit) error {
		u.stage(change{key: s.d.addressKey(state.KindDevice, address), del: true})
		return nil
	})
}

// IsTrustedIdentity is true for an address that is not known yet.
func (s *libraryStore) IsTrustedIdentity(ctx context.Context, address string, key [32]byte) (bool, error) {
	value, ok, err := s.d.get(ctx, s.d.unit(ctx), s.d.addressKey(state.KindDevice, address))
	if err != nil {
		return false, err
	}
	return !ok || bytes.Equal(value, key[:]), nil
}

// GetSession reads a ratchet, which the caller is going to move: it takes the
// ratchet lock, until the PutSession that follows.
func (s *libraryStore) GetSession(ctx context.Context, address string) ([]byte, error) {
	d := s.d
	if err := d.check(); err != nil {
		return nil, err
	}
	u := d.unit(ctx)
	if u == nil {
		u = newUnit(loose, 0)
		d.bind(u, goid.Get())
	}
	if err := d.acquire(ctx, u); err != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.kind == loose {
			d.end(u)
		}
		return nil, err
	}
	u.mu.Lock()
	u.moving = true
	u.mu.Unlock()
	value, _, err := d.get(ctx, u, d.addressKey(state.KindSignal, address))
	return bytes.Clone(value), err
}

// HasSession never waits for the lock: nothing is written because of its answer.
func (s *libraryStore) HasSession(ctx context.Context, address string) (bool, error) {
	_, ok, err := s.d.get(ctx, s.d.unit(ctx), s.d.addressKey(state.KindSignal, address))
	return ok, err
}

// PutSession stores a ratchet: with the message or the fan-out that it belongs
// to, else at once.
func (s *libraryStore) PutSession(ctx context.Context, address string, session []byte) error {
	d := s.d
	if err := d.check(); err != nil {
		return err
	}
	u := d.unit(ctx)
	key := d.addressKey(state.KindSignal, address)
	if now, ok := archived(session); ok {
		before, _, err := d.get(ctx, u, key) // as the caller has just read it
		if err != nil {
			return err
		}
		session = keepArchived(before, now, session)
	}
	c := change{key: key, value: bytes.Clone(session)}
	d.unmigrate(address)
	if u == nil {
		if d.wasLost() {
			return d.fail(ErrLockLost)
		}
		return d.locked(ctx, func(u *unit) error { u.stage(c); return nil })
	}
	u.mu.Lock()
	kept := (!u.moving || d.lock.heldBy() == u) && u.put(c) // with mu held nobody can take the lock from u
	u.moving = false
	fetching := u.fetching
	u.mu.Unlock()
	if !kept {
		return d.fail(ErrLockLost)
	}
	if u.kind == received || fetching {
		return nil
	}
	return d.settle(ctx, u)
}

// wasLost says that the lock was taken from this goroutine since it read.
func (d *Device) wasLost() bool {
	d.unitMu.Lock()
	defer d.unitMu.Unlock()
	g := goid.Get()
	_, lost := d.lost[g]
	delete(d.lost, g)
	return lost
}

func (s *libraryStore) DeleteAllSessions(ctx context.Context, phone string) error {
	return s.d.deleteAll(ctx, state.KindSignal, phone)
}

func (s *libraryStore) DeleteSession(ctx context.Context, address string) error {
	return s.d.locked(ctx, func(u *unit) error {
		u.stage(change{key: s.d.addressKey(state.KindSignal, address), del: true})
		return nil
	})
}

// deleteAll deletes the records of all of a user's devices.
func (d *Device) deleteAll(ctx context.Context, kind state.Kind, user string) error {
	return d.locked(ctx, func(u *unit) error {
		all, err := d.ofUser(ctx, u, kind, user)
		if err != nil {
			return err
		}
		for _, r := range all {
			u.stage(change{key: r.key, del: true})
		}
		return nil
	})
}

// ofUser returns the records of all of a user's devices, as u sees them.
func (d *Device) ofUser(ctx context.Context, u *unit, kind state.Kind, user string) ([]found, error) {
	prefix := d.userPrefix(user)
	stored, err := d.scan(ctx, kind, prefix)
	if err != nil {
		return nil, err
	}
	all := make([]found, 0, len(stored))
	for _, r := range stored {
		if _, ok := u.peek(r.key); !ok {
			all = append(all, r)
		}
	}
	for _, c := range u.under(kind, d.ring.Load().prefix+prefix) {
		if !c.del {
			all = append(all, found{c.key, c.value})
		}
	}
	return all, nil
}

// kindMigrated marks, in the cache only, users of whom nothing is stored under
// the phone number.
const kindMigrated state.Kind = "(migrated)"

// MigratePNToLID moves a user's sessions, identities and sender keys from the
// phone number to the LID.
func (s *libraryStore) MigratePNToLID(ctx context.Context, pn, lid types.JID) error {
	d := s.d
	if err := d.check(); err != nil {
		return err
	}
	from, to := pn.SignalAddressUser(), lid.SignalAddressUser()
	mark := d.key(kindMigrated, d.userPrefix(from))
	if _, _, known := d.cache.get(mark); known {
		return nil
	}
	committed := false
	err := d.locked(ctx, func(u *unit) error {
		for _, kind := range []state.Kind{state.KindSignal, state.KindDevice, state.KindSenderKey} {
			all, err := d.ofUser(ctx, u, kind, from)
			if err != nil {
				return err
			}
			old := d.ring.Load().prefix + d.userPrefix(from)
			for _, r := range all {
				rest := strings.TrimPrefix(r.key.ID, old)
				u.stage(change{key: d.key(kind, d.userPrefix(to)+rest), value: r.value}, change{key: r.key, del: true})
			}
		}
		committed = u.kind == brief
		return nil
	})
	if err == nil && committed {
		d.cache.put(mark, nil, true)
	}
	return err
}

// unmigrate forgets that nothing is stored under a user's address.
func (d *Device) unmigrate(address string) {
	user, _, _ := strings.Cut(address, ":")
	d.cache.remove(d.key(kindMigrated, d.userPrefix(user)))
}

// A sender key's id begins with the sender, so that MigratePNToLID finds it.
func (d *Device) senderKey(group, user string) state.Key {
	return d.key(state.KindSenderKey, d.addressID(user)+"."+d.blind("group", group))
}

func (s *libraryStore) PutSenderKey(ctx context.Context, group, user string, session []byte) error {
	s.d.unmigrate(user)
	return s.d.write(ctx, change{key: s.d.senderKey(group, user), value: bytes.Clone(session)})
}

func (s *libraryStore) GetSenderKey(ctx context.Context, group, user string) ([]byte, error) {
	value, _, err := s.d.get(ctx, s.d.unit(ctx), s.d.senderKey(group, user))
	return bytes.Clone(value), err
}
