package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// house is where sessions are: a store, a vault and what opens them.
type house struct {
	store  state.Store
	vault  state.Vault
	master seal.Master
	keyset *seal.Keyset
}

// maker owns the sessions while they are made.
const maker = "maker"

// fill makes sessions whose pairing has ended, and some without credentials. What
// it leaves is written by the same code that a pairing writes with.
func (h house) fill(ctx context.Context, accounts []Account, unpaired []string) error {
	var all errgroup.Group
	all.SetLimit(32) // they share fsyncs
	for _, a := range accounts {
		all.Go(func() error {
			if err := h.create(ctx, a.Name); err != nil {
				return err
			}
			return h.enrol(ctx, a)
		})
	}
	for _, name := range unpaired {
		all.Go(func() error { return h.create(ctx, name) })
	}
	err := all.Wait()
	if len(accounts) > 0 {
		// Or the workers would wait for its heartbeats to stand still.
		err = errors.Join(err, h.store.DeclareStopped(ctx, maker), h.store.Forget(ctx, maker))
	}
	return err
}

func (h house) create(ctx context.Context, name string) error {
	now := time.Now().UTC()
	value, err := state.Encode(state.Spec{V: state.Format, Name: name, Wanted: state.WantRunning, Generation: 1, CreatedAt: now, ChangedAt: now})
	if err != nil {
		return err
	}
	w := state.Put(state.KindSpec, "", value)
	w.Rev = 1
	return h.store.CreateSession(ctx, name, []state.Write{w})
}

// enrol gives a session its credentials.
func (h house) enrol(ctx context.Context, a Account) (err error) {
	o, err := statetest.Take(ctx, h.store, a.Name, maker)
	if err != nil {
		return err
	}
	j, err := journal.Open(ctx, journal.Config{Store: h.store, Fence: o.Fence(), Fleet: h.keyset})
	if err != nil {
		return err
	}
	defer j.Close()
	d, err := device.Open(ctx, device.Config{Journal: j, Store: h.store, Vault: h.vault, Master: h.master, Session: a.Name})
	if err != nil {
		return err
	}
	defer d.Close()
	if err := a.pair(ctx, d.Library()); err != nil {
		return err
	}
	value, err := state.Encode(state.Status{V: state.Format, State: state.Restarting, Since: time.Now(), Paired: true})
	if err != nil {
		return err
	}
	if err := j.Commit(ctx, journal.Batch{Writes: []state.Write{state.Put(state.KindStatus, "", value)}}); err != nil {
		return err
	}
	if err := j.Flush(ctx); err != nil {
		return err
	}
	return h.store.Release(ctx, o.Fence())
}

// gather divides all sessions among holders, whoever had them. A holder is no
// worker: nobody takes a session from it until it is declared stopped. Every
// process that was a worker must have ended.
func (h house) gather(ctx context.Context, holders []string) error {
	roster, err := h.store.Roster(ctx)
	if err != nil {
		return err
	}
	for _, m := range roster.Members {
		if err := errors.Join(h.store.DeclareStopped(ctx, m.Incarnation), h.store.Forget(ctx, m.Incarnation)); err != nil {
			return err
		}
	}
	owners, err := everyOwner(ctx, h.store)
	if err != nil {
		return err
	}
	for i, holder := range holders {
		if _, err := h.store.Join(ctx, holder, state.MemberInfo{Tool: true}); err != nil {
			return err
		}
		share := owners[:len(owners)/(len(holders)-i)]
		owners = owners[len(share):]
		for part := range slices.Chunk(share, state.MaxClaims) {
			if _, err := h.store.Claim(ctx, holder, part...); err != nil {
				return err
			}
		}
	}
	return nil
}

// everyOwner lists the owners of all sessions.
func everyOwner(ctx context.Context, store state.Owners) ([]state.Owner, error) {
	const most = 500
	var all []state.Owner
	for after := ""; ; {
		page, err := store.Sessions(ctx, after, most)
		all = append(all, page...)
		if err != nil || len(page) < most {
			return all, err
		}
		after = page[len(page)-1].Session
	}
}

// put puts a text into a session's outbox, as the admin API does.
func (h house) put(ctx context.Context, m Reply) error {
	id := ulid.Make().String()
	place := seal.Place{Partition: state.OfSession(m.Session), Kind: state.KindOutbox, ID: id}
	content, err := json.Marshal(state.OutboxContent{To: m.To + "@s.whatsapp.net", Text: m.Text})
	if err != nil {
		return err
	}
	sealed, err := h.keyset.Seal(place, content)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	value, err := state.Encode(state.Outbox{V: state.Format, ID: id, MessageID: "3EB0" + id[6:], State: state.OutQueued,
		At: now, ChangedAt: now, Sealed: sealed})
	if err != nil {
		return err
	}
	w := state.Put(state.KindOutbox, id, value)
	w.Rev, w.If, w.Index = 1, state.Absent(), state.OutboxDue(m.Session)
	if err := h.store.Update(ctx, place.Partition, []state.Write{w}); err != nil {
		return fmt.Errorf("outbox of %s: %w", m.Session, err)
	}
	return nil
}
