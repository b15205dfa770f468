package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/hostlock"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/sqlite"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/state/vault"
	"github.com/holdfast-wa/holdfast/worker"
	"github.com/holdfast-wa/holdfast/worker/lease"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// fleet is the role of a worker process: a worker wired as `holdfast worker`
// wires one, without its listener.
type fleet struct {
	common
	house
	file    *sqlite.Store // what house.store is made of
	svc     *whatsapp.Service
	fault   *statetest.FaultStore
	trips   *statetest.CountingStore
	pulse   *pulse
	worker  *worker.Worker
	watch   *watch
	stop    context.CancelFunc
	stopped chan error
	here    []func() // what would give up the locks that say that this process lives
}

// open opens a data folder. Other processes may have it open too.
func (r *fleet) open(dir string) (err error) {
	path := filepath.Join(dir, "master.key")
	if r.master, err = seal.OpenFile(path); errors.Is(err, fs.ErrNotExist) {
		r.master, err = seal.CreateFile(path)
	}
	if err != nil {
		return err
	}
	if r.file, err = sqlite.Open(filepath.Join(dir, "state.db"), sqlite.Options{}); err != nil {
		return err
	}
	r.store = r.file
	if r.vault, err = vault.OpenDir(filepath.Join(dir, "vault")); err != nil {
		return err
	}
	r.keyset, err = worker.OpenKeyset(context.Background(), r.store, r.master)
	return err
}

// Fleet is a data folder and what is to be in it.
type Fleet struct {
	Dir      string
	Accounts []Account
	Unpaired []string // sessions without credentials
}

// Make makes a data folder with sessions.
func (r *fleet) Make(f Fleet, _ *None) error {
	if err := r.open(f.Dir); err != nil {
		return err
	}
	return errors.Join(r.fill(context.Background(), f.Accounts, f.Unpaired), r.file.Close())
}

// Gathering is a data folder and who is to have its sessions.
type Gathering struct {
	Dir     string
	Holders []string
}

// Gather divides all sessions among holders, see house.gather. This process beats
// for them as long as it lives.
func (r *fleet) Gather(g Gathering, _ *None) error {
	if err := r.open(g.Dir); err != nil {
		return err
	}
	ctx := context.Background()
	if err := r.gather(ctx, g.Holders); err != nil {
		return err
	}
	go func() {
		for range time.Tick(lease.DefaultHeartbeat) {
			for _, holder := range g.Holders {
				_ = r.file.Beat(ctx, holder, state.Load{}) // until it was declared stopped
			}
		}
	}()
	return nil
}

// Run says how to run a worker.
type Run struct {
	Where
	Dir      string
	Latency  time.Duration // added to every call of the store
	Settings map[string]string
	PairNew  bool

	LoginRate  float64 // logins a second, LoginBurst at once; 0: as many as there are
	LoginBurst int
	Deployment string
	Webhook    string        // receiver of events; empty: none
	Drain      time.Duration // 0: the worker's default
	HostLocks  bool          // workers of this host see each other's end at once
}

// Run begins to run sessions. SIGTERM drains the worker and ends the process,
// with 0 if all sessions were handed over or released.
func (r *fleet) Run(c Run, _ *None) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(worker.GCPercent)
	}
	if err := r.open(c.Dir); err != nil {
		return err
	}
	var err error
	r.watch = newWatch(r.store)
	log := slog.New(r.watch)
	if r.svc, err = whatsapp.NewService(whatsapp.ServiceConfig{Endpoint: c.URL, RootKey: c.RootKey, Log: log}); err != nil {
		return err
	}
	set, err := policy.Guide().With(c.Settings)
	if err != nil {
		return err
	}
	set.SendPace, set.SendPaceChat = 0, 0 // the work is measured, not the pauses
	changed := func(string) {}            // the bench's own reads would be in the figures
	if c.PairNew {
		changed = r.watch.changed
	}
	if c.LoginRate == 0 {
		c.LoginRate, c.LoginBurst = 1e6, 1e6
	}
	host, _ := os.Hostname() // what else it is called does not matter
	metrics := worker.NewMetrics()
	cfg := worker.Config{
		Store: worker.Measured(r.stores(c), metrics), Vault: r.vault, Master: r.master, Keyset: r.keyset, Service: r.svc, Settings: set,
		Info:      state.MemberInfo{Deployment: c.Deployment, Host: host, Version: "bench", Format: state.Format},
		LoginRate: c.LoginRate, LoginBurst: c.LoginBurst, Drain: c.Drain, Webhook: worker.Webhook{URL: c.Webhook},
		PairAtStart: c.PairNew, ShowQR: r.watch.showQR, Changed: changed, Metrics: metrics, Log: log,
	}
	if c.HostLocks {
		if err := r.hostLocks(&cfg, filepath.Join(c.Dir, "run")); err != nil {
			return err
		}
	}
	if r.worker, err = worker.New(cfg); err != nil {
		return err
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	r.stopped = make(chan error, 1)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() { r.stopped <- r.worker.Run(ctx) }()
	go func() {
		<-term
		if err := r.Stop(None{}, nil); err != nil {
			fmt.Fprintln(os.Stderr, "# worker:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}()
	return nil
}

// stores is the store as the worker has it, with all that looks at its calls.
func (r *fleet) stores(c Run) state.Store {
	r.fault = statetest.Fault(r.file)
	var store state.Store = r.file
	switch {
	case c.Latency > 0:
		store = statetest.Delay(store, c.Latency)
	case c.PairNew:
		store = r.fault
	}
	r.trips = statetest.Counting(store)
	r.pulse = newPulse(r.trips)
	return r.pulse
}

// hostLocks lets workers of one host see each other's end, as `holdfast worker`
// does where they share a data folder.
func (r *fleet) hostLocks(cfg *worker.Config, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	cfg.Gone = func(m state.Member) bool { return hostlock.Gone(dir, m.Incarnation) }
	cfg.Joined = func(id string) {
		release, err := hostlock.Hold(dir, id)
		if err != nil {
			fmt.Fprintln(os.Stderr, "# worker:", err)
		}
		r.here = append(r.here, release) // held until the process ends, which is what it tells of
	}
	return nil
}

// Stop ends the worker in order.
func (r *fleet) Stop(None, *None) error {
	r.stop()
	err := <-r.stopped
	r.watch.close()
	r.svc.Close()
	return errors.Join(err, r.file.Close())
}

// Incarnation is who the worker is in the fleet; empty before it has joined.
func (r *fleet) Incarnation(_ None, reply *string) error {
	*reply = r.worker.Incarnation()
	return nil
}

// Owners lists the sessions by who has them. Nobody is empty.
func (r *fleet) Owners(_ None, reply *map[string][]string) error {
	owners, err := everyOwner(context.Background(), r.file)
	*reply = map[string][]string{}
	for _, o := range owners {
		(*reply)[o.Incarnation] = append((*reply)[o.Incarnation], o.Session)
	}
	return err
}

// Stopped tells the fleet that a worker's process has ended, as a platform's
// event does.
func (r *fleet) Stopped(incarnation string, _ *None) error {
	return r.file.DeclareStopped(context.Background(), incarnation)
}

// Beats is what was seen of the heartbeats since the last call.
func (r *fleet) Beats(_ None, reply *Beats) error {
	*reply = r.pulse.take()
	return nil
}

// Reply puts a text into a session's outbox.
func (r *fleet) Reply(m Reply, _ *None) error {
	if err := r.put(context.Background(), m); err != nil {
		return err
	}
	r.worker.Nudge(m.Session)
	return nil
}

// Trips is how often sessions have gone to the store, and how many of these were
// commits.
type Trips struct{ All, Commits int }

// Trips counts since the last call.
func (r *fleet) Trips(_ None, reply *Trips) error {
	*reply = Trips{
		All:     r.trips.Count(statetest.Commit, statetest.Get, statetest.GetMany, statetest.Query),
		Commits: r.trips.Count(statetest.Commit),
	}
	r.trips.Reset()
	return nil
}

// Break makes a session's commits fail from now on, as a store's that is away.
func (r *fleet) Break(session string, _ *None) error {
	r.fault.FailBefore(func(c statetest.Call) bool { return c.Session == session && c.Method == statetest.Commit }, -1, nil)
	return nil
}

// Mend waits until the session has noticed, and makes all well again.
func (r *fleet) Mend(session string, _ *None) error {
	err := r.watch.await(session, state.CauseStoreUnavailable)
	r.fault.Heal()
	return err
}

// Seen is what the worker has logged and stored of the ends of connections.
func (r *fleet) Seen(_ None, reply *[]Decision) error {
	*reply = r.watch.all()
	return nil
}

// QR waits for the QR text of a session.
func (r *fleet) QR(session string, reply *string) (err error) {
	*reply, err = r.watch.qr(session)
	return err
}
