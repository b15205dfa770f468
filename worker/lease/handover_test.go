package lease

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// A worker that drains gives its sessions to others that have prepared them, so
// that each is away for little longer than it takes to close.
func TestDrainHandsOver(t *testing.T) {
	crewed(t, 200, func(t *testing.T, c *crew) {
		a := c.hire(nil)
		c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 200 })
		b := c.hire(nil)
		d := c.hire(nil)
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		begun := time.Now()
		if err := a.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		took := time.Since(begun)
		c.within(time.Second, "all running", func() bool { return b.runs()+d.runs() == 200 })
		if a.runs() != 0 || b.runs() < 80 || d.runs() < 80 {
			t.Errorf("%d, %d and %d sessions", a.runs(), b.runs(), d.runs())
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		slices.Sort(c.gaps)
		t.Logf("200 sessions given in %s; away for %s at the median, %s at most", took, c.gaps[100], c.gaps[len(c.gaps)-1])
		if len(c.gaps) != 200 || c.gaps[199] > 500*time.Millisecond {
			t.Errorf("%d hand-overs, the longest took %s", len(c.gaps), c.gaps[len(c.gaps)-1])
		}
		for _, h := range []*hand{b, d} {
			for name, l := range h.all() {
				if l.From().Incarnation != a.Incarnation() || l.From().Session != name {
					t.Errorf("%s came from %+v", name, l.From())
				}
			}
		}
		if notes := c.notes(); len(notes) != 0 {
			time.Sleep(time.Second)
			if notes = c.notes(); len(notes) != 0 {
				t.Errorf("notes are left: %v", notes)
			}
		}
	})
}

// notes lists what is written of hand-overs.
func (c *crew) notes() []string {
	page, err := c.base.Query(c.t.Context(), state.Fleet, state.Query{Kind: state.KindFleet})
	if err != nil {
		c.t.Fatal(err)
	}
	var ids []string
	for _, r := range page.Records {
		ids = append(ids, r.Key.ID)
	}
	return ids
}

func TestDrainAloneReleases(t *testing.T) {
	crewed(t, 30, func(t *testing.T, c *crew) {
		a := c.hire(nil)
		c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 30 })
		begun := time.Now()
		if err := a.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("took %s", took)
		}
		free, err := c.base.OwnedBy(t.Context(), "", "", 0)
		if err != nil || len(free) != 30 {
			t.Errorf("%d are nobody's: %v", len(free), err)
		}
		time.Sleep(time.Minute)
		if a.starts.Load() != 30 {
			t.Errorf("a worker that has drained claims: %d starts", a.starts.Load())
		}
	})
}

// A target that never gets ready loses its offers to another.
func TestATargetThatDoesNotGetReadyIsPassedOver(t *testing.T) {
	crewed(t, 10, func(t *testing.T, c *crew) {
		a := c.hire(nil)
		c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 10 })
		stuck := c.hire(func(cfg *Config) { cfg.Turn = func(string) time.Duration { return time.Hour } })
		broken := c.hire(func(cfg *Config) {
			cfg.Prepare = func(context.Context, string) (any, error) { return nil, errors.New("no vault") }
		})
		good := c.hire(nil)
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		if err := a.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		c.within(time.Second, "all running", func() bool { return good.runs() == 10 })
		if stuck.runs() != 0 || broken.runs() != 0 {
			t.Errorf("%d %d", stuck.runs(), broken.runs())
		}
	})
}

// Where nobody gets ready, the deadline has the sessions released to nobody.
func TestADrainEndsBeforeItsDeadline(t *testing.T) {
	crewed(t, 10, func(t *testing.T, c *crew) {
		a := c.hire(nil)
		c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 10 })
		c.hire(func(cfg *Config) { cfg.Turn = func(string) time.Duration { return time.Hour } })
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		begun := time.Now()
		if err := a.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < 20*time.Second || took > 28*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// A target that dies after it got ready does not keep a session from going to
// nobody, and from there to who lives.
func TestATargetThatDiesInTheMiddle(t *testing.T) {
	crewed(t, 8, func(t *testing.T, c *crew) {
		a := c.hire(nil)
		c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 8 })
		b := c.hire(nil)
		time.Sleep(5 * time.Second)
		// At the moment of the first hand-over it is declared dead by its platform.
		c.store.FailBefore(func(call callOf) bool {
			if call.Method == "HandOver" {
				_ = c.base.DeclareStopped(context.Background(), b.Incarnation())
			}
			return false
		}, 1, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		if err := a.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		c.within(30*time.Second, "all taken by the new incarnation", func() bool { return b.runs() == 8 })
	})
}

// The answer to a hand-over that happened is lost: it is not done twice, and the
// session runs at its target.
func TestAHandOverWhoseAnswerIsLost(t *testing.T) {
	for _, lose := range []string{"HandOver", "Update", "Query", "Release", "OwnedBy"} {
		t.Run(lose, func(t *testing.T) {
			crewed(t, 20, func(t *testing.T, c *crew) {
				a := c.hire(nil)
				c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 20 })
				b := c.hire(nil)
				time.Sleep(5 * time.Second)
				n := 0
				c.store.FailAfter(func(call callOf) bool {
					if string(call.Method) != lose {
						return false
					}
					n++
					return n%3 == 1
				}, 10, nil)
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				defer cancel()
				if err := a.Drain(ctx); err != nil {
					t.Fatal(err)
				}
				c.within(20*time.Second, "all running", func() bool { return b.runs() == 20 })
				if n == 0 && lose != "Release" {
					t.Error("the fault never struck")
				}
			})
		})
	}
}

// An operator's wish empties a worker, which stays idle until it is taken back.
func TestAnOperatorsWish(t *testing.T) {
	crewed(t, 20, func(t *testing.T, c *crew) {
		a := c.hire(nil)
		c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 20 })
		b := c.hire(nil)
		time.Sleep(5 * time.Second)
		if err := c.base.Drain(t.Context(), a.Incarnation(), true); err != nil {
			t.Fatal(err)
		}
		c.within(30*time.Second, "emptied", func() bool { return a.runs() == 0 && b.runs() == 20 })
		c.create(4)
		c.within(10*time.Second, "claimed by the other", func() bool { return b.runs() == 24 })
		r, err := c.base.Roster(t.Context())
		if err != nil || !r.Members[0].Load.Draining || r.Members[0].Load.Giving {
			t.Errorf("its load says %+v: %v", r.Members[0].Load, err)
		}
		if err := c.base.Drain(t.Context(), a.Incarnation(), false); err != nil {
			t.Fatal(err)
		}
		c.within(2*time.Minute, "balanced", func() bool { return a.runs() >= 11 && a.runs()+b.runs() == 24 })
	})
}

// A worker with far more than its share gives some away, one by one, once the
// roster has been quiet; and then all is quiet.
func TestBalance(t *testing.T) {
	crewed(t, 60, func(t *testing.T, c *crew) {
		settle := func(cfg *Config) { cfg.Settle = 20 * time.Second }
		a := c.hire(settle)
		c.within(5*time.Second, "all claimed", func() bool { return a.runs() == 60 })
		b, d := c.hire(settle), c.hire(settle)
		time.Sleep(19 * time.Second)
		if b.runs()+d.runs() != 0 {
			t.Errorf("%d sessions moved before the roster had settled", b.runs()+d.runs())
		}
		c.within(3*time.Minute, "balanced", func() bool { return a.runs() <= 20 && a.runs()+b.runs()+d.runs() == 60 })
		starts := a.starts.Load() + b.starts.Load() + d.starts.Load()
		t.Logf("%d, %d and %d sessions after %d moves", a.runs(), b.runs(), d.runs(), starts-60)
		if b.runs() < 18 || d.runs() < 18 {
			t.Errorf("%d, %d and %d sessions", a.runs(), b.runs(), d.runs())
		}
		time.Sleep(5 * time.Minute)
		if again := a.starts.Load() + b.starts.Load() + d.starts.Load(); again != starts {
			t.Errorf("%d more moves afterwards", again-starts)
		}
	})
}

// Of two deployments the one that joined last receives.
func TestTheNewestDeploymentReceives(t *testing.T) {
	crewed(t, 40, func(t *testing.T, c *crew) {
		of := func(d string) func(*Config) { return func(cfg *Config) { cfg.Info.Deployment = d } }
		a, b := c.hire(of("r1")), c.hire(of("r1"))
		c.within(10*time.Second, "all claimed", func() bool { return a.runs()+b.runs() == 40 })
		d := c.hire(of("r2"))
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		inB := b.runs()
		if err := a.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		c.within(time.Second, "all running", func() bool { return b.runs()+d.runs() == 40 })
		if b.runs() != inB {
			t.Errorf("the old deployment was given %d sessions", b.runs()-inB)
		}
		c.create(10)
		c.within(10*time.Second, "claimed", func() bool { return b.runs()+d.runs() == 50 })
		if b.runs() != inB {
			t.Errorf("the old deployment claimed %d sessions", b.runs()-inB)
		}
		// The new one goes: then the old one is better than nobody.
		d.kill()
		c.within(30*time.Second, "taken by the old one", func() bool { return b.runs() == 50 })
	})
}
