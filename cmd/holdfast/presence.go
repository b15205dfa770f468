package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/hostlock"
	"github.com/holdfast-wa/holdfast/worker"
	"github.com/holdfast-wa/holdfast/worker/crash"
)

// presence is how workers on one host know of each other's end at once: each
// holds a lock in a folder that the kernel gives free when the process ends, and
// has a file there that the runtime writes a panic to.
type presence struct {
	dir string
	log *slog.Logger

	mu      sync.Mutex
	id      string
	release func()
}

// newPresence prepares the folder.
func newPresence(dataDir string, log *slog.Logger) (*presence, error) {
	p := &presence{dir: filepath.Join(dataDir, "run"), log: log}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, writeFault("data folder "+p.dir, "cannot be made", err)
	}
	return p, nil
}

// joined is told each id under which this process joins the fleet, before it
// does. What fails here costs speed only: others then wait for the heartbeat.
func (p *presence) joined(id string) {
	p.leave()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.id = id
	if err := crash.Start(p.dir, id); err != nil {
		p.log.Warn("a crash of this process could not be attributed", "error", err)
	}
	release, err := hostlock.Hold(p.dir, id)
	if err != nil {
		p.log.Warn("the end of this process will be known by its heartbeat only", "error", err)
		return
	}
	p.release = release
}

// leave takes back what joined did. The report goes first: a report beside a free
// lock would speak of a death.
func (p *presence) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.id == "" {
		return
	}
	crash.Stop(p.dir, p.id)
	if p.release != nil {
		p.release()
	}
	p.id, p.release = "", nil
}

// gone tells of a worker on this host whose process has ended.
func (p *presence) gone(m state.Member) bool { return hostlock.Gone(p.dir, m.Incarnation) }

// tellDeaths makes known how processes on this host ended that did so without a
// word. It is called before this one joins.
func (p *presence) tellDeaths(ctx context.Context, store state.Store) {
	reports, err := crash.Reports(p.dir)
	if err != nil {
		p.log.Warn("how earlier processes ended is not known", "error", err)
		return
	}
	for _, r := range reports {
		if !hostlock.Gone(p.dir, r.Incarnation) {
			continue // it lives
		}
		if r.Panicked {
			p.log.Error("an earlier run of this worker ended in a panic", "worker", r.Incarnation, "session", r.Session,
				"panic", r.Text, "report", filepath.Join(p.dir, "crash.log.old"))
		}
		if err := worker.TellDeath(ctx, store, r); err != nil {
			p.log.Warn("the fleet could not be told how a process ended", "error", err)
			continue // the report stays for the next start
		}
		if err := crash.Settle(p.dir, r); err != nil {
			p.log.Warn("a crash report stays", "worker", r.Incarnation, "error", err)
		}
	}
	p.sweep(ctx, store)
}

// sweep removes the locks of workers that the fleet has forgotten.
func (p *presence) sweep(ctx context.Context, store state.Store) {
	roster, err := store.Roster(ctx)
	if err == nil {
		ids := make([]string, 0, len(roster.Members))
		for _, m := range roster.Members {
			ids = append(ids, m.Incarnation)
		}
		err = hostlock.Sweep(p.dir, ids)
	}
	if err != nil {
		p.log.Warn("locks of earlier processes stay", "error", err)
	}
}
