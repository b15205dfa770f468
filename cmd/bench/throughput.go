package main

import (
	"fmt"
	"path/filepath"
	"time"
)

// rate is one figure of messages received.
type rate struct {
	perSecond float64
	fate      Fate
	trips     float64 // to the store, a message; of Holdfast
	commits   float64 // among them
}

// throughput measures messages received a second: encrypted and waiting at the
// service before the first leaves, counted by its acknowledgements.
func (b *bench) throughput() error {
	svc, where, err := b.service()
	if err != nil {
		return err
	}
	defer svc.kill()
	figures := map[string]rate{}
	key := func(s subject, d time.Duration, n int) string { return fmt.Sprint(s, d, n) }
	subjects := []subject{librarySQL, holdfast}
	for i, s := range subjects {
		accounts, err := call[[]Account](svc, "Enrol", b.plan.many)
		if err != nil {
			return err
		}
		dir, err := b.folder(fmt.Sprintf("throughput-%d", i), s, Fleet{Accounts: accounts})
		if err != nil {
			return err
		}
		if err := b.acquaint(svc, where, s, accounts, dir); err != nil {
			return err
		}
		for _, d := range b.plan.latency {
			rates, err := b.bursts(svc, where, s, accounts, dir, d)
			if err != nil {
				return err
			}
			for n, r := range rates {
				figures[key(s, d, n)] = r
			}
		}
	}
	t := table{title: "Messages received a second, each durable before its acknowledgement, by the latency added to every operation of the store\n" +
		"(Holdfast: to each call of state.Store over SQLite; library: to each statement and commit of sqlstore, a SQLite file for each session)",
		head: []string{"sessions", "latency", string(librarySQL), string(holdfast), "times", "round trips a message", "messages"}}
	for _, n := range []int{1, b.plan.many} {
		for _, d := range b.plan.latency {
			l, h := figures[key(librarySQL, d, n)], figures[key(holdfast, d, n)]
			t.row(fmt.Sprint(n), d.String(), f1(l.perSecond), f1(h.perSecond), f1(h.perSecond/l.perSecond), f2(h.trips),
				fmt.Sprintf("%d, %d", l.fate.Messages, h.fate.Messages))
		}
	}
	t.print(b.out)
	for _, d := range b.plan.latency {
		if r := figures[key(holdfast, d, 1)]; d == 5*time.Millisecond {
			b.bound("messages received a second, one session at 5 ms", f1(r.perSecond), fmt.Sprintf("at least %.0f", b.plan.rate), r.perSecond >= b.plan.rate)
			b.bound("commits of a message received, one session at 5 ms", f2(r.commits), "at most 1.02", r.commits <= 1.02)
			b.bound("round trips to the store of a message received, one session at 5 ms", f2(r.trips), "at most 1.05", r.trips <= 1.05)
		}
	}
	return nil
}

// acquaint connects all accounts once, without latency, so that their prekeys
// are at the service, and lets each answer its contact, so that what comes
// later is no first message any more.
func (b *bench) acquaint(svc *process, where Where, s subject, accounts []Account, dir string) error {
	b.progress("%s: %d sessions get to know their contacts", s, len(accounts))
	p, _, err := b.launch(where, s, accounts, dir, options{apart: true})
	if err != nil {
		return err
	}
	defer p.kill()
	numbers := numbersOf(accounts)
	if _, err := call[time.Time](svc, "AwaitOnline", numbers); err != nil {
		return err
	}
	if _, err := call[Fate](svc, "Send", Burst{numbers, 1}); err != nil {
		return err
	}
	for _, a := range accounts {
		to, err := call[string](svc, "Contact", a.Number)
		if err != nil {
			return err
		}
		if err := do(p, "Reply", Reply{a.Name, to, "hello yourself"}); err != nil {
			return err
		}
	}
	if err := do(svc, "AwaitReply", numbers); err != nil {
		return err
	}
	if err := do(p, "Stop", None{}); err != nil {
		return err
	}
	p.kill()
	return do(svc, "AwaitOffline", numbers)
}

// bursts measures one subject at one latency: one session while the others are
// idle, then all of them.
func (b *bench) bursts(svc *process, where Where, s subject, accounts []Account, dir string, latency time.Duration) (map[int]rate, error) {
	p, _, err := b.launch(where, s, accounts, dir, options{latency: latency, apart: true})
	if err != nil {
		return nil, err
	}
	defer p.kill()
	numbers := numbersOf(accounts)
	if _, err := call[time.Time](svc, "AwaitOnline", numbers); err != nil {
		return nil, err
	}
	if _, err := call[Fate](svc, "Send", Burst{numbers, 3}); err != nil { // warm caches
		return nil, err
	}
	out := map[int]rate{}
	for _, n := range []int{1, len(accounts)} {
		each := batch(s, n, latency)
		b.progress("%s: %d sessions, %s, %d messages each", s, n, latency, each)
		end, err := b.cpuProfile(p, fmt.Sprintf("%s-%d-%s", s, n, latency))
		if err != nil {
			return nil, err
		}
		if s == holdfast {
			if _, err := call[Trips](p, "Trips", None{}); err != nil {
				return nil, err
			}
		}
		fate, err := call[Fate](svc, "Send", Burst{numbers[:n], each})
		if err != nil {
			return nil, err
		}
		var trips Trips
		if s == holdfast {
			if trips, err = call[Trips](p, "Trips", None{}); err != nil {
				return nil, err
			}
		}
		if err := end(); err != nil {
			return nil, err
		}
		if fate.Enc["msg"] != fate.Messages || fate.Refused+fate.Retries+fate.Again > 0 {
			return nil, fmt.Errorf("%s, %d sessions, %s: not received as it should be: %+v", s, n, latency, fate)
		}
		out[n] = rate{float64(fate.Messages) / fate.Took.Seconds(), fate,
			float64(trips.All) / float64(fate.Messages), float64(trips.Commits) / float64(fate.Messages)}
	}
	if err := do(p, "Stop", None{}); err != nil {
		return nil, err
	}
	p.kill()
	return out, do(svc, "AwaitOffline", numbers)
}

// cpuProfile begins one, where profiles are wanted, and returns what ends it.
func (b *bench) cpuProfile(p *process, name string) (end func() error, err error) {
	if b.prof == "" {
		return func() error { return nil }, nil
	}
	path, err := filepath.Abs(filepath.Join(b.prof, name+".cpu"))
	if err != nil {
		return nil, err
	}
	return func() error { return do(p, "CPU", "") }, do(p, "CPU", path)
}
