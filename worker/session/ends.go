package session

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// finish stores the end of a command with the event that tells of it, and goes
// on with the given phase.
func (a *actor) finish(o Order, end outcome, next phase) phase {
	delete(a.open, o.ID)
	c := o.Command
	now := time.Now()
	c.State, c.EndedAt, c.Epoch = end.state, now, a.cfg.Lease.Fence().Epoch
	c.Problem, c.Code, c.Result = end.problem, end.code, end.result
	c.Sealed = nil // arguments that were personal have served
	place := seal.Place{Partition: state.OfSession(a.cfg.Name), Kind: state.KindCommand, ID: c.ID}
	if end.secret != nil {
		body, err := json.Marshal(end.secret)
		if err == nil {
			c.Sealed, err = a.cfg.Keyset.Seal(place, body)
		}
		if err != nil {
			return a.strand(err)
		}
	}
	value, err := state.Encode(c)
	if err != nil {
		return a.strand(err)
	}
	w := state.Put(state.KindCommand, c.ID, value)
	w.Rev, w.If = o.Rev+1, state.AtRev(o.Rev)
	w.Expires = now.Add(commandKept)
	if a.jrn == nil {
		return next // the session is stranded; the command stays open in the store
	}
	err = a.endOf(w, journal.Draft{Type: state.EventCommandDone, Data: map[string]any{"command": state.CommandRef(a.cfg.Name, c.ID),
		"verb": c.Verb, "state": c.State, "code": c.Code, "problem": c.Problem}})
	if err == nil || errors.Is(err, state.ErrConflict) {
		maps.DeleteFunc(a.ended, func(_ string, at time.Time) bool { return now.Sub(at) > endedKept })
		a.ended[o.ID] = now
		if next == nil && a.spec.Generation != a.st.ObservedGeneration {
			a.box.post(settle{}) // refused, or nothing to do: the spec is seen all the same
		}
	}
	switch {
	case errors.Is(err, state.ErrConflict):
		a.log.Warn("the command was changed by somebody else meanwhile", "command", c.ID)
	case err != nil:
		return a.strand(err)
	}
	if end.state != state.CommandDone {
		a.log.Warn("command not done", "verb", o.Verb, "command", o.ID, "code", end.code, "problem", end.problem)
	}
	return next
}

// endOf commits the end of a command. Its record may have moved since it was read:
// whoever claims a session lists its open commands under himself. That does not
// end them; it is a conflict only if somebody else did.
func (a *actor) endOf(w state.Write, told journal.Draft) error {
	for range endTries {
		err := a.jrn.Commit(context.Background(), journal.Batch{Writes: []state.Write{w}, Events: []journal.Draft{told}})
		if !errors.Is(err, state.ErrConflict) {
			return err
		}
		rec, readErr := a.cfg.Store.Get(context.Background(), state.OfSession(a.cfg.Name), w.Key)
		if errors.Is(readErr, state.ErrNotFound) {
			return err
		}
		if readErr != nil {
			return readErr
		}
		var c state.Command
		if state.Decode(rec.Value, &c) != nil || c.State.Final() {
			return err
		}
		w.Rev, w.If = rec.Rev+1, state.AtRev(rec.Rev)
	}
	return state.ErrConflict
}

// endTries bounds how often a command's record may move while its end is written.
const endTries = 5

// with ends a command once the phase that it leads to has been entered.
func (p phase) with(a *actor, o Order) phase {
	return func(ctx context.Context) phase {
		next := p(ctx)
		return a.finish(o, done(a.unlinked), next)
	}
}
