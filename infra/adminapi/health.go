package adminapi

import (
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/holdfast-wa/holdfast/state"
)

// Job is something that a worker is at.
type Job struct {
	ID      string `json:"id"`
	Kind    string `json:"kind"`
	Session string `json:"session"`
}

// SessionHealth is one session of a worker.
type SessionHealth struct {
	Name   string
	Wanted state.Wanted
	State  state.State
}

// Snapshot is what a worker knows of itself, without asking anybody.
type Snapshot struct {
	Worker            string // incarnation
	Since             time.Time
	Sessions          []SessionHealth
	ScheduledMessages int
	ActiveJobs        []Job
	NotReady          string // why no session may be given to it, such as draining; empty: ready
	Stuck             string // why the process cannot go on and should be killed; empty: alive
}

// HealthConfig is what a worker's own routes stand on. Snapshot must be set.
type HealthConfig struct {
	Snapshot func() Snapshot
	Metrics  http.Handler // of /metrics; nil: no such route
	Version  string
	Now      func() time.Time

	// API carries /qr-image and POST /restart, for a worker of one session: the
	// one that Snapshot lists. Nil: no such routes.
	API *API
	// OpenQR shows /qr-image without a key to clients that name this machine
	// itself as the host. For listeners on loopback only.
	OpenQR bool
}

// worst lists the states of a worker's wanted sessions, the worst first.
var worst = []state.State{state.Banned, state.Failed, state.Failing, state.Conflict, state.Unowned, state.Disconnected,
	state.Unpaired, state.Pairing, state.Stopped, state.Reconnecting, state.Restarting, state.Connecting}

// Overall is connected when all wanted sessions are online, else the worst
// state among them.
func Overall(sessions []SessionHealth) string {
	for _, w := range worst {
		for _, s := range sessions {
			if s.Wanted == state.WantRunning && s.State == w {
				return string(w)
			}
		}
	}
	for _, s := range sessions {
		if s.State == "" {
			return string(state.Connecting) // taken up, and not read yet
		}
	}
	return "connected"
}

// Health makes a worker's own routes: /health and what is below it, /metrics,
// /qr-image and /restart. None of them depends on WhatsApp or on the store
// being up, but the last two.
func Health(c HealthConfig) http.Handler {
	if c.Now == nil {
		c.Now = time.Now
	}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_ = huma.DefaultJSONFormat.Marshal(w, v) // the client may be gone
	}
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, c.report()) })
	mux.HandleFunc("GET /health/live", func(w http.ResponseWriter, _ *http.Request) {
		if why := c.Snapshot().Stuck; why != "" {
			answer(w, http.StatusServiceUnavailable, map[string]string{"status": "stuck", "reason": why})
			return
		}
		answer(w, http.StatusOK, map[string]string{"status": "live"})
	})
	mux.HandleFunc("GET /health/ready", func(w http.ResponseWriter, _ *http.Request) {
		if why := c.Snapshot().NotReady; why != "" {
			answer(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "reason": why})
			return
		}
		answer(w, http.StatusOK, map[string]string{"status": "ready"})
	})
	mux.HandleFunc("GET /health/memory", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, ReadMemory(len(c.Snapshot().Sessions)))
	})
	if c.Metrics != nil {
		mux.Handle("GET /metrics", c.Metrics)
	}
	if c.API != nil {
		mux.HandleFunc("GET /qr-image", c.qrImage)
		mux.HandleFunc("POST /restart", c.restart)
	}
	return mux
}

// HealthReport is the body of /health.
type HealthReport struct {
	Status            string              `json:"status"` // connected, or the worst state of a wanted session
	Timestamp         time.Time           `json:"timestamp"`
	ScheduledMessages int                 `json:"scheduledMessages"`
	ActiveJobs        []Job               `json:"activeJobs"`
	Sessions          map[state.State]int `json:"sessions"`
	Worker            string              `json:"worker,omitempty"`
	Version           string              `json:"version,omitempty"`
	UptimeSeconds     int64               `json:"uptimeSeconds"`
}

func (c HealthConfig) report() HealthReport {
	s := c.Snapshot()
	now := c.Now().UTC()
	r := HealthReport{Status: Overall(s.Sessions), Timestamp: now.Truncate(time.Millisecond), ScheduledMessages: s.ScheduledMessages,
		ActiveJobs: append([]Job{}, s.ActiveJobs...), Sessions: map[state.State]int{}, Worker: s.Worker, Version: c.Version}
	for _, one := range s.Sessions {
		r.Sessions[one.State]++
	}
	if !s.Since.IsZero() {
		r.UptimeSeconds = int64(now.Sub(s.Since) / time.Second)
	}
	return r
}

// single finds the one session that this worker has, and who asks.
func (c HealthConfig) single(w http.ResponseWriter, r *http.Request, open bool) (session string, who principal, ok bool) {
	who, known := authenticate(c.API.cfg.Keys, r)
	switch {
	case known && who.role < Operator:
		writeProblem(w, problem(CodeForbidden, "this needs the role %s: the key %q has %s", Operator, who.name, who.role))
		return "", who, false
	case !known && !open:
		w.Header().Set("WWW-Authenticate", `Bearer realm="holdfast"`)
		writeProblem(w, problem(CodeUnauthorized, "no valid API key: send one as X-API-Key"))
		return "", who, false
	}
	sessions := c.Snapshot().Sessions
	if len(sessions) != 1 {
		writeProblem(w, problem(CodeManySessions, "this worker has %d sessions: use /api/sessions/NAME", len(sessions)))
		return "", who, false
	}
	return sessions[0].Name, who, true
}

// local says whether the client named this machine itself: a web page that was
// led here under a name of its own does not.
func local(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

func (c HealthConfig) qrImage(w http.ResponseWriter, r *http.Request) {
	name, who, ok := c.single(w, r, c.OpenQR && local(r))
	if !ok {
		return
	}
	out, err := c.API.qr(withPrincipal(r.Context(), who), &qrInput{SessionPath: SessionPath{name}, Format: "png"})
	if err != nil {
		c.fail(w, "qr-image", err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", out.ContentType)
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(out.Body) // the client may be gone
}

func (c HealthConfig) restart(w http.ResponseWriter, r *http.Request) {
	name, who, ok := c.single(w, r, false)
	if !ok {
		return
	}
	in := VerbParams{SessionPath: SessionPath{name}, KeyParam: KeyParam{r.Header.Get("Idempotency-Key")}}
	out, err := c.API.order(withPrincipal(r.Context(), who), in, order{verb: state.VerbRestart}, c.API.want(state.WantRunning))
	if err != nil {
		c.fail(w, "restart", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(out.Status)
	_ = huma.DefaultJSONFormat.Marshal(w, out.Body) // the client may be gone
}

func (c HealthConfig) fail(w http.ResponseWriter, route string, err error) {
	p, known := problemOf(err)
	if !known {
		c.API.cfg.Log.Error("request failed", "route", route, "error", err)
	}
	writeProblem(w, p)
}

// Memory is the body of /health/memory, in bytes where not said otherwise.
type Memory struct {
	RSS             int64 `json:"rss"`
	Heap            int64 `json:"heap"`      // in use by objects
	Limit           int64 `json:"limit"`     // of the cgroup; 0: none
	SoftLimit       int64 `json:"softLimit"` // GOMEMLIMIT; 0: none
	Goroutines      int   `json:"goroutines"`
	Sessions        int   `json:"sessions"`
	BytesPerSession int64 `json:"bytesPerSession"` // RSS by sessions; 0 without any
}

// ReadMemory measures the process.
func ReadMemory(sessions int) Memory {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	m := Memory{RSS: residentBytes(), Heap: int64(stats.HeapAlloc), Limit: MemoryLimit(), Goroutines: runtime.NumGoroutine(), Sessions: sessions}
	if soft := debug.SetMemoryLimit(-1); soft < 1<<62 {
		m.SoftLimit = soft
	}
	if sessions > 0 {
		m.BytesPerSession = m.RSS / int64(sessions)
	}
	return m
}

// residentBytes is what of the process is in memory; 0 where the system does
// not tell.
func residentBytes() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

// MemoryLimit is the memory that the cgroup of this process may use, in bytes;
// 0 where there is no limit or no cgroup.
func MemoryLimit() int64 {
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		content, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
		if err == nil && limit > 0 && limit < 1<<60 { // version 1 writes a huge number for none
			return limit
		}
	}
	return 0
}
