package statetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Method names a method of state.Store in faults and counts.
type Method string

// The methods that go to the store; Now and Close do not.
const (
	Get           Method = "Get"
	GetMany       Method = "GetMany"
	Query         Method = "Query"
	Indexed       Method = "Indexed"
	Commit        Method = "Commit"
	Update        Method = "Update"
	CreateSession Method = "CreateSession"
	RemoveSession Method = "RemoveSession"
	OwnerOf       Method = "Owner"
	OwnedBy       Method = "OwnedBy"
	Sessions      Method = "Sessions"
	Claim         Method = "Claim"
	HandOver      Method = "HandOver"
	Release       Method = "Release"
	Join          Method = "Join"
	Beat          Method = "Beat"
	Roster        Method = "Roster"
	Watch         Method = "Watch"
	DeclareDead   Method = "DeclareDead"

	DeclareStopped Method = "DeclareStopped"
	Drain          Method = "Drain"
	Forget         Method = "Forget"

	Ping Method = "Ping"
)

// Call is a call of a store, as a predicate sees it. N counts the calls of all
// methods from 1. Session (a claim's first), Worker (who claims, gives, beats or is
// spoken of), Token and Writes are set where the call has them.
type Call struct {
	N       int
	Method  Method
	Session string
	Worker  string
	Token   string
	Writes  []state.Write
}

// around is a store whose every call goes through do, which calls next to have
// it done.
type around struct {
	state.Store
	do func(ctx context.Context, c Call, next func() error) error
}

func (a *around) Get(ctx context.Context, p state.Partition, key state.Key) (state.Record, error) {
	return ask(ctx, a, Call{Method: Get, Session: session(p)}, func() (state.Record, error) { return a.Store.Get(ctx, p, key) })
}

func (a *around) GetMany(ctx context.Context, p state.Partition, keys []state.Key) ([]state.Record, error) {
	return ask(ctx, a, Call{Method: GetMany, Session: session(p)}, func() ([]state.Record, error) { return a.Store.GetMany(ctx, p, keys) })
}

func (a *around) Query(ctx context.Context, p state.Partition, q state.Query) (state.Page, error) {
	return ask(ctx, a, Call{Method: Query, Session: session(p)}, func() (state.Page, error) { return a.Store.Query(ctx, p, q) })
}

func (a *around) Indexed(ctx context.Context, index string, after *state.Indexed, limit int) ([]state.Indexed, error) {
	return ask(ctx, a, Call{Method: Indexed}, func() ([]state.Indexed, error) { return a.Store.Indexed(ctx, index, after, limit) })
}

func (a *around) Commit(ctx context.Context, f state.Fence, token string, writes []state.Write) error {
	c := Call{Method: Commit, Session: f.Session, Token: token, Writes: writes}
	return a.do(ctx, c, func() error { return a.Store.Commit(ctx, f, token, writes) })
}

func (a *around) Update(ctx context.Context, p state.Partition, writes []state.Write) error {
	c := Call{Method: Update, Session: session(p), Writes: writes}
	return a.do(ctx, c, func() error { return a.Store.Update(ctx, p, writes) })
}

func (a *around) CreateSession(ctx context.Context, name string, writes []state.Write) error {
	c := Call{Method: CreateSession, Session: name, Writes: writes}
	return a.do(ctx, c, func() error { return a.Store.CreateSession(ctx, name, writes) })
}

func (a *around) RemoveSession(ctx context.Context, f state.Fence) error {
	return a.do(ctx, Call{Method: RemoveSession, Session: f.Session}, func() error { return a.Store.RemoveSession(ctx, f) })
}

func (a *around) Owner(ctx context.Context, name string) (state.Owner, error) {
	return ask(ctx, a, Call{Method: OwnerOf, Session: name}, func() (state.Owner, error) { return a.Store.Owner(ctx, name) })
}

func (a *around) OwnedBy(ctx context.Context, incarnation, after string, limit int) ([]state.Owner, error) {
	return ask(ctx, a, Call{Method: OwnedBy}, func() ([]state.Owner, error) { return a.Store.OwnedBy(ctx, incarnation, after, limit) })
}

func (a *around) Sessions(ctx context.Context, after string, limit int) ([]state.Owner, error) {
	return ask(ctx, a, Call{Method: Sessions}, func() ([]state.Owner, error) { return a.Store.Sessions(ctx, after, limit) })
}

func (a *around) Claim(ctx context.Context, to string, from ...state.Owner) ([]state.Owner, error) {
	c := Call{Method: Claim, Worker: to}
	if len(from) > 0 {
		c.Session = from[0].Session
	}
	return ask(ctx, a, c, func() ([]state.Owner, error) { return a.Store.Claim(ctx, to, from...) })
}

func (a *around) HandOver(ctx context.Context, f state.Fence, to string) (state.Owner, error) {
	c := Call{Method: HandOver, Session: f.Session, Worker: f.Owner}
	return ask(ctx, a, c, func() (state.Owner, error) { return a.Store.HandOver(ctx, f, to) })
}

func (a *around) Join(ctx context.Context, id string, info state.MemberInfo) (state.Member, error) {
	return ask(ctx, a, Call{Method: Join, Worker: id}, func() (state.Member, error) { return a.Store.Join(ctx, id, info) })
}

func (a *around) Beat(ctx context.Context, id string, load state.Load) error {
	return a.do(ctx, Call{Method: Beat, Worker: id}, func() error { return a.Store.Beat(ctx, id, load) })
}

func (a *around) Roster(ctx context.Context) (state.Roster, error) {
	return ask(ctx, a, Call{Method: Roster}, func() (state.Roster, error) { return a.Store.Roster(ctx) })
}

func (a *around) Watch(ctx context.Context, ids []string) (state.Pulse, error) {
	return ask(ctx, a, Call{Method: Watch}, func() (state.Pulse, error) { return a.Store.Watch(ctx, ids) })
}

func (a *around) DeclareDead(ctx context.Context, id string, seen uint64) error {
	return a.do(ctx, Call{Method: DeclareDead, Worker: id}, func() error { return a.Store.DeclareDead(ctx, id, seen) })
}

func (a *around) DeclareStopped(ctx context.Context, id string) error {
	return a.do(ctx, Call{Method: DeclareStopped, Worker: id}, func() error { return a.Store.DeclareStopped(ctx, id) })
}

func (a *around) Drain(ctx context.Context, id string, wanted bool) error {
	return a.do(ctx, Call{Method: Drain, Worker: id}, func() error { return a.Store.Drain(ctx, id, wanted) })
}

func (a *around) Forget(ctx context.Context, id string) error {
	return a.do(ctx, Call{Method: Forget, Worker: id}, func() error { return a.Store.Forget(ctx, id) })
}

func (a *around) Release(ctx context.Context, f state.Fence) error {
	return a.do(ctx, Call{Method: Release, Session: f.Session}, func() error { return a.Store.Release(ctx, f) })
}

func (a *around) Ping(ctx context.Context) error {
	return a.do(ctx, Call{Method: Ping}, func() error { return a.Store.Ping(ctx) })
}

// ask has a call with an answer done. With an error there is no answer, also
// where the store had given one.
func ask[T any](ctx context.Context, a *around, c Call, next func() (T, error)) (answer T, err error) {
	err = a.do(ctx, c, func() error {
		answer, err = next()
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return answer, nil
}

func session(p state.Partition) string {
	name, _ := p.Session()
	return name
}

// Delay returns a store whose every call takes d longer, as a store on a
// network does: half of it on the way there and half on the way back. Calls
// that wait side by side do not wait for one another. In a synctest bubble the
// delay is virtual.
func Delay(s state.Store, d time.Duration) state.Store {
	return &around{s, func(ctx context.Context, _ Call, next func() error) error {
		begun := time.Now()
		if err := pause(ctx, d/2); err != nil {
			return err
		}
		// Timers are coarse: what the way there took too long, the way back is
		// shorter, or 5 ms would be over 6.
		over := time.Since(begun) - d/2
		err := next()
		if late := pause(ctx, d-d/2-over); late != nil {
			return late
		}
		return err
	}}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", state.ErrUnavailable, ctx.Err())
	}
}

// FaultStore is a store whose calls fail when it is told so.
type FaultStore struct {
	around
	mu     sync.Mutex
	calls  int
	faults []*fault
}

type fault struct {
	match func(Call) bool
	times int // left; negative: for ever
	after bool
	err   error
}

// Fault returns a store that fails where FailBefore and FailAfter say.
func Fault(s state.Store) *FaultStore {
	f := &FaultStore{}
	f.around = around{s, f.call}
	return f
}

// FailBefore makes the next times calls that match fail with err before they
// have any effect. A nil match matches all, negative times means until Heal,
// and a nil err means state.ErrUnavailable.
func (f *FaultStore) FailBefore(match func(Call) bool, times int, err error) {
	f.add(&fault{match: match, times: times, err: err})
}

// FailAfter is FailBefore for calls that do take effect, and whose answer is
// lost.
func (f *FaultStore) FailAfter(match func(Call) bool, times int, err error) {
	f.add(&fault{match: match, times: times, err: err, after: true})
}

// Heal takes all faults away.
func (f *FaultStore) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// Calls is how many calls there were.
func (f *FaultStore) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Of matches the calls of the given methods.
func Of(methods ...Method) func(Call) bool {
	return func(c Call) bool {
		for _, m := range methods {
			if c.Method == m {
				return true
			}
		}
		return false
	}
}

// Nth matches the n-th call, counted from 1 over all methods since Fault.
func Nth(n int) func(Call) bool { return func(c Call) bool { return c.N == n } }

func (f *FaultStore) add(x *fault) {
	if x.match == nil {
		x.match = func(Call) bool { return true }
	}
	if x.err == nil {
		x.err = fmt.Errorf("%w: injected", state.ErrUnavailable)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, x)
}

func (f *FaultStore) call(_ context.Context, c Call, next func() error) error {
	x := f.pick(c)
	switch {
	case x == nil:
		return next()
	case x.after:
		// What the store says is lost with the answer.
		_ = next()
	}
	return x.err
}

// pick counts the call and returns the fault that strikes it, if any.
func (f *FaultStore) pick(c Call) *fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	c.N = f.calls
	for _, x := range f.faults {
		if x.times != 0 && x.match(c) {
			x.times--
			return x
		}
	}
	return nil
}

// CountingStore counts the calls, which are round trips where the store is on a
// network.
type CountingStore struct {
	around
	mu     sync.Mutex
	counts map[Method]int
}

// Counting returns a store that counts its calls.
func Counting(s state.Store) *CountingStore {
	c := &CountingStore{counts: map[Method]int{}}
	c.around = around{s, func(_ context.Context, call Call, next func() error) error {
		c.mu.Lock()
		c.counts[call.Method]++
		c.mu.Unlock()
		return next()
	}}
	return c
}

// Count is the number of calls of the given methods since the last Reset; of
// all of them, if none is given.
func (c *CountingStore) Count(methods ...Method) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	if len(methods) == 0 {
		for _, count := range c.counts {
			n += count
		}
	}
	for _, m := range methods {
		n += c.counts[m]
	}
	return n
}

// Reset begins to count anew.
func (c *CountingStore) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.counts)
}
