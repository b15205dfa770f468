package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
)

const (
	// commandKept is how long an ended command can be looked up.
	commandKept = 7 * 24 * time.Hour
	// together is how many commands end in one commit, beside what they did.
	together = 50
)

// Unlinked is what a disconnect without a worker says of the device.
const Unlinked = "the credentials are destroyed; unlinking at the server was not done: no worker is running; remove the device on the phone"

// carryOut does what is asked of a session that is ours under the fence. Gone
// says that the session is no more, so that there is nothing to release.
func (h *Offline) carryOut(ctx context.Context, f state.Fence) (gone bool, err error) {
	// What was there before this commit: an owner after us may put objects of a
	// new pairing beside them.
	objects, vaultErr := h.cfg.Vault.ListObjects(ctx, f.Session)
	open, err := h.asked(ctx, f.Session)
	if err != nil || len(open) == 0 {
		return false, err
	}
	for _, o := range open {
		if o.Verb == state.VerbDelete {
			gone = true
		}
	}
	if gone {
		err = h.cfg.Store.RemoveSession(ctx, f)
		if err != nil {
			return false, fmt.Errorf("removing session %s: %w", f.Session, err)
		}
		h.cfg.Log.Info("session removed while no worker is there; it was not unlinked at the server", "session", f.Session)
	} else {
		if err := h.disconnect(ctx, f, open); err != nil {
			return false, fmt.Errorf("disconnecting session %s: %w", f.Session, err)
		}
		h.cfg.Log.Info("session disconnected while no worker is there; it was not unlinked at the server", "session", f.Session)
	}
	for _, name := range objects {
		// What is still to be delivered or sent is none of the credentials.
		if !gone && (strings.HasPrefix(name, state.LargeEventPrefix) || strings.HasPrefix(name, state.MediaPrefix)) {
			continue
		}
		if vaultErr == nil {
			vaultErr = h.cfg.Vault.DeleteObject(ctx, f.Session, name, "")
		}
	}
	if vaultErr != nil {
		h.cfg.Log.Warn("objects of destroyed credentials are left in the vault; nothing can read them", "session", f.Session, "error", vaultErr)
	}
	return gone, nil
}

// disconnect ends the credentials, also quarantined ones, in one commit with the
// status that says so and the commands that asked for it. Device records stay as
// they are, unreadable, until the next owner sweeps them up.
func (h *Offline) disconnect(ctx context.Context, f state.Fence, open []opened) error {
	j, err := journal.Open(ctx, journal.Config{Store: h.cfg.Store, Fence: f, Fleet: h.cfg.Fleet, Now: h.cfg.Now})
	if err != nil {
		return err
	}
	defer j.Close()
	p := state.OfSession(f.Session)
	now := h.cfg.Now().UTC()
	meta, err := h.destroyed(ctx, p)
	if err != nil {
		return err
	}
	last := 0
	for i, o := range open {
		if o.Verb == state.VerbDisconnect && !o.At.Before(open[last].At) || open[last].Verb != state.VerbDisconnect {
			last = i
		}
	}
	status, event, err := h.status(ctx, p, open[last].Command, now, j.Seq())
	if err != nil {
		return err
	}
	b := journal.Batch{Writes: []state.Write{meta, status, state.Del(state.KindQR, "")}}
	if event != nil {
		b.Events = append(b.Events, *event)
	}
	for _, o := range open {
		c := o.Command
		c.EndedAt, c.Epoch = now, f.Epoch
		switch {
		case c.Verb == state.VerbDisconnect:
			c.State, c.Result = state.CommandDone, Unlinked
		case c.Verb == state.VerbReconcile && !c.At.After(open[last].At):
			c.State = state.CommandDone
		case !c.At.After(open[last].At):
			c.State, c.Code, c.Problem = state.CommandFailed, "superseded", "the session was disconnected after this was asked for, and no worker was there to do it before"
		default:
			continue // asked for after it: for the next owner
		}
		c.Sealed = nil
		value, err := state.Encode(c)
		if err != nil {
			return err
		}
		w := state.Put(state.KindCommand, c.ID, value)
		w.Rev, w.If, w.Expires = o.rev+1, state.AtRev(o.rev), now.Add(commandKept)
		b.Writes = append(b.Writes, w)
		b.Events = append(b.Events, journal.Draft{Type: state.EventCommandDone, Data: map[string]any{"command": state.CommandRef(f.Session, c.ID),
			"verb": c.Verb, "state": c.State, "code": c.Code, "problem": c.Problem}})
		if len(b.Writes)+len(b.Events) >= together {
			if err := j.Commit(ctx, b); err != nil {
				return err
			}
			b = journal.Batch{}
		}
	}
	if b.Empty() {
		return nil
	}
	return j.Commit(ctx, b)
}

// destroyed is META without anything that could open what is stored.
func (h *Offline) destroyed(ctx context.Context, p state.Partition) (state.Write, error) {
	m := state.Meta{V: state.Format}
	r, err := h.cfg.Store.Get(ctx, p, state.Key{Kind: state.KindMeta})
	switch {
	case errors.Is(err, state.ErrNotFound):
		r.Rev = 0
	case err != nil:
		return state.Write{}, err
	default:
		if err := state.Decode(r.Value, &m); err != nil {
			return state.Write{}, fmt.Errorf("META: %w; delete the session to be rid of it whole", err)
		}
	}
	// The counter of prekeys goes on: their ids must not be used again.
	m.V, m.Credential, m.Keyset, m.KeysetID, m.Quarantined = state.Format, nil, nil, "", nil
	value, err := state.Encode(m)
	if err != nil {
		return state.Write{}, err
	}
	w := state.Put(state.KindMeta, "", value)
	w.Rev = r.Rev + 1
	return w, nil
}

// status is the session's status after the disconnect that c asked for, and the
// event that tells of it; nil where it was disconnected already.
func (h *Offline) status(ctx context.Context, p state.Partition, c state.Command, now time.Time, seq uint64) (state.Write, *journal.Draft, error) {
	var st state.Status
	r, err := h.cfg.Store.Get(ctx, p, state.Key{Kind: state.KindStatus})
	switch {
	case errors.Is(err, state.ErrNotFound):
	case err != nil:
		return state.Write{}, nil, err
	default:
		if err := state.Decode(r.Value, &st); err != nil {
			if ofNewerRelease(r.Value) {
				return state.Write{}, nil, fmt.Errorf("STATUS: %w", err)
			}
			st = state.Status{} // what it was is lost; what it is now is known
		}
	}
	before := st
	st.V = state.Format
	st.State, st.Cause, st.Code, st.Phase = state.Disconnected, state.CauseDisconnected, 0, "parked"
	st.Paired, st.Holding, st.Health = false, false, ""
	st.Attempt, st.LastCause, st.CauseInRow, st.RateLimitStep = 0, state.CauseNone, 0, 0
	st.DeathsHolding, st.DeathsUnexplained = 0, 0 // whatever killed its owners went with the credentials
	st.NextAttemptAt = time.Time{}
	st.Decision = "retire: disconnected by command while no worker was alive; not unlinked at the server"
	st.ObservedAt, st.LastSeq = now, seq
	if g, err := strconv.ParseUint(c.Args["generation"], 10, 64); err == nil {
		st.ObservedGeneration = max(st.ObservedGeneration, g)
	}
	if st.Sealed, err = h.sealedIdentity(p); err != nil {
		return state.Write{}, nil, err
	}
	var event *journal.Draft
	if before.State != st.State || before.Cause != st.Cause {
		st.Since = now
		if before.Disconnects == nil {
			st.Disconnects = map[state.Cause]int{}
		}
		st.Disconnects[state.CauseDisconnected]++
		event = &journal.Draft{Type: state.EventState, Data: map[string]any{"state": st.State, "previous": before.State, "cause": st.Cause,
			"code": st.Code, "since": st.Since, "attempt": st.Attempt, "paired": st.Paired}}
	}
	value, err := state.Encode(st)
	if err != nil {
		return state.Write{}, nil, err
	}
	return state.Put(state.KindStatus, "", value), event, nil
}

// sealedIdentity is the identity of a session that has none.
func (h *Offline) sealedIdentity(p state.Partition) ([]byte, error) {
	body, err := json.Marshal(state.Identity{})
	if err != nil {
		return nil, err
	}
	return h.cfg.Fleet.Seal(seal.Place{Partition: p, Kind: state.KindStatus}, body)
}

// ofNewerRelease says that a record is not damaged but of a format to come: it
// must not be overwritten.
func ofNewerRelease(value []byte) bool {
	var doc struct {
		V int `json:"v"`
	}
	return json.Unmarshal(value, &doc) == nil && doc.V > state.Format
}
