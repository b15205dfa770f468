package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/console"
	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker"
	"github.com/holdfast-wa/holdfast/worker/deliver"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// Mode is what a process runs.
type Mode string

// The modes.
const (
	ModeDev    Mode = "dev"
	ModeWorker Mode = "worker"
)

// defaultSession is made by dev at its first start.
const defaultSession = "default"

// httpWithin is how long requests may take to end after the sessions.
const httpWithin = time.Second

func openService(cfg Config, log *slog.Logger) (*whatsapp.Service, error) {
	root := ""
	if cfg.WhatsAppRootKey != [32]byte{} {
		root = hex.EncodeToString(cfg.WhatsAppRootKey[:])
	}
	return whatsapp.NewService(whatsapp.ServiceConfig{
		Endpoint: cfg.WhatsAppURL, RootKey: root, DeviceName: cfg.DeviceName, Platform: cfg.DevicePlatform,
		HistorySync: cfg.HistorySync, Proxy: cfg.Proxy, Log: log,
	})
}

// runWorker runs a worker, in dev with the admin API beside it, until ctx ends.
func runWorker(ctx context.Context, cfg Config, mode Mode, io IO) error {
	level := new(slog.LevelVar)
	level.Set(cfg.LogLevel)
	log := newLog(io.Err, cfg.LogFormat, level)

	// Before anything is claimed: a port in use must not cost a session its line.
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen %s: %w; stop what uses it, or set --listen to another address", cfg.Listen, cause(err))
	}
	defer listener.Close()
	limitMemory(log)

	metrics := worker.NewMetrics()
	cfg.onRetry = metrics.Retried
	o, err := openState(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer o.close()
	if o.svc, err = openService(cfg, log); err != nil {
		return err
	}
	o.later(o.svc.Close)

	here, err := newPresence(cfg.DataDir, log)
	if err != nil {
		return err
	}
	o.later(here.leave)
	here.tellDeaths(ctx, o.store)
	keys := cfg.APIKeys
	if mode == ModeDev {
		key, err := devKey(cfg, io, log)
		if err != nil {
			return err
		}
		keys = append(keys, key)
		if err := firstSession(ctx, o.store, log); err != nil {
			return err
		}
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	bell := &adminapi.Bell{}
	poster := deliver.NewPoster(deliver.PosterConfig{Allow: cfg.WebhookReach})
	o.later(poster.Close)
	ownPoster := deliver.NewPoster(deliver.PosterConfig{Allow: cfg.WebhookReach.Trusted()})
	o.later(ownPoster.Close)
	files := mediaFetcher(cfg)
	o.later(files.Close)
	me := new(atomic.Pointer[string])
	me.Store(new(string))
	joined := func(id string) {
		me.Store(&id)
		here.joined(id)
	}
	w, err := worker.New(worker.Config{
		Store: worker.Measured(o.store, metrics), Vault: o.vault, Master: o.master, Keyset: o.keyset,
		Service: o.svc, Settings: cfg.Policy,
		Heartbeat: cfg.Heartbeat, Trust: cfg.Trust, Takeover: cfg.Takeover, Poll: cfg.Poll,
		Info: memberInfo(ctx, cfg, log), Gone: here.gone, Joined: joined, Probe: o.ready,
		Capacity: capacity(cfg), LoginRate: cfg.LoginRate, LoginBurst: cfg.LoginBurst, Drain: cfg.Drain,
		NDJSON:      eventsOut(cfg, mode, io, log, stop),
		Reach:       cfg.WebhookReach,
		Files:       files,
		Poster:      poster,
		OwnPoster:   ownPoster,
		Webhook:     worker.Webhook{URL: cfg.WebhookURL, Secret: cfg.WebhookSecret.Reveal()},
		PairAtStart: mode == ModeDev, ShowQR: terminalQR(mode, io),
		Changed: bell.Ring, Metrics: metrics, Log: log,
	})
	if err != nil {
		return err
	}
	metrics.Serving(w.Owned, capacity(cfg))
	metrics.Scheduled(func() int { return snapshot(w, time.Now()).ScheduledMessages })
	server := &http.Server{
		Handler:           routes(cfg, mode, o, w, keys, bell, metrics, log),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	log.Info("worker started", "mode", mode, "version", buildVersion().Version,
		"listen", listener.Addr().String(), "whatsapp", o.svc.Host(), "state", cfg.State.String(), "profile", cfg.Profile)

	var both errgroup.Group
	both.Go(func() error {
		if err := server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			stop()
			return fmt.Errorf("listen %s: %w", cfg.Listen, err)
		}
		return nil
	})
	ended := make(chan struct{})
	both.Go(func() error {
		select {
		case err := <-o.failed: // of a store that is not what it was
			stop()
			return err
		case <-ended:
			return nil
		}
	})
	if lines := emfLines(cfg, me, metrics, io, log); lines != nil {
		both.Go(func() error { lines.Run(ended); return nil }) // what the drain counts is in the last one
	}
	both.Go(func() error {
		defer close(ended)
		err := w.Run(ctx)
		shut, cancel := context.WithTimeout(context.Background(), httpWithin)
		defer cancel()
		if server.Shutdown(shut) != nil {
			_ = server.Close() // requests that wait, such as live streams
		}
		return err
	})
	if err := both.Wait(); err != nil {
		return err
	}
	log.Info("worker stopped: all sessions released")
	return nil
}

// eventsOut is where events go as NDJSON: to standard output. A worker that has
// a webhook writes none, since its output ends in a log.
func eventsOut(cfg Config, mode Mode, io IO, log *slog.Logger, stop func()) *deliver.NDJSON {
	if mode == ModeWorker && cfg.WebhookURL != "" || io.Out == nil {
		return nil
	}
	return deliver.NewNDJSON(io.Out, func(err error) {
		log.Error("nobody reads the events on standard output any more; stopping", "error", err)
		stop()
	})
}

// devKey opens the data folder's own API key. A new one is shown to a person, and not
// to what collects logs, as it does of a container.
func devKey(cfg Config, io IO, log *slog.Logger) (adminapi.Key, error) {
	secret, made, err := apiKey(cfg.DataDir)
	if err != nil {
		return adminapi.Key{}, err
	}
	switch {
	case made && !forPeople(io.Err, cfg.LogFormat):
		log.Info("made an API key", "file", filepath.Join(cfg.DataDir, apiKeyFile))
	case made:
		fmt.Fprintf(io.Err, "API key (kept in %s/%s, shown this once): %s\n", cfg.DataDir, apiKeyFile, secret.Reveal())
	}
	list, err := adminapi.ParseKeys("local:admin:" + adminapi.HashKey(secret.Reveal()))
	if err != nil {
		return adminapi.Key{}, err
	}
	return list[0], nil
}

// firstSession makes the session `default` in a store that has none.
func firstSession(ctx context.Context, store state.Store, log *slog.Logger) error {
	have, err := store.Sessions(ctx, "", 1)
	if err != nil {
		return fmt.Errorf("listing sessions: %w", err)
	}
	if len(have) > 0 {
		return nil
	}
	if _, err := store.Owner(ctx, defaultSession); err == nil {
		return nil
	}
	w, err := wantRunning(defaultSession)
	if err != nil {
		return err
	}
	if err := store.CreateSession(ctx, defaultSession, []state.Write{w}); err != nil && !errors.Is(err, state.ErrExists) {
		return fmt.Errorf("making the session %s: %w", defaultSession, err)
	}
	log.Info("first start: made a session", "session", defaultSession)
	return nil
}

// wantRunning is the first spec of a session.
func wantRunning(name string) (state.Write, error) {
	now := time.Now().UTC()
	value, err := state.Encode(state.Spec{V: state.Format, Name: name, Wanted: state.WantRunning,
		Generation: 1, CreatedAt: now, ChangedAt: now})
	if err != nil {
		return state.Write{}, err
	}
	w := state.Put(state.KindSpec, "", value)
	w.Rev = 1
	return w, nil
}

// terminalQR draws QR codes in the terminal of dev.
func terminalQR(mode Mode, io IO) func(session, code string, until time.Time) {
	if mode != ModeDev {
		return nil
	}
	return func(session, code string, until time.Time) {
		if code == "" {
			return
		}
		drawing, err := drawQR(code, terminal(io.Err))
		if err != nil {
			return
		}
		fmt.Fprintf(io.Err, "\n%s\nSession %s: on the phone open WhatsApp, Settings, Linked devices, Link a device, and scan this.\n"+
			"It is valid until %s; then the next one follows.\n\n", drawing, session, until.Local().Format(time.TimeOnly))
	}
}

// routes is the worker's listener: health and metrics, and in dev the API.
func routes(cfg Config, mode Mode, o *opened, w *worker.Worker, keys []adminapi.Key, bell *adminapi.Bell,
	metrics *worker.Metrics, log *slog.Logger) http.Handler {
	version, since := buildVersion().Version, time.Now()
	api := adminapi.New(adminapi.Config{
		Store: o.store, Fleet: o.keyset, Keys: keys, Nudge: w.Nudge, Bell: bell,
		ValidateSettings: func(s state.SessionSettings) error { return worker.CheckSettings(cfg.Policy, cfg.WebhookReach, s) },
		ValidateMediaURL: cfg.MediaReach.CheckURL,
		Vault:            o.vault, MaxMedia: cfg.MediaLimit, Rate: cfg.APIRate,
		View: fleet.NewView(fleet.ViewConfig{Members: o.store, Takeover: cfg.Takeover}),
		Live: func(name string) (state.Status, bool) {
			live, ok := w.Live(name)
			live.Status.Health = live.Health
			return live.Status, ok
		},
		Alive: func(id string) bool { return id == w.Incarnation() && w.TrustLeft() > 0 },
		Workers: func(context.Context) ([]adminapi.Worker, error) {
			sessions := w.Sessions()
			me := adminapi.Worker{ID: w.Incarnation(), Version: version, Alive: w.TrustLeft() > 0, Draining: w.Draining(),
				Since: since.UTC(), SeenAt: time.Now().UTC(), Sessions: len(sessions), Capacity: capacity(cfg)}
			if me.ID == "" {
				return nil, nil // it has not joined yet
			}
			for _, s := range sessions {
				if s.State == state.Online {
					me.Online++
				}
			}
			return []adminapi.Worker{me}, nil
		},
		Now:     w.Clock, // which cooldowns are kept by
		Version: version, Log: log,
	})
	mux := http.NewServeMux()
	mux.Handle("/", adminapi.Health(adminapi.HealthConfig{
		Snapshot: func() adminapi.Snapshot { return snapshot(w, since) },
		Metrics:  promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{}),
		Version:  version, API: api, OpenQR: mode == ModeDev && onLoopback(cfg.Listen),
	}))
	if mode != ModeDev {
		return mux
	}
	mux.Handle(console.Prefix, console.Handler())
	mux.Handle("/{$}", console.Handler())
	return withAPI(api, mux)
}

// snapshot is what the worker's own health routes tell.
func snapshot(w *worker.Worker, since time.Time) adminapi.Snapshot {
	s := adminapi.Snapshot{Worker: w.Incarnation(), Since: since}
	for _, e := range w.Sessions() {
		s.Sessions = append(s.Sessions, adminapi.SessionHealth{Name: e.Name, Wanted: e.Wanted, State: e.State})
		s.ScheduledMessages += e.Scheduled
		if e.Job != "" {
			s.ActiveJobs = append(s.ActiveJobs, adminapi.Job{ID: e.Name + "/" + e.Job, Kind: e.Job, Session: e.Name})
		}
	}
	s.NotReady = w.NotReady()
	return s
}

// onLoopback says that only this machine can reach an address.
func onLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// memoryShare is how much of the container's memory the Go heap may take: the
// rest is for SQLite's pages, stacks and what the kernel counts.
const memoryShare = 0.85

// limitMemory sets the runtime's soft limit from the container's, unless
// GOMEMLIMIT says otherwise.
func limitMemory(log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(worker.GCPercent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := containerLimit()
	if limit <= 0 {
		return
	}
	debug.SetMemoryLimit(int64(float64(limit) * memoryShare))
	log.Debug("memory limit set from the container's", "bytes", limit)
}

// What a session is counted with where capacity is found from the memory: the
// bench shows about 150 KiB, and busy ones hold caches. The rest is for the
// process itself.
const (
	memoryPerSession = 512 << 10
	memoryForItself  = 96 << 20
)

// takeoverWithin is how long a worker may need to log in all that it can have:
// what is beyond it could not be handed over within a drain either.
const takeoverWithin = 75 * time.Second

// capacity is how many sessions the worker takes: as many as its memory holds
// and, in a fleet, as many as it can log in within takeoverWithin. On one's own
// machine without a limit of memory there is no bound: nobody else could take the
// rest.
func capacity(cfg Config) int { return capacityWith(cfg, containerLimit()) }

func capacityWith(cfg Config, limit int64) int {
	if cfg.Capacity > 0 {
		return cfg.Capacity
	}
	most := 0
	if cfg.State.Scheme == "dynamodb" {
		most = max(int(cfg.LoginRate*takeoverWithin.Seconds()), 1)
	}
	if limit > 0 {
		held := max(int((float64(limit)*memoryShare-memoryForItself)/memoryPerSession), 1)
		if most == 0 || held < most {
			most = held
		}
	}
	return most
}

// containerLimit is the memory limit of the cgroup in bytes, 0 for none.
func containerLimit() int64 {
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var n int64
		if _, err := fmt.Sscan(strings.TrimSpace(string(b)), &n); err == nil && n > 0 && n < 1<<50 {
			return n
		}
	}
	return 0
}
