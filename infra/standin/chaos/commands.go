package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin/crew"
)

// Ordered is a command that the API has accepted.
type Ordered struct {
	Session string
	Verb    string
	ID      string
	State   string // at the end
	Problem string
}

// ended are the states after which nothing happens to a command any more.
var ended = []string{"done", "failed", "expired"}

// commands gives sessions orders at a rate: every third time a stop and a start,
// else a restart.
func (t *traffic) commands(ctx context.Context, r *rand.Rand) {
	t.each(ctx, t.h.o.Orders, func(n int) bool {
		i := r.IntN(len(t.h.accounts))
		for mayBeBanned(i) {
			i = r.IntN(len(t.h.accounts))
		}
		session := t.h.accounts[i].Session
		if n%3 != 2 {
			return t.order(ctx, session, "restart", n)
		}
		// The start follows also when the traffic ends in between.
		return t.order(ctx, session, "stop", n) && t.order(ctx, session, "start", n)
	})
}

// order has the API accept a command, however often that takes: with the same key.
func (t *traffic) order(ctx context.Context, session, verb string, n int) bool {
	key := fmt.Sprintf("%s %d", verb, n)
	for {
		c, err := t.h.crew.API.Order(ctx, session, verb, key)
		if err == nil {
			t.mu.Lock()
			t.ordered = append(t.ordered, Ordered{Session: session, Verb: verb, ID: c.ID, State: c.State})
			t.mu.Unlock()
			return true
		}
		var refused *crew.Refused
		if errors.As(err, &refused) && refused.Status < 500 && refused.Status != http.StatusTooManyRequests || ctx.Err() != nil {
			return t.fail(fmt.Errorf("%s of %s was not accepted: %w", verb, session, err))
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return false
		}
	}
}

// openCommands counts the commands that have not ended, whose states are read anew.
func (t *traffic) openCommands(ctx context.Context) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for i := range t.ordered {
		o := &t.ordered[i]
		if slices.Contains(ended, o.State) {
			continue
		}
		if c, err := t.h.crew.API.Command(ctx, o.ID); err == nil {
			o.State, o.Problem = c.State, c.Problem
		}
		if !slices.Contains(ended, o.State) {
			n++
		}
	}
	return n
}

// commands: what the API accepted was done, and told of once; and what is wanted
// of a session is what its owner has seen.
func (c *checker) commands() {
	told := map[string][]string{} // events, by the command that they tell of
	for _, a := range c.Arrivals {
		if a.Command != "" && !slices.Contains(told[a.Command], a.Event) {
			told[a.Command] = append(told[a.Command], a.Event)
		}
	}
	for _, o := range c.Ordered {
		if o.State != "done" {
			c.find(RuleCommand, "%s: %s %s is %s in the end: %s", o.Session, o.Verb, o.ID, o.State, o.Problem)
		}
		if n := len(told[o.ID]); n != 1 {
			c.find(RuleCommand, "%s: %d events tell of the end of %s %s", o.Session, n, o.Verb, o.ID)
		}
	}
	for _, s := range c.Final {
		if s.ObservedGeneration != s.Generation {
			c.find(RuleCommand, "%s: what is wanted is at generation %d, its owner has seen %d", s.Name, s.Generation, s.ObservedGeneration)
		}
	}
}
