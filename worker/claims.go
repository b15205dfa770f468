package worker

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-wa/holdfast/state"
)

// claimAll takes over whatever does not run here: what the incarnation before
// this one, which is dead, left, and what a claim or release that failed has left
// to this one. It tells whether the list was read to its end.
func (w *Worker) claimAll(ctx, sessions context.Context) bool {
	after := ""
	for {
		page, err := w.cfg.Store.Sessions(ctx, after, claimPage)
		if err != nil {
			if ctx.Err() == nil {
				w.log.Error("sessions could not be listed; trying again", "error", err)
				w.cfg.Metrics.storeError("sessions")
			}
			return false
		}
		w.claim(ctx, sessions, page)
		if len(page) < claimPage {
			return true
		}
		after = page[len(page)-1].Session
	}
}

// claimUnowned takes sessions that nobody owns: new ones, mostly.
func (w *Worker) claimUnowned(ctx, sessions context.Context) {
	free, err := w.cfg.Store.OwnedBy(ctx, "", "", claimPage)
	if err != nil {
		if ctx.Err() == nil {
			w.log.Error("unowned sessions could not be listed; trying again", "error", err)
			w.cfg.Metrics.storeError("owned_by")
		}
		return
	}
	w.claim(ctx, sessions, free)
}

func (w *Worker) claimOne(ctx, sessions context.Context, name string) {
	o, err := w.cfg.Store.Owner(ctx, name)
	if err != nil || o.Incarnation == w.cfg.Incarnation {
		return // gone, or ours and on its way; the poll sees to the rest
	}
	w.claim(ctx, sessions, []state.Owner{o})
}

func (w *Worker) claim(ctx, sessions context.Context, free []state.Owner) {
	var claims errgroup.Group
	claims.SetLimit(claimsAtOnce)
	for _, o := range free {
		w.mu.Lock()
		full := w.cfg.Capacity > 0 && len(w.sessions) >= w.cfg.Capacity
		_, have := w.sessions[o.Session]
		w.mu.Unlock()
		if have || ctx.Err() != nil {
			continue
		}
		if full {
			if now := time.Now(); now.Sub(w.toldFull) >= tellFull {
				w.toldFull = now
				w.log.Warn("at capacity, sessions stay unowned", "capacity", w.cfg.Capacity)
			}
			break
		}
		claims.Go(func() error {
			l, err := w.keeper.Claim(ctx, sessions, o)
			switch {
			case errors.Is(err, state.ErrFenced), errors.Is(err, state.ErrNotFound):
				return nil // somebody was faster, or it is gone
			case err != nil:
				if ctx.Err() == nil {
					w.log.Error("claim failed; trying again", "session", o.Session, "error", err)
					w.cfg.Metrics.storeError("claim")
				}
				return nil
			}
			w.start(l, o)
			return nil
		})
	}
	_ = claims.Wait()
	w.mu.Lock()
	n := len(w.sessions)
	w.mu.Unlock()
	w.fleet.breaker.Sessions(n)
}
