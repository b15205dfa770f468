package lease

import (
	"maps"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// giver gives sessions away: all when the worker empties, else one a second
// while it has more than its share. Only its own goroutine uses it.
type giver struct {
	k       *Keeper
	l       *life
	offers  map[string]*offer               // by session
	shunned map[string]map[string]time.Time // by session, targets that did not get ready for it
	written map[string]map[string]string    // the notes as they are in the store, by target
	last    time.Time                       // when a session was last offered to balance
	begun   bool                            // balancing has begun and goes down to the share
}

// offer is one session on its way to another worker.
type offer struct {
	lease   *Lease
	target  string
	since   time.Time // when it was offered, or the target last got ready for another
	closing bool
	asked   bool // the lease was recalled
}

// give is the giver's loop.
func (k *Keeper) give(l *life) {
	if k.cfg.Info.Tool {
		k.giveAsTool(l)
		return
	}
	g := &giver{
		k: k, l: l, offers: make(map[string]*offer), shunned: make(map[string]map[string]time.Time),
		written: make(map[string]map[string]string),
	}
	failing := false
	for {
		wait := time.Hour // somebody rings
		if l.trusted() {
			err := g.step()
			switch {
			case l.ctx.Err() != nil:
				return
			case err != nil && !failing:
				failing = true
				k.log.Warn("notes of a hand-over failed; trying again", "incarnation", l.id, "error", err)
			case err == nil:
				failing = false
			}
			if g.active() {
				wait = k.pace.notes
			}
		} else {
			wait = k.cfg.Poll // what was offered is lost with the trust
		}
		if k.clock.Wait(l.ctx, wait, k.giveNow) != nil {
			return
		}
	}
}

// giveAsTool recalls what a tool holds when it ends; it offers nothing.
func (k *Keeper) giveAsTool(l *life) {
	for {
		k.mu.Lock()
		emptying := k.emptying()
		k.mu.Unlock()
		if emptying {
			k.recallAll()
		}
		if k.clock.Wait(l.ctx, time.Hour, k.giveNow) != nil {
			return
		}
	}
}

// active says that there is something to give or to remove.
func (g *giver) active() bool {
	return g.emptying() || len(g.offers) > 0 || len(g.written) > 0
}

// emptying says that everything is to be given, and not all of it has been.
func (g *giver) emptying() bool {
	g.k.mu.Lock()
	defer g.k.mu.Unlock()
	return g.k.emptying() && len(g.k.held) > 0
}

// step does what can be done now, and tells the others with a heartbeat that
// there are offers.
func (g *giver) step() error {
	targets := g.prune()
	g.choose(targets)
	g.k.setGiving(len(g.offers) > 0 || len(targets) > 0 && g.emptying())
	if err := g.write(); err != nil {
		return err
	}
	if len(g.offers) == 0 {
		return nil
	}
	replies, err := readNotes[replyNote](g.l.ctx, g.k, replyKey(g.l.id, ""))
	if err != nil {
		return err
	}
	g.answered(replies, targets)
	if err := g.write(); err != nil {
		return err
	}
	g.recall()
	return nil
}

// prune drops offers that have come to an end, and returns who may be given
// sessions.
func (g *giver) prune() map[string]worker {
	k := g.k
	now := k.clock.Now()
	k.mu.Lock()
	alive := k.alive(g.l.id, len(k.held)+len(k.busy))
	emptying := k.emptying()
	k.mu.Unlock()
	targets := make(map[string]worker)
	for _, w := range receivers(alive) {
		if w.id != g.l.id {
			targets[w.id] = w
		}
	}
	for name, o := range g.offers {
		_, there := targets[o.target]
		switch {
		case o.lease.over() != nil:
			if o.asked && there {
				k.gaveTo(o.target)
			}
			delete(g.offers, name)
			delete(g.shunned, name)
		case !there && o.asked:
			o.lease.retarget(o.target, "") // it is to be nobody's, before a dead or draining one's
		case !there:
			delete(g.offers, name)
		case !o.closing && now.Sub(o.since) >= k.pace.offer:
			g.shun(name, o.target, now)
		case !o.closing && !emptying && len(g.offers) > 1:
			delete(g.offers, name) // the wish to empty was taken back
		}
	}
	return targets
}

// gaveTo counts a session that a target has got, until its load says so.
func (k *Keeper) gaveTo(target string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.view.peers[target]; p != nil {
		p.given++
	}
}

// shun takes an offer back from a target that did not get ready.
func (g *giver) shun(session, target string, now time.Time) {
	if g.shunned[session] == nil {
		g.shunned[session] = make(map[string]time.Time)
	}
	g.shunned[session][target] = now
	delete(g.offers, session)
}

// choose makes offers, and asks back for nobody what nobody can take.
func (g *giver) choose(targets map[string]worker) {
	k := g.k
	now := k.clock.Now()
	k.mu.Lock()
	emptying := k.emptying()
	late := k.draining && !k.drainBy.IsZero() && !now.Before(k.drainBy)
	// Whoever has joined lately must not be missed.
	known := k.view.read.After(k.drained) || now.Sub(k.drained) > k.pace.call
	k.mu.Unlock()
	var pool []*Lease
	for _, lease := range k.leases() {
		if _, offered := g.offers[lease.Session()]; !offered && lease.life == g.l && lease.held() {
			pool = append(pool, lease)
		}
	}
	slices.SortFunc(pool, func(a, b *Lease) int { return compareNames(a, b) })
	switch {
	case emptying && (late || len(targets) == 0 && known):
		for _, lease := range pool {
			lease.recall("")
		}
		for name, o := range g.offers {
			if !o.asked {
				delete(g.offers, name)
				o.lease.recall("")
			}
		}
	case emptying:
		g.offer(pool, targets, known, now)
	default:
		g.balance(pool, targets, now)
	}
}

func compareNames(a, b *Lease) int {
	if a.Session() < b.Session() {
		return -1
	}
	return 1
}

// offer offers what targets have room for in their windows. known says that no
// target is missing.
func (g *giver) offer(pool []*Lease, targets map[string]worker, known bool, now time.Time) {
	window := make(map[string]int)
	for _, o := range g.offers {
		window[o.target]++
	}
	among := slices.Collect(maps.Values(targets))
	for i := range among {
		among[i].sessions += window[among[i].id]
	}
	slices.SortFunc(among, func(a, b worker) int { return int(a.joined) - int(b.joined) })
	room := slices.ContainsFunc(among, func(w worker) bool { return !w.full() })
	for _, lease := range pool {
		name := lease.Session()
		if known && !room && len(g.offers) == 0 {
			lease.recall("") // all are full: nobody can take it
			continue
		}
		to := receiver(among, func(w worker) bool {
			_, shunned := g.shunned[name][w.id]
			return window[w.id] < offersAtOnce && !shunned
		})
		if to == "" {
			if len(g.shunned[name]) >= len(among) {
				delete(g.shunned, name) // none got ready for it: another round
			}
			continue
		}
		g.offers[name] = &offer{lease: lease, target: to, since: now}
		window[to]++
		for i := range among {
			if among[i].id == to {
				among[i].sessions++
			}
		}
	}
}

// balance offers one session to the least loaded, if this worker has many more
// than its share and the roster has not changed for a while.
func (g *giver) balance(pool []*Lease, targets map[string]worker, now time.Time) {
	k := g.k
	if len(g.offers) > 0 || now.Sub(g.last) < k.pace.give {
		return
	}
	k.mu.Lock()
	mine := len(k.held) + len(k.busy)
	among := receivers(k.alive(g.l.id, mine))
	settled := !k.view.changed.IsZero() && now.Sub(k.view.changed) >= k.cfg.Settle
	k.mu.Unlock()
	share := fairShare(among, 0)
	if !settled || !slices.ContainsFunc(among, func(w worker) bool { return w.id == g.l.id }) || !surplus(mine, share, g.begun) {
		g.begun = false
		return
	}
	var below []worker
	for _, w := range targets {
		if w.room(share) > 0 {
			below = append(below, w)
		}
	}
	slices.SortFunc(below, func(a, b worker) int { return int(a.joined) - int(b.joined) })
	var best *Lease
	to := ""
	for _, lease := range pool {
		name := lease.Session()
		at := receiver(below, func(w worker) bool {
			when, shunned := g.shunned[name][w.id]
			return !shunned || now.Sub(when) >= k.cfg.Settle
		})
		// Of all, the one that is nearest to where it goes.
		if at != "" && (best == nil || score(name, at, 1) > score(best.Session(), at, 1)) {
			best, to = lease, at
		}
	}
	if best == nil {
		g.begun = false
		return
	}
	g.begun, g.last = true, now
	g.offers[best.Session()] = &offer{lease: best, target: to, since: now}
}

// write stores the notes that have changed.
func (g *giver) write() error {
	notes := make(map[string]map[string]string)
	for name, o := range g.offers {
		if notes[o.target] == nil {
			notes[o.target] = make(map[string]string)
		}
		notes[o.target][name] = noteOffered
		if o.closing {
			notes[o.target][name] = noteClosing
		}
	}
	for _, target := range sortedKeys(notes) {
		if maps.Equal(notes[target], g.written[target]) {
			continue
		}
		if err := g.k.writeNote(g.l.ctx, offerKey(target, g.l.id), offerNote{V: state.Format, Sessions: notes[target]}); err != nil {
			return err
		}
		g.written[target] = notes[target]
	}
	for _, target := range sortedKeys(g.written) {
		if _, still := notes[target]; still {
			continue
		}
		if err := g.k.removeNote(g.l.ctx, offerKey(target, g.l.id)); err != nil {
			return err
		}
		delete(g.written, target)
	}
	return nil
}

// answered takes in what the targets say: what is ready is closed next, so many
// at a time; what is refused goes to another.
func (g *giver) answered(replies map[string]replyNote, targets map[string]worker) {
	now := g.k.clock.Now()
	closing := make(map[string]int)
	for _, o := range g.offers {
		if o.closing {
			closing[o.target]++
		}
	}
	for target, reply := range replies {
		progress := false
		for _, name := range reply.Ready {
			o := g.offers[name]
			if o == nil || o.target != target || o.closing || closing[target] >= closingAtOnce {
				continue
			}
			if _, there := targets[target]; !there {
				continue
			}
			o.closing, progress = true, true
			closing[target]++
		}
		for _, name := range reply.Refused {
			o := g.offers[name]
			switch {
			case o == nil || o.target != target:
			case o.asked:
				o.lease.retarget(target, "")
			default:
				g.shun(name, target, now)
			}
		}
		if !progress {
			continue
		}
		// A target that gets on is given time for the rest.
		for _, o := range g.offers {
			if o.target == target && !o.closing {
				o.since = now
			}
		}
	}
}

// recall asks the sessions back that their targets are ready for. The notes
// that say so are in the store by now.
func (g *giver) recall() {
	for _, o := range g.offers {
		if o.closing && !o.asked {
			o.asked = true
			o.lease.recall(o.target)
		}
	}
}
