package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

var t0 = time.Date(2026, 9, 19, 10, 0, 0, 0, time.UTC)

func fixed(j float64) func() float64 { return func() float64 { return j } }

func online(s Settings) Snapshot {
	return Snapshot{Paired: true, Settings: s, Jitter: fixed(0)}
}

// The contract's table of causes, row by row: one event that meets a healthy
// session of the default profile.
func TestWhatEachCauseDoes(t *testing.T) {
	const never = time.Duration(0)
	rows := []struct {
		event    Event
		action   Action
		fate     Fate
		shown    state.State
		next     time.Duration // until the next attempt
		cooldown time.Duration
	}{
		{Event{Cause: state.CauseLoggedOut, Code: 401}, Retire, Quarantined, state.Conflict, never, 5 * time.Minute},
		{Event{Cause: state.CauseAccountLocked, Code: 403}, Retire, Quarantined, state.Banned, never, 5 * time.Minute},
		{Event{Cause: state.CauseAccountBanned, Code: 406}, Retire, Quarantined, state.Banned, never, 5 * time.Minute},
		{Event{Cause: state.CauseTemporaryBan, Expire: time.Hour}, Park, Kept, state.Banned, time.Hour, time.Hour},
		{Event{Cause: state.CauseTemporaryBan}, Park, Kept, state.Banned, 24 * time.Hour, 24 * time.Hour},
		{Event{Cause: state.CauseReplaced, Code: 440}, Park, Kept, state.Conflict, never, never},
		{Event{Cause: state.CauseClientOutdated, Code: 405}, Redial, Kept, state.Reconnecting, 5 * time.Second, never},
		{Event{Cause: state.CausePairingFailed, Code: 405}, Retire, Discarded, state.Unpaired, never, never},
		{Event{Cause: state.CauseConnectionLost, Code: 428}, Redial, Kept, state.Reconnecting, 5 * time.Second, never},
		{Event{Cause: state.CauseRestartRequired, Code: 515}, Redial, Kept, state.Restarting, 2 * time.Second, never},
		{Event{Cause: state.CauseServerError, Code: 500}, Redial, Kept, state.Reconnecting, 5 * time.Second, never},
		{Event{Cause: state.CauseUnavailable, Code: 503}, Redial, Kept, state.Reconnecting, 5 * time.Second, never},
		{Event{Cause: state.CauseTimedOut, Code: 408}, Redial, Kept, state.Reconnecting, 5 * time.Second, never},
		{Event{Cause: state.CauseNetwork}, Redial, Kept, state.Reconnecting, 3 * time.Second, never},
		{Event{Cause: state.CauseMultideviceMismatch}, Stay, NoFate, state.Pairing, never, never},
		{Event{Cause: state.CauseQRExpired}, Park, NoFate, state.Unpaired, never, never},
		{Event{Cause: state.CausePasskeyRequired}, Stay, NoFate, state.Pairing, never, never},
		{Event{Cause: state.CauseBadMAC}, Retire, Quarantined, state.Failing, never, 5 * time.Minute},
		{Event{Cause: state.CauseBadMAC, Alone: true}, Stay, Kept, state.Online, never, never},
		{Event{Cause: state.CauseStaleCredentials}, Park, Kept, state.Failing, never, never},
		{Event{Cause: state.CauseDisconnected}, Retire, Destroyed, state.Disconnected, never, never},
		{Event{Cause: state.CauseStopped}, Park, Kept, state.Stopped, never, never},
		{Event{Cause: state.CauseRateLimited, Code: 429}, Redial, Kept, state.Reconnecting, time.Minute, time.Minute},
		{Event{Cause: state.CauseRejected, Code: 409}, Park, Kept, state.Failed, 15 * time.Minute, 15 * time.Minute},
		{Event{Cause: state.CauseInboundStalled}, Redial, Kept, state.Reconnecting, 5 * time.Second, never},
		{Event{Cause: state.CausePoisoned}, Park, Kept, state.Failing, time.Hour, time.Hour},
		{Event{Cause: state.CauseReachoutRestricted, Expire: time.Hour}, Stay, Kept, state.Online, never, never},
		{Event{Cause: state.CauseLeaseLost}, Park, Kept, state.Unowned, never, never},
		{Event{Cause: state.CauseStoreUnavailable}, Redial, Kept, state.Reconnecting, 5 * time.Second, never},
		{Event{Cause: state.CauseMoved}, Park, Kept, state.Stopped, never, never},
	}
	after := func(d time.Duration) time.Time {
		if d == never {
			return time.Time{}
		}
		return t0.Add(d)
	}
	seen := map[state.Cause]bool{}
	for _, row := range rows {
		d := Decide(online(Guide()), row.event, t0)
		seen[row.event.Cause] = true
		if d.Action != row.action || d.Credentials != row.fate || d.State != row.shown {
			t.Errorf("%+v: %s, credentials %s, state %s; want %s, %s, %s",
				row.event, d.Action, d.Credentials, d.State, row.action, row.fate, row.shown)
		}
		if !d.NextAttemptAt.Equal(after(row.next)) || d.Delay != row.next {
			t.Errorf("%+v: next attempt at %s (%s), want after %s", row.event, d.NextAttemptAt, d.Delay, row.next)
		}
		if !d.CooldownUntil.Equal(after(row.cooldown)) {
			t.Errorf("%+v: cooldown until %s, want %s", row.event, d.CooldownUntil, row.cooldown)
		}
		if d.StopMonitor != (row.action != Stay) || len(d.Why) < 2 || d.Advice == "" {
			t.Errorf("%+v: monitor stops %v, why %q, advice %q", row.event, d.StopMonitor, d.Why, d.Advice)
		}
	}
	for _, cause := range state.Causes() {
		if !seen[cause] {
			t.Errorf("%s is not tried", cause)
		}
	}
}

func TestWhatOnlySomeCausesAskFor(t *testing.T) {
	decide := func(e Event) Decision { return Decide(online(Guide()), e, t0) }
	for _, cause := range state.Causes() {
		d := decide(Event{Cause: cause})
		if d.RefreshVersion != (cause == state.CauseClientOutdated) {
			t.Errorf("%s: refreshes the version: %v", cause, d.RefreshVersion)
		}
		if d.Unlink != (cause == state.CauseDisconnected) {
			t.Errorf("%s: unlinks at the server: %v", cause, d.Unlink)
		}
		if d.WaitForStore != (cause == state.CauseStoreUnavailable) {
			t.Errorf("%s: waits for the store: %v", cause, d.WaitForStore)
		}
		if (d.RestrictedUntil.IsZero()) == (cause == state.CauseReachoutRestricted) {
			t.Errorf("%s: restricted until %s", cause, d.RestrictedUntil)
		}
	}
	if !decide(Event{Cause: state.CausePairingFailed, Code: 405}).RefreshVersion {
		t.Error("a pairing that fails with 405 does not ask for another version")
	}
	if got := decide(Event{Cause: state.CauseReachoutRestricted, Expire: 2 * time.Hour}).RestrictedUntil; !got.Equal(t0.Add(2 * time.Hour)) {
		t.Errorf("restricted until %s", got)
	}
	unpaired := online(Guide())
	unpaired.Paired = false
	if Decide(unpaired, Event{Cause: state.CauseDisconnected}, t0).Unlink {
		t.Error("unlinks what was never linked")
	}
}

// delays decides the same event again and again and returns the waits, up to
// and with the exhaustion.
func delays(s Snapshot, e Event, most int) (waits []time.Duration, last Decision) {
	now := t0
	for range most {
		last = Decide(s, e, now)
		waits = append(waits, last.Delay)
		if last.Exhausted || last.NextAttemptAt.IsZero() {
			return waits, last
		}
		s, now = last.Next(s), last.NextAttemptAt
	}
	return waits, last
}

func TestBackoff(t *testing.T) {
	seconds := func(n ...int) (out []time.Duration) {
		for _, s := range n {
			out = append(out, time.Duration(s)*time.Second)
		}
		return out
	}
	for _, tt := range []struct {
		settings Settings
		want     []time.Duration
	}{
		{Guide(), seconds(5, 10, 20, 40, 60, 60, 60)},
		{Gentle(), seconds(2, 4, 8, 16, 32, 60, 60)},
	} {
		waits, _ := delays(online(tt.settings), Event{Cause: state.CauseConnectionLost}, 7)
		if !slices.Equal(waits, tt.want) {
			t.Errorf("%s: %v, want %v", tt.settings.Profile, waits, tt.want)
		}
	}
}

func TestJitterOnlyShortens(t *testing.T) {
	s := online(Guide())
	for jitter, want := range map[float64]time.Duration{0: 5000, 0.5: 4750, 1: 4500, -3: 5000, 7: 4500} {
		s.Jitter = fixed(jitter)
		if got := Decide(s, Event{Cause: state.CauseTimedOut}, t0).Delay; got.Round(time.Millisecond) != want*time.Millisecond {
			t.Errorf("jitter %v: %s, want %d ms", jitter, got, want)
		}
	}
	for jitter, want := range map[float64]time.Duration{0: 3 * time.Second, 0.5: 4 * time.Second, 1: 5 * time.Second} {
		s.Jitter = fixed(jitter)
		if got := Decide(s, Event{Cause: state.CauseNetwork}, t0).Delay; got != want {
			t.Errorf("network, jitter %v: %s, want %s", jitter, got, want)
		}
	}
}

func TestAttemptsInARow(t *testing.T) {
	const unlimited = 0
	for _, tt := range []struct {
		profile string
		cause   state.Cause
		want    int
	}{
		{"guide", state.CauseServerError, 10},
		{"guide", state.CauseTimedOut, 20},
		{"guide", state.CauseClientOutdated, 10},
		{"guide", state.CauseUnavailable, unlimited},
		{"guide", state.CauseConnectionLost, unlimited},
		{"guide", state.CauseNetwork, unlimited},
		{"guide", state.CauseRestartRequired, unlimited},
		{"guide", state.CauseRateLimited, unlimited},
		{"gentle", state.CauseServerError, 10},
		{"gentle", state.CauseTimedOut, 10},
		{"gentle", state.CauseClientOutdated, 10},
		{"gentle", state.CauseUnavailable, 10},
		{"gentle", state.CauseConnectionLost, 10},
		{"gentle", state.CauseNetwork, 10},
		{"gentle", state.CauseRestartRequired, 10},
		{"gentle", state.CauseRateLimited, 10},
		{"gentle", state.CauseStoreUnavailable, unlimited}, // says nothing about WhatsApp
	} {
		settings, err := For(tt.profile)
		if err != nil {
			t.Fatal(err)
		}
		waits, last := delays(online(settings), Event{Cause: tt.cause}, 500)
		switch {
		case tt.want == unlimited && (last.Exhausted || len(waits) != 500):
			t.Errorf("%s, %s: gives up after %d", tt.profile, tt.cause, len(waits)-1)
		case tt.want != unlimited && (!last.Exhausted || len(waits)-1 != tt.want):
			t.Errorf("%s, %s: %d attempts, exhausted %v, want %d", tt.profile, tt.cause, len(waits)-1, last.Exhausted, tt.want)
		}
	}
}

func TestGivingUpIsARestAndThenAFreshCycle(t *testing.T) {
	s := online(Guide())
	s.Attempt, s.LastCause, s.CauseInRow = 10, state.CauseServerError, 10
	d := Decide(s, Event{Cause: state.CauseServerError, Code: 500}, t0)
	if !d.Exhausted || d.Event != state.EventExhausted || d.Action != Park || d.Credentials != Kept {
		t.Fatalf("%+v", d)
	}
	if want := t0.Add(15 * time.Minute); !d.NextAttemptAt.Equal(want) || !d.CooldownUntil.Equal(want) {
		t.Errorf("next attempt %s, cooldown %s, want %s", d.NextAttemptAt, d.CooldownUntil, want)
	}
	fresh := Decide(d.Next(s), Event{Cause: state.CauseServerError, Code: 500}, d.NextAttemptAt)
	if fresh.Exhausted || fresh.Attempt != 1 || fresh.Delay != 5*time.Second {
		t.Errorf("after the rest: %+v", fresh)
	}

	s.Settings.RestAfterExhaustion = 0
	d = Decide(s, Event{Cause: state.CauseServerError, Code: 500}, t0)
	if !d.Exhausted || d.State != state.Stopped || !d.NextAttemptAt.IsZero() || !d.CooldownUntil.IsZero() {
		t.Errorf("without a rest: %+v", d)
	}
}

// The limit of one cause counts that cause: an hour without network must not
// make the first 500 afterwards the last straw.
func TestLimitsOfACauseCountThatCause(t *testing.T) {
	s := online(Guide())
	for range 700 {
		s = Decide(s, Event{Cause: state.CauseNetwork}, t0).Next(s)
	}
	d := Decide(s, Event{Cause: state.CauseServerError}, t0)
	if d.Exhausted || d.Attempt != 701 || d.CauseInRow != 1 || d.Delay != time.Minute {
		t.Errorf("%+v", d)
	}
}

func TestALastingConnectionSettlesTheAttempts(t *testing.T) {
	if Lasted(59*time.Second) || !Lasted(60*time.Second) {
		t.Error("a connection proves itself after 60 s")
	}
	s := online(Guide())
	s.Attempt, s.LastCause, s.CauseInRow, s.RateLimitStep, s.CooldownUntil = 9, state.CauseTimedOut, 9, 3, t0.Add(time.Hour)
	s = s.Settled()
	if s.Attempt != 0 || s.CauseInRow != 0 || s.RateLimitStep != 0 || !s.CooldownUntil.Equal(t0.Add(time.Hour)) {
		t.Errorf("%+v", s)
	}
}

func TestRateLimitDoublesToFifteenMinutes(t *testing.T) {
	waits, last := delays(online(Guide()), Event{Cause: state.CauseRateLimited}, 7)
	minutes := []time.Duration{1, 2, 4, 8, 15, 15, 15}
	for i, m := range minutes {
		if waits[i] != m*time.Minute {
			t.Errorf("wait %d is %s, want %d min", i+1, waits[i], m)
		}
	}
	if !last.CooldownUntil.Equal(last.NextAttemptAt) {
		t.Error("the wait is not a cooldown")
	}
}

func TestARestartStaysQuickUntilItIsNoneAnyMore(t *testing.T) {
	waits, _ := delays(online(Guide()), Event{Cause: state.CauseRestartRequired}, 16)
	for i, w := range waits[:10] {
		if w != 2*time.Second {
			t.Errorf("restart %d waits %s", i+1, w)
		}
	}
	want := []time.Duration{5, 10, 20, 40, 60, 60}
	for i, w := range waits[10:] {
		if w != want[i]*time.Second {
			t.Errorf("restart %d waits %s, want %d s", i+11, w, want[i])
		}
	}
}

func TestANewVersionBeginsTheCountOf405Anew(t *testing.T) {
	s := online(Guide())
	s.Attempt, s.LastCause, s.CauseInRow = 10, state.CauseClientOutdated, 10
	if d := Decide(s, Event{Cause: state.CauseClientOutdated}, t0); !d.Exhausted || !d.RefreshVersion {
		t.Errorf("unchanged version: %+v", d)
	}
	s.NewVersion = true
	d := Decide(s, Event{Cause: state.CauseClientOutdated}, t0)
	if d.Exhausted || d.CauseInRow != 1 {
		t.Errorf("new version: %+v", d)
	}
	if d.Next(s).NewVersion {
		t.Error("the version stays new for ever")
	}
}

func TestAnOutageIsNotCharged(t *testing.T) {
	s := online(Gentle())
	s.Outage = true
	for _, cause := range []state.Cause{state.CauseClientOutdated, state.CauseServerError, state.CauseUnavailable, state.CauseNetwork} {
		waits, last := delays(s, Event{Cause: cause}, 100)
		if last.Exhausted || last.Attempt != 0 || slices.Min(waits) < 2*time.Second {
			t.Errorf("%s: %+v", cause, last)
		}
	}
	if _, last := delays(s, Event{Cause: state.CauseTimedOut}, 100); !last.Exhausted {
		t.Error("a cause of the session's own is not charged in an outage")
	}
}

func TestACooldownIsNeverShortened(t *testing.T) {
	s := online(Guide())
	s.CooldownUntil = t0.Add(3 * time.Hour)
	for _, cause := range state.Causes() {
		if d := Decide(s, Event{Cause: cause, Expire: time.Minute}, t0); d.CooldownUntil.Before(s.CooldownUntil) {
			t.Errorf("%s: until %s", cause, d.CooldownUntil)
		}
	}
}

func TestCooldownAndQuarantineAreSettings(t *testing.T) {
	s := online(Guide())
	s.Settings.CooldownLoggedOut, s.Settings.Quarantine = time.Minute, 0
	d := Decide(s, Event{Cause: state.CauseLoggedOut}, t0)
	if !d.CooldownUntil.Equal(t0.Add(time.Minute)) || d.Credentials != Destroyed || d.Next(s).Paired {
		t.Errorf("%+v", d)
	}
}

// 411 on a QR leaves the QR; as a failure it ends the connection, and nothing can
// stay on that.
func TestStayNeedsAConnection(t *testing.T) {
	s := online(Guide())
	e := Event{Cause: state.CauseMultideviceMismatch, Code: 411, Ended: true}
	if d := Decide(s, e, t0); d.Action != Redial || d.Credentials != Kept || d.State != state.Reconnecting || d.Attempt != 1 {
		t.Errorf("paired: %+v", d)
	}
	s.Paired = false
	if d := Decide(s, e, t0); d.Action != Park || d.State != state.Unpaired || !d.NextAttemptAt.IsZero() || !d.StopMonitor {
		t.Errorf("unpaired: %+v", d)
	}
}

func TestWhySaysWhatTheDecisionWasMadeFrom(t *testing.T) {
	s := online(Guide())
	s.Attempt, s.LastCause, s.CauseInRow = 2, state.CauseServerError, 2
	s.Jitter = fixed(0.5)
	got := Decide(s, Event{Cause: state.CauseServerError, Code: 500, Text: "the server's own, personal words"}, t0).Summary()
	want := "redial: cause server_error (500); attempt 3, 3 of 10 for this cause; backoff step 20s less 5.0 %: 19s; credentials kept"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for _, cause := range state.Causes() {
		if why := Decide(s, Event{Cause: cause, Text: "PERSONAL"}, t0).Summary(); strings.Contains(why, "PERSONAL") {
			t.Errorf("%s: the server's words are in the open: %s", cause, why)
		}
	}
}

func TestDecideWithoutSettingsIsSlowAndNotHot(t *testing.T) {
	for _, cause := range append(state.Causes(), state.CauseNone, "of a later release") {
		d := Decide(Snapshot{Paired: true}, Event{Cause: cause}, t0)
		if d.Action == Redial && d.Delay < shortestWait {
			t.Errorf("%s: redials after %s", cause, d.Delay)
		}
	}
}
