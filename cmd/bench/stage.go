package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/worker/lease"
)

const (
	// storeLatency is that of a store on a network, which DynamoDB is within a
	// region.
	storeLatency = 5 * time.Millisecond
	// The product's own bounds of logins, by worker.
	loginRate, loginBurst = 20, 100
	// firstLogins a second, of all workers: a session's first one makes and uploads
	// 812 prekeys, and nothing is measured meanwhile.
	firstLogins = 12
	// drainWithin is what a deployment gives a worker to drain.
	drainWithin = 90 * time.Second
	// gatherWithin is how long a worker may take to join, takenWithin how long
	// sessions may have no owner that lives.
	gatherWithin = 10 * time.Second
	takenWithin  = time.Minute
)

// stage is a fleet on one data folder, its workers and the service.
type stage struct {
	b        *bench
	svc      *process
	where    Where
	sink     string
	dir      string
	accounts []Account
	crews    int
	workers  []*process
}

// stage makes the folder of a fleet, with sessions.
func (b *bench) stage(name string, sessions int) (s *stage, err error) {
	s = &stage{b: b}
	if s.svc, s.where, err = b.service(); err != nil {
		return nil, err
	}
	if s.sink, err = call[string](s.svc, "Sink", None{}); err == nil {
		s.accounts, err = call[[]Account](s.svc, "Enrol", sessions)
	}
	if err == nil {
		s.dir, err = b.folder(name, holdfast, Fleet{Accounts: s.accounts})
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close kills all processes of the stage.
func (s *stage) close() {
	s.disband()
	s.svc.kill()
}

// disband kills the workers.
func (s *stage) disband() {
	for _, p := range s.workers {
		p.kill()
	}
	s.workers = nil
}

// first has workers log all sessions in for the first time.
func (s *stage) first(n int, r Run) error {
	s.b.progress("%d sessions log in for the first time", len(s.accounts))
	if s.b.plan.slow {
		r.LoginRate, r.LoginBurst = firstLogins/float64(n), 1
	}
	return s.crew(n, r)
}

// crew starts workers that share the sessions evenly, after those of the crew
// before were killed, and waits until all sessions are online and the workers may
// log in as many at once as they ever may.
func (s *stage) crew(n int, r Run) error {
	s.disband()
	if err := do(s.svc, "AwaitOffline", numbersOf(s.accounts)); err != nil {
		return err
	}
	s.crews++
	p, err := s.b.start(roleHoldfast)
	if err != nil {
		return err
	}
	defer p.kill()
	g := Gathering{Dir: s.dir}
	for i := range n {
		g.Holders = append(g.Holders, fmt.Sprintf("holder-%d-%d", s.crews, i))
	}
	if err := do(p, "Gather", g); err != nil {
		return err
	}
	// One after the other, so that each takes what makes it equal to the others.
	for _, holder := range g.Holders {
		if _, err := s.hire(r); err != nil {
			return err
		}
		if err := do(p, "Stopped", holder); err != nil {
			return err
		}
		if err := s.awaitTaken(p, holder); err != nil {
			return err
		}
	}
	if _, err := call[time.Time](s.svc, "AwaitOnline", numbersOf(s.accounts)); err != nil {
		return err
	}
	s.rest()
	return nil
}

// awaitTaken waits until a holder has nothing any more and the workers' heartbeats
// tell who has it.
func (s *stage) awaitTaken(p *process, holder string) error {
	for deadline := time.Now().Add(takenWithin); ; time.Sleep(20 * time.Millisecond) {
		owners, err := call[map[string][]string](p, "Owners", None{})
		if err != nil {
			return err
		}
		if len(owners[holder]) == 0 {
			time.Sleep(lease.DefaultHeartbeat)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d sessions were not taken within %s", len(owners[holder]), takenWithin)
		}
	}
}

// rest waits until what follows a login has been done and the buckets of logins
// are full again.
func (s *stage) rest() {
	time.Sleep(time.Duration(min(loginBurst, len(s.accounts)))*time.Second/loginRate + 2*time.Second)
}

// hire starts a worker and waits until it has joined.
func (s *stage) hire(r Run) (*process, error) {
	r.Where, r.Dir, r.Latency, r.Webhook = s.where, s.dir, storeLatency, s.sink
	r.Drain = drainWithin
	if r.LoginRate == 0 {
		r.LoginRate, r.LoginBurst = loginRate, loginBurst
	}
	p, err := s.b.start(roleHoldfast)
	if err != nil {
		return nil, err
	}
	s.workers = append(s.workers, p)
	if err := do(p, "Run", r); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(gatherWithin); ; time.Sleep(20 * time.Millisecond) {
		id, err := call[string](p, "Incarnation", None{})
		if err != nil {
			return nil, err
		}
		if id != "" {
			p.incarnation = id
			return p, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("a worker has not joined within %s", gatherWithin)
		}
	}
}

// dismiss takes a worker out of the crew; it goes on until it is told.
func (s *stage) dismiss(p *process) {
	s.workers = slices.DeleteFunc(s.workers, func(w *process) bool { return w == p })
}

// closest is the worker whose sessions are closest to n in number, and the numbers
// of these.
func (s *stage) closest(n int) (*process, []string, error) {
	owners, err := call[map[string][]string](s.workers[0], "Owners", None{})
	if err != nil {
		return nil, nil, err
	}
	off := func(p *process) int { return max(len(owners[p.incarnation])-n, n-len(owners[p.incarnation])) }
	w := slices.MinFunc(s.workers, func(a, b *process) int { return off(a) - off(b) })
	return w, s.numbers(owners[w.incarnation]), nil
}

// numbers are those of sessions.
func (s *stage) numbers(sessions []string) []string {
	var out []string
	for _, a := range s.accounts {
		if slices.Contains(sessions, a.Name) {
			out = append(out, a.Number)
		}
	}
	return out
}

// strays counts the sessions that none of the crew has.
func (s *stage) strays() (int, error) {
	owners, err := call[map[string][]string](s.workers[0], "Owners", None{})
	if err != nil {
		return 0, err
	}
	n := 0
	for id, sessions := range owners {
		if !slices.ContainsFunc(s.workers, func(w *process) bool { return w.incarnation == id }) {
			n += len(sessions)
		}
	}
	return n, nil
}

// logins are the logins of moves since a moment, as times since, in order.
func logins(all []Move, since time.Time) []time.Duration {
	out := make([]time.Duration, len(all))
	for i, m := range all {
		out[i] = m.Login.Sub(since)
	}
	slices.Sort(out)
	return out
}

// gaps are the gaps of moves, in order.
func gaps(all []Move) []time.Duration {
	out := make([]time.Duration, len(all))
	for i, m := range all {
		out[i] = m.Gap()
	}
	slices.Sort(out)
	return out
}

// quantile is the value that a part of them does not exceed. They are in order.
func quantile(sorted []time.Duration, part float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(part*float64(len(sorted))))]
}

// ms shows a time in milliseconds, sec in seconds.
func ms(d time.Duration) string  { return d.Round(time.Millisecond).String() }
func sec(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
