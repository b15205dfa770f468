package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/fleet"
)

// drainLook is how often drain --wait looks how far it is.
const drainLook = time.Second

func (a *app) drainCommand() *cobra.Command {
	undo := false
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "drain WORKER", Short: "Have a worker give all its sessions to others; --undo takes it back",
		Long: "Asks a worker to take nothing more and to give its sessions to others, one by one:\n" +
			"each is away from WhatsApp for about as long as a login takes. The worker goes on\n" +
			"running, empty; stop it then, or take the drain back with --undo.",
		Args: exactly("WORKER"), ValidArgsFunction: a.workerCompletion,
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "take it back: the worker takes sessions again")
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait until it has no session left, at most so long; 0: not at all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if undo && wait != 0 || wait < 0 {
			return usagef("drain: --wait is for a drain, and 0s or longer; leave it out")
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		r := request{method: http.MethodPost, path: workerPath(args[0], "drain")}
		if undo {
			r.method = http.MethodDelete
		}
		var w adminapi.Worker
		if err := c.call(cmd.Context(), r, &w); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if wait > 0 {
			if w, err = a.emptied(cmd.Context(), c, w, wait); err != nil {
				return err
			}
		}
		if a.asJSON {
			return printJSON(a.io.Out, w)
		}
		switch {
		case undo:
			_, err = fmt.Fprintf(a.io.Out, "%s takes sessions again\n", w.ID)
		case wait > 0 || w.Sessions == 0:
			_, err = fmt.Fprintf(a.io.Out, "%s is drained: it has no session and takes none\n", w.ID)
		default:
			_, err = fmt.Fprintf(a.io.Out, "%s gives its %s away; holdfast workers shows how far it is\n", w.ID, counted(w.Sessions, "session"))
		}
		return err
	}
	return a.clientCommand(cmd)
}

// emptied waits until a worker has no session left. One that has died has none
// that are its to give.
func (a *app) emptied(ctx context.Context, c *client, w adminapi.Worker, wait time.Duration) (adminapi.Worker, error) {
	late := time.NewTimer(wait)
	defer late.Stop()
	look := time.NewTicker(drainLook)
	defer look.Stop()
	for {
		list, err := c.workers(ctx)
		if err != nil {
			return w, fmt.Errorf("workers: %w", err)
		}
		found := false
		for _, now := range list {
			if now.ID == w.ID {
				w, found = now, true
			}
		}
		switch {
		case !found || w.Standing == fleet.Dead:
			return w, fmt.Errorf("%s: died before it was empty; others take its sessions, holdfast sessions ls shows them", w.ID)
		case w.Draining && w.Sessions == 0:
			return w, nil
		}
		select {
		case <-ctx.Done():
			return w, ctx.Err()
		case <-late.C:
			return w, fmt.Errorf("%s: still has %s after %v; it goes on giving them away, holdfast workers shows how far it is", w.ID, counted(w.Sessions, "session"), wait)
		case <-look.C:
		}
	}
}
