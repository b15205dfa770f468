package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// dice are random numbers of one seed that several goroutines may draw.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func newDice(seed, stream uint64) *dice { return &dice{r: rand.New(rand.NewPCG(seed, stream))} }

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// chance is true so many times in a hundred.
func (d *dice) chance(percent int) bool { return percent > 0 && d.n(100) < percent }

// between is a time from a to b.
func (d *dice) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(d.n(int((b-a)/time.Microsecond)))*time.Microsecond
}

// node is one process: a Keeper with a clock, a way to the store and sessions of
// its own, that can be frozen, suspended, cut off and killed.
type node struct {
	w      *world
	name   string
	dice   *dice
	keeper *Keeper
	view   *way
	stop   context.CancelFunc
	ended  chan struct{} // Run has returned
	ctx    context.Context

	// The clock: rate of the world's, from an offset on.
	rate   float64
	offset time.Duration
	begun  time.Time

	mu        sync.Mutex
	thaw      chan struct{} // closed when the process goes on; nil: it runs
	frozenAt  time.Time
	suspended time.Duration // for how long the monotonic clock has stood still, all in all
	asleep    bool          // it is frozen by a suspension
	thawedAt  time.Time
	wasAsleep bool // the last freeze was a suspension
	crashed   bool

	leaving  atomic.Bool // it drains for good
	prepFail atomic.Bool
	running  sync.Map // session → *actor
}

// pass holds up whoever belongs to a process that is frozen.
func (n *node) pass() {
	for {
		n.mu.Lock()
		thaw := n.thaw
		n.mu.Unlock()
		if thaw == nil {
			return
		}
		<-thaw
	}
}

func (n *node) freeze(suspend bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.thaw == nil && !n.crashed {
		n.thaw, n.frozenAt, n.asleep = make(chan struct{}), time.Now(), suspend
	}
}

func (n *node) goOn() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.thaw == nil {
		return
	}
	if n.asleep {
		n.suspended += time.Since(n.frozenAt)
	}
	n.thawedAt, n.wasAsleep, n.asleep = time.Now(), n.asleep, false
	close(n.thaw)
	n.thaw = nil
}

func (n *node) dead() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.crashed
}

// excused says that the process cannot know yet, at this moment, what time it is:
// it is frozen, or has just begun to go on.
func (n *node) excused() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.thaw != nil {
		return true
	}
	grace := time.Duration(0)
	if n.wasAsleep {
		grace = time.Duration(float64(n.keeper.pace.suspend) / n.rate * 1.01)
	}
	return !n.thawedAt.IsZero() && time.Since(n.thawedAt) <= grace
}

// Now implements Clock: a clock of its own rate, which stands still while the
// machine is suspended.
func (n *node) Now() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.begun.Add(n.offset + time.Duration(n.rate*float64(time.Since(n.begun)-n.still())))
}

// still is how long the monotonic clock has stood still until now.
func (n *node) still() time.Duration {
	if n.thaw != nil && n.asleep {
		return n.suspended + time.Since(n.frozenAt)
	}
	return n.suspended
}

// Boot implements Clock.
func (n *node) Boot() time.Duration {
	if n.w.plan.noBoot {
		return n.Now().Sub(n.begun)
	}
	return n.offset/2 + time.Duration(n.rate*float64(time.Since(n.begun)))
}

// Wait implements Clock.
func (n *node) Wait(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	until := n.Now().Add(d)
	for {
		woken := false
		t := time.NewTimer(time.Duration(float64(until.Sub(n.Now()))/n.rate) + 1)
		select {
		case <-t.C:
		case <-wake:
			woken = true
		case <-ctx.Done():
		}
		t.Stop()
		n.pass()
		if err := ctx.Err(); err != nil {
			return err
		}
		if woken || !n.Now().Before(until) {
			return nil
		}
	}
}

// sleep is a pause of a session. It is false when ctx ended or the line was cut.
func (n *node) sleep(ctx context.Context, d time.Duration, cut <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	ok := true
	select {
	case <-t.C:
	case <-cut:
		ok = false
	case <-ctx.Done():
		ok = false
	}
	n.pass()
	return ok
}

// launch starts a process.
func (w *world) launch(deployment string, capacity int) *node {
	w.nodes++
	n := &node{w: w, name: fmt.Sprintf("n%d", w.nodes), dice: newDice(w.seed, uint64(w.nodes)), begun: time.Now(), ended: make(chan struct{}), rate: 1}
	if !w.plan.evenClocks {
		n.rate = 1 + float64(n.dice.n(161)-80)/1000
		n.offset = n.dice.between(0, time.Hour)
	}
	n.view = &way{Store: w.audit, n: n}
	cfg := Config{
		Store: n.view, Clock: n, Info: state.MemberInfo{Deployment: deployment, Host: n.name}, Capacity: capacity, Log: w.log(n),
		Heartbeat: w.plan.h, Takeover: w.plan.t,
		Prepare: n.prepare, Start: n.start,
		Turn: func(string) time.Duration {
			if n.dice.chance(20) {
				return 200 * time.Millisecond
			}
			return 0
		},
		Observe: Observer{
			Died: func(string) { w.count("declared dead") },
			Taken: func(_ string, dead bool, _ time.Duration) {
				w.count(map[bool]string{true: "taken over", false: "claimed"}[dead])
			},
			Fenced: func(int) { w.count("fenced") },
			Given: func(_, to string) {
				if to != "" {
					w.count("handed over")
				} else {
					w.count("released")
				}
			},
		},
	}
	cfg, err := cfg.filled()
	if err != nil {
		panic(err)
	}
	cfg.Trust = w.plan.f // which New would not let come near to Takeover
	n.keeper = newKeeper(cfg)
	n.keeper.pace.suspend = w.plan.suspend
	n.keeper.pace.closing = 100 * time.Millisecond
	n.keeper.cfg.Settle = w.plan.settle
	lives := 0
	n.keeper.newID = func() string {
		lives++
		if lives > 1 {
			w.count("joined again")
		}
		return fmt.Sprintf("w-%s-%d", n.name, lives)
	}
	if w.plan.careless != nil {
		w.plan.careless(n.keeper)
	}
	n.ctx, n.stop = context.WithCancel(context.Background())
	w.mu.Lock()
	w.all = append(w.all, n)
	w.mu.Unlock()
	go func() {
		defer close(n.ended)
		if err := n.keeper.Run(n.ctx); err != nil && !n.dead() {
			w.violate("end", "%s: %v", n.name, err)
		}
	}()
	return n
}

// crash kills the process: what it has sent may still arrive, and its sockets
// are closed by its host.
func (n *node) crash() {
	n.mu.Lock()
	n.crashed = true
	n.mu.Unlock()
	n.w.server.closeAll(n)
	n.goOn()
	n.stop()
}

func (n *node) prepare(ctx context.Context, session string) (any, error) {
	if !n.sleep(ctx, n.dice.between(time.Millisecond, 20*time.Millisecond), nil) {
		return nil, ctx.Err()
	}
	if n.prepFail.Load() {
		return nil, errors.New("the vault does not answer")
	}
	return session, nil
}

// start runs a session as an actor does.
func (n *node) start(l *Lease) {
	a := &actor{n: n, l: l}
	if was, twice := n.running.Swap(l.Session(), a); twice {
		n.w.violate("I1", "%s starts %s, which still runs there as %s", n.name, l.Session(), was.(*actor).l.Fence())
	}
	if p := l.Prepared(); p != nil && p != l.Session() {
		n.w.violate("prepare", "%s was prepared with %v", l.Session(), p)
	}
	go a.run()
}

// actor is a session at a node. Its counter stands for a ratchet: it is read
// when the session begins, raised with each commit, and then shown to the server.
type actor struct {
	n *node
	l *Lease

	mu   sync.Mutex
	sock *socket
	shut bool
}

var counterKey = state.Key{Kind: state.KindSignal, ID: "ratchet"}

// cut closes the connection at once.
func (a *actor) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.shut = true
	a.n.w.server.close(a.sock)
}

// connect opens a connection, if the lease is trusted at this moment.
func (a *actor) connect() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shut || a.n.dead() || !a.l.Trusted() {
		return false
	}
	a.sock = a.n.w.server.connect(a.l.Session(), a.n, a.l.Fence())
	return true
}

func (a *actor) run() {
	n, l := a.n, a.l
	ctx := l.Context()
	defer func() {
		n.running.CompareAndDelete(l.Session(), a)
		a.end()
	}()
	l.OnLoss(a.cut)
	var counter uint64
	known := false
	for failed := time.Duration(0); ctx.Err() == nil; {
		if failed > 0 && !n.sleep(ctx, failed, nil) {
			return
		}
		failed = 500 * time.Millisecond
		if !known {
			try, cancel := context.WithTimeout(ctx, 3*time.Second)
			r, err := n.view.Get(try, state.OfSession(l.Session()), counterKey)
			cancel()
			if err != nil && !errors.Is(err, state.ErrNotFound) {
				continue
			}
			counter, known = r.Rev, true
		}
		if a.sock == nil || a.sock.gone() {
			if a.sock != nil && a.sock.kicked() {
				mine, err := l.Mine(ctx)
				if err != nil {
					continue
				}
				if !mine {
					l.Lose(state.ErrFenced)
					return
				}
			}
			if !a.connect() {
				continue
			}
		}
		// Some have nothing to say for so long that they do not notice the store.
		quiet := n.dice.between(500*time.Millisecond, 4*time.Second)
		if n.w.plan.chatty {
			quiet = n.dice.between(50*time.Millisecond, 500*time.Millisecond)
		} else if n.dice.chance(30) {
			quiet = n.dice.between(10*time.Second, 40*time.Second)
		}
		if !n.sleep(ctx, quiet, a.sock.closed) {
			continue
		}
		sock := a.sock
		err := a.commit(ctx, counter+1)
		switch {
		case err == nil:
			counter++
			n.w.server.send(sock, counter)
			failed = 0
		case errors.Is(err, state.ErrFenced):
			l.Lose(err)
			return
		default:
			n.w.server.close(a.sock)
			known = false
			failed = 0
		}
		if !known {
			// With the epoch raised, the old commit can no longer happen; until
			// then, nothing is read.
			for ctx.Err() == nil && l.Renew(ctx) != nil {
				if !n.sleep(ctx, time.Second, nil) {
					return
				}
			}
		}
	}
}

func (a *actor) commit(ctx context.Context, counter uint64) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	w := state.Put(counterKey.Kind, counterKey.ID, nil)
	w.Rev = counter
	return a.n.view.Commit(ctx, a.l.Fence(), fmt.Sprint(a.l.Fence().Epoch, "/", counter), []state.Write{w})
}

// end closes, commits and releases; or, where the lease is lost, takes the time
// that a client takes to disconnect.
func (a *actor) end() {
	n, l := a.n, a.l
	if errors.Is(context.Cause(l.Context()), ErrLost) {
		a.cut()
		if n.dice.chance(10) {
			n.sleep(n.ctx, 11*time.Second, nil)
		} else {
			n.sleep(n.ctx, n.dice.between(0, 500*time.Millisecond), nil)
		}
	} else {
		n.sleep(n.ctx, n.dice.between(5*time.Millisecond, 100*time.Millisecond), nil)
		a.cut()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Second)
	defer cancel()
	_ = l.Release(ctx) // what the store does not take is found again
}

// inside shows what the Keeper has in mind.
func (n *node) inside() string {
	k := n.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%s: draining %v wished %v busy %v ready %d ownAt %v now %v", n.name, k.draining, k.wished, k.busy, len(k.ready), k.hunt.ownAt, n.Now())
	for name, l := range k.held {
		fmt.Fprintf(&b, "\n  held %s: %s recalled %v lost %v ended %v ctx %v", name, l.owner.Fence(), l.recalled, l.lost, l.ended, context.Cause(l.ctx))
	}
	for name, c := range k.hunt.candidates {
		fmt.Fprintf(&b, "\n  candidate %s: %+v", name, *c)
	}
	return b.String()
}
