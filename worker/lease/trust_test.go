package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// handClock is moved by hand.
type handClock struct {
	mu   sync.Mutex
	mono time.Time
	boot time.Duration
}

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mono
}

func (c *handClock) Boot() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boot
}

func (c *handClock) Wait(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	return hostClock{}.Wait(ctx, d, wake)
}

func (c *handClock) pass(mono, boot time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mono, c.boot = c.mono.Add(mono), c.boot+boot
}

func TestTrust(t *testing.T) {
	c := &handClock{mono: time.Unix(1000, 0), boot: time.Hour}
	tr := newTrust(c, 8*time.Second, stampOf(c))
	left := func(want time.Duration) {
		t.Helper()
		if got := tr.left(); got != want {
			t.Errorf("%s left, not %s", got, want)
		}
	}
	left(8 * time.Second)
	c.pass(3*time.Second, 3*time.Second)
	left(5 * time.Second)
	sent := stampOf(c)
	c.pass(time.Second, time.Second)
	tr.renew(sent) // counted from the send
	left(7 * time.Second)
	// The machine is suspended: the monotonic clock does not see it.
	c.pass(0, 6*time.Second)
	left(time.Second)
	c.pass(0, time.Hour)
	left(0)
	tr.renew(sent) // an old answer gives nothing back
	left(0)
	tr.renew(stampOf(c))
	left(8 * time.Second)
	// A clock of which only the monotonic half moves counts as well.
	c.pass(8*time.Second, 0)
	left(0)
	tr.renew(stampOf(c))
	tr.end()
	tr.renew(stampOf(c))
	left(0)
}

// The host's clocks move, and do not go back.
func TestHostClock(t *testing.T) {
	c := hostClock{}
	before := stampOf(c)
	if err := c.Wait(t.Context(), 20*time.Millisecond, nil); err != nil {
		t.Fatal(err)
	}
	after := stampOf(c)
	if after.boot-before.boot < 15*time.Millisecond || after.mono.Sub(before.mono) < 15*time.Millisecond {
		t.Errorf("%v then %v", before, after)
	}
	b := newBell()
	b.ring()
	b.ring()
	if err := c.Wait(t.Context(), time.Hour, b); err != nil {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if c.Wait(ended, time.Hour, nil) == nil {
		t.Error("waits though its context has ended")
	}
}

// Trust ends at F after the last beat that was answered was sent, to the
// millisecond, and comes back; what ran is taken up again under a higher epoch.
func TestTheFence(t *testing.T) {
	crewed(t, 3, func(t *testing.T, c *crew) {
		fenced := make(chan time.Time, 1)
		a := c.hire(func(cfg *Config) { cfg.Observe.Fenced = func(int) { fenced <- time.Now() } })
		c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 3 })
		epochs := make(map[string]uint64)
		for name, l := range a.all() {
			epochs[name] = l.Fence().Epoch
		}
		lease := a.lease("s-000")
		c.store.FailBefore(func(call callOf) bool { return call.Method == "Beat" }, -1, nil)
		until := time.Now().Add(a.TrustLeft())
		at := <-fenced
		if d := at.Sub(until); d < 0 || d > time.Millisecond {
			t.Errorf("fenced %s after trust was over", d)
		}
		if a.Trusted() || lease.Trusted() || a.TrustLeft() != 0 {
			t.Error("trusted without trust")
		}
		if err := lease.Renew(t.Context()); err == nil {
			t.Error("what was lost is renewed")
		}
		time.Sleep(time.Second)
		if a.runs() != 0 {
			t.Errorf("%d sessions run on", a.runs())
		}
		c.store.Heal()
		c.within(5*time.Second, "all running again", func() bool { return a.runs() == 3 })
		for name, l := range a.all() {
			if l.Fence().Epoch <= epochs[name] {
				t.Errorf("%s at epoch %d after %d", name, l.Fence().Epoch, epochs[name])
			}
			if l.From().Incarnation != a.Incarnation() {
				t.Errorf("%s came from %+v", name, l.From())
			}
		}
	})
}

// fenceOf makes a Keeper with n leases that nobody else knows of.
func fenceOf(t *testing.T, n int, cut func(l *Lease)) (*Keeper, *life) {
	t.Helper()
	k := newKeeper(mustFill(t, Config{Store: newStore(t), Start: func(*Lease) {}}))
	l := k.born(context.Background(), "w-1", stampOf(k.clock))
	for i := range n {
		o := state.Owner{Session: fmt.Sprint("s-", i), Incarnation: "w-1", Epoch: 2}
		lease := newLease(l.leases, k.cfg.Store, k.clock, o, o)
		lease.keeper, lease.life = k, l
		lease.OnLoss(func() { cut(lease) })
		k.held[o.Session] = lease
	}
	return k, l
}

// All connections are cut before any context ends; with cuts that hang, the
// contexts end all the same after 100 ms.
func TestTheFenceCutsFirst(t *testing.T) {
	for _, tt := range []struct {
		name        string
		takes, most time.Duration
	}{{"cuts that work", time.Millisecond, 20 * time.Millisecond}, {"cuts that hang", 20 * time.Second, 100 * time.Millisecond}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var cuts, early atomic.Int32
				k, l := fenceOf(t, 1000, func(lease *Lease) {
					time.Sleep(tt.takes)
					cuts.Add(1)
					if lease.Context().Err() != nil {
						early.Add(1)
					}
				})
				defer l.cancel(nil)
				begun := time.Now()
				if n := k.fence(l, errNoTrust); n != 1000 {
					t.Errorf("%d cut", n)
				}
				if took := time.Since(begun); took > tt.most {
					t.Errorf("the fence took %s", took)
				}
				for _, lease := range k.leases() {
					if !errors.Is(context.Cause(lease.Context()), ErrLost) {
						t.Fatalf("%s: %v", lease.Session(), context.Cause(lease.Context()))
					}
				}
				if tt.most < 100*time.Millisecond && (early.Load() > 0 || cuts.Load() != 1000) {
					t.Errorf("%d cuts, %d of them after their context had ended", cuts.Load(), early.Load())
				}
				time.Sleep(10 * time.Minute) // the others end some time
			})
		})
	}
}

// A thousand leases are taken away within 100 ms of this machine.
func TestTheFenceIsQuick(t *testing.T) {
	best := time.Hour
	for range 5 {
		k, l := fenceOf(t, 1000, func(*Lease) {})
		begun := time.Now()
		k.fence(l, errNoTrust)
		best = min(best, time.Since(begun))
		l.cancel(nil)
	}
	t.Logf("the fence of 1,000 took %s", best)
	if best > 100*time.Millisecond {
		t.Error("that is too long")
	}
}

func mustFill(t *testing.T, cfg Config) Config {
	t.Helper()
	cfg, err := cfg.filled()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// A whole outage of the store ends with everybody alive: who could not look and
// was not trusted declares nobody dead.
func TestAfterAnOutageNobodyIsDeclaredDead(t *testing.T) {
	for _, method := range []string{"all", "Beat"} {
		t.Run(method, func(t *testing.T) {
			crewed(t, 12, func(t *testing.T, c *crew) {
				var died atomic.Int32
				set := func(cfg *Config) { cfg.Observe.Died = func(string) { died.Add(1) } }
				hands := []*hand{c.hire(set), c.hire(set), c.hire(set)}
				total := func() (n int) {
					for _, h := range hands {
						n += h.runs()
					}
					return n
				}
				c.within(10*time.Second, "all claimed", func() bool { return total() == 12 })
				c.store.FailBefore(func(call callOf) bool { return method == "all" || string(call.Method) == method }, -1, nil)
				time.Sleep(time.Minute)
				if total() != 0 {
					t.Errorf("%d sessions run without trust", total())
				}
				c.store.Heal()
				c.within(10*time.Second, "all running again", func() bool { return total() == 12 })
				if n := died.Load(); n != 0 {
					t.Errorf("%d declared dead", n)
				}
			})
		})
	}
}
