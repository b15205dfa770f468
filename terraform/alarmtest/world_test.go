package alarmtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/infra/emf"
	"github.com/holdfast-wa/holdfast/infra/emf/emftest"
	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/infra/gateway"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/worker"
	"github.com/holdfast-wa/holdfast/worker/deliver"
)

// capacity is that of each worker.
const capacity = 10

// world is a fleet in virtual time. Metrics, their lines and the sweep are the
// program's own; who has which session, the test says.
type world struct {
	t       *testing.T
	store   *memory.Store
	faults  *statetest.FaultStore
	gateway *gateway.Gateway
	workers map[string]*living
	sweeps  bool     // the function runs
	native  series   // what AWS would write of itself
	filters []filter // of the workers' log

	mu        sync.Mutex
	workerLog bytes.Buffer
	lambdaLog bytes.Buffer
}

// living is a worker that beats and writes its lines.
type living struct {
	metrics  *worker.Metrics
	store    state.Store // as it sees it: measured
	sessions map[string]state.Owner
	owned    atomic.Int64 // as many, for its metrics
	end      chan struct{}
	done     chan struct{}
	mute     bool // what it writes is lost: its end
}

// Write is a worker's log.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.workerLog.Write(p)
}

type lambdaLog struct{ w *world }

func (l lambdaLog) Write(p []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.lambdaLog.Write(p)
}

type nothing struct{}

func (nothing) ServeHTTP(http.ResponseWriter, *http.Request) {}

// emptyWorld has neither workers nor a function.
func emptyWorld(t *testing.T) *world {
	return &world{t: t, workers: map[string]*living{}, native: series{}}
}

// newWorld is a healthy fleet of as many workers as are wanted.
func newWorld(t *testing.T) *world {
	w := emptyWorld(t)
	w.sweeps = true
	w.store = memory.New(time.Now)
	w.faults = statetest.Fault(w.store)
	var err error
	w.gateway, err = gateway.New(gateway.Config{API: nothing{}, Store: w.store, Fleet: "prod", Metrics: lambdaLog{w},
		View: fleet.NewView(fleet.ViewConfig{Members: w.store, MaxAge: -1})})
	if err != nil {
		t.Fatal(err)
	}
	for i := range wanted {
		w.join(fmt.Sprintf("w-%d", i+1))
	}
	for i, name := range []string{"a", "b", "c", "d"} {
		w.session(name, fmt.Sprintf("w-%d", i%wanted+1))
	}
	w.create("stopped", state.WantStopped)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) join(id string) *living {
	w.t.Helper()
	_, err := w.store.Join(w.t.Context(), id, state.MemberInfo{Capacity: capacity, Task: "arn:task:" + id, Since: time.Now()})
	w.must(err)
	l := &living{metrics: worker.NewMetrics(), sessions: map[string]state.Owner{}, end: make(chan struct{}), done: make(chan struct{})}
	l.store = worker.Measured(w.faults, l.metrics)
	l.metrics.Serving(func() int { return int(l.owned.Load()) }, capacity)
	l.metrics.Scheduled(func() int { return 0 })
	l.metrics.Leases().Trust(6 * time.Second)
	w.workers[id] = l
	lines := emf.New(emf.Config{From: l.metrics.Registry, Rows: emf.WorkerRows(), Fleet: "prod", To: unless{&l.mute, w}, Every: time.Minute,
		Properties: func() map[string]any { return map[string]any{"Worker": id, "Version": "devel"} }})
	go func() {
		defer close(l.done)
		lines.Run(l.end)
	}()
	return l
}

// unless swallows what a process would have written that is no more.
type unless struct {
	mute *bool
	to   *world
}

func (u unless) Write(p []byte) (int, error) {
	u.to.mu.Lock()
	mute := *u.mute
	u.to.mu.Unlock()
	if mute {
		return len(p), nil
	}
	return u.to.Write(p)
}

// kill ends a worker as SIGKILL does: no word more, and its sessions are nobody's
// until somebody takes them.
func (w *world) kill(id string) {
	l := w.workers[id]
	w.mu.Lock()
	l.mute = true
	w.mu.Unlock()
	close(l.end)
	<-l.done
	delete(w.workers, id)
}

func (w *world) create(name string, wish state.Wanted) {
	w.t.Helper()
	value, err := state.Encode(state.Spec{V: state.Format, Name: name, Wanted: wish, Generation: 1})
	w.must(err)
	w.must(w.store.CreateSession(w.t.Context(), name, []state.Write{state.Put(state.KindSpec, "", value)}))
}

// session makes one that a worker has and that is online.
func (w *world) session(name, owner string) {
	w.t.Helper()
	w.create(name, state.WantRunning)
	w.take(name, owner)
}

// take has a worker take a session, whoever had it.
func (w *world) take(name, id string) {
	w.t.Helper()
	for _, l := range w.workers {
		delete(l.sessions, name)
	}
	o, err := statetest.Take(w.t.Context(), w.store, name, id)
	w.must(err)
	w.workers[id].sessions[name] = o
	w.is(name, state.Online)
}

// is what a session's owner says that it is in.
func (w *world) is(name string, s state.State) {
	w.t.Helper()
	for _, l := range w.workers {
		if o, has := l.sessions[name]; has {
			value, err := state.Encode(state.Status{V: state.Format, State: s, Since: time.Now()})
			w.must(err)
			w.must(l.store.Commit(w.t.Context(), o.Fence(), "", []state.Write{state.Put(state.KindStatus, "", value)}))
			l.metrics.Sessions().State(name, s)
		}
	}
}

// any is one of the workers, the same each time.
func (w *world) any() *living {
	w.t.Helper()
	ids := slices.Sorted(maps.Keys(w.workers))
	if len(ids) == 0 {
		w.t.Fatal("no worker is alive")
	}
	return w.workers[ids[0]]
}

// minute lets a minute pass: half of it, then what happens, the heartbeats and the
// sweep, then the other half, at whose end workers write their lines.
func (w *world) minute(happens func()) {
	w.t.Helper()
	time.Sleep(30 * time.Second)
	for _, id := range slices.Sorted(maps.Keys(w.workers)) {
		w.traffic(w.workers[id])
	}
	if happens != nil {
		happens()
	}
	for id, l := range w.workers {
		l.owned.Store(int64(len(l.sessions)))
		w.must(w.store.Beat(w.t.Context(), id, state.Load{Sessions: len(l.sessions), Online: len(l.sessions), At: time.Now()}))
	}
	if w.sweeps {
		if _, err := w.gateway.Invoke(w.t.Context(), []byte(`{"source":"aws.events","detail-type":"Scheduled Event","detail":{}}`)); err != nil {
			w.t.Fatal(err)
		}
	}
	time.Sleep(30 * time.Second)
	synctest.Wait() // the workers write their lines at this moment
}

// traffic is a minute of a worker that is well. Networks break, receivers stumble
// once, transactions meet, a takeover takes two seconds.
func (w *world) traffic(l *living) {
	m := l.metrics
	m.Committed([]state.Event{{Type: state.EventMessage, Time: time.Now()}, {Type: state.EventMessage, Time: time.Now()}})
	m.Sessions().Sent(true)
	m.Delivered(deliver.Outcome{Sink: deliver.SinkWebhook, Result: deliver.ResultDelivered, Events: 2})
	m.Leases().Trust(6 * time.Second)
	for _, o := range l.sessions {
		value, err := state.Encode(state.Meta{V: state.Format})
		w.must(err)
		w.must(l.store.Commit(w.t.Context(), o.Fence(), "", []state.Write{state.Put(state.KindMeta, "", value)}))
	}
	if time.Now().Minute()%20 == 7 {
		m.Sessions().Disconnected(state.CauseNetwork)
		m.Sessions().Reconnected(4 * time.Second)
		m.Delivered(deliver.Outcome{Sink: deliver.SinkWebhook, Result: deliver.ResultFailed})
		m.Retried("conflict")
		m.Retried("throttled")
		m.Leases().Taken("x", true, 2*time.Second)
		m.Committed([]state.Event{{Type: state.EventUndecrypted}})
		w.faults.FailBefore(statetest.Of(statetest.Roster), 1, nil)
		_, _ = l.store.Roster(w.t.Context())
	}
}

// stop ends the workers, as a test must.
func (w *world) stop() {
	for _, id := range slices.Sorted(maps.Keys(w.workers)) {
		w.kill(id)
	}
}

// filter is a metric filter of the workers' log.
type filter struct {
	id      metricID
	pattern *regexp.Regexp
}

// stored is all that CloudWatch has stored: what the logs had, and what AWS wrote.
func (w *world) stored() series {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	all := series{}
	for id, points := range w.native {
		all[id] = slices.Clone(points)
	}
	for _, log := range []*bytes.Buffer{&w.workerLog, &w.lambdaLog} {
		points, err := emftest.Lines(log.Bytes())
		w.must(err)
		for _, p := range points {
			all.add(idOf(p.Namespace, p.Name, p.Dimensions), p.At, p.Values...)
		}
	}
	for line := range strings.Lines(w.workerLog.String()) {
		stamp, text, found := strings.Cut(line, plain)
		if !found {
			continue
		}
		at, err := time.Parse(time.RFC3339, stamp)
		w.must(err)
		for _, f := range w.filters {
			if f.pattern.MatchString(strings.TrimSuffix(text, "\n")) {
				all.add(f.id, at, 1)
			}
		}
	}
	return all
}

// plain stands between the time at which CloudWatch took a line in and the line, where
// that has no time of its own.
const plain = " took in: "

// says writes a line that is no metrics into the workers' log.
func (w *world) says(line string) {
	fmt.Fprintf(w, "%s%s%s\n", time.Now().UTC().Format(time.RFC3339), plain, line)
}

// filtersOf are the metric filters that the module makes.
func filtersOf(t *testing.T) []filter {
	t.Helper()
	var all []filter
	for _, m := range resources(t, "aws_cloudwatch_log_metric_filter") {
		var v struct {
			Pattern string `json:"pattern"`
			Metric  []struct {
				Namespace string `json:"namespace"`
				Name      string `json:"name"`
				Value     string `json:"value"`
			} `json:"metric_transformation"`
		}
		if err := json.Unmarshal(m.Values, &v); err != nil {
			t.Fatal(err)
		}
		// CloudWatch writes regular expressions between % and knows a part of them.
		text := strings.Trim(v.Pattern, "%")
		if len(v.Pattern) != len(text)+2 || !knownToCloudWatch.MatchString(text) || len(v.Metric) != 1 || v.Metric[0].Value != "1" {
			t.Fatalf("filter %s: %s", v.Pattern, m.Values)
		}
		pattern, err := regexp.Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, filter{idOf(v.Metric[0].Namespace, v.Metric[0].Name, nil), pattern})
	}
	return all
}

// knownToCloudWatch are the characters of its regular expressions: letters, digits,
// the symbols : _ # = @ / ; , - and its operators ^ $ ? [ ] { } | \ * + . ( ).
var knownToCloudWatch = regexp.MustCompile(`^[A-Za-z0-9:_#=@/;,\-^$?\[\]{}|\\*+.()]+$`)
