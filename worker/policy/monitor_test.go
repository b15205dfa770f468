package policy

import (
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// look is one tick: what the monitor finds, and what it must say.
type look struct {
	closed   bool
	out      bool // not logged in
	pong     time.Duration
	activity time.Duration
	want     Check
	signal   SignalKind
	failures int
}

func TestMonitor(t *testing.T) {
	tests := []struct {
		name    string
		profile string
		looks   []look // one a tick of 15 s; times are since the start
	}{
		{"a healthy connection is left alone", "guide", []look{
			{pong: 10 * time.Second, activity: time.Second, want: CheckNone},
			{pong: 20 * time.Second, activity: time.Second, want: CheckNone},
		}},
		{"two looks in a row at a closed socket reconnect", "guide", []look{
			{closed: true, pong: 14 * time.Second, want: CheckNone, failures: 1},
			{closed: true, pong: 14 * time.Second, want: CheckRedial, signal: SignalSocketNotOpen, failures: 2},
		}},
		{"an open socket without a login is no connection", "guide", []look{
			{out: true, want: CheckNone, failures: 1},
			{out: true, want: CheckRedial, signal: SignalSocketNotOpen, failures: 2},
		}},
		{"a socket that is open again begins the count anew", "guide", []look{
			{closed: true, want: CheckNone, failures: 1},
			{want: CheckNone},
			{closed: true, want: CheckNone, failures: 1},
		}},
		{"a pong begins the count anew", "guide", []look{
			{closed: true, want: CheckNone, failures: 1},
			{closed: true, pong: 20 * time.Second, want: CheckNone, failures: 1},
			{closed: true, pong: 20 * time.Second, want: CheckRedial, signal: SignalSocketNotOpen, failures: 2},
		}},
		{"no pong for over 60 s: ping by hand, the third in a row reconnects", "guide", []look{
			{want: CheckNone}, {want: CheckNone}, {want: CheckNone}, {want: CheckNone}, // up to 60 s
			{want: CheckPing, failures: 1},
			{want: CheckPing, failures: 2},
			{want: CheckRedial, signal: SignalPongTimeout, failures: 3},
		}},
		{"the answer to the ping by hand saves it", "guide", []look{
			{}, {}, {}, {},
			{want: CheckPing, failures: 1},
			{want: CheckPing, failures: 2},
			{pong: 91 * time.Second, want: CheckNone},
			{pong: 91 * time.Second, want: CheckNone},
		}},
		{"gentle waits 150 s for a pong", "gentle", []look{
			{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, // up to 150 s
			{want: CheckPing, failures: 1},
		}},
		{"no activity for 3 min: one health ping, and the next 3 min later", "guide", []look{
			{pong: 15 * time.Second}, {pong: 30 * time.Second}, {pong: 45 * time.Second}, {pong: 60 * time.Second},
			{pong: 75 * time.Second}, {pong: 90 * time.Second}, {pong: 105 * time.Second}, {pong: 120 * time.Second},
			{pong: 135 * time.Second}, {pong: 150 * time.Second}, {pong: 165 * time.Second},
			{pong: 180 * time.Second, want: CheckHealth},
			{pong: 195 * time.Second}, {pong: 210 * time.Second}, {pong: 225 * time.Second}, {pong: 240 * time.Second},
			{pong: 255 * time.Second}, {pong: 270 * time.Second}, {pong: 285 * time.Second}, {pong: 300 * time.Second},
			{pong: 315 * time.Second}, {pong: 330 * time.Second}, {pong: 345 * time.Second},
			{pong: 360 * time.Second, want: CheckHealth},
		}},
		{"activity puts the health ping off", "guide", []look{
			{pong: 15 * time.Second}, {pong: 30 * time.Second}, {pong: 45 * time.Second}, {pong: 60 * time.Second},
			{pong: 75 * time.Second}, {pong: 90 * time.Second}, {pong: 105 * time.Second}, {pong: 120 * time.Second},
			{pong: 135 * time.Second}, {pong: 150 * time.Second}, {pong: 165 * time.Second},
			{pong: 180 * time.Second, activity: 170 * time.Second},
		}},
	}
	for _, tt := range tests {
		settings, err := For(tt.profile)
		if err != nil {
			t.Fatal(err)
		}
		m := NewMonitor(settings, t0)
		for i, l := range tt.looks {
			if l.want == "" {
				l.want = CheckNone
			}
			f := Facts{SocketOpen: !l.closed, LoggedIn: !l.out}
			if l.pong > 0 {
				f.LastPong = t0.Add(l.pong)
			}
			if l.activity > 0 {
				f.LastActivity = t0.Add(l.activity)
			}
			v := m.Tick(t0.Add(time.Duration(i+1)*15*time.Second), f)
			if v.Check != l.want || v.Signal != l.signal || m.FailuresInARow() != l.failures {
				t.Errorf("%s: tick %d: %s %s, %d failures (%s); want %s %s, %d", tt.name, i+1,
					v.Check, v.Signal, m.FailuresInARow(), v.Why, l.want, l.signal, l.failures)
			}
			if (v.Why == "") != (v.Check == CheckNone) {
				t.Errorf("%s: tick %d: %s for %q", tt.name, i+1, v.Check, v.Why)
			}
		}
	}
}

func TestVerdictsHaveTheContractsCauses(t *testing.T) {
	for signal, want := range map[SignalKind]state.Cause{
		SignalSocketNotOpen: state.CauseConnectionLost, SignalPongTimeout: state.CauseTimedOut} {
		if got := (Verdict{Check: CheckRedial, Signal: signal}).Cause(); got != want {
			t.Errorf("%s: %s, want %s", signal, got, want)
		}
	}
	if got := (Verdict{Check: CheckPing}).Cause(); got != state.CauseNone {
		t.Errorf("a ping has the cause %s", got)
	}
}

func TestAPongSetsTheFailuresToZeroAtOnce(t *testing.T) {
	m := NewMonitor(Guide(), t0)
	m.Tick(t0.Add(5*time.Minute), Facts{SocketOpen: true, LoggedIn: true})
	if m.FailuresInARow() != 1 {
		t.Fatalf("%d failures", m.FailuresInARow())
	}
	m.Pong(t0.Add(5*time.Minute + time.Second))
	if m.FailuresInARow() != 0 {
		t.Errorf("%d failures after a pong", m.FailuresInARow())
	}
	m.Tick(t0.Add(10*time.Minute), Facts{SocketOpen: true, LoggedIn: true})
	m.Pong(t0) // an older one, told late
	if m.FailuresInARow() != 1 {
		t.Errorf("an old pong counts: %d failures", m.FailuresInARow())
	}
}
