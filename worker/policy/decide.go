package policy

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Snapshot is what a decision is made from, beside the event. All of it but
// Settings, Outage and Jitter is in the session's record; Decision.Next carries
// it on.
type Snapshot struct {
	Paired        bool
	Attempt       int         // redials in a row since a connection that lasted (Lasted)
	LastCause     state.Cause // of the last redial that was counted
	CauseInRow    int         // redials in a row counted for LastCause; the limits of single causes look at these
	RateLimitStep int         // doublings of the 429 wait since a connection that lasted
	CooldownUntil time.Time   // the cooldown that is running, if any
	Outage        bool        // the breaker is open: causes on the server's side are not charged
	NewVersion    bool        // the WA version has changed since the last client_outdated
	Settings      Settings
	Jitter        func() float64 // in [0,1); nil: no jitter
}

// Decision is what to do. NextAttemptAt and CooldownUntil are deadlines by the
// clock that `now` came from.
type Decision struct {
	Cause       state.Cause
	Code        int
	Action      Action
	Credentials Fate
	State       state.State // to be shown

	Delay         time.Duration // until NextAttemptAt; 0 where there is none
	NextAttemptAt time.Time     // zero: no attempt by itself
	CooldownUntil time.Time     // no pairing and no attempt by itself until then; never earlier than the snapshot's. Rule.Overridable says whether a start command ends it
	// RestrictedUntil is when sends to new chats work again (reachout_restricted).
	RestrictedUntil time.Time

	Attempt       int
	LastCause     state.Cause
	CauseInRow    int
	RateLimitStep int

	Exhausted      bool // the attempts are used up: raise session.reconnect_exhausted
	RefreshVersion bool // fetch the newest WA version, once for all sessions, before the next dial
	StopMonitor    bool // the connection is over: monitor, keepalive and stall detection end
	Unlink         bool // try to remove the device at the server before the credentials go
	WaitForStore   bool // at NextAttemptAt, wait on until the store answers and the lease is trusted

	Event  state.EventType // to raise; empty: none
	Why    []string        // the facts that it was made from, in words; nothing personal
	Advice string          // to the operator
}

// Summary is the decision and its facts in one line, for state.Status.Decision
// and for `holdfast explain`.
func (d Decision) Summary() string {
	return string(d.Action) + ": " + strings.Join(d.Why, "; ")
}

// Next is the snapshot for the decision after this one.
func (d Decision) Next(s Snapshot) Snapshot {
	s.Attempt, s.LastCause, s.CauseInRow = d.Attempt, d.LastCause, d.CauseInRow
	s.RateLimitStep, s.CooldownUntil = d.RateLimitStep, d.CooldownUntil
	s.NewVersion = false
	if d.Credentials == Quarantined || d.Credentials == Destroyed || d.Credentials == Discarded {
		s.Paired = false
	}
	return s
}

// Lasted says that a connection that has been online for so long has proved
// itself: the attempts in a row begin anew (Settled). 60 s is the contract's; a
// connection that is thrown out again right after its login must not reset the
// backoff.
func Lasted(online time.Duration) bool { return online >= lastingConnection }

// Settled is the snapshot after a connection that lasted. A running cooldown
// stays.
func (s Snapshot) Settled() Snapshot {
	s.Attempt, s.LastCause, s.CauseInRow, s.RateLimitStep = 0, state.CauseNone, 0, 0
	return s
}

// Decide says what a cause does to a session. It is pure and total: it has an
// answer for every cause and snapshot, and depends on nothing else.
func Decide(s Snapshot, e Event, now time.Time) Decision {
	rule := RuleOf(e.Cause)
	d := Decision{
		Cause: e.Cause, Code: e.Code,
		Action: rule.Action, Credentials: rule.Credentials, State: rule.State,
		CooldownUntil: s.CooldownUntil,
		Attempt:       max(s.Attempt, 0), LastCause: s.LastCause, CauseInRow: max(s.CauseInRow, 0), RateLimitStep: max(s.RateLimitStep, 0),
		StopMonitor: rule.Action != Stay,
		Event:       rule.Event, Advice: rule.Advice,
	}
	d.because("cause %s", describeCause(e))
	if s.Jitter == nil {
		s.Jitter = func() float64 { return 0 }
	}

	switch e.Cause {
	case state.CauseBadMAC:
		if e.Alone {
			d.stay(s)
			return d
		}
	case state.CauseMultideviceMismatch:
		if e.Ended {
			rule = d.cannotStay(s, rule)
		}
	case state.CauseReachoutRestricted:
		d.restrict(e, now)
	case state.CauseClientOutdated:
		d.RefreshVersion = true
		if s.NewVersion {
			d.CauseInRow = 0
			d.because("the WhatsApp version is another than at the last attempt")
		}
	case state.CausePairingFailed:
		d.RefreshVersion = e.Code == 405
	case state.CauseDisconnected:
		d.Unlink = s.Paired
	}

	if rule.Action == Redial {
		d.redial(s, rule, now)
	} else {
		d.park(rule, e, now)
	}
	d.cool(s, rule, now)
	if d.Credentials == Quarantined && s.Settings.Quarantine <= 0 {
		d.Credentials = Destroyed
		d.because("quarantine is 0: nothing is kept")
	}
	d.because("credentials %s", d.Credentials)
	return d
}

// because notes a fact.
func (d *Decision) because(format string, args ...any) {
	d.Why = append(d.Why, fmt.Sprintf(format, args...))
}

func describeCause(e Event) string {
	if e.Cause == state.CauseNone {
		return "none"
	}
	if e.Code != 0 {
		return fmt.Sprintf("%s (%d)", e.Cause, e.Code)
	}
	return string(e.Cause)
}

// stay is the answer to one undecryptable message among others.
func (d *Decision) stay(s Snapshot) {
	d.Action, d.Credentials, d.State, d.StopMonitor = Stay, Kept, state.Online, false
	d.Event = state.EventUndecrypted
	d.Advice = "Nothing: the library asks the sender to send it again."
	d.because("one message alone; %d in 10 min from %d peers would mean that the ratchets are gone",
		s.Settings.DecryptLimit, s.Settings.DecryptPeers)
}

// cannotStay changes a rule that stays where the server has ended the
// connection: a paired session redials, an unpaired one waits for a command, since
// its QR ended with the connection.
func (d *Decision) cannotStay(s Snapshot, rule Rule) Rule {
	d.because("the server ended the connection")
	d.StopMonitor = true
	if s.Paired {
		rule.Action, rule.Wait, rule.Charged = Redial, WaitBackoff, true
		rule.Credentials, rule.State = Kept, state.Reconnecting
	} else {
		rule.Action, rule.State = Park, state.Unpaired
	}
	d.Action, d.Credentials, d.State = rule.Action, rule.Credentials, rule.State
	return rule
}

func (d *Decision) restrict(e Event, now time.Time) {
	lock := e.Expire
	if lock <= 0 {
		lock = lockWithoutExpire
		d.because("the server named no end: 24 h are assumed")
	}
	d.RestrictedUntil = now.Add(lock)
	d.because("new chats are restricted for %s", show(lock.Round(time.Second)))
}

// redial finds the delay, charges the attempt, and gives up where a limit is
// reached.
func (d *Decision) redial(s Snapshot, rule Rule, now time.Time) {
	charged := rule.Charged
	if charged && s.Outage && rule.ServerSide {
		charged = false
		d.because("an outage of many sessions: not charged")
	}
	if charged {
		if s.LastCause != rule.Cause {
			d.CauseInRow = 0
		}
		if limit, name, used := exhausted(s.Settings, rule, d.Attempt, d.CauseInRow); limit > 0 {
			d.exhaust(s, limit, name, used, now)
			return
		}
		d.Attempt = bump(d.Attempt)
		d.CauseInRow = bump(d.CauseInRow)
		d.LastCause = rule.Cause
		d.because("attempt %d%s", d.Attempt, outOf(s.Settings, rule, d.CauseInRow))
	}
	if rule.Wait == WaitStore {
		d.forStore(s, rule)
	}
	d.Delay = max(d.wait(s, rule), shortestWait)
	d.NextAttemptAt = now.Add(d.Delay)
}

// forStore counts the failures of the store in a row for the backoff, since one
// that reads and cannot write would else have a login every few seconds. They
// are no attempts: they say nothing about WhatsApp.
func (d *Decision) forStore(s Snapshot, rule Rule) {
	if s.LastCause != rule.Cause {
		d.CauseInRow = 0
	}
	d.CauseInRow, d.LastCause = bump(d.CauseInRow), rule.Cause
	d.WaitForStore = true
	d.because("nothing is sent before the store answers")
}

// bump counts on without ever turning over.
func bump(n int) int {
	if n == math.MaxInt {
		return n
	}
	return n + 1
}

// limits are the two bounds on the redials of a cause, 0 for none: its own, and
// the one over all causes.
func limits(s Settings, rule Rule) (own, all int) {
	switch rule.Limit {
	case Limit500:
		own = s.MaxAttempts500
	case Limit408:
		own = s.MaxAttempts408
	case Limit405:
		own = s.MaxAttempts405
	}
	return own, s.MaxAttempts
}

// exhausted returns the limit that is reached, its name and what was used of
// it; 0 if none is.
func exhausted(s Settings, rule Rule, attempt, inRow int) (limit int, name string, used int) {
	own, all := limits(s, rule)
	switch {
	case own > 0 && inRow >= own:
		return own, string(rule.Limit), inRow
	case all > 0 && attempt >= all:
		return all, "max-attempts", attempt
	}
	return 0, "", 0
}

func outOf(s Settings, rule Rule, inRow int) string {
	own, all := limits(s, rule)
	var parts []string
	if own > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d for this cause", inRow, own))
	}
	if all > 0 {
		parts = append(parts, fmt.Sprintf("at most %d in a row", all))
	}
	if parts == nil {
		return ", no limit"
	}
	return ", " + strings.Join(parts, ", ")
}

// exhaust gives up for now: the session rests, and then has all its attempts
// again.
func (d *Decision) exhaust(s Snapshot, limit int, name string, used int, now time.Time) {
	d.Exhausted, d.Action, d.Event = true, Park, state.EventExhausted
	d.Attempt, d.CauseInRow, d.LastCause = 0, 0, state.CauseNone
	d.because("%d attempts in a row, %s is %d", used, name, limit)
	rest := s.Settings.RestAfterExhaustion
	if rest <= 0 {
		d.State = state.Stopped
		d.Advice = "It has given up. `start` tries again; rest-after-exhaustion lets it do so by itself."
		d.because("rest-after-exhaustion is 0: stopped until a command")
		return
	}
	d.Delay = rest
	d.NextAttemptAt = now.Add(rest)
	d.CooldownUntil = later(s.CooldownUntil, d.NextAttemptAt)
	d.Advice = "It rests and then tries again by itself. " + d.Advice
	d.because("rests %s, then a fresh cycle", show(rest))
}

// wait is the delay of a redial.
func (d *Decision) wait(s Snapshot, rule Rule) time.Duration {
	switch rule.Wait {
	case WaitNetwork:
		r := s.Settings.NetworkDelay
		delay := r.At(share(s.Jitter))
		d.because("network delay %s of %s to %s", brief(delay), show(r.Min), show(r.Max))
		return delay
	case WaitRestart:
		delay := s.Settings.RestartDelay
		d.because("the server asks for a restart: %s", show(delay))
		if d.Attempt > restartsQuick {
			// No connection has lasted through so many redials: it is not the
			// restart after a pairing any more.
			slow := d.backoff(s, d.Attempt-restartsQuick)
			return max(delay, slow)
		}
		return delay
	case WaitRateLimit:
		delay := rateLimitLongest
		if d.RateLimitStep < 4 { // 60 s doubled four times is over 15 min
			delay = min(rateLimitFirst<<d.RateLimitStep, rateLimitLongest)
		}
		d.RateLimitStep = bump(d.RateLimitStep)
		d.because("rate limited %d times in a row: %s", d.RateLimitStep, show(delay))
		return delay
	case WaitStore:
		return d.backoff(s, d.CauseInRow)
	}
	return d.backoff(s, max(d.Attempt, 1))
}

// backoff is the step of the n-th attempt, 1 being the first, less 0 to 10 %.
func (d *Decision) backoff(s Snapshot, n int) time.Duration {
	steps := s.Settings.Backoff
	if len(steps) == 0 {
		d.because("backoff is empty: %s", show(longestWait))
		return longestWait // Validate refuses it; if it comes here all the same, be slow
	}
	step := steps[min(n, len(steps))-1]
	less := share(s.Jitter) / 10
	delay := step - time.Duration(float64(step)*less)
	d.because("backoff step %s less %.1f %%: %s", show(step), less*100, brief(delay))
	return delay
}

// share keeps a jitter within [0,1).
func share(jitter func() float64) float64 {
	j := jitter()
	if math.IsNaN(j) {
		return 0
	}
	return min(max(j, 0), 1)
}

func brief(d time.Duration) string { return show(d.Round(time.Millisecond)) }

// park finds the deadline, if there is one, of what does not redial.
func (d *Decision) park(rule Rule, e Event, now time.Time) {
	switch {
	case rule.Action == Stay:
		d.because("the connection goes on")
		return
	case rule.Wait == WaitFixed:
		d.Delay = rule.Fixed
		d.because("one attempt after %s", show(rule.Fixed))
	case rule.Wait == WaitExpire:
		d.Delay = e.Expire
		if d.Delay <= 0 {
			d.Delay = banWithoutExpire
			d.because("the server named no end: 24 h are assumed")
		}
		d.because("it ends in %s", show(d.Delay.Round(time.Second)))
	default:
		d.because("no attempt before a command")
		return
	}
	d.NextAttemptAt = now.Add(d.Delay)
}

// cool sets the cooldown; one that is running is never shortened.
func (d *Decision) cool(s Snapshot, rule Rule, now time.Time) {
	var bar time.Duration
	switch rule.Cooldown {
	case CooldownLoggedOut:
		bar = s.Settings.CooldownLoggedOut
	case CooldownWait:
		if !d.Exhausted {
			bar = d.Delay
		}
	}
	if bar > 0 {
		d.because("cooldown %s", show(bar.Round(time.Millisecond)))
		d.CooldownUntil = later(d.CooldownUntil, now.Add(bar))
	}
	if d.CooldownUntil.After(now.Add(bar)) && !d.Exhausted {
		d.because("a cooldown is running for another %s", show(d.CooldownUntil.Sub(now).Round(time.Second)))
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
