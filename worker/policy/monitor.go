package policy

import (
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Check is what the monitor wants done after a look at the connection.
type Check string

// The checks.
const (
	CheckNone   Check = "none"
	CheckPing   Check = "ping"   // by hand, since the last pong is too old
	CheckHealth Check = "health" // a health ping, since nothing has happened for long
	CheckRedial Check = "redial" // the line is dead: close it, for Verdict.Signal
)

// Facts are what the monitor looks at.
type Facts struct {
	SocketOpen   bool
	LoggedIn     bool      // the library clears it too late, so both are needed
	LastPong     time.Time // zero: none on this connection
	LastActivity time.Time // of the last stanza that was no pong, in or out; zero: none
}

// Verdict is what one look at the connection has come to.
type Verdict struct {
	Check  Check
	Signal SignalKind // where Check is CheckRedial: SignalSocketNotOpen or SignalPongTimeout
	Why    string     // where Check is not CheckNone
}

// Monitor watches one connection in its online phase, by fixed rules. It
// is fed with a tick every Settings.MonitorTick and with pongs; a new connection
// gets a new one. It is not safe for concurrent use.
type Monitor struct {
	settings   Settings
	since      time.Time
	lastPong   time.Time
	healthPing time.Time
	failures   int // in a row, of any kind
	notOpen    int // ticks in a row
	noPong     int // ticks in a row
}

// NewMonitor begins to watch a connection that is online since now.
func NewMonitor(settings Settings, now time.Time) *Monitor {
	return &Monitor{settings: settings, since: now}
}

// Adjust goes on with changed settings.
func (m *Monitor) Adjust(settings Settings) { m.settings = settings }

// FailuresInARow is how many looks in a row have found a fault. A pong sets it
// to 0.
func (m *Monitor) FailuresInARow() int { return m.failures }

// Pong tells of an answer to a ping, whoever sent it.
func (m *Monitor) Pong(at time.Time) {
	if !at.After(m.lastPong) {
		return
	}
	m.lastPong = at
	m.failures, m.notOpen, m.noPong = 0, 0, 0
}

// Tick looks at the connection.
func (m *Monitor) Tick(now time.Time, f Facts) Verdict {
	m.Pong(f.LastPong)
	open := f.SocketOpen && f.LoggedIn
	// Before its first pong a connection is judged by its age.
	age := now.Sub(later(m.since, m.lastPong))
	late := age > m.settings.PongTimeout

	m.notOpen = countOn(m.notOpen, !open)
	m.noPong = countOn(m.noPong, late)
	m.failures = countOn(m.failures, !open || late)

	switch {
	case m.notOpen >= max(m.settings.SocketTicks, 1):
		return Verdict{Check: CheckRedial, Signal: SignalSocketNotOpen,
			Why: fmt.Sprintf("the socket was not open at %d ticks in a row", m.notOpen)}
	case m.noPong >= max(m.settings.PongTicks, 1):
		return Verdict{Check: CheckRedial, Signal: SignalPongTimeout,
			Why: fmt.Sprintf("no pong for %s, at %d ticks in a row over the timeout of %s",
				brief(age), m.noPong, show(m.settings.PongTimeout))}
	case !open:
		return Verdict{Check: CheckNone} // a ping has nothing to go through
	case late:
		return Verdict{Check: CheckPing, Why: fmt.Sprintf("no pong for %s", brief(age))}
	case m.idle(now, f.LastActivity):
		m.healthPing = now
		return Verdict{Check: CheckHealth, Why: fmt.Sprintf("no activity for %s", show(m.settings.ActivityTimeout))}
	}
	return Verdict{Check: CheckNone}
}

// idle says that a health ping is due: one for each activity-timeout without
// activity, not one a tick, or a quiet session of the gentle profile would be
// pinged like a lively one.
func (m *Monitor) idle(now, lastActivity time.Time) bool {
	limit := m.settings.ActivityTimeout
	return limit > 0 && now.Sub(later(later(m.since, lastActivity), m.healthPing)) >= limit
}

func countOn(n int, failed bool) int {
	if !failed {
		return 0
	}
	return bump(n)
}

// Cause is the cause of a verdict that redials, for a paired session.
func (v Verdict) Cause() state.Cause {
	if v.Check != CheckRedial {
		return state.CauseNone
	}
	return Classify(Signal{Kind: v.Signal}, true)
}
