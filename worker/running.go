package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/worker/crash"
	"github.com/holdfast-wa/holdfast/worker/deliver"
	"github.com/holdfast-wa/holdfast/worker/lease"
	"github.com/holdfast-wa/holdfast/worker/session"
)

// running is a session in this process.
type running struct {
	lease *lease.Lease
	kick  chan struct{} // there is a command, for one whose actor does not run
	gone  chan struct{} // closed when nothing of it runs on

	mu    sync.Mutex
	actor *session.Session // another one after it failed
	queue *deliver.Queue
}

func (r *running) handle() *session.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.actor
}

// start runs the actor of a session that this worker has come to own.
func (w *Worker) start(l *lease.Lease) {
	name := l.Session()
	r := &running{lease: l, kick: make(chan struct{}, 1), gone: make(chan struct{})}
	r.actor = session.New(w.sessionConfig(r, name, l.From()))
	w.mu.Lock()
	before := w.sessions[name] // of a lease that was lost; its actor is on its way out
	w.sessions[name] = r
	n := len(w.sessions)
	w.mine[l.Fence().Owner] = struct{}{}
	w.mu.Unlock()
	w.fleet.breaker.Sessions(n)
	w.actors.Add(1)
	go func() {
		defer w.actors.Done()
		defer close(r.gone)
		crash.Label(name)
		if before != nil {
			// Two actors of one session would share its place among the sinks. The old
			// one's line is cut already.
			<-before.gone
		}
		w.live(r, name)
	}()
}

// live runs a session until its lease ends, and releases it. Its frame and those
// above it lie on the stack for as long as the session lives: what is big and
// rare is in functions of its own, so that an idle actor's stack shrinks to 4 KiB.
func (w *Worker) live(r *running, name string) {
	defer w.left(r, name)
	for w.again(r, name, w.runActor(r)) {
	}
	w.release(r, name)
}

// again waits after an actor that failed and makes the next one. It is false
// if the session has ended.
func (w *Worker) again(r *running, name string, err error) bool {
	held := r.lease.Context()
	if err == nil || held.Err() != nil {
		return false
	}
	w.log.Error("session could not run; trying again", "session", name, "error", err, "retryIn", restartActor.String())
	select {
	case <-held.Done():
		return false
	case <-r.kick: // a command has come
	case <-time.After(restartActor):
	}
	if errors.Is(err, state.ErrCorrupt) && w.removeUnreadable(r, name) {
		return false
	}
	w.cfg.Metrics.restarts.Inc()
	if err := r.lease.Renew(held); err != nil {
		w.log.Error("session could not be renewed", "session", name, "error", err)
	}
	cfg := w.sessionConfig(r, name, state.Owner{})
	cfg.Innocent = true // the process did not die
	again := session.New(cfg)
	r.mu.Lock()
	r.actor = again
	r.mu.Unlock()
	return true
}

// removeUnreadable ends a session that cannot run because its records cannot be
// read, if that is what an operator has asked for. Its device stays linked on the
// phone: there is nobody to unlink it.
func (w *Worker) removeUnreadable(r *running, name string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), restartActor)
	defer cancel()
	page, err := w.cfg.Store.Query(ctx, state.OfSession(name), state.Query{Kind: state.KindCommand})
	if err != nil {
		return false
	}
	for _, rec := range page.Records {
		var c state.Command
		if state.Decode(rec.Value, &c) != nil || c.Verb != state.VerbDelete || c.State.Final() {
			continue
		}
		if err := w.cfg.Store.RemoveSession(ctx, r.lease.Fence()); err != nil {
			w.log.Error("removing the session failed; trying again", "session", name, "error", err)
			return false
		}
		w.log.Info("session removed, though its records could not be read; remove the device on the phone", "session", name)
		r.lease.Lose(state.ErrNotFound) // there is nothing to release
		return true
	}
	return false
}

// release gives a session up that has ended.
func (w *Worker) release(r *running, name string) {
	if r.handle().Removed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), w.cfg.Drain)
	defer cancel()
	if err := r.lease.Release(ctx); err != nil {
		w.log.Error("session was not released", "session", name, "error", err)
	}
}

// left forgets a session that has ended.
func (w *Worker) left(r *running, name string) {
	w.mu.Lock()
	last := w.sessions[name] == r
	if last {
		delete(w.sessions, name)
	}
	n := len(w.sessions)
	w.mu.Unlock()
	if !last {
		return // it is here again, under a new lease
	}
	w.fleet.breaker.Sessions(n)
	w.fleet.forget(name)
	w.cfg.Metrics.forget(name)
}

// runActor keeps the panic of one actor from ending the others.
func (w *Worker) runActor(r *running) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return r.handle().Run()
}

func (w *Worker) sessionConfig(r *running, name string, from state.Owner) session.Config {
	prepared, _ := r.lease.Prepared().(*device.Prepared)
	return session.Config{
		Name: name, Lease: r.lease, Store: w.cfg.Store, Vault: w.cfg.Vault, Master: w.cfg.Master, Keyset: w.cfg.Keyset,
		Settings: w.cfg.Settings, Effective: w.Effective, Fleet: w.fleet, Dial: w.dial,
		Sinks: w.sinkNames, KeepContent: func(own state.SessionSettings) bool { return own.WebhookURL == "" && w.cfg.Webhook.URL == "" },
		Journal:   func(_ string, j *journal.Journal, own state.SessionSettings) { w.attach(r, name, j, own) },
		Committed: func(_ string, events []state.Event) { w.committed(r, name, events) },
		Redrive:   func(ctx context.Context, _, id string) (int, error) { return r.redrive(ctx, id) },
		ShowQR:    w.cfg.ShowQR, PairAtStart: w.cfg.PairAtStart, CacheBytes: w.cfg.CacheBytes,
		Prepared: prepared, Fetch: w.cfg.Files.Fetch, FileSlots: w.files,
		Verdict: func(ctx context.Context) (bool, bool) { return w.verdict(ctx, from) },
		Observe: w.cfg.Metrics.Sessions(), Log: w.log,
	}
}
