package policy

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-wa/holdfast/state"
)

func TestTallyUpSplitsByHours(t *testing.T) {
	hours := TallyUp(nil, t0.Add(30*time.Minute), t0.Add(2*time.Hour+15*time.Minute))
	want := []state.HourTally{{Hour: "2026-09-19T10", Up: 1800}, {Hour: "2026-09-19T11", Up: 3600}, {Hour: "2026-09-19T12", Up: 900}}
	if len(hours) != len(want) {
		t.Fatalf("%v", hours)
	}
	for i, h := range hours {
		if h.Hour != want[i].Hour || h.Up != want[i].Up {
			t.Errorf("%+v, want %+v", h, want[i])
		}
	}
	if got := TallyUp(hours, t0.Add(time.Hour), t0); len(got) != 3 {
		t.Errorf("a clock set back adds something: %v", got)
	}
}

func TestAvailability(t *testing.T) {
	born, now := t0.AddDate(0, 0, -30), t0.Add(30*time.Minute)
	// Online all the time but for the six hours before midnight.
	hours := TallyUp(nil, t0.AddDate(0, 0, -10), t0.Add(-16*time.Hour))
	hours = TallyUp(hours, t0.Add(-10*time.Hour), now)
	near := func(got, want float64) bool { return math.Abs(got-want) < 1e-9 }
	if got, want := Availability(hours, born, 24*time.Hour, now), 17.5/23.5; !near(got, want) {
		t.Errorf("24 h: %v, want %v", got, want)
	}
	if got, want := Availability(hours, born, 7*24*time.Hour, now), 161.5/167.5; !near(got, want) {
		t.Errorf("7 d: %v, want %v", got, want)
	}
	if got := Availability(hours, t0.Add(-2*time.Hour), 24*time.Hour, now); !near(got, 1) {
		t.Errorf("a session of two hours that was always online: %v", got)
	}
	if got := Availability(nil, born, 24*time.Hour, now); got != 0 {
		t.Errorf("never online: %v", got)
	}
	if got := Availability(nil, now, 24*time.Hour, now); got != 0 {
		t.Errorf("born now: %v", got)
	}
}

func TestReconnectsByCause(t *testing.T) {
	var hours []state.HourTally
	for _, ago := range []time.Duration{0, time.Hour, 2 * time.Hour, 30 * time.Hour} {
		hours = TallyReconnect(hours, state.CauseNetwork, t0.Add(-ago))
	}
	before := TallyReconnect(hours, state.CauseTimedOut, t0)
	day, week := Reconnects(before, 24*time.Hour, t0), Reconnects(before, 7*24*time.Hour, t0)
	if day[state.CauseNetwork] != 3 || day[state.CauseTimedOut] != 1 || week[state.CauseNetwork] != 4 {
		t.Errorf("24 h %v, 7 d %v", day, week)
	}
	if Reconnects(hours, 24*time.Hour, t0)[state.CauseTimedOut] != 0 {
		t.Error("adding changed what was there before")
	}
}

func TestTallyKeepsAWeekAndAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var hours []state.HourTally
		at, up := t0, 0
		for range rapid.IntRange(1, 50).Draw(t, "pieces") {
			d := time.Duration(rapid.IntRange(0, 3*3600).Draw(t, "seconds")) * time.Second
			if rapid.Bool().Draw(t, "online") {
				hours = TallyUp(hours, at, at.Add(d))
				up += int(d / time.Second)
			}
			at = at.Add(d)
		}
		sum := 0
		for _, h := range hours {
			if sum += h.Up; h.Up > 3600 {
				t.Fatalf("%+v", h)
			}
		}
		if sum != up { // 50 pieces of 3 h are less than a week
			t.Fatalf("%d s online, %d were told", sum, up)
		}
		hours = TallyUp(hours, t0.AddDate(-1, 0, 0), at.AddDate(0, 1, 0))
		if len(hours) > TallyHours {
			t.Fatalf("%d hours are kept", len(hours))
		}
	})
}
