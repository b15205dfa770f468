package policy

import (
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// HealthInput is what health is judged by. Idleness is shown, not judged.
type HealthInput struct {
	SocketOpen     bool
	LoggedIn       bool
	MonitorRunning bool
	ConnectedAt    time.Time // when the connection came online; stands for the first pong
	LastPong       time.Time
	PongTimeout    time.Duration
	FailuresInARow int         // the monitor's
	Unreachable    bool        // the last check of https://web.whatsapp.com failed
	Cause          state.Cause // of the state that the session is in
}

// Failures in a row that make a connection unhealthy, and dead (connection guide).
const (
	unhealthyFailures = 2
	deadFailures      = 3
)

// Judge says how a connection is, and why, in words. Healthy has no reasons.
func Judge(in HealthInput, now time.Time) (state.Health, []string) {
	pongAge := now.Sub(later(in.ConnectedAt, in.LastPong))
	noPong := in.ConnectedAt.IsZero() && in.LastPong.IsZero() || pongAge > in.PongTimeout

	var dead []string
	if !in.SocketOpen && noPong {
		dead = append(dead, "socket closed and "+pongWords(in, pongAge))
	}
	if in.FailuresInARow >= deadFailures {
		dead = append(dead, fmt.Sprintf("%d failures in a row", in.FailuresInARow))
	}
	if Fatal(in.Cause) {
		dead = append(dead, "fatal cause "+string(in.Cause))
	}
	if dead != nil {
		return state.Dead, dead
	}

	var sick []string
	if !in.SocketOpen {
		sick = append(sick, "socket not open")
	} else if noPong {
		sick = append(sick, pongWords(in, pongAge))
	}
	switch {
	case in.FailuresInARow >= unhealthyFailures:
		sick = append(sick, fmt.Sprintf("%d failures in a row", in.FailuresInARow))
	case in.FailuresInARow == 1:
		sick = append(sick, "1 failure")
	}
	if in.Unreachable {
		sick = append(sick, "WhatsApp is unreachable")
	}
	if in.SocketOpen && !in.LoggedIn {
		sick = append(sick, "not logged in")
	}
	if in.SocketOpen && !in.MonitorRunning {
		sick = append(sick, "the monitor is not running")
	}
	if sick != nil {
		return state.Unhealthy, sick
	}
	return state.Healthy, nil
}

func pongWords(in HealthInput, age time.Duration) string {
	if in.ConnectedAt.IsZero() && in.LastPong.IsZero() {
		return "no pong ever"
	}
	return "no pong for " + show(age.Round(time.Second))
}
