package main

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/state"
)

// waitFlag gives a command --wait: how long it waits for the worker to have
// done what it was told.
func waitFlag(cmd *cobra.Command) *time.Duration {
	return cmd.Flags().Duration("wait", 10*time.Second, "how long to wait for the end; 0: not at all")
}

// verbCommand is a command that tells a session's owner to do something.
func (a *app) verbCommand(verb, short string) *cobra.Command {
	var force, yes bool
	cmd := &cobra.Command{Use: verb, Short: short}
	w := waitFlag(cmd)
	switch verb {
	case "repair":
		cmd.Flags().BoolVar(&force, "force", false, "during a cooldown as well (admin)")
		fallthrough
	case "disconnect":
		cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	}
	questions := map[string]string{ // before what clears credentials
		"disconnect": "Unlink %s and destroy its credentials?",
		"repair":     "Clear the credentials of %s and show a fresh QR code? (restart keeps them)",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if question := questions[verb]; question != "" {
			if err := a.confirmed(yes, fmt.Sprintf(question, args[0])); err != nil {
				return err
			}
		}
		r := request{method: http.MethodPost, path: sessionPath(args[0], verb), wait: *w}
		if force {
			r.body = adminapi.Repair{Force: true}
		}
		return a.command(cmd, args[0], verb, r)
	}
	return a.sessionCommand(cmd)
}

// longestWait is how long one request may wait at most; the server refuses more.
const longestWait = time.Minute

// command sends a request that makes a command and says how it ended, waiting
// for that as long as the request says. A command that failed is an error.
func (a *app) command(cmd *cobra.Command, session, verb string, r request) error {
	c, err := a.client(cmd)
	if err != nil {
		return err
	}
	left := r.wait
	r.wait = min(left, longestWait)
	var v adminapi.Command
	if err := c.call(cmd.Context(), r, &v); err != nil {
		return fmt.Errorf("%s %s: %w", verb, session, err)
	}
	for !v.State.Final() && left > longestWait {
		left -= longestWait
		err := c.call(cmd.Context(), request{method: http.MethodGet, path: "/api/commands/" + url.PathEscape(v.ID), wait: min(left, longestWait)}, &v)
		if err != nil {
			return fmt.Errorf("%s %s: %w", verb, session, err)
		}
	}
	return a.ended(session, verb, v)
}

// ended says how a command stands.
func (a *app) ended(session, verb string, v adminapi.Command) error {
	if a.asJSON {
		if err := printJSON(a.io.Out, v); err != nil {
			return err
		}
	}
	switch {
	case v.State == state.CommandFailed || v.State == state.CommandExpired:
		return fmt.Errorf("%s %s: %s: %s (%s); holdfast explain %s says more", verb, session, v.State, dash(v.Problem), dash(v.Code), session)
	case a.asJSON:
		return nil
	case v.PairCode != "":
		_, err := fmt.Fprintf(a.io.Out, "%s\nType this on the phone: Settings, Linked devices, Link with phone number.\n", v.PairCode)
		return err
	case v.State == state.CommandDone && v.Result != "" && v.Result != "deleted":
		_, err := fmt.Fprintf(a.io.Out, "%s: %s is done: %s\n", session, verb, v.Result)
		return err
	case v.State == state.CommandDone:
		_, err := fmt.Fprintf(a.io.Out, "%s: %s is done\n", session, verb)
		return err
	}
	if v.State == state.CommandRunning {
		_, err := fmt.Fprintf(a.io.Out, "%s: %s is under way, at epoch %d (command %s)\n", session, verb, v.Epoch, v.ID)
		return err
	}
	_, err := fmt.Fprintf(a.io.Out, "%s: %s is %s; its worker does it as soon as it can (command %s)\n", session, verb, v.State, v.ID)
	return err
}
