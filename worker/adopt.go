package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// ErrNotRestored says that a store is the one that it was at its first use.
var ErrNotRestored = errors.New("is not restored from a backup: it is the one that it was at its first use; there is nothing to adopt")

// AdoptConfig is what Adopt needs. All of it but Identity, Told and Log is
// required.
type AdoptConfig struct {
	Store  state.Store
	Vault  state.Vault
	Master seal.Master
	Keyset *seal.Keyset // the fleet's

	// Identity is what the store is now; empty: it cannot tell, and the operator
	// knows that it was restored.
	Identity string
	// Incarnation has joined the store and does its heartbeat elsewhere.
	Incarnation string
	// Takeover is how long a heartbeat must stand still before its worker counts
	// as dead: a restored store shows those as alive that were so at the backup.
	Takeover   time.Duration
	Quarantine time.Duration // how long the old credentials are kept, sealed
	// Seize is called when all sessions are done, before the store counts as
	// adopted; nil: nothing.
	Seize func(context.Context) error
	Told  func(done int) // after each page of sessions
	Log   *slog.Logger
}

// Adopted counts what Adopt did.
type Adopted struct {
	Sessions   int `json:"sessions"`
	Unpaired   int `json:"unpaired"`   // have to be paired anew
	Unreadable int `json:"unreadable"` // their records cannot be read; they connect nowhere either
	Messages   int `json:"messages"`   // in the outbox, which may have been sent before
}

// Adopt makes a store that was restored from a backup usable: no session in it
// goes on with ratchets that are older than what its phone and contacts know.
// Each is claimed, its credentials are taken out of use for good, what its outbox
// had to send is marked as failed, and it is released as unpaired; each of these
// steps may be broken off and run again. That the store is adopted is noted last.
//
// It refuses while a worker lives. It takes the takeover time where a worker was
// alive at the time of the backup.
func Adopt(ctx context.Context, c AdoptConfig) (Adopted, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var done Adopted
	var restored *RestoredError
	if c.Identity != "" {
		switch err := CheckIdentity(ctx, c.Store, c.Identity); {
		case err == nil:
			return done, ErrNotRestored
		case !errors.As(err, &restored):
			return done, err
		}
	}
	if err := c.nobodyLives(ctx); err != nil {
		return done, err
	}
	for after := ""; ; {
		page, err := c.Store.Sessions(ctx, after, adoptPage)
		if err != nil {
			return done, fmt.Errorf("listing sessions: %w", err)
		}
		for _, o := range page {
			after = o.Session
			if err := c.adopt(ctx, o.Session, &done); err != nil {
				return done, fmt.Errorf("session %s: %w", o.Session, err)
			}
		}
		if c.Told != nil {
			c.Told(done.Sessions)
		}
		if len(page) < adoptPage {
			break
		}
	}
	if c.Seize != nil {
		if err := c.Seize(ctx); err != nil {
			return done, err
		}
	}
	if restored != nil {
		return done, putIdentity(ctx, c.Store, c.Identity, time.Now(), state.AtRev(restored.rev), restored.rev+1)
	}
	return done, nil
}

const (
	adoptPage = 500
	// pulseEvery is how often heartbeats are looked at.
	pulseEvery = time.Second
)

// nobodyLives declares those workers dead whose heartbeat stands still. An error
// if one does not.
func (c AdoptConfig) nobodyLives(ctx context.Context) error {
	roster, err := c.Store.Roster(ctx)
	if err != nil {
		return fmt.Errorf("listing workers: %w", err)
	}
	seen := map[string]uint64{}
	var names []string
	for _, m := range roster.Members {
		if !m.Dead && m.Incarnation != c.Incarnation {
			seen[m.Incarnation] = m.Beats
			names = append(names, m.Incarnation)
		}
	}
	if len(seen) == 0 {
		return nil
	}
	c.Log.Info("workers were alive at the time of the backup; waiting to see that their heartbeats stand still", "workers", len(seen), "for", c.Takeover.String())
	lives := func(living []string) error {
		return fmt.Errorf("a worker is alive on this store: %s; stop all workers first", strings.Join(living, ", "))
	}
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for end := time.Now().Add(c.Takeover); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		pulse, err := c.Store.Watch(ctx, names)
		if err != nil {
			return fmt.Errorf("looking at heartbeats: %w", err)
		}
		var living []string
		for _, name := range names {
			if b, known := pulse.Beats[name]; known && !b.Dead && b.Count > seen[name] {
				living = append(living, name)
			}
		}
		if len(living) > 0 {
			return lives(living)
		}
	}
	for _, name := range names {
		err := c.Store.DeclareDead(ctx, name, seen[name])
		switch {
		case errors.Is(err, state.ErrConflict):
			return lives([]string{name})
		case err != nil:
			return fmt.Errorf("declaring worker %s dead: %w", name, err)
		}
	}
	return nil
}

// adopt does one session.
func (c AdoptConfig) adopt(ctx context.Context, name string, done *Adopted) error {
	owner, err := c.Store.Owner(ctx, name)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	claimed, err := c.Store.Claim(ctx, c.Incarnation, owner)
	if err != nil {
		return err
	}
	done.Sessions++
	jrn, err := journal.Open(ctx, journal.Config{Store: c.Store, Fence: claimed[0].Fence(), Fleet: c.Keyset})
	switch {
	case errors.Is(err, state.ErrCorrupt):
		c.Log.Error("the session's queue of events cannot be read; it is left as it is", "session", name, "error", err)
		done.Unreadable++
	case err != nil:
		return err
	default:
		err := c.distrust(ctx, jrn, name, done)
		jrn.Close()
		if err != nil {
			return err
		}
	}
	return c.Store.Release(ctx, claimed[0].Fence())
}

func (c AdoptConfig) distrust(ctx context.Context, jrn *journal.Journal, name string, done *Adopted) error {
	failed, err := c.failOutbox(ctx, jrn, name)
	done.Messages += failed
	if err != nil {
		return err
	}
	extra, err := c.unpaired(ctx, jrn, name)
	if err != nil {
		return err
	}
	cfg := device.Config{Journal: jrn, Store: c.Store, Vault: c.Vault, Master: c.Master, Session: name, Quarantine: c.Quarantine, Log: c.Log}
	taken, err := device.Distrust(ctx, cfg, extra)
	switch {
	case errors.Is(err, state.ErrCorrupt):
		// Whoever owns it next finds the same and parks it.
		c.Log.Error("the session's credential record cannot be read; it is left as it is", "session", name, "error", err)
		done.Unreadable++
		return nil
	case err != nil:
		return err
	case taken:
		done.Unpaired++
	}
	return nil
}

// unpaired is the status of a session whose credentials are distrusted, and the
// event that tells of it.
func (c AdoptConfig) unpaired(ctx context.Context, jrn *journal.Journal, name string) (journal.Batch, error) {
	var st state.Status
	rec, err := c.Store.Get(ctx, state.OfSession(name), state.Key{Kind: state.KindStatus})
	switch {
	case errors.Is(err, state.ErrNotFound):
	case err != nil:
		return journal.Batch{}, err
	default:
		if err := state.Decode(rec.Value, &st); err != nil {
			st = state.Status{} // what it said of cooldowns is lost
		}
	}
	before := st.State
	st.V, st.State, st.Cause, st.Code, st.Since = state.Format, state.Unpaired, state.CauseStaleCredentials, 0, time.Now()
	st.Health, st.Paired, st.Holding, st.Attempt, st.NextAttemptAt = state.Dead, false, false, 0, time.Time{}
	st.LastSeq, st.Phase, st.ObservedAt = jrn.Seq(), "", time.Now()
	st.Decision = "park: the store was restored from a backup, and old ratchets cannot be used again; pair anew with start"
	value, err := state.Encode(st)
	if err != nil {
		return journal.Batch{}, err
	}
	return journal.Batch{
		Writes: []state.Write{state.Put(state.KindStatus, "", value)},
		Events: []journal.Draft{{Type: state.EventState, Data: map[string]any{"state": st.State, "previous": before, "cause": st.Cause,
			"code": 0, "since": st.Since.UTC(), "attempt": 0, "paired": false}}},
	}, nil
}

// failOutbox marks what was due to be sent as failed: it may have been sent after
// the backup. What is scheduled for later stays.
func (c AdoptConfig) failOutbox(ctx context.Context, jrn *journal.Journal, name string) (int, error) {
	failed := 0
	for after := ""; ; {
		page, err := c.Store.Query(ctx, state.OfSession(name), state.Query{Kind: state.KindOutbox, After: after, Limit: state.MaxItems})
		if err != nil {
			return failed, err
		}
		var b journal.Batch
		now := time.Now()
		for _, rec := range page.Records {
			after = rec.Key.ID
			var item state.Outbox
			if state.Decode(rec.Value, &item) != nil || item.SendAt.After(now) ||
				item.State != state.OutQueued && item.State != state.OutSending {
				continue
			}
			item.State, item.ChangedAt, item.Code = state.OutFailed, now.UTC(), "restored"
			item.Problem = "the store was restored from a backup: the message may have been sent before"
			value, err := state.Encode(item)
			if err != nil {
				return failed, err
			}
			w := state.Put(state.KindOutbox, rec.Key.ID, value)
			w.Rev, w.If, w.Expires = rec.Rev+1, state.AtRev(rec.Rev), now.Add(restoredKept)
			b.Writes = append(b.Writes, w)
		}
		if err := jrn.Commit(ctx, b); err != nil {
			return failed, fmt.Errorf("marking what was to be sent: %w", err)
		}
		failed += len(b.Writes)
		if !page.More || len(page.Records) == 0 {
			return failed, nil
		}
	}
}

// restoredKept is how long such a message can be looked up.
const restoredKept = 7 * 24 * time.Hour
