package alarmtest

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
)

// The examples of AWS's own description:
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
// 0 is a good point, X a bad one, - a missing one; the newest is the last.
func TestMissingPoints(t *testing.T) {
	for _, c := range []struct {
		points    string
		of, in    int
		bad, fine bool // firing, where missing points are bad, and where not
	}{
		{"0 - X - X", 3, 3, false, false},
		{"0 - - - -", 3, 3, false, false},
		{"- - - - -", 3, 3, true, false},
		{"0 X X - X", 3, 3, true, true},
		{"- - X - -", 3, 3, true, false},
		{"0 - X - X", 2, 3, true, true},
		{"0 0 X 0 X", 2, 3, true, true},
		{"0 - X - -", 2, 3, true, false},
		{"- - - - 0", 2, 3, true, false},
		{"- - - X -", 2, 3, true, false},
	} {
		var points []float64
		for p := range strings.FieldsSeq(c.points) {
			points = append([]float64{map[string]float64{"0": 0, "X": 1, "-": math.NaN()}[p]}, points...)
		}
		if got := (alarm{Of: c.of, In: c.in, MissingIsBad: true}).judge(points); got != c.bad {
			t.Errorf("%s, %d of %d, missing is bad: %v", c.points, c.of, c.in, got)
		}
		if got := (alarm{Of: c.of, In: c.in}).judge(points); got != c.fine {
			t.Errorf("%s, %d of %d, missing is not bad: %v", c.points, c.of, c.in, got)
		}
	}
}

// Statistics are of the points of their period, those of other dimensions apart.
func TestStatistics(t *testing.T) {
	at := time.Date(2026, 5, 6, 7, 0, 0, 0, time.UTC)
	s := series{}
	mine := idOf("N", "M", map[string]string{"b": "2", "a": "1"})
	s.add(mine, at.Add(-time.Second), 100)
	s.add(mine, at, 1, 2)
	s.add(mine, at.Add(59*time.Second), 6)
	s.add(mine, at.Add(time.Minute), 100)
	s.add(idOf("N", "M", map[string]string{"a": "1"}), at, 100)
	for statistic, want := range map[string]float64{"Sum": 9, "Average": 3, "SampleCount": 3, "Minimum": 1, "Maximum": 6} {
		if got, there := s.over(stat{idOf("N", "M", map[string]string{"a": "1", "b": "2"}), statistic, time.Minute}, at); !there || got != want {
			t.Errorf("%s: %g, %v", statistic, got, there)
		}
	}
	if got, there := s.over(stat{mine, "Sum", time.Minute}, at.Add(2*time.Minute)); there {
		t.Errorf("a sum of nothing: %g", got)
	}
	both := alarm{Stats: []stat{{mine, "Sum", time.Minute}, {idOf("N", "Other", nil), "Sum", time.Minute}}}
	if got, there := both.value(s, at); !there || got != 9 {
		t.Errorf("a sum of which one has no points: %g, %v", got, there)
	}
}

// What the evaluator does not know is refused, and so is what CloudWatch would.
func TestAlarmsThatCannotBeTested(t *testing.T) {
	const single = `{"alarm_name":"a","comparison_operator":"GreaterThanThreshold","evaluation_periods":3,"datapoints_to_alarm":2,"threshold":1,
		"treat_missing_data":"breaching","namespace":"N","metric_name":"M","dimensions":{"Fleet":"f"},"statistic":"Sum","period":60}`
	a, err := parseAlarm(json.RawMessage(single))
	if err != nil || a.Of != 2 || a.In != 3 || a.Below || !a.MissingIsBad || len(a.Stats) != 1 || a.Stats[0].id.String() != "N/M{Fleet=f}" {
		t.Fatalf("%+v, %v", a, err)
	}
	const sum = `{"alarm_name":"a","comparison_operator":"LessThanThreshold","evaluation_periods":1,"datapoints_to_alarm":1,"threshold":1,"treat_missing_data":"notBreaching",
		"metric_query":[{"id":"t","expression":"SUM(METRICS())","return_data":true},{"id":"m0","metric":[{"namespace":"N","metric_name":"M","stat":"Sum","period":60}]},
		{"id":"m1","metric":[{"namespace":"N","metric_name":"O","stat":"Sum","period":60}]}]}`
	if a, err = parseAlarm(json.RawMessage(sum)); err != nil || len(a.Stats) != 2 || !a.Below {
		t.Fatalf("%+v, %v", a, err)
	}
	for _, c := range [][3]string{
		{single, "GreaterThanThreshold", "GreaterThanUpperThreshold"}, {single, `"breaching"`, `"missing"`}, {single, `"breaching"`, `"ignore"`},
		{single, `"datapoints_to_alarm":2`, `"datapoints_to_alarm":4`}, {single, `"Sum"`, `"p99"`}, {single, `"period":60`, `"period":10`},
		{single, `"metric_name":"M"`, `"metric_name":""`}, {single, `"namespace":"N"`, `"namespace":"AWS/DynamoDB"`},
		{sum, "SUM(METRICS())", "m0+m1"}, {sum, `"return_data":true`, `"return_data":false`}, {sum, `"stat":"Sum","period":60}]}]`, `"stat":"Sum","period":300}]}]`},
	} {
		bad := strings.Replace(c[0], c[1], c[2], 1)
		if a, err := parseAlarm(json.RawMessage(bad)); err == nil || bad == c[0] {
			t.Errorf("%s for %s is taken: %+v", c[2], c[1], a)
		}
	}
}
