package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin"
	"github.com/holdfast-wa/holdfast/infra/standin/crew"
)

// Throttled is how long the tables refuse everything: first for less than anybody
// loses patience, then for far longer.
type Throttled struct {
	Brief time.Duration // less than a call of the store is repeated, which is 3 s
	Long  time.Duration
	Whole time.Duration // before, between and after
}

// slow is what a machine may add to the brief time, without which nothing is
// proved by it.
const (
	slow  = 500 * time.Millisecond
	tries = 10
)

// RunThrottled has the tables refuse every request of everybody for its number,
// twice, with messages on their way. The first time is sat out: no socket closes,
// and acknowledgements are held back. The second time all sockets are closed when
// the trust is over, and all sessions return when the tables answer.
func RunThrottled(ctx context.Context, o Options, x Throttled) (Report, error) {
	var steady crew.Span
	s := script{do: func(ctx context.Context, h *harness) error {
		sleep(ctx, x.Whole)
		for try := 1; steady.To.IsZero(); try++ {
			from := time.Now()
			if err := h.throttle(ctx, x.Brief); err != nil {
				return err
			}
			took := time.Since(from)
			sleep(ctx, x.Whole)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case took <= x.Brief+slow:
				steady = crew.Span{From: from, To: time.Now()}
			case try == tries:
				return fmt.Errorf("a throttling of %s took %s, %d times: this machine is too busy to prove anything", x.Brief, took.Round(time.Millisecond), try)
			default:
				h.say("that was %.1f s, on a machine that is busy: once more", took.Seconds())
			}
		}
		if err := h.throttle(ctx, x.Long); err != nil {
			return err
		}
		return ctx.Err()
	}, look: func(_ context.Context, _ *harness, to *History) error {
		to.Steady = append(to.Steady, steady)
		return nil
	}}
	return play(ctx, o, s)
}

// throttle has the tables refuse everything for a while.
func (h *harness) throttle(ctx context.Context, d time.Duration) error {
	s := Step{What: Outage, Service: []standin.Service{standin.DynamoDB}, Fault: standin.Fault{Kind: standin.Throttle}, For: d}
	h.say("the tables refuse every request, for %s; %d sockets", d, h.sockets())
	h.count[s.What]++
	if err := h.part(ctx, h.workers(), s); err != nil {
		return fmt.Errorf("throttling: %w", err)
	}
	h.say("the tables answer again; %d sockets", h.sockets())
	return nil
}

// sockets is how many there are of all workers.
func (h *harness) sockets() (n int) {
	for _, r := range h.relays {
		n += r.live()
	}
	return n
}
