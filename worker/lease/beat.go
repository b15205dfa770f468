package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/holdfast-wa/holdfast/state"
)

// beat sends a heartbeat every h. One that fails is tried again soon, so that a
// lost packet does not cost a whole h of trust.
func (k *Keeper) beat(l *life) {
	h := k.cfg.Heartbeat
	again := h / 20
	failing := false
	for {
		sent := stampOf(k.clock)
		left := l.trust.left()
		k.cfg.Observe.Trust(left)
		load := k.load(left)
		try, cancel := context.WithTimeout(l.ctx, h/2)
		var err error
		if left <= 0 {
			// Where only the answers are lost, beats would go on keeping alive a worker
			// that runs nothing. A question without an effect goes first.
			_, err = k.cfg.Store.Watch(try, []string{l.id})
		}
		if err == nil {
			sent = stampOf(k.clock)
			err = k.cfg.Store.Beat(try, l.id, load)
		}
		cancel()
		wait, wake := h, k.beatNow
		switch {
		case err == nil:
			if failing {
				k.log.Info("heartbeats succeed again", "incarnation", l.id)
			}
			failing, again = false, h/20
			l.trust.renew(k.trustFrom(sent, stampOf(k.clock)))
			k.guardNow.ring()
			wait -= k.clock.Now().Sub(sent.mono)
		case errors.Is(err, state.ErrDead):
			l.die(err)
			return
		case l.ctx.Err() != nil:
			return
		default:
			if !failing {
				k.log.Warn("heartbeat failed; trying again", "incarnation", l.id, "trustLeft", l.trust.left().String(), "error", err)
			}
			failing = true
			wait, wake = again, nil
			again = min(2*again, h/4)
		}
		if k.clock.Wait(l.ctx, max(0, wait), wake) != nil {
			return
		}
	}
}

// guard ends what may no longer run: when trust is over, at that moment, and
// when the incarnation is known to be dead.
func (k *Keeper) guard(l *life) {
	fenced := false
	for {
		left := l.trust.left()
		switch {
		case left <= 0 && l.trust.dead():
			k.fence(l, state.ErrDead)
			l.cancel(state.ErrDead)
			return
		case left <= 0 && !fenced:
			fenced = true
			n := k.fence(l, errNoTrust)
			k.log.Warn("no heartbeat has succeeded for too long: connections are cut", "incarnation", l.id, "trust", k.cfg.Trust.String(), "sessions", n)
			continue
		case left > 0 && fenced:
			fenced = false
			k.log.Info("trusted again", "incarnation", l.id)
			// What others did meanwhile was not seen: their counters are watched anew.
			k.mu.Lock()
			k.view.since = k.clock.Now()
			k.mu.Unlock()
			k.lookForOwn()
			k.reapNow.ring()
		}
		wait := k.pace.suspend
		if left > 0 {
			wait = min(left, wait)
		}
		if k.clock.Wait(l.ctx, wait, k.guardNow) != nil {
			return
		}
	}
}

var errNoTrust = errors.New("no heartbeat was answered in time")

// dead says that trust is over for good.
func (t *trust) dead() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}

// cutsAtOnce bounds the cuts under way: none of them waits for anybody, so that
// more would only wait for a processor.
const cutsAtOnce = 64

// fence takes all leases of an incarnation away: first all connections are cut,
// which takes milliseconds, and then the contexts end. It tells how many there
// were.
func (k *Keeper) fence(l *life, why error) int {
	var leases []*Lease
	for _, lease := range k.leases() {
		if lease.life == l && lease.loss() == nil {
			leases = append(leases, lease)
		}
	}
	if len(leases) == 0 {
		return 0
	}
	next := make(chan *Lease, len(leases))
	for _, lease := range leases {
		next <- lease
	}
	close(next)
	var cuts sync.WaitGroup
	for range min(cutsAtOnce, len(leases)) {
		cuts.Go(func() {
			for lease := range next {
				lease.sever(why)
			}
		})
	}
	cut := make(chan struct{})
	go func() {
		cuts.Wait()
		close(cut)
	}()
	if err := k.clock.Wait(context.Background(), k.pace.cut, cut); err != nil {
		k.log.Error("cutting connections", "error", err)
	}
	select {
	case <-cut:
	default:
		k.log.Error("connections take long to be cut; their sessions end now", "incarnation", l.id)
	}
	for _, lease := range leases {
		if loss := lease.loss(); loss != nil {
			lease.cancel(loss)
		} else {
			lease.cancel(fmt.Errorf("%w: %w", ErrLost, why)) // those before it took all the time
		}
	}
	k.cfg.Observe.Fenced(len(leases))
	return len(leases)
}
