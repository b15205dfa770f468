package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
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
// wires one, without its listener and without sinks of events.
type fleet struct {
	common
	store   *sqlite.Store
	vault   *vault.Dir
	master  seal.Master
	keyset  *seal.Keyset
	svc     *whatsapp.Service
	fault   *statetest.FaultStore
	trips   *statetest.CountingStore
	worker  *worker.Worker
	watch   *watch
	stop    context.CancelFunc
	stopped chan error
}

// open opens a data folder.
func (r *fleet) open(dir string) (err error) {
	path := filepath.Join(dir, "master.key")
	if r.master, err = seal.OpenFile(path); errors.Is(err, fs.ErrNotExist) {
		r.master, err = seal.CreateFile(path)
	}
	if err != nil {
		return err
	}
	if r.store, err = sqlite.Open(filepath.Join(dir, "state.db"), sqlite.Options{}); err != nil {
		return err
	}
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

// Make makes a data folder with sessions whose pairing has ended: what it
// leaves is written by the same code that a pairing writes with.
func (r *fleet) Make(f Fleet, _ *None) error {
	if err := r.open(f.Dir); err != nil {
		return err
	}
	ctx := context.Background()
	keeper := lease.NewKeeper(r.store, lease.NewIncarnation())
	var all errgroup.Group
	all.SetLimit(32) // they share fsyncs
	for _, a := range f.Accounts {
		all.Go(func() error {
			if err := r.create(ctx, a.Name); err != nil {
				return err
			}
			return r.enrol(ctx, keeper, a)
		})
	}
	for _, name := range f.Unpaired {
		all.Go(func() error { return r.create(ctx, name) })
	}
	return errors.Join(all.Wait(), r.store.Close())
}

func (r *fleet) create(ctx context.Context, name string) error {
	now := time.Now().UTC()
	value, err := state.Encode(state.Spec{V: state.Format, Name: name, Wanted: state.WantRunning, Generation: 1, CreatedAt: now, ChangedAt: now})
	if err != nil {
		return err
	}
	w := state.Put(state.KindSpec, "", value)
	w.Rev = 1
	return r.store.CreateSession(ctx, name, []state.Write{w})
}

// enrol gives a session its credentials.
func (r *fleet) enrol(ctx context.Context, keeper *lease.Keeper, a Account) (err error) {
	o, err := r.store.Owner(ctx, a.Name)
	if err != nil {
		return err
	}
	l, err := keeper.Claim(ctx, ctx, o)
	if err != nil {
		return err
	}
	j, err := journal.Open(ctx, journal.Config{Store: r.store, Fence: l.Fence(), Fleet: r.keyset})
	if err != nil {
		return err
	}
	defer j.Close()
	d, err := device.Open(ctx, device.Config{Journal: j, Store: r.store, Vault: r.vault, Master: r.master, Session: a.Name})
	if err != nil {
		return err
	}
	defer d.Close()
	if err := a.pair(ctx, d.Library()); err != nil {
		return err
	}
	value, err := state.Encode(state.Status{V: state.Format, State: state.Restarting, Since: time.Now(), Paired: true})
	if err != nil {
		return err
	}
	if err := j.Commit(ctx, journal.Batch{Writes: []state.Write{state.Put(state.KindStatus, "", value)}}); err != nil {
		return err
	}
	if err := j.Flush(ctx); err != nil {
		return err
	}
	return l.Release(ctx)
}

// Run says how to run a worker.
type Run struct {
	Where
	Dir      string
	Latency  time.Duration // added to every call of the store
	Settings map[string]string
	PairNew  bool
}

// Run begins to run all sessions. The login bucket is open.
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
	r.fault = statetest.Fault(r.store)
	var store state.Store = r.store
	switch {
	case c.Latency > 0:
		store = statetest.Delay(store, c.Latency)
	case c.PairNew:
		store = r.fault
	}
	r.trips = statetest.Counting(store)
	changed := func(string) {} // the bench's own reads would be in the figures
	if c.PairNew {
		changed = r.watch.changed
	}
	metrics := worker.NewMetrics()
	r.worker, err = worker.New(worker.Config{
		Store: worker.Measured(r.trips, metrics), Vault: r.vault, Master: r.master, Keyset: r.keyset, Service: r.svc,
		Settings: set, Incarnation: lease.NewIncarnation(), LoginRate: 1e6, LoginBurst: 1e6, Drain: time.Minute,
		PairAtStart: c.PairNew, ShowQR: r.watch.showQR, Changed: changed, Metrics: metrics, Log: log,
	})
	if err != nil {
		return err
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	r.stopped = make(chan error, 1)
	go func() { r.stopped <- r.worker.Run(ctx) }()
	return nil
}

// Stop ends the worker in order.
func (r *fleet) Stop(None, *None) error {
	r.stop()
	err := <-r.stopped
	r.watch.close()
	r.svc.Close()
	return errors.Join(err, r.store.Close())
}

// Reply puts a text into a session's outbox, as the admin API does.
func (r *fleet) Reply(m Reply, _ *None) error {
	id := ulid.Make().String()
	place := seal.Place{Partition: state.OfSession(m.Session), Kind: state.KindOutbox, ID: id}
	content, err := json.Marshal(state.OutboxContent{To: m.To + "@s.whatsapp.net", Text: m.Text})
	if err != nil {
		return err
	}
	sealed, err := r.keyset.Seal(place, content)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	value, err := state.Encode(state.Outbox{V: state.Format, ID: id, MessageID: "3EB0" + id[6:], State: state.OutQueued,
		At: now, ChangedAt: now, Sealed: sealed})
	if err != nil {
		return err
	}
	w := state.Put(state.KindOutbox, id, value)
	w.Rev, w.If, w.Index = 1, state.Absent(), state.OutboxDue(m.Session)
	if err := r.store.Update(context.Background(), place.Partition, []state.Write{w}); err != nil {
		return err
	}
	r.worker.Nudge(m.Session)
	return nil
}

// Trips is how often sessions have gone to the store since the last call.
func (r *fleet) Trips(_ None, reply *int) error {
	*reply = r.trips.Count(statetest.Commit, statetest.Get, statetest.GetMany, statetest.Query)
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

// Decision is one end of a connection, as it was logged and stored.
type Decision struct {
	Session string
	Cause   state.Cause
	At      time.Time // when it was logged
	Delay   time.Duration
	Next    time.Time // Status.NextAttemptAt; zero if that was not seen
}

// watch is a worker's log and what is called on changes. It keeps decisions
// and drops everything else but errors.
type watch struct {
	records state.Records
	names   chan string
	ended   sync.WaitGroup

	mu        sync.Mutex
	moved     *sync.Cond
	decisions []Decision
	codes     map[string]string
}

func newWatch(records state.Records) *watch {
	w := &watch{records: records, names: make(chan string, 1<<12), codes: map[string]string{}}
	w.moved = sync.NewCond(&w.mu)
	w.ended.Go(w.readStatus)
	return w
}

func (w *watch) close() {
	close(w.names)
	w.ended.Wait()
}

// changed is told of each commit of a session; it never blocks.
func (w *watch) changed(session string) {
	select {
	case w.names <- session:
	default:
	}
}

// readStatus reads NextAttemptAt of sessions that have changed.
func (w *watch) readStatus() {
	for name := range w.names {
		rec, err := w.records.Get(context.Background(), state.OfSession(name), state.Key{Kind: state.KindStatus})
		var st state.Status
		if err != nil || state.Decode(rec.Value, &st) != nil || st.NextAttemptAt.IsZero() {
			continue
		}
		w.mu.Lock()
		for i := len(w.decisions) - 1; i >= 0; i-- {
			if d := &w.decisions[i]; d.Session == name && d.Cause == st.Cause {
				d.Next = st.NextAttemptAt
				break
			}
		}
		w.mu.Unlock()
	}
}

func (w *watch) showQR(session, code string, _ time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.codes[session] = code
	w.moved.Broadcast()
}

// qr waits for a QR text of a session.
func (w *watch) qr(session string) (string, error) {
	err := w.wait(func() bool { return w.codes[session] != "" })
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.codes[session], err
}

// await waits for a decision of a cause.
func (w *watch) await(session string, cause state.Cause) error {
	return w.wait(func() bool {
		for _, d := range w.decisions {
			if d.Session == session && d.Cause == cause {
				return true
			}
		}
		return false
	})
}

func (w *watch) wait(done func() bool) error {
	over := false
	timer := time.AfterFunc(time.Minute, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		over = true
		w.moved.Broadcast()
	})
	defer timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for !done() {
		if over {
			return errors.New("waited for a minute in vain")
		}
		w.moved.Wait()
	}
	return nil
}

func (w *watch) all() []Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Decision(nil), w.decisions...)
}

// Enabled implements slog.Handler.
func (w *watch) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// WithAttrs implements slog.Handler.
func (w *watch) WithAttrs(attrs []slog.Attr) slog.Handler { return watched{w, attrs} }

// WithGroup implements slog.Handler; nothing of a worker's log is in groups.
func (w *watch) WithGroup(string) slog.Handler { return w }

// Handle implements slog.Handler.
func (w *watch) Handle(ctx context.Context, r slog.Record) error {
	return watched{w, nil}.Handle(ctx, r)
}

// watched is a watch's log of one session.
type watched struct {
	*watch
	attrs []slog.Attr
}

// WithAttrs implements slog.Handler.
func (w watched) WithAttrs(attrs []slog.Attr) slog.Handler {
	return watched{w.watch, append(w.attrs[:len(w.attrs):len(w.attrs)], attrs...)}
}

// WithGroup implements slog.Handler.
func (w watched) WithGroup(string) slog.Handler { return w }

// Handle keeps what tells of a decision with a delay.
func (w watched) Handle(_ context.Context, r slog.Record) error {
	d := Decision{At: r.Time}
	take := func(a slog.Attr) bool {
		switch a.Key {
		case "session":
			d.Session = a.Value.String()
		case "cause":
			d.Cause = state.Cause(a.Value.String())
		case "delay":
			d.Delay, _ = time.ParseDuration(a.Value.String())
		}
		return true
	}
	for _, a := range w.attrs {
		take(a)
	}
	r.Attrs(take)
	if d.Cause != "" && d.Delay > 0 {
		w.mu.Lock()
		w.decisions = append(w.decisions, d)
		w.moved.Broadcast()
		w.mu.Unlock()
		return nil
	}
	if r.Level >= slog.LevelError {
		return w.print(r)
	}
	return nil
}

// print passes an error on to the bench's log.
func (watched) print(r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += fmt.Sprintf(" %s=%s", a.Key, a.Value); return true })
	_, err := fmt.Fprintf(os.Stderr, "# worker: %s\n", text)
	return err
}
