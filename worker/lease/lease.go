package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Causes of a lease's context.
var (
	// ErrLost: the session has, or may have, another owner. Nothing is written or
	// sent any more.
	ErrLost = errors.New("lease lost")
	// ErrReleased: the lease was given up on purpose.
	ErrReleased = errors.New("lease released")
	// ErrRecalled: the session is wanted back, for another worker or because this
	// one ends: close, commit, then call Release.
	ErrRecalled = errors.New("lease recalled")
)

// releaseRetry is the first pause between attempts to give a session up.
const releaseRetry = 20 * time.Millisecond

// Lease is the right to run one session.
type Lease struct {
	keeper   *Keeper // nil: see Hold
	life     *life   // the incarnation that holds it; nil: see Hold
	store    state.Owners
	clock    Clock
	from     state.Owner
	prepared any
	ctx      context.Context
	cancel   context.CancelCauseFunc
	turn     chan struct{} // one Renew or Release at a time

	mu       sync.Mutex
	owner    state.Owner
	lost     error
	cuts     []func()
	recalled bool
	target   string // whom it was recalled for; empty: nobody
	ended    bool
}

func newLease(parent context.Context, store state.Owners, clock Clock, owner, from state.Owner) *Lease {
	ctx, cancel := context.WithCancelCause(parent)
	return &Lease{store: store, clock: clock, owner: owner, from: from, ctx: ctx, cancel: cancel, turn: make(chan struct{}, 1)}
}

// Hold makes a lease of a session that the caller's incarnation owns already,
// for tools and tests that join and claim by themselves. It is trusted until it
// is lost or released: whoever beats for the incarnation sees to that.
func Hold(parent context.Context, store state.Owners, owner state.Owner) *Lease {
	return newLease(parent, store, hostClock{}, owner, state.Owner{Session: owner.Session})
}

// Session is the session's name.
func (l *Lease) Session() string { return l.from.Session }

// Context is what the session lives in. Its cause says why it ended.
func (l *Lease) Context() context.Context { return l.ctx }

// Fence is the right to write at present.
func (l *Lease) Fence() state.Fence { return l.current().Fence() }

func (l *Lease) current() state.Owner {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owner
}

// From is whom the session was taken from: the owner before, nobody where its
// incarnation is empty, or this incarnation itself where it had lost its trust.
func (l *Lease) From() state.Owner { return l.from }

// Prepared hands over what Config.Prepare returned, once: a lease is held for
// months, and that may be keys. nil where the session came without having been
// prepared.
func (l *Lease) Prepared() any {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.prepared
	l.prepared = nil
	return p
}

// OnLoss adds what is done first when the lease is lost: closing the connection,
// within milliseconds and without waiting for anybody. Where it is lost already,
// that is done now.
func (l *Lease) OnLoss(cut func()) {
	l.mu.Lock()
	lost := l.lost != nil
	if !lost {
		l.cuts = append(l.cuts, cut)
	}
	l.mu.Unlock()
	if lost {
		cut()
	}
}

// Trusted says whether the session may connect now. It reads the clock, so that
// it is false as soon as trust is over, whether or not anybody has noticed.
func (l *Lease) Trusted() bool {
	if l.ctx.Err() != nil {
		return false
	}
	l.mu.Lock()
	lost := l.lost != nil
	l.mu.Unlock()
	return !lost && (l.life == nil || l.life.trusted())
}

// Lose ends the lease because the session is, or may be, somebody else's: the
// connection is cut, then the context ends. Release is still called afterwards,
// to tell that nothing runs any more.
func (l *Lease) Lose(why error) {
	if l.sever(why) {
		l.cancel(l.loss())
	}
}

// sever marks the lease lost and cuts its connection. It is false if that was
// done before.
func (l *Lease) sever(why error) bool {
	l.mu.Lock()
	if l.lost != nil || l.ended {
		l.mu.Unlock()
		return false
	}
	l.lost = fmt.Errorf("%w: %w", ErrLost, why)
	cuts := l.cuts
	l.cuts = nil
	l.mu.Unlock()
	for _, cut := range cuts {
		cut()
	}
	return true
}

func (l *Lease) loss() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// Mine asks the store whether this incarnation still owns the session.
func (l *Lease) Mine(ctx context.Context) (bool, error) {
	now, err := l.read(ctx)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the owner of %s: %w", l.Session(), err)
	}
	return now.Incarnation == l.current().Incarnation, nil
}

// Renew raises the own epoch. It is called after a commit whose outcome stayed
// unknown: with the new epoch the old commit can no longer happen, and what is
// then read is what counts. state.ErrFenced and state.ErrDead lose the lease.
func (l *Lease) Renew(ctx context.Context) error {
	if err := l.enter(ctx); err != nil {
		return fmt.Errorf("raising the epoch of %s: %w", l.Session(), err)
	}
	defer l.leave()
	if err := l.over(); err != nil {
		return fmt.Errorf("raising the epoch of %s: %w", l.Session(), err)
	}
	o, err := l.again(ctx, l.current())
	if errors.Is(err, state.ErrFenced) {
		// Our own earlier attempt may be what happened: then the owner is still
		// us, at a higher epoch, and that epoch is ours to go on from.
		was := l.current()
		now, readErr := l.read(ctx)
		switch {
		case readErr == nil && now.Incarnation == was.Incarnation && now.Epoch > was.Epoch:
			o, err = l.again(ctx, now)
		case readErr != nil && !errors.Is(readErr, state.ErrNotFound):
			err = readErr // whose it is stays unknown
		}
	}
	switch {
	case errors.Is(err, state.ErrDead):
		l.Lose(err)
		if l.life != nil {
			l.life.die(err)
		}
	case errors.Is(err, state.ErrFenced), errors.Is(err, state.ErrNotFound):
		l.Lose(err)
	}
	if err != nil {
		return fmt.Errorf("raising the epoch of %s: %w", l.Session(), err)
	}
	l.mu.Lock()
	l.owner = o
	l.mu.Unlock()
	return nil
}

// again claims the session from the incarnation itself.
func (l *Lease) again(ctx context.Context, from state.Owner) (state.Owner, error) {
	var got []state.Owner
	err := l.transact(ctx, func(ctx context.Context) (err error) {
		got, err = l.store.Claim(ctx, from.Incarnation, from)
		return err
	})
	if err != nil {
		return state.Owner{}, err
	}
	return got[0], nil
}

// transact does a transaction that checks a LIFE item, in its turn.
func (l *Lease) transact(ctx context.Context, do func(context.Context) error) error {
	if l.keeper == nil {
		return do(ctx)
	}
	return l.keeper.transact(ctx, do)
}

// Release tells that nothing of the session runs any more: its connection is
// closed and everything is committed. It hands the session over to the worker
// that it was recalled for, or else gives it up to nobody. A lease that was lost
// is not given to anybody; it is forgotten here. The first call counts.
//
// An error means that the store did not take it until ctx ended. The session is
// then still this incarnation's, and the Keeper takes it up again.
func (l *Lease) Release(ctx context.Context) error {
	if err := l.enter(ctx); err != nil {
		l.finish(ErrReleased)
		return fmt.Errorf("releasing %s: %w", l.Session(), err)
	}
	defer l.leave()
	if l.over() != nil {
		l.finish(ErrReleased)
		return nil
	}
	to, err := l.yield(ctx)
	l.finish(ErrReleased)
	if err != nil {
		return fmt.Errorf("releasing %s: %w", l.Session(), err)
	}
	if l.keeper != nil {
		l.keeper.cfg.Observe.Given(l.Session(), to)
	}
	return nil
}

// yield changes the owner in the store and tells to whom.
func (l *Lease) yield(ctx context.Context) (string, error) {
	for pause := releaseRetry; ; pause = min(2*pause, time.Second) {
		fence, to := l.Fence(), l.destination()
		var err error
		if to == "" {
			err = l.bounded(ctx, func(ctx context.Context) error { return l.store.Release(ctx, fence) })
		} else {
			err = l.transact(ctx, func(ctx context.Context) error {
				_, err := l.store.HandOver(ctx, fence, to)
				return err
			})
		}
		switch {
		case err == nil:
			return to, nil
		case errors.Is(err, state.ErrDead) && to != "":
			l.retarget(to, "")
			continue
		case errors.Is(err, state.ErrFenced), errors.Is(err, state.ErrNotFound):
			// An earlier attempt whose answer was lost may be what happened, or an
			// earlier Renew.
			now, readErr := l.read(ctx)
			if errors.Is(readErr, state.ErrNotFound) {
				return "", nil
			}
			if readErr == nil && (now.Incarnation != fence.Owner || now.Epoch <= fence.Epoch) {
				return now.Incarnation, nil
			}
			if readErr == nil {
				l.mu.Lock()
				l.owner = now
				l.mu.Unlock()
				continue
			}
			err = readErr
		}
		if !errors.Is(err, state.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			return "", err
		}
		if l.clock.Wait(ctx, pause, nil) != nil {
			return "", err
		}
	}
}

// read asks the store for the owner.
func (l *Lease) read(ctx context.Context) (now state.Owner, err error) {
	err = l.bounded(ctx, func(ctx context.Context) (err error) {
		now, err = l.store.Owner(ctx, l.Session())
		return err
	})
	return now, err
}

func (l *Lease) bounded(ctx context.Context, do func(context.Context) error) error {
	if l.keeper == nil {
		return do(ctx)
	}
	return l.keeper.bounded(ctx, do)
}

// Recall asks the session back for one incarnation by name, as an operator's
// command does; whoever it is must have joined. Its context ends with ErrRecalled.
func (l *Lease) Recall(to string) { l.recall(to) }

// recall ends the context so that the session is given up, for another worker
// where one is named. It is false if the lease has ended or was recalled before.
func (l *Lease) recall(target string) bool {
	l.mu.Lock()
	if l.recalled || l.lost != nil || l.ended {
		l.mu.Unlock()
		return false
	}
	l.recalled, l.target = true, target
	l.mu.Unlock()
	l.cancel(ErrRecalled)
	return true
}

// retarget names another receiver, if the present one is still who was named.
func (l *Lease) retarget(was, target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.target == was {
		l.target = target
	}
}

func (l *Lease) destination() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.target
}

// held says whether the session runs and was not asked back yet.
func (l *Lease) held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.recalled && l.lost == nil && !l.ended
}

// over is why nothing can be done with the lease any more, nil if it can.
func (l *Lease) over() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost != nil {
		return l.lost
	}
	if l.ended {
		return ErrReleased
	}
	return nil
}

// finish is the end of a lease: nothing of it runs any more.
func (l *Lease) finish(why error) {
	l.mu.Lock()
	l.ended = true
	l.cuts = nil
	l.mu.Unlock()
	l.cancel(why)
	if l.keeper != nil {
		l.keeper.forgetLease(l)
	}
}

func (l *Lease) enter(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", state.ErrUnavailable, ctx.Err())
	}
}

func (l *Lease) leave() { <-l.turn }
