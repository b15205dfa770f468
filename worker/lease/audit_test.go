package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
)

// audit is the store as the world sees it: each change is checked at the moment
// at which it happens.
type audit struct {
	state.Store
	w    *world
	base *memory.Store

	// What a broken store or protocol would do.
	noFence   bool // writes are taken whatever their fence says
	noDeclare bool // a death is never told to the store

	mu     sync.Mutex
	dead   map[string]bool
	epochs map[string]uint64
}

func newAudit(w *world) *audit {
	base := memory.New(time.Now)
	return &audit{Store: base, base: base, w: w, dead: make(map[string]bool), epochs: make(map[string]uint64)}
}

// alive checks that what an incarnation did was not done after its death (I6).
func (a *audit) alive(who, what string) {
	if a.dead[who] {
		a.w.violate("I6", "%s %s after its death", who, what)
	}
}

// moved checks that epochs only grow (I3).
func (a *audit) moved(o state.Owner) {
	if o.Epoch <= a.epochs[o.Session] {
		a.w.violate("I3", "%s is at epoch %d after %d", o.Session, o.Epoch, a.epochs[o.Session])
	}
	a.epochs[o.Session] = o.Epoch
}

// closed checks that a session is given up after its connection was closed (I7).
func (a *audit) closed(f state.Fence) {
	if sock := a.w.server.holder(f.Session); sock != nil && sock.fence.Owner == f.Owner {
		a.w.violate("I7", "%s is given up while it is connected", f)
	}
}

func (a *audit) Beat(ctx context.Context, id string, load state.Load) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.base.Beat(ctx, id, load)
	if err == nil {
		a.alive(id, "beats")
	}
	return err
}

func (a *audit) DeclareDead(ctx context.Context, id string, seen uint64) error {
	if a.noDeclare {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.base.DeclareDead(ctx, id, seen)
	if err == nil {
		a.dead[id] = true
	}
	return err
}

func (a *audit) DeclareStopped(ctx context.Context, id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.base.DeclareStopped(ctx, id)
	if err == nil {
		a.dead[id] = true
	}
	return err
}

func (a *audit) Claim(ctx context.Context, to string, from ...state.Owner) ([]state.Owner, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	got, err := a.base.Claim(ctx, to, from...)
	if err != nil {
		return nil, err
	}
	a.alive(to, "claims")
	for i, o := range got {
		a.moved(o)
		if was := from[i].Incarnation; was != "" && was != to && !a.dead[was] {
			a.w.violate("steal", "%s takes %s from %s, which is alive", to, o.Session, was)
		}
	}
	return got, nil
}

func (a *audit) HandOver(ctx context.Context, f state.Fence, to string) (state.Owner, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o, err := a.base.HandOver(ctx, f, to)
	if err == nil {
		a.alive(to, "is given a session")
		a.moved(o)
		a.closed(f)
	}
	return o, err
}

func (a *audit) Release(ctx context.Context, f state.Fence) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.base.Release(ctx, f)
	if err == nil {
		a.moved(state.Owner{Session: f.Session, Epoch: f.Epoch + 1})
		a.closed(f)
	}
	return err
}

func (a *audit) Commit(ctx context.Context, f state.Fence, token string, writes []state.Write) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	o, readErr := a.base.Owner(ctx, f.Session)
	use := f
	if a.noFence && readErr == nil {
		use = o.Fence()
	}
	err := a.base.Commit(ctx, use, token, writes)
	if err == nil && o.Fence() != f {
		a.w.violate("I2", "%s writes what is %s's", f, o.Fence())
	}
	return err
}

// way is the way of one node to the store.
type way struct {
	state.Store
	n *node

	mu    sync.Mutex
	fault fault
}

// fault is what the way is like at present.
type fault struct {
	slow time.Duration // at most, each way
	back time.Duration // that answers take longer, at most
	drop int           // percent of calls that get no answer
	fail int           // percent that fail at once
	lost int           // percent that have their effect and get no answer
	late int           // percent that have their effect long after they were given up
}

func (v *way) set(f fault) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fault = f
}

var (
	errCrashed = errors.New("the process is gone")
	errFault   = fmt.Errorf("%w: by the plan", state.ErrUnavailable)
)

// through makes one call. It tells whether there is an answer.
func (v *way) through(ctx context.Context, apply func()) error {
	n := v.n
	n.pass()
	v.mu.Lock()
	f := v.fault
	f2 := n.w.outage.Load()
	v.mu.Unlock()
	if f2 != nil {
		f = *f2
	}
	switch {
	case n.dead():
		return errCrashed
	case n.dice.chance(f.fail):
		return n.after(ctx, 5*time.Millisecond, errFault)
	case n.dice.chance(f.drop):
		return n.after(ctx, time.Hour, errFault)
	case n.dice.chance(f.late):
		delay := n.dice.between(0, 15*time.Second)
		go func() {
			time.Sleep(delay)
			apply()
		}()
		return n.after(ctx, time.Hour, errFault)
	}
	way := func() time.Duration { return n.dice.between(time.Millisecond, 5*time.Millisecond+f.slow) }
	if there := way(); !pause(ctx, there) {
		if n.dice.chance(50) {
			apply() // it was on its way
		}
		n.pass()
		return errFault
	}
	apply()
	if n.dice.chance(f.lost) {
		if n.dice.chance(50) {
			return n.after(ctx, time.Hour, errFault)
		}
		return n.after(ctx, way(), errFault)
	}
	back := way() + n.dice.between(0, f.back)
	if !pause(ctx, back) {
		n.pass()
		return errFault
	}
	n.pass()
	if n.dead() {
		return errCrashed
	}
	return nil
}

// after fails when that time has passed or ctx has ended.
func (n *node) after(ctx context.Context, d time.Duration, err error) error {
	pause(ctx, d)
	n.pass()
	if n.dead() {
		return errCrashed
	}
	return err
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// call is through for calls with an answer. What has its effect after its caller
// has gone has it without the caller's context.
func call[T any](ctx context.Context, v *way, do func(ctx context.Context) (T, error)) (T, error) {
	var (
		mu     sync.Mutex
		answer T
		err    error
	)
	lost := v.through(ctx, func() {
		got, e := do(context.WithoutCancel(ctx))
		mu.Lock()
		defer mu.Unlock()
		answer, err = got, e
	})
	if lost != nil {
		var none T
		return none, lost
	}
	mu.Lock()
	defer mu.Unlock()
	return answer, err
}

type nothing struct{}

func tell(ctx context.Context, v *way, do func(ctx context.Context) error) error {
	_, err := call(ctx, v, func(ctx context.Context) (nothing, error) { return nothing{}, do(ctx) })
	return err
}

func (v *way) Get(ctx context.Context, p state.Partition, key state.Key) (state.Record, error) {
	return call(ctx, v, func(ctx context.Context) (state.Record, error) { return v.Store.Get(ctx, p, key) })
}

func (v *way) Query(ctx context.Context, p state.Partition, q state.Query) (state.Page, error) {
	return call(ctx, v, func(ctx context.Context) (state.Page, error) { return v.Store.Query(ctx, p, q) })
}

func (v *way) Update(ctx context.Context, p state.Partition, writes []state.Write) error {
	return tell(ctx, v, func(ctx context.Context) error { return v.Store.Update(ctx, p, writes) })
}

func (v *way) Sessions(ctx context.Context, after string, limit int) ([]state.Owner, error) {
	return call(ctx, v, func(ctx context.Context) ([]state.Owner, error) { return v.Store.Sessions(ctx, after, limit) })
}

func (v *way) OwnedBy(ctx context.Context, id, after string, limit int) ([]state.Owner, error) {
	return call(ctx, v, func(ctx context.Context) ([]state.Owner, error) { return v.Store.OwnedBy(ctx, id, after, limit) })
}

func (v *way) Roster(ctx context.Context) (state.Roster, error) { return call(ctx, v, v.Store.Roster) }

func (v *way) Watch(ctx context.Context, ids []string) (state.Pulse, error) {
	return call(ctx, v, func(ctx context.Context) (state.Pulse, error) { return v.Store.Watch(ctx, ids) })
}

func (v *way) Join(ctx context.Context, id string, info state.MemberInfo) (state.Member, error) {
	return call(ctx, v, func(ctx context.Context) (state.Member, error) { return v.Store.Join(ctx, id, info) })
}

func (v *way) Beat(ctx context.Context, id string, load state.Load) error {
	return tell(ctx, v, func(ctx context.Context) error { return v.Store.Beat(ctx, id, load) })
}

func (v *way) DeclareDead(ctx context.Context, id string, seen uint64) error {
	return tell(ctx, v, func(ctx context.Context) error { return v.Store.DeclareDead(ctx, id, seen) })
}

func (v *way) DeclareStopped(ctx context.Context, id string) error {
	return tell(ctx, v, func(ctx context.Context) error { return v.Store.DeclareStopped(ctx, id) })
}

func (v *way) Forget(ctx context.Context, id string) error {
	return tell(ctx, v, func(ctx context.Context) error { return v.Store.Forget(ctx, id) })
}
