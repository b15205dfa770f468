package main

import (
	"fmt"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

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
			e := a.explain(s)
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
func (a *app) explain(s sessionView) Explanation {
	e := Explanation{Session: s.Name, State: s.State, Since: s.Since, Cause: s.Cause, Decision: s.Decision, MadeFrom: []string{}, Next: []string{}}
	if s.Cause != "" {
		rule := policy.RuleOf(s.Cause)
		e.Meaning, e.Advice = rule.Title+": "+rule.Signal, rule.Advice
	}
	from := func(format string, args ...any) { e.MadeFrom = append(e.MadeFrom, fmt.Sprintf(format, args...)) }
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
	from("owner: %s, epoch %d", dash(s.Owner), s.Epoch)
	e.Next = a.comes(s)
	return e
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
		say("a worker has to take it: holdfast workers shows who is there")
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

func (a *app) workersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "workers", Short: "List the workers", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			r := request{method: http.MethodGet, path: "/api/workers"}
			if a.asJSON {
				return a.passOn(cmd.Context(), c, r, "workers")
			}
			list, err := c.workers(cmd.Context())
			if err != nil {
				return fmt.Errorf("workers: %w", err)
			}
			w := tabwriter.NewWriter(a.io.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "WORKER\tSTATE\tSESSIONS\tONLINE\tCAPACITY\tAGE\tVERSION")
			for _, v := range list {
				stand := "alive"
				switch {
				case !v.Alive:
					stand = "dead"
				case v.Draining:
					stand = "draining"
				}
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%s\n", v.ID, stand, v.Sessions, v.Online, v.Capacity, a.ago(v.Since), dash(v.Version))
			}
			return w.Flush()
		},
	}
	return a.clientCommand(cmd)
}
