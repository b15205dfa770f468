package main

import (
	"fmt"
	"slices"
	"time"
)

// deployments of the hand-over figures.
const (
	blue  = "blue"
	green = "green"
)

// handover measures planned moves of sessions: SIGTERM of one of three workers,
// and a rolling deployment of all of them, while contacts write.
func (b *bench) handover() error {
	s, err := b.stage("handover", b.plan.fleet)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.first(3, Run{Deployment: blue}); err != nil {
		return err
	}
	t := table{title: fmt.Sprintf("Planned moves, %d sessions on three worker processes, %s added to every call of the store, %.0f messages/s from contacts;\n"+
		"a gap is from the close of the old socket to the login of the new one, as the service saw both", len(s.accounts), storeLatency, b.plan.written),
		head: []string{"", "moves", "gap p50", "p99", "longest", "slowest drain", "messages", "across a move", "redelivered", "lost", "doubled", "posted again", "undecrypted", "sockets kicked"}}
	if b.plan.slow {
		if err := s.crew(3, Run{Deployment: blue}); err != nil {
			return err
		}
		if err := b.sigterm(s, &t); err != nil {
			return err
		}
		if err := s.crew(3, Run{Deployment: blue}); err != nil {
			return err
		}
	}
	if err := b.rolling(s, &t); err != nil {
		return err
	}
	t.print(b.out)
	return nil
}

// write has contacts write to all sessions until the returned function is called.
func (s *stage) write() (end func() (Toll, error), err error) {
	if err := do(s.svc, "Begin", Traffic{Numbers: numbersOf(s.accounts), PerSecond: s.b.plan.written}); err != nil {
		return nil, err
	}
	time.Sleep(2 * time.Second)
	return func() (Toll, error) { return call[Toll](s.svc, "End", None{}) }, nil
}

// sigterm ends one of three workers in order.
func (b *bench) sigterm(s *stage, t *table) error {
	b.progress("SIGTERM of a worker")
	end, err := s.write()
	if err != nil {
		return err
	}
	old, numbers, err := s.closest(b.plan.fleet / 3)
	if err != nil {
		return err
	}
	at := time.Now()
	took, err := b.retire(s, old)
	if err != nil {
		return err
	}
	moved, err := call[[]Move](s.svc, "AwaitMoved", Moved{numbers, at})
	if err != nil {
		return err
	}
	time.Sleep(time.Second) // the messages that waited
	toll, err := end()
	if err != nil {
		return err
	}
	b.moved("SIGTERM of one worker", moved, took, toll, t)
	return nil
}

// retire sends SIGTERM to a worker and waits for its end. Nothing may be left of
// it then.
func (b *bench) retire(s *stage, old *process) (time.Duration, error) {
	s.dismiss(old)
	at := time.Now()
	err := old.terminate(drainWithin + 30*time.Second)
	took := time.Since(at)
	b.bound("hand-over: exit status of the worker after SIGTERM", verdict(err), "0", err == nil)
	left, err := s.strays()
	if err != nil {
		return 0, err
	}
	b.bound("hand-over: sessions of nobody when the worker had ended", fmt.Sprint(left), "0", left == 0)
	return took, nil
}

func verdict(err error) string {
	if err == nil {
		return "0"
	}
	return err.Error()
}

// rolling replaces all workers one by one: a new one starts, then an old one
// ends.
func (b *bench) rolling(s *stage, t *table) error {
	end, err := s.write()
	if err != nil {
		return err
	}
	at := time.Now()
	var slowest time.Duration
	old := slices.Clone(s.workers)
	for i, w := range old {
		b.progress("rolling deployment: worker %d of %d", i+1, len(old))
		if _, err := s.hire(Run{Deployment: green}); err != nil {
			return err
		}
		took, err := b.retire(s, w)
		if err != nil {
			return err
		}
		slowest = max(slowest, took)
	}
	all, err := call[[]Move](s.svc, "AwaitMoved", Moved{numbersOf(s.accounts), at})
	if err != nil {
		return err
	}
	time.Sleep(time.Second)
	toll, err := end()
	if err != nil {
		return err
	}
	b.moved("rolling deployment of all three", all, slowest, toll, t)
	return nil
}

// moved prints and judges moves.
func (b *bench) moved(what string, all []Move, drain time.Duration, toll Toll, t *table) {
	g := gaps(all)
	p99 := quantile(g, 0.99)
	t.row(what, fmt.Sprint(len(all)), ms(quantile(g, 0.5)), ms(p99), ms(g[len(g)-1]), sec(drain), fmt.Sprint(toll.Sent), fmt.Sprint(toll.Across), fmt.Sprint(toll.Again),
		fmt.Sprint(toll.Unacked+toll.Lost), fmt.Sprint(toll.Doubled), fmt.Sprint(toll.Posted), fmt.Sprint(toll.Unread), fmt.Sprint(toll.Kicked))
	b.bound(what+": gap of a session, p99", ms(p99), "at most "+ms(b.plan.gap), p99 <= b.plan.gap)
	b.bound(what+": messages lost", fmt.Sprint(toll.Unacked+toll.Lost), "0", toll.Unacked+toll.Lost == 0)
	b.bound(what+": messages doubled at the sink", fmt.Sprint(toll.Doubled), "0", toll.Doubled == 0)
}
