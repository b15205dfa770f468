package emf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// Namespace is that of all of Holdfast's metrics in CloudWatch, and Fleet the one
// dimension that they have: the prefix of the fleet's tables. A dimension more,
// such as the worker, would make each metric a new one with each start of a worker,
// at the price of a metric.
const (
	Namespace = "Holdfast"
	Fleet     = "Fleet"
)

// The bounds of the format.
const (
	MaxMetrics = 100     // of one line
	MaxValues  = 100     // of one metric in a line
	MaxName    = 1024    // characters
	MaxLine    = 1 << 20 // bytes of one event in CloudWatch Logs
)

// Units are CloudWatch's words for those that are used here.
var units = []string{"Count", "Seconds", "Milliseconds", "Percent", "None"}

// Metric is one metric of a line. Several values are as many observations.
type Metric struct {
	Name   string
	Unit   string
	Values []float64
}

// One is a metric of one value.
func One(name string, value float64, unit string) Metric {
	return Metric{Name: name, Unit: unit, Values: []float64{value}}
}

// Line is what is written as one line.
type Line struct {
	Fleet   string // value of the dimension
	At      time.Time
	Metrics []Metric
	// Properties stand beside the metrics for who reads the log, and are no metrics:
	// they cost nothing. Their names must not be those of metrics.
	Properties map[string]any
}

// Write writes the line in one call, so that it stands on a line of its own where
// a log is written to the same place.
func Write(w io.Writer, l Line) error {
	out, err := l.encode()
	if err == nil {
		_, err = w.Write(append(out, '\n'))
	}
	if err != nil {
		return fmt.Errorf("metrics for CloudWatch: %w", err)
	}
	return nil
}

type definition struct {
	Name string
	Unit string
}

type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []definition
}

type metadata struct {
	Timestamp         int64
	CloudWatchMetrics []directive
}

func (l Line) encode() ([]byte, error) {
	if l.Fleet == "" || len(l.Fleet) > MaxName {
		return nil, fmt.Errorf("the fleet's name has %d characters; it has 1 to %d", len(l.Fleet), MaxName)
	}
	if len(l.Metrics) == 0 || len(l.Metrics) > MaxMetrics {
		return nil, fmt.Errorf("%d metrics in one line; it has 1 to %d", len(l.Metrics), MaxMetrics)
	}
	d := directive{Namespace: Namespace, Dimensions: [][]string{{Fleet}}}
	doc := map[string]any{Fleet: l.Fleet}
	for name, value := range l.Properties {
		doc[name] = value
	}
	for _, m := range l.Metrics {
		if err := m.check(); err != nil {
			return nil, err
		}
		if _, there := doc[m.Name]; there {
			return nil, fmt.Errorf("%s stands twice in one line", m.Name)
		}
		d.Metrics = append(d.Metrics, definition{m.Name, m.Unit})
		if len(m.Values) == 1 {
			doc[m.Name] = m.Values[0]
		} else {
			doc[m.Name] = m.Values
		}
	}
	doc["_aws"] = metadata{Timestamp: l.At.UnixMilli(), CloudWatchMetrics: []directive{d}}
	out, err := json.Marshal(doc)
	if err == nil && len(out) > MaxLine {
		err = fmt.Errorf("a line of %d bytes; CloudWatch takes %d", len(out), MaxLine)
	}
	return out, err
}

func (m Metric) check() error {
	switch {
	case m.Name == "" || len(m.Name) > MaxName || strings.HasPrefix(m.Name, "_aws"):
		return fmt.Errorf("%q is no name of a metric", m.Name)
	case !slices.Contains(units, m.Unit):
		return fmt.Errorf("%s: %q is no unit; use %s", m.Name, m.Unit, strings.Join(units, ", "))
	case len(m.Values) == 0 || len(m.Values) > MaxValues:
		return fmt.Errorf("%s has %d values; it has 1 to %d", m.Name, len(m.Values), MaxValues)
	}
	for _, v := range m.Values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return errors.New(m.Name + " is not a number")
		}
	}
	return nil
}
