package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The contract's settings table, row by row.
func TestProfiles(t *testing.T) {
	rows := []struct{ name, guide, gentle string }{
		{"keepalive-interval", "10s", "1m"},
		{"keepalive-deadline", "10s", "10s"},
		{"monitor-tick", "15s", "15s"},
		{"socket-ticks", "2", "2"},
		{"pong-timeout", "1m", "2m30s"},
		{"pong-ticks", "3", "3"},
		{"activity-timeout", "3m", "3m"},
		{"inbound-stall", "adaptive", "adaptive"},
		{"reachability-interval", "2m", "2m"},
		{"qr-timeout", "3m", "3m"},
		{"connect-timeout", "2m", "1m"},
		{"query-timeout", "2m", "1m"},
		{"query-pause", "1s", "1s"},
		{"send-pace", "0", "3s"},
		{"send-pace-chat", "0", "6s"},
		{"backoff", "5s,10s,20s,40s,1m", "2s,4s,8s,16s,32s,1m"},
		{"network-delay", "3s-5s", "3s-5s"},
		{"restart-delay", "2s", "2s"},
		{"max-attempts", "0", "10"},
		{"max-attempts-500", "10", "10"},
		{"max-attempts-408", "20", "10"},
		{"max-attempts-405", "10", "10"},
		{"rest-after-exhaustion", "15m", "15m"},
		{"cooldown-logged-out", "5m", "5m"},
		{"quarantine", "7d", "7d"},
		{"decrypt-limit", "20", "20"},
		{"decrypt-peers", "3", "3"},
		{"mark-online", "false", "true"},
	}
	guide, gentle := Guide(), Gentle()
	for _, row := range rows {
		if got, _ := guide.Get(row.name); got != row.guide {
			t.Errorf("guide: %s = %s, want %s", row.name, got, row.guide)
		}
		if got, _ := gentle.Get(row.name); got != row.gentle {
			t.Errorf("gentle: %s = %s, want %s", row.name, got, row.gentle)
		}
	}
	if len(rows) != len(Names()) {
		t.Errorf("%d settings, the contract has %d", len(Names()), len(rows))
	}
	for _, s := range []Settings{guide, gentle} {
		if err := s.Validate(); err != nil {
			t.Errorf("profile %s: %v", s.Profile, err)
		}
	}
}

func TestForKnowsTheProfiles(t *testing.T) {
	for name, want := range map[string]string{"": "guide", "guide": "guide", "gentle": "gentle"} {
		s, err := For(name)
		if err != nil || s.Profile != want {
			t.Errorf("For(%q) = %q, %v", name, s.Profile, err)
		}
	}
	if _, err := For("wild"); err == nil || err.Error() != `profile: "wild" is not one; write guide or gentle` {
		t.Errorf("For(wild): %v", err)
	}
}

func TestSettingDocsAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Names() {
		if d.Name == "" || d.Range == "" || d.Meaning == "" || d.Source == "" || seen[d.Name] {
			t.Errorf("row is not whole or is there twice: %+v", d)
		}
		if want := "HOLDFAST_" + strings.ToUpper(strings.ReplaceAll(d.Name, "-", "_")); d.Env != want {
			t.Errorf("%s: env %s, want %s", d.Name, d.Env, want)
		}
		seen[d.Name] = true
	}
	// The names that users rely on.
	for _, env := range []string{"KEEPALIVE_INTERVAL", "KEEPALIVE_DEADLINE", "MONITOR_TICK", "PONG_TIMEOUT",
		"ACTIVITY_TIMEOUT", "INBOUND_STALL", "REACHABILITY_INTERVAL", "QR_TIMEOUT", "CONNECT_TIMEOUT", "QUERY_TIMEOUT",
		"BACKOFF", "NETWORK_DELAY", "RESTART_DELAY", "COOLDOWN_LOGGED_OUT", "MAX_ATTEMPTS", "MAX_ATTEMPTS_500",
		"MAX_ATTEMPTS_408", "REST_AFTER_EXHAUSTION", "QUARANTINE"} {
		if !seen[strings.ToLower(strings.ReplaceAll(env, "_", "-"))] {
			t.Errorf("HOLDFAST_%s is promised and missing", env)
		}
	}
}

func TestSetReadsWhatPeopleWrite(t *testing.T) {
	tests := []struct{ name, value, want string }{
		{"keepalive-interval", "20s", "20s"},
		{"keepalive-interval", " 20 ", "20s"},
		{"connect-timeout", "1m30s", "1m30s"},
		{"quarantine", "0", "0"},
		{"quarantine", "14d", "14d"},
		{"quarantine", "36h", "36h"},
		{"backoff", "1s, 2s,2s", "1s,2s,2s"},
		{"backoff", "5, 10, 20", "5s,10s,20s"},
		{"network-delay", "1s-2s", "1s-2s"},
		{"network-delay", "4s", "4s"},
		{"inbound-stall", "Adaptive", "adaptive"},
		{"inbound-stall", "45m", "45m"},
		{"inbound-stall", "0", "0"},
		{"mark-online", "yes", "true"},
		{"mark-online", "OFF", "false"},
		{"max-attempts", "7", "7"},
	}
	for _, tt := range tests {
		s := Guide()
		if err := s.Set(tt.name, tt.value); err != nil {
			t.Errorf("Set(%s, %q): %v", tt.name, tt.value, err)
		} else if got, _ := s.Get(tt.name); got != tt.want {
			t.Errorf("Set(%s, %q) gives %s, want %s", tt.name, tt.value, got, tt.want)
		} else if err := s.Validate(); err != nil {
			t.Errorf("Set(%s, %q): %v", tt.name, tt.value, err)
		}
	}
}

func TestSetRefusesWithACure(t *testing.T) {
	tests := []struct{ name, value, want string }{
		{"keepalive-interval", "soon", `keepalive-interval: "soon" is not a duration; write it like 10s (100ms to 10m)`},
		{"keepalive-interval", "-10s", `keepalive-interval: is negative; write it like 10s (100ms to 10m)`},
		{"backoff", "5s,,10s", `backoff: "" is not a duration; write it like 5s,10s,20s,40s,60s`},
		{"max-attempts", "many", `max-attempts: "many" is not a whole number`},
		{"mark-online", "maybe", `mark-online: "maybe" is neither true nor false`},
		{"inbound-stall", "sometimes", `inbound-stall: "sometimes" is neither adaptive nor a duration`},
		{"network-delay", "3s-x", `network-delay: "x" is not a duration`},
		{"keepalive-intervall", "10s", "keepalive-intervall: no setting of this name; did you mean keepalive-interval?"},
		{"HOLDFAST_PONG_TIMEOUT", "10s", "HOLDFAST_PONG_TIMEOUT: no setting of this name; did you mean pong-timeout?"},
		{"colour", "red", "colour: no setting of this name; the reference lists them"},
	}
	for _, tt := range tests {
		s := Guide()
		err := s.Set(tt.name, tt.value)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("Set(%s, %q): %v\nwant %s", tt.name, tt.value, err, tt.want)
		}
		var fault *SettingError
		if !errors.As(err, &fault) || fault.Name != tt.name {
			t.Errorf("Set(%s, %q) is not a SettingError of that name: %#v", tt.name, tt.value, err)
		}
		if !slices.Equal(s.Backoff, Guide().Backoff) || s.KeepAliveInterval != Guide().KeepAliveInterval {
			t.Errorf("Set(%s, %q) failed and changed something", tt.name, tt.value)
		}
	}
}

func TestValidateNamesEveryFaultAtOnce(t *testing.T) {
	_, err := Guide().With(map[string]string{
		"keepalive-interval": "45s",
		"keepalive-deadline": "20s", // 45 s + 20 s > the pong timeout of 60 s
		"backoff":            "5s,20s,10s",
		"network-delay":      "5s-3s",
		"monitor-tick":       "2h",
		"socket-ticks":       "0",
		"colour":             "red",
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"pong-timeout: is 1m, not over keepalive-interval + keepalive-deadline (1m5s)",
		"backoff: step 3 (10s) is shorter than step 2 (20s); use 1 to 50 durations",
		"network-delay: begins at 5s, above its end 3s",
		"monitor-tick: is 2h; use 100ms to 5m",
		"socket-ticks: is 0; use 1 to 20",
		"colour: no setting of this name",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing: %s\nin:\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 6 {
		t.Errorf("%d faults, want 6:\n%v", n, err)
	}
}

func TestValidateRefusesWhatWouldSpin(t *testing.T) {
	for name, change := range map[string]func(*Settings){
		"no backoff":         func(s *Settings) { s.Backoff = nil },
		"backoff of 0":       func(s *Settings) { s.Backoff = []time.Duration{0, time.Second} },
		"network delay of 0": func(s *Settings) { s.NetworkDelay = Range{} },
		"restart delay of 0": func(s *Settings) { s.RestartDelay = 0 },
		"no profile":         func(s *Settings) { s.Profile = "" },
		"pong not over sum":  func(s *Settings) { s.PongTimeout = s.KeepAliveInterval + s.KeepAliveDeadline },
	} {
		s := Guide()
		change(&s)
		if s.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// What Get writes, Set reads back to the same value; and Set never lets through
// what Validate then does not understand.
func TestSettingsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		row := rapid.SampledFrom(Names()).Draw(t, "setting")
		value := rapid.OneOf(
			rapid.StringMatching(`[0-9]{1,6}(ms|s|m|h|d)?`),
			rapid.StringMatching(`([1-9][0-9]{0,3}s,){0,5}[1-9][0-9]{0,3}s`),
			rapid.StringMatching(`[1-9]s-[1-9]s`),
			rapid.Just(row.Guide), rapid.Just(row.Gentle), rapid.String(),
		).Draw(t, "value")
		s := Guide()
		if s.Set(row.Name, value) != nil {
			return
		}
		written, ok := s.Get(row.Name)
		if !ok {
			t.Fatalf("%s is gone", row.Name)
		}
		again := Guide()
		if err := again.Set(row.Name, written); err != nil {
			t.Fatalf("%s: %q was written as %q, which is refused: %v", row.Name, value, written, err)
		}
		if twice, _ := again.Get(row.Name); twice != written {
			t.Fatalf("%s: %q, then %q", row.Name, written, twice)
		}
		_ = s.Validate()
	})
}

func TestSettingsAreValues(t *testing.T) {
	a := Guide()
	b := a
	if err := b.Set("backoff", "1s"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.Backoff, Guide().Backoff) {
		t.Error("changing a copy changed the original")
	}
}

func TestKeepAliveSpread(t *testing.T) {
	s := Guide()
	for jitter, want := range map[float64]time.Duration{0: 9 * time.Second, 0.5: 10 * time.Second, 1: 11 * time.Second} {
		if got := s.KeepAlive(jitter).Round(time.Millisecond); got != want {
			t.Errorf("KeepAlive(%v) = %s, want %s", jitter, got, want)
		}
	}
}

func TestRenewQROnceWithinTheTime(t *testing.T) {
	s, start := Guide(), time.Unix(1_800_000_000, 0)
	for _, tt := range []struct {
		after    time.Duration
		renewals int
		want     bool
	}{{160 * time.Second, 0, true}, {170 * time.Second, 1, false}, {180 * time.Second, 0, false}} {
		if got := s.RenewQR(start, tt.renewals, start.Add(tt.after)); got != tt.want {
			t.Errorf("after %s and %d renewals: %v", tt.after, tt.renewals, got)
		}
	}
}
