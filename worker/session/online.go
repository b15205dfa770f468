package session

import (
	"context"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

const (
	// stallLook is how often silence is judged; its bounds are half hours, unless
	// a short one was set.
	stallLook = 30 * time.Second
	// absentAfter is when a phone counts as absent: WhatsApp unlinks companions
	// 14 days after the phone was last seen.
	absentAfter = 12 * 24 * time.Hour
	// absentAgain is the pause between two warnings of it.
	absentAgain = 24 * time.Hour
	// tallyEvery is how often the time online is added up.
	tallyEvery = 10 * time.Minute
)

// onlineRun is what lives as long as one login.
type onlineRun struct {
	since   time.Time
	counted time.Time // up to when the time online is in the tallies
	monitor *policy.Monitor
	lasted  bool
	forgot  bool // the deaths

	pinging                 bool
	ping, tick, stall, hour time.Time // when each is due
}

// loggedIn notes a login and goes online.
func (a *actor) loggedIn(e whatsapp.Connected) phase {
	now := time.Now()
	a.cfg.Fleet.Succeeded(a.cfg.Name, now)
	a.online = &onlineRun{
		since: now, counted: now, monitor: policy.NewMonitor(a.set, now),
		ping: now.Add(a.set.KeepAlive(jitter())), tick: now.Add(a.set.MonitorTick),
		stall: now.Add(a.lookEvery()), hour: now.Add(tallyEvery),
	}
	if e.JID != "" {
		a.who.JID = e.JID
	}
	if e.LID != "" {
		a.who.LID = e.LID
	}
	if e.PushName != "" {
		a.who.PushName = e.PushName
	}
	a.who.Text = ""
	var drafts []journal.Draft
	if a.unproven {
		// The server's restart was quicker than the library's word of the pairing,
		// or a process died in between.
		a.log.Info("paired")
		drafts = append(drafts, journal.Draft{Type: state.EventPaired, Data: map[string]any{"jid": a.who.JID, "lid": a.who.LID}})
	}
	if a.justPaired || a.unproven {
		// The restart after a pairing is no trouble: the first one begins at attempt 1.
		a.justPaired, a.unproven = false, false
		a.applySnapshot(&a.st, a.snapshot().Settled())
	}
	if a.stall == nil {
		a.stall = policy.NewStall(a.set.InboundStall, policy.StallRecord{
			Gaps: a.st.InboundGaps, Bound: a.st.StallBound, LastAt: a.st.LastStallAt}, now)
	}
	a.stall.Connected(now)
	took := time.Duration(0)
	if !a.losing.IsZero() {
		took = now.Sub(a.losing)
		a.losing = time.Time{}
		if a.cfg.Observe.Reconnected != nil {
			a.cfg.Observe.Reconnected(took)
		}
	}
	a.phase = "online" // which the record names with the state
	a.log.Info("WhatsApp connected successfully", "attempt", a.st.Attempt, "reconnectTook", took.Round(time.Millisecond).String())
	if err := a.report(func(s *state.Status) {
		s.State, s.Cause, s.Code, s.Health = state.Online, state.CauseNone, 0, state.Healthy
		s.NextAttemptAt, s.CooldownUntil = time.Time{}, time.Time{}
		s.LastConnectedAt, s.FailuresInARow = now, 0
		s.Decision = "stay: logged in"
		if s.RestrictedUntil.After(a.cfg.Fleet.Clock()) {
			s.Cause = state.CauseReachoutRestricted
		}
	}, drafts...); err != nil {
		return a.strand(err)
	}
	return a.runOnline
}

// runOnline keeps the connection alive, watches it, and sends.
func (a *actor) runOnline(ctx context.Context) phase {
	a.enter("online")
	a.startOutbox(ctx)
	for {
		if next := a.pump(ctx, a.online.due, a.whileOnline); next != nil {
			return next
		}
		if next := a.onTimers(ctx, time.Now()); next != nil {
			return next
		}
	}
}

// lookEvery is how often silence is judged, by the bound that is set.
func (a *actor) lookEvery() time.Duration {
	if fixed := a.set.InboundStall.Fixed; fixed > 0 {
		return min(max(fixed/4, time.Second), stallLook)
	}
	return stallLook
}

// due is the next time that something is to be done.
func (o *onlineRun) due() time.Time {
	next := o.tick
	if !o.pinging && o.ping.Before(next) {
		next = o.ping
	}
	for _, at := range []time.Time{o.stall, o.hour} {
		if at.Before(next) {
			next = at
		}
	}
	return next
}

// pinged is the end of a ping.
type pinged struct {
	n   uint64
	err error
}

func (a *actor) whileOnline(item any) (phase, bool) {
	switch it := item.(type) {
	case pinged:
		if it.n != a.n || a.line == nil {
			return nil, true
		}
		a.online.pinging = false
		if it.err == nil {
			a.online.monitor.Pong(a.line.LastPong())
		} else {
			a.log.Debug("ping not answered", "error", it.err)
		}
		return nil, true
	case whatsapp.Connected:
		return nil, true
	}
	return nil, false
}

func (a *actor) onTimers(ctx context.Context, now time.Time) phase {
	o := a.online
	if !now.Before(o.ping) && !o.pinging {
		a.sendPing()
		o.ping = now.Add(a.set.KeepAlive(jitter()))
	}
	if !now.Before(o.tick) {
		o.tick = now.Add(a.set.MonitorTick)
		if next := a.monitorTick(ctx, now); next != nil {
			return next
		}
	}
	if !now.Before(o.stall) {
		o.stall = now.Add(a.lookEvery())
		if next := a.lookForStall(ctx, now); next != nil {
			return next
		}
	}
	if !now.Before(o.hour) {
		o.hour = now.Add(tallyEvery)
		a.sweep(ctx)
		return a.hourly(now)
	}
	return nil
}

// sendPing pings in a goroutine of its own, since the answer may take long.
func (a *actor) sendPing() {
	a.online.pinging = true
	line, n, deadline := a.line, a.n, a.set.KeepAliveDeadline
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		a.box.post(pinged{n, line.Ping(ctx)})
	}()
}

// monitorTick looks at the connection.
func (a *actor) monitorTick(ctx context.Context, now time.Time) phase {
	o := a.online
	a.countUndecryptable(now)
	v := o.monitor.Tick(now, policy.Facts{SocketOpen: a.line.Open(), LoggedIn: a.line.LoggedIn(),
		LastPong: a.line.LastPong(), LastActivity: a.line.LastActivity()})
	switch v.Check {
	case policy.CheckRedial:
		return a.signal(ctx, policy.Signal{Kind: v.Signal, Text: v.Why})
	case policy.CheckPing, policy.CheckHealth:
		a.log.Debug("monitor pings", "check", v.Check, "why", v.Why)
		if !o.pinging {
			a.sendPing()
		}
	}
	if !o.lasted && policy.Lasted(now.Sub(o.since)) {
		// The connection has proved itself: the next trouble begins at attempt 1.
		o.lasted = true
		a.strands = 0
		settled := a.snapshot().Settled()
		if settled.Attempt != a.st.Attempt || settled.RateLimitStep != a.st.RateLimitStep {
			if err := a.report(func(s *state.Status) { a.applySnapshot(s, settled) }); err != nil {
				return a.strand(err)
			}
		}
	}
	deaths := policy.Deaths(a.st.DeathsHolding).Online(now.Sub(o.since))
	unexplained := policy.Unexplained(a.st.DeathsUnexplained).Online(now.Sub(o.since))
	if int(deaths) != a.st.DeathsHolding && !o.forgot || int(unexplained) != a.st.DeathsUnexplained {
		o.forgot = int(deaths) != a.st.DeathsHolding
		if err := a.report(func(s *state.Status) {
			s.DeathsHolding, s.DeathsUnexplained = int(deaths), int(unexplained)
		}); err != nil {
			return a.strand(err)
		}
	}
	return a.judgeHealth(now)
}

// judgeHealth tells of a change of health.
func (a *actor) judgeHealth(now time.Time) phase {
	in := policy.HealthInput{
		MonitorRunning: a.online != nil, PongTimeout: a.set.PongTimeout,
		Unreachable: !a.cfg.Fleet.Reachable(a.own.Proxy), Cause: a.st.Cause,
	}
	if a.line != nil {
		in.SocketOpen, in.LoggedIn, in.LastPong = a.line.Open(), a.line.LoggedIn(), a.line.LastPong()
	}
	if a.online != nil {
		in.ConnectedAt, in.FailuresInARow = a.online.since, a.online.monitor.FailuresInARow()
	}
	health, why := policy.Judge(in, now)
	a.setLive(func(l *Live) { l.Health = health })
	if health == a.st.Health {
		return nil
	}
	a.log.Info("health changed", "health", health, "why", why)
	if err := a.report(func(s *state.Status) { s.Health = health },
		journal.Draft{Type: state.EventHealth, Data: map[string]any{"health": health, "why": why}}); err != nil {
		return a.strand(err)
	}
	return nil
}

// hourly adds the time online to the tallies, and looks for an absent phone.
func (a *actor) hourly(now time.Time) phase {
	a.countOnline(now)
	seen := a.who.PhoneLastSeen
	if !seen.IsZero() && now.Sub(seen) >= absentAfter && now.Sub(a.st.PhoneWarnedAt) >= absentAgain {
		a.log.Warn("the phone has not been seen for long; WhatsApp unlinks at 14 days", "lastSeen", seen.UTC().Format(time.RFC3339))
		if err := a.report(func(s *state.Status) { s.PhoneWarnedAt = now },
			journal.Draft{Type: state.EventPhoneAbsent, Data: map[string]any{"phoneLastSeen": seen.UTC()}}); err != nil {
			return a.strand(err)
		}
	}
	return nil
}

// countOnline adds the time online to the tallies. They are stored with the
// next change of the status.
func (a *actor) countOnline(now time.Time) {
	if a.online == nil {
		return
	}
	a.st.Hours = policy.TallyUp(a.st.Hours, a.online.counted, now)
	a.online.counted = now
}

// endOnline ends what belongs to the login.
func (a *actor) endOnline(now time.Time) {
	a.stopOutbox()
	if a.online == nil {
		return
	}
	a.countOnline(now)
	a.observeTimes(now)
	a.stall.Inbound(a.st.LastInboundAt)
	a.stall.Disconnected(now)
	rec := a.stall.Record()
	a.st.InboundGaps, a.st.StallBound, a.st.LastStallAt = rec.Gaps, rec.Bound, rec.LastAt
	a.online = nil
}
