package main

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/holdfast-wa/holdfast/infra/emf"
	"github.com/holdfast-wa/holdfast/infra/emf/emftest"
	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker"
)

func TestEMFInterval(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "0": 0, "1m": time.Minute, "60s": time.Minute, "5m": 5 * time.Minute, "1h": time.Hour} {
		var args []string
		if text != "" {
			args = []string{"--emf-interval", text}
		}
		if cfg, err := configOf(t, nil, args...); err != nil || cfg.EMFInterval != want {
			t.Errorf("%q: %v, %v", text, cfg.EMFInterval, err)
		}
	}
	for _, wrong := range []string{"30s", "90s", "-1m", "2h", "1", "often"} {
		if _, err := configOf(t, nil, "--emf-interval="+wrong); err == nil || !strings.Contains(err.Error(), "emf-interval") || !strings.Contains(err.Error(), "1m") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	fleet, err := configOf(t, nil, "--state", "dynamodb:prod", "--api-keys", "a:admin:"+strings.Repeat("0", 64))
	if err != nil || fleetName(fleet) != "prod" {
		t.Errorf("the fleet is %q, %v", fleetName(fleet), err)
	}
}

// Each row for CloudWatch takes a metric that a worker has, of the kind that it
// says, with labels that it has.
func TestRowsAreOfMetricsThatThereAre(t *testing.T) {
	m := worker.NewMetrics()
	m.Serving(func() int { return 0 }, 0)
	m.Scheduled(func() int { return 0 })
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]dto.MetricType{}
	for _, f := range families {
		types[f.GetName()] = f.GetType()
	}
	kinds := map[emf.Kind]dto.MetricType{emf.Gauge: dto.MetricType_GAUGE, emf.Count: dto.MetricType_COUNTER, emf.Spread: dto.MetricType_HISTOGRAM}
	// Those with labels are there once something has happened.
	later := map[string]string{"holdfast_store_errors_total": "operation", "holdfast_messages_sent_total": "result",
		"holdfast_webhook_deliveries_total": "sink result", "holdfast_commits_total": "result"}
	for _, r := range emf.WorkerRows() {
		got, there := types[r.From]
		if _, comes := later[r.From]; comes && !there {
			got, there = dto.MetricType_COUNTER, true
		}
		if !there || got != kinds[r.Kind] {
			t.Errorf("%s is made of %s, a %v (%v)", r.Name, r.From, got, there)
		}
	}
	// One line takes them all, also when every state and cause has occurred.
	if n := len(emf.WorkerRows()) + len(state.States()) + len(state.Causes()); n > emf.MaxMetrics {
		t.Errorf("%d metrics, and a line takes %d", n, emf.MaxMetrics)
	}
}

// The program writes its metrics into its log, also what it has counted when it
// ends, and no name, number or address of anybody.
func TestMetricsInTheLog(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sim := startSim(t, wasim.Options{QuietPhone: true})
	p := newProcess(t, sim, "--emf-interval", "1m", "--webhook-url", "http://127.0.0.1:9/hook", "--webhook-secret", strings.Repeat("hook-secret-", 3))
	p.start()
	dev := p.pair(ctx, sim)
	if err := dev.WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := sim.Contact("491700000002").SendText(ctx, "491700000001", "hello"); err != nil {
		t.Fatal(err)
	}
	if err := dev.WaitDrained(ctx); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + p.listen + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	scraped, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"holdfast_starts_total 1", "holdfast_sessions_owned 1", "holdfast_messages_received_total 1", `holdfast_sessions{state="online"} 1`, "holdfast_lease_trust_seconds "} {
		if !strings.Contains(string(scraped), "\n"+want) {
			t.Errorf("/metrics has no %q", want)
		}
	}
	p.terminate()

	points, err := emftest.Lines(p.log.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	total := map[string]float64{} // over the lines: a minute may have passed
	for _, point := range points {
		if point.Dimensions["Fleet"] != "local" || len(point.Dimensions) != 1 {
			t.Errorf("%+v", point)
		}
		for _, v := range point.Values {
			total[point.Name] += v
		}
	}
	if total["WorkerStarts"] != 1 || total["MessagesReceived"] != 1 || total["Commits"] == 0 || total["AckDelay"] == 0 {
		t.Errorf("counted: %v", total)
	}
	for line := range strings.Lines(p.log.String()) {
		if !strings.Contains(line, `"_aws"`) {
			continue
		}
		if strings.Contains(line, `"Worker":""`) || !strings.Contains(line, `"Worker":"`) {
			t.Errorf("the line does not say which worker it is: %s", line)
		}
		for _, secret := range []string{defaultSession, "491700000001", "491700000002", "hello", "/hook", "hook-secret", "127.0.0.1", sim.URL()} {
			if strings.Contains(line, secret) {
				t.Errorf("%q is in the metrics: %s", secret, line)
			}
		}
	}
}
