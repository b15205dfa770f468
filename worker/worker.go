// Package worker is the supervisor of one process: it claims sessions within
// its capacity, runs one actor for each, brings them their commands, and drains.
//
//	Run ─┬─ claim what nobody owns ──► lease ──► session.Run (one goroutine each)
//	     ├─ poll commands, take nudges ────────► session.Command
//	     ├─ deliver: one dispatcher for all sessions' events
//	     └─ reachability, once a process and proxy
//
// When its context ends, every session closes its line, commits and is
// released; Run returns when all have, or when the drain time is over.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/worker/crash"
	"github.com/holdfast-wa/holdfast/worker/deliver"
	"github.com/holdfast-wa/holdfast/worker/lease"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/session"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

const (
	// pollEvery is how often the store is asked for commands and for sessions
	// that nobody owns. A nudge makes it immediate.
	pollEvery = time.Second
	// sweepEvery is how often commands that were put under another owner are
	// looked for.
	sweepEvery = 30 * time.Second
	// claimsAtOnce bounds the claims under way.
	claimsAtOnce = 16
	// claimPage is how many sessions are read at a time.
	claimPage = 500
	// tellFull is how often it is said that there is no room for more sessions.
	tellFull = 5 * time.Minute
	// restartActor is the pause before an actor that failed is run again.
	restartActor = 15 * time.Second
	// GCPercent is what a process that runs a worker sets the collector to: a
	// thousand sessions that start at once leave a third less of the heap in
	// holes than at 100, and the collector has little to do afterwards.
	GCPercent = 33
	// DefaultDrain is how long Run waits for sessions to end.
	DefaultDrain = 8 * time.Second
)

// Config is what a worker is made of. Store to Incarnation are required.
type Config struct {
	Store       state.Store
	Vault       state.Vault
	Master      seal.Master
	Keyset      *seal.Keyset // the fleet's
	Service     *whatsapp.Service
	Settings    policy.Settings
	Incarnation string

	Capacity   int     // sessions at most; 0: no bound
	LoginRate  float64 // logins a second; default 20
	LoginBurst int     // default 100
	CacheBytes int     // of one session; 0: the device store's default
	Drain      time.Duration

	NDJSON  *deliver.NDJSON // events to standard output; nil: none
	Poster  *deliver.Poster
	Webhook Webhook // of sessions that name none

	// Before is what the process before this one left behind.
	Before crash.Previous
	// PairAtStart begins pairings that ended without a scan anew.
	PairAtStart bool
	ShowQR      func(session, code string, until time.Time)
	// Changed is called when something about a session was committed; it must
	// not block.
	Changed func(session string)
	Metrics *Metrics
	Log     *slog.Logger
}

// Webhook is a receiver of events.
type Webhook struct{ URL, Secret string }

// Worker runs sessions.
type Worker struct {
	cfg    Config
	log    *slog.Logger
	keeper *lease.Keeper
	fleet  *fleet
	out    *deliver.Dispatcher
	nudge  chan struct{}

	mu       sync.Mutex
	sessions map[string]*running
	nudged   map[string]struct{}
	stopping bool
	actors   sync.WaitGroup

	toldFull time.Time // of the last word about the capacity; only claim looks at it
}

// New makes a worker; Run runs it.
func New(cfg Config) (*Worker, error) {
	if cfg.Store == nil || cfg.Vault == nil || cfg.Master == nil || cfg.Keyset == nil || cfg.Service == nil || cfg.Incarnation == "" {
		return nil, errors.New("worker: store, vault, master key, keyset, service and incarnation are required")
	}
	if cfg.LoginRate <= 0 {
		cfg.LoginRate = 20
	}
	if cfg.LoginBurst <= 0 {
		cfg.LoginBurst = 100
	}
	if cfg.Drain <= 0 {
		cfg.Drain = DefaultDrain
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics()
	}
	if cfg.Poster == nil {
		cfg.Poster = deliver.NewPoster(deliver.PosterConfig{})
	}
	w := &Worker{
		cfg: cfg, log: cfg.Log, keeper: lease.NewKeeper(cfg.Store, cfg.Incarnation),
		fleet:    newFleet(cfg.Store, cfg.Service, cfg.LoginRate, cfg.LoginBurst, cfg.Settings.ReachabilityInterval, cfg.Log),
		nudge:    make(chan struct{}, 1),
		sessions: make(map[string]*running), nudged: make(map[string]struct{}),
	}
	w.out = deliver.New(deliver.Config{Records: cfg.Store, Fleet: cfg.Keyset, Log: cfg.Log, Observe: cfg.Metrics.delivered})
	return w, nil
}

// Nudge makes the worker look for commands of a session now.
func (w *Worker) Nudge(name string) {
	w.mu.Lock()
	w.nudged[name] = struct{}{}
	w.mu.Unlock()
	select {
	case w.nudge <- struct{}{}:
	default:
	}
}

// Entry is one session of this worker as it is now.
type Entry struct {
	Name string
	session.Live
}

// Sessions lists this worker's sessions, without asking the store.
func (w *Worker) Sessions() []Entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]Entry, 0, len(w.sessions))
	for name, r := range w.sessions {
		list = append(list, Entry{name, r.handle().Live()})
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Live returns one session of this worker as it is now.
func (w *Worker) Live(name string) (session.Live, bool) {
	r := w.lookup(name)
	if r == nil {
		return session.Live{}, false
	}
	return r.handle().Live(), true
}

// Clock is the time by WhatsApp's clock, as far as it is known.
func (w *Worker) Clock() time.Time { return w.fleet.Clock() }

// Draining says that the worker is ending.
func (w *Worker) Draining() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stopping
}

// Run works until ctx ends, then drains. It returns nil if every session was
// released in time.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.fleet.loadVersion(ctx); err != nil {
		w.log.Warn("going on with the built-in WhatsApp version", "error", err)
	}
	// What serves the sessions outlives them.
	serve, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	var services sync.WaitGroup
	services.Go(func() { _ = w.out.Run(serve) })
	services.Go(func() { w.fleet.watchReach(serve) })

	sessions, stopSessions := context.WithCancelCause(context.WithoutCancel(ctx))
	w.work(ctx, sessions)
	err := w.drain(stopSessions)
	stopServing()
	services.Wait()
	return err
}

// work claims and dispatches until ctx ends.
func (w *Worker) work(ctx, sessions context.Context) {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	listed := w.claimAll(ctx, sessions)
	swept := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.nudge:
			for _, name := range w.takeNudged() {
				if r := w.lookup(name); r != nil {
					r.handle().Wake()
					select {
					case r.kick <- struct{}{}:
					default:
					}
				} else {
					w.claimOne(ctx, sessions, name)
				}
			}
		case <-poll.C:
			w.claimUnowned(ctx, sessions)
			w.dispatch(ctx, state.CommandIndex(w.cfg.Incarnation))
			if time.Since(swept) >= sweepEvery {
				swept, listed = time.Now(), false
				w.dispatch(ctx, state.CommandIndex(""))
			}
			if !listed {
				listed = w.claimAll(ctx, sessions)
			}
		}
	}
}

func (w *Worker) takeNudged() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := make([]string, 0, len(w.nudged))
	for name := range w.nudged {
		names = append(names, name)
	}
	clear(w.nudged)
	return names
}

func (w *Worker) lookup(name string) *running {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sessions[name]
}

func (w *Worker) dial(c session.Call) (session.Line, error) {
	return w.cfg.Service.NewLine(whatsapp.Config{
		Session: c.Session, N: c.N, Device: c.Device, Settings: c.Settings, Proxy: c.Own.Proxy,
		Post: c.Post, Full: c.Journal.Full, Log: c.Log,
	})
}

// dispatch brings the commands of an index to their sessions.
func (w *Worker) dispatch(ctx context.Context, index string) {
	var after *state.Indexed
	for {
		page, err := w.cfg.Store.Indexed(ctx, index, after, claimPage)
		if err != nil {
			if ctx.Err() == nil {
				w.log.Error("commands could not be read; trying again", "error", err)
				w.cfg.Metrics.storeError("indexed")
			}
			return
		}
		for i := range page {
			after = &page[i]
			name, ok := page[i].Partition.Session()
			if !ok {
				continue
			}
			r := w.lookup(name)
			if r == nil {
				continue
			}
			var c state.Command
			if err := state.Decode(page[i].Value, &c); err != nil {
				w.log.Warn("a command cannot be read", "session", name, "error", err)
				continue
			}
			r.handle().Command(session.Order{Command: c, Rev: page[i].Rev})
		}
		if len(page) < claimPage {
			return
		}
	}
}

// drain ends the sessions and waits for them.
func (w *Worker) drain(stop context.CancelCauseFunc) error {
	w.mu.Lock()
	w.stopping = true
	n := len(w.sessions)
	w.mu.Unlock()
	if n > 0 {
		w.log.Info("stopping: closing connections and releasing sessions", "sessions", n)
	}
	stop(errStopping)
	ended := make(chan struct{})
	go func() {
		w.actors.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(w.cfg.Drain):
		w.mu.Lock()
		defer w.mu.Unlock()
		return fmt.Errorf("%d of %d sessions were not released within %s; what they had acknowledged is stored", len(w.sessions), n, w.cfg.Drain)
	}
	return nil
}

var errStopping = errors.New("the worker is stopping")
