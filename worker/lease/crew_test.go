package lease

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// crew are workers over one store in a bubble, whose sessions take 20 ms to close
// and nothing else: for tests of one thing at a time.
type crew struct {
	t     *testing.T
	base  *memory.Store
	store *statetest.FaultStore

	mu      sync.Mutex
	ended   map[string]time.Time // when a session last ended
	gaps    []time.Duration      // from an end to the next start
	holders map[string]int       // how many run a session at present
}

// crewed runs a test with a crew.
func crewed(t *testing.T, sessions int, test func(t *testing.T, c *crew)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		base := memory.New(time.Now)
		c := &crew{t: t, base: base, store: statetest.Fault(statetest.Delay(base, 5*time.Millisecond)), ended: make(map[string]time.Time), holders: make(map[string]int)}
		c.create(sessions)
		test(t, c)
	})
}

func (c *crew) create(n int) {
	c.t.Helper()
	have, err := c.base.Sessions(c.t.Context(), "", 0)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range n {
		if err := c.base.CreateSession(c.t.Context(), fmt.Sprintf("s-%03d", len(have)+i), nil); err != nil {
			c.t.Fatal(err)
		}
	}
}

// hand is one of the crew.
type hand struct {
	*Keeper
	c    *crew
	kill context.CancelFunc // ends Run
	gone chan error         // what Run returned

	mu     sync.Mutex
	leases map[string]*Lease
	starts atomic.Int32
}

// hire starts a worker, with what set changes.
func (c *crew) hire(set func(*Config)) *hand {
	c.t.Helper()
	h := &hand{c: c, leases: make(map[string]*Lease), gone: make(chan error, 1)}
	cfg := Config{Store: c.store, Start: h.start, Info: state.MemberInfo{Deployment: "r1"}}
	if set != nil {
		set(&cfg)
	}
	k, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	h.Keeper = k
	ctx, kill := context.WithCancel(context.Background())
	h.kill = kill
	go func() { h.gone <- k.Run(ctx) }()
	c.t.Cleanup(func() {
		kill()
		if err := <-h.gone; err != nil {
			c.t.Error(err)
		}
	})
	return h
}

func (h *hand) start(l *Lease) {
	c := h.c
	c.mu.Lock()
	if at, ok := c.ended[l.Session()]; ok {
		c.gaps = append(c.gaps, time.Since(at))
	}
	c.holders[l.Session()]++
	if c.holders[l.Session()] > 1 {
		c.t.Errorf("%s runs twice", l.Session())
	}
	c.mu.Unlock()
	h.mu.Lock()
	h.leases[l.Session()] = l
	h.starts.Add(1)
	h.mu.Unlock()
	over := sync.OnceFunc(func() {
		c.mu.Lock()
		c.holders[l.Session()]--
		c.ended[l.Session()] = time.Now()
		c.mu.Unlock()
	})
	l.OnLoss(over)
	go func() {
		<-l.Context().Done()
		time.Sleep(20 * time.Millisecond)
		over()
		h.mu.Lock()
		if h.leases[l.Session()] == l {
			delete(h.leases, l.Session())
		}
		h.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = l.Release(ctx) // what a store that fails does not take is found again
	}()
}

// runs is how many sessions the worker runs.
func (h *hand) runs() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.leases)
}

func (h *hand) all() map[string]*Lease {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.leases)
}

func (h *hand) lease(session string) *Lease {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.leases[session]
}

// within waits until something holds, in virtual time.
func (c *crew) within(d time.Duration, what string, holds func() bool) {
	c.t.Helper()
	for begun := time.Now(); !holds(); {
		if time.Since(begun) > d {
			c.t.Fatalf("after %s: not %s", d, what)
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
	}
}

// callOf is a call of the store, as faults see it.
type callOf = statetest.Call
