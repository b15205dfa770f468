package lease

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// view is what this worker knows of the members. Keeper.mu guards it.
type view struct {
	revision uint64
	read     time.Time // when the roster was last read; zero: never
	changed  time.Time // when a change of it was last seen
	asked    bool      // it is to be read again
	peers    map[string]*peer
	watched  time.Time // when heartbeats were last looked at
	since    time.Time // since when that has been done without a break, and trusted
}

// peer is one member, this one included.
type peer struct {
	state.Member
	watched bool
	at      time.Time // when its counter was first seen as it is; counts while it is watched
	died    time.Time // when its death was first seen
	listed  time.Time // when its sessions were last listed, once it is dead
	empty   bool      // that listing found none
	given   int       // sessions that it has got since its load was read
	lived   bool      // it was seen alive
	counted bool      // what others had taken of it was counted, once it is dead
}

func newView() view { return view{peers: make(map[string]*peer)} }

func (v *view) roster() state.Roster {
	r := state.Roster{Revision: v.revision}
	for _, p := range v.peers {
		r.Members = append(r.Members, p.Member)
	}
	slices.SortFunc(r.Members, func(a, b state.Member) int { return cmp.Compare(a.Joined, b.Joined) })
	return r
}

// beaten takes in what was seen of a heartbeat. What is older than what was seen
// before is a read that lagged behind.
func (p *peer) beaten(count uint64, load state.Load, now time.Time) {
	if count < p.Beats {
		return
	}
	if count > p.Beats {
		p.Beats, p.at, p.given = count, now, 0
	}
	p.Load = load
}

// merge takes in a roster that was read whole.
func (v *view) merge(r state.Roster, now time.Time) {
	if v.read.IsZero() || r.Revision != v.revision {
		v.changed = now
	}
	v.revision, v.read, v.asked = r.Revision, now, false
	there := make(map[string]struct{}, len(r.Members))
	for _, m := range r.Members {
		there[m.Incarnation] = struct{}{}
		p := v.peers[m.Incarnation]
		if p == nil {
			p = &peer{Member: m, at: now}
			v.peers[m.Incarnation] = p
		}
		beats, load := p.Beats, p.Load
		wasDead := p.Dead
		p.Member = m
		if beats > m.Beats {
			p.Beats, p.Load = beats, load
		} else {
			p.Beats = beats
			p.beaten(m.Beats, m.Load, now)
		}
		p.Dead = m.Dead || wasDead
		p.lived = p.lived || !p.Dead
		if p.Dead && p.died.IsZero() {
			p.died = now
		}
	}
	for id := range v.peers {
		if _, ok := there[id]; !ok {
			delete(v.peers, id) // forgotten
		}
	}
}

// alive lists the members that are not dead, as share sees them. mine is how
// many sessions this worker has, which it knows better than its last heartbeat.
// A member that has not been heard of for as long as trust lasts gets nothing.
func (k *Keeper) alive(me string, mine int) []worker {
	now := k.clock.Now()
	var all []worker
	for id, p := range k.view.peers {
		if p.Dead {
			continue
		}
		w := worker{
			id: id, joined: p.Joined, deployment: p.Info.Deployment, tool: p.Info.Tool, capacity: p.Info.Capacity,
			sessions: p.Load.Sessions + p.given, closed: p.Drain || p.Load.Draining,
		}
		switch {
		case id == me:
			w.sessions, w.closed = mine, k.emptying()
		case p.watched && now.Sub(p.at) >= k.cfg.Trust && now.Sub(k.view.since) >= k.cfg.Trust:
			w.closed = true
		}
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b worker) int { return cmp.Compare(a.joined, b.joined) })
	return all
}

// watch looks at the heartbeats of others every poll.
func (k *Keeper) watch(l *life) {
	failing := false
	for {
		err := k.look(l)
		wait := k.cfg.Poll
		if err != nil {
			wait /= 8
		}
		switch {
		case l.ctx.Err() != nil:
			return
		case err != nil && !failing:
			failing = true
			k.log.Warn("heartbeats of the others cannot be read; trying again", "incarnation", l.id, "error", err)
		case err == nil && failing:
			failing = false
			k.log.Info("heartbeats of the others are read again", "incarnation", l.id)
		}
		if k.clock.Wait(l.ctx, wait, k.watchNow) != nil {
			return
		}
	}
}

// look reads the roster where that is due, and the heartbeats.
func (k *Keeper) look(l *life) error {
	now := k.clock.Now()
	k.mu.Lock()
	due := k.view.asked || k.view.read.IsZero() || now.Sub(k.view.read) >= k.pace.roster
	k.mu.Unlock()
	if due {
		if err := k.readRoster(l); err != nil {
			return err
		}
	}
	k.mu.Lock()
	ids := k.view.choose(l.id)
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(l.ctx, k.cfg.Poll)
	pulse, err := k.cfg.Store.Watch(ctx, ids)
	cancel()
	if err != nil {
		return err
	}
	if k.seen(ids, pulse) {
		if err := k.readRoster(l); err != nil {
			return err
		}
	}
	k.hear(l)
	return nil
}

// choose names the members that are watched: all, or of many those that follow
// this one in a ring, so that each is watched by some.
func (v *view) choose(me string) []string {
	var ids []string
	for id, p := range v.peers {
		if !p.Dead && id != me {
			ids = append(ids, id)
		}
	}
	if len(ids) <= watchAll {
		slices.Sort(ids)
		return ids
	}
	place := func(id string) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(id))
		return mixed(h.Sum64())
	}
	mine := place(me)
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(place(a)-mine, place(b)-mine) })
	return ids[:watchSome]
}

// seen takes in what a look at heartbeats found. It tells whether the roster has
// changed since it was read.
func (k *Keeper) seen(ids []string, pulse state.Pulse) bool {
	now := k.clock.Now()
	k.mu.Lock()
	v := &k.view
	if v.watched.IsZero() || now.Sub(v.watched) > k.cfg.Takeover/2 {
		// Who could not look cannot tell who stood still. After an outage of the
		// store everybody is watched anew, or all would declare each other dead.
		v.since = now
	}
	v.watched = now
	asked := make(map[string]struct{}, len(ids))
	giving := false
	for _, id := range ids {
		asked[id] = struct{}{}
		p, known := v.peers[id]
		b, there := pulse.Beats[id]
		if !known || !there {
			continue // forgotten: the roster says so
		}
		if !p.watched {
			p.watched, p.at = true, now
		}
		p.beaten(b.Count, b.Load, now)
		if b.Dead && !p.Dead {
			p.Dead, p.died = true, now
		}
		giving = giving || p.Load.Giving && !p.Dead
	}
	for id, p := range v.peers {
		if _, ok := asked[id]; !ok {
			p.watched = false
		}
	}
	changed := pulse.Revision != v.revision
	k.mu.Unlock()
	k.reapNow.ring()
	if giving {
		k.takeNow.ring()
	}
	return changed
}

func (k *Keeper) readRoster(l *life) error {
	var r state.Roster
	err := k.bounded(l.ctx, func(ctx context.Context) (err error) {
		r, err = k.cfg.Store.Roster(ctx)
		return err
	})
	if err != nil {
		return err
	}
	now := k.clock.Now()
	k.mu.Lock()
	k.view.merge(r, now)
	k.mu.Unlock()
	return nil
}

// hear draws the conclusions of what was read.
func (k *Keeper) hear(l *life) {
	k.mu.Lock()
	me := k.view.peers[l.id]
	dead := me == nil || me.Dead
	wished := me != nil && me.Drain
	turned := wished != k.wished
	k.wished = wished
	var others []state.Member
	alive := 0
	for id, p := range k.view.peers {
		if p.Dead {
			continue
		}
		alive++
		if id != l.id {
			others = append(others, p.Member)
		}
	}
	k.mu.Unlock()
	if dead {
		l.die(state.ErrDead)
		return
	}
	k.cfg.Observe.Alive(alive)
	if turned {
		k.log.Info("an operator's wish for this worker", "incarnation", l.id, "drain", wished)
		k.beatNow.ring()
	}
	if !k.cfg.Info.Tool {
		for _, m := range others {
			if k.cfg.Gone(m) {
				k.declareStopped(l, m.Incarnation)
			}
		}
	}
	k.giveNow.ring()
	k.claimNow.ring()
}

func (k *Keeper) declareStopped(l *life, id string) {
	err := k.bounded(l.ctx, func(ctx context.Context) error { return k.cfg.Store.DeclareStopped(ctx, id) })
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		k.log.Warn("a worker whose process has ended could not be declared dead; trying again", "worker", id, "error", err)
		return
	}
	k.log.Info("a worker's process has ended: its sessions are taken over", "worker", id)
	k.buried(id)
}

// buried notes that a member is dead now, by this worker's doing.
func (k *Keeper) buried(id string) {
	k.mu.Lock()
	if p := k.view.peers[id]; p != nil && !p.Dead {
		p.Dead, p.died = true, k.clock.Now()
	}
	k.view.asked = true
	k.mu.Unlock()
	k.cfg.Observe.Died(id)
	k.watchNow.ring()
	k.claimNow.ring()
}

// reap declares members dead, at the moment at which their counter has stood
// still for T.
func (k *Keeper) reap(l *life) {
	if k.cfg.Info.Tool {
		return // a tool comes and goes, and judges nobody
	}
	for {
		id, count, wait := k.nextDeath(l)
		if id == "" || wait > 0 {
			if k.clock.Wait(l.ctx, wait, k.reapNow) != nil {
				return
			}
			continue
		}
		err := k.bounded(l.ctx, func(ctx context.Context) error { return k.cfg.Store.DeclareDead(ctx, id, count) })
		switch {
		case err == nil:
			k.log.Warn("a worker has not been heard of: declared dead, its sessions are taken over", "worker", id, "after", k.cfg.Takeover.String())
			k.buried(id)
			continue
		case errors.Is(err, state.ErrConflict):
			k.mu.Lock()
			if p := k.view.peers[id]; p != nil {
				p.at = k.clock.Now() // it has beaten; the next look tells how often
			}
			k.mu.Unlock()
		case l.ctx.Err() != nil:
			return
		default:
			k.log.Warn("a worker could not be declared dead; trying again", "worker", id, "error", err)
		}
		if k.clock.Wait(l.ctx, k.cfg.Poll/8, nil) != nil {
			return
		}
	}
}

// nextDeath names who is to be declared dead next, its counter, and in how long.
// Only who is trusted itself and has looked lately declares anybody.
func (k *Keeper) nextDeath(l *life) (id string, count uint64, wait time.Duration) {
	trusted := l.trusted()
	now := k.clock.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	wait = k.cfg.Takeover
	for other, p := range k.view.peers {
		if p.Dead || !p.watched || other == l.id {
			continue
		}
		begun := p.at
		if k.view.since.After(begun) {
			begun = k.view.since
		}
		if left := k.cfg.Takeover - now.Sub(begun); left < wait {
			id, count, wait = other, p.Beats, left
		}
	}
	if wait <= 0 && (!trusted || now.Sub(k.view.watched) > k.cfg.Takeover/2) {
		wait = k.cfg.Poll / 4
	}
	return id, count, max(0, wait)
}
