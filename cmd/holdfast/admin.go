package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/console"
	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker"
)

const (
	// offlineEvery is how often the admin process looks for what no worker is
	// there to do.
	offlineEvery = 2 * time.Second
	// storeEvery is how often it asks the store whether it answers, and readyAgain
	// how long it waits before vault and master key are asked again.
	storeEvery = 2 * time.Second
	readyAgain = 2 * time.Second
)

// adminSettings are those that holdfast admin looks at beside what it checks in
// the settings of sessions: where things are, and the times of the protocol.
func adminSettings() []string {
	return []string{"data-dir", "state", "vault", "master-key", "master-key-old", "listen", "api-keys", "webhook-allow-private",
		"heartbeat", "trust", "takeover", "poll", "media-allow-private", "media-limit", "api-rate",
		"aws-endpoint-dynamodb", "aws-endpoint-s3", "aws-endpoint-kms", "log-level", "log-format"}
}

func (a *app) adminCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "admin", Short: "Run the admin API alone, over the store",
		Long: "Runs the admin API over the store, without a worker in its process: beside any\n" +
			"number of workers, or while none runs. What is asked for reaches the workers\n" +
			"through the store; a disconnect is carried out here where no worker is alive.\n\n" +
			"Every flag is also a HOLDFAST_ variable and a key of the YAML file.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.config(cmd, nil)
			if err != nil {
				return err
			}
			return runAdmin(cmd.Context(), cfg, a.io)
		},
	}
	settingFlags(cmd, adminSettings())
	return cmd
}

// runAdmin serves the admin API until ctx ends.
func runAdmin(ctx context.Context, cfg Config, io IO) error {
	level := new(slog.LevelVar)
	level.Set(cfg.LogLevel)
	log := newLog(io.Err, cfg.LogFormat, level)
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen %s: %w; stop what uses it, or set --listen to another address", cfg.Listen, cause(err))
	}
	defer listener.Close()
	limitMemory(log)
	keys, err := adminKeys(cfg, io, log)
	if err != nil {
		return err
	}
	o, err := openState(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer o.close()
	office, err := newAdminOffice(cfg, o, keys, log)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: office.routes(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	log.Info("admin API started", "version", buildVersion().Version, "listen", listener.Addr().String(), "state", cfg.State.String())

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var all errgroup.Group
	all.Go(func() error {
		defer stop()
		if err := server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("listen %s: %w", cfg.Listen, err)
		}
		return nil
	})
	all.Go(func() error {
		defer stop()
		return office.run(ctx)
	})
	all.Go(func() error {
		<-ctx.Done()
		shut, cancel := context.WithTimeout(context.Background(), httpWithin)
		defer cancel()
		if server.Shutdown(shut) != nil {
			_ = server.Close() // requests that wait, such as live streams
		}
		return nil
	})
	if err := all.Wait(); err != nil {
		return err
	}
	log.Info("admin API stopped")
	return nil
}

// adminKeys are the keys of the settings. On one machine, where none are set, the
// data folder's own serves, as in dev.
func adminKeys(cfg Config, io IO, log *slog.Logger) ([]adminapi.Key, error) {
	if len(cfg.APIKeys) > 0 {
		return cfg.APIKeys, nil
	}
	if cfg.State.Scheme != "sqlite" {
		return nil, usagef("api-keys: none are set, so nobody could use the admin API; set HOLDFAST_API_KEYS to NAME:ROLE:SHA256HEX, the hash is made with: printf %%s KEY | sha256sum")
	}
	key, err := devKey(cfg, io, log)
	return []adminapi.Key{key}, err
}

// adminOffice is what the admin process serves and looks after.
type adminOffice struct {
	cfg     Config
	o       *opened
	api     *adminapi.API
	offline *fleet.Offline
	metrics *prometheus.Registry
	log     *slog.Logger
	since   time.Time

	unready atomic.Pointer[string] // why vault and master key cannot be used yet
	away    atomic.Pointer[string] // why the store cannot
}

func newAdminOffice(cfg Config, o *opened, keys []adminapi.Key, log *slog.Logger) (*adminOffice, error) {
	a := &adminOffice{cfg: cfg, o: o, log: log, since: time.Now()}
	a.set(&a.unready, "starting")
	a.set(&a.away, "")
	here, err := newPresence(cfg.DataDir, log)
	if err != nil {
		return nil, err
	}
	view := fleet.NewView(fleet.ViewConfig{Members: o.store, Takeover: cfg.Takeover})
	host, _ := os.Hostname() // for people only
	version := buildVersion().Version
	a.offline, err = fleet.New(fleet.Config{Store: o.store, Vault: o.vault, Fleet: o.keyset, View: view, Gone: here.gone,
		Info: state.MemberInfo{Host: host, Version: version}, Log: log})
	if err != nil {
		return nil, err
	}
	a.api = adminapi.New(adminapi.Config{Store: o.store, Fleet: o.keyset, Keys: keys, View: view, Offline: a.offline,
		ValidateSettings: func(s state.SessionSettings) error { return worker.CheckSettings(cfg.Policy, cfg.WebhookReach, s) },
		ValidateMediaURL: cfg.MediaReach.CheckURL,
		Vault:            o.vault, MaxMedia: cfg.MediaLimit, Rate: cfg.APIRate,
		NotReady: func() string { return *a.unready.Load() },
		Version:  version, Log: log})
	a.metrics = prometheus.NewRegistry()
	a.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for name, g := range map[string]struct {
		help  string
		count func(fleet.Standing) bool
	}{
		"holdfast_workers_alive": {"Workers whose heartbeat moves, as the admin process sees it.", func(s fleet.Standing) bool { return s == fleet.Alive }},
		"holdfast_workers_stale": {"Workers whose heartbeat stands still and that are not declared dead.", func(s fleet.Standing) bool { return s == fleet.Stale }},
	} {
		a.metrics.MustRegister(&workerCount{view: view, count: g.count, desc: prometheus.NewDesc(name, g.help, nil, nil)})
	}
	return a, nil
}

func (a *adminOffice) set(p *atomic.Pointer[string], why string) { p.Store(&why) }

// routes is the listener: health, metrics, and the API.
func (a *adminOffice) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", adminapi.Health(adminapi.HealthConfig{
		Snapshot: func() adminapi.Snapshot {
			s := adminapi.Snapshot{Since: a.since, NotReady: *a.unready.Load()}
			if s.NotReady == "" {
				s.NotReady = *a.away.Load()
			}
			return s
		},
		Metrics: promhttp.HandlerFor(a.metrics, promhttp.HandlerOpts{}), Version: buildVersion().Version,
	}))
	mux.Handle(console.Prefix, console.Handler())
	mux.Handle("/{$}", console.Handler())
	return withAPI(a.api, mux)
}

// withAPI hands the API what is its, as it came: a mux would redirect a path such
// as /api/sessions/%2e%2e/qr, and such an answer is none of the API's.
func withAPI(api, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			api.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// run waits until vault and master key can be used, then looks after what no
// worker is there to do. It ends with ctx, or with the store's replacement.
func (a *adminOffice) run(ctx context.Context) error {
	var all errgroup.Group
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	all.Go(func() error {
		defer stop()
		if err := a.becomeReady(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		a.offline.Run(ctx, offlineEvery)
		return nil
	})
	all.Go(func() error { a.watchStore(ctx); return nil })
	all.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case err := <-a.o.failed:
			stop()
			return err
		}
	})
	return all.Wait()
}

// becomeReady asks vault and master key until they answer. Until then the API
// says why it cannot serve.
func (a *adminOffice) becomeReady(ctx context.Context) error {
	for {
		one, cancel := context.WithTimeout(ctx, readyWithin)
		err := a.o.ready(one)
		cancel()
		switch {
		case err == nil:
			a.set(&a.unready, "")
			return nil
		case ctx.Err() != nil:
			return nil
		case !passing(err):
			return err
		}
		a.set(&a.unready, oneLine(err.Error()))
		a.log.Error("not ready: no request is served", "error", err, "retryIn", readyAgain.String())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(readyAgain):
		}
	}
}

// watchStore keeps what /health/ready says of the store.
func (a *adminOffice) watchStore(ctx context.Context) {
	tick := time.NewTicker(storeEvery)
	defer tick.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, askWithin)
		err := a.o.store.Ping(one)
		cancel()
		why := ""
		if err != nil {
			why = oneLine(fmt.Sprintf("the store does not answer: %v", err))
		}
		if ctx.Err() == nil {
			a.set(&a.away, why)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// workerCount is a gauge of workers; without an answer of the store it has no
// value, rather than a wrong one.
type workerCount struct {
	view  *fleet.View
	count func(fleet.Standing) bool
	desc  *prometheus.Desc
}

func (c *workerCount) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

func (c *workerCount) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), askWithin)
	defer cancel()
	sight, err := c.view.Read(ctx)
	if err != nil {
		return
	}
	n := 0
	for _, m := range sight.Members {
		if !m.Info.Tool && c.count(sight.Standing(m.Incarnation)) {
			n++
		}
	}
	ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n))
}
