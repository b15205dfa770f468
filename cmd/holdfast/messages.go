package main

import (
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/state"
)

// sendTime reads a time, or a span from now.
func sendTime(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(d).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, usagef("--at: %q is no time; write 2026-01-31T08:00:00Z, or a span from now such as 2h", text)
	}
	return t.UTC(), nil
}

// message makes a request that answers a message of the outbox and shows it.
func (a *app) message(cmd *cobra.Command, c *client, session string, r request) error {
	if a.asJSON {
		return a.passOn(cmd.Context(), c, r, session)
	}
	var m messageView
	if err := c.call(cmd.Context(), r, &m); err != nil {
		return fmt.Errorf("%s: %w", session, err)
	}
	if err := a.printMessages([]messageView{m}); err != nil {
		return err
	}
	if m.State == state.OutFailed {
		return fmt.Errorf("%s: the message was not sent: %s (%s)", session, m.Problem, m.Code)
	}
	return nil
}

func (a *app) printMessages(list []messageView) error {
	w := tabwriter.NewWriter(a.io.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATE\tAGE\tATTEMPTS\tSEND AT\tPROBLEM")
	for _, m := range list {
		at := "-"
		if !m.SendAt.IsZero() {
			at = m.SendAt.Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", m.ID, m.State, a.ago(m.At), m.Attempts, at, dash(m.Problem))
	}
	return w.Flush()
}

func (a *app) messagesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "messages", Aliases: []string{"message"}, Short: "Look into the outbox of a session", Args: group,
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.AddCommand(
		a.outboxCommand(),
		a.messageCommand("show", "Show one message", http.MethodGet),
		a.messageCommand("cancel", "Take back a message that has not been sent", http.MethodDelete),
	)
	return cmd
}

func (a *app) outboxCommand() *cobra.Command {
	only, limit := "", 0
	cmd := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List what was sent and is to be sent, the newest first"}
	cmd.Flags().StringVar(&only, "state", "", "only those in this state: queued, sending, sent, delivered, read, failed or cancelled; or a store to look at itself, such as sqlite:PATH")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many at most")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 1 {
			return usagef("messages ls: --limit %d is too low; use 1 or more", limit)
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		filter := url.Values{}
		if only := stateFilter(only); only != "" {
			filter.Set("state", only)
		}
		list, err := c.messages(cmd.Context(), args[0], filter, limit)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if a.asJSON {
			return printJSON(a.io.Out, list)
		}
		return a.printMessages(list)
	}
	return a.sessionCommand(cmd)
}

func (a *app) messageCommand(name, short, method string) *cobra.Command {
	return a.sessionCommand(&cobra.Command{Use: name, Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			return a.message(cmd, c, args[0], request{method: method, path: sessionPath(args[0], "messages", args[1])})
		}}, "ID")
}
