package policy

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// TallyHours is how many hours of availability and reconnects are kept.
const TallyHours = 7 * 24

const hourForm = "2006-01-02T15"

// TallyUp adds the time from..to as online, hour by hour, and drops what is too
// old. Reported times may be added piece by piece; a `to` before `from`, as a
// clock that was set back gives, adds nothing. The result shares no memory with
// the argument.
func TallyUp(hours []state.HourTally, from, to time.Time) []state.HourTally {
	hours = cloneHours(hours)
	if oldest := to.Add(-TallyHours * time.Hour); from.Before(oldest) {
		from = oldest
	}
	// Whole seconds of the clock, so that pieces add up to the whole.
	from, to = from.UTC().Truncate(time.Second), to.UTC().Truncate(time.Second)
	for from.Before(to) {
		end := from.Truncate(time.Hour).Add(time.Hour)
		if end.After(to) {
			end = to
		}
		var h *state.HourTally
		hours, h = hourOf(hours, from)
		h.Up = min(h.Up+int(end.Sub(from)/time.Second), 3600)
		from = end
	}
	return pruneHours(hours, to)
}

// TallyReconnect counts a redial for a cause. The result shares no memory with
// the argument.
func TallyReconnect(hours []state.HourTally, cause state.Cause, at time.Time) []state.HourTally {
	hours = cloneHours(hours)
	hours, h := hourOf(hours, at.UTC())
	if h.Reconnects == nil {
		h.Reconnects = make(map[state.Cause]int)
	}
	h.Reconnects[cause]++
	return pruneHours(hours, at)
}

// Availability is the share of the window before now in which the session was
// online, 0 to 1. The window begins at a full hour, and not before the session
// itself did (since). Without any time in it, it is 0.
func Availability(hours []state.HourTally, since time.Time, window time.Duration, now time.Time) float64 {
	from := later(windowStart(window, now), since.UTC().Truncate(time.Second))
	total := now.Sub(from)
	if total < time.Second {
		return 0
	}
	up := 0
	for _, h := range hours {
		if within(h, from.Truncate(time.Hour), now) {
			up += h.Up
		}
	}
	return min(float64(up)/total.Seconds(), 1)
}

// Reconnects sums the redials in the window before now, by cause. The window
// begins at a full hour.
func Reconnects(hours []state.HourTally, window time.Duration, now time.Time) map[state.Cause]int {
	from := windowStart(window, now)
	sum := make(map[state.Cause]int)
	for _, h := range hours {
		if within(h, from, now) {
			for cause, n := range h.Reconnects {
				sum[cause] += n
			}
		}
	}
	return sum
}

func windowStart(window time.Duration, now time.Time) time.Time {
	return now.UTC().Add(-window).Truncate(time.Hour).Add(time.Hour)
}

func within(h state.HourTally, from, now time.Time) bool {
	at, err := time.Parse(hourForm, h.Hour)
	return err == nil && !at.Before(from) && !at.After(now)
}

// hourOf returns the tally of the hour that a time is in, made where it is
// missing. The slice stays in order of hours.
func hourOf(hours []state.HourTally, at time.Time) ([]state.HourTally, *state.HourTally) {
	name := at.UTC().Format(hourForm)
	i, found := slices.BinarySearchFunc(hours, name, func(h state.HourTally, name string) int {
		return strings.Compare(h.Hour, name)
	})
	if !found {
		hours = slices.Insert(hours, i, state.HourTally{Hour: name})
	}
	return hours, &hours[i]
}

func pruneHours(hours []state.HourTally, now time.Time) []state.HourTally {
	oldest := now.UTC().Add(-(TallyHours - 1) * time.Hour).Format(hourForm)
	return slices.DeleteFunc(hours, func(h state.HourTally) bool { return h.Hour < oldest })
}

func cloneHours(hours []state.HourTally) []state.HourTally {
	out := slices.Clone(hours)
	for i, h := range out {
		out[i].Reconnects = maps.Clone(h.Reconnects)
	}
	return out
}
