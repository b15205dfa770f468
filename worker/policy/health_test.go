package policy

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Health, level by level.
func TestJudge(t *testing.T) {
	good := HealthInput{SocketOpen: true, LoggedIn: true, MonitorRunning: true, ConnectedAt: t0.Add(-time.Hour),
		LastPong: t0.Add(-9 * time.Second), PongTimeout: time.Minute}
	with := func(change func(*HealthInput)) HealthInput {
		in := good
		change(&in)
		return in
	}
	old := func(in *HealthInput) { in.LastPong = t0.Add(-61 * time.Second) }
	tests := []struct {
		name    string
		in      HealthInput
		want    state.Health
		reasons []string
	}{
		{"all well", good, state.Healthy, nil},
		{"pong just in time", with(func(in *HealthInput) { in.LastPong = t0.Add(-time.Minute) }), state.Healthy, nil},
		{"fresh, no pong yet", with(func(in *HealthInput) { in.ConnectedAt, in.LastPong = t0.Add(-time.Second), time.Time{} }), state.Healthy, nil},
		{"a cause that is none to die of", with(func(in *HealthInput) { in.Cause = state.CauseReachoutRestricted }), state.Healthy, nil},

		{"socket not open", with(func(in *HealthInput) { in.SocketOpen = false }), state.Unhealthy, []string{"socket not open"}},
		{"no pong", with(old), state.Unhealthy, []string{"no pong for 1m1s"}},
		{"one failure", with(func(in *HealthInput) { in.FailuresInARow = 1 }), state.Unhealthy, []string{"1 failure"}},
		{"two failures", with(func(in *HealthInput) { in.FailuresInARow = 2 }), state.Unhealthy, []string{"2 failures in a row"}},
		{"unreachable", with(func(in *HealthInput) { in.Unreachable = true }), state.Unhealthy, []string{"WhatsApp is unreachable"}},
		{"not logged in", with(func(in *HealthInput) { in.LoggedIn = false }), state.Unhealthy, []string{"not logged in"}},
		{"no monitor", with(func(in *HealthInput) { in.MonitorRunning = false }), state.Unhealthy, []string{"the monitor is not running"}},
		{"two faults", with(func(in *HealthInput) { old(in); in.Unreachable = true }), state.Unhealthy,
			[]string{"no pong for 1m1s", "WhatsApp is unreachable"}},

		{"closed and no pong", with(func(in *HealthInput) { old(in); in.SocketOpen = false }), state.Dead, []string{"socket closed and no pong for 1m1s"}},
		{"never connected", HealthInput{PongTimeout: time.Minute}, state.Dead, []string{"socket closed and no pong ever"}},
		{"three failures", with(func(in *HealthInput) { in.FailuresInARow = 3 }), state.Dead, []string{"3 failures in a row"}},
		{"401", with(func(in *HealthInput) { in.Cause = state.CauseLoggedOut }), state.Dead, []string{"fatal cause logged_out"}},
		{"440", with(func(in *HealthInput) { in.Cause = state.CauseReplaced }), state.Dead, []string{"fatal cause replaced"}},
	}
	for _, tt := range tests {
		got, reasons := Judge(tt.in, t0)
		if got != tt.want || !slices.Equal(reasons, tt.reasons) {
			t.Errorf("%s: %s %q, want %s %q", tt.name, got, reasons, tt.want, tt.reasons)
		}
	}
}
