package emf

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Kind is what a row makes of a Prometheus metric.
type Kind uint8

// The kinds.
const (
	Gauge  Kind = iota // its value
	Count              // of a counter: what was added since the last line
	Spread             // of a histogram: the observations since the last line, as upper bounds of their buckets
)

// Row makes one metric for CloudWatch of a Prometheus one.
type Row struct {
	Name string
	Unit string
	Kind Kind
	From string // the Prometheus metric
	// Where are the values of labels that count; of other labels all count, and are
	// added up.
	Where map[string]string
	// Each, where not empty, is a label: each of its values makes a metric of its
	// own, Name and the value in CamelCase, but for one that an earlier row has made.
	Each string
	// Always has it written also while it is zero.
	Always bool
}

// Exporter writes a registry's metrics as lines.
type Exporter struct {
	c    Config
	last map[string]float64 // counters as they were in the last line
}

// Config is what an Exporter stands on. From, Rows, Fleet and To must be set.
type Config struct {
	From  prometheus.Gatherer
	Rows  []Row
	Fleet string
	To    io.Writer
	Every time.Duration // default a minute
	// Properties are asked for what stands in a line beside the metrics; nil:
	// nothing does.
	Properties func() map[string]any
	Log        *slog.Logger
}

// New makes an Exporter. What was counted before is in its first line.
func New(c Config) *Exporter {
	if c.Every <= 0 {
		c.Every = time.Minute
	}
	if c.Properties == nil {
		c.Properties = func() map[string]any { return nil }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Exporter{c: c, last: map[string]float64{}}
}

// Run writes a line at each multiple of the interval until end is closed, and then
// one with what was counted since. That one has no gauges: others have the sessions
// then, and the fleet's sum would have them twice.
func (e *Exporter) Run(end <-chan struct{}) {
	for {
		now := time.Now()
		timer := time.NewTimer(now.Truncate(e.c.Every).Add(e.c.Every).Sub(now))
		select {
		case <-timer.C:
			// The boundary, not the moment: a timer that is late must not move the point
			// into the next interval. After a pause only the last one is made up for.
			e.write(time.Now().Truncate(e.c.Every), true)
		case <-end:
			timer.Stop()
			e.write(time.Now(), false)
			return
		}
	}
}

func (e *Exporter) write(at time.Time, gauges bool) {
	families, err := e.c.From.Gather()
	if err != nil { // what could be gathered is there nonetheless
		e.c.Log.Warn("some metrics could not be read", "error", err)
	}
	by := make(map[string]*dto.MetricFamily, len(families))
	for _, f := range families {
		by[f.GetName()] = f
	}
	line := Line{Fleet: e.c.Fleet, At: at, Properties: e.c.Properties()}
	seen, made := make(map[string]float64, len(e.last)), map[string]bool{}
	for _, row := range e.c.Rows {
		if row.Kind == Gauge && !gauges {
			continue
		}
		for _, m := range e.metrics(row, by[row.From], seen) {
			if made[m.Name] || !row.Always && row.Kind != Spread && m.Values[0] == 0 {
				continue
			}
			made[m.Name] = true
			line.Metrics = append(line.Metrics, m)
		}
	}
	if len(line.Metrics) == 0 {
		return
	}
	if err := Write(e.c.To, line); err != nil {
		e.c.Log.Error("the next line has what this one would have had", "error", err)
		return
	}
	maps.Copy(e.last, seen)
}

// metrics are those that a row makes, in the order of their names. What counters
// are at is put into seen.
func (e *Exporter) metrics(row Row, f *dto.MetricFamily, seen map[string]float64) []Metric {
	values := map[string]float64{}
	observed := map[float64]int{}
	if row.Each == "" && row.Kind != Spread {
		values[row.Name] = 0
	}
	for _, m := range f.GetMetric() {
		if !matches(m, row.Where) {
			continue
		}
		name := row.Name
		if row.Each != "" {
			name += camel(label(m, row.Each))
		}
		switch row.Kind {
		case Gauge:
			values[name] += m.GetGauge().GetValue()
		case Count:
			values[name] += e.grown(row.From+key(m), m.GetCounter().GetValue(), seen)
		case Spread:
			e.buckets(row.From+key(m), m.GetHistogram(), observed, seen)
		}
	}
	if row.Kind == Spread {
		if list := spread(observed); len(list) > 0 {
			return []Metric{{Name: row.Name, Unit: row.Unit, Values: list}}
		}
		return nil
	}
	var all []Metric
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if v := values[name]; !math.IsNaN(v) && !math.IsInf(v, 0) {
			all = append(all, One(name, v, row.Unit))
		}
	}
	return all
}

// grown is by how much a counter has grown. One that has fallen was begun anew.
func (e *Exporter) grown(name string, now float64, seen map[string]float64) float64 {
	seen[name] = now
	if was := e.last[name]; was <= now {
		return now - was
	}
	return now
}

// buckets adds how many observations were made below each bound since the last
// line. Those above the highest one count as at it.
func (e *Exporter) buckets(name string, h *dto.Histogram, into map[float64]int, seen map[string]float64) {
	below, highest := 0.0, 0.0
	count := func(bound, cumulative float64) {
		// Of each bucket on its own, so that a histogram that was begun anew is seen.
		into[bound] += int(e.grown(fmt.Sprintf("%s\x00%g", name, bound), cumulative-below, seen))
		below = cumulative
	}
	for _, b := range h.GetBucket() {
		if math.IsInf(b.GetUpperBound(), 1) {
			continue
		}
		highest = b.GetUpperBound()
		count(highest, float64(b.GetCumulativeCount()))
	}
	above := e.grown(name+"\x00above", float64(h.GetSampleCount())-below, seen)
	into[highest] += int(above)
}

// spread lists observations by their bounds, thinned out evenly where there are
// more than a line takes; each bound that occurs stays.
func spread(observed map[float64]int) []float64 {
	total := 0
	for _, n := range observed {
		total += n
	}
	var list []float64
	for _, bound := range slices.Sorted(maps.Keys(observed)) {
		n := observed[bound]
		if n > 0 && total > MaxValues {
			n = max(1, n*(MaxValues-len(observed))/total)
		}
		list = append(list, slices.Repeat([]float64{bound}, n)...)
	}
	return list
}

func matches(m *dto.Metric, where map[string]string) bool {
	for name, value := range where {
		if label(m, name) != value {
			return false
		}
	}
	return true
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// key tells the metrics of a family apart; labels come in the order of their names.
func key(m *dto.Metric) string {
	var b strings.Builder
	for _, l := range m.GetLabel() {
		b.WriteString("\x00" + l.GetName() + "\x00" + l.GetValue())
	}
	return b.String()
}

// camel makes LoggedOut of logged_out.
func camel(s string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(s, "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}
