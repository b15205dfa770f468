package worker

import (
	"context"
	"errors"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/session"
)

// sweepCommands looks for commands that were put under an owner which a session
// no longer has: nobody, or one that has died. The owners' own polls do not find
// them, and whoever took the session may have read its commands just before.
func (w *Worker) sweepCommands(ctx context.Context) {
	w.dispatch(ctx, "")
	for _, m := range w.keeper.Roster().Members {
		if m.Dead {
			w.dispatch(ctx, m.Incarnation)
		}
	}
}

// dispatch brings the commands that are listed under an incarnation to their
// sessions.
func (w *Worker) dispatch(ctx context.Context, incarnation string) {
	var after *state.Indexed
	for {
		page, err := w.cfg.Store.Indexed(ctx, state.CommandIndex(incarnation), after, commandPage)
		if err != nil {
			if ctx.Err() == nil {
				w.log.Error("commands could not be read; trying again", "error", err)
			}
			return
		}
		for i := range page {
			after = &page[i]
			w.bring(ctx, incarnation, page[i])
		}
		if len(page) < commandPage {
			return
		}
	}
}

// bring hands one command to its session, if that runs here.
func (w *Worker) bring(ctx context.Context, under string, found state.Indexed) {
	name, ok := found.Partition.Session()
	if !ok {
		return
	}
	r := w.lookup(name)
	if r == nil {
		if w.wasMine(under) {
			w.redirect(ctx, name, under, found)
		}
		return
	}
	var c state.Command
	if err := state.Decode(found.Value, &c); err != nil {
		w.log.Warn("a command cannot be read", "session", name, "error", err)
		return
	}
	r.handle().Command(session.Order{Command: c, Rev: found.Rev})
}

// redirect lists a command under the owner that its session has now: it was put
// under this worker when the session had just left.
func (w *Worker) redirect(ctx context.Context, name, under string, found state.Indexed) {
	o, err := w.cfg.Store.Owner(ctx, name)
	if err != nil || o.Incarnation == under || o.Incarnation == w.keeper.Incarnation() {
		return // gone, not answered, or on its way here
	}
	// The index may show a record that has changed since; what is written is what
	// is stored, under its revision.
	rec, err := w.cfg.Store.Get(ctx, found.Partition, found.Key)
	if err != nil || rec.Index != state.CommandIndex(under) {
		return
	}
	rev := rec.Rev
	rec.Index, rec.Rev = state.CommandIndex(o.Incarnation), rev+1
	err = w.cfg.Store.Update(ctx, found.Partition, []state.Write{{Record: rec, If: state.AtRev(rev)}})
	if err != nil && !errors.Is(err, state.ErrConflict) && !errors.Is(err, state.ErrNotFound) && ctx.Err() == nil {
		w.log.Warn("a command could not be passed on; trying again", "session", name, "error", err)
	}
}
