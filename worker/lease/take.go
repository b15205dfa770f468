package lease

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// taker gets ready for sessions that others offer, and starts them when they
// are this worker's. Only its own goroutine uses it, but for what mu guards.
type taker struct {
	k       *Keeper
	l       *life
	givers  map[string]map[string]*incoming // by giver and session
	replied map[string]replyNote            // as in the store, by giver
	read    time.Time                       // when notes were last read

	mu sync.Mutex // guards the results in incoming
}

// incoming is one session that is offered.
type incoming struct {
	session  string
	closing  bool
	last     bool      // its giver names it no more: its owner is read once again
	askAt    time.Time // when its turn to log in is asked for next
	ready    bool
	refused  bool
	working  bool // it is being prepared
	done     bool // it is prepared
	prepared any
}

// take is the taker's loop.
func (k *Keeper) take(l *life) {
	t := &taker{k: k, l: l, givers: make(map[string]map[string]*incoming), replied: make(map[string]replyNote)}
	failing := false
	for {
		err := t.step()
		switch {
		case l.ctx.Err() != nil:
			return
		case err != nil && !failing:
			failing = true
			k.log.Warn("notes of a hand-over failed; trying again", "incarnation", l.id, "error", err)
		case err == nil:
			failing = false
		}
		wait := k.cfg.Poll
		switch {
		case t.closing():
			wait = k.pace.closing
		case k.offered() || len(t.givers) > 0 || len(t.replied) > 0:
			wait = k.pace.notes
		}
		if k.clock.Wait(l.ctx, wait, k.takeNow) != nil {
			return
		}
	}
}

// offered says that somebody whom this worker hears has offers.
func (k *Keeper) offered() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.view.peers {
		if p.watched && p.Load.Giving && !p.Dead {
			return true
		}
	}
	return false
}

// crowded says that there are so many members that this one does not hear all of
// them: notes are then looked for at each poll.
func (k *Keeper) crowded() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, p := range k.view.peers {
		if !p.Dead {
			n++
		}
	}
	return n > watchAll+1
}

func (t *taker) closing() bool {
	for _, sessions := range t.givers {
		for _, in := range sessions {
			if in.closing {
				return true
			}
		}
	}
	return false
}

func (t *taker) step() error {
	if !t.l.trusted() {
		// Whether it could still take them is not known: the givers find others,
		// and what is given nevertheless is found as an own session.
		clear(t.givers)
		t.expect()
		return nil
	}
	now := t.k.clock.Now()
	if now.Sub(t.read) >= t.k.pace.notes && (t.k.offered() || t.k.crowded() || len(t.givers) > 0) {
		t.read = now
		notes, err := readNotes[offerNote](t.l.ctx, t.k, offerKey(t.l.id, ""))
		if err != nil {
			return err
		}
		t.heed(notes)
	}
	t.turns()
	t.expect()
	t.look()
	t.expect()
	return t.reply()
}

// expect says which sessions are seen to here when they arrive, and need not be
// found as own ones that do not run.
func (t *taker) expect() {
	t.mu.Lock()
	coming := make(map[string]struct{})
	for _, sessions := range t.givers {
		for name, in := range sessions {
			if in.ready || in.closing && (in.working || in.done) {
				coming[name] = struct{}{}
			}
		}
	}
	t.mu.Unlock()
	t.k.mu.Lock()
	t.k.coming = coming
	t.k.mu.Unlock()
}

// heed takes in what is offered now.
func (t *taker) heed(notes map[string]offerNote) {
	k := t.k
	k.mu.Lock()
	for giver := range notes {
		if p := k.view.peers[giver]; p == nil || p.Dead {
			delete(notes, giver) // what it had is claimed
		}
	}
	k.mu.Unlock()
	for giver, sessions := range t.givers {
		for name, in := range sessions {
			_, still := notes[giver].Sessions[name]
			switch {
			case still:
			case in.closing, in.ready:
				in.last = true // it has arrived, or was taken back
			default:
				delete(sessions, name)
			}
		}
		if len(sessions) == 0 {
			delete(t.givers, giver)
		}
	}
	for giver, note := range notes {
		sessions := t.givers[giver]
		if sessions == nil {
			sessions = make(map[string]*incoming)
			t.givers[giver] = sessions
		}
		for _, name := range sortedKeys(note.Sessions) {
			in := sessions[name]
			if in == nil {
				in = &incoming{session: name}
				sessions[name] = in
			}
			in.closing, in.last = note.Sessions[name] == noteClosing, false
			t.accept(in)
		}
	}
}

// accept has a session prepared, or refuses it.
func (t *taker) accept(in *incoming) {
	k := t.k
	t.mu.Lock()
	defer t.mu.Unlock()
	if in.working || in.done || in.refused {
		return
	}
	coming := 0
	for _, sessions := range t.givers {
		for _, other := range sessions {
			if other.working || other.done {
				coming++
			}
		}
	}
	k.mu.Lock()
	_, held := k.held[in.session]
	full := k.cfg.Capacity > 0 && len(k.held)+len(k.busy)+coming >= k.cfg.Capacity
	emptying := k.emptying()
	k.mu.Unlock()
	if full || emptying {
		in.refused = true
		return
	}
	if held {
		return // an earlier run of it here is still ending
	}
	in.working = true
	t.l.loops.Go(func() {
		prepared, err := k.prepareOne(t.l, in.session)
		t.mu.Lock()
		in.working, in.done, in.refused, in.prepared = false, err == nil, err != nil, prepared
		t.mu.Unlock()
		if err != nil && t.l.ctx.Err() == nil {
			k.log.Warn("what an offered session needs could not be loaded: it is refused", "session", in.session, "error", err)
		}
		k.takeNow.ring()
	})
}

// turns asks for turns to log in, for what is prepared.
func (t *taker) turns() {
	now := t.k.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, giver := range sortedKeys(t.givers) {
		for _, name := range sortedKeys(t.givers[giver]) {
			in := t.givers[giver][name]
			if !in.done || in.ready || in.refused || now.Before(in.askAt) {
				continue
			}
			if wait := t.k.cfg.Turn(name); wait > 0 {
				in.askAt = now.Add(wait)
				continue
			}
			in.ready = true
		}
	}
}

// look starts what has become this worker's. While it asks, nothing else may
// take the session up as an own one that does not run.
func (t *taker) look() {
	var asking sync.WaitGroup
	for giver, sessions := range t.givers {
		n := 0
		for _, name := range sortedKeys(sessions) {
			in := sessions[name]
			if in.last {
				delete(sessions, name)
				t.k.lookForOwn() // should it not be there yet
			}
			t.mu.Lock()
			able := (in.closing || in.last) && !in.working && (in.done || in.refused)
			prepared := in.prepared
			t.mu.Unlock()
			if able && (n < closingAtOnce || in.last) && t.k.reserve(name) {
				n++
				asking.Go(func() { t.ask(giver, name, prepared) })
			}
		}
	}
	asking.Wait()
}

func (t *taker) ask(giver, name string, prepared any) {
	k := t.k
	var o state.Owner
	err := k.bounded(t.l.ctx, func(ctx context.Context) (err error) {
		o, err = k.cfg.Store.Owner(ctx, name)
		return err
	})
	if err != nil || o.Incarnation != t.l.id {
		if err != nil && !errors.Is(err, state.ErrNotFound) && t.l.ctx.Err() == nil {
			k.log.Debug("the owner of an offered session could not be read", "session", name, "error", err)
		}
		k.unreserve(name)
		return
	}
	k.start(t.l, o, state.Owner{Session: name, Incarnation: giver, Epoch: o.Epoch - 1}, prepared)
}

// reply stores the answers that have changed.
func (t *taker) reply() error {
	replies := make(map[string]replyNote)
	t.mu.Lock()
	for giver, sessions := range t.givers {
		r := replyNote{V: state.Format}
		for _, in := range sessions {
			switch {
			case in.refused:
				r.Refused = append(r.Refused, in.session)
			case in.ready:
				r.Ready = append(r.Ready, in.session)
			}
		}
		slices.Sort(r.Ready)
		slices.Sort(r.Refused)
		if len(r.Ready)+len(r.Refused) > 0 {
			replies[giver] = r
		}
	}
	t.mu.Unlock()
	for _, giver := range sortedKeys(replies) {
		if was, ok := t.replied[giver]; ok && was.equal(replies[giver]) {
			continue
		}
		if err := t.k.writeNote(t.l.ctx, replyKey(giver, t.l.id), replies[giver]); err != nil {
			return err
		}
		t.replied[giver] = replies[giver]
	}
	for _, giver := range sortedKeys(t.replied) {
		if _, still := replies[giver]; still {
			continue
		}
		if err := t.k.removeNote(t.l.ctx, replyKey(giver, t.l.id)); err != nil {
			return err
		}
		delete(t.replied, giver)
	}
	return nil
}
