package lease

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// hunt is what this worker knows of sessions that it may claim. Keeper.mu guards
// it.
type hunt struct {
	candidates map[string]*candidate
	looks      map[string]time.Time // to be looked at one by one, and from when on
	fails      map[string]failure   // of Prepare

	unownedAt time.Time // when unowned sessions are listed next
	ownAt     time.Time // when own ones that do not run are
	eventful  time.Time // until when that is often
	tidyAt    time.Time // when dead members are looked through for whom to forget
}

// candidate is a session that may be claimed: nobody's, a dead incarnation's, or
// this one's own that does not run.
type candidate struct {
	from   state.Owner
	first  time.Time // when it was first seen so
	looked bool
	own    bool
}

// failure is a session that could not be prepared.
type failure struct {
	until time.Time
	pause time.Duration
}

func newHunt() hunt {
	return hunt{candidates: make(map[string]*candidate), looks: make(map[string]time.Time), fails: make(map[string]failure)}
}

// add takes in owners of which each may be claimed from.
func (h *hunt) add(owners []state.Owner, me string, looked bool, now time.Time) {
	for _, o := range owners {
		c := h.candidates[o.Session]
		if c == nil || c.from != o {
			c = &candidate{from: o, first: now, own: o.Incarnation == me}
			h.candidates[o.Session] = c
		}
		c.looked = c.looked || looked
	}
}

// replace takes in all that one incarnation owns, and drops what it owned before.
func (h *hunt) replace(owner string, owners []state.Owner, me string, now time.Time) {
	there := make(map[string]struct{}, len(owners))
	for _, o := range owners {
		there[o.Session] = struct{}{}
	}
	for name, c := range h.candidates {
		if _, ok := there[name]; !ok && c.from.Incarnation == owner && !c.looked {
			delete(h.candidates, name)
		}
	}
	h.add(owners, me, false, now)
}

// lookForOwn makes the next listing of own sessions that do not run come soon:
// something has happened after which there may be some.
func (k *Keeper) lookForOwn() {
	now := k.clock.Now()
	k.mu.Lock()
	k.hunt.eventful = now.Add(time.Minute)
	if soon := now.Add(k.cfg.Poll / 8); k.hunt.ownAt.After(soon) {
		k.hunt.ownAt = soon
	}
	k.mu.Unlock()
	k.claimNow.ring()
}

// lookAgain makes sessions be looked at one by one, in a while: what became of
// a claim is unknown.
func (k *Keeper) lookAgain(claims []*claim, in time.Duration) {
	at := k.clock.Now().Add(in)
	k.mu.Lock()
	for _, c := range claims {
		name := c.from.Session
		k.hunt.looks[name] = at
		k.hunt.fails[name] = failure{until: at, pause: k.hunt.fails[name].pause} // and not be claimed before
	}
	k.mu.Unlock()
	k.lookForOwn()
}

// seek looks for sessions to claim, and has them prepared.
func (k *Keeper) seek(l *life) {
	failing := false
	for {
		wait := k.cfg.Poll
		if l.trusted() {
			var err error
			wait, err = k.search(l)
			switch {
			case l.ctx.Err() != nil:
				return
			case err != nil && !failing:
				failing = true
				k.log.Warn("sessions to claim could not be listed; trying again", "incarnation", l.id, "error", err)
			case err == nil:
				failing = false
			}
			k.prepare(l, k.pick(l))
		}
		if k.clock.Wait(l.ctx, wait, k.claimNow) != nil {
			return
		}
	}
}

// search lists what is due to be listed, and tells in how long something is due
// again. It goes on after a listing that failed, and returns the first error.
func (k *Keeper) search(l *life) (time.Duration, error) {
	var first error
	note := func(err error) {
		if err != nil && first == nil {
			first = err
		}
	}
	now := k.clock.Now()
	k.mu.Lock()
	idle := k.emptying() || k.cfg.Info.Tool
	known := !k.view.read.IsZero()
	unowned := known && !idle && !k.hunt.unownedAt.After(now)
	if unowned {
		k.hunt.unownedAt = now.Add(k.cfg.Poll)
	}
	own := !k.hunt.ownAt.After(now)
	emptying := k.emptying()
	if own {
		k.hunt.ownAt = now.Add(k.ownEvery(now))
	}
	var dead []string
	if known && !idle {
		dead = k.deadToList(now)
	}
	tidy := !k.hunt.tidyAt.After(now)
	if tidy {
		k.hunt.tidyAt = now.Add(k.pace.roster)
	}
	var looks []string
	for name, at := range k.hunt.looks {
		if !at.After(now) && known {
			looks = append(looks, name)
			delete(k.hunt.looks, name)
		}
	}
	k.mu.Unlock()

	if unowned {
		note(k.list(l, ""))
	}
	for _, id := range dead {
		note(k.list(l, id))
	}
	if own && !emptying {
		note(k.list(l, l.id))
	}
	for _, name := range looks {
		note(k.lookAt(l, name))
	}
	if emptying {
		_, err := k.releaseLeftovers(l.ctx)
		note(err)
	}
	if tidy && !k.cfg.Info.Tool {
		k.tidy(l)
	}

	k.mu.Lock()
	defer k.mu.Unlock()
	next := now.Add(k.cfg.Poll)
	if k.hunt.ownAt.Before(next) {
		next = k.hunt.ownAt
	}
	for _, at := range k.hunt.looks {
		if at.Before(next) {
			next = at
		}
	}
	return max(k.cfg.Poll/16, next.Sub(k.clock.Now())), first
}

// ownEvery is how long until own sessions are listed again: often after an
// event, and otherwise the less often the more there are to be read.
func (k *Keeper) ownEvery(now time.Time) time.Duration {
	if now.Before(k.hunt.eventful) {
		return k.pace.own
	}
	return max(k.pace.own, time.Duration(len(k.held))*k.pace.own/200)
}

// deadToList names the dead members whose sessions are to be listed now: at each
// poll while their death is fresh, seldom afterwards.
func (k *Keeper) deadToList(now time.Time) []string {
	var ids []string
	for id, p := range k.view.peers {
		if !p.Dead {
			continue
		}
		every := k.pace.stale
		if now.Sub(p.died) < k.pace.fresh {
			every = k.cfg.Poll
		}
		if p.listed.IsZero() || now.Sub(p.listed) >= every {
			p.listed = now
			ids = append(ids, id)
		}
	}
	return ids
}

// list reads what an incarnation owns and makes candidates of it. It is called
// for nobody, for the dead, and for this incarnation itself.
func (k *Keeper) list(l *life, owner string) error {
	var all []state.Owner
	after := ""
	for len(all) < listMost {
		var page []state.Owner
		err := k.bounded(l.ctx, func(ctx context.Context) (err error) {
			page, err = k.cfg.Store.OwnedBy(ctx, owner, after, listPage)
			return err
		})
		if err != nil {
			return err
		}
		all = append(all, page...)
		if len(page) < listPage {
			break
		}
		after = page[len(page)-1].Session
	}
	now := k.clock.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if owner == l.id {
		all = k.notRunning(all)
	}
	k.hunt.replace(owner, all, l.id, now)
	if p := k.view.peers[owner]; p != nil {
		p.empty = len(all) == 0
		if p.Dead && p.lived && !p.counted {
			p.counted = true
			k.taken(l.id, p.Load.Sessions-len(all))
		}
	}
	return nil
}

// taken notes that others were quicker: what a dead worker had and what is no more
// listed is theirs by now, and will be in their loads with their next heartbeats.
// Without it those left over would look like more than this one's share. mu is held.
func (k *Keeper) taken(me string, sessions int) {
	var others []*peer
	for _, w := range receivers(k.alive(me, len(k.held)+len(k.busy))) {
		if w.id != me {
			others = append(others, k.view.peers[w.id])
		}
	}
	for i := range others {
		if sessions > 0 {
			n := sessions / (len(others) - i)
			others[i].given += n
			sessions -= n
		}
	}
}

// notRunning leaves out what runs here or is about to; mu is held.
func (k *Keeper) notRunning(owners []state.Owner) []state.Owner {
	var idle []state.Owner
	for _, o := range owners {
		_, held := k.held[o.Session]
		_, busy := k.busy[o.Session]
		if !held && !busy {
			idle = append(idle, o)
		}
	}
	return idle
}

// lookAt reads one session's owner and makes a candidate of it if it may be
// claimed.
func (k *Keeper) lookAt(l *life, session string) error {
	var o state.Owner
	err := k.bounded(l.ctx, func(ctx context.Context) (err error) {
		o, err = k.cfg.Store.Owner(ctx, session)
		return err
	})
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = k.consider(l, []state.Owner{o}, true)
	}
	if err != nil {
		k.mu.Lock()
		k.hunt.looks[session] = k.clock.Now().Add(k.cfg.Poll / 2)
		k.mu.Unlock()
	}
	return err
}

// consider makes candidates of those owners, just read, that are nobody, dead,
// not remembered, or this incarnation. Whether somebody is not remembered is
// asked after the owners were read: who owns something then has joined before.
func (k *Keeper) consider(l *life, owners []state.Owner, looked bool) error {
	unknown := func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, o := range owners {
			if _, known := k.view.peers[o.Incarnation]; !known && o.Incarnation != "" {
				return true
			}
		}
		return false
	}()
	if unknown {
		if err := k.readRoster(l); err != nil {
			return err
		}
	}
	now := k.clock.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	var some []state.Owner
	for _, o := range owners {
		p := k.view.peers[o.Incarnation]
		switch {
		case o.Incarnation == l.id:
			some = append(some, k.notRunning([]state.Owner{o})...)
		case o.Incarnation == "", p == nil, p.Dead:
			some = append(some, o)
		}
	}
	k.hunt.add(some, l.id, looked, now)
	return nil
}
