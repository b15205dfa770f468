package chaos

import (
	"reflect"
	"testing"
	"time"
)

var (
	short   = Timing{Heartbeat: 500 * time.Millisecond, Trust: 2 * time.Second, Takeover: 3 * time.Second, Poll: 500 * time.Millisecond}
	workers = []string{"w1", "w2", "w3"}
)

func TestPlan(t *testing.T) {
	kinds := map[What]int{}
	for seed := range uint64(200) {
		length := 2 * time.Minute
		plan := MakePlan(seed, length, workers, short)
		if !reflect.DeepEqual(plan, MakePlan(seed, length, workers, short)) {
			t.Fatalf("seed %d: two plans", seed)
		}
		if len(plan) < 10 {
			t.Errorf("seed %d: only %d steps", seed, len(plan))
		}
		mine := map[What]bool{}
		for i, s := range plan {
			kinds[s.What]++
			mine[s.What] = true
			if s.At+s.For > length || i > 0 && s.At < plan[i-1].At {
				t.Errorf("seed %d: step %d: %v", seed, i, s)
			}
			if s.What == Freeze && s.For < short.Takeover+time.Second || s.What == Doze && s.For >= short.Trust {
				t.Errorf("seed %d: %v", seed, s)
			}
			impaired := map[string]bool{}
			for _, o := range plan[:i] {
				if o.At+o.For <= s.At || o.Worker == "" {
					continue
				}
				impaired[o.Worker] = true
				if o.Worker == s.Worker {
					t.Errorf("seed %d: %v while %v", seed, s, o)
				}
			}
			if s.Worker != "" {
				impaired[s.Worker] = true
			}
			if len(impaired) >= len(workers) {
				t.Errorf("seed %d: %v leaves no worker alone", seed, s)
			}
		}
		for _, w := range []What{Kill, Freeze, Part, Restart} {
			if !mine[w] {
				t.Errorf("seed %d: no %s", seed, w)
			}
		}
	}
	for _, w := range whats {
		if kinds[w.what] == 0 {
			t.Errorf("no plan has a %s", w.what)
		}
	}
	if reflect.DeepEqual(MakePlan(1, time.Minute, workers, short), MakePlan(2, time.Minute, workers, short)) {
		t.Error("two seeds, one plan")
	}
}

// Two steps of bans do not run at the same time, and hold up nothing else.
func TestBansOneAtATime(t *testing.T) {
	h := &harness{busy: map[string]bool{}, count: map[What]int{}}
	ban := Step{What: Ban}
	if !h.take(ban) || h.take(ban) {
		t.Error("the second was not left out")
	}
	if !h.take(Step{What: Kill, Worker: "w1"}) {
		t.Error("a kill was left out")
	}
	h.give(ban)
	if !h.take(ban) {
		t.Error("one after the other was left out")
	}
}
