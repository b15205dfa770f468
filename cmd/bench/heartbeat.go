package main

import (
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/worker/lease"
)

// heartbeat measures whether one worker with many sessions keeps beating: while
// they all log in, and while messages arrive.
func (b *bench) heartbeat() error {
	s, err := b.stage("heartbeat", b.plan.beating)
	if err != nil {
		return err
	}
	defer s.close()
	t := table{title: fmt.Sprintf("Heartbeats of one worker with %d sessions, %s added to every call of the store (h = %s, F = %s)",
		len(s.accounts), storeLatency, lease.DefaultHeartbeat, lease.DefaultTrust),
		head: []string{"while", "beats", "failed", "most apart", "slowest answer", "least trust left", "messages/s", "commits a message", "slowest ack"}}
	row := func(while string, h Beats, perSecond, commits, slowest string) {
		t.row(while, fmt.Sprint(h.Count), fmt.Sprint(h.Failed), ms(h.Apart), ms(h.Answered), ms(h.Trust), perSecond, commits, slowest)
	}
	if err := s.first(1, Run{}); err != nil {
		return err
	}
	if b.plan.slow {
		b.progress("they log in again")
		if err := s.crew(1, Run{}); err != nil {
			return err
		}
	}
	w := s.workers[0]
	start, err := call[Beats](w, "Beats", None{})
	if err != nil {
		return err
	}
	row("all log in", start, "", "", "")
	time.Sleep(b.plan.settle)
	b.progress("%.0f messages/s for %s", b.plan.arriving, b.plan.busy)
	for _, forget := range []string{"Beats", "Trips"} {
		if err := w.rpc.Call("role."+forget, None{}, nil); err != nil {
			return err
		}
	}
	if err := do(s.svc, "Begin", Traffic{Numbers: numbersOf(s.accounts), PerSecond: b.plan.arriving}); err != nil {
		return err
	}
	time.Sleep(b.plan.busy)
	seen, err := call[Beats](w, "Beats", None{})
	if err != nil {
		return err
	}
	toll, err := call[Toll](s.svc, "End", None{})
	if err != nil {
		return err
	}
	trips, err := call[Trips](w, "Trips", None{})
	if err != nil {
		return err
	}
	row("messages arrive", seen, f1(float64(toll.Sent)/b.plan.busy.Seconds()), f2(float64(trips.Commits)/float64(toll.Sent)), ms(toll.Slowest))
	t.print(b.out)
	late := seen.Apart - lease.DefaultHeartbeat
	b.bound("heartbeat: later than h by", ms(late), fmt.Sprintf("at most %s, a quarter of F", lease.DefaultTrust/4), late <= lease.DefaultTrust/4)
	b.bound("heartbeat: slowest answer", ms(seen.Answered), fmt.Sprintf("at most %s", lease.DefaultTrust/4), seen.Answered <= lease.DefaultTrust/4)
	b.bound("heartbeat: failed", fmt.Sprint(seen.Failed), "0", seen.Failed == 0)
	b.bound("heartbeat: messages lost", fmt.Sprint(toll.Unacked+toll.Lost), "0", toll.Unacked+toll.Lost == 0)
	return nil
}
