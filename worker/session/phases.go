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

// pairedWithoutRestart is how long after a scan the server may take to ask for
// the restart (515). The library says nothing at all if the socket is lost just
// then.
const pairedWithoutRestart = 15 * time.Second

// begin finds the phase that the stored spec and status ask for.
func (a *actor) begin(ctx context.Context) phase {
	a.enter("beginning")
	a.fresh, a.redialFor = false, ""
	if !a.st.NextAttemptAt.IsZero() || !a.st.CooldownUntil.IsZero() {
		a.cfg.Fleet.Synced(ctx)
	}
	now := a.cfg.Fleet.Clock()
	if a.st.Holding {
		// The owner before died while it held a connection.
		deaths := policy.Deaths(a.st.DeathsHolding)
		if !a.cfg.Innocent && !a.cfg.Blamed && a.cfg.Verdict != nil {
			a.cfg.Blamed, a.cfg.Innocent = a.cfg.Verdict(ctx)
		}
		switch {
		case a.cfg.Innocent:
			deaths = deaths.End()
		case a.cfg.Blamed:
			deaths = max(deaths, 1) // also where an old count had been forgotten
		default:
			deaths = deaths.End()
			a.st.DeathsUnexplained++
		}
		a.st.DeathsHolding, a.st.Holding = int(deaths), false
		a.cfg.Blamed, a.cfg.Innocent = false, false
	}
	a.box.post(wake{}) // commands that were put while nobody owned the session

	switch {
	case a.spec.Wanted == state.WantDisconnected && a.st.Cause != state.CauseDisconnected:
		return a.disconnect("")
	case a.spec.Wanted == state.WantStopped && a.st.Cause != state.CauseStopped:
		return a.signal(ctx, policy.Signal{Kind: policy.SignalUserStop})
	case a.spec.Wanted != state.WantRunning:
		return a.parked(time.Time{})
	case a.spec.RepairGeneration > a.st.RepairObserved:
		return a.repair(ctx)
	}
	r := policy.Resume(policy.Stored{Paired: a.st.Paired, State: a.st.State, Cause: a.st.Cause,
		NextAttemptAt: a.st.NextAttemptAt, CooldownUntil: a.st.CooldownUntil, Deaths: policy.Deaths(a.st.DeathsHolding),
		Unexplained: policy.Unexplained(a.st.DeathsUnexplained)}, now)
	a.log.Info("session taken up", "state", a.st.State, "cause", a.st.Cause, "paired", a.st.Paired, "why", r.Why)
	switch {
	case r.Poisoned:
		return a.signal(ctx, policy.Signal{Kind: policy.SignalPoisoned})
	case r.Pardon:
		return a.pardon(a.connecting)
	case r.Parked && a.cfg.PairAtStart && !a.st.Paired && !a.st.CooldownUntil.After(now):
		return a.connecting
	case r.Parked:
		return a.parked(r.Until)
	case r.Until.After(now):
		return a.waiting(r.Until)
	}
	return a.connecting
}

// learnPaired takes over whether there are credentials. Where that is news, their
// process died, or their connection ended, between storing them and hearing of it:
// whether the pairing has ended is the server's to say.
func (a *actor) learnPaired() {
	if a.dev.Paired() && !a.st.Paired {
		a.unproven = true
	}
	a.st.Paired = a.dev.Paired()
}

// connecting dials and logs in.
func (a *actor) connecting(ctx context.Context) phase {
	a.enter("connecting")
	if err := a.openDevice(ctx); err != nil {
		var stale *device.StaleError
		if errors.As(err, &stale) {
			a.dropDevice()
			kind := policy.SignalStale
			if errors.Is(err, device.ErrMoved) {
				kind = policy.SignalMoved
			}
			return a.signal(ctx, policy.Signal{Kind: kind, Err: err})
		}
		if ctx.Err() != nil {
			return a.leave
		}
		return a.strand(err)
	}
	a.learnPaired()
	if !a.st.Holding {
		deaths := policy.Deaths(a.st.DeathsHolding)
		if deaths.Poisoned() || policy.Unexplained(a.st.DeathsUnexplained).Poisoned() {
			return a.signal(ctx, policy.Signal{Kind: policy.SignalPoisoned})
		}
		a.st.DeathsHolding, a.st.Holding = int(deaths.Begin()), true
	}
	shown := state.Connecting
	switch {
	case !a.st.Paired:
		shown = state.Pairing
	case a.fresh:
	case a.st.State == state.Reconnecting || a.st.State == state.Restarting:
		shown = a.st.State // it is what operators are waiting for the end of
	}
	// Stored before the dial: whoever comes after this process must know that it held the session.
	fresh := a.fresh
	a.fresh = false
	if err := a.report(func(s *state.Status) {
		s.State, s.NextAttemptAt = shown, time.Time{}
		if fresh {
			// What a command has overridden must not hold the next owner up.
			s.Cause, s.Code, s.CooldownUntil = state.CauseNone, 0, time.Time{}
		}
	}); err != nil {
		return a.strand(err)
	}
	if next := a.turn(ctx); next != nil {
		return next
	}
	if a.jrn.Err() != nil {
		return a.strand(a.jrn.Err())
	}
	if err := a.dial(ctx); err != nil {
		return a.signal(ctx, policy.Signal{Kind: policy.SignalDialFailed, Err: err})
	}
	return a.admission(ctx)
}

// admission is what follows a dial: a pairing, or the wait for the login. The
// pairing of an earlier connection may have been stored in the meantime.
func (a *actor) admission(ctx context.Context) phase {
	a.learnPaired()
	if !a.st.Paired {
		return a.pairing
	}
	deadline := time.Now().Add(a.set.ConnectTimeout)
	if next := a.pump(ctx, at(deadline), func(item any) (phase, bool) {
		if e, ok := item.(whatsapp.Connected); ok {
			return a.loggedIn(e), true
		}
		return nil, false
	}); next != nil {
		return next
	}
	return a.signal(ctx, policy.Signal{Kind: policy.SignalConnectTimeout,
		Err: fmt.Errorf("no login within %s", a.set.ConnectTimeout)})
}

// turn waits for this session's turn to log in.
func (a *actor) turn(ctx context.Context) phase {
	for {
		wait := a.cfg.Fleet.Ask(a.cfg.Name, time.Now())
		if wait <= 0 {
			return nil
		}
		if next := a.pump(ctx, at(time.Now().Add(wait)), nil); next != nil {
			return next
		}
	}
}

// dial makes a line and starts connecting it. How that went is posted by the
// line. Without trust nothing is connected: the lease's context is about to end.
func (a *actor) dial(held context.Context) error {
	a.dropLine()
	a.n++
	n := a.n
	line, err := a.cfg.Dial(Call{
		Session: a.cfg.Name, N: n, Device: a.dev, Journal: a.jrn, Settings: a.set, Own: a.own,
		Post: func(e whatsapp.Event) { a.box.post(e) }, Log: a.log,
	})
	if err != nil {
		return err
	}
	a.line = line
	a.currentLine.Store(&line)
	if !a.cfg.Lease.Trusted() {
		// Looked at after the line can be cut: whoever ends the trust now cuts it.
		line.Cut()
	}
	timeout := a.set.ConnectTimeout
	go func() {
		ctx, cancel := context.WithTimeout(held, timeout)
		defer cancel()
		if err := line.Connect(ctx); err != nil {
			a.box.post(dialEnded{n, err})
		}
	}()
	return nil
}

// dialEnded says that a line could not be connected.
type dialEnded struct {
	n   uint64
	err error
}

func (d dialEnded) signal() policy.Signal {
	var failed *whatsapp.ConnectError
	if errors.As(d.err, &failed) {
		return failed.Signal
	}
	return policy.Signal{Kind: policy.SignalDialFailed, Err: d.err}
}

// pairing shows QR texts until one is scanned, the time is over, or it fails.
func (a *actor) pairing(ctx context.Context) phase {
	a.enter("pairing")
	started := time.Now()
	defer a.hideQR()
	var shown qrRun
	var scanned time.Time
	deadline := func() time.Time {
		end := started.Add(a.set.QRTimeout)
		switch {
		case !scanned.IsZero():
			return scanned.Add(pairedWithoutRestart)
		case !shown.next.IsZero() && shown.next.Before(end):
			return shown.next
		}
		return end
	}
	for renewals := 0; ; {
		next := a.pump(ctx, deadline, func(item any) (phase, bool) {
			switch e := item.(type) {
			case whatsapp.QRCodes:
				shown.refill(e)
				return a.showNextQR(&shown), true
			case whatsapp.Paired:
				a.hideQR()
				scanned = time.Now()
				return a.scanned(e), true
			case whatsapp.Signalled:
				if scanned.IsZero() && a.dev.Paired() && (lineEnded(e.Signal) || e.Signal.Kind == policy.SignalPairError) {
					// The credentials are stored, and the server or the network was quicker
					// than the word of it, or the confirmation failed on its way. Whether the
					// pairing has ended a login will tell.
					return a.signal(ctx, policy.Signal{Kind: policy.SignalLoginReconnect, Err: e.Signal.Err}), true
				}
				if scanned.IsZero() && usedUp(e.Signal, shown) && a.set.RenewQR(started, renewals, time.Now()) {
					shown.next = time.Now() // the server was quicker to say so
					return nil, true
				}
			}
			return nil, false
		})
		switch {
		case next != nil:
			return next
		case !scanned.IsZero():
			return a.signal(ctx, policy.Signal{Kind: policy.SignalClosed,
				Err: fmt.Errorf("no restart within %s after the scan", pairedWithoutRestart)})
		case a.dev.Paired(): // scanned at the last moment, and not told of yet
			return a.signal(ctx, policy.Signal{Kind: policy.SignalLoginReconnect})
		case shown.left() && time.Since(started) < a.set.QRTimeout:
			if next := a.showNextQR(&shown); next != nil {
				return next
			}
			continue
		case !a.set.RenewQR(started, renewals, time.Now()):
			return a.signal(ctx, policy.Signal{Kind: policy.SignalQRExpired})
		}
		// The codes have run out. A fresh connection brings new ones.
		a.log.Info("QR codes used up, connecting once more for fresh ones")
		renewals++
		shown = qrRun{}
		if err := a.dial(ctx); err != nil {
			return a.signal(ctx, policy.Signal{Kind: policy.SignalDialFailed, Err: err})
		}
		if a.dev.Paired() {
			return a.admission
		}
	}
}

// lineEnded says that a connection ended without a reason that anybody gave.
func lineEnded(sig policy.Signal) bool {
	return sig.Kind == policy.SignalClosed || sig.Kind == policy.SignalStreamEnd
}

// usedUp says that a connection was closed because its last code is over.
func usedUp(sig policy.Signal, q qrRun) bool {
	const early = 3 * time.Second // of the server's clock
	return lineEnded(sig) && q.codes != nil && !q.left() && time.Until(q.next) < early
}

// scanned stores that the device is paired. The library has stored the
// credentials already.
func (a *actor) scanned(p whatsapp.Paired) phase {
	a.who.JID, a.who.LID, a.who.Platform = p.JID, p.LID, p.Platform
	a.who.PushName = p.BusinessName
	a.decrypts.Reset()
	a.justPaired, a.unproven = true, false
	a.log.Info("paired; the server restarts the connection now")
	err := a.report(func(s *state.Status) {
		s.Paired, s.Cause, s.Code, s.Attempt = true, state.CauseNone, 0, 0
		s.LastCause, s.CauseInRow, s.State = state.CauseNone, 0, state.Restarting
		s.CooldownUntil = time.Time{}
	}, journal.Draft{Type: state.EventPaired, Data: map[string]any{
		"jid": p.JID, "lid": p.LID, "platform": p.Platform, "businessName": p.BusinessName}})
	if err != nil {
		return a.strand(err)
	}
	return nil
}

// local is a deadline by WhatsApp's clock, by this host's.
func (a *actor) local(deadline time.Time) time.Time {
	if deadline.IsZero() {
		return deadline
	}
	return time.Now().Add(deadline.Sub(a.cfg.Fleet.Clock()))
}

// waiting waits for the next attempt.
func (a *actor) waiting(until time.Time) phase {
	return func(ctx context.Context) phase {
		a.enter("waiting")
		if next := a.pump(ctx, at(a.local(until)), nil); next != nil {
			return next
		}
		return a.connecting
	}
}

// parked rests until the deadline (zero: none) or a command.
func (a *actor) parked(until time.Time) phase {
	return func(ctx context.Context) phase {
		a.enter("parked")
		a.dropLine()
		a.dropDevice()
		for {
			a.sweep(ctx)
			look := time.Now().Add(sweepEvery)
			if end := a.local(until); !until.IsZero() && end.Before(look) {
				look = end
			}
			if next := a.pump(ctx, at(look), nil); next != nil {
				return next
			}
			if !until.IsZero() && !a.cfg.Fleet.Clock().Before(until) {
				break
			}
		}
		a.log.Info("the rest is over, trying again", "cause", a.st.Cause)
		return a.pardon(a.connecting)
	}
}

// sweepEvery is how often retired credentials are looked through for those
// whose quarantine is over.
const sweepEvery = 6 * time.Hour

// sweep destroys credentials whose quarantine is over.
func (a *actor) sweep(ctx context.Context) {
	if time.Since(a.swept) < sweepEvery {
		return
	}
	a.swept = time.Now()
	if err := a.sweepUploads(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("looking through uploads failed", "error", err)
	}
	if err := device.Sweep(ctx, a.deviceConfig()); err != nil && ctx.Err() == nil {
		a.log.Warn("looking through retired credentials failed", "error", err)
	}
}

// pardon lets a session that was parked as poisoned have one more try.
func (a *actor) pardon(next phase) phase {
	a.st.DeathsHolding = int(policy.Deaths(a.st.DeathsHolding).Pardon())
	a.st.DeathsUnexplained = int(policy.Unexplained(a.st.DeathsUnexplained).Pardon())
	return next
}
