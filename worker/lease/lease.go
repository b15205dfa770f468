// Package lease holds the right of one worker incarnation to run sessions.
//
// A session has one owner at a time (state.Owner). A Keeper claims sessions for
// its incarnation and yields a Lease for each: a context in which the session
// lives, and the fence under which it writes. When the lease is lost, the
// context is cancelled with ErrLost as its cause and nothing of that session
// runs on.
//
//	unowned ──Claim──► held ──Release──► unowned
//	                    │ ▲
//	                    │ └─Renew (own epoch raised after an unknown outcome)
//	                    └──Lose (fenced, lock lost)──► gone
//
// This release keeps one worker a store: the caller holds an exclusive lock on
// the data folder, so every other incarnation that the store names is dead and
// its sessions may be claimed at once. The fence does not rely on that: it
// refuses a stale writer whatever the lock says.
package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
)

// ErrLost is the cause of a lease's context when the session has, or may have,
// another owner.
var ErrLost = errors.New("lease lost")

// ErrReleased is the cause when the lease was given up on purpose.
var ErrReleased = errors.New("lease released")

// NewIncarnation makes the id of one run of a worker. Ids are never used again.
func NewIncarnation() string {
	return "w-" + ulid.MustNew(ulid.Now(), rand.Reader).String()
}

// Keeper claims sessions for one incarnation.
type Keeper struct {
	store       state.Owners
	incarnation string
}

// NewKeeper makes the keeper of an incarnation. The caller holds the exclusive
// lock that makes all other incarnations dead.
func NewKeeper(store state.Owners, incarnation string) *Keeper {
	return &Keeper{store: store, incarnation: incarnation}
}

// Incarnation is who the keeper claims for.
func (k *Keeper) Incarnation() string { return k.incarnation }

// Claimable lists up to limit sessions after the given name that this
// incarnation may claim now, and the name to go on from ("" at the end).
func (k *Keeper) Claimable(ctx context.Context, after string, limit int) ([]state.Owner, string, error) {
	all, err := k.store.Sessions(ctx, after, limit)
	if err != nil {
		return nil, "", fmt.Errorf("listing sessions: %w", err)
	}
	var free []state.Owner
	for _, o := range all {
		if o.Incarnation != k.incarnation {
			free = append(free, o)
		}
	}
	next := ""
	if len(all) > 0 && len(all) >= limit {
		next = all[len(all)-1].Session
	}
	return free, next, nil
}

// Claim takes a session over from what was read of its owner. Somebody else
// being faster is state.ErrFenced. parent bounds the lease's life.
func (k *Keeper) Claim(ctx, parent context.Context, from state.Owner) (*Lease, error) {
	o, err := k.store.Claim(ctx, from, k.incarnation)
	if err != nil {
		return nil, fmt.Errorf("claiming %s: %w", from.Session, err)
	}
	held, cancel := context.WithCancelCause(parent)
	return &Lease{keeper: k, owner: o, ctx: held, cancel: cancel}, nil
}

// Lease is the right to run one session.
type Lease struct {
	keeper *Keeper
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	owner state.Owner
}

// Context is what the session lives in. Its cause says why it ended.
func (l *Lease) Context() context.Context { return l.ctx }

// Fence is the right to write at present.
func (l *Lease) Fence() state.Fence {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owner.Fence()
}

// Renew raises the own epoch. It is called after a commit whose outcome stayed
// unknown: with the new epoch the old commit can no longer happen, and what is
// then read is what counts. state.ErrFenced loses the lease.
func (l *Lease) Renew(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	o, err := l.keeper.store.Claim(ctx, l.owner, l.keeper.incarnation)
	if errors.Is(err, state.ErrFenced) {
		// Our own earlier attempt may be what happened: then the owner is still
		// us, at a higher epoch, and that epoch is ours to go on from.
		now, readErr := l.keeper.store.Owner(ctx, l.owner.Session)
		if readErr == nil && now.Incarnation == l.keeper.incarnation && now.Epoch > l.owner.Epoch {
			o, err = l.keeper.store.Claim(ctx, now, l.keeper.incarnation)
		}
	}
	if err != nil {
		if errors.Is(err, state.ErrFenced) || errors.Is(err, state.ErrNotFound) {
			l.cancel(fmt.Errorf("%w: %w", ErrLost, err))
		}
		return fmt.Errorf("raising the epoch of %s: %w", l.owner.Session, err)
	}
	l.owner = o
	return nil
}

// Lose ends the lease because the session is, or may be, somebody else's.
func (l *Lease) Lose(why error) { l.cancel(fmt.Errorf("%w: %w", ErrLost, why)) }

// Release gives the session up, after its socket was closed and everything was
// committed. A lease that was lost is not released.
func (l *Lease) Release(ctx context.Context) error {
	if errors.Is(context.Cause(l.ctx), ErrLost) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.keeper.store.Release(ctx, l.owner.Fence())
	l.cancel(ErrReleased)
	if err != nil && !errors.Is(err, state.ErrFenced) {
		return fmt.Errorf("releasing %s: %w", l.owner.Session, err)
	}
	return nil
}
