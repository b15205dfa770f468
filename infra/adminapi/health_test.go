package adminapi

import (
	"bytes"
	"encoding/json"
	"image/png"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

func TestOverallIsTheWorstOfTheWanted(t *testing.T) {
	running := func(states ...state.State) []SessionHealth {
		var list []SessionHealth
		for _, st := range states {
			list = append(list, SessionHealth{Wanted: state.WantRunning, State: st})
		}
		return list
	}
	for _, tc := range []struct {
		sessions []SessionHealth
		want     string
	}{
		{nil, "connected"},
		{running(state.Online, state.Online), "connected"},
		{running(state.Online, state.Connecting), "connecting"},
		{running(state.Reconnecting, state.Banned, state.Online), "banned"},
		{running(state.Pairing, state.Conflict), "conflict"},
		{append(running(state.Online), SessionHealth{}), "connecting"}, // taken up, and not read yet
		{append(running(state.Online), SessionHealth{Wanted: state.WantStopped, State: state.Stopped}), "connected"},
	} {
		if got := Overall(tc.sessions); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.sessions, got, tc.want)
		}
	}
	for _, st := range state.States() {
		if st != state.Online && Overall(running(st)) != string(st) {
			t.Errorf("%s has no place among the worst", st)
		}
	}
}

func TestHealthRoutes(t *testing.T) {
	s := newStage(t)
	snap := Snapshot{Worker: "w-1", Since: s.now().Add(-time.Minute), ScheduledMessages: 3,
		Sessions: []SessionHealth{{"shop", state.WantRunning, state.Online}}, ActiveJobs: []Job{{"1", "send", "shop"}}}
	h := Health(HealthConfig{Snapshot: func() Snapshot { return snap }, Now: s.now, Version: "v1",
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418) })})
	get := func(path string) (int, map[string]any) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		var body map[string]any
		_ = json.Unmarshal(w.Body.Bytes(), &body) // not every answer has one
		return w.Code, body
	}
	code, body := get("/health")
	if code != 200 || body["status"] != "connected" || body["timestamp"] != "2026-05-06T07:08:09Z" || body["scheduledMessages"] != 3.0 || body["uptimeSeconds"] != 60.0 {
		t.Errorf("/health: %d %v", code, body)
	}
	if jobs := body["activeJobs"].([]any); len(jobs) != 1 || jobs[0].(map[string]any)["kind"] != "send" {
		t.Errorf("activeJobs %v", body["activeJobs"])
	}
	snap.ActiveJobs = nil
	if _, body := get("/health"); body["activeJobs"] == nil {
		t.Error("activeJobs without any is not an empty list")
	}
	if code, body := get("/health/memory"); code != 200 || body["rss"].(float64) < 1<<20 || body["heap"].(float64) <= 0 || body["goroutines"].(float64) < 1 || body["bytesPerSession"] != body["rss"] {
		t.Errorf("/health/memory: %d %v", code, body)
	}
	for _, path := range []string{"/health/live", "/health/ready"} {
		if code, _ := get(path); code != 200 {
			t.Errorf("%s: %d", path, code)
		}
	}
	snap.NotReady = "draining"
	if code, body := get("/health/ready"); code != 503 || body["reason"] != "draining" {
		t.Errorf("/health/ready: %d %v", code, body)
	}
	if code, _ := get("/health/live"); code != 200 {
		t.Errorf("/health/live while draining: %d", code)
	}
	snap.Stuck = "the supervisor does not answer"
	if code, _ := get("/health/live"); code != 503 {
		t.Errorf("/health/live while stuck: %d", code)
	}
	if code, _ := get("/metrics"); code != 418 {
		t.Errorf("/metrics: %d", code)
	}
	if code, _ := get("/qr-image"); code != 404 {
		t.Errorf("/qr-image without an API: %d", code)
	}
}

func TestSingleSessionRoutes(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	sessions := []SessionHealth{{"shop", state.WantRunning, state.Pairing}}
	c := HealthConfig{Snapshot: func() Snapshot { return Snapshot{Sessions: sessions} }, API: s.api}
	ask := func(method, path, key, host string) reply {
		req := httptest.NewRequest(method, path, nil)
		req.Host = host
		if key != "" {
			req.Header.Set("X-API-Key", key)
		}
		w := httptest.NewRecorder()
		Health(c).ServeHTTP(w, req)
		return reply{w.Result(), w.Body.Bytes()}
	}
	wantProblem(t, ask("GET", "/qr-image", "operator-key", "h"), CodeNoQR)
	s.showQR(o, qrText, time.Minute)
	wantProblem(t, ask("GET", "/qr-image", "", "localhost"), CodeUnauthorized)
	wantProblem(t, ask("GET", "/qr-image", "viewer-key", "localhost"), CodeForbidden)
	if r := ask("GET", "/qr-image", "operator-key", "h"); r.Header.Get("Content-Type") != "image/png" {
		t.Errorf("HTTP %d %v", r.StatusCode, r.Header)
	} else if _, err := png.Decode(bytes.NewReader(r.body)); err != nil {
		t.Error(err)
	}
	c.OpenQR = true
	for _, host := range []string{"localhost:8080", "127.0.0.1:8080", "[::1]:8080", "localhost"} {
		if r := ask("GET", "/qr-image", "", host); r.StatusCode != 200 {
			t.Errorf("%s: HTTP %d", host, r.StatusCode)
		}
	}
	wantProblem(t, ask("GET", "/qr-image", "", "evil.example:8080"), CodeUnauthorized) // a name that leads here
	wantProblem(t, ask("POST", "/restart", "", "localhost"), CodeUnauthorized)
	wantProblem(t, ask("POST", "/restart", "viewer-key", "localhost"), CodeForbidden)
	if cmd := want[Command](t, ask("POST", "/restart", "operator-key", "h"), 202); cmd.Verb != state.VerbRestart || cmd.Session != "shop" || cmd.By != "operator-name" {
		t.Errorf("command %+v", cmd)
	}
	sessions = append(sessions, SessionHealth{"other", state.WantRunning, state.Online})
	wantProblem(t, ask("POST", "/restart", "operator-key", "h"), CodeManySessions)
}

func TestHealthDoesNotNeedTheStore(t *testing.T) {
	s := newStage(t)
	s.session("shop")
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	h := Health(HealthConfig{Snapshot: func() Snapshot {
		return Snapshot{Sessions: []SessionHealth{{"shop", state.WantRunning, state.Reconnecting}}}
	}, API: s.api})
	for _, path := range []string{"/health", "/health/live", "/health/ready", "/health/memory"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 200 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}
