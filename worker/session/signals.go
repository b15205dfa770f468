package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// refreshWithin bounds the look for a newer WhatsApp version. It runs while the
// session waits for its next attempt.
const refreshWithin = 30 * time.Second

// lineEvent deals with what the present line says.
func (a *actor) lineEvent(ctx context.Context, e whatsapp.Event) phase {
	now := time.Now()
	switch e := e.(type) {
	case whatsapp.Signalled:
		switch e.Signal.Kind {
		case policy.SignalUndecryptable, policy.SignalPasskeyRequest, policy.SignalReachoutLock:
			return nil // the line tells of these by an event of their own as well
		}
		return a.signal(ctx, e.Signal)
	case whatsapp.Panicked:
		return a.signal(ctx, policy.Signal{Kind: policy.SignalHandlerPanic,
			Err: fmt.Errorf("handling a %s stanza panicked", e.Stanza)})
	case whatsapp.PasskeyRequested:
		return a.signal(ctx, policy.Signal{Kind: policy.SignalPasskeyRequest})
	case whatsapp.Undecryptable:
		storm := a.window().Add(e.Peer, now)
		a.countUndecryptable(now)
		if storm {
			return a.signal(ctx, policy.Signal{Kind: policy.SignalDecryptStorm,
				Err: fmt.Errorf("%d messages in 10 min could not be decrypted", a.st.Undecryptable)})
		}
		return a.signal(ctx, policy.Signal{Kind: policy.SignalUndecryptable})
	case whatsapp.ReachoutTimelock:
		if !e.Active {
			return a.reachoutOver()
		}
		sig := policy.Signal{Kind: policy.SignalReachoutLock}
		if !e.Until.IsZero() {
			sig.Expire = e.Until.Sub(a.cfg.Fleet.Clock())
		}
		return a.signal(ctx, sig)
	case whatsapp.PhoneSeen:
		if e.At.After(a.who.PhoneLastSeen) {
			a.who.PhoneLastSeen = e.At // stored with the next change
		}
	case whatsapp.PushName:
		if e.Name != a.who.PushName {
			a.who.PushName = e.Name
			if err := a.report(nil); err != nil {
				return a.strand(err)
			}
		}
	case whatsapp.OfflinePreview:
		a.log.Debug("the server held back", "messages", e.Messages, "receipts", e.Receipts)
	case whatsapp.OfflineDone:
		return a.offlineDone(e, now)
	case whatsapp.Receipt:
		return a.receipt(ctx, e, 0)
	case whatsapp.IdentityChanged:
		a.log.Info("a contact has a new identity key")
	case whatsapp.QueueFull:
		a.log.Error("the queue of events is full; messages stay at WhatsApp until the receiver takes some")
		a.starved = true
	case whatsapp.HistorySync:
		a.log.Info("history received", "type", e.Type, "conversations", e.Conversations)
	}
	return nil
}

// countUndecryptable shows how many there were in the last 10 minutes. It is
// stored with the next change.
func (a *actor) countUndecryptable(now time.Time) {
	n := 0
	if a.decrypts != nil {
		n = a.decrypts.Count(now)
	}
	if n != a.st.Undecryptable {
		a.st.Undecryptable = n
		a.setLive(func(l *Live) { l.Status.Undecryptable = n })
	}
}

func (a *actor) window() *policy.DecryptWindow {
	if a.decrypts == nil {
		a.decrypts = policy.NewDecryptWindow(a.set)
	}
	return a.decrypts
}

// offlineDone ends the burst after a login: messages that are older than a
// reconnect for a stall prove that there was one.
func (a *actor) offlineDone(e whatsapp.OfflineDone, now time.Time) phase {
	if a.stall == nil {
		return nil
	}
	proved := !e.Oldest.IsZero() && a.stall.OfflineMessage(e.Oldest)
	a.stall.OfflineDone(now)
	rec := a.stall.Record()
	change := func(s *state.Status) { s.InboundGaps, s.StallBound, s.LastStallAt = rec.Gaps, rec.Bound, rec.LastAt }
	if !proved {
		change(&a.st) // stored with the next change
		return nil
	}
	a.log.Warn("the connection was stalled: messages had been waiting", "messages", e.Messages, "oldest", e.Oldest.UTC())
	if err := a.report(change, journal.Draft{Type: state.EventStallProved, Data: map[string]any{
		"messages": e.Messages, "oldest": e.Oldest.UTC(), "bound": rec.Bound.String()}}); err != nil {
		return a.strand(err)
	}
	return nil
}

// lookForStall asks whether silence has become a stall.
func (a *actor) lookForStall(ctx context.Context, now time.Time) phase {
	if a.starved && !a.jrn.Full() {
		// There is room again: only a new connection makes the server deliver
		// what was refused.
		a.starved = false
		return a.signal(ctx, policy.Signal{Kind: policy.SignalInboundStalled,
			Text: "the queue of events was full and has room again"})
	}
	a.stall.Inbound(a.line.LastInbound())
	kind, why := a.stall.Check(now, a.line.HandlerBlockedFor())
	if kind == "" {
		return nil
	}
	a.stall.Reconnecting(kind, now)
	a.st.LastStallAt = now
	return a.signal(ctx, policy.Signal{Kind: kind, Text: why})
}

func (a *actor) reachoutOver() phase {
	if a.st.RestrictedUntil.IsZero() {
		return nil
	}
	if err := a.report(func(s *state.Status) {
		s.RestrictedUntil = time.Time{}
		if s.Cause == state.CauseReachoutRestricted {
			s.Cause, s.Code = state.CauseNone, 0
		}
	}); err != nil {
		return a.strand(err)
	}
	return nil
}

// snapshot is what a decision is made from.
func (a *actor) snapshot() policy.Snapshot {
	return policy.Snapshot{
		Paired: a.st.Paired, Attempt: a.st.Attempt, LastCause: a.st.LastCause, CauseInRow: a.st.CauseInRow,
		RateLimitStep: a.st.RateLimitStep, CooldownUntil: a.st.CooldownUntil,
		NewVersion: a.newVersion, Settings: a.set, Jitter: jitter,
	}
}

func (a *actor) applySnapshot(s *state.Status, from policy.Snapshot) {
	s.Attempt, s.LastCause, s.CauseInRow, s.RateLimitStep = from.Attempt, from.LastCause, from.CauseInRow, from.RateLimitStep
}

// decide asks the policy what an event does and carries it out.
func (a *actor) decide(ctx context.Context, e policy.Event) phase {
	now := time.Now()
	if e.Cause == state.CauseLoggedOut && a.unproven {
		e.Cause = state.CausePairingFailed // it had never ended
	}
	if e.Cause == state.CauseStoreUnavailable {
		return a.strand(e.Err)
	}
	if e.Cause == state.CauseReplaced && a.takenOver(ctx) {
		return a.leave
	}
	before := a.snapshot()
	var alarm string
	if a.line != nil && (policy.RuleOf(e.Cause).Action != policy.Stay || e.Ended) {
		before.Outage, alarm = a.cfg.Fleet.Failed(a.cfg.Name, e.Cause, now)
	}
	d := policy.Decide(before, e, a.cfg.Fleet.Clock())
	a.newVersion = false
	a.logDecision(d, e)
	if d.Action != policy.Stay {
		if a.losing.IsZero() && a.online != nil {
			a.losing = now
		}
		a.cutCurrent()
		a.endOnline(now)
		if a.cfg.Observe.Disconnected != nil {
			a.cfg.Observe.Disconnected(d.Cause)
		}
	}
	if d.RefreshVersion {
		a.refreshVersion()
	}
	// The record names the phase that goes with its state.
	switch d.Action {
	case policy.Redial:
		a.phase = "waiting"
	case policy.Park, policy.Retire:
		a.phase = "parked"
	}
	if err := a.carryOut(ctx, d, e, now, alarm); err != nil {
		return a.strand(err)
	}
	switch d.Action {
	case policy.Redial:
		a.dropLine()
		return a.waiting(d.NextAttemptAt)
	case policy.Park, policy.Retire:
		return a.withoutCode(d, a.parked(d.NextAttemptAt))
	}
	return nil
}

// ownerWithin bounds the question who owns the session.
const ownerWithin = 5 * time.Second

// takenOver asks the store, when another connection has replaced this one,
// whether that was the next owner: then it is no conflict, and nothing is said.
// A store that does not answer is no reason to believe so; what is decided then
// is committed under the fence, which knows.
func (a *actor) takenOver(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, ownerWithin)
	defer cancel()
	mine, err := a.cfg.Lease.Mine(ctx)
	if err != nil || mine {
		return false
	}
	a.cfg.Lease.Lose(errors.New("the next owner has connected"))
	return true
}

// withoutCode ends the command for a pairing code that this pairing cannot give
// any more. Left open it would begin one pairing after the other.
func (a *actor) withoutCode(d policy.Decision, next phase) phase {
	o := a.codeFor
	if o == nil {
		return next
	}
	a.codeFor = nil
	return a.finish(*o, failed("pairing_ended", "the pairing ended before there was a code: %s", d.Cause), next)
}

// carryOut stores the decision, in one commit with what it does to the
// credentials.
func (a *actor) carryOut(ctx context.Context, d policy.Decision, e policy.Event, now time.Time, alarm string) error {
	a.who.Text = e.Text
	change := func(s *state.Status) {
		if d.Action == policy.Stay {
			if d.Cause == state.CauseReachoutRestricted {
				s.Cause, s.Code, s.RestrictedUntil = d.Cause, d.Code, d.RestrictedUntil
			} else if s.State == state.Pairing {
				s.Cause, s.Code = d.Cause, d.Code
			}
			s.Decision = d.Summary()
			return
		}
		s.State, s.Cause, s.Code = d.State, d.Cause, d.Code
		s.NextAttemptAt, s.CooldownUntil = d.NextAttemptAt, d.CooldownUntil
		s.Attempt, s.LastCause, s.CauseInRow, s.RateLimitStep = d.Attempt, d.LastCause, d.CauseInRow, d.RateLimitStep
		s.Decision = d.Summary()
		if d.Action == policy.Redial {
			s.Hours = policy.TallyReconnect(s.Hours, d.Cause, now)
		} else {
			a.letGo()
			s.DeathsHolding, s.DeathsUnexplained, s.Holding = a.st.DeathsHolding, a.st.DeathsUnexplained, a.st.Holding
		}
		if s.Disconnects == nil {
			s.Disconnects = make(map[state.Cause]int)
		}
		s.Disconnects[d.Cause]++
		switch d.Credentials {
		case policy.Quarantined, policy.Destroyed, policy.Discarded:
			s.Paired = false
		}
		s.Health = a.healthOf(d, now)
	}
	var drafts []journal.Draft
	if d.Event != "" && d.Event != state.EventState && d.Event != state.EventUndecrypted {
		drafts = append(drafts, journal.Draft{Type: d.Event, Data: a.decisionData(d)})
	}
	if alarm != "" {
		a.log.Error("outage: many sessions fail at once; one at a time tries, the others wait", "outage", alarm)
		drafts = append(drafts, journal.Draft{Type: state.EventOutage, Data: map[string]any{"outage": alarm, "cause": d.Cause}})
	}
	if d.Action == policy.Stay && d.Cause == state.CauseBadMAC {
		return nil // counted; the event of the message itself is stored already
	}
	switch d.Credentials {
	case policy.Quarantined, policy.Destroyed, policy.Discarded:
		return a.retire(ctx, d, change, drafts)
	}
	return a.report(change, drafts...)
}

// healthOf judges a session whose connection has just ended.
func (a *actor) healthOf(d policy.Decision, now time.Time) state.Health {
	health, _ := policy.Judge(policy.HealthInput{LastPong: a.st.LastPongAt, PongTimeout: a.set.PongTimeout,
		FailuresInARow: a.st.FailuresInARow, Cause: d.Cause}, now)
	return health
}

// retire takes the credentials out of reach, in one commit with the new status.
func (a *actor) retire(ctx context.Context, d policy.Decision, change func(*state.Status), drafts []journal.Draft) error {
	a.dropLine()
	var stale *device.StaleError
	if err := a.openDevice(ctx); err != nil && !errors.As(err, &stale) {
		return err // the vault or the key does not answer: nothing is said to be gone that is still there
	}
	batch, err := a.statusBatch(change, drafts)
	if err != nil {
		return err
	}
	switch {
	case d.Credentials == policy.Quarantined:
		err = a.dev.Quarantine(ctx, d.Cause, batch)
	case d.Credentials == policy.Destroyed, a.dev.Paired(): // the latter: half paired
		err = a.dev.Destroy(ctx, batch)
	default:
		if err = a.dev.Fresh(); err == nil {
			err = a.jrn.Commit(ctx, batch)
		}
	}
	if err != nil {
		return err
	}
	a.published()
	a.dropDevice()
	a.decrypts = nil
	a.who = state.Identity{Text: a.who.Text}
	return nil
}

// refreshVersion looks for a newer WhatsApp version while the session waits.
func (a *actor) refreshVersion() {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), refreshWithin)
		defer cancel()
		changed, err := a.cfg.Fleet.RefreshVersion(ctx)
		a.box.post(refreshed{changed, err})
	}()
}

// refreshed is the end of a look for a newer version.
type refreshed struct {
	changed bool
	err     error
}

func (a *actor) refreshed(r refreshed) {
	switch {
	case r.err != nil:
		a.log.Warn("the newest WhatsApp version could not be found out", "error", r.err)
	case r.changed:
		a.newVersion = true
	}
}

// logDecision is the one line that each disconnect has.
func (a *actor) logDecision(d policy.Decision, e policy.Event) {
	if d.Action == policy.Stay && d.Cause == state.CauseBadMAC {
		a.log.Debug("a message could not be decrypted; the sender is asked for it again")
		return
	}
	args := []any{"cause", d.Cause, "code", d.Code, "action", d.Action, "attempt", d.Attempt,
		"delay", d.Delay.Round(time.Millisecond).String(), "credentials", d.Credentials, "state", d.State}
	if e.Text != "" {
		args = append(args, "text", e.Text)
	}
	if e.Err != nil {
		args = append(args, "error", e.Err.Error())
	}
	if !d.CooldownUntil.IsZero() {
		args = append(args, "cooldownUntil", d.CooldownUntil.UTC().Format(time.RFC3339))
	}
	switch {
	case errors.Is(e.Err, context.Canceled) && d.Action == policy.Redial, d.Action == policy.Stay:
		a.log.Info("connection event", args...)
	case d.Action == policy.Redial:
		a.log.Warn("disconnected, will reconnect", args...)
	case d.Cause == state.CauseStopped || d.Cause == state.CauseDisconnected:
		a.log.Info("disconnected by command", args...)
	default:
		a.log.Error("disconnected", append(args, "advice", d.Advice)...) // somebody has to act
	}
}

func (a *actor) decisionData(d policy.Decision) map[string]any {
	data := map[string]any{"state": d.State, "cause": d.Cause, "code": d.Code, "attempt": d.Attempt,
		"credentials": d.Credentials, "why": d.Why, "advice": d.Advice}
	if !d.NextAttemptAt.IsZero() {
		data["nextAttemptAt"] = d.NextAttemptAt.UTC()
	}
	if !d.CooldownUntil.IsZero() {
		data["cooldownUntil"] = d.CooldownUntil.UTC()
	}
	return data
}
