package lease

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// claim is a session on its way to be claimed: busy names it.
type claim struct {
	candidate
	prepared any
}

// pick takes those candidates that are claimed now, and marks them busy. What
// this incarnation owns already is always taken up again.
func (k *Keeper) pick(l *life) []*claim {
	now := k.clock.Now()
	k.mu.Lock()
	own, frees := k.claimable(now)
	alive := k.alive(l.id, len(k.held)+len(k.busy)+len(own))
	k.mu.Unlock()
	names := own
	if len(frees) > 0 && !k.cfg.Info.Tool {
		names = append(names, choose(l.id, alive, frees, k.cfg.Poll)...)
	}
	if len(names) == 0 {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.emptying() {
		return nil
	}
	var claims []*claim
	for _, name := range names {
		_, held := k.held[name]
		_, busy := k.busy[name]
		if c := k.hunt.candidates[name]; c != nil && !held && !busy {
			k.busy[name] = struct{}{}
			claims = append(claims, &claim{candidate: *c})
		}
	}
	k.change()
	return claims
}

// claimable names this incarnation's own sessions that do not run, and those that
// are free; mu is held.
func (k *Keeper) claimable(now time.Time) (own []string, frees []free) {
	for name, c := range k.hunt.candidates {
		if _, held := k.held[name]; held {
			continue // from the time before, and still ending
		}
		if _, busy := k.busy[name]; busy {
			continue
		}
		if f, failed := k.hunt.fails[name]; failed && now.Before(f.until) {
			continue
		}
		if !c.own {
			frees = append(frees, free{session: name, age: now.Sub(c.first), looked: c.looked})
			continue
		}
		// What the taker waits for it starts itself, more cheaply; but what it is
		// told may be wrong.
		if _, coming := k.coming[name]; !coming || now.Sub(c.first) > k.cfg.Poll {
			own = append(own, name)
		}
	}
	return own, frees
}

// prepare has sessions prepared side by side. Those that are go on to be claimed;
// one that cannot be holds up no other.
func (k *Keeper) prepare(l *life, claims []*claim) {
	for _, c := range claims {
		l.loops.Go(func() {
			prepared, err := k.prepareOne(l, c.from.Session)
			if err != nil {
				k.failed(l, c, err)
				return
			}
			c.prepared = prepared
			k.mu.Lock()
			k.ready = append(k.ready, c)
			k.mu.Unlock()
			k.claimReady.ring()
		})
	}
}

func (k *Keeper) prepareOne(l *life, session string) (any, error) {
	select {
	case k.preparing <- struct{}{}:
	case <-l.ctx.Done():
		return nil, l.ctx.Err()
	}
	defer func() { <-k.preparing }()
	ctx, cancel := context.WithTimeout(l.ctx, k.pace.prepare)
	defer cancel()
	return k.cfg.Prepare(ctx, session)
}

// failed puts a session off whose Prepare failed.
func (k *Keeper) failed(l *life, c *claim, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.busy, c.from.Session)
	k.change()
	if l.ctx.Err() != nil {
		return
	}
	f := k.hunt.fails[c.from.Session]
	f.pause = min(max(2*f.pause, k.pace.retry), k.pace.retryMost)
	f.until = k.clock.Now().Add(f.pause)
	k.hunt.fails[c.from.Session] = f
	say := k.log.Debug
	if f.pause == k.pace.retry {
		say = k.log.Warn
	}
	say("what a session needs could not be loaded: it is not claimed now", "session", c.from.Session, "error", err, "retryIn", f.pause.String())
}

// claimPrepared claims what is prepared, as much as there is at a time.
func (k *Keeper) claimPrepared(l *life) {
	for {
		k.mu.Lock()
		batch := k.ready[:min(len(k.ready), state.MaxClaims)]
		k.ready = k.ready[len(batch):]
		k.mu.Unlock()
		if len(batch) == 0 {
			if k.clock.Wait(l.ctx, time.Hour, k.claimReady) != nil {
				return
			}
			continue
		}
		if !k.claim(l, batch) {
			for _, c := range batch {
				k.claim(l, []*claim{c})
			}
		}
	}
}

// dropReady ends what waits to be claimed by an incarnation that is over.
func (k *Keeper) dropReady() {
	k.mu.Lock()
	rest := k.ready
	k.ready = nil
	k.mu.Unlock()
	k.unbusy(rest)
}

// claim makes one transaction of some claims. It is false if one of them at
// least is no longer what was seen.
func (k *Keeper) claim(l *life, batch []*claim) bool {
	k.mu.Lock()
	idle := k.emptying()
	k.mu.Unlock()
	if idle || !l.trusted() {
		k.unbusy(batch)
		return true
	}
	from := make([]state.Owner, 0, len(batch))
	for _, c := range batch {
		from = append(from, c.from)
	}
	var got []state.Owner
	err := k.transact(l.ctx, func(ctx context.Context) (err error) {
		got, err = k.cfg.Store.Claim(ctx, l.id, from...)
		return err
	})
	switch {
	case err == nil:
		now := k.clock.Now()
		for i, c := range batch {
			if k.start(l, got[i], c.from, c.prepared) && !c.own {
				k.cfg.Observe.Taken(c.from.Session, c.from.Incarnation != "", now.Sub(c.first))
			}
		}
	case errors.Is(err, state.ErrFenced), errors.Is(err, state.ErrNotFound):
		if len(batch) > 1 {
			return false
		}
		k.drop(batch)
	case errors.Is(err, state.ErrDead):
		k.unbusy(batch)
		l.die(err)
	default:
		if l.ctx.Err() == nil {
			k.log.Warn("a claim failed; looking what became of it", "sessions", len(batch), "first", batch[0].from.Session, "error", err)
		}
		k.unbusy(batch)
		k.lookAgain(batch, k.cfg.Poll/2)
	}
	return true
}

// unbusy ends claims whose sessions stay candidates.
func (k *Keeper) unbusy(claims []*claim) {
	if len(claims) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range claims {
		delete(k.busy, c.from.Session)
	}
	k.change()
}

// drop ends claims whose sessions are somebody else's by now.
func (k *Keeper) drop(claims []*claim) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range claims {
		delete(k.busy, c.from.Session)
		if now := k.hunt.candidates[c.from.Session]; now != nil && now.from == c.from {
			delete(k.hunt.candidates, c.from.Session)
		}
	}
	k.change()
}
