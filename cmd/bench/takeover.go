package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/worker/lease"
)

// death is one way in which the fleet comes to know of the end of a worker.
type death struct {
	how   string
	locks bool // by the lock that its process had on this host
	hint  bool // it is told at once, as by a platform's event
	slow  bool // left out of the small form
	most  func(plan) time.Duration
}

var deaths = []death{
	{how: "its heartbeat stands still", slow: true, most: func(p plan) time.Duration { return lease.DefaultTakeover + p.burst }},
	{how: "the platform tells (DeclareStopped)", hint: true, most: func(p plan) time.Duration { return p.hint }},
	{how: "its lock on this host is free", locks: true, slow: true, most: func(p plan) time.Duration { return p.hint }},
}

// takeover measures what follows kill -9 of one of three workers, by the
// service's own record: the time until the last of its sessions is online at
// another one.
func (b *bench) takeover() error {
	s, err := b.stage("takeover", 3*b.plan.crowd)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.first(3, Run{}); err != nil {
		return err
	}
	t := table{title: fmt.Sprintf("kill -9 of one of three worker processes on one SQLite file with %s added to every call (h, F, T = %s, %s, %s; %d logins at once a worker, %d/s):\n"+
		"from the kill to online at another worker", storeLatency, lease.DefaultHeartbeat, lease.DefaultTrust, lease.DefaultTakeover, loginBurst, loginRate),
		head: []string{"how the others know", "sessions of it", "first", "half", "last", "bound", "sockets kicked"}}
	for _, d := range deaths {
		if d.slow && !b.plan.slow {
			continue
		}
		b.progress("kill -9 of a worker: %s", d.how)
		if err := b.kill(s, d, &t); err != nil {
			return err
		}
	}
	t.print(b.out)
	return nil
}

// kill measures one.
func (b *bench) kill(s *stage, d death, t *table) error {
	if b.plan.slow {
		if err := s.crew(3, Run{HostLocks: d.locks}); err != nil {
			return err
		}
	}
	victim, numbers, err := s.closest(b.plan.crowd)
	if err != nil || len(numbers) == 0 {
		return errors.Join(err, errors.New("no worker has sessions"))
	}
	s.dismiss(victim)
	if err := do(s.svc, "Begin", Traffic{Numbers: numbers[:1], PerSecond: 1}); err != nil { // forgets the records so far
		return err
	}
	at := time.Now()
	victim.kill()
	if d.hint {
		if err := do(s.workers[0], "Stopped", victim.incarnation); err != nil {
			return err
		}
	}
	moved, err := call[[]Move](s.svc, "AwaitMoved", Moved{numbers, at})
	if err != nil {
		return err
	}
	toll, err := call[Toll](s.svc, "End", None{})
	if err != nil {
		return err
	}
	l := logins(moved, at)
	last, most := l[len(l)-1], d.most(b.plan)
	t.row(d.how, fmt.Sprint(len(numbers)), sec(l[0]), sec(quantile(l, 0.5)), sec(last), sec(most), fmt.Sprint(toll.Kicked))
	b.bound("takeover: "+d.how, sec(last), "at most "+sec(most), last <= most)
	b.bound("takeover: messages lost", fmt.Sprint(toll.Unacked+toll.Lost), "0", toll.Unacked+toll.Lost == 0)
	return nil
}
