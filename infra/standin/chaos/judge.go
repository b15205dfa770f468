package chaos

import (
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin"
	"github.com/holdfast-wa/holdfast/infra/standin/crew"
	"github.com/holdfast-wa/holdfast/infra/wasim"
)

// waits are the states in which a session waits for a person, or is over.
var waits = map[string]bool{"conflict": true, "banned": true, "error": true, "failed": true, "unpaired": true, "stopped": true, "disconnected": true}

// parked: nobody has asked for that, but where a stop was ordered or the service has
// said so, and nothing else here is a reason.
func (c *checker) parked() {
	seen, device := map[string]bool{}, map[string]string{}
	for _, a := range c.Sessions {
		device[a.Session] = a.Device
	}
	stops := map[string]int{}
	for _, o := range c.Ordered {
		if o.Verb == "stop" {
			stops[o.Session]++
		}
	}
	for _, a := range c.Arrivals {
		if a.At.Before(c.Began) || !waits[a.State] || seen[a.Event] {
			continue
		}
		seen[a.Event] = true
		if a.State == "banned" && c.bannedBetween(device[a.Session], c.Began, a.At) {
			continue
		}
		if a.State == "stopped" && stops[a.Session] > 0 {
			stops[a.Session]--
			continue
		}
		c.find(RuleParked, "%s at %s: is %s, cause %q", a.Session, c.clock(a.At), a.State, a.Cause)
	}
}

// underway is how long an acknowledgement may take from the commit to the
// service's record, on a busy machine.
const underway = 2 * time.Second

// acknowledged: an acknowledgement says that a message is stored, so none leaves
// a worker that cannot store anything.
func (c *checker) acknowledged() {
	sockets := map[int64]wasim.Socket{}
	for _, s := range c.Truth.Sockets {
		sockets[s.N] = s
	}
	for _, f := range c.Lines {
		if f.Service != standin.DynamoDB || f.Kind == standin.Late || f.Kind == standin.LoseReplies {
			continue
		}
		for _, in := range c.Truth.Incoming {
			if in.Acked == nil || in.Error != "" || !in.Acked.After(f.Span.From.Add(underway)) || !f.Span.To.IsZero() && !in.Acked.Before(f.Span.To) {
				continue
			}
			run, ok := c.holder(sockets[in.Socket])
			if !ok || run.Process != f.Process || frozenIn(run, f.Span.From, *in.Acked) {
				continue
			}
			c.find(RuleEarly, "%s: message %s was acknowledged at %s by %s, the store was out of its reach (%s) since %s",
				c.device[in.Device], in.ID, c.clock(*in.Acked), runName(run), f.Kind, c.clock(f.Span.From))
		}
	}
}

// steady: what was to be sat out costs no socket.
func (c *checker) steady() {
	for _, span := range c.Steady {
		for _, s := range c.Truth.Sockets {
			if end := socketEnd(s); s.LoggedIn != nil && s.LoggedIn.Before(span.From) && within(span, end) {
				run, _ := c.holder(s)
				c.find(RuleCut, "%s at %s: a socket of %s closed, over what was to be sat out from %s on", c.device[s.Device], c.clock(end), runName(run), c.clock(span.From))
			}
		}
	}
}

// within tells whether a moment that is known lies in a span.
func within(span crew.Span, at time.Time) bool {
	return !at.IsZero() && !at.Before(span.From) && (span.To.IsZero() || !at.After(span.To))
}
