package policy

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-wa/holdfast/state"
)

func named(i int) string { return fmt.Sprintf("s%03d", i) }

// failing reports failures of n sessions, one each `every`, and says whether an
// outage began.
func failing(b *Breaker, cause state.Cause, n int, every time.Duration) (opened int, now time.Time) {
	now = t0
	for i := range n {
		now = t0.Add(time.Duration(i) * every)
		if b.Report(named(i), cause, now) {
			opened++
		}
	}
	return opened, now
}

func TestWhenTheBreakerOpens(t *testing.T) {
	tests := []struct {
		name     string
		sessions int
		failing  int
		cause    state.Cause
		every    time.Duration
		want     bool
	}{
		{"one of one", 1, 1, state.CauseNetwork, 0, false},
		{"two of two", 2, 2, state.CauseNetwork, 0, false},
		{"two of three", 3, 2, state.CauseNetwork, 0, false},
		{"three of three", 3, 3, state.CauseNetwork, 0, true},
		{"three of four", 4, 3, state.CauseNetwork, 0, false},
		{"four of four", 4, 4, state.CauseNetwork, 0, true},
		{"four of ten", 10, 4, state.CauseUnavailable, 0, false},
		{"five of ten", 10, 5, state.CauseUnavailable, 0, true},
		{"29 of 100", 100, 29, state.CauseServerError, 0, false},
		{"30 of 100", 100, 30, state.CauseServerError, 0, true},
		{"30 of 100 for 405", 100, 30, state.CauseClientOutdated, 0, true},
		{"30 of 100 in 29 s", 100, 30, state.CauseServerError, time.Second, true},
		{"30 of 100 in a minute", 100, 30, state.CauseServerError, 2 * time.Second, false},
		{"all, each for itself", 100, 100, state.CauseTimedOut, 0, false},
		{"all logged out", 100, 100, state.CauseLoggedOut, 0, false},
	}
	for _, tt := range tests {
		b := NewBreaker()
		b.Sessions(tt.sessions)
		opened, now := failing(b, tt.cause, tt.failing, tt.every)
		outage, open := b.Open(now)
		if (opened > 0) != tt.want || open != tt.want {
			t.Errorf("%s: alarms %d, open %v", tt.name, opened, open)
		}
		if opened > 1 {
			t.Errorf("%s: %d alarms", tt.name, opened)
		}
		if tt.want && (outage.Cause != tt.cause || outage.Failing > tt.failing || outage.Sessions != tt.sessions || outage.String() == "") {
			t.Errorf("%s: %+v", tt.name, outage)
		}
		if wait := b.Ask("other", now); !tt.want && wait != 0 {
			t.Errorf("%s: closed, and a session waits %s", tt.name, wait)
		}
	}
}

func TestOneSessionFailingAgainAndAgainIsNoOutage(t *testing.T) {
	b := NewBreaker()
	b.Sessions(5)
	for i := range 1000 {
		if b.Report("s1", state.CauseNetwork, t0.Add(time.Duration(i)*100*time.Millisecond)) {
			t.Fatal("opened")
		}
	}
}

// A whole outage in virtual time: 100 sessions fail at once, the server is away
// for 5 min, then back.
func TestAnOutageFromBeginToEnd(t *testing.T) {
	const sessions = 100
	b := NewBreaker()
	b.Sessions(sessions)
	back := t0.Add(5 * time.Minute)
	due := make(map[string]time.Time)
	alarms := 0
	for i := range sessions {
		if b.Report(named(i), state.CauseUnavailable, t0) {
			alarms++
		}
		due[named(i)] = t0.Add(5 * time.Second)
	}
	var probes, returns []time.Time
	for now := t0; len(due) > 0 && now.Before(t0.Add(time.Hour)); now = now.Add(100 * time.Millisecond) {
		for i := range sessions {
			name := named(i)
			if at, waits := due[name]; !waits || now.Before(at) {
				continue
			}
			if wait := b.Ask(name, now); wait > 0 {
				due[name] = now.Add(wait)
				continue
			}
			if now.Before(back) {
				probes = append(probes, now)
				if b.Report(name, state.CauseUnavailable, now) {
					alarms++
				}
				if _, open := b.Open(now); !open {
					t.Fatal("not open while the server is away")
				}
				due[name] = now.Add(5 * time.Second)
				continue
			}
			b.Succeeded(name, now)
			returns = append(returns, now)
			delete(due, name)
		}
	}
	if alarms != 1 {
		t.Errorf("%d alarms, want 1", alarms)
	}
	if len(probes) < 4 || len(probes) > 10 {
		t.Errorf("%d probes in 5 min: %v", len(probes), probes)
	}
	if len(returns) != sessions {
		t.Fatalf("%d sessions came back", len(returns))
	}
	if first := returns[0].Sub(back); first > 65*time.Second {
		t.Errorf("the first comes back after %s", first)
	}
	for i := range returns { // at most 16 a second, and few in the first seconds
		n := 0
		for _, at := range returns[i:] {
			if at.Sub(returns[i]) < time.Second {
				n++
			}
		}
		if n > 18 || i == 0 && n > 3 {
			t.Errorf("%d sessions within a second of %s", n, returns[i].Sub(back))
		}
	}
	if took := returns[sessions-1].Sub(returns[0]); took > 30*time.Second {
		t.Errorf("all are back after %s", took)
	}
	if _, open := b.Open(returns[sessions-1].Add(time.Minute)); open {
		t.Error("not closed after the return")
	}
}

func openBreaker(t *testing.T, sessions int) *Breaker {
	t.Helper()
	b := NewBreaker()
	b.Sessions(sessions)
	if opened, _ := failing(b, state.CauseNetwork, sessions, 0); opened != 1 {
		t.Fatalf("%d alarms", opened)
	}
	return b
}

func TestOneProbeAtATime(t *testing.T) {
	b := openBreaker(t, 10)
	if wait := b.Ask(named(0), t0.Add(time.Second)); wait != 4*time.Second {
		t.Errorf("before the first probe: %s", wait)
	}
	now := t0.Add(5 * time.Second)
	if wait := b.Ask(named(0), now); wait != 0 {
		t.Fatalf("the first probe waits %s", wait)
	}
	if wait := b.Ask(named(0), now.Add(time.Second)); wait != 0 {
		t.Errorf("the prober asks again, as after a wait for the login bucket, and is told %s", wait)
	}
	for i := 1; i < 10; i++ {
		if b.Ask(named(i), now.Add(time.Second)) == 0 {
			t.Error("a second probe beside the first")
		}
	}
	// A prober that is never heard of again is given up.
	if wait := b.Ask(named(1), now.Add(breakerProbeMax)); wait != 0 {
		t.Errorf("after the time of a probe: %s", wait)
	}
	// And one that is forgotten at once.
	b.Forget(named(1))
	if wait := b.Ask(named(2), now.Add(breakerProbeMax)); wait != 0 {
		t.Errorf("after the prober is gone: %s", wait)
	}
}

func TestAPlaceInTheReturnIsKept(t *testing.T) {
	b := openBreaker(t, 10)
	now := t0.Add(5 * time.Second)
	b.Ask(named(0), now)
	b.Succeeded(named(0), now)
	for i := 1; i < 10; i++ {
		if want := time.Duration(i-1) * time.Second; i <= 5 && b.Ask(named(i), now) != want {
			t.Errorf("session %d waits %s, want %s", i, b.Ask(named(i), now), want)
		}
	}
	for _, after := range []time.Duration{3, 4, 5} { // its place is at 2 s
		if wait := b.Ask(named(3), now.Add(after*time.Second)); wait != 0 {
			t.Errorf("after %d s it waits another %s", after, wait)
		}
	}
	b.Report(named(3), state.CauseTimedOut, now.Add(3*time.Second))
	if wait := b.Ask(named(3), now.Add(3*time.Second)); wait != 2*time.Second {
		t.Errorf("after a failure it waits %s, want a place behind the others, in 2 s", wait)
	}
}

func TestASickProberDoesNotKeepTheOutageUp(t *testing.T) {
	b := openBreaker(t, 10)
	now := t0.Add(5 * time.Second)
	if b.Ask(named(0), now) != 0 {
		t.Fatal("no probe")
	}
	b.Report(named(0), state.CauseNetwork, now)
	now = now.Add(10 * time.Second)
	if b.Ask(named(0), now) == 0 {
		t.Error("the same session probes again before others")
	}
	if wait := b.Ask(named(1), now); wait != 0 {
		t.Fatalf("another one waits %s", wait)
	}
	if !b.Succeeded(named(1), now) || b.Succeeded(named(2), now) {
		t.Error("the end of the outage is told never or twice")
	}
	// Alone, it may probe again after the grace.
	b = openBreaker(t, 10)
	now = t0.Add(5 * time.Second)
	b.Ask(named(0), now)
	b.Report(named(0), state.CauseNetwork, now)
	if wait := b.Ask(named(0), now.Add(10*time.Second+breakerGrace)); wait != 0 {
		t.Errorf("nobody else asks, and it waits %s", wait)
	}
}

func TestAProbeThatFailsForAnotherCauseFreesItsPlaceSoon(t *testing.T) {
	b := openBreaker(t, 10)
	now := t0.Add(5 * time.Second)
	b.Ask(named(0), now)
	b.Report(named(0), state.CauseLoggedOut, now)
	if wait := b.Ask(named(1), now.Add(5*time.Second)); wait != 0 {
		t.Errorf("the next probe waits %s", wait)
	}
}

func TestARelapseIsTheSameOutage(t *testing.T) {
	b := openBreaker(t, 100)
	now := t0.Add(5 * time.Second)
	b.Ask(named(0), now)
	b.Succeeded(named(0), now)
	for i := 1; i <= 5; i++ {
		if b.Report(named(i), state.CauseNetwork, now.Add(time.Second)) {
			t.Error("a second alarm")
		}
	}
	if outage, open := b.Open(now.Add(time.Second)); !open || !outage.Since.Equal(t0) {
		t.Errorf("%+v, open %v", outage, open)
	}
	if b.Ask(named(50), now.Add(2*time.Second)) == 0 {
		t.Error("the return goes on")
	}
}

// Whatever is told and asked, a wait is never negative or endless, only one
// session probes at a time, and alarms and ends alternate.
func TestBreakerKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, now := NewBreaker(), t0
		b.Sessions(rapid.IntRange(0, 12).Draw(t, "sessions"))
		open, prober, since := false, "", time.Time{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "pass")))
			name := named(rapid.IntRange(0, 11).Draw(t, "session"))
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				cause := rapid.SampledFrom(state.Causes()).Draw(t, "cause")
				_, before := b.Open(now)
				if b.Report(name, cause, now) && before {
					t.Fatal("an alarm in an outage")
				}
			case 2:
				wait := b.Ask(name, now)
				if wait < 0 || wait > breakerProbeMax {
					t.Fatalf("wait %s", wait)
				}
				if wait == 0 && b.phase == breakerOpen {
					if prober != "" && b.prober != name {
						t.Fatal("told yes and is no prober")
					}
					prober, since = name, now
				}
			case 3:
				b.Succeeded(name, now)
			case 4:
				b.Forget(name)
			}
			_, open = b.Open(now)
			if b.prober != "" && (!open || b.prober != prober || now.Before(since)) {
				t.Fatalf("%s probes, %s was told yes", b.prober, prober)
			}
			if len(b.failed) > 12 || len(b.places) > 12 || len(b.tried) > 12 {
				t.Fatal("it remembers sessions that are not there")
			}
		}
	})
}

func TestBreakerIsSafeForConcurrentUse(t *testing.T) {
	b := NewBreaker()
	b.Sessions(8)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 500 {
				now := t0.Add(time.Duration(n) * time.Second)
				b.Report(named(i), state.CauseNetwork, now)
				if b.Ask(named(i), now) == 0 {
					b.Succeeded(named(i), now)
				}
				b.Open(now)
			}
			b.Forget(named(i))
		})
	}
	wg.Wait()
	if b.Ask("s", t0.Add(time.Hour)) < 0 {
		t.Error("negative wait")
	}
}
