package device

import (
	"context"
	"time"

	"github.com/petermattis/goid"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// unitKind is what a unit of work is about.
type unitKind uint8

const (
	received unitKind = iota + 1 // a message: from its decryption to its acknowledgement
	sending                      // a message of ours: from its first write to its frame
	loose                        // a ratchet that the library read outside of both
	brief                        // one call of ours
)

func (k unitKind) String() string {
	return [...]string{"nobody", "a received message", "a send", "a library call", "a store call"}[k]
}

// unit collects what is committed together.
type unit struct {
	kind      unitKind
	goroutine int64
	before    *unit // of the same goroutine, hidden by this one

	mu       gate
	order    []state.Key
	staged   map[state.Key]change
	hash     *seen
	batch    journal.Batch // ours: the event
	deciding bool          // within DoDecryptionTxn
	fetching bool          // between GetManySessions and PutManySessions
	moving   bool          // between GetSession and PutSession
	touched  time.Time     // when its goroutine last came by
	done     bool
	ended    chan struct{} // closed when done
}

// seen is the ciphertext that a received message came in.
type seen struct {
	hash       [32]byte
	plaintext  []byte
	insertedAt time.Time
	serverTime time.Time
}

func newUnit(kind unitKind, goroutine int64) *unit {
	return &unit{kind: kind, goroutine: goroutine, mu: newGate(), touched: time.Now(), ended: make(chan struct{})}
}

func (u *unit) String() string {
	if u == nil {
		return "nobody"
	}
	return u.kind.String()
}

// stage adds changes; false if the unit has ended. The latest per key wins.
func (u *unit) stage(changes ...change) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.put(changes...)
}

// put is stage with mu held.
func (u *unit) put(changes ...change) bool {
	if u.done {
		return false
	}
	for _, c := range changes {
		if u.staged == nil {
			u.staged = make(map[state.Key]change)
		}
		old, again := u.staged[c.key]
		if !again {
			u.order = append(u.order, c.key)
		} else if c.absent && !old.del {
			continue // what is staged already was first
		}
		u.staged[c.key] = c
	}
	return true
}

// peek returns what is staged under a key. A nil unit has nothing staged.
func (u *unit) peek(key state.Key) (change, bool) {
	if u == nil {
		return change{}, false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	c, ok := u.staged[key]
	return c, ok
}

// under returns the staged changes of a kind whose id begins with prefix.
func (u *unit) under(kind state.Kind, prefix string) []change {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []change
	for _, key := range u.order {
		if key.Kind == kind && len(key.ID) >= len(prefix) && key.ID[:len(prefix)] == prefix {
			out = append(out, u.staged[key])
		}
	}
	return out
}

// changes returns what is staged, in order. Called with mu held.
func (u *unit) changes() []change {
	out := make([]change, 0, len(u.order)+1)
	for _, key := range u.order {
		out = append(out, u.staged[key])
	}
	return out
}

// forget drops what is staged. Called with mu held.
func (u *unit) forget() {
	u.order, u.staged = nil, nil
}

type unitKey struct{ d *Device }

// unit returns the unit that a call belongs to: that of its ctx (Sending), else
// that of its goroutine, else nil.
func (d *Device) unit(ctx context.Context) *unit {
	g := goid.Get()
	if u, ok := ctx.Value(unitKey{d}).(*unit); ok {
		u.mu.Lock()
		alive := !u.done
		if alive {
			u.touched = time.Now()
		}
		u.mu.Unlock()
		if alive {
			d.bind(u, g)
			return u
		}
	}
	u := d.ofGoroutine(g)
	if u != nil {
		u.mu.Lock()
		u.touched = time.Now()
		u.mu.Unlock()
	}
	return u
}

func (d *Device) ofGoroutine(g int64) *unit {
	d.unitMu.Lock()
	defer d.unitMu.Unlock()
	return d.units[g]
}

// message returns the received message that is being handled on this goroutine.
func (d *Device) message() *unit {
	d.unitMu.Lock()
	defer d.unitMu.Unlock()
	u := d.units[goid.Get()]
	for u != nil && u.kind != received {
		u = u.before
	}
	return u
}

// bind makes u the unit of a goroutine, above what it has already.
func (d *Device) bind(u *unit, g int64) {
	d.unitMu.Lock()
	defer d.unitMu.Unlock()
	if d.units[g] == u {
		return
	}
	for above := d.units[g]; above != nil; above = above.before {
		if above == u {
			return
		}
	}
	if d.units == nil {
		d.units = make(map[int64]*unit)
	}
	if old := d.units[u.goroutine]; old == u && u.goroutine != g {
		// The send goes on in another goroutine than the one that announced it.
		d.unhook(u)
	}
	u.goroutine, u.before = g, d.units[g]
	d.units[g] = u
	delete(d.lost, g)
	if u.kind == received {
		if d.open == nil {
			d.open = make(map[*unit]struct{})
		}
		d.open[u] = struct{}{}
	}
}

// unhook takes u out of its goroutine's units. Called with unitMu held.
func (d *Device) unhook(u *unit) {
	if d.units[u.goroutine] == u {
		if u.before == nil {
			delete(d.units, u.goroutine)
		} else {
			d.units[u.goroutine] = u.before
		}
	} else {
		for above := d.units[u.goroutine]; above != nil; above = above.before {
			if above.before == u {
				above.before = u.before
				break
			}
		}
	}
	u.before = nil
}

// end forgets a unit and what it has staged, and releases the lock if it holds
// it. Called with the unit's mu held.
func (d *Device) end(u *unit) {
	if u.done {
		return
	}
	u.done = true
	u.forget()
	u.hash, u.batch = nil, journal.Batch{}
	d.unitMu.Lock()
	d.unhook(u)
	delete(d.open, u)
	d.unitMu.Unlock()
	d.lock.release(u)
	close(u.ended)
}

// finish commits all of a unit and ends it. Called with the unit's mu held.
func (d *Device) finish(ctx context.Context, u *unit) error {
	if u.done {
		return nil
	}
	changes := u.changes()
	if u.hash != nil {
		changes = append(changes, d.hashChange(*u.hash, false))
	}
	err := d.apply(ctx, changes, u.batch, u.kind == received)
	if err == nil && u.hash != nil {
		d.hashes.add(u.hash.hash)
	}
	d.end(u)
	return err
}

// yield commits the library's half of a received message together with its
// plaintext and releases the lock; the unit goes on, and its event is committed
// when it is finished. Should that never come, the redelivered message is read
// from the plaintext. Called with the unit's mu held.
func (d *Device) yield(ctx context.Context, u *unit) error {
	if u.done {
		return nil
	}
	changes := u.changes()
	if u.hash != nil && len(changes) > 0 {
		changes = append(changes, d.hashChange(*u.hash, true))
	}
	err := d.apply(ctx, changes, journal.Batch{}, true)
	if err != nil {
		d.end(u)
		return err
	}
	if u.hash != nil && len(changes) > 0 {
		d.hashes.add(u.hash.hash)
	}
	u.forget()
	d.lock.release(u)
	return nil
}

// write stages changes with the caller's unit, or commits them if it has none.
func (d *Device) write(ctx context.Context, changes ...change) error {
	if err := d.check(); err != nil {
		return err
	}
	if u := d.unit(ctx); u != nil && u.stage(changes...) {
		return nil
	}
	return d.apply(ctx, changes, journal.Batch{}, false)
}
