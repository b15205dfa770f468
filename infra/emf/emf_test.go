package emf_test

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-wa/holdfast/infra/emf"
	"github.com/holdfast-wa/holdfast/infra/emf/emftest"
)

// A line is what the specification says, to the letter.
func TestALine(t *testing.T) {
	var out bytes.Buffer
	line := emf.Line{Fleet: "prod", At: time.UnixMilli(1_700_000_000_123), Metrics: []emf.Metric{
		emf.One("Online", 3, "Count"), {Name: "Took", Unit: "Seconds", Values: []float64{0.5, 1}}},
		Properties: map[string]any{"Worker": "w-1"}}
	if err := emf.Write(&out, line); err != nil {
		t.Fatal(err)
	}
	const want = `{"Fleet":"prod","Online":3,"Took":[0.5,1],"Worker":"w-1","_aws":{"Timestamp":1700000000123,"CloudWatchMetrics":[` +
		`{"Namespace":"Holdfast","Dimensions":[["Fleet"]],"Metrics":[{"Name":"Online","Unit":"Count"},{"Name":"Took","Unit":"Seconds"}]}]}}` + "\n"
	if out.String() != want {
		t.Errorf("%s\nwant %s", out.String(), want)
	}
	points, err := emftest.Line(out.Bytes())
	if err != nil || len(points) != 2 || points[1].Name != "Took" || !slices.Equal(points[1].Values, []float64{0.5, 1}) ||
		!maps.Equal(points[0].Dimensions, map[string]string{"Fleet": "prod"}) || points[0].At.UnixMilli() != 1_700_000_000_123 {
		t.Errorf("%+v, %v", points, err)
	}
}

// What CloudWatch would drop without a word is not written.
func TestLinesThatAreNone(t *testing.T) {
	one := emf.One("A", 1, "Count")
	for name, line := range map[string]emf.Line{
		"no fleet":           {Metrics: []emf.Metric{one}},
		"no metrics":         {Fleet: "f"},
		"too many metrics":   {Fleet: "f", Metrics: many(101)},
		"no name":            {Fleet: "f", Metrics: []emf.Metric{emf.One("", 1, "Count")}},
		"a reserved name":    {Fleet: "f", Metrics: []emf.Metric{emf.One("_aws", 1, "Count")}},
		"no unit":            {Fleet: "f", Metrics: []emf.Metric{emf.One("A", 1, "Pieces")}},
		"no values":          {Fleet: "f", Metrics: []emf.Metric{{Name: "A", Unit: "Count"}}},
		"too many values":    {Fleet: "f", Metrics: []emf.Metric{{Name: "A", Unit: "Count", Values: make([]float64, 101)}}},
		"not a number":       {Fleet: "f", Metrics: []emf.Metric{emf.One("A", math.NaN(), "Count")}},
		"without an end":     {Fleet: "f", Metrics: []emf.Metric{emf.One("A", math.Inf(1), "Count")}},
		"a name twice":       {Fleet: "f", Metrics: []emf.Metric{one, one}},
		"a property's name":  {Fleet: "f", Metrics: []emf.Metric{one}, Properties: map[string]any{"A": "b"}},
		"a dimension's name": {Fleet: "f", Metrics: []emf.Metric{emf.One("Fleet", 1, "Count")}},
		"a line too long":    {Fleet: "f", Metrics: []emf.Metric{one}, Properties: map[string]any{"B": strings.Repeat("x", 1<<20)}},
	} {
		var out bytes.Buffer
		if err := emf.Write(&out, line); err == nil || out.Len() != 0 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, %d bytes", name, err, out.Len())
		}
	}
	if err := emf.Write(&bytes.Buffer{}, emf.Line{Fleet: "f", Metrics: many(100)}); err != nil {
		t.Error(err)
	}
}

func many(n int) []emf.Metric {
	var all []emf.Metric
	for i := range n {
		all = append(all, emf.One("M"+strings.Repeat("i", i), 1, "Count"))
	}
	return all
}

// The reader of the tests refuses what CloudWatch would.
func TestTheReaderIsStrict(t *testing.T) {
	const good = `{"Fleet":"f","A":1,"_aws":{"Timestamp":1,"CloudWatchMetrics":[{"Namespace":"N","Dimensions":[["Fleet"]],"Metrics":[{"Name":"A","Unit":"Count"}]}]}}`
	if _, err := emftest.Line([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for what, with := range map[string]string{
		`"A":1,`: ``, `"A":1`: `"A":"1"`, `"Fleet":"f"`: `"Fleet":7`, `"Timestamp":1,`: ``, `"Unit":"Count"`: `"Unit":"Counts"`,
		`"Namespace":"N",`: ``, `[["Fleet"]]`: `[]`, `{"Name":"A","Unit":"Count"}`: ``, `"CloudWatchMetrics":[`: `"Extra":1,"CloudWatchMetrics":[`,
		`"Name":"A"`: `"Name":"A","Value":1`, `}]}}`: `}]}} trailing`,
	} {
		bad := strings.Replace(good, what, with, 1)
		if _, err := emftest.Line([]byte(bad)); err == nil || bad == good {
			t.Errorf("taken: %s", bad)
		}
	}
	log := "plain text\n{\"msg\":\"a log line\"}\n" + good + "\n"
	if points, err := emftest.Lines([]byte(log)); err != nil || len(points) != 1 {
		t.Errorf("%v, %v", points, err)
	}
	if _, err := emftest.Lines([]byte(strings.Replace(log, `"A":1`, `"A":[]`, 1))); err == nil {
		t.Error("a damaged line in a log was skipped")
	}
}

// sink keeps what was written, and can fail.
type sink struct {
	mu    sync.Mutex
	lines bytes.Buffer
	fails bool
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails {
		return 0, errors.New("no space left")
	}
	return s.lines.Write(p)
}

func (s *sink) fail(fails bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = fails
}

// take reads what was written since the last time, by name.
func (s *sink) take(t *testing.T) map[string]emftest.Point {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	points, err := emftest.Lines(s.lines.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(s.lines.Bytes(), []byte("\n")); n > 1 {
		t.Fatalf("%d lines:\n%s", n, s.lines.Bytes())
	}
	s.lines.Reset()
	all := map[string]emftest.Point{}
	for _, p := range points {
		all[p.Name] = p
	}
	return all
}

type bench struct {
	registry *prometheus.Registry
	gauge    prometheus.Gauge
	count    prometheus.Counter
	by       *prometheus.CounterVec
	took     prometheus.Histogram
	out      sink
	end      chan struct{}
	done     chan struct{}
}

func newBench() *bench {
	b := &bench{registry: prometheus.NewRegistry(), end: make(chan struct{}), done: make(chan struct{}),
		gauge: prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"}),
		count: prometheus.NewCounter(prometheus.CounterOpts{Name: "c"}),
		by:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "by"}, []string{"cause", "who"}),
		took:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Buckets: []float64{1, 2, 4}})}
	b.registry.MustRegister(b.gauge, b.count, b.by, b.took)
	return b
}

func (b *bench) start() {
	e := emf.New(emf.Config{From: b.registry, Fleet: "prod", To: &b.out, Every: time.Minute,
		Properties: func() map[string]any { return map[string]any{"Worker": "w-1"} },
		Rows: []emf.Row{
			{Name: "G", Unit: "Count", From: "g", Always: true},
			{Name: "Rare", Unit: "Count", Kind: emf.Count, From: "c"},
			{Name: "Mine", Unit: "Count", Kind: emf.Count, From: "by", Where: map[string]string{"who": "me"}, Always: true},
			{Name: "All", Unit: "Count", Kind: emf.Count, From: "by", Always: true},
			{Name: "AllLost", Unit: "Count", Kind: emf.Count, From: "by", Where: map[string]string{"cause": "lost"}},
			{Name: "All", Unit: "Count", Kind: emf.Count, From: "by", Each: "cause"},
			{Name: "Took", Unit: "Seconds", Kind: emf.Spread, From: "h"},
			{Name: "Absent", Unit: "Count", From: "no_such_metric"},
		}})
	go func() {
		defer close(b.done)
		e.Run(b.end)
	}()
}

// Counters are told by what was added, gauges as they are, each once and at the
// boundaries of the clock.
func TestCountsSinceTheLastLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(17 * time.Second) // off the boundary
		b := newBench()
		b.gauge.Set(7)
		b.count.Add(2) // before the first line counts too
		b.by.WithLabelValues("lost", "me").Add(3)
		b.by.WithLabelValues("logged_out", "you").Add(4)
		b.start()
		minute := func() map[string]emftest.Point {
			time.Sleep(time.Minute)
			synctest.Wait()
			return b.out.take(t)
		}
		got := minute()
		for name, want := range map[string]float64{"G": 7, "Rare": 2, "Mine": 3, "All": 7, "AllLost": 3, "AllLoggedOut": 4} {
			if p := got[name]; len(p.Values) != 1 || p.Values[0] != want || p.At.Second() != 0 || p.At.Nanosecond() != 0 || p.Dimensions["Fleet"] != "prod" || p.Namespace != "Holdfast" {
				t.Errorf("%s: %+v, want %g", name, p, want)
			}
		}
		if len(got) != 6 {
			t.Errorf("%d metrics: %v", len(got), got)
		}
		before := got["G"].At
		b.by.WithLabelValues("lost", "me").Inc()
		b.gauge.Set(5)
		got = minute()
		if got["G"].At.Sub(before) != time.Minute || got["G"].Values[0] != 5 || got["Mine"].Values[0] != 1 || got["All"].Values[0] != 1 || got["AllLost"].Values[0] != 1 {
			t.Errorf("%v", got)
		}
		for _, absent := range []string{"Rare", "AllLoggedOut", "Took", "Absent"} {
			if p, there := got[absent]; there {
				t.Errorf("nothing has happened, and there is %+v", p)
			}
		}
		if got = minute(); len(got) != 3 || got["Mine"].Values[0] != 0 || got["All"].Values[0] != 0 {
			t.Errorf("a quiet minute: %v", got)
		}

		// What could not be written is in the next line.
		b.out.fail(true)
		b.by.WithLabelValues("lost", "me").Add(10)
		b.took.Observe(1.5)
		minute()
		b.out.fail(false)
		b.by.WithLabelValues("lost", "me").Add(5)
		if got = minute(); got["Mine"].Values[0] != 15 || len(got["Took"].Values) != 1 {
			t.Errorf("after a line that was lost: %v", got)
		}

		// A registry that begins anew at zero: what it has is what was added.
		b.by.Reset()
		b.by.WithLabelValues("lost", "me").Add(2)
		if got = minute(); got["Mine"].Values[0] != 2 || got["All"].Values[0] != 2 {
			t.Errorf("after a reset: %v", got)
		}

		// The last line has what was counted since, and no gauges.
		b.count.Inc()
		close(b.end)
		<-b.done
		if got = b.out.take(t); len(got) != 3 || got["Rare"].Values[0] != 1 {
			t.Errorf("at the end: %v", got)
		}
	})
}

// A process that was stopped for minutes tells of the last boundary only.
func TestOneLineAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		slow := make(chan struct{})
		b.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "slow"}, func() float64 { <-slow; return 0 }))
		b.start()
		time.Sleep(time.Minute + time.Second)
		synctest.Wait() // it is reading
		time.Sleep(5 * time.Minute)
		close(slow)
		synctest.Wait()
		first := b.out.take(t)
		time.Sleep(time.Minute)
		synctest.Wait()
		second := b.out.take(t)
		if d := second["G"].At.Sub(first["G"].At); d != 6*time.Minute {
			t.Errorf("%v between the lines", d)
		}
		close(b.end)
		<-b.done
	})
}

// Of a histogram come as many values as there were observations, or as fit.
func TestSpreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.start()
		minute := func(observe func()) []float64 {
			observe()
			time.Sleep(time.Minute)
			synctest.Wait()
			return b.out.take(t)["Took"].Values
		}
		if got := minute(func() { b.took.Observe(0.5); b.took.Observe(1.5); b.took.Observe(1.6); b.took.Observe(100) }); !slices.Equal(got, []float64{1, 2, 2, 4}) {
			t.Errorf("%v", got)
		}
		if got := minute(func() { b.took.Observe(3) }); !slices.Equal(got, []float64{4}) {
			t.Errorf("%v", got)
		}
		got := minute(func() {
			for range 100_000 {
				b.took.Observe(0.5)
			}
			b.took.Observe(3)
		})
		if len(got) > 100 || len(got) < 90 || got[0] != 1 || got[len(got)-1] != 4 || got[len(got)-2] != 1 {
			t.Errorf("%d values: %v", len(got), got)
		}
		close(b.end)
		<-b.done
	})
}

// The worker's rows make names of their own that fit into a line.
func TestTheWorkersRows(t *testing.T) {
	names := map[string]bool{}
	for _, r := range emf.WorkerRows() {
		if r.Each == "" && names[r.Name] {
			t.Errorf("%s is made twice", r.Name)
		}
		names[r.Name] = true
		if !strings.HasPrefix(r.From, "holdfast_") || r.Unit == "" {
			t.Errorf("%+v", r)
		}
	}
}
