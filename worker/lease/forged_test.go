package lease

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// A hint that a worker's process has ended, and that is not true, costs a
// reconnect: the worker cannot write from the next owner's claim on, and lets go
// with its next heartbeat.
func TestAForgedHint(t *testing.T) {
	crewed(t, 5, func(t *testing.T, c *crew) {
		var mu sync.Mutex
		held := map[string]*Lease{} // of the first incarnation
		var first string
		a := c.hire(func(cfg *Config) {
			cfg.Start = func(l *Lease) {
				mu.Lock()
				defer mu.Unlock()
				if first == "" || l.Fence().Owner == first {
					first = l.Fence().Owner
					held[l.Session()] = l
				}
				go func() {
					<-l.Context().Done()
					_ = l.Release(context.WithoutCancel(l.Context())) // of no use to one that lost it
				}()
			}
		})
		c.within(5*time.Second, "all claimed", func() bool { mu.Lock(); defer mu.Unlock(); return len(held) == 5 })
		b := c.hire(nil)
		time.Sleep(5 * time.Second)
		if err := c.base.DeclareStopped(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		forged := time.Now()
		c.within(10*time.Second, "taken over", func() bool {
			for name := range held {
				if o, err := c.base.Owner(t.Context(), name); err != nil || o.Incarnation == first {
					return false
				}
			}
			return true
		})
		for name, l := range held {
			err := c.base.Commit(t.Context(), l.Fence(), "", []state.Write{state.Put(state.KindQR, "", []byte("{}"))})
			if !errors.Is(err, state.ErrFenced) {
				t.Errorf("%s: the worker that lost it could write: %v", name, err)
			}
		}
		c.within(4*time.Second, "let go", func() bool {
			for _, l := range held {
				if l.Context().Err() == nil || l.Trusted() {
					return false
				}
			}
			return true
		})
		for name, l := range held {
			if cause := context.Cause(l.Context()); !errors.Is(cause, ErrLost) {
				t.Errorf("%s: cause %v", name, cause)
			}
		}
		if took := time.Since(forged); took > 6*time.Second {
			t.Errorf("two workers had a session for as long as %s", took)
		}
		if a.Incarnation() == first || b.runs() == 0 {
			t.Errorf("the worker goes on as %s, the other has %d sessions", a.Incarnation(), b.runs())
		}
	})
}
