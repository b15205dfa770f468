package lease

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// detecting says that the race detector watches, which takes ten times as long.
var detecting bool

// TestSchedules lives through thousands of worlds, in each of which another seed
// says what goes wrong: crashes, freezes, suspensions, partitions, slow, lost and
// late answers, clocks that run apart, joins, drains, outages. In each, what the
// server and the store see must keep the invariants, and the owners that the
// workers saw must be those of one register a session.
//
// The seed decides what happens when; what happens within the same nanosecond is
// the scheduler's to decide, so that a seed may need more than one run.
func TestSchedules(t *testing.T) {
	if seed, ok := envInt(t, "HOLDFAST_SEED"); ok {
		w := run(t, seed, defaultPlan(), true)
		t.Log("\n" + w.trace.String())
		report(t, w)
		return
	}
	count := uint64(5000)
	if detecting {
		count = 500
	}
	if n, ok := envInt(t, "HOLDFAST_SCHEDULES"); ok {
		count = n
	}
	var mu sync.Mutex
	totals := make(map[string]int)
	begun := time.Now()
	const shards = 4
	t.Run("all", func(t *testing.T) {
		for shard := range uint64(shards) {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				for seed := 1 + shard; seed <= count && !t.Failed(); seed += shards {
					w := run(t, seed, defaultPlan(), false)
					report(t, w)
					mu.Lock()
					for what, n := range w.counts {
						totals[what] += n
					}
					totals["longest quiet, ms"] = max(totals["longest quiet, ms"], int(w.quiet.Milliseconds()))
					mu.Unlock()
				}
			})
		}
	})
	lines := []string{fmt.Sprintf("%d schedules in %s", count, time.Since(begun).Round(time.Millisecond))}
	for _, what := range slices.Sorted(maps.Keys(totals)) {
		lines = append(lines, fmt.Sprintf("%9d %s", totals[what], what))
	}
	t.Log(strings.Join(lines, "\n"))
	if count < 500 || t.Failed() {
		return
	}
	for _, what := range []string{"claimed", "connections", "declared dead", "drained", "fenced", "handed over", "joined again",
		"kicks of frozen holders", "messages", "released", "taken over"} {
		if totals[what] == 0 {
			t.Errorf("the schedules prove nothing of what never happened: %s", what)
		}
	}
}

func report(t *testing.T, w *world) {
	t.Helper()
	for _, v := range w.faults {
		t.Errorf("seed %d: %s: %s", w.seed, v.rule, v.what)
	}
	if err := w.register.check(30 * time.Second); err != nil {
		t.Errorf("seed %d: %v", w.seed, err)
	}
	if t.Failed() {
		t.Logf("to see all that happens: HOLDFAST_SEED=%d go test -v -run TestSchedules ./worker/lease", w.seed)
	}
}
