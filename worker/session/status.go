package session

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// Live is what a session is right now, for health, metrics and a console in the
// same process. The record in the store says the same, less fresh.
type Live struct {
	Phase  string
	State  state.State
	Cause  state.Cause
	Health state.Health
	Wanted state.Wanted
	Status state.Status
	Who    state.Identity

	Scheduled int    // messages that wait for their time
	Job       string // what it is at just now besides being connected: pairing, sending, or nothing
}

func (a *actor) enter(phase string) {
	a.phase = phase
	a.st.Phase = phase
	a.log.Debug("phase", "phase", phase)
	a.setLive(func(l *Live) {
		l.Phase, l.Job = phase, ""
		if phase == "pairing" {
			l.Job = phase
		}
	})
}

// setLive changes what other goroutines see.
func (a *actor) setLive(change func(*Live)) {
	a.liveMu.Lock()
	defer a.liveMu.Unlock()
	change(&a.live)
}

// observeTimes fills in the times that move fast.
func (a *actor) observeTimes(now time.Time) {
	if line := a.currentLine.Load(); line != nil {
		l := *line
		a.st.LastPongAt = newer(a.st.LastPongAt, l.LastPong())
		a.st.LastInboundAt = newer(a.st.LastInboundAt, l.LastInbound())
		a.st.LastActivityAt = newer(a.st.LastActivityAt, l.LastActivity())
	}
	if a.online != nil {
		a.st.FailuresInARow = a.online.monitor.FailuresInARow()
	}
	if a.decrypts != nil {
		a.st.Undecryptable = a.decrypts.Count(now)
	}
	a.st.ObservedAt = now
}

func newer(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// report changes the status and commits it, with the events that tell of it.
// A change of state or cause raises session.state by itself.
func (a *actor) report(change func(*state.Status), drafts ...journal.Draft) error {
	batch, err := a.statusBatch(change, drafts)
	if err != nil {
		return err
	}
	if err := a.jrn.Commit(context.Background(), batch); err != nil {
		return err
	}
	a.published()
	return nil
}

// statusBatch changes the status and returns what is to be committed.
func (a *actor) statusBatch(change func(*state.Status), drafts []journal.Draft) (journal.Batch, error) {
	now := time.Now()
	a.countOnline(now) // who reads it counts on from ObservedAt
	before := a.st
	if change != nil {
		change(&a.st)
	}
	a.observeTimes(now)
	a.st.V = state.Format
	a.st.ObservedGeneration, a.st.Phase = a.spec.Generation, a.phase
	a.st.LastSeq = a.jrn.Seq()
	if before.State != a.st.State || before.Cause != a.st.Cause {
		a.st.Since = now
		drafts = append([]journal.Draft{{Type: state.EventState, Data: a.stateData(before)}}, drafts...)
	}
	who, err := json.Marshal(a.who)
	if err != nil {
		return journal.Batch{}, fmt.Errorf("encoding the identity: %w", err)
	}
	// The nonce of a sealing differs each time; keep the old bytes where nothing changed.
	if !reflect.DeepEqual(a.who, a.stored) || a.st.Sealed == nil {
		a.st.Sealed, err = a.cfg.Keyset.Seal(a.statusPlace(), who)
		if err != nil {
			return journal.Batch{}, err
		}
		a.stored = a.who
	}
	value, err := state.Encode(a.st)
	if err != nil {
		return journal.Batch{}, err
	}
	return journal.Batch{Writes: []state.Write{state.Put(state.KindStatus, "", value)}, Events: drafts}, nil
}

func (a *actor) statusPlace() seal.Place {
	return seal.Place{Partition: state.OfSession(a.cfg.Name), Kind: state.KindStatus}
}

// published shows what was just committed.
func (a *actor) published() {
	st, who := a.st, a.who
	a.setLive(func(l *Live) {
		l.State, l.Cause, l.Health, l.Wanted, l.Status, l.Who = st.State, st.Cause, st.Health, a.spec.Wanted, st, who
	})
	if a.cfg.Observe.State != nil {
		a.cfg.Observe.State(a.cfg.Name, st.State)
	}
}

func (a *actor) stateData(before state.Status) map[string]any {
	data := map[string]any{"state": a.st.State, "previous": before.State, "cause": a.st.Cause, "code": a.st.Code,
		"since": a.st.Since.UTC(), "attempt": a.st.Attempt, "paired": a.st.Paired}
	if !a.st.NextAttemptAt.IsZero() {
		data["nextAttemptAt"] = a.st.NextAttemptAt.UTC()
	}
	if !a.st.CooldownUntil.IsZero() {
		data["cooldownUntil"] = a.st.CooldownUntil.UTC()
	}
	return data
}

func (a *actor) openIdentity() error {
	a.who = state.Identity{}
	if a.st.Sealed == nil {
		return nil
	}
	body, err := a.cfg.Keyset.Open(a.statusPlace(), a.st.Sealed)
	if err != nil {
		return fmt.Errorf("status record: %w", err)
	}
	if err := json.Unmarshal(body, &a.who); err != nil {
		return fmt.Errorf("status record: %w: %w", state.ErrCorrupt, err)
	}
	a.stored = a.who
	return nil
}

// loadSpec reads what is wanted, and the session's own settings.
func (a *actor) loadSpec(ctx context.Context) error {
	part := state.OfSession(a.cfg.Name)
	rec, err := a.cfg.Store.Get(ctx, part, state.Key{Kind: state.KindSpec})
	if err != nil {
		return fmt.Errorf("reading the spec: %w", err)
	}
	var spec state.Spec
	if err := state.Decode(rec.Value, &spec); err != nil {
		return fmt.Errorf("spec record: %w", err)
	}
	var own state.SessionSettings
	if len(spec.Settings) > 0 {
		body, err := a.cfg.Keyset.Open(seal.Place{Partition: part, Kind: state.KindSpec}, spec.Settings)
		if err != nil {
			return fmt.Errorf("settings of the session: %w", err)
		}
		if err := json.Unmarshal(body, &own); err != nil {
			return fmt.Errorf("settings of the session: %w: %w", state.ErrCorrupt, err)
		}
	}
	set, err := a.cfg.Effective(own)
	if err != nil {
		// The API refuses such settings; a newer release may know more of them.
		a.log.Error("the session's own settings are not usable, the worker's are used", "error", err)
		set = a.cfg.Settings
	}
	known := a.spec.Name != ""
	if known && own.Proxy != a.own.Proxy {
		a.redialFor = "proxy"
	}
	sinks := known && (own.WebhookURL != a.own.WebhookURL || own.WebhookSecret != a.own.WebhookSecret)
	if known && (!slices.Equal(a.cfg.Sinks(own), a.cfg.Sinks(a.own)) || a.cfg.KeepContent(own) != a.cfg.KeepContent(a.own)) {
		a.reopen = true // a journal keeps events for the receivers that it was opened with
	}
	if known {
		a.adjust(set)
	}
	a.spec, a.own, a.set = spec, own, set
	if sinks && !a.reopen && a.jrn != nil && a.cfg.Journal != nil {
		a.cfg.Journal(a.cfg.Name, a.jrn, a.own)
	}
	return nil
}

// adjust gives changed settings to what was made with the old ones.
func (a *actor) adjust(set policy.Settings) {
	now := time.Now()
	if a.online != nil {
		a.online.monitor.Adjust(set)
	}
	if a.stall != nil && set.InboundStall != a.set.InboundStall {
		a.stall = policy.NewStall(set.InboundStall, a.stall.Record(), now)
		if a.online != nil {
			a.stall.Connected(now)
		}
	}
	if set.DecryptLimit != a.set.DecryptLimit || set.DecryptPeers != a.set.DecryptPeers {
		a.decrypts = nil
	}
}

// cutCurrent cuts the line from any goroutine.
func (a *actor) cutCurrent() {
	if line := a.currentLine.Load(); line != nil {
		(*line).Cut()
	}
}

// mendCursors makes cursors that cannot be read anew. Receivers get events again
// for it, which costs repeats but no event; the numbers go on from the status.
func (a *actor) mendCursors(ctx context.Context) error {
	page, err := a.cfg.Store.Query(ctx, state.OfSession(a.cfg.Name), state.Query{Kind: state.KindCursor})
	if err != nil {
		return fmt.Errorf("reading the cursors: %w", err)
	}
	var writes []state.Write
	for _, rec := range page.Records {
		var c state.Cursor
		if state.Decode(rec.Value, &c) == nil || ofNewerRelease(rec.Value) {
			continue
		}
		c = state.Cursor{V: state.Format}
		if rec.Key.ID == "" {
			c.Seq = a.st.LastSeq
		}
		value, err := state.Encode(c)
		if err != nil {
			return err
		}
		writes = append(writes, state.Put(state.KindCursor, rec.Key.ID, value))
		a.log.Error("a cursor of the events cannot be read; it is made anew", "cursor", rec.Key.ID)
	}
	if len(writes) == 0 {
		return nil
	}
	if err := a.cfg.Store.Commit(ctx, a.cfg.Lease.Fence(), "", writes); err != nil {
		return fmt.Errorf("making cursors anew: %w", err)
	}
	return nil
}

// ofNewerRelease says that a record is not damaged but of a format to come: it
// must not be overwritten.
func ofNewerRelease(value []byte) bool {
	var doc struct {
		V int `json:"v"`
	}
	return json.Unmarshal(value, &doc) == nil && doc.V > state.Format
}
