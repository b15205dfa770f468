package session

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// wishOf is what a verb of those that change what is wanted makes the wanted state.
func wishOf(v state.Verb) (serves bool, wish state.Wanted) {
	switch v {
	case state.VerbStart, state.VerbRestart, state.VerbRepair, state.VerbRestore:
		return true, state.WantRunning
	case state.VerbStop:
		return true, state.WantStopped
	case state.VerbDisconnect:
		return true, state.WantDisconnected
	}
	return false, ""
}

// follow asks to bring the session to what the spec wants, although its
// generation may have been observed.
type follow struct{}

// settle asks, after the commands that were read, whether the spec is followed.
type settle struct{}

// settleSpec follows the spec, where no command has done so.
func (a *actor) settleSpec(ctx context.Context) phase {
	if a.spec.Generation == a.st.ObservedGeneration {
		return nil
	}
	return a.followSpec(ctx)
}

// followSpec brings the session to what the spec wants now.
func (a *actor) followSpec(ctx context.Context) phase {
	if a.reopen {
		if a.line != nil || a.phase == "waiting" {
			a.redialFor = "webhook"
		}
		if err := a.reopenJournal(ctx); err != nil {
			return a.strand(err)
		}
	}
	switch {
	case a.spec.Wanted == state.WantDisconnected && a.st.Cause != state.CauseDisconnected:
		return a.disconnect(a.unlink(ctx))
	case a.spec.Wanted == state.WantStopped && a.st.Cause != state.CauseStopped:
		return a.signal(ctx, policy.Signal{Kind: policy.SignalUserStop})
	case a.spec.Wanted == state.WantRunning && a.spec.RepairGeneration > a.st.RepairObserved:
		return a.repair(ctx)
	case a.spec.Wanted == state.WantRunning && (a.st.Cause == state.CauseStopped || a.st.Cause == state.CauseDisconnected):
		if until := a.st.CooldownUntil; until.After(a.cfg.Fleet.Clock()) {
			// A stop in between does not shorten it.
			if err := a.report(nil); err != nil {
				return a.strand(err)
			}
			return a.parked(until)
		}
		return a.freshCycle()
	case a.redialFor == "webhook" || a.redialFor != "" && (a.line != nil || a.phase == "waiting"):
		a.log.Info("settings changed, connecting anew", "setting", a.redialFor)
		a.redialFor = ""
		return a.freshCycle()
	}
	a.redialFor = ""
	if err := a.report(nil); err != nil {
		return a.strand(err)
	}
	return nil
}

// reopenJournal opens the journal for other receivers. The device writes through
// it and the line looks at it, so both are made anew.
func (a *actor) reopenJournal(ctx context.Context) error {
	a.endOnline(time.Now())
	a.dropLine()
	a.dropDevice()
	if a.cfg.Journal != nil {
		a.cfg.Journal(a.cfg.Name, nil, a.own)
	}
	a.jrn.Close()
	return a.openJournal(ctx)
}

// reconcile looks at the store: spec, commands, outbox.
func (a *actor) reconcile(ctx context.Context) phase {
	if err := a.loadSpec(ctx); err != nil {
		if errors.Is(err, state.ErrNotFound) {
			return nil // being removed
		}
		return a.strand(err)
	}
	after := ""
	var open []Order
	for {
		page, err := a.cfg.Store.Query(ctx, state.OfSession(a.cfg.Name), state.Query{Kind: state.KindCommand, After: after})
		if err != nil {
			if ctx.Err() != nil {
				return a.leave
			}
			return a.strand(err)
		}
		for _, rec := range page.Records { // in order of id, which need not be that of time
			after = rec.Key.ID
			var c state.Command
			if err := state.Decode(rec.Value, &c); err != nil {
				a.log.Warn("a command cannot be read", "command", rec.Key.ID, "error", err)
				continue
			}
			if !c.State.Final() {
				open = append(open, Order{c, rec.Rev})
			}
		}
		if !page.More {
			break
		}
	}
	if a.online != nil {
		a.startOutbox(ctx)
	}
	slices.SortStableFunc(open, func(x, y Order) int { return x.At.Compare(y.At) })
	for _, o := range open {
		a.box.post(o)
	}
	if len(open) > 0 {
		a.box.post(settle{}) // what has changed came with one of them
		return nil
	}
	return a.settleSpec(ctx)
}
