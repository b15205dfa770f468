package transfer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// pollEvery is how often the owner is looked at while one is waited for.
const pollEvery = 250 * time.Millisecond

// own makes this command the session's owner. Nobody's and a dead worker's session
// is claimed; a living one is asked to end its line and give the session over,
// and has Config.Patience for that. A worker whose counter stands still for
// Config.Takeover is declared dead, as other workers would do.
func (m *member) own(session string) error {
	var asked request
	defer func() { m.withdraw(asked) }()
	begun, seen := time.Now(), standing{}
	for {
		o, err := m.cfg.Store.Owner(m.ctx, session)
		switch {
		case errors.Is(err, state.ErrUnavailable):
		case err != nil:
			return m.failure(err)
		case o.Incarnation == m.incarnation:
			m.owned = o
			return nil
		default:
			free, err := m.free(o, &seen)
			if err != nil {
				return m.failure(err)
			}
			if free {
				got, err := m.cfg.Store.Claim(m.ctx, m.incarnation, o)
				if err == nil {
					m.owned = got[0]
					return nil
				}
				if !errors.Is(err, state.ErrFenced) && !errors.Is(err, state.ErrUnavailable) {
					return m.failure(err)
				}
			} else if err := m.ask(o, &asked); err != nil {
				return err
			}
		}
		if time.Since(begun) >= m.cfg.Patience {
			return fmt.Errorf("session %s: %w within %s; stop that worker and run it again", session, ErrBusy, m.cfg.Patience)
		}
		if !m.pause(min(pollEvery, m.cfg.Heartbeat)) {
			return m.failure(m.ctx.Err())
		}
	}
}

// standing is a heartbeat counter that has been seen, and since when.
type standing struct {
	incarnation string
	count       uint64
	since       time.Time
}

// free tells whether a session can be claimed: nobody has it, or an incarnation
// that is dead, which this command finds out by its own clock.
func (m *member) free(o state.Owner, seen *standing) (bool, error) {
	if o.Incarnation == "" {
		return true, nil
	}
	pulse, err := m.cfg.Store.Watch(m.ctx, []string{o.Incarnation})
	if err != nil {
		if errors.Is(err, state.ErrUnavailable) {
			return false, nil
		}
		return false, err
	}
	beats, known := pulse.Beats[o.Incarnation]
	if !known {
		// Watch may lag behind; whether it is forgotten is the roster's to say.
		roster, err := m.cfg.Store.Roster(m.ctx)
		if err != nil {
			if errors.Is(err, state.ErrUnavailable) {
				return false, nil
			}
			return false, err
		}
		for _, w := range roster.Members {
			if w.Incarnation == o.Incarnation {
				return w.Dead, nil
			}
		}
		return true, nil
	}
	now := time.Now()
	switch {
	case beats.Dead:
		return true, nil
	case seen.incarnation != o.Incarnation || seen.count != beats.Count:
		*seen = standing{o.Incarnation, beats.Count, now}
	case now.Sub(seen.since) >= m.cfg.Takeover:
		err := m.cfg.Store.DeclareDead(m.ctx, o.Incarnation, beats.Count)
		switch {
		case err == nil:
			m.cfg.Log.Info("its worker does not live any more", "session", o.Session, "worker", o.Incarnation)
			return true, nil
		case !errors.Is(err, state.ErrConflict) && !errors.Is(err, state.ErrUnavailable):
			return false, err
		}
		*seen = standing{}
	}
	return false, nil
}

// request is a command that asks an owner to give the session up.
type request struct {
	session, id string
	put         bool
}

// ask puts the command under the owner, once, and looks how it goes.
func (m *member) ask(o state.Owner, r *request) error {
	p := state.OfSession(o.Session)
	if r.put {
		rec, err := m.cfg.Store.Get(m.ctx, p, state.Key{Kind: state.KindCommand, ID: r.id})
		if err != nil {
			return nil // it is looked at again
		}
		var c state.Command
		if err := state.Decode(rec.Value, &c); err == nil && c.State == state.CommandFailed {
			return fmt.Errorf("session %s: %w: %s; stop that worker and run it again", o.Session, ErrBusy, c.Problem)
		}
		return nil
	}
	if r.id == "" {
		*r = request{session: o.Session, id: newID()}
	}
	now := m.cfg.Now().UTC()
	c := state.Command{V: state.Format, ID: r.id, Session: o.Session, Verb: state.VerbHandOver, State: state.CommandPending,
		By: m.cfg.By, At: now, ExpiresAt: now.Add(m.cfg.Patience), Args: map[string]string{"to": m.incarnation}}
	value, err := state.Encode(c)
	if err != nil {
		return err
	}
	w := state.Put(state.KindCommand, c.ID, value)
	w.Rev, w.If, w.Index, w.Expires = 1, state.Absent(), state.CommandIndex(o.Incarnation), now.Add(commandKept)
	switch err := m.cfg.Store.Update(m.ctx, p, []state.Write{w}); {
	case errors.Is(err, state.ErrUnavailable):
		return nil // whether it was put is not known; it is put once more
	case err != nil && !errors.Is(err, state.ErrConflict):
		return m.failure(err)
	}
	r.put = true
	m.cfg.Log.Info("asked its worker to give the session up", "session", o.Session, "worker", o.Incarnation)
	return nil
}

// commandKept is how long a command that has ended can be looked up.
const commandKept = 7 * 24 * time.Hour

// withdraw ends the command if nobody has: this command has what it asked for, or
// has given up asking, and a later owner must not give the session to it.
func (m *member) withdraw(r request) {
	if r.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ctx), m.cfg.Trust)
	defer cancel()
	p := state.OfSession(r.session)
	for range retries {
		rec, err := m.cfg.Store.Get(ctx, p, state.Key{Kind: state.KindCommand, ID: r.id})
		if err != nil {
			return
		}
		var c state.Command
		if err := state.Decode(rec.Value, &c); err != nil || c.State.Final() {
			return
		}
		c.State, c.EndedAt = state.CommandFailed, m.cfg.Now().UTC()
		c.Code, c.Problem = "withdrawn", "whoever asked for it does not wait any more"
		if m.owned.Session != "" {
			c.State, c.Code, c.Problem, c.Result = state.CommandDone, "", "", "nobody had the session any more"
		}
		value, err := state.Encode(c)
		if err != nil {
			return
		}
		w := state.Put(state.KindCommand, c.ID, value)
		w.Rev, w.If, w.Expires = rec.Rev+1, state.AtRev(rec.Rev), rec.Expires
		if err := m.cfg.Store.Update(ctx, p, []state.Write{w}); !errors.Is(err, state.ErrConflict) && !errors.Is(err, state.ErrUnavailable) {
			return
		}
	}
}
