package lease

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// plan is what a world is like, apart from its seed.
type plan struct {
	h, f, t    time.Duration
	settle     time.Duration
	suspend    time.Duration
	evenClocks bool
	chatty     bool          // all sessions have something to say all the time
	troubles   int           // how many things happen
	span       time.Duration // within which they do
	quiet      time.Duration // after which all sessions must run
	kinds      []trouble     // nil: all

	// What a mutant does otherwise.
	careless  func(*Keeper)
	noFence   bool
	noDeclare bool
	noBoot    bool // no clock counts suspended time
}

func defaultPlan() plan {
	return plan{
		h: DefaultHeartbeat, f: DefaultTrust, t: DefaultTakeover, settle: 5 * time.Second, suspend: time.Second,
		troubles: 8, span: 45 * time.Second, quiet: 45 * time.Second,
	}
}

// world is one run of a plan: a store, a server and some processes, in virtual
// time.
type world struct {
	seed     uint64
	plan     plan
	dice     *dice
	audit    *audit
	server   *server
	register *register
	outage   atomic.Pointer[fault] // of the store for all
	nodes    int
	begun    time.Time
	quiet    time.Duration // that it took until all sessions ran again

	mu     sync.Mutex
	names  []string // of the sessions
	all    []*node
	faults []violation
	counts map[string]int
	trace  *strings.Builder
}

// violation is an invariant that did not hold.
type violation struct{ rule, what string }

func (w *world) violate(rule, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := violation{rule, fmt.Sprintf("%8.3f s: ", time.Since(w.begun).Seconds()) + fmt.Sprintf(format, args...)}
	w.faults = append(w.faults, v)
	if w.trace != nil {
		fmt.Fprintf(w.trace, "VIOLATION %s %s\n", v.rule, v.what)
	}
}

func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

func (w *world) tell(format string, args ...any) {
	if w.trace == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.trace, "%8.3f s  %s\n", time.Since(w.begun).Seconds(), fmt.Sprintf(format, args...))
}

// log is a node's log, kept only when one seed is looked at.
func (w *world) log(n *node) *slog.Logger {
	if w.trace == nil {
		return nil
	}
	return slog.New(slog.NewTextHandler(traceWriter{w, n.name}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

type traceWriter struct {
	w    *world
	name string
}

func (t traceWriter) Write(b []byte) (int, error) {
	t.w.tell("%s %s", t.name, strings.TrimSpace(string(b)))
	return len(b), nil
}

// trouble is one thing that happens to a node.
type trouble func(w *world, n *node)

// lasting has something last for a while.
func (w *world) lasting(n *node, f fault, least, most time.Duration) {
	n.view.set(f)
	d := w.dice.between(least, most)
	go func() {
		time.Sleep(d)
		n.view.set(fault{})
	}()
}

func (w *world) freezeFor(n *node, suspend bool, least, most time.Duration) {
	n.freeze(suspend)
	d := w.dice.between(least, most)
	go func() {
		time.Sleep(d)
		n.goOn()
	}()
}

func partition(w *world, n *node) {
	w.tell("%s is cut off", n.name)
	w.lasting(n, fault{drop: 100}, time.Second, 25*time.Second)
}

func cutOff(w *world, n *node) {
	w.tell("%s is cut off for long", n.name)
	w.lasting(n, fault{drop: 100}, w.plan.t, 2*w.plan.t)
}

func fade(w *world, n *node) {
	w.tell("answers to %s become slow, then it is cut off", n.name)
	n.view.set(fault{back: w.plan.h / 2})
	slow, cut := w.dice.between(w.plan.h, 4*w.plan.h), w.dice.between(w.plan.t, 2*w.plan.t)
	go func() {
		time.Sleep(slow)
		n.view.set(fault{drop: 100})
		time.Sleep(cut)
		n.view.set(fault{})
	}()
}

func refuse(w *world, n *node) {
	w.tell("the store refuses %s", n.name)
	w.lasting(n, fault{fail: 100}, time.Second, 20*time.Second)
}

func slow(w *world, n *node) {
	w.tell("%s is slow", n.name)
	w.lasting(n, fault{slow: w.dice.between(50*time.Millisecond, 3*time.Second)}, 5*time.Second, 30*time.Second)
}

func deaf(w *world, n *node) {
	w.tell("answers to %s are lost", n.name)
	w.lasting(n, fault{lost: 30 + w.dice.n(71)}, time.Second, 20*time.Second)
}

func late(w *world, n *node) {
	w.tell("calls of %s come late", n.name)
	w.lasting(n, fault{late: 30 + w.dice.n(71)}, time.Second, 20*time.Second)
}

func lossy(w *world, n *node) {
	w.tell("%s has a bad line", n.name)
	w.lasting(n, fault{drop: w.dice.n(20), fail: w.dice.n(20), lost: w.dice.n(20), late: w.dice.n(10), slow: w.dice.between(0, 200*time.Millisecond)}, 10*time.Second, 40*time.Second)
}

func freeze(w *world, n *node) {
	w.tell("%s is frozen", n.name)
	w.freezeFor(n, false, time.Second, 30*time.Second)
}

func suspend(w *world, n *node) {
	w.tell("%s is suspended", n.name)
	w.freezeFor(n, true, time.Second, 30*time.Second)
}

func crash(w *world, n *node) {
	w.tell("%s dies", n.name)
	n.crash()
	if w.dice.chance(60) {
		w.launch(n.keeper.cfg.Info.Deployment, n.keeper.cfg.Capacity)
	}
}

func join(w *world, _ *node) {
	if len(w.working()) >= 5 {
		return
	}
	n := w.launch(fmt.Sprintf("r%d", 1+w.dice.n(2)), w.capacity())
	w.tell("%s joins", n.name)
}

func leave(w *world, n *node) {
	if n.leaving.Swap(true) {
		return
	}
	within := w.dice.between(2*time.Second, 25*time.Second)
	w.tell("%s drains within %s", n.name, within)
	if w.dice.chance(70) {
		w.launch("r2", w.capacity())
	}
	go func() {
		ctx, cancel := context.WithTimeout(n.ctx, within)
		defer cancel()
		err := n.keeper.Drain(ctx)
		w.tell("%s has drained: %v", n.name, err)
		if err == nil {
			w.count("drained")
			w.drainedWell(n)
		}
		n.stop()
	}()
}

// drainedWell checks what Drain promises.
func (w *world) drainedWell(n *node) {
	for _, s := range w.sessions() {
		if sock := w.server.holder(s); sock != nil && sock.n == n && !n.excused() {
			w.violate("I7", "%s has drained and is connected for %s", n.name, s)
		}
	}
}

func wish(w *world, n *node) {
	id := n.keeper.Incarnation()
	wanted := w.dice.chance(60)
	w.tell("wish: drain %s: %v", n.name, wanted)
	_ = w.audit.Drain(context.Background(), id, wanted) // it may be dead
}

func outage(w *world, _ *node) {
	f := []fault{{drop: 100}, {fail: 100}, {slow: 4 * time.Second}}[w.dice.n(3)]
	w.tell("the store fails for all: %+v", f)
	w.outage.Store(&f)
	d := w.dice.between(time.Second, 25*time.Second)
	go func() {
		time.Sleep(d)
		w.outage.Store(nil)
	}()
}

func vaultDown(w *world, n *node) {
	n.prepFail.Store(true)
	d := w.dice.between(time.Second, 6*time.Second)
	go func() {
		time.Sleep(d)
		n.prepFail.Store(false)
	}()
}

func create(w *world, n *node) {
	w.create()
	if w.dice.chance(50) {
		n.keeper.Look(w.sessions()[len(w.sessions())-1])
	}
}

func hint(w *world, n *node) {
	// The platform reports the end of a process that has ended.
	w.tell("%s dies, and that is told", n.name)
	id := n.keeper.Incarnation()
	n.crash()
	_ = w.audit.DeclareStopped(context.Background(), id)
	w.launch(n.keeper.cfg.Info.Deployment, n.keeper.cfg.Capacity)
}

var troubles = []trouble{
	partition, partition, refuse, slow, deaf, late, lossy, freeze, freeze, suspend, crash, crash, join, leave, leave, wish, outage, vaultDown, create, hint,
}

func (w *world) create() {
	name := fmt.Sprintf("s-%d", len(w.sessions()))
	if err := w.audit.CreateSession(context.Background(), name, nil); err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names = append(w.names, name)
}

func (w *world) sessions() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names
}

func (w *world) capacity() int {
	if w.dice.chance(25) {
		return 1 + w.dice.n(5)
	}
	return 0
}

// working lists the processes that take sessions.
func (w *world) working() []*node {
	w.mu.Lock()
	defer w.mu.Unlock()
	var some []*node
	for _, n := range w.all {
		if !n.dead() && !n.leaving.Load() {
			some = append(some, n)
		}
	}
	return some
}

// run lives through one seed, in a bubble, and returns the world as it was at
// the end.
func run(t *testing.T, seed uint64, p plan, traced bool) *world {
	w := &world{seed: seed, plan: p, dice: newDice(seed, 0), register: &register{}, counts: make(map[string]int)}
	if traced {
		w.trace = &strings.Builder{}
	}
	synctest.Test(t, func(*testing.T) {
		w.begun = time.Now()
		w.server = &server{w: w, live: make(map[string]*socket), sent: make(map[string]uint64)}
		w.audit = newAudit(w)
		w.audit.noFence, w.audit.noDeclare = p.noFence, p.noDeclare
		for range 3 + w.dice.n(8) {
			w.create()
		}
		for range 2 + w.dice.n(3) {
			w.launch("r1", w.capacity())
			time.Sleep(w.dice.between(0, 2*time.Second))
		}
		w.trouble()
		w.settle()
		w.close()
	})
	return w
}

// trouble is the time in which things happen.
func (w *world) trouble() {
	kinds := w.plan.kinds
	if kinds == nil {
		kinds = troubles
	}
	time.Sleep(w.dice.between(0, 10*time.Second))
	for range 1 + w.dice.n(w.plan.troubles) {
		some := w.working()
		if len(some) == 0 {
			w.launch("r1", 0)
			continue
		}
		kinds[w.dice.n(len(kinds))](w, some[w.dice.n(len(some))])
		if w.dice.chance(60) { // else two things at once
			time.Sleep(w.dice.between(0, 2*w.plan.span/time.Duration(w.plan.troubles)))
		}
	}
}

// settle ends all trouble, and checks that all sessions run within the bound
// (I12).
func (w *world) settle() {
	for _, n := range w.working() {
		n.goOn()
		n.view.set(fault{})
		n.prepFail.Store(false)
		_ = w.audit.Drain(context.Background(), n.keeper.Incarnation(), false)
	}
	w.outage.Store(nil)
	w.tell("quiet")
	w.launch("r2", 0) // there is room for all
	quiet := time.Now()
	for {
		missing := ""
		for _, s := range w.sessions() {
			if why := w.idle(s); why != "" {
				missing = why
				break
			}
		}
		if missing == "" {
			w.quiet = time.Since(quiet)
			return
		}
		if time.Since(quiet) > w.plan.quiet {
			for _, n := range w.working() {
				w.tell("%s", n.inside())
			}
			w.violate("I12", "%s, %s after the trouble ended", missing, w.plan.quiet)
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// idle says why a session does not run as it should; empty if it does.
func (w *world) idle(session string) string {
	o, err := w.audit.base.Owner(context.Background(), session)
	if err != nil {
		return err.Error()
	}
	sock := w.server.holder(session)
	switch {
	case o.Incarnation == "":
		return session + " is nobody's"
	case sock == nil:
		return session + " is not connected, its owner is " + o.Incarnation
	case sock.fence.Owner != o.Incarnation:
		return session + " is connected by another than its owner"
	}
	return ""
}

// close ends all processes.
func (w *world) close() {
	w.mu.Lock()
	all := w.all
	w.mu.Unlock()
	for _, n := range all {
		n.goOn()
		n.stop()
	}
	for _, n := range all {
		<-n.ended
	}
	time.Sleep(time.Minute) // what is late comes, and nothing may be left behind
}

// envInt reads a number from the environment: HOLDFAST_SEED has one seed run
// alone and shows what happened, HOLDFAST_SCHEDULES says how many are run.
func envInt(t *testing.T, name string) (uint64, bool) {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return 0, false
	}
	var n uint64
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatalf("%s=%q: is a number", name, text)
	}
	return n, true
}

var _ state.Store = (*way)(nil)
