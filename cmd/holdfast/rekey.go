package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
)

// The keyset of a session is changed by its owner, under its fence. So what keys
// does to sessions is a command in each, which the owner finds and carries out.

const (
	// rekeyLife is how long such a command waits for an owner: also a fleet that
	// is just being deployed should find it.
	rekeyLife = time.Hour
	// rekeyKept is how long it can be looked up after that.
	rekeyKept = 24 * time.Hour
	// rekeyPoll is how often it is looked whether they are done.
	rekeyPoll = 500 * time.Millisecond
	// rekeyBatch is how many sessions are at it at a time: each costs a call of
	// the master key's service or two, which allow some hundreds a second.
	rekeyBatch = 50
)

// Rekeyed is what came of rewrap or rotate.
type Rekeyed struct {
	Fleet  bool              `json:"fleet"` // the fleet's keyset was changed
	Done   []string          `json:"done"`
	Failed map[string]string `json:"failed"`
	Open   []string          `json:"open"` // no worker has done it yet
}

// rekey has the owners of sessions carry out a verb, and prints what came of it.
func (a *app) rekey(ctx context.Context, o *opened, verb state.Verb, names []string, fleet bool, wait time.Duration) error {
	done := Rekeyed{Fleet: fleet, Done: []string{}, Failed: map[string]string{}, Open: []string{}}
	end := time.Now().Add(wait)
	for len(names) > 0 {
		batch := names[:min(len(names), rekeyBatch)]
		names = names[len(batch):]
		if err := order(ctx, o.store, verb, batch, end, &done); err != nil {
			return err
		}
		if len(done.Open) > 0 {
			done.Open = append(done.Open, names...) // nobody is there, or it is too slow
			break
		}
	}
	if a.asJSON {
		if err := printJSON(a.io.Out, done); err != nil {
			return err
		}
	} else {
		word := map[bool]string{true: "changed", false: "left as it is"}[done.Fleet]
		fmt.Fprintf(a.io.Out, "%s: the fleet's keyset %s; %d sessions done, %d failed, %d open\n", verb, word, len(done.Done), len(done.Failed), len(done.Open))
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(done.Failed)) {
		faults = append(faults, fmt.Errorf("keys %s: session %s: %s", verb, name, done.Failed[name]))
	}
	if len(done.Open) > 0 {
		again := "run it again"
		if verb == state.VerbRotate {
			again = "run holdfast keys rotate for those alone"
		}
		faults = append(faults, fmt.Errorf("keys %s: not done after %v: %s; see with holdfast workers that a worker runs, and %s", verb, wait, listed(done.Open), again))
	}
	return errors.Join(faults...)
}

// listed names the first few.
func listed(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// order puts a command into each session and waits for their ends. What has not
// ended in time goes to Open.
func order(ctx context.Context, store state.Store, verb state.Verb, names []string, end time.Time, done *Rekeyed) error {
	open := map[string]string{} // command by session
	for _, name := range names {
		id, err := putCommand(ctx, store, name, verb)
		switch {
		case errors.Is(err, state.ErrNotFound):
			done.Failed[name] = "there is no such session"
		case err != nil:
			return fmt.Errorf("session %s: %w", name, err)
		default:
			open[name] = id
		}
	}
	tick := time.NewTicker(rekeyPoll)
	defer tick.Stop()
	for len(open) > 0 {
		for name, id := range open {
			rec, err := store.Get(ctx, state.OfSession(name), state.Key{Kind: state.KindCommand, ID: id})
			if err != nil {
				return fmt.Errorf("session %s: %w", name, err)
			}
			var c state.Command
			if err := state.Decode(rec.Value, &c); err != nil {
				return fmt.Errorf("session %s: %w", name, err)
			}
			switch {
			case !c.State.Final():
				continue
			case c.State == state.CommandDone:
				done.Done = append(done.Done, name)
			default:
				done.Failed[name] = oneLine(c.Problem)
			}
			delete(open, name)
		}
		if len(open) == 0 {
			return nil
		}
		if !time.Now().Before(end) {
			done.Open = append(done.Open, slices.Sorted(maps.Keys(open))...)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// putCommand puts a command, with its audit record, as the admin API does.
func putCommand(ctx context.Context, store state.Store, session string, verb state.Verb) (id string, err error) {
	owner, err := store.Owner(ctx, session)
	if err != nil {
		return "", err
	}
	const by = "holdfast keys"
	now := time.Now().UTC()
	id = ulid.MustNew(ulid.Timestamp(now), rand.Reader).String()
	c := state.Command{V: state.Format, ID: id, Session: session, Verb: verb, State: state.CommandPending, By: by, At: now, ExpiresAt: now.Add(rekeyLife)}
	value, err := state.Encode(c)
	if err != nil {
		return "", err
	}
	put := state.Put(state.KindCommand, id, value)
	put.Rev, put.If, put.Index = 1, state.Absent(), state.CommandIndex(owner.Incarnation)
	put.Expires = c.ExpiresAt.Add(rekeyKept)
	value, err = state.Encode(state.Audit{V: state.Format, At: now, By: by, Role: "admin", Action: string(verb)})
	if err != nil {
		return "", err
	}
	audit := state.Put(state.KindAudit, now.Format("2006-01-02T15:04:05.000Z")+"#"+id, value)
	return id, store.Update(ctx, state.OfSession(session), []state.Write{put, audit})
}
