package adminapi

import (
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Span is how a session did over a time.
type Span struct {
	Availability float64             `json:"availability" doc:"share of the time that it was online, 0 to 1"`
	Reconnects   map[state.Cause]int `json:"reconnects,omitempty" doc:"how often it had to connect again, by cause"`
}

// spanOf counts up the hours of a status over the time before now. A session
// is counted from its creation on. Status is not written for time passing
// alone: an online session is taken to have stayed so since the status was
// observed, any other to have stayed offline. Hours are whole; of the oldest
// one only the part within the span counts, but all of the one in which the
// session was created: it was not online before that.
func spanOf(st state.Status, created, now time.Time, span time.Duration, online bool) Span {
	from := now.Add(-span)
	young := created.After(from)
	if young {
		from = created
	}
	whole := now.Sub(from)
	s := Span{}
	if whole <= 0 {
		return s
	}
	var up time.Duration
	for _, h := range st.Hours {
		begin, err := time.Parse("2006-01-02T15", h.Hour)
		if err != nil {
			continue
		}
		end := begin.Add(time.Hour)
		if !end.After(from) || begin.After(now) {
			continue
		}
		within := time.Hour
		if !young {
			within = min(within, end.Sub(from))
		}
		up += time.Duration(float64(min(h.Up, 3600)) * float64(time.Second) * float64(within) / float64(time.Hour))
		for cause, n := range h.Reconnects {
			if s.Reconnects == nil {
				s.Reconnects = map[state.Cause]int{}
			}
			s.Reconnects[cause] += n
		}
	}
	if online {
		seen := st.ObservedAt
		if seen.Before(st.Since) {
			seen = st.Since
		}
		if seen.Before(from) {
			seen = from
		}
		up += max(now.Sub(seen), 0)
	}
	s.Availability = min(float64(up)/float64(whole), 1)
	return s
}
