package alarmtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/worker/deliver"
)

// scenario is something that goes wrong. Each minute of it each is called, where it
// is not nil.
type scenario struct {
	name              string
	begin, each, over func(*world)
}

// eachMinute is one whose end needs nothing done.
func eachMinute(name string, each func(*world)) scenario { return scenario{name: name, each: each} }

// event is one that a session's commit made durable.
func event(e state.EventType) func(*world) {
	return func(w *world) { w.any().metrics.Committed([]state.Event{{Type: e, Time: time.Now()}}) }
}

// becomes has a session in a state.
func becomes(s state.State) scenario {
	return scenario{name: string(s), begin: func(w *world) { w.is("a", s) }, over: func(w *world) { w.is("a", state.Online) }}
}

func turn(result string) func(*world) {
	return func(w *world) { w.any().metrics.Delivered(deliver.Outcome{Sink: deliver.SinkWebhook, Result: result}) }
}

// ends has ECS tell that a worker's task has stopped, and another worker come.
func ends(exit int) scenario {
	return scenario{name: fmt.Sprintf("exit code %d", exit), begin: func(w *world) {
		w.kill("w-2")
		_, err := w.gateway.Invoke(w.t.Context(), fmt.Appendf(nil, `{"source":"aws.ecs","detail-type":"ECS Task State Change","detail":{"taskArn":"arn:task:w-2","lastStatus":"STOPPED","containers":[{"name":"holdfast","exitCode":%d}]}}`, exit))
		w.must(err)
		w.revive()
	}}
}

// revive has a new worker take what nobody has.
func (w *world) revive() {
	id := fmt.Sprintf("w-%d", time.Now().Unix())
	w.join(id)
	for _, name := range []string{"a", "b", "c", "d"} {
		owned := slices.ContainsFunc(values(w.workers), func(l *living) bool { _, has := l.sessions[name]; return has })
		if !owned {
			w.take(name, id)
		}
	}
}

func values[K comparable, V any](m map[K]V) []V {
	var all []V
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// last are lines that processes have ended with.
func last(t *testing.T) map[string]string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "holdfast")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/holdfast").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	end := func(cmd *exec.Cmd) string {
		t.Helper()
		out, err := cmd.CombinedOutput()
		var ended *exec.ExitError
		if !errors.As(err, &ended) {
			t.Fatalf("%v ended otherwise: %v: %s", cmd.Args, err, out)
		}
		return string(out)
	}
	refuses := exec.Command(binary, "worker", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--trust", "20s")
	refuses.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "HOLDFAST_") }), "HOME="+t.TempDir())
	all := map[string]string{"settings that are refused": end(refuses)}
	for _, how := range []string{"panic", "fatal"} {
		dies := exec.Command(os.Args[0], "-test.run=^$")
		dies.Env = append(os.Environ(), dying+"="+how)
		all["a "+how] = end(dies)
	}
	return all
}

// dying has this program, run again, end as a Go program may.
const dying = "ALARMTEST_DIES_OF"

func TestMain(m *testing.M) {
	switch os.Getenv(dying) {
	case "panic":
		panic("of a test")
	case "fatal":
		new(sync.Mutex).Unlock() // which nothing recovers from
	}
	os.Exit(m.Run())
}

// scenarios are what each alarm is about, by its name.
func scenarios(t *testing.T) map[string][]scenario {
	t.Helper()
	all := map[string][]scenario{
		"sessions-unowned": {
			{name: "a session that nobody takes", begin: func(w *world) {
				l := w.workers["w-1"]
				w.must(w.store.Release(w.t.Context(), l.sessions["a"].Fence()))
				delete(l.sessions, "a")
			}, over: func(w *world) { w.take("a", "w-1") }},
			everybodyDead(), everythingDead(),
		},
		"workers-below-wanted": {oneDead(), everybodyDead(), everythingDead()},
		"workers-silent": {oneDead(), everybodyDead(), everythingDead(), {name: "lines that do not arrive",
			begin: func(w *world) { w.mute(true) }, over: func(w *world) { w.mute(false) }}},
		"sweep-not-running": {everythingDead(), {name: "a function that does not run",
			begin: func(w *world) { w.sweeps = false }, over: func(w *world) { w.sweeps = true }}},
		"capacity-nearly-used": {{name: "many sessions",
			begin: func(w *world) {
				for i := range 14 {
					w.session(fmt.Sprintf("more-%d", i), []string{"w-1", "w-2"}[i%2])
				}
			},
			over: func(w *world) {
				for i := range 14 {
					name, l := fmt.Sprintf("more-%d", i), w.workers[[]string{"w-1", "w-2"}[i%2]]
					w.must(w.store.RemoveSession(w.t.Context(), l.sessions[name].Fence()))
					delete(l.sessions, name)
				}
			}}},
		"pairings-stale":      {becomes(state.Pairing)},
		"workers-died":        {eachMinute("others declare it dead", func(w *world) { w.any().metrics.Leases().Died("w-0") }), ends(1)},
		"workers-killed":      {ends(137), ends(2)},
		"lease-trust-low":     {eachMinute("slow heartbeats", func(w *world) { w.any().metrics.Leases().Trust(2 * time.Second) })},
		"trust-lost":          {eachMinute("no heartbeat in time", func(w *world) { w.any().metrics.Leases().Fenced(2) })},
		"takeover-slow":       {eachMinute("late claims", func(w *world) { w.any().metrics.Leases().Taken("x", true, time.Minute) })},
		"reconnect-exhausted": {eachMinute("attempts used up", event(state.EventExhausted))},
		"outage":              {eachMinute("many fail at once", event(state.EventOutage))},
		"queue-filling":       {eachMinute("a receiver that is gone for days", event(state.EventQueueFilling))},
		"messages-undecryptable": {eachMinute("ratchets out of step", func(w *world) {
			for range 3 {
				event(state.EventUndecrypted)(w)
			}
		})},
		"fenced-writes": {eachMinute("a writer that is out of step", func(w *world) {
			o := w.workers["w-1"].sessions["a"]
			o.Epoch--
			_ = w.any().store.Commit(w.t.Context(), o.Fence(), "", []state.Write{state.Put(state.KindStatus, "", []byte("{}"))})
		})},
		"store-failing": {eachMinute("a store that is down", func(w *world) {
			w.faults.FailBefore(statetest.Of(statetest.Get), 3, nil)
			for range 3 {
				_, _ = w.any().store.Get(w.t.Context(), state.Fleet, state.Key{Kind: state.KindFleet, ID: "X"})
			}
		})},
		"sessions-logged-out":    {eachMinute("a phone unlinks it", func(w *world) { w.any().metrics.Sessions().Disconnected(state.CauseLoggedOut) })},
		"sessions-need-a-person": {becomes(state.Banned), becomes(state.Conflict), becomes(state.Failed)},
		"webhooks-failing":       {eachMinute("a receiver that is down", turn(deliver.ResultFailed))},
		"webhooks-refused":       {eachMinute("a receiver that refuses", turn(deliver.ResultRefused))},
	}
	for how, words := range last(t) {
		all["workers-crashing"] = append(all["workers-crashing"], eachMinute(how, func(w *world) {
			for line := range strings.Lines(words) {
				w.says(strings.TrimSuffix(line, "\n"))
			}
		}))
	}
	return all
}

func oneDead() scenario {
	return scenario{name: "one worker is dead", begin: func(w *world) {
		w.kill("w-2")
		w.take("b", "w-1")
		w.take("d", "w-1")
	}, over: func(w *world) { w.revive() }}
}

func everybodyDead() scenario {
	return scenario{name: "all workers are dead", begin: func(w *world) {
		w.kill("w-1")
		w.kill("w-2")
	}, over: func(w *world) {
		w.revive()
		w.join("w-9")
	}}
}

// everythingDead is the end of workers and function: nothing is written at all.
func everythingDead() scenario {
	s := everybodyDead()
	return scenario{name: "workers and function are dead", begin: func(w *world) { s.begin(w); w.sweeps = false },
		over: func(w *world) { s.over(w); w.sweeps = true }}
}

func (w *world) mute(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.workers {
		l.mute = on
	}
}

// aws says that the alarm is about what AWS writes of itself.
func (a alarm) aws() bool { return strings.HasPrefix(a.Stats[0].id.namespace, "AWS/") }

// nativeScenarios are one bad metric each, by itself.
func nativeScenarios(a alarm) []scenario {
	var all []scenario
	for _, m := range a.Stats {
		bad := a.Threshold + 1
		all = append(all, eachMinute(m.id.String(), func(w *world) { w.native.add(m.id, time.Now(), bad) }))
	}
	return all
}

// Each alarm is silent while all is well, fires when what it is about happens, and
// ends when that is over.
func TestAlarmsFire(t *testing.T) {
	alarms := alarmsOf(t)
	about := scenarios(t)
	for name, a := range alarms {
		if a.aws() {
			about[name] = nativeScenarios(a)
		}
		if len(about[name]) == 0 {
			t.Errorf("nothing shows that the alarm %s fires", name)
		}
	}
	filters := filtersOf(t)
	for name, list := range about {
		a, there := alarms[name]
		if !there {
			t.Errorf("there is no alarm %s", name)
			continue
		}
		for _, s := range list {
			t.Run(name+"/"+s.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { fires(t, a, s, filters) })
			})
		}
	}
}

// atMost is how late an alarm may be.
const atMost = 15 * time.Minute

// phase is for how long a world is well, broken, and well again: until no point of
// the phase before is looked at any more.
func (a alarm) phase() time.Duration {
	return max(25*time.Minute, time.Duration(a.In+beyond+1)*a.period())
}

func fires(t *testing.T, a alarm, s scenario, filters []filter) {
	w := emptyWorld(t)
	if !a.aws() {
		w = newWorld(t)
	}
	defer w.stop()
	w.filters = filters
	run := func(each func(*world)) (began time.Time) {
		began = time.Now()
		for range int(a.phase() / time.Minute) {
			w.minute(func() {
				if each != nil {
					each(w)
				}
			})
		}
		return began
	}
	call := func(f func(*world)) {
		if f != nil {
			f(w)
		}
	}
	began := run(nil)
	call(s.begin)
	broken := run(s.each)
	call(s.over)
	over := run(nil)
	stored := w.stored()

	// Before its periods have passed once, what is missing is what there never was.
	settled := began.Add(time.Duration(a.In+beyond) * a.period())
	for at := settled; !at.After(broken); at = at.Add(time.Minute) {
		if a.firing(stored, at) {
			t.Fatalf("it fires %v after the beginning, and all is well", at.Sub(began))
		}
	}
	fired := time.Time{}
	for at := broken; !at.After(over) && fired.IsZero(); at = at.Add(time.Minute) {
		if a.firing(stored, at) {
			fired = at
		}
	}
	if fired.IsZero() {
		t.Fatalf("it never fires; there are %d points of %v", len(stored[a.Stats[0].id]), a.Stats[0].id)
	}
	if after := fired.Sub(broken); after > atMost {
		t.Errorf("it fires only after %v", after)
	}
	ended := time.Time{}
	for at := over; !at.After(over.Add(a.phase())); at = at.Add(time.Minute) {
		switch firing := a.firing(stored, at); {
		case firing:
			ended = time.Time{}
		case ended.IsZero():
			ended = at
		}
	}
	if ended.IsZero() {
		t.Fatalf("it still fires %v after the end", a.phase())
	}
	t.Logf("fires %v after the beginning, ends %v after the end", fired.Sub(broken), ended.Sub(over))
}

// When nothing is written any more, what tells of that fires, and only that.
func TestAlarmsWhenNothingIsWritten(t *testing.T) {
	alarms := alarmsOf(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 60 {
			w.minute(nil)
		}
		everythingDead().begin(w)
		for range 30 {
			w.minute(nil)
		}
		var firing []string
		stored := w.stored()
		for name, a := range alarms {
			if a.firing(stored, time.Now()) {
				firing = append(firing, name)
			}
		}
		slices.Sort(firing)
		if want := []string{"sessions-unowned", "sweep-not-running", "workers-below-wanted", "workers-silent"}; !slices.Equal(firing, want) {
			t.Errorf("firing are %v, want %v", firing, want)
		}
	})
}

// All alarms are silent through hours of a fleet that is well.
func TestAlarmsAreSilentWhileAllIsWell(t *testing.T) {
	alarms, filters := alarmsOf(t), filtersOf(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.filters = filters
		began := time.Now()
		for range 4 * 60 {
			w.minute(nil)
		}
		w.says(`{"time":"2026-05-06T07:08:09Z","level":"ERROR","msg":"holdfast: panic: a line of the log that speaks of it"}`)
		stored := w.stored()
		for name, a := range alarms {
			for at := began.Add(time.Duration(a.In+beyond) * a.period()); !at.After(time.Now()); at = at.Add(time.Minute) {
				if a.firing(stored, at) {
					t.Errorf("%s fires after %v", name, at.Sub(began))
					break
				}
			}
		}
	})
}
