package alarmtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// metricID is what CloudWatch tells metrics apart by.
type metricID struct {
	namespace, name, dimensions string
}

func idOf(namespace, name string, dimensions map[string]string) metricID {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(dimensions)) {
		parts = append(parts, k+"="+dimensions[k])
	}
	return metricID{namespace, name, strings.Join(parts, ",")}
}

func (m metricID) String() string { return m.namespace + "/" + m.name + "{" + m.dimensions + "}" }

// series are points as CloudWatch has stored them.
type series map[metricID][]point

type point struct {
	at     time.Time
	values []float64
}

func (s series) add(id metricID, at time.Time, values ...float64) {
	s[id] = append(s[id], point{at, values})
}

// stat is a metric and how its points of a period become one.
type stat struct {
	id        metricID
	statistic string
	period    time.Duration
}

// over is the statistic of the period that begins at a time; false: there is no
// point in it.
func (s series) over(m stat, begin time.Time) (float64, bool) {
	var values []float64
	for _, p := range s[m.id] {
		if !p.at.Before(begin) && p.at.Before(begin.Add(m.period)) {
			values = append(values, p.values...)
		}
	}
	if len(values) == 0 {
		return 0, false
	}
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	switch m.statistic {
	case "Sum":
		return sum, true
	case "Average":
		return sum / float64(len(values)), true
	case "SampleCount":
		return float64(len(values)), true
	case "Minimum":
		return slices.Min(values), true
	case "Maximum":
		return slices.Max(values), true
	}
	panic("statistic " + m.statistic + " passed parseAlarm")
}

// alarm is one as CloudWatch evaluates it. Of several stats the sum counts.
type alarm struct {
	Name, Description string
	Stats             []stat
	Of, In            int // so many bad periods of so many
	Threshold         float64
	Below             bool // bad is what is below the threshold, else what is above
	MissingIsBad      bool
}

type metricValues struct {
	Namespace  string            `json:"namespace"`
	MetricName string            `json:"metric_name"`
	Dimensions map[string]string `json:"dimensions"`
	Stat       string            `json:"stat"`
	Statistic  string            `json:"statistic"`
	Period     int               `json:"period"`
}

// parseAlarm reads a resource. What the evaluator does not know is an error: an
// alarm that uses it would not be tested.
func parseAlarm(values json.RawMessage) (alarm, error) {
	var v struct {
		metricValues
		Name        string  `json:"alarm_name"`
		Description string  `json:"alarm_description"`
		Comparison  string  `json:"comparison_operator"`
		In          int     `json:"evaluation_periods"`
		Of          int     `json:"datapoints_to_alarm"`
		Threshold   float64 `json:"threshold"`
		Missing     string  `json:"treat_missing_data"`
		Queries     []struct {
			ID         string         `json:"id"`
			Expression string         `json:"expression"`
			Returned   bool           `json:"return_data"`
			Metric     []metricValues `json:"metric"`
		} `json:"metric_query"`
	}
	if err := json.Unmarshal(values, &v); err != nil {
		return alarm{}, err
	}
	a := alarm{Name: v.Name, Description: v.Description, Of: v.Of, In: v.In, Threshold: v.Threshold,
		Below: v.Comparison == "LessThanThreshold", MissingIsBad: v.Missing == "breaching"}
	if !a.Below && v.Comparison != "GreaterThanThreshold" {
		return a, fmt.Errorf("comparison %q", v.Comparison)
	}
	if !a.MissingIsBad && v.Missing != "notBreaching" {
		return a, fmt.Errorf("missing points are %q: an alarm that stays as it was is no news", v.Missing)
	}
	if a.Of < 1 || a.In < a.Of {
		return a, fmt.Errorf("%d of %d periods", a.Of, a.In)
	}
	add := func(m metricValues, statistic string) error {
		if !slices.Contains([]string{"Sum", "Average", "SampleCount", "Minimum", "Maximum"}, statistic) {
			return fmt.Errorf("statistic %q of %s", statistic, m.MetricName)
		}
		if m.Period < 60 || m.Period%60 != 0 || m.Namespace == "" || m.MetricName == "" {
			return fmt.Errorf("metric %+v", m)
		}
		a.Stats = append(a.Stats, stat{idOf(m.Namespace, m.MetricName, m.Dimensions), statistic, time.Duration(m.Period) * time.Second})
		return nil
	}
	if len(v.Queries) == 0 {
		if v.Namespace == "AWS/DynamoDB" {
			return a, errors.New("alarms on a single metric of DynamoDB keep their state when points are missing; use a sum")
		}
		return a, add(v.metricValues, v.Statistic)
	}
	totals := 0
	for _, q := range v.Queries {
		switch {
		case q.Expression == "SUM(METRICS())" && q.Returned:
			totals++
		case q.Expression == "" && len(q.Metric) == 1 && !q.Returned:
			if err := add(q.Metric[0], q.Metric[0].Stat); err != nil {
				return a, err
			}
		default:
			return a, fmt.Errorf("query %+v", q)
		}
	}
	switch {
	case totals != 1 || v.MetricName != "":
		return a, fmt.Errorf("%d results", totals)
	case len(a.Stats) < 2 || len(a.Stats) > 10:
		return a, fmt.Errorf("%d metrics in one alarm; CloudWatch takes 10", len(a.Stats))
	}
	for _, s := range a.Stats {
		if s.period != a.Stats[0].period {
			return a, errors.New("metrics with different periods")
		}
	}
	return a, nil
}

// period is what the alarm looks at at a time.
func (a alarm) period() time.Duration { return a.Stats[0].period }

// value is the alarm's own point of a period. In a sum of metrics those that have
// none are left out.
func (a alarm) value(s series, begin time.Time) (float64, bool) {
	total, found := 0.0, false
	for _, m := range a.Stats {
		if v, there := s.over(m, begin); there {
			total, found = total+v, true
		}
	}
	return total, found
}

// beyond is how many periods more than it must CloudWatch looks back to find points
// where some are missing. It does not say how many; its examples have two.
const beyond = 2

// firing tells whether the alarm is in the state ALARM at a time, by the periods that
// are over then.
func (a alarm) firing(s series, now time.Time) bool {
	end := now.Truncate(a.period())
	var points []float64 // the newest first; NaN: missing
	for i := range a.In + beyond {
		v, found := a.value(s, end.Add(-time.Duration(i+1)*a.period()))
		if !found {
			v = math.NaN()
		}
		points = append(points, v)
	}
	return a.judge(points)
}

// judge does as CloudWatch describes it under "Configuring how CloudWatch alarms
// treat missing data": as many points as are wanted are taken from those that are
// there, the newest first; if they are too few, missing ones make up for them.
func (a alarm) judge(points []float64) bool {
	there := slices.DeleteFunc(slices.Clone(points), math.IsNaN)
	bad := 0
	for _, v := range there[:min(len(there), a.In)] {
		if a.Below && v < a.Threshold || !a.Below && v > a.Threshold {
			bad++
		}
	}
	if a.MissingIsBad {
		bad += max(0, a.In-len(there))
	}
	return bad >= a.Of
}
