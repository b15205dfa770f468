package worker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/worker/deliver"
)

// sum adds up all of a family, or those with a label of a value.
func sum(t *testing.T, m *Metrics, family string, labels ...string) float64 {
	t.Helper()
	all, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total, found := 0.0, false
	for _, f := range all {
		if f.GetName() != family {
			continue
		}
		for _, x := range f.GetMetric() {
			if !has(x, labels) {
				continue
			}
			found = true
			total += x.GetCounter().GetValue() + x.GetGauge().GetValue() + float64(x.GetHistogram().GetSampleCount())
		}
	}
	if !found {
		t.Fatalf("there is no %s%v", family, labels)
	}
	return total
}

func has(m *dto.Metric, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		found := false
		for _, l := range m.GetLabel() {
			found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
		}
		if !found {
			return false
		}
	}
	return true
}

// Every metric that is documented is there, some of them once something has
// happened.
func TestMetricsThatAreDocumented(t *testing.T) {
	m := NewMetrics()
	m.Serving(func() int { return 3 }, 10)
	m.Scheduled(func() int { return 2 })
	m.Sessions().Sent(true)
	m.Delivered(deliver.Outcome{Session: "shop", Sink: deliver.SinkWebhook, Result: deliver.ResultFailed})
	m.storeError("get")
	_ = Measured(memory.New(nil), m).Commit(t.Context(), state.Fence{Session: "shop", Owner: "w", Epoch: 1}, "", nil)
	for name, help := range map[string]string{
		"sessions": "state", "disconnects_total": "cause", "reconnect_duration_seconds": "", "takeover_duration_seconds": "",
		"commits_total": "result", "commit_duration_seconds": "", "fenced_writes_total": "", "messages_received_total": "",
		"messages_sent_total": "result", "messages_undecryptable_total": "", "ack_delay_seconds": "", "webhook_deliveries_total": "result",
		"outbox_due": "", "lease_trust_seconds": "", "workers_alive": "", "store_errors_total": "operation",
		"sessions_owned": "", "capacity": "", "reconnect_exhausted_total": "", "outages_total": "", "starts_total": "",
		"session_restarts_total": "", "queues_filling_total": "", "store_retries_total": "reason", "trust_lost_total": "",
	} {
		all, err := m.Registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var found *dto.MetricFamily
		for _, f := range all {
			if f.GetName() == "holdfast_"+name {
				found = f
			}
		}
		switch {
		case found == nil || len(found.GetMetric()) == 0:
			t.Errorf("there is no holdfast_%s", name)
		case help != "" && !strings.Contains(found.GetMetric()[0].String(), `"`+help+`"`):
			t.Errorf("holdfast_%s has no label %s: %s", name, help, found.GetMetric()[0])
		}
	}
	if sum(t, m, "holdfast_sessions_owned") != 3 || sum(t, m, "holdfast_capacity") != 10 || sum(t, m, "holdfast_outbox_due") != 2 || sum(t, m, "holdfast_starts_total") != 1 {
		t.Error("a gauge has another value than it was given")
	}
}

// What happens to sessions, leases and events is counted.
func TestWhatIsCounted(t *testing.T) {
	m := NewMetrics()
	leases, actors := m.Leases(), m.Sessions()
	leases.Taken("shop", true, 3*time.Second)
	leases.Taken("desk", false, time.Hour) // nobody had died
	leases.Fenced(4)
	leases.Died("w-9")
	leases.Trust(6 * time.Second)
	leases.Alive(3)
	actors.State("shop", state.Connecting)
	actors.State("shop", state.Online)
	actors.State("desk", state.Online)
	actors.Disconnected(state.CauseLoggedOut)
	m.forget("desk")
	m.Retried("throttled")
	m.Committed([]state.Event{{Type: state.EventOutage}, {Type: state.EventExhausted}, {Type: state.EventQueueFilling}, {Type: state.EventUndecrypted}, {Type: state.EventMessage, Time: time.Now()}})
	for _, c := range []struct {
		want   float64
		family string
		labels []string
	}{
		{1, "takeover_duration_seconds", nil}, {1, "trust_lost_total", nil}, {1, "workers_declared_dead_total", nil}, {6, "lease_trust_seconds", nil},
		{3, "workers_alive", nil}, {1, "sessions", []string{"state", "online"}}, {0, "sessions", []string{"state", "connecting"}}, {1, "sessions", nil},
		{1, "disconnects_total", []string{"cause", "logged_out"}}, {1, "store_retries_total", []string{"reason", "throttled"}},
		{1, "outages_total", nil}, {1, "reconnect_exhausted_total", nil}, {1, "queues_filling_total", nil}, {1, "messages_undecryptable_total", nil},
		{1, "messages_received_total", nil}, {1, "ack_delay_seconds", nil},
	} {
		if got := sum(t, m, "holdfast_"+c.family, c.labels...); got != c.want {
			t.Errorf("%s%v is %g, want %g", c.family, c.labels, got, c.want)
		}
	}
}

// A store's failures are counted by operation; what it answers is no failure, nor
// is what its caller has given up.
func TestStoreErrors(t *testing.T) {
	m := NewMetrics()
	inner := memory.New(nil)
	faults := statetest.Fault(inner)
	s := Measured(faults, m)
	ctx := t.Context()
	down := errors.New("down")
	fence := state.Fence{Session: "shop", Owner: "w-1", Epoch: 1}
	calls := map[string]struct {
		method statetest.Method
		call   func(context.Context) error
	}{
		"get": {statetest.Get, func(ctx context.Context) error {
			_, err := s.Get(ctx, state.Fleet, state.Key{Kind: state.KindFleet, ID: "X"})
			return err
		}},
		"query": {statetest.Query, func(ctx context.Context) error {
			_, err := s.Query(ctx, state.Fleet, state.Query{Kind: state.KindFleet})
			return err
		}},
		"indexed":  {statetest.Indexed, func(ctx context.Context) error { _, err := s.Indexed(ctx, "x", nil, 1); return err }},
		"commit":   {statetest.Commit, func(ctx context.Context) error { return s.Commit(ctx, fence, "", nil) }},
		"update":   {statetest.Update, func(ctx context.Context) error { return s.Update(ctx, state.Fleet, nil) }},
		"owned_by": {statetest.OwnedBy, func(ctx context.Context) error { _, err := s.OwnedBy(ctx, "", "", 1); return err }},
		"claim": {statetest.Claim, func(ctx context.Context) error {
			_, err := s.Claim(ctx, "w-1", state.Owner{Session: "shop"})
			return err
		}},
		"hand_over":       {statetest.HandOver, func(ctx context.Context) error { _, err := s.HandOver(ctx, fence, "w-2"); return err }},
		"release":         {statetest.Release, func(ctx context.Context) error { return s.Release(ctx, fence) }},
		"beat":            {statetest.Beat, func(ctx context.Context) error { return s.Beat(ctx, "w-1", state.Load{}) }},
		"roster":          {statetest.Roster, func(ctx context.Context) error { _, err := s.Roster(ctx); return err }},
		"owner":           {statetest.OwnerOf, func(ctx context.Context) error { _, err := s.Owner(ctx, "shop"); return err }},
		"sessions":        {statetest.Sessions, func(ctx context.Context) error { _, err := s.Sessions(ctx, "", 1); return err }},
		"remove_session":  {statetest.RemoveSession, func(ctx context.Context) error { return s.RemoveSession(ctx, fence) }},
		"join":            {statetest.Join, func(ctx context.Context) error { _, err := s.Join(ctx, "w-9", state.MemberInfo{}); return err }},
		"declare_dead":    {statetest.DeclareDead, func(ctx context.Context) error { return s.DeclareDead(ctx, "w-9", 7) }},
		"declare_stopped": {statetest.DeclareStopped, func(ctx context.Context) error { return s.DeclareStopped(ctx, "w-8") }},
		"watch":           {statetest.Watch, func(ctx context.Context) error { _, err := s.Watch(ctx, nil); return err }},
	}
	for operation, c := range calls {
		_ = c.call(ctx) // not found, fenced, dead: answers
		faults.FailBefore(statetest.Of(c.method), 1, down)
		if err := c.call(ctx); !errors.Is(err, down) {
			t.Errorf("%s: %v", operation, err)
		}
		if got := sum(t, m, "holdfast_store_errors_total", "operation", operation); got != 1 {
			t.Errorf("%s was counted %g times", operation, got)
		}
		given, cancel := context.WithCancel(ctx)
		cancel()
		faults.FailBefore(statetest.Of(c.method), 1, down)
		_ = c.call(given)
	}
	faults.FailBefore(statetest.Of(statetest.GetMany), 1, down)
	if _, err := s.GetMany(ctx, state.Fleet, []state.Key{{Kind: state.KindFleet, ID: "X"}}); !errors.Is(err, down) {
		t.Error(err)
	}
	if got := sum(t, m, "holdfast_store_errors_total"); got != float64(len(calls)+1) {
		t.Errorf("%g errors, want %d", got, len(calls)+1)
	}
	if got := sum(t, m, "holdfast_fenced_writes_total"); got != 1 {
		t.Errorf("%g fenced writes", got)
	}
}
