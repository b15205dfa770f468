package lease

import (
	"context"
	"time"
)

// Clock is the time of one worker. Two clocks are read, because each misses
// something: the monotonic one stops while the machine is suspended, and only
// the monotonic one drives timers.
type Clock interface {
	// Now is the time with its monotonic reading.
	Now() time.Time
	// Boot is the time since some fixed moment, suspended time included.
	Boot() time.Duration
	// Wait returns nil when d has passed by Now or wake is rung, and the
	// context's error when that ends first. All that a Keeper does begins with
	// the return of a Wait or of a call of the store.
	Wait(ctx context.Context, d time.Duration, wake <-chan struct{}) error
}

// hostClock is this host's clock.
type hostClock struct{}

func (hostClock) Now() time.Time { return time.Now() }

func (hostClock) Boot() time.Duration { return sinceBoot() }

func (hostClock) Wait(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-ctx.Done():
		return ctx.Err()
	}
	return ctx.Err()
}

// stamp is one moment by both clocks.
type stamp struct {
	mono time.Time
	boot time.Duration
}

func stampOf(c Clock) stamp { return stamp{c.Now(), c.Boot()} }

// longestSince is how much time may have passed between two moments: by the
// clock that says more.
func (s stamp) longestSince(earlier stamp) time.Duration {
	return max(s.mono.Sub(earlier.mono), s.boot-earlier.boot)
}

// bell wakes one waiter. Ringing it never blocks, and a ring that nobody waits
// for is kept until somebody does.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

var started = time.Now()

// sinceStart is the monotonic clock, for hosts that have no other.
func sinceStart() time.Duration { return time.Since(started) }
