package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// killed makes a worker vanish without a word: its store fails from then on.
func (c *crew) doomed(set func(*Config)) (*hand, func()) {
	c.t.Helper()
	own := statetest.Fault(statetest.Delay(c.base, 5*time.Millisecond))
	h := c.hire(func(cfg *Config) {
		if set != nil {
			set(cfg)
		}
		cfg.Store = own
	})
	return h, func() {
		own.FailBefore(nil, -1, errors.New("killed"))
		h.kill()
	}
}

// A worker that is killed is declared dead T after its last heartbeat was seen,
// and its sessions run elsewhere within a poll.
func TestTakeover(t *testing.T) {
	crewed(t, 60, func(t *testing.T, c *crew) {
		var took []time.Duration
		set := func(cfg *Config) {
			cfg.Observe.Taken = func(_ string, dead bool, after time.Duration) {
				c.mu.Lock()
				defer c.mu.Unlock()
				if dead {
					took = append(took, after)
				}
			}
		}
		a, kill := c.doomed(nil)
		c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 60 })
		b, d := c.hire(set), c.hire(set)
		time.Sleep(10 * time.Second)
		kill()
		begun := time.Now()
		c.within(DefaultTakeover+DefaultPoll+3*time.Second, "all taken over", func() bool { return b.runs()+d.runs() == 60 })
		t.Logf("%d and %d, all within %s of the death", b.runs(), d.runs(), time.Since(begun))
		if b.runs() != 30 || d.runs() != 30 {
			t.Errorf("%d and %d", b.runs(), d.runs())
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(took) != 60 || slices.Max(took) > 3*time.Second {
			t.Errorf("%d takeovers, the slowest after %s", len(took), slices.Max(took))
		}
		for _, l := range b.all() {
			if l.From().Incarnation == "" || l.From().Incarnation == b.Incarnation() {
				t.Errorf("from %+v", l.From())
			}
		}
	})
}

// The hint makes a death immediate; so does what Gone knows.
func TestADeathThatIsTold(t *testing.T) {
	for _, way := range []string{"the platform", "a lock"} {
		t.Run(way, func(t *testing.T) {
			crewed(t, 60, func(t *testing.T, c *crew) {
				a, kill := c.doomed(nil)
				c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 60 })
				var gone atomic.Value
				gone.Store("")
				b := c.hire(func(cfg *Config) { cfg.Gone = func(m state.Member) bool { return m.Incarnation == gone.Load() } })
				time.Sleep(10 * time.Second)
				id := a.Incarnation()
				kill()
				if way == "a lock" {
					gone.Store(id)
				} else if err := c.base.DeclareStopped(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				c.within(4*time.Second, "all taken over", func() bool { return b.runs() == 60 })
			})
		})
	}
}

// A worker that learns of its own death ends what it has and goes on under
// another id.
func TestADeadIncarnationJoinsAgain(t *testing.T) {
	crewed(t, 10, func(t *testing.T, c *crew) {
		a := c.hire(nil)
		c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 10 })
		was, lease := a.Incarnation(), a.lease("s-000")
		if err := c.base.DeclareStopped(t.Context(), was); err != nil {
			t.Fatal(err)
		}
		c.within(10*time.Second, "all claimed again", func() bool { return a.Incarnation() != was && a.runs() == 10 })
		if cause := context.Cause(lease.Context()); !errors.Is(cause, ErrLost) || !errors.Is(cause, state.ErrDead) {
			t.Errorf("cause %v", cause)
		}
		if l := a.lease("s-000"); l.From().Incarnation != was || l.Fence().Owner != a.Incarnation() {
			t.Errorf("from %+v", l.From())
		}
	})
}

// A new incarnation does not begin while a session of the old one still ends.
func TestJoiningAgainWaitsForTheSessions(t *testing.T) {
	crewed(t, 2, func(t *testing.T, c *crew) {
		slow := make(chan struct{})
		var starts atomic.Int32
		var k *Keeper
		k, err := New(Config{Store: c.store, Start: func(l *Lease) {
			if starts.Add(1) > 2 {
				l.Lose(errors.New("enough"))
			}
			go func() {
				<-l.Context().Done()
				<-slow
				_ = l.Release(context.Background())
			}()
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- k.Run(ctx) }()
		c.within(5*time.Second, "claimed", func() bool { return starts.Load() == 2 })
		was := k.Incarnation()
		if err := c.base.DeclareStopped(t.Context(), was); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if k.Incarnation() != was || k.Trusted() {
			t.Error("it went on before its sessions had ended")
		}
		close(slow)
		c.within(2*time.Second, "joined again", func() bool { return k.Incarnation() != was && k.Trusted() })
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A worker whose Run ends says so: others need not wait for T.
func TestTheEndOfRunIsTold(t *testing.T) {
	crewed(t, 10, func(t *testing.T, c *crew) {
		a := c.hire(nil)
		c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 10 })
		b := c.hire(nil)
		time.Sleep(5 * time.Second)
		a.kill()
		c.within(4*time.Second, "taken over", func() bool { return b.runs() == 10 })
	})
}

// With more members than one watches, each is still watched by somebody.
func TestTheRing(t *testing.T) {
	crewed(t, 40, func(t *testing.T, c *crew) {
		type doomed struct {
			*hand
			kill func()
		}
		var all []doomed
		for range 14 {
			h, kill := c.doomed(nil)
			all = append(all, doomed{h, kill})
		}
		total := func() (n int) {
			for _, h := range all {
				n += h.runs()
			}
			return n
		}
		c.within(20*time.Second, "all claimed", func() bool { return total() == 40 })
		time.Sleep(35 * time.Second) // the rosters have been read again
		for _, h := range all {
			h.mu.Lock()
			h.Keeper.mu.Lock()
			n := 0
			for _, p := range h.view.peers {
				if p.watched {
					n++
				}
			}
			h.Keeper.mu.Unlock()
			h.mu.Unlock()
			if n != watchSome {
				t.Errorf("watches %d", n)
			}
		}
		dead := make(map[string]bool)
		for _, h := range all[:4] {
			dead[h.Incarnation()] = true
			h.kill()
		}
		time.Sleep(time.Second)
		// Those of whom all watchers died as well are watched by the next.
		c.within(3*DefaultTakeover, "all running", func() bool { return total() == 40 })
		time.Sleep(5 * time.Second)
		r, err := c.base.Roster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range r.Members {
			if m.Dead != dead[m.Incarnation] {
				t.Errorf("member %s: dead %v", m.Incarnation, m.Dead)
			}
		}
		// A hand-over is noticed though the target does not watch the giver.
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := all[5].Drain(ctx); err != nil {
			t.Error(err)
		}
		c.within(time.Second, "all running", func() bool { return total() == 40 })
		t.Logf("drained among %d in %s", 10, time.Since(begun))
	})
}

// What cannot be prepared is tried again after a growing pause, and holds up
// nobody.
func TestPrepareFails(t *testing.T) {
	crewed(t, 50, func(t *testing.T, c *crew) {
		var tries []time.Time
		a := c.hire(func(cfg *Config) {
			cfg.Prepare = func(ctx context.Context, session string) (any, error) {
				switch session {
				case "s-007":
					c.mu.Lock()
					defer c.mu.Unlock()
					tries = append(tries, time.Now())
					return nil, errors.New("its keys cannot be unwrapped")
				case "s-011":
					<-ctx.Done() // a vault that does not answer
					return nil, ctx.Err()
				}
				return "of " + session, nil
			}
		})
		c.within(5*time.Second, "the others run", func() bool { return a.runs() == 48 })
		if p := a.lease("s-020").Prepared(); p != "of s-020" {
			t.Errorf("prepared %v", p)
		}
		time.Sleep(10 * time.Minute)
		if a.runs() != 48 {
			t.Errorf("%d run", a.runs())
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(tries) < 9 || len(tries) > 18 {
			t.Errorf("%d tries in ten minutes", len(tries))
		}
		for i := 2; i < len(tries); i++ {
			if d := tries[i].Sub(tries[i-1]); d < time.Second || d > 63*time.Second {
				t.Errorf("try %d after %s", i, d)
			}
		}
	})
}

func TestCapacity(t *testing.T) {
	crewed(t, 30, func(t *testing.T, c *crew) {
		a := c.hire(func(cfg *Config) { cfg.Capacity = 8 })
		b := c.hire(func(cfg *Config) { cfg.Capacity = 12 })
		time.Sleep(time.Minute)
		if a.runs() != 8 || b.runs() != 12 {
			t.Errorf("%d and %d", a.runs(), b.runs())
		}
		d := c.hire(nil)
		c.within(20*time.Second, "the rest claimed", func() bool { return d.runs() == 10 })
		// What a drains has a place at d only.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := a.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if b.runs() != 12 || d.runs() != 18 {
			t.Errorf("%d, %d and %d", a.runs(), b.runs(), d.runs())
		}
	})
}

// A new session is claimed at once where somebody points to it.
func TestLook(t *testing.T) {
	crewed(t, 0, func(t *testing.T, c *crew) {
		a, b := c.hire(nil), c.hire(nil)
		time.Sleep(10*time.Second + 100*time.Millisecond)
		c.create(1)
		a.Look("s-000")
		a.Look("nothing")
		c.within(200*time.Millisecond, "running", func() bool { return a.runs() == 1 })
		time.Sleep(10 * time.Second)
		if b.starts.Load() != 0 || a.starts.Load() != 1 {
			t.Errorf("%d and %d starts", a.starts.Load(), b.starts.Load())
		}
	})
}

// Sessions of an owner that nobody remembers are found.
func TestAnOwnerWhomNobodyRemembers(t *testing.T) {
	crewed(t, 3, func(t *testing.T, c *crew) {
		ctx := t.Context()
		forget := func(session, id string) {
			t.Helper()
			if _, err := statetest.Take(ctx, c.base, session, id); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(c.base.DeclareStopped(ctx, id), c.base.Forget(ctx, id)); err != nil {
				t.Fatal(err)
			}
		}
		forget("s-000", "w-before")
		a := c.hire(nil)
		c.within(5*time.Second, "all running", func() bool { return a.runs() == 3 })
		// And later: by pointing to it, or within the hour.
		c.create(2)
		forget("s-003", "w-later")
		forget("s-004", "w-later-still")
		a.Look("s-003")
		c.within(time.Second, "found", func() bool { return a.lease("s-003") != nil })
		c.within(76*time.Minute, "all found", func() bool { return a.runs() == 5 })
	})
}

// Dead members are forgotten after an hour, if they own nothing.
func TestForget(t *testing.T) {
	crewed(t, 1, func(t *testing.T, c *crew) {
		ctx := t.Context()
		for _, id := range []string{"w-1", "w-2"} {
			if _, err := c.base.Join(ctx, id, state.MemberInfo{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := statetest.Take(ctx, c.base, "s-000", "w-2"); err != nil {
			t.Fatal(err)
		}
		c.hire(func(cfg *Config) {
			// It cannot take over what w-2 owns.
			cfg.Prepare = func(context.Context, string) (any, error) { return nil, errors.New("no") }
		})
		time.Sleep(50 * time.Minute)
		if r, _ := c.base.Roster(ctx); len(r.Members) != 3 || !r.Members[0].Dead {
			t.Errorf("%+v", r.Members)
		}
		time.Sleep(15 * time.Minute)
		r, _ := c.base.Roster(ctx)
		if len(r.Members) != 2 || r.Members[0].Incarnation != "w-2" {
			t.Errorf("%+v", r.Members)
		}
	})
}

// A tool takes nothing by itself, counts for no share, and runs what it is given.
func TestATool(t *testing.T) {
	crewed(t, 4, func(t *testing.T, c *crew) {
		tool := c.hire(func(cfg *Config) { cfg.Info.Tool = true })
		time.Sleep(time.Minute)
		if tool.starts.Load() != 0 {
			t.Errorf("it took %d", tool.starts.Load())
		}
		a := c.hire(nil)
		c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 4 })
		l := a.lease("s-002")
		l.recall(tool.Incarnation())
		c.within(20*time.Second, "given to the tool", func() bool { return tool.runs() == 1 })
		if a.runs() != 3 {
			t.Errorf("%d", a.runs())
		}
		if err := tool.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.within(5*time.Second, "claimed back", func() bool { return a.runs() == 4 })
	})
}

// Claims, renewals and hand-overs of a worker are never under way side by side,
// and a claim takes up to 25; of a batch of which one is gone, the others are
// claimed all the same.
func TestTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := memory.New(time.Now)
		q := &queueStore{Store: statetest.Delay(base, 10*time.Millisecond)}
		c := &crew{t: t, base: base, store: statetest.Fault(q), ended: make(map[string]time.Time), holders: make(map[string]int)}
		c.create(200)
		// While the first are claimed, others go to somebody else.
		if _, err := base.Join(t.Context(), "w-other", state.MemberInfo{}); err != nil {
			t.Fatal(err)
		}
		q.before = func(n int) {
			if n == 3 {
				for i := 100; i < 110; i++ {
					o, err := base.Owner(t.Context(), fmt.Sprintf("s-%03d", i))
					if err == nil && o.Incarnation == "" {
						_, err = base.Claim(t.Context(), "w-other", o)
					}
					if err != nil {
						t.Error(err)
					}
				}
			}
			if err := base.Beat(t.Context(), "w-other", state.Load{}); err != nil {
				t.Error(err)
			}
		}
		a := c.hire(nil)
		c.within(8*time.Second, "all but a few", func() bool { return a.runs() >= 190 })
		if l := a.lease("s-000"); l != nil {
			for range 5 {
				go func() { _ = l.Renew(t.Context()) }()
			}
		}
		d := c.hire(nil)
		time.Sleep(3 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := a.Drain(ctx); err != nil {
			t.Error(err)
		}
		_ = d
		if q.most.Load() > 2 { // one of each worker
			t.Errorf("%d at a time", q.most.Load())
		}
		if q.largest.Load() != state.MaxClaims || q.calls.Load() < 8 {
			t.Errorf("%d claims, the largest of %d", q.calls.Load(), q.largest.Load())
		}
	})
}

// queueStore sees how many transactions that check a LIFE item are under way.
type queueStore struct {
	state.Store
	before                       func(n int)
	calls, now, most, largest, _ atomic.Int64
}

func (q *queueStore) enter(n int) func() {
	if now := q.now.Add(1); now > q.most.Load() {
		q.most.Store(now)
	}
	if int64(n) > q.largest.Load() {
		q.largest.Store(int64(n))
	}
	return func() { q.now.Add(-1) }
}

func (q *queueStore) Claim(ctx context.Context, to string, from ...state.Owner) ([]state.Owner, error) {
	defer q.enter(len(from))()
	q.before(int(q.calls.Add(1)))
	return q.Store.Claim(ctx, to, from...)
}

func (q *queueStore) HandOver(ctx context.Context, f state.Fence, to string) (state.Owner, error) {
	defer q.enter(1)()
	return q.Store.HandOver(ctx, f, to)
}

// What a worker asks of the store in an hour in which nothing happens does not
// grow with its sessions, but for the listing of its own.
func TestIdleRequests(t *testing.T) {
	for _, n := range []int{1, 1000} {
		t.Run(fmt.Sprint(n, " sessions"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := memory.New(time.Now)
				counting := statetest.Counting(base)
				c := &crew{t: t, base: base, store: statetest.Fault(counting), ended: make(map[string]time.Time), holders: make(map[string]int)}
				c.create(n)
				a := c.hire(nil)
				c.within(20*time.Second, "all claimed", func() bool { return a.runs() == n })
				time.Sleep(5 * time.Minute)
				counting.Reset()
				time.Sleep(time.Hour)
				for _, want := range []struct {
					method statetest.Method
					most   int
				}{
					{statetest.Beat, 1800}, {statetest.Watch, 1800}, {statetest.Roster, 130}, {statetest.OwnedBy, 1800 + 720},
					{statetest.Sessions, 2*n/listPage + 2}, {statetest.Query, 0}, {statetest.Update, 0}, {statetest.Claim, 0}, {statetest.OwnerOf, 0},
				} {
					got := counting.Count(want.method)
					t.Logf("%d %s an hour", got, want.method)
					if got > want.most+10 {
						t.Errorf("%d %s, at most %d are due", got, want.method, want.most)
					}
				}
			})
		})
	}
}

// A worker whose beats arrive and are never answered runs nothing, and must not
// keep itself alive with them: the others take its sessions over.
func TestAWorkerThatGetsNoAnswers(t *testing.T) {
	crewed(t, 10, func(t *testing.T, c *crew) {
		own := statetest.Fault(statetest.Delay(c.base, 5*time.Millisecond))
		a := c.hire(func(cfg *Config) { cfg.Store = own })
		c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 10 })
		b := c.hire(nil)
		time.Sleep(10 * time.Second)
		own.FailAfter(nil, -1, state.ErrUnavailable)
		c.within(DefaultTrust+DefaultTakeover+2*DefaultPoll, "all taken over", func() bool { return b.runs() == 10 })
		own.Heal()
		time.Sleep(time.Minute)
		if n := a.runs() + b.runs(); n != 10 {
			t.Errorf("%d sessions run after it", n)
		}
	})
}
