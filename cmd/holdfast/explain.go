package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// Explanation is why a session is in its state and what comes next.
type Explanation struct {
	Session  string      `json:"session"`
	State    state.State `json:"state"`
	Since    time.Time   `json:"since"`
	Cause    state.Cause `json:"cause,omitempty"`
	Meaning  string      `json:"meaning,omitempty"`  // of the cause, in the policy's words
	Decision string      `json:"decision,omitempty"` // the last one, in words
	MadeFrom []string    `json:"madeFrom"`           // what was known when it was made
	Next     []string    `json:"next"`               // what comes, and when
	Advice   string      `json:"advice,omitempty"`   // what an operator does about the cause

	Owner   string         `json:"owner,omitempty"` // the worker that has it
	OwnerIs fleet.Standing `json:"ownerIs"`
	Epoch   uint64         `json:"epoch"`
}

func (a *app) explainCommand() *cobra.Command {
	return a.sessionCommand(&cobra.Command{
		Use:   "explain",
		Short: "Say why a session is in its state, what comes next and when",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			s, err := c.session(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			e := a.explain(cmd.Context(), c, s)
			if a.asJSON {
				return printJSON(a.io.Out, e)
			}
			return a.printExplanation(e)
		},
	})
}

func (a *app) printExplanation(e Explanation) error {
	fmt.Fprintf(a.io.Out, "%s is %s, for %s.\n", e.Session, e.State, a.ago(e.Since))
	section := func(title string, lines ...string) {
		for i, line := range lines {
			if line == "" {
				continue
			}
			if i == 0 {
				fmt.Fprintf(a.io.Out, "\n%s\n", title)
			}
			fmt.Fprintf(a.io.Out, "  %s\n", line)
		}
	}
	section("Cause", string(e.Cause), e.Meaning)
	section("Decision", e.Decision)
	section("Made from", e.MadeFrom...)
	section("Next", e.Next...)
	section("What to do", e.Advice)
	return nil
}

// explain puts a session's status into words.
func (a *app) explain(ctx context.Context, c *client, s sessionView) Explanation {
	e := Explanation{Session: s.Name, State: s.State, Since: s.Since, Cause: s.Cause, Decision: s.Decision, MadeFrom: []string{}, Next: []string{},
		Owner: s.Owner, OwnerIs: s.OwnerIs, Epoch: s.Epoch}
	if s.Cause != "" {
		rule := policy.RuleOf(s.Cause)
		e.Meaning, e.Advice = rule.Title+": "+rule.Signal, rule.Advice
	}
	from := func(format string, args ...any) {
		e.MadeFrom = append(e.MadeFrom, oneLine(fmt.Sprintf(format, args...)))
	}
	from("wanted: %s", s.Wanted)
	from("paired: %s", map[bool]string{true: "yes", false: "no"}[s.Paired])
	if s.Code != 0 {
		from("the server's code: %d", s.Code)
	}
	if s.Text != "" {
		from("the server's words: %s", s.Text)
	}
	if s.Attempt > 0 {
		from("attempt: %d in a row", s.Attempt)
	}
	if !s.LastConnectedAt.IsZero() {
		from("last connected: %s ago", a.ago(s.LastConnectedAt))
	}
	if !s.LastPongAt.IsZero() {
		from("last pong: %s ago, as of %s ago", a.ago(s.LastPongAt), a.ago(s.ObservedAt))
	}
	if s.FailuresInARow > 0 {
		from("failures of the monitor in a row: %d", s.FailuresInARow)
	}
	if s.Undecryptable > 0 {
		from("undecryptable messages: %d in 10 min", s.Undecryptable)
	}
	if s.Health != "" {
		from("health: %s", s.Health)
	}
	from("owner: %s, epoch %d", ownerWords(s), s.Epoch)
	e.Next = append(a.passes(ctx, c, s), a.comes(s)...)
	return e
}

// ownerWords names the owner and what it is.
func ownerWords(s sessionView) string {
	switch s.OwnerIs {
	case fleet.Nobody, "":
		return dash(s.Owner)
	case fleet.Stale:
		return s.Owner + " (its heartbeat stands still)"
	case fleet.Unknown:
		return s.Owner + " (nobody remembers it)"
	}
	return s.Owner + " (" + string(s.OwnerIs) + ")"
}

// passes says how a session that no live worker has gets one.
func (a *app) passes(ctx context.Context, c *client, s sessionView) []string {
	if s.OwnerIs == fleet.Alive || s.OwnerIs == "" {
		return nil
	}
	list, err := c.workers(ctx)
	if err != nil {
		return nil // the rest is worth saying all the same
	}
	alive, taking := 0, 0
	for _, w := range list {
		if w.Alive && !w.Tool {
			alive++
			if !w.Draining && !w.DrainWanted && (w.Capacity == 0 || w.Sessions < w.Capacity) {
				taking++
			}
		}
	}
	switch {
	case alive == 0:
		return []string{"nothing until a worker runs: none is alive; start one"}
	case taking == 0:
		return []string{fmt.Sprintf("nothing until a worker has room: none of the %d that are alive takes more; start one, or raise --capacity", alive)}
	case s.OwnerIs == fleet.Stale:
		return []string{fmt.Sprintf("worker %s is declared dead when its heartbeat has stood still for the takeover time (12 s by itself); then one of %d takes the session", s.Owner, taking)}
	}
	return []string{fmt.Sprintf("one of %d workers takes it within seconds", taking)}
}

// comes says what a session does next by itself, and what an operator can do.
func (a *app) comes(s sessionView) []string {
	now := a.now()
	var next []string
	say := func(format string, args ...any) { next = append(next, fmt.Sprintf(format, args...)) }
	at := func(t time.Time) string {
		return fmt.Sprintf("in %s (%s)", span(t.Sub(now)), t.Local().Format(time.DateTime))
	}
	if s.NextAttemptAt.After(now) {
		say("it connects again %s", at(s.NextAttemptAt))
	}
	if s.CooldownUntil.After(now) {
		say("its cooldown ends %s; holdfast sessions repair %s --force does not wait for it", at(s.CooldownUntil), s.Name)
	}
	if s.RestrictedUntil.After(now) {
		say("sends to new chats fail until the restriction ends %s", at(s.RestrictedUntil))
	}
	switch s.State {
	case state.Online:
		say("it stays connected; nothing is to be done")
	case state.Pairing:
		say("it waits for its code to be scanned: holdfast sessions qr %s", s.Name)
	case state.Unpaired, state.Disconnected:
		say("nothing by itself; holdfast sessions start %s shows a fresh code", s.Name)
	case state.Stopped:
		say("nothing by itself; holdfast sessions start %s connects it", s.Name)
	case state.Unowned:
		say("holdfast workers shows who is there; holdfast sessions watch %s follows", s.Name)
	case state.Conflict, state.Banned, state.Failing, state.Failed:
		if s.Paired {
			say("holdfast sessions restart %s tries again with the same credentials", s.Name)
		} else {
			say("holdfast sessions repair %s shows a fresh code; restore brings quarantined credentials back", s.Name)
		}
	}
	if len(next) == 0 {
		say("it is at it now; holdfast sessions watch %s follows", s.Name)
	}
	return next
}
