package alarmtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/worker/deliver"
)

// documented are metrics that AWS writes, as its documentation names them, with the
// sets of dimensions that they have. A metric with other dimensions is none.
//
//	DynamoDB   https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/metrics-dimensions.html
//	Lambda     https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
//	ApiGateway https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-metrics.html
//	SQS        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
//	ECS        https://docs.aws.amazon.com/AmazonECS/latest/developerguide/available-metrics.html
var documented = map[string][]string{
	// Not by table alone: by operation.
	"AWS/DynamoDB/SystemErrors":      {"Operation TableName"},
	"AWS/DynamoDB/ThrottledRequests": {"Operation TableName"},
	// Of the table alone they leave out its indexes.
	"AWS/DynamoDB/ReadThrottleEvents":            {"TableName", "GlobalSecondaryIndexName TableName"},
	"AWS/DynamoDB/WriteThrottleEvents":           {"TableName", "GlobalSecondaryIndexName TableName"},
	"AWS/DynamoDB/ConsumedReadCapacityUnits":     {"TableName", "GlobalSecondaryIndexName TableName"},
	"AWS/DynamoDB/ConsumedWriteCapacityUnits":    {"TableName", "GlobalSecondaryIndexName TableName"},
	"AWS/Lambda/Errors":                          {"FunctionName", "FunctionName Resource"},
	"AWS/Lambda/Throttles":                       {"FunctionName", "FunctionName Resource"},
	"AWS/Lambda/Invocations":                     {"FunctionName", "FunctionName Resource"},
	"AWS/ApiGateway/4xx":                         {"ApiId", "ApiId Stage"}, // of HTTP APIs; REST APIs have 4XXError
	"AWS/ApiGateway/5xx":                         {"ApiId", "ApiId Stage"},
	"AWS/SQS/ApproximateNumberOfMessagesVisible": {"QueueName"},
	"AWS/ECS/CPUUtilization":                     {"ClusterName", "ClusterName ServiceName"},
	"AWS/ECS/MemoryUtilization":                  {"ClusterName", "ClusterName ServiceName"},
}

// isDocumented says that AWS writes a metric of these dimensions.
func isDocumented(id metricID) bool {
	var names []string
	for part := range strings.SplitSeq(id.dimensions, ",") {
		name, _, _ := strings.Cut(part, "=")
		names = append(names, name)
	}
	return slices.Contains(documented[id.namespace+"/"+id.name], strings.Join(names, " "))
}

// written are the metrics that the program's code writes when all that can happen
// has.
func written(t *testing.T) map[metricID]bool {
	filters := filtersOf(t)
	all := map[metricID]bool{}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.filters = filters
		for i, s := range state.States() {
			w.session(fmt.Sprintf("s-%d", i), "w-1")
			w.is(fmt.Sprintf("s-%d", i), s)
		}
		w.minute(func() {
			m := w.any().metrics
			for _, c := range state.Causes() {
				m.Sessions().Disconnected(c)
			}
			m.Sessions().Reconnected(time.Second)
			m.Sessions().Sent(true)
			m.Sessions().Sent(false)
			for _, e := range []state.EventType{state.EventExhausted, state.EventOutage, state.EventQueueFilling, state.EventUndecrypted, state.EventMessage} {
				event(e)(w)
			}
			for _, r := range []string{deliver.ResultDelivered, deliver.ResultRefused, deliver.ResultFailed} {
				turn(r)(w)
			}
			m.Leases().Taken("x", true, time.Second)
			m.Leases().Fenced(1)
			m.Leases().Died("w-0")
			m.Retried("throttled")
			m.Retried("conflict")
			o := w.workers["w-1"].sessions["a"]
			o.Epoch--
			_ = w.any().store.Commit(t.Context(), o.Fence(), "", []state.Write{state.Put(state.KindStatus, "", []byte("{}"))})
			w.faults.FailBefore(statetest.Of(statetest.Roster), 1, nil)
			_, _ = w.any().store.Roster(t.Context())
			w.says("holdfast: state: is not there")
			ends(2).begin(w)
		})
		w.minute(nil)
		for id := range w.stored() {
			all[id] = true
		}
	})
	return all
}

// Whatever an alarm, a graph or the scaling looks at is written by the code, or
// documented by AWS. A name that is mistyped looks like a fleet that is always well.
func TestNamesAreThoseThatAreWritten(t *testing.T) {
	have := written(t)
	exists := func(id metricID) bool { return have[id] || isDocumented(id) }
	for name, a := range alarmsOf(t) {
		for _, m := range a.Stats {
			if !exists(m.id) {
				t.Errorf("the alarm %s looks at %v, which nobody writes", name, m.id)
			}
		}
	}
	for _, m := range resources(t, "aws_cloudwatch_dashboard") {
		for _, id := range graphed(t, m) {
			if !exists(id) && id.name != "SessionRestarts" { // it takes a session whose actor fails: see package worker
				t.Errorf("the dashboard shows %v, which nobody writes", id)
			}
		}
	}
	for _, m := range resources(t, "aws_appautoscaling_policy") {
		if id := scaledBy(t, m); !exists(id) {
			t.Errorf("the service is scaled by %v, which nobody writes", id)
		}
	}
	// And what is written in other words is not taken for it.
	for _, wrong := range []metricID{
		idOf("Holdfast", "SessionUnowned", map[string]string{"Fleet": "prod"}), idOf("Holdfast", "SessionsUnowned", map[string]string{"fleet": "prod"}),
		idOf("Holdfast", "SessionsUnowned", map[string]string{"Fleet": "shop"}), idOf("Holdfast", "SessionsUnowned", map[string]string{"Fleet": "prod", "Worker": "w-1"}),
		idOf("holdfast", "SessionsUnowned", map[string]string{"Fleet": "prod"}), idOf("Holdfast", "SessionsUnowned", nil),
		idOf("AWS/DynamoDB", "ThrottledRequests", map[string]string{"TableName": "prod-fleet"}), idOf("AWS/ApiGateway", "5XXError", map[string]string{"ApiId": "a"}),
		idOf("AWS/Lambda", "Errors", map[string]string{"Function": "f"}), idOf("AWS/SQS", "ApproximateNumberOfMessagesVisible", map[string]string{"Queue": "q"}),
	} {
		if exists(wrong) {
			t.Errorf("%v counts as written", wrong)
		}
	}
}

// graphed are the metrics of a dashboard.
func graphed(t *testing.T, m made) []metricID {
	t.Helper()
	var v struct {
		Body string `json:"dashboard_body"`
	}
	var body struct {
		Widgets []struct {
			Properties struct {
				Title   string  `json:"title"`
				Metrics [][]any `json:"metrics"`
			} `json:"properties"`
		} `json:"widgets"`
	}
	if err := json.Unmarshal(m.Values, &v); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(v.Body), &body); err != nil {
		t.Fatal(err)
	}
	var all []metricID
	for _, w := range body.Widgets {
		for _, line := range w.Properties.Metrics {
			dimensions := map[string]string{}
			for i := 2; i+1 < len(line); i += 2 {
				dimensions[fmt.Sprint(line[i])] = fmt.Sprint(line[i+1])
			}
			options, last := line[len(line)-1].(map[string]any)
			if !last || len(line)%2 == 0 || options["stat"] == nil || options["period"] == nil {
				t.Fatalf("%s: %v", w.Properties.Title, line)
			}
			all = append(all, idOf(fmt.Sprint(line[0]), fmt.Sprint(line[1]), dimensions))
		}
	}
	if len(all) < 40 {
		t.Fatalf("a dashboard of %d metrics", len(all))
	}
	return all
}

// What the dashboard asks the log for stands in the workers' lines.
func TestWhatTheLogIsAskedFor(t *testing.T) {
	var v struct {
		Body string `json:"dashboard_body"`
	}
	if err := json.Unmarshal(resources(t, "aws_cloudwatch_dashboard")[0].Values, &v); err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`(?:ispresent|latest|min|max|sum)\((\w+)\)|by (\w+)`).FindAllStringSubmatch(regexp.MustCompile(`SOURCE '/holdfast/prod/worker' [^"]*`).FindString(v.Body), -1)
	if len(asked) < 8 {
		t.Fatalf("%d fields are asked for in %s", len(asked), v.Body)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.minute(nil)
		line, _, _ := strings.Cut(w.workerLog.String(), "\n")
		fields := map[string]any{}
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		for _, a := range asked {
			if field := a[1] + a[2]; fields[field] == nil {
				t.Errorf("no line has %s: %s", field, line)
			}
		}
	})
}

// scaledBy is what a policy tracks.
func scaledBy(t *testing.T, m made) metricID {
	t.Helper()
	var v struct {
		Configuration []struct {
			Metric []struct {
				Namespace  string `json:"namespace"`
				Name       string `json:"metric_name"`
				Dimensions []struct{ Name, Value string }
			} `json:"customized_metric_specification"`
		} `json:"target_tracking_scaling_policy_configuration"`
	}
	if err := json.Unmarshal(m.Values, &v); err != nil || len(v.Configuration) != 1 || len(v.Configuration[0].Metric) != 1 {
		t.Fatalf("%v: %s", err, m.Values)
	}
	metric := v.Configuration[0].Metric[0]
	dimensions := map[string]string{}
	for _, d := range metric.Dimensions {
		dimensions[d.Name] = d.Value
	}
	return idOf(metric.Namespace, metric.Name, dimensions)
}

// What the service is scaled by falls as workers come and rises with sessions, also
// with those that nobody has: else target tracking would never settle.
func TestWhatTheServiceIsScaledBy(t *testing.T) {
	id := scaledBy(t, resources(t, "aws_appautoscaling_policy")[0])
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		look := func() float64 {
			w.minute(nil)
			points := w.stored()[id]
			if len(points) == 0 {
				t.Fatalf("nobody writes %v", id)
			}
			return points[len(points)-1].values[0]
		}
		if got := look(); got != 2 {
			t.Errorf("four sessions on two workers: %g", got)
		}
		for i := range 4 {
			w.create(fmt.Sprintf("nobodys-%d", i), state.WantRunning)
		}
		if got := look(); got != 4 {
			t.Errorf("with as many that nobody has: %g", got)
		}
		w.join("w-3")
		w.join("w-4")
		if got := look(); got != 2 {
			t.Errorf("with twice the workers: %g", got)
		}
	})
}

// The list of alarms is a contract: what each means stands in alarms.json, and its
// runbook has its name.
func TestEachAlarmHasAMeaning(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "modules", "observability", "alarms.json"))
	if err != nil {
		t.Fatal(err)
	}
	meanings := map[string]string{}
	if err := json.Unmarshal(text, &meanings); err != nil {
		t.Fatal(err)
	}
	alarms := alarmsOf(t)
	if got, want := slices.Sorted(maps.Keys(alarms)), slices.Sorted(maps.Keys(meanings)); !slices.Equal(got, want) {
		t.Errorf("alarms are %v, and alarms.json has %v", got, want)
	}
	for name, meaning := range meanings {
		if strings.Contains(meaning, "\n") || !strings.HasSuffix(meaning, ".") || len(meaning) > 300 || !strings.HasPrefix(alarms[name].Description, meaning+" Runbook: ") {
			t.Errorf("%s: %q in %q", name, meaning, alarms[name].Description)
		}
	}
}

// What it costs is told in package emf and in the module: so many metrics of a fleet
// that is well, and so many in alarms.
func TestWhatIsPaidFor(t *testing.T) {
	const toldMetrics, toldInAlarms = 26, 50
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.minute(nil)
		w.minute(nil)
		before := w.stored()
		w.minute(nil)
		n := 0
		for id, points := range w.stored() {
			if len(points) > len(before[id]) {
				n++
			}
		}
		if n != toldMetrics {
			t.Errorf("%d metrics are written in a minute, and told are %d", n, toldMetrics)
		}
	})
	n := 0
	for _, a := range alarmsOf(t) {
		n += len(a.Stats)
	}
	if n != toldInAlarms {
		t.Errorf("%d metrics are in alarms, and told are %d", n, toldInAlarms)
	}
}
