package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Keeper holds the leases of one worker: one incarnation after the other, since
// one that was declared dead is dead for good.
type Keeper struct {
	cfg   Config
	pace  pace
	clock Clock
	log   *slog.Logger
	newID func() string
	// trustFrom is when trust begins that a beat brings: when it was sent.
	trustFrom func(sent, answered stamp) stamp

	queue     chan struct{} // whoever has put something in does a transaction that checks a LIFE item
	preparing chan struct{} // places for what is being prepared

	beatNow, guardNow, watchNow, reapNow, claimNow, claimReady, giveNow, takeNow bell

	mu       sync.Mutex
	life     *life
	held     map[string]*Lease   // until Release, also when it was lost
	busy     map[string]struct{} // being prepared, claimed, or looked at for a hand-over
	coming   map[string]struct{} // seen to by the taker when they arrive
	ready    []*claim            // prepared, to be claimed
	draining bool                // by Drain, for good
	drained  time.Time           // when Drain was called
	drainBy  time.Time           // when what is left is released to nobody; zero: never
	wished   bool                // an operator wants it empty
	giving   bool
	changed  chan struct{} // closed when held or busy changed
	view     view
	hunt     hunt
}

// New makes a Keeper; Run runs it.
func New(cfg Config) (*Keeper, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	return newKeeper(cfg), nil
}

func newKeeper(cfg Config) *Keeper {
	return &Keeper{
		cfg: cfg, pace: defaultPace(cfg), clock: cfg.Clock, log: cfg.Log, newID: NewIncarnation,
		trustFrom: func(sent, _ stamp) stamp { return sent },
		queue:     make(chan struct{}, 1), preparing: make(chan struct{}, preparesAtOnce),
		beatNow: newBell(), guardNow: newBell(), watchNow: newBell(), reapNow: newBell(),
		claimNow: newBell(), claimReady: newBell(), giveNow: newBell(), takeNow: newBell(),
		held: make(map[string]*Lease), busy: make(map[string]struct{}), changed: make(chan struct{}),
		view: newView(), hunt: newHunt(),
	}
}

// life is one incarnation.
type life struct {
	keeper *Keeper
	id     string
	trust  *trust
	ctx    context.Context
	cancel context.CancelCauseFunc
	leases context.Context // parent of the leases'
	loops  sync.WaitGroup
}

// trusted says whether the incarnation may believe that it is alive.
func (l *life) trusted() bool { return l.trust.left() > 0 }

// die ends the incarnation: it is known to be dead.
func (l *life) die(why error) {
	l.trust.end()
	l.keeper.log.Warn("this worker was declared dead; going on under a new id", "incarnation", l.id, "why", why)
	l.keeper.guardNow.ring()
}

// Run joins and works until ctx ends: it beats, watches, claims, gives and
// takes. It does not drain by itself: what is still held when ctx ends is cut.
// It returns when the sessions have ended, or after half a minute.
func (k *Keeper) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		l, err := k.join(ctx)
		if err != nil {
			break // ctx has ended
		}
		k.live(l)
		k.bury(ctx, l)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.life = nil
	if n := len(k.held); n > 0 {
		return fmt.Errorf("%d sessions have not ended within %s; their connections are cut", n, k.pace.ending)
	}
	return nil
}

// join makes a new incarnation known. It fails only when ctx ends.
func (k *Keeper) join(ctx context.Context) (*life, error) {
	for pause, told := 200*time.Millisecond, false; ; pause = min(2*pause, k.cfg.Poll) {
		id := k.newID() // another one each time: a join whose answer was lost may have happened
		k.cfg.Joined(id)
		info := k.cfg.Info
		info.Capacity, info.Since = k.cfg.Capacity, k.clock.Now().Round(0).UTC()
		sent := stampOf(k.clock)
		err := k.bounded(ctx, func(ctx context.Context) error {
			_, err := k.cfg.Store.Join(ctx, id, info)
			return err
		})
		if err == nil {
			return k.born(ctx, id, k.trustFrom(sent, stampOf(k.clock))), nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !told {
			told = true
			k.log.Error("joining the fleet failed; trying again", "error", err)
		}
		if err := k.clock.Wait(ctx, pause, nil); err != nil {
			return nil, err
		}
	}
}

func (k *Keeper) born(ctx context.Context, id string, sent stamp) *life {
	l := &life{keeper: k, id: id, trust: newTrust(k.clock, k.cfg.Trust, sent), leases: context.WithoutCancel(ctx)}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	k.mu.Lock()
	k.life, k.wished, k.giving = l, false, false
	k.view, k.hunt = newView(), newHunt()
	k.ready, k.coming = nil, nil
	k.mu.Unlock()
	k.log.Info("joined the fleet", "incarnation", id)
	return l
}

// live is the life of one incarnation. It returns when that is over and nothing
// of it works any more but sessions that are still ending.
func (k *Keeper) live(l *life) {
	for _, loop := range []func(*life){k.beat, k.guard, k.watch, k.reap, k.seek, k.claimPrepared, k.survey, k.give, k.take} {
		l.loops.Go(func() { loop(l) })
	}
	<-l.ctx.Done()
	l.trust.end()
	k.fence(l, context.Cause(l.ctx))
	l.loops.Wait()
	k.dropReady()
}

// bury waits until the leases of an incarnation that is over have ended, and
// tells the store that it will not come back.
func (k *Keeper) bury(ctx context.Context, l *life) {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.pace.ending)
	defer cancel()
	for {
		n, changed := k.leasesOf(l)
		if n == 0 {
			break
		}
		if k.clock.Wait(late, k.pace.ending, changed) != nil {
			k.log.Error("sessions have not ended; going on without them", "incarnation", l.id, "sessions", n)
			return
		}
	}
	if ctx.Err() == nil {
		return // it was declared dead
	}
	err := k.bounded(context.WithoutCancel(ctx), func(ctx context.Context) error { return k.cfg.Store.DeclareStopped(ctx, l.id) })
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		k.log.Warn("could not tell the fleet that this worker has ended; it will notice", "incarnation", l.id, "error", err)
	}
}

// leasesOf counts the leases of an incarnation that have not ended, and returns
// what is closed when that may have changed.
func (k *Keeper) leasesOf(l *life) (int, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, lease := range k.held {
		if lease.life == l {
			n++
		}
	}
	return n, k.changed
}

// Incarnation is who the Keeper speaks for at present; empty before it has
// joined. It changes after an incarnation was declared dead.
func (k *Keeper) Incarnation() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.life == nil {
		return ""
	}
	return k.life.id
}

// Trusted says whether sessions may connect now.
func (k *Keeper) Trusted() bool { return k.TrustLeft() > 0 }

// TrustLeft is for how long they may, if no further heartbeat succeeds.
func (k *Keeper) TrustLeft() time.Duration {
	k.mu.Lock()
	l := k.life
	k.mu.Unlock()
	if l == nil {
		return 0
	}
	return l.trust.left()
}

// Roster is the roster as last read, with the heartbeats seen since.
func (k *Keeper) Roster() state.Roster {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.view.roster()
}

// Look makes the Keeper look at a session now: it was just created, or its owner
// changed. It does not block.
func (k *Keeper) Look(session string) {
	k.mu.Lock()
	k.hunt.looks[session] = k.clock.Now()
	k.mu.Unlock()
	k.claimNow.ring()
}

// Drain gives everything away, to workers that can take it, and what nobody can
// take to nobody. It returns nil when nothing is left. From its first call on
// the worker takes nothing more. ctx bounds it: shortly before its deadline the
// rest is released to nobody.
func (k *Keeper) Drain(ctx context.Context) error {
	now := k.clock.Now()
	k.mu.Lock()
	if !k.draining {
		k.draining, k.drained = true, now
	}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		k.drainBy = now.Add(left - min(left/4, k.pace.lastOrders))
	}
	k.view.asked = true
	k.mu.Unlock()
	for _, b := range []bell{k.beatNow, k.watchNow, k.giveNow, k.claimNow} {
		b.ring()
	}
	for {
		n, changed := k.left()
		if n == 0 {
			done, err := k.releaseLeftovers(ctx)
			if done {
				return nil
			}
			if err != nil && ctx.Err() != nil {
				return fmt.Errorf("draining: whether sessions are left could not be read: %w", err)
			}
			changed = nil // by what was just tried
		}
		if err := k.clock.Wait(ctx, k.cfg.Poll/4, changed); err != nil {
			n, _ := k.left()
			k.recallAll()
			return fmt.Errorf("draining: %d sessions were not given away in time: %w", n, err)
		}
	}
}

// left is how many sessions run or are being taken, and what is closed when that
// changes.
func (k *Keeper) left() (int, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.held) + len(k.busy), k.changed
}

// recallAll asks all sessions back for nobody.
func (k *Keeper) recallAll() {
	for _, lease := range k.leases() {
		lease.recall("")
	}
}

func (k *Keeper) leases() []*Lease {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]*Lease, 0, len(k.held))
	for lease := range maps.Values(k.held) {
		all = append(all, lease)
	}
	return all
}

// emptying says that nothing more is taken and everything given away.
func (k *Keeper) emptying() bool { return k.draining || k.wished }

// load is what the next heartbeat says.
func (k *Keeper) load(left time.Duration) state.Load {
	online := k.cfg.Online()
	k.mu.Lock()
	defer k.mu.Unlock()
	return state.Load{
		Sessions: len(k.held) + len(k.busy), Online: online, Draining: k.emptying(), Giving: k.giving,
		Trust: left, At: k.clock.Now().Round(0).UTC(),
	}
}

// setGiving says with the next heartbeat, which is sent at once, whether there
// are offers for others.
func (k *Keeper) setGiving(giving bool) {
	k.mu.Lock()
	was := k.giving
	k.giving = giving
	k.mu.Unlock()
	if was != giving {
		k.beatNow.ring()
	}
}

// start makes the lease of a session that was just claimed, handed over or taken
// up again, and starts it. It is false if the session is not started: trust is
// over, or nothing is taken any more. busy no longer names it afterwards.
func (k *Keeper) start(l *life, owner, from state.Owner, prepared any) bool {
	lease := newLease(l.leases, k.cfg.Store, k.clock, owner, from)
	lease.keeper, lease.life, lease.prepared = k, l, prepared
	k.mu.Lock()
	_, has := k.held[owner.Session]
	ok := !has && l.trusted() && !k.emptying()
	if ok {
		k.held[owner.Session] = lease
		delete(k.hunt.fails, owner.Session)
	}
	delete(k.busy, owner.Session)
	delete(k.hunt.candidates, owner.Session)
	k.change()
	k.mu.Unlock()
	if !ok {
		lease.cancel(ErrReleased)
		k.lookForOwn()
		return false
	}
	k.cfg.Start(lease)
	return true
}

// reserve marks a session busy. It is false if it runs here or is busy already.
func (k *Keeper) reserve(session string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, held := k.held[session]
	_, busy := k.busy[session]
	if held || busy {
		return false
	}
	k.busy[session] = struct{}{}
	return true
}

func (k *Keeper) unreserve(session string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.busy, session)
	k.change()
}

// forgetLease is the end of a lease.
func (k *Keeper) forgetLease(l *Lease) {
	k.mu.Lock()
	if k.held[l.Session()] == l {
		delete(k.held, l.Session())
	}
	k.change()
	k.mu.Unlock()
	k.lookForOwn() // it was lost, or the store did not take it
	k.giveNow.ring()
}

// change tells whoever waits for it that held or busy changed; mu is held.
func (k *Keeper) change() {
	close(k.changed)
	k.changed = make(chan struct{})
}

// bounded does one call of the store, which may take so long and no longer.
func (k *Keeper) bounded(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, k.pace.call)
	defer cancel()
	return do(ctx)
}

// transact does a transaction that checks a LIFE item, when those that came
// before have been done: side by side they would fail of one another.
func (k *Keeper) transact(ctx context.Context, do func(context.Context) error) error {
	select {
	case k.queue <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", state.ErrUnavailable, ctx.Err())
	}
	defer func() { <-k.queue }()
	return k.bounded(ctx, do)
}
