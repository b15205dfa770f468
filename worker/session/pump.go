package session

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/lease"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// at is a deadline that does not move.
func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// pump takes what comes until something changes the phase (then it returns the
// next one) or the deadline is reached (then it returns nil). The deadline is
// asked for anew after each item; a zero one never comes. own sees each item
// first and says whether it has dealt with it.
func (a *actor) pump(ctx context.Context, until func() time.Time, own func(any) (next phase, handled bool)) phase {
	var timer *time.Timer
	var due <-chan time.Time
	var set time.Time
	defer func() {
		if timer != nil {
			timer.Stop()
		}
	}()
	for {
		if ctx.Err() != nil {
			return a.leave
		}
		if deadline := until(); !deadline.Equal(set) {
			if timer != nil {
				timer.Stop()
			}
			set, timer, due = deadline, nil, nil
			if !deadline.IsZero() {
				timer = time.NewTimer(time.Until(deadline))
				due = timer.C
			}
		}
		select {
		case <-ctx.Done():
			return a.leave
		case <-due:
			return nil
		case <-a.box.ready():
			if next := a.take(ctx, own); next != nil {
				return next
			}
		}
	}
}

// take deals with one item of the mailbox.
func (a *actor) take(ctx context.Context, own func(any) (phase, bool)) phase {
	item, ok := a.box.take()
	if !ok {
		return nil
	}
	if e, isLine := item.(whatsapp.Event); isLine && (a.line == nil || e.Connection() != a.n) {
		return nil // of an older connection
	}
	if own != nil {
		if next, handled := own(item); next != nil || handled {
			return next
		}
	}
	return a.handle(ctx, item)
}

// handle deals with what any phase may meet.
func (a *actor) handle(ctx context.Context, item any) phase {
	switch it := item.(type) {
	case broken:
		return a.broke(ctx, it.err)
	case Order:
		return a.command(ctx, it)
	case coded:
		return a.coded(it)
	case refreshed:
		a.refreshed(it)
		return nil
	case outboxDue:
		a.startOutbox(ctx)
		return nil
	case wake:
		return a.reconcile(ctx)
	case follow:
		return a.followSpec(ctx)
	case settle:
		return a.settleSpec(ctx)
	case sendEnded:
		return a.sendEnded(ctx, it)
	case dialEnded:
		if a.line == nil || it.n != a.n {
			return nil
		}
		return a.signal(ctx, it.signal())
	case earlyReceipt:
		return a.receipt(ctx, it.Receipt, it.looks)
	case whatsapp.Event:
		return a.lineEvent(ctx, it)
	}
	return nil
}

// signal judges what was seen and carries the decision out.
func (a *actor) signal(ctx context.Context, sig policy.Signal) phase {
	return a.decide(ctx, policy.Observe(sig, a.st.Paired))
}

// leave ends the actor because the lease's context ended.
func (a *actor) leave(ctx context.Context) phase {
	a.enter("leaving")
	lost := errors.Is(context.Cause(ctx), lease.ErrLost)
	a.cutCurrent()
	if lost {
		// Another owner may hold the session now: say nothing to the store.
		a.log.Warn("lease lost, session closed", "cause", state.CauseLeaseLost, "why", context.Cause(ctx))
		return nil
	}
	a.endOnline(time.Now())
	a.waitOutbox()
	a.dropLine()
	a.letGo()
	if a.jrn == nil {
		return nil // the store was away: what is stored there holds
	}
	if err := a.report(nil); err != nil {
		a.log.Error("could not store the last status", "error", err)
	}
	return nil
}

// letGo notes that no connection is held any more, so that the death of this
// process is not blamed on the session.
func (a *actor) letGo() {
	if a.st.Holding {
		a.st.Holding = false
		a.st.DeathsHolding = int(policy.Deaths(a.st.DeathsHolding).End())
	}
}

// broke deals with a journal or device that works no more. A record that cannot
// be read will not read better on the next connection, so the session is parked
// for an operator to look at; everything else is the store's matter.
func (a *actor) broke(ctx context.Context, err error) phase {
	if a.jrn != nil && a.jrn.Err() == nil {
		if a.dev == nil || a.dev.Err() == nil {
			return nil // told by a device that has been closed since
		}
		if errors.Is(err, state.ErrCorrupt) {
			a.dropLine()
			a.dropDevice()
			return a.signal(ctx, policy.Signal{Kind: policy.SignalStale, Err: err})
		}
	}
	return a.strand(err)
}

// strand is the phase of a session whose store does not answer or refuses.
func (a *actor) strand(err error) phase {
	a.cutCurrent()
	if errors.Is(err, state.ErrFenced) {
		a.cfg.Lease.Lose(err)
		return a.leave
	}
	return func(ctx context.Context) phase { return a.runStranded(ctx, err) }
}

// runStranded waits until the store answers, and goes on under a higher epoch:
// whatever commit was under way can then no longer happen.
func (a *actor) runStranded(ctx context.Context, cause error) phase {
	now := time.Now()
	lost := a.line != nil || a.phase == "connecting"
	if a.online != nil && a.losing.IsZero() {
		a.losing = now
	}
	a.enter("stranded")
	a.endOnline(now)
	a.dropLine()
	a.dropDevice()
	d := policy.Decide(a.snapshot(), policy.Observe(policy.Signal{Kind: policy.SignalStoreFailed, Err: cause}, a.st.Paired), now)
	a.logDecision(d, policy.Event{Cause: d.Cause, Err: cause})
	if lost && a.cfg.Observe.Disconnected != nil {
		a.cfg.Observe.Disconnected(d.Cause)
	}
	a.setLive(func(l *Live) {
		l.State, l.Cause, l.Health = d.State, d.Cause, a.healthOf(d, now)
		l.Status.State, l.Status.Cause, l.Status.Health, l.Status.ObservedAt = l.State, l.Cause, l.Health, now
	})
	// The commands are open in the store, and are read there afterwards.
	clear(a.open)
	a.codeFor = nil
	// A store that fails again and again, or one commit that it never takes, must
	// not become a loop of logins.
	a.strands++
	wait := d.Delay
	if steps := a.set.Backoff; a.strands > 1 && len(steps) > 0 {
		wait = max(wait, steps[min(a.strands, len(steps))-1])
	}
	for {
		if next := a.pump(ctx, at(time.Now().Add(wait)), deferItem(a)); next != nil {
			return next
		}
		err := a.resume(ctx)
		if err == nil && lost {
			err = a.tellLoss(d, now)
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return a.leave
		}
		a.log.Warn("the store does not answer yet", "error", err, "retryIn", wait.String())
		wait = min(wait*2, time.Minute)
	}
	a.letGo()      // this process lives
	return a.begin // which reads the commands that came meanwhile
}

// tellLoss stores, now that the store answers, that it had cost the connection.
func (a *actor) tellLoss(d policy.Decision, at time.Time) error {
	return a.report(func(s *state.Status) {
		s.State, s.Cause, s.Code, s.Decision = d.State, d.Cause, d.Code, d.Summary()
		s.Hours = policy.TallyReconnect(s.Hours, d.Cause, at)
		if s.Disconnects == nil {
			s.Disconnects = make(map[state.Cause]int)
		}
		s.Disconnects[d.Cause]++
		s.Health = a.healthOf(d, at)
	})
}

// deferItem keeps a stranded session from acting on what needs the store.
func deferItem(a *actor) func(any) (phase, bool) {
	return func(item any) (phase, bool) {
		switch item.(type) {
		case broken:
			return nil, true
		case sendEnded:
			a.outbox.running = false // the next login looks again
			return nil, true
		case Order, wake, settle, follow, outboxDue, coded:
			// What it was about stays in the store and is read again afterwards.
			return nil, true
		}
		return nil, false
	}
}

// resume raises the epoch and reads everything again.
func (a *actor) resume(ctx context.Context) error {
	if err := a.cfg.Store.Ping(ctx); err != nil {
		return err
	}
	if a.jrn != nil {
		a.jrn.Close()
		a.jrn = nil
	}
	if err := a.cfg.Lease.Renew(ctx); err != nil {
		return err
	}
	return a.load(ctx)
}
