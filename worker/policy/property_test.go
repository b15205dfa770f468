package policy

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-wa/holdfast/state"
)

// drawSettings makes any settings that Validate accepts.
func drawSettings(t *rapid.T) Settings {
	s := Guide()
	if rapid.Bool().Draw(t, "gentle") {
		s = Gentle()
	}
	steps := rapid.SliceOfN(rapid.Int64Range(int64(shortestWait), int64(longestWait)), 1, 8).Draw(t, "backoff")
	slices.Sort(steps)
	s.Backoff = nil
	for _, d := range steps {
		s.Backoff = append(s.Backoff, time.Duration(d))
	}
	low := rapid.Int64Range(int64(shortestWait), int64(longestWait)).Draw(t, "network from")
	s.NetworkDelay = Range{Min: time.Duration(low), Max: time.Duration(rapid.Int64Range(low, int64(longestWait)).Draw(t, "network to"))}
	s.RestartDelay = time.Duration(rapid.Int64Range(int64(shortestWait), int64(10*time.Minute)).Draw(t, "restart"))
	s.MaxAttempts = rapid.IntRange(0, 30).Draw(t, "max")
	s.MaxAttempts500 = rapid.IntRange(0, 30).Draw(t, "max 500")
	s.MaxAttempts408 = rapid.IntRange(0, 30).Draw(t, "max 408")
	s.RestAfterExhaustion = rapid.SampledFrom([]time.Duration{0, time.Second, 15 * time.Minute}).Draw(t, "rest")
	s.CooldownLoggedOut = rapid.SampledFrom([]time.Duration{0, time.Minute, 5 * time.Minute}).Draw(t, "cooldown")
	s.Quarantine = rapid.SampledFrom([]time.Duration{0, 7 * 24 * time.Hour}).Draw(t, "quarantine")
	if err := s.Validate(); err != nil {
		t.Fatalf("drew bad settings: %v", err)
	}
	return s
}

func drawEvent(t *rapid.T, cause state.Cause) Event {
	return Event{Cause: cause,
		Code:   rapid.SampledFrom([]int{0, 405, 500}).Draw(t, "code"),
		Expire: time.Duration(rapid.Int64().Draw(t, "expire")),
		Alone:  rapid.Bool().Draw(t, "alone"),
		Ended:  rapid.Bool().Draw(t, "ended"),
	}
}

// Whatever happens to a session, in whatever order, the decisions keep their
// promises.
func TestDecisionsKeepTheirPromises(t *testing.T) {
	fates := []Fate{Kept, Quarantined, Destroyed, Discarded, NoFate}
	rapid.Check(t, func(t *rapid.T) {
		now := t0
		s := Snapshot{
			Paired: rapid.Bool().Draw(t, "paired"), Settings: drawSettings(t),
			Attempt:       rapid.SampledFrom([]int{0, 1, 9, -5, math.MaxInt}).Draw(t, "attempt"),
			RateLimitStep: rapid.SampledFrom([]int{0, 3, 63, 64, -1, math.MaxInt}).Draw(t, "step"),
		}
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			s.Outage = rapid.Bool().Draw(t, "outage")
			jitter := rapid.OneOf(rapid.Float64Range(0, 1), rapid.Just(math.NaN()), rapid.Just(math.Inf(-1))).Draw(t, "jitter")
			s.Jitter = func() float64 { return jitter }
			e := drawEvent(t, rapid.SampledFrom(append(state.Causes(), "of a later release")).Draw(t, "cause"))
			d := Decide(s, e, now)

			switch {
			case !slices.Contains(Actions(), d.Action), !slices.Contains(state.States(), d.State), !slices.Contains(fates, d.Credentials):
				t.Fatalf("unknown word: %+v", d)
			case d.Cause != e.Cause:
				t.Fatalf("another cause: %+v", d)
			case d.CooldownUntil.Before(s.CooldownUntil):
				t.Fatalf("the cooldown shrinks from %s to %s", s.CooldownUntil, d.CooldownUntil)
			case d.Action == Redial && (d.Delay < shortestWait || !d.NextAttemptAt.Equal(now.Add(d.Delay))):
				t.Fatalf("redials after %s at %s", d.Delay, d.NextAttemptAt)
			case d.Action == Retire && d.Credentials != Quarantined && d.Credentials != Destroyed && d.Credentials != Discarded:
				t.Fatalf("retires, credentials %s", d.Credentials)
			case d.Action != Retire && d.Credentials != Kept && d.Credentials != NoFate:
				t.Fatalf("%s, credentials %s", d.Action, d.Credentials)
			case (d.Action == Retire || d.Action == Stay) && !d.NextAttemptAt.IsZero():
				t.Fatalf("%s and dials at %s", d.Action, d.NextAttemptAt)
			case d.StopMonitor == (d.Action == Stay):
				t.Fatalf("%s, monitor stops %v", d.Action, d.StopMonitor)
			case d.Exhausted && d.Event != state.EventExhausted:
				t.Fatalf("exhausted and raises %s", d.Event)
			case d.Attempt < 0 || d.RateLimitStep < 0 || d.Delay < 0:
				t.Fatalf("something is negative: %+v", d)
			case len(d.Why) == 0 || d.Advice == "":
				t.Fatalf("no reasons or advice: %+v", d)
			}
			again := Decide(s, e, now)
			if d.Summary() != again.Summary() || !d.NextAttemptAt.Equal(again.NextAttemptAt) {
				t.Fatal("the same twice gives two answers")
			}
			s = d.Next(s)
			now = later(now, d.NextAttemptAt).Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "pass")))
		}
	})
}

// No hot loop: a thousand failures in a row for one cause, each at once after its
// dial, in virtual time. mostAnHour is what the contract's own waits allow.
func TestAThousandFailuresInARow(t *testing.T) {
	mostAnHour := map[state.Cause]int{
		// 5, 10, 20, 40 and then 60 s, each less 10 %: 4 and one each 54 s.
		state.CauseConnectionLost: 71, state.CauseUnavailable: 71, state.CauseInboundStalled: 71,
		// 10 and 20 attempts and a rest of 15 min.
		state.CauseServerError: 33, state.CauseClientOutdated: 33, state.CauseTimedOut: 52,
		state.CauseNetwork:          1200, // every 3 s: nobody is reached, the contract wants it
		state.CauseRateLimited:      7,    // 1, 2, 4, 8, 15 … min
		state.CauseRestartRequired:  81,   // ten quick ones, then the backoff
		state.CauseStoreUnavailable: 800,  // every 4.5 s it is the store that is asked, not WhatsApp
		state.CauseRejected:         4,
		state.CausePoisoned:         1,
		state.CauseTemporaryBan:     1,
	}
	for _, profile := range []string{ProfileGuide, ProfileGentle} {
		for _, cause := range state.Causes() {
			for _, jitter := range []float64{0, 1} {
				settings, err := For(profile)
				if err != nil {
					t.Fatal(err)
				}
				dials := failAThousandTimes(t, Snapshot{Paired: true, Settings: settings, Jitter: fixed(jitter)}, cause)
				if got, most := busiestHour(dials), mostAnHour[cause]; got > most {
					t.Errorf("%s, %s: %d dials in an hour, at most %d", profile, cause, got, most)
				}
				if len(dials) == 0 && RuleOf(cause).Action == Redial {
					t.Errorf("%s, %s: never dials", profile, cause)
				}
			}
		}
	}
}

// failAThousandTimes returns when the dials were, the first failure being at t0.
func failAThousandTimes(t *testing.T, s Snapshot, cause state.Cause) (dials []time.Time) {
	now := t0
	for range 1000 {
		d := Decide(s, Event{Cause: cause}, now)
		if d.NextAttemptAt.IsZero() {
			break
		}
		if !d.NextAttemptAt.After(now) {
			t.Fatalf("%s: dials at once", cause)
		}
		s, now = d.Next(s), d.NextAttemptAt
		dials = append(dials, now)
	}
	return dials
}

// busiestHour is the most dials within any hour.
func busiestHour(dials []time.Time) int {
	most, from := 0, 0
	for i, at := range dials {
		for at.Sub(dials[from]) >= time.Hour {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}
