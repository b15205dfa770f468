// Package worker is the supervisor of one process: it runs one actor for each
// session that this worker owns, brings them their commands, and drains.
//
//	Run ─┬─ lease.Keeper: beats, claims, gives ──► lease ──► session.Run (one goroutine each)
//	     ├─ poll commands, take nudges ──────────────────► session.Command
//	     ├─ deliver: one dispatcher for all sessions' events
//	     └─ reachability, once a process and proxy
//
// Nothing is claimed before the vault and the master key have answered once.
// When its context ends, the keeper gives every session to another worker, or to
// nobody: each closes its line and commits first. Run returns when all are gone,
// or when the drain time is over.
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

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/worker/deliver"
	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
	"github.com/holdfast-wa/holdfast/worker/fetch"
	"github.com/holdfast-wa/holdfast/worker/lease"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/session"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

const (
	// pollEvery is how often the store is asked for commands. A nudge makes it
	// immediate.
	pollEvery = time.Second
	// sweepEvery is how often commands that were put under another owner are
	// looked for.
	sweepEvery = 30 * time.Second
	// commandPage is how many commands are read at a time.
	commandPage = 500
	// restartActor is the pause before an actor that failed is run again.
	restartActor = 15 * time.Second
	// GCPercent is what a process that runs a worker sets the collector to: a
	// thousand sessions that start at once leave a third less of the heap in
	// holes than at 100, and the collector has little to do afterwards.
	GCPercent = 33
	// DefaultDrain is how long Run waits for sessions to end.
	DefaultDrain = 8 * time.Second
	// probeWithin and probeAgain are how long vault and master key may take to
	// answer at the start, and the first pause after they did not.
	probeWithin = 10 * time.Second
	probeAgain  = time.Second
	probeRarest = 15 * time.Second
)

// Config is what a worker is made of. Store to Settings are required.
type Config struct {
	Store    state.Store
	Vault    state.Vault
	Master   seal.Master
	Keyset   *seal.Keyset // the fleet's
	Service  *whatsapp.Service
	Settings policy.Settings

	// Heartbeat, Trust and Takeover are h, F and T of the ownership protocol; zero
	// values take 2, 8 and 12 s. Poll is how often unowned sessions and the other
	// workers' heartbeats are looked at; default 2 s.
	Heartbeat, Trust, Takeover, Poll time.Duration
	// Info is what the fleet is told of this worker.
	Info state.MemberInfo
	// Gone tells of workers whose process is known to have ended; nil: of none.
	Gone func(state.Member) bool
	// Joined is told each id under which this worker joins the fleet: a second one
	// after the first was declared dead.
	Joined func(incarnation string)
	// Probe asks vault and master key whether they answer. Until they have,
	// nothing is claimed; nil: they do.
	Probe func(context.Context) error

	Capacity   int     // sessions at most; 0: no bound
	LoginRate  float64 // logins a second; default 20
	LoginBurst int     // default 100
	CacheBytes int     // of one session; 0: the device store's default
	Drain      time.Duration

	NDJSON *deliver.NDJSON // events to standard output; nil: none
	// Reach says where a URL may lead that a user of the API has named, beside the
	// internet: webhooks of sessions.
	Reach     safedial.Policy
	Poster    *deliver.Poster // to webhooks of sessions; nil: one that keeps to Reach
	Webhook   Webhook         // of sessions that name none
	OwnPoster *deliver.Poster // to Webhook, which the operator of this process has named; nil: one that may reach private networks

	// Files fetches what a user of the API has named a URL of, to send it; nil: one
	// that keeps to Reach.
	Files *fetch.Fetcher
	// FilesAtOnce bounds the files to send that are in memory at a time: each takes
	// about three times its size. Default 4.
	FilesAtOnce int

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
	files  chan struct{} // a place for each file in memory

	mu       sync.Mutex
	sessions map[string]*running
	nudged   map[string]struct{}
	mine     map[string]struct{} // incarnations that were this process
	notReady string              // why nothing is claimed yet
	stopping bool
	actors   sync.WaitGroup
}

// New makes a worker; Run runs it.
func New(cfg Config) (*Worker, error) {
	if cfg.Store == nil || cfg.Vault == nil || cfg.Master == nil || cfg.Keyset == nil || cfg.Service == nil {
		return nil, errors.New("worker: store, vault, master key, keyset and service are required")
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
		cfg.Poster = deliver.NewPoster(deliver.PosterConfig{Allow: cfg.Reach})
	}
	if cfg.OwnPoster == nil {
		cfg.OwnPoster = deliver.NewPoster(deliver.PosterConfig{Allow: cfg.Reach.Trusted()})
	}
	if cfg.Files == nil {
		cfg.Files = fetch.New(fetch.Config{Allow: cfg.Reach})
	}
	if cfg.FilesAtOnce <= 0 {
		cfg.FilesAtOnce = 4
	}
	w := &Worker{
		cfg: cfg, log: cfg.Log, files: make(chan struct{}, cfg.FilesAtOnce),
		fleet:    newFleet(cfg.Store, cfg.Service, cfg.LoginRate, cfg.LoginBurst, cfg.Settings.ReachabilityInterval, cfg.Log),
		nudge:    make(chan struct{}, 1),
		sessions: make(map[string]*running), nudged: make(map[string]struct{}), mine: make(map[string]struct{}),
		notReady: "starting",
	}
	var err error
	w.keeper, err = lease.New(lease.Config{
		Store: cfg.Store, Info: cfg.Info, Log: cfg.Log,
		Heartbeat: cfg.Heartbeat, Trust: cfg.Trust, Takeover: cfg.Takeover, Poll: cfg.Poll, Capacity: cfg.Capacity,
		Prepare: w.prepare, Turn: w.fleet.Turn, Start: w.start, Gone: cfg.Gone, Online: w.online,
		Observe: cfg.Metrics.Leases(), Joined: cfg.Joined,
	})
	if err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	w.out = deliver.New(deliver.Config{Records: cfg.Store, Fleet: cfg.Keyset, Vault: cfg.Vault, Log: cfg.Log, Observe: cfg.Metrics.Delivered})
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

// Owned counts this worker's sessions.
func (w *Worker) Owned() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.sessions)
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

// NotReady says why this worker takes no sessions; empty: it does.
func (w *Worker) NotReady() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopping {
		return "draining"
	}
	return w.notReady
}

// Incarnation is under which id this worker is known to the fleet now.
func (w *Worker) Incarnation() string { return w.keeper.Incarnation() }

// Roster is the fleet as this worker read it last.
func (w *Worker) Roster() state.Roster { return w.keeper.Roster() }

// TrustLeft is how long the worker may go on if no heartbeat is answered any more.
func (w *Worker) TrustLeft() time.Duration { return w.keeper.TrustLeft() }

// Run works until ctx ends, then drains. It returns nil if every session was
// given away or released in time.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.fleet.loadVersion(ctx); err != nil {
		w.log.Warn("going on with the built-in WhatsApp version", "error", err)
	}
	// What serves the sessions outlives them.
	serve, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	var services errgroup.Group
	services.Go(func() error { _ = w.out.Run(serve); return nil })
	services.Go(func() error { w.fleet.watchReach(serve); return nil })
	if !w.probe(ctx) {
		stopServing()
		return services.Wait()
	}
	// The keeper goes on beating while it drains.
	kept := make(chan error, 1)
	go func() { kept <- w.keeper.Run(serve) }()
	work, stopWork := context.WithCancel(ctx)
	defer stopWork()
	services.Go(func() error { w.work(work); return nil })
	var err error
	select {
	case <-ctx.Done():
		err = w.drain()
	case err = <-kept:
		kept <- nil
	}
	stopWork()
	stopServing()
	if end := <-kept; err == nil && !errors.Is(end, context.Canceled) {
		err = end
	}
	_ = services.Wait()
	return err
}

// probe waits until vault and master key have answered. It is false if ctx ended
// before.
func (w *Worker) probe(ctx context.Context) bool {
	for pause := probeAgain; w.cfg.Probe != nil; pause = min(pause*2, probeRarest) {
		try, cancel := context.WithTimeout(ctx, probeWithin)
		err := w.cfg.Probe(try)
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return false
		}
		w.log.Error("not ready: no session is claimed", "error", err, "retryIn", pause.String())
		w.mu.Lock()
		w.notReady = err.Error()
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
	w.mu.Lock()
	w.notReady = ""
	w.mu.Unlock()
	return ctx.Err() == nil
}

// prepare loads what a session needs before it is claimed: what cannot be loaded
// now is better left with the owner that it has, or with nobody.
func (w *Worker) prepare(ctx context.Context, name string) (any, error) {
	p, err := device.Prepare(ctx, device.PrepareConfig{Store: w.cfg.Store, Vault: w.cfg.Vault, Master: w.cfg.Master, Session: name})
	if err != nil {
		return nil, fmt.Errorf("preparing session %s: %w", name, err)
	}
	return p, nil
}

// online counts the sessions that are.
func (w *Worker) online() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, r := range w.sessions {
		if r.handle().Online() {
			n++
		}
	}
	return n
}

// work dispatches commands until ctx ends.
func (w *Worker) work(ctx context.Context) {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
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
					w.keeper.Look(name)
				}
			}
		case <-poll.C:
			w.dispatch(ctx, w.keeper.Incarnation())
			if time.Since(swept) >= sweepEvery {
				swept = time.Now()
				w.sweepCommands(ctx)
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

// drain gives all sessions away and waits for them.
func (w *Worker) drain() error {
	w.mu.Lock()
	w.stopping = true
	n := len(w.sessions)
	w.mu.Unlock()
	if n > 0 {
		w.log.Info("stopping: sessions are closed and handed over", "sessions", n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), w.cfg.Drain)
	defer cancel()
	err := w.keeper.Drain(ctx)
	ended := make(chan struct{})
	go func() {
		w.actors.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return err
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.sessions) == 0 && err == nil {
		return nil
	}
	return fmt.Errorf("%d of %d sessions were not released within %s; what they had acknowledged is stored", len(w.sessions), n, w.cfg.Drain)
}
