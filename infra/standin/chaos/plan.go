package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin"
)

// What is a kind of step.
type What string

// The kinds of steps.
const (
	Kill    What = "kill"    // kill -9, and a new start after a while
	Freeze  What = "freeze"  // SIGSTOP until long after others have taken over, then SIGCONT
	Doze    What = "doze"    // SIGSTOP for less than the trust lasts
	Part    What = "part"    // a line to a service is broken
	Late    What = "late"    // a line to the store is slow
	Restart What = "restart" // SIGTERM, and a new start when it has ended
	Roll    What = "roll"    // all workers, one after the other, each with SIGTERM and a new revision
	Outage  What = "outage"  // the store is out of everybody's reach
	Lines   What = "lines"   // the service drops some sockets
	Deaf    What = "deaf"    // the receiver of events answers with failures
	Ban     What = "ban"     // the service bans some sessions for a while
)

// Whats are all kinds, with how often each comes up against the others.
var whats = []struct {
	what   What
	weight int
}{{Kill, 5}, {Freeze, 4}, {Doze, 1}, {Part, 6}, {Late, 2}, {Restart, 3}, {Roll, 1}, {Outage, 1}, {Lines, 2}, {Deaf, 1}, {Ban, 2}}

// Step is one thing to do.
type Step struct {
	At      time.Duration // from the beginning
	What    What
	Worker  string            // empty: all, or none
	Service []standin.Service // of Part
	Fault   standin.Fault     // of Part, Late and Outage
	For     time.Duration     // how long it lasts; of Kill and Restart, how long until the new start
	Seed    uint64            // for what is chosen while it is done
}

func (s Step) String() string {
	text := fmt.Sprintf("%5.1fs %s", s.At.Seconds(), s.What)
	if s.Worker != "" {
		text += " " + s.Worker
	}
	if s.Fault.Kind != "" && s.What != Late {
		text += fmt.Sprintf(" from %v (%s)", s.Service, s.Fault.Kind)
	}
	if s.Fault.DelayMS > 0 {
		text += fmt.Sprintf(" by %d ms", s.Fault.DelayMS)
	}
	if s.For > 0 {
		text += fmt.Sprintf(" for %.1fs", s.For.Seconds())
	}
	return text
}

// drainTime is what a worker is given in the plan to hand over and end.
const drainTime = 8 * time.Second

// MakePlan makes the steps of a time from a seed: the same for the same seed.
// But for outages, one worker at least is left alone at any time, and none has
// two things done to it at once. All are over when the time is.
func MakePlan(seed uint64, length time.Duration, workers []string, t Timing) []Step {
	r := rand.New(rand.NewPCG(seed, 0x686f6c6466617374))
	between := func(low, high time.Duration) time.Duration {
		return low + time.Duration(r.Int64N(int64(high-low)+1))
	}
	busy := map[string]time.Duration{} // until when
	var plan []Step
	// The first of each kind that matters most come early, so that a short plan
	// has them too.
	first := []What{Kill, Freeze, Part, Restart}
	r.Shuffle(len(first), func(i, j int) { first[i], first[j] = first[j], first[i] })
	for at := time.Second; ; at += between(time.Second, t.Takeover+2*time.Second) {
		if at >= length {
			return plan
		}
		s := Step{At: at, Seed: r.Uint64()}
		if len(first) > 0 {
			s.What = first[0]
		} else {
			s.What = pick(r)
		}
		free := slices.DeleteFunc(slices.Clone(workers), func(w string) bool { return busy[w] > at })
		impaired := len(workers) - len(free)
		needs := 1
		switch s.What {
		case Roll, Outage:
			needs = len(workers)
		case Lines, Deaf, Ban:
			needs = 0
		}
		if len(free) < needs || needs == 1 && impaired >= len(workers)-1 {
			continue
		}
		if needs == 1 {
			s.Worker = free[r.IntN(len(free))]
		}
		end := s.fill(r, between, t, len(workers))
		if end > length {
			continue
		}
		switch needs {
		case 1:
			busy[s.Worker] = end
		case len(workers):
			for _, w := range workers {
				busy[w] = end
			}
		}
		if len(first) > 0 {
			first = first[1:]
		}
		plan = append(plan, s)
	}
}

// pick chooses a kind by weight.
func pick(r *rand.Rand) What {
	total := 0
	for _, w := range whats {
		total += w.weight
	}
	n := r.IntN(total)
	for _, w := range whats {
		if n -= w.weight; n < 0 {
			return w.what
		}
	}
	return Kill
}

// fill chooses what a step of its kind needs and returns when it will be over.
func (s *Step) fill(r *rand.Rand, between func(low, high time.Duration) time.Duration, t Timing, workers int) (end time.Duration) {
	after := time.Duration(0)
	broken := []standin.FaultKind{standin.Hole, standin.Hole, standin.Refuse, standin.LoseReplies, standin.LoseRequests}
	switch s.What {
	case Kill:
		s.For, after = between(0, 2*t.Takeover), t.Takeover
	case Freeze:
		s.For, after = t.Takeover+between(time.Second, t.Takeover+3*time.Second), 2*time.Second
	case Doze:
		s.For = between(t.Heartbeat, t.Trust-t.Heartbeat)
	case Part:
		s.For, after = between(t.Heartbeat, 3*t.Takeover), 2*time.Second
		s.Service = [][]standin.Service{{standin.DynamoDB}, {standin.DynamoDB}, {standin.S3, standin.KMS}, standin.Services}[r.IntN(4)]
		s.Fault.Kind = broken[r.IntN(len(broken))]
	case Late:
		s.For = between(2*time.Second, 10*time.Second)
		s.Service = []standin.Service{standin.DynamoDB}
		s.Fault = standin.Fault{Kind: standin.Late, DelayMS: 20 + r.IntN(180), JitterMS: r.IntN(60)}
	case Restart:
		s.For, after = between(0, 2*time.Second), drainTime
	case Roll:
		after = time.Duration(workers) * (drainTime + 2*time.Second)
	case Outage:
		s.For, after = between(t.Trust, 2*t.Takeover), t.Takeover
		s.Service = []standin.Service{standin.DynamoDB}
		s.Fault.Kind = append(broken, standin.Throttle)[r.IntN(len(broken)+1)]
	case Deaf:
		s.For = between(time.Second, 8*time.Second)
	case Ban:
		// Of whole seconds, as the service says it; the last ban begins when the first ends.
		s.For = between(6*time.Second, 12*time.Second).Truncate(time.Second)
		after = s.For + 2*time.Second
	}
	return s.At + s.For + after
}
