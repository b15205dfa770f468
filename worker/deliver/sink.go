package deliver

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Sink is where events go. It is safe for concurrent use, but gets the events
// of one session one batch at a time.
type Sink interface {
	// Name is the sink's name in cursors, dead letters and metrics: a word,
	// stable over restarts, one of its kind a session.
	Name() string
	// Deliver takes events in order and returns how many of them it has taken
	// for good. n < len(events) with a nil error means: call again, there was
	// progress (n > 0). With an error, events[n] is the one it is about: a
	// *Refused means that it must not be tried again, anything else that it is
	// tried later, at the earliest after Later.After where the error is one.
	Deliver(ctx context.Context, events []state.Event) (n int, err error)
}

// Refused is the answer of a receiver that will never take this event: any 4xx
// but 408, 425 and 429.
type Refused struct {
	Status int
	Reason string // where there is no status: why no receiver could take it
}

func (e *Refused) Error() string {
	if e.Status == 0 {
		return e.Reason
	}
	return fmt.Sprintf("receiver refused the event: HTTP %d", e.Status)
}

// unencodable is what a sink answers to an event whose data is not JSON.
func unencodable(ev state.Event) error {
	return &Refused{Reason: "event " + ev.ID + " cannot be written as JSON"}
}

// Later is a passing failure whose receiver said when to come back.
type Later struct {
	After time.Duration
	Err   error
}

func (e *Later) Error() string { return e.Err.Error() }
func (e *Later) Unwrap() error { return e.Err }

// probing marks a delivery to a receiver that failed last time: one attempt is
// enough to see whether it is back.
type probing struct{}

func withProbe(ctx context.Context) context.Context {
	return context.WithValue(ctx, probing{}, true)
}

func isProbe(ctx context.Context) bool {
	probe, _ := ctx.Value(probing{}).(bool)
	return probe
}
