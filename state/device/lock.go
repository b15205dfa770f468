package device

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// latch is the ratchet lock: one unit holds it at a time, others get it in the
// order in which they came. It is re-entrant for its holder.
type latch struct {
	mu     sync.Mutex
	holder *unit
	since  time.Time // when the holder got it
	queue  []*waiter
}

type waiter struct {
	u       *unit
	granted chan struct{}
}

// try takes the lock if it is free, else it queues up.
func (l *latch) try(u *unit) *waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder == nil {
		l.holder, l.since = u, time.Now()
	}
	if l.holder == u {
		return nil
	}
	w := &waiter{u, make(chan struct{})}
	l.queue = append(l.queue, w)
	return w
}

func (l *latch) heldBy() *unit {
	u, _ := l.held()
	return u
}

// held returns who holds the lock, and since when.
func (l *latch) held() (*unit, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holder, l.since
}

// release hands the lock on, if u holds it.
func (l *latch) release(u *unit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder != u {
		return
	}
	l.holder = nil
	if len(l.queue) > 0 {
		next := l.queue[0]
		l.queue = l.queue[1:]
		l.holder, l.since = next.u, time.Now()
		close(next.granted)
	}
	if len(l.queue) == 0 {
		l.queue = nil
	}
}

// leave gives up waiting; false if the lock has been granted meanwhile.
func (l *latch) leave(w *waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, other := range l.queue {
		if other == w {
			l.queue = append(l.queue[:i], l.queue[i+1:]...)
			return true
		}
	}
	return false
}

// acquire takes the ratchet lock for a unit. It waits, bounded by ctx and by
// LockWait; past the latter the Device is poisoned.
func (d *Device) acquire(ctx context.Context, u *unit) error {
	if err := d.check(); err != nil {
		return err
	}
	w := d.lock.try(u)
	if w == nil {
		return nil
	}
	begun := time.Now()
	look := time.NewTicker(max(d.cfg.YieldAfter/5, time.Millisecond))
	defer look.Stop()
	for {
		select {
		case <-w.granted:
			if err := d.check(); err != nil {
				d.lock.release(u)
				return err
			}
			return nil
		case <-ctx.Done():
			if !d.lock.leave(w) {
				d.lock.release(u)
			}
			return cancelled(ctx.Err())
		case <-look.C:
			if err := d.check(); err != nil {
				if !d.lock.leave(w) {
					d.lock.release(u)
				}
				return err
			}
			if waited := time.Since(begun); waited >= d.cfg.LockWait {
				if !d.lock.leave(w) {
					d.lock.release(u)
				}
				return d.fail(fmt.Errorf("%w: waited %s for %s", ErrLockWait, waited.Round(time.Second), d.lock.heldBy()))
			}
			d.relieve(d.lock.held())
		}
	}
}

// relieve takes the lock from a holder that keeps others waiting, where that
// does no harm. A sender keeps it: it has read ratchets, is fetching prekeys, and
// is bounded by LockWait. Who has read a ratchet and not written it yet keeps it
// for longer, and cannot write it any more once it is gone.
func (d *Device) relieve(u *unit, since time.Time) {
	if u == nil || !u.mu.TryLock() {
		return // it is about to commit
	}
	defer u.mu.Unlock()
	if u.touched.After(since) { // it may have waited for the lock for long
		since = u.touched
	}
	idle, patience := time.Since(since), d.cfg.YieldAfter
	if u.moving {
		patience = d.cfg.LeakAfter
	}
	switch {
	case u.done:
	case u.kind == received && !u.deciding && idle >= patience:
		_ = d.yield(context.Background(), u) // an error has poisoned the Device
	case u.kind == loose && idle >= d.cfg.LeakAfter:
		d.unitMu.Lock()
		if d.lost == nil {
			d.lost = make(map[int64]time.Time)
		}
		for g, at := range d.lost {
			if time.Since(at) > 10*d.cfg.LockWait {
				delete(d.lost, g)
			}
		}
		d.lost[u.goroutine] = time.Now()
		d.unitMu.Unlock()
		d.cfg.Log.Warn("a ratchet was read and not written, its lock is given to another", "session", d.cfg.Session)
		d.end(u)
	}
}

// locked runs fn under the ratchet lock. If the caller's unit holds the lock,
// what fn stages goes the unit's way; else it is committed before locked
// returns.
func (d *Device) locked(ctx context.Context, fn func(u *unit) error) error {
	if err := d.check(); err != nil {
		return err
	}
	if u := d.unit(ctx); u != nil && d.lock.heldBy() == u {
		return fn(u)
	}
	u := newUnit(brief, 0)
	if err := d.acquire(ctx, u); err != nil {
		return err
	}
	defer d.lock.release(u)
	if err := fn(u); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return d.apply(ctx, u.changes(), u.batch, false)
}

// gate is a mutex that is held while the store is asked. Waiting for it is
// durable blocking, so that tests can run in virtual time.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

func (g gate) Lock()   { g <- struct{}{} }
func (g gate) Unlock() { <-g }

func (g gate) TryLock() bool {
	select {
	case g <- struct{}{}:
		return true
	default:
		return false
	}
}
