package policy

import (
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// The numbers of the breaker.
const (
	breakerSpan     = 30 * time.Second // "at the same moment"
	breakerLeast    = 5                // sessions that must fail, or all of them where there are fewer
	breakerFewest   = 3                // with fewer sessions in all there is no "many"
	breakerShare    = 0.3              // of the sessions that must fail
	breakerGrace    = 10 * time.Second // how long a probe waits for a session that has not probed yet
	breakerProbeMax = 150 * time.Second
	breakerRampTime = 5 * time.Second // at each rate of the return
	breakerAsk      = time.Second     // the shortest wait that a session is told
)

// breakerProbes are the waits between probes that fail.
var breakerProbes = []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 60 * time.Second}

// breakerRates are the dials a second while the fleet returns, one after the
// other. After the last one the login bucket alone bounds them.
var breakerRates = []float64{1, 2, 4, 8, 16}

// Breaker tells an outage from the failures of single sessions. It opens when,
// within 30 s, at least 5 sessions and 30 % of all have failed for a cause on
// the server's side (ServerSide), or all of them where there are 3 or 4; with
// one or two it never opens. While it is open, one session at a time probes and
// the others wait, uncharged (Snapshot.Outage). When a connection succeeds the
// fleet returns at 1 dial a second, doubling every 5 s; then it is closed. If the
// failures come back meanwhile it opens again, as the same outage.
//
// One Breaker serves all sessions of a process. It is safe for concurrent use.
type Breaker struct {
	mu       sync.Mutex
	sessions int
	failed   map[string]time.Time // last failure on the server's side, within the span
	causes   map[string]state.Cause
	phase    breakerPhase
	since    time.Time // of the outage
	cause    state.Cause
	share    int // sessions that failed when it opened

	prober    string          // the session that probes now; empty: none
	proberEnd time.Time       // when it is given up
	nextProbe time.Time       // not before
	failures  int             // of probes in a row
	tried     map[string]bool // who has probed in this round

	rampSince time.Time
	rampNext  time.Time            // the next free place
	places    map[string]time.Time // who may dial when
}

type breakerPhase uint8

const (
	breakerClosed breakerPhase = iota
	breakerOpen
	breakerReturning
)

// NewBreaker makes a closed one.
func NewBreaker() *Breaker {
	b := &Breaker{}
	b.close()
	b.failed, b.causes = make(map[string]time.Time), make(map[string]state.Cause)
	return b
}

// Outage is what is known of an outage.
type Outage struct {
	Since    time.Time
	Cause    state.Cause // the most frequent one when it began
	Failing  int         // sessions that failed within 30 s when it began
	Sessions int         // in all
}

func (o Outage) String() string {
	return fmt.Sprintf("%d of %d sessions failed within %s, most of them for %s", o.Failing, o.Sessions, show(breakerSpan), o.Cause)
}

// Sessions tells how many sessions this process keeps connected.
func (b *Breaker) Sessions(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sessions = max(n, 0)
}

// Report tells that a session's connection, or its attempt at one, has failed
// for a cause. opened is true for the one report that begins an outage: raise
// fleet.outage then, once.
func (b *Breaker) Report(session string, cause state.Cause, now time.Time) (opened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	serverSide := ServerSide(cause)
	if session == b.prober {
		b.prober = ""
		if serverSide {
			b.failures = bump(b.failures)
		}
		// Another cause says little about the outage: the next one probes soon.
		b.nextProbe = now.Add(breakerProbes[min(b.failures, len(breakerProbes)-1)])
		if !serverSide {
			b.nextProbe = now.Add(breakerProbes[0])
		}
	}
	delete(b.places, session)
	if !serverSide {
		return false
	}
	b.failed[session], b.causes[session] = now, cause
	if b.phase == breakerOpen {
		return false
	}
	b.prune(now)
	if !b.many() {
		return false
	}
	opened = b.phase == breakerClosed
	if opened {
		b.since, b.cause, b.share = now, b.mostFrequent(), len(b.failed)
		b.failures = 0
	}
	b.phase = breakerOpen
	b.prober, b.nextProbe = "", now.Add(breakerProbes[min(b.failures, len(breakerProbes)-1)])
	b.tried, b.places = make(map[string]bool), make(map[string]time.Time)
	return opened
}

// Ask asks whether a session may dial now: 0 is yes, anything else is how long to
// wait before asking again. A session that was told yes is told so again until
// it reports how it went: Report, Succeeded or Forget.
func (b *Breaker) Ask(session string, now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.phase {
	case breakerOpen:
		return b.askProbe(session, now)
	case breakerReturning:
		return b.askPlace(session, now)
	}
	return 0
}

// Succeeded tells that a session has come online. In an outage that is its end:
// the others return, one after the other. ended is true for the one success
// that ends the probing.
func (b *Breaker) Succeeded(session string, now time.Time) (ended bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.failed, session)
	delete(b.causes, session)
	delete(b.places, session)
	if b.phase != breakerOpen {
		return false
	}
	b.phase = breakerReturning
	b.prober = ""
	b.rampSince, b.rampNext = now, now
	b.places = make(map[string]time.Time)
	// Failures of before are no reason to open again.
	clear(b.failed)
	clear(b.causes)
	return true
}

// Forget tells that a session will not dial after all, or is gone.
func (b *Breaker) Forget(session string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.failed, session)
	delete(b.causes, session)
	delete(b.places, session)
	delete(b.tried, session)
	if session == b.prober {
		b.prober = ""
	}
}

// Open says that an outage is on, for Snapshot.Outage and for people. It is on
// until the fleet has had time to return.
func (b *Breaker) Open(now time.Time) (Outage, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(now)
	return Outage{Since: b.since, Cause: b.cause, Failing: b.share, Sessions: b.sessions}, b.phase != breakerClosed
}

// many says that the failures of the span are no coincidence. While the fleet
// returns no share is asked for: only few dial then, and five of them are enough.
func (b *Breaker) many() bool {
	n := len(b.failed)
	if b.sessions < breakerFewest || n < min(breakerLeast, b.sessions) {
		return false
	}
	return b.phase == breakerReturning || float64(n) >= breakerShare*float64(b.sessions)
}

func (b *Breaker) prune(now time.Time) {
	for session, at := range b.failed {
		if now.Sub(at) > breakerSpan {
			delete(b.failed, session)
			delete(b.causes, session)
		}
	}
}

func (b *Breaker) mostFrequent() state.Cause {
	counts := make(map[state.Cause]int)
	for _, cause := range b.causes {
		counts[cause]++
	}
	best, most := state.CauseNone, 0
	for _, cause := range state.Causes() { // in a fixed order, so that a draw has one end
		if counts[cause] > most {
			best, most = cause, counts[cause]
		}
	}
	return best
}

// askProbe lets one session at a time through. Those that have not probed in
// this round come first, or one with a fault of its own could keep the outage
// up for all.
func (b *Breaker) askProbe(session string, now time.Time) time.Duration {
	if b.prober != "" && now.Before(b.proberEnd) {
		if b.prober == session {
			return 0
		}
		return max(min(b.proberEnd.Sub(now), breakerProbes[0]), breakerAsk)
	}
	if early := b.nextProbe.Sub(now); early > 0 {
		return max(early, breakerAsk)
	}
	if b.tried[session] {
		if grace := b.nextProbe.Add(breakerGrace).Sub(now); grace > 0 {
			return max(grace, breakerAsk)
		}
		clear(b.tried)
	}
	b.tried[session] = true
	b.prober, b.proberEnd = session, now.Add(breakerProbeMax)
	return 0
}

// askPlace gives each session a place in the return, and lets it through when
// its place has come.
func (b *Breaker) askPlace(session string, now time.Time) time.Duration {
	b.settle(now)
	if b.phase == breakerClosed {
		return 0
	}
	place, has := b.places[session]
	if !has {
		place = later(b.rampNext, now)
		b.rampNext = place.Add(time.Duration(float64(time.Second) / b.rate(place)))
		b.places[session] = place
	}
	return max(place.Sub(now), 0)
}

// rate is how many may dial a second at a time of the return.
func (b *Breaker) rate(at time.Time) float64 {
	step := int(at.Sub(b.rampSince) / breakerRampTime)
	return breakerRates[min(max(step, 0), len(breakerRates)-1)]
}

// settle closes the breaker when the return is over: all rates have had their
// time, and every place that was given has come.
func (b *Breaker) settle(now time.Time) {
	over := b.rampSince.Add(time.Duration(len(breakerRates)) * breakerRampTime)
	if b.phase == breakerReturning && !now.Before(over) && !now.Before(b.rampNext) {
		b.close()
	}
}

func (b *Breaker) close() {
	b.phase = breakerClosed
	b.prober, b.failures = "", 0
	b.tried, b.places = make(map[string]bool), make(map[string]time.Time)
}
