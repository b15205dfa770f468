package device

import (
	"bytes"
	"context"

	"github.com/petermattis/goid"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// Sending marks the ctx of a send of ours. What the library writes for it is
// committed with its ratchets, before the frame leaves. The ratchet lock is held
// from where the library reads the ratchets to where it has written them, not
// through the server's answer. The returned func ends the unit; what has not been
// committed then belongs to a message that did not leave, and is dropped.
func (d *Device) Sending(ctx context.Context) (context.Context, func()) {
	u := newUnit(sending, 0)
	d.bind(u, goid.Get())
	return context.WithValue(ctx, unitKey{d}, u), func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		d.end(u)
	}
}

// GetManySessions reads the ratchets of a fan-out and takes the ratchet lock.
// Each address is in the result, with nil where there is no session.
func (s *libraryStore) GetManySessions(ctx context.Context, addresses []string) (map[string][]byte, error) {
	d := s.d
	if len(addresses) == 0 {
		return nil, nil
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	u := d.unit(ctx)
	if u != nil && u.kind == received {
		// A handler that sends while it handles a message: the message is put
		// where a crash does not lose it, and the send is a unit of its own.
		u.mu.Lock()
		err := d.yield(ctx, u)
		u.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	if u == nil || u.kind != sending {
		u = newUnit(sending, 0)
		d.bind(u, goid.Get())
	}
	if err := d.acquire(ctx, u); err != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		d.end(u)
		return nil, err
	}
	u.mu.Lock()
	u.fetching = true
	u.mu.Unlock()
	wanted := make([]state.Key, len(addresses))
	for i, a := range addresses {
		wanted[i] = d.addressKey(state.KindSignal, a)
	}
	got, err := d.getMany(ctx, u, wanted)
	if err != nil {
		return nil, err
	}
	result := make(map[string][]byte, len(addresses))
	for i, a := range addresses {
		result[a] = bytes.Clone(got[wanted[i]])
	}
	return result, nil
}

// PutManySessions commits the ratchets of a fan-out and what was staged with
// them, in as many commits as it takes, and releases the lock.
func (s *libraryStore) PutManySessions(ctx context.Context, sessions map[string][]byte) error {
	d := s.d
	if err := d.check(); err != nil {
		return err
	}
	changes := make([]change, 0, len(sessions))
	for a, session := range sessions {
		changes = append(changes, change{key: d.addressKey(state.KindSignal, a), value: bytes.Clone(session)})
		d.unmigrate(a)
	}
	u := d.unit(ctx)
	switch {
	case u == nil:
		return d.locked(ctx, func(u *unit) error { u.stage(changes...); return nil })
	case !u.stage(changes...):
		return d.fail(ErrLockLost)
	}
	return d.settle(ctx, u)
}

// settle commits what a send or a loose unit has staged and releases the lock. A
// send goes on, without the lock.
func (d *Device) settle(ctx context.Context, u *unit) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.kind != sending {
		return d.finish(ctx, u)
	}
	if u.done {
		return nil
	}
	if err := d.apply(ctx, u.changes(), u.batch, false); err != nil {
		d.end(u)
		return err
	}
	u.forget()
	u.batch, u.fetching = journal.Batch{}, false
	d.lock.release(u)
	return nil
}
