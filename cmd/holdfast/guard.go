package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker"
)

// lookWithin bounds one look at a store's identity.
const lookWithin = 15 * time.Second

// guarded is a store that sees to it that it is still the one that it was when it
// was opened. Tables can be deleted and restored from a backup under the names
// that they had, and the heartbeats in them go on where they were. So a worker
// whose heartbeat had no answer for as long as it trusts itself looks at the
// identity again before it beats or joins; until that is known it has no trust
// and connects nothing.
type guarded struct {
	state.Store
	genuine func(context.Context) error
	after   time.Duration
	failed  chan<- error // told once of a restored store; has room for one
	log     *slog.Logger

	mu       sync.Mutex
	sure     time.Time // when it was last known to be the same
	looking  chan struct{}
	restored error
	ctx      context.Context // of looks, which outlive the heartbeat that waits for them
}

func newGuarded(ctx context.Context, s state.Store, genuine func(context.Context) error, after time.Duration, failed chan<- error, log *slog.Logger) *guarded {
	return &guarded{Store: s, genuine: genuine, after: after, failed: failed, log: log, sure: time.Now(), ctx: ctx}
}

// Join implements state.Members.
func (g *guarded) Join(ctx context.Context, incarnation string, info state.MemberInfo) (state.Member, error) {
	if err := g.check(ctx); err != nil {
		return state.Member{}, err
	}
	m, err := g.Store.Join(ctx, incarnation, info)
	g.answered(err)
	return m, err
}

// Beat implements state.Members.
func (g *guarded) Beat(ctx context.Context, incarnation string, load state.Load) error {
	if err := g.check(ctx); err != nil {
		return err
	}
	err := g.Store.Beat(ctx, incarnation, load)
	g.answered(err)
	return err
}

func (g *guarded) answered(err error) {
	if err == nil {
		g.mu.Lock()
		g.sure = time.Now()
		g.mu.Unlock()
	}
}

// check looks at the identity if there was no answer for long. The look goes on
// when ctx ends: a heartbeat may wait for less time than it takes.
func (g *guarded) check(ctx context.Context) error {
	g.mu.Lock()
	look := g.looking
	if err, ok := g.known(); ok {
		g.mu.Unlock()
		return err
	}
	if look == nil {
		look = make(chan struct{})
		g.looking = look
		go g.look(look)
	}
	g.mu.Unlock()
	select {
	case <-look:
	case <-ctx.Done():
		return fmt.Errorf("%w: whether it is the store that it was is not known yet: %w", state.ErrUnavailable, ctx.Err())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err, ok := g.known(); ok {
		return err
	}
	return fmt.Errorf("%w: whether it is the store that it was could not be found out", state.ErrUnavailable)
}

// known is false if it must be looked. The wall clock counts as well: the
// monotonic one stands still while a machine is suspended. Called with mu held.
func (g *guarded) known() (error, bool) { //nolint:revive // the error is the answer
	if g.restored != nil {
		return g.restored, true
	}
	now := time.Now()
	gone := max(now.Sub(g.sure), now.Round(0).Sub(g.sure.Round(0)))
	return nil, gone <= g.after
}

func (g *guarded) look(ended chan struct{}) {
	defer close(ended)
	ctx, cancel := context.WithTimeout(g.ctx, lookWithin)
	defer cancel()
	err := g.genuine(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.looking = nil
	var restored *worker.RestoredError
	switch {
	case err == nil:
		g.sure = time.Now()
	case errors.As(err, &restored):
		g.restored = fmt.Errorf("%w: %w", state.ErrUnavailable, err)
		g.log.Error("the store was replaced while this process ran; nothing connects any more", "error", err)
		select {
		case g.failed <- err:
		default:
		}
	}
}
