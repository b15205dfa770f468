package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin/crew"
	"github.com/holdfast-wa/holdfast/infra/wasim"
)

// endWithin is how long a worker may take to end after SIGTERM: as long as the
// platform would wait.
const endWithin = 2 * time.Minute

// carryOut does the steps at their times and waits for all of them.
func (h *harness) carryOut(ctx context.Context, plan []Step) error {
	began := time.Now()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs error
	)
	for _, s := range plan {
		if !sleep(ctx, time.Until(began.Add(s.At))) {
			break
		}
		h.aim(&s)
		if !h.take(s) {
			h.say("left out: %s: the one before it is not over yet", s)
			continue
		}
		h.say("%s%s", s, h.with(s))
		wg.Go(func() {
			defer h.give(s)
			if err := h.do(ctx, s); err != nil && ctx.Err() == nil {
				mu.Lock()
				defer mu.Unlock()
				errs = errors.Join(errs, fmt.Errorf("%s: %w", s.What, err))
			}
		})
	}
	sleep(ctx, time.Until(began.Add(h.o.Length)))
	wg.Wait()
	return errs
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// theBans is what a step reserves that bans sessions. Two at a time could mean the
// same session, and how long it was told to wait would be unknown.
const theBans = "the bans"

// concerns are the workers that a step is about, or what else only one has at a time.
func (h *harness) concerns(s Step) []string {
	switch {
	case s.Worker != "":
		return []string{s.Worker}
	case s.What == Roll || s.What == Outage:
		return h.workers()
	case s.What == Ban:
		return []string{theBans}
	}
	return nil
}

// aim turns a step that would hit a worker with next to nothing on the one that
// has most: what is new gets sessions slowly.
func (h *harness) aim(s *Step) {
	if s.Worker == "" || s.What == Late || s.What == Doze {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	most, others := s.Worker, 0
	for name, r := range h.relays {
		if h.busy[name] {
			continue
		}
		others++
		if r.live() > h.relays[most].live() {
			most = name
		}
	}
	if others > 1 && h.relays[s.Worker].live() < len(h.accounts)/(3*len(h.relays)) {
		s.Worker = most
	}
}

// with says how many sessions a step hits.
func (h *harness) with(s Step) string {
	if s.Worker == "" {
		return ""
	}
	return fmt.Sprintf("; it has %d sockets", h.relays[s.Worker].live())
}

// take reserves a step's workers; false where one is still being dealt with.
func (h *harness) take(s Step) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.concerns(s) {
		if h.busy[w] {
			return false
		}
	}
	for _, w := range h.concerns(s) {
		h.busy[w] = true
	}
	h.count[s.What]++
	h.done = append(h.done, s.String())
	return true
}

func (h *harness) give(s Step) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.concerns(s) {
		delete(h.busy, w)
	}
}

// do does one step and comes back when it is over.
func (h *harness) do(ctx context.Context, s Step) error {
	switch s.What {
	case Kill:
		p := h.process(s.Worker)
		if err := p.Kill(); err != nil {
			return err
		}
		sleep(ctx, s.For)
		return p.Start()
	case Freeze, Doze:
		p := h.process(s.Worker)
		if err := p.Freeze(); err != nil {
			return err
		}
		// What reaches its sockets now lies there until it can move again, when the
		// same has long come to the new owner.
		err := h.traffic.flood(ctx, h.held(p.Name), s.Seed)
		sleep(ctx, s.For)
		return errors.Join(err, p.Thaw())
	case Part, Late, Outage:
		return h.part(ctx, h.concerns(s), s)
	case Restart:
		return h.restart(ctx, h.process(s.Worker), s.For)
	case Roll:
		h.mu.Lock()
		h.rev++
		revision := fmt.Sprintf("rev-%d", h.rev)
		h.mu.Unlock()
		for _, name := range h.workers() {
			p := h.process(name)
			p.Set(deployment, revision)
			if err := h.restart(ctx, p, 0); err != nil {
				return err
			}
			if err := h.crew.Live(ctx, p); err != nil {
				return err
			}
		}
	case Lines:
		r := rand.New(rand.NewPCG(s.Seed, 3))
		hows := []wasim.How{wasim.DropTCP, wasim.DropReset, wasim.DropClose, wasim.DropStreamEnd}
		for range max(1, len(h.devices)/10) {
			// One that is offline now cannot be dropped, and need not be.
			_ = h.devices[r.IntN(len(h.devices))].Drop(hows[r.IntN(len(hows))])
		}
	case Deaf:
		h.sink.deaf.Store(true)
		sleep(ctx, s.For)
		h.sink.deaf.Store(false)
	case Ban:
		return h.ban(ctx, s)
	}
	return nil
}

// held are the indexes of the sessions whose sockets a worker has.
func (h *harness) held(worker string) []int {
	mine := map[string]bool{}
	for _, c := range h.relays[worker].conns() {
		mine[c.Remote] = true
	}
	sockets := map[string]bool{}
	for _, s := range h.sim.Truth().Sockets {
		if s.LoggedIn != nil && socketEnd(s).IsZero() && mine[s.Remote] {
			sockets[s.Device] = true
		}
	}
	var out []int
	for i, a := range h.accounts {
		if sockets[a.Device] {
			out = append(out, i)
		}
	}
	return out
}

// restart ends a worker as a platform does, and starts it again.
func (h *harness) restart(ctx context.Context, p *crew.Process, pause time.Duration) error {
	within, cancel := context.WithTimeout(ctx, endWithin)
	defer cancel()
	took, err := p.Terminate(within)
	if err != nil {
		return err
	}
	h.say("        %s ended %.1f s after SIGTERM", p.Name, took.Seconds())
	sleep(ctx, pause)
	return p.Start()
}

// part breaks lines for a while.
func (h *harness) part(ctx context.Context, workers []string, s Step) error {
	var mine []int
	h.mu.Lock()
	for _, w := range workers {
		for _, service := range s.Service {
			mine = append(mine, len(h.lines))
			h.lines = append(h.lines, LineFault{Process: w, Service: service, Kind: s.Fault.Kind})
		}
	}
	h.mu.Unlock()
	each := func(do func(l *LineFault) error) error {
		var err error
		for _, i := range mine {
			h.mu.Lock()
			l := h.lines[i]
			h.mu.Unlock()
			err = errors.Join(err, do(&l))
			h.mu.Lock()
			h.lines[i] = l
			h.mu.Unlock()
		}
		return err
	}
	err := each(func(l *LineFault) error {
		err := h.stand.Break(l.Process, l.Service, s.Fault)
		l.Span = crew.Span{From: time.Now()}
		return err
	})
	sleep(ctx, s.For)
	return errors.Join(err, each(func(l *LineFault) error {
		l.Span.To = time.Now()
		return h.stand.Heal(l.Process, l.Service)
	}))
}

// mend makes everything good again: lines, receiver, frozen and dead workers.
// Those whom a release has replaced stay down.
func (h *harness) mend(ctx context.Context) error {
	h.sink.deaf.Store(false)
	err := h.stand.HealAll()
	for _, p := range h.crew.Workers {
		if h.idle[p.Name] {
			continue
		}
		switch {
		case p.Running():
			if thawed := p.Thaw(); thawed != nil && !errors.Is(thawed, crew.ErrDown) {
				err = errors.Join(err, thawed)
			}
		default:
			err = errors.Join(err, p.Start())
		}
		err = errors.Join(err, h.crew.Live(ctx, p))
	}
	return err
}
