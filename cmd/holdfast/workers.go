package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/fleet"
)

func workerPath(id, what string) string {
	return "/api/workers/" + url.PathEscape(id) + "/" + what
}

func (a *app) workersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "workers", Short: "List the workers", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			if a.asJSON {
				return a.passOn(cmd.Context(), c, request{method: http.MethodGet, path: "/api/workers"}, "workers")
			}
			list, err := c.workers(cmd.Context())
			if err != nil {
				return fmt.Errorf("workers: %w", err)
			}
			return a.printWorkers(list)
		},
	}
	cmd.AddCommand(a.stoppedCommand())
	return a.clientCommand(cmd)
}

func (a *app) printWorkers(list []adminapi.Worker) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(a.io.Err, "no worker has joined yet; start one with: holdfast worker")
		return err
	}
	w := tabwriter.NewWriter(a.io.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WORKER\tSTATE\tSESSIONS\tONLINE\tCAPACITY\tTRUST\tDEPLOYMENT\tSINCE\tSEEN\tVERSION")
	for _, v := range list {
		capacity := "-"
		if v.Capacity > 0 {
			capacity = fmt.Sprint(v.Capacity)
		}
		trust := "-"
		if v.Alive && v.TrustSeconds != 0 {
			trust = fmt.Sprintf("%.1fs", v.TrustSeconds)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", v.ID, stand(v), v.Sessions, v.Online, capacity, trust,
			dash(v.Deployment), a.ago(v.Since), a.ago(v.SeenAt), dash(v.Version))
	}
	return w.Flush()
}

// stand is a worker's state in one word.
func stand(w adminapi.Worker) string {
	switch {
	case w.Standing != fleet.Alive:
		return string(w.Standing)
	case w.Tool:
		return "tool"
	case w.Draining && w.Sessions == 0:
		return "drained"
	case w.Draining || w.DrainWanted:
		return "draining"
	}
	return "alive"
}

// workerCompletion offers the live workers for the first argument.
func (a *app) workerCompletion(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := a.client(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := c.workers(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for _, w := range list {
		if w.Standing != fleet.Dead && !w.Tool {
			ids = append(ids, w.ID+"\t"+stand(w))
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// stoppedCommand passes on what the platform knows of a worker's process.
func (a *app) stoppedCommand() *cobra.Command {
	yes := false
	cmd := &cobra.Command{
		Use: "stopped WORKER|TASK", Short: "Say that a worker's process has ended, so that others take its sessions at once",
		Long: "Declares a worker dead for good because its process is known to have ended: the\n" +
			"platform says so. WORKER is its id, TASK what the platform calls it, such as the\n" +
			"ARN of an ECS task. Others take its sessions at once, instead of after the\n" +
			"takeover time. Of a process that still runs it must not be said: its lines would\n" +
			"stay for some seconds beside those of its successor.",
		Args: exactly("WORKER|TASK"), ValidArgsFunction: a.workerCompletion,
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		if err := a.confirmStopped(cmd, c, args[0], yes); err != nil {
			return err
		}
		r := request{method: http.MethodPost, path: workerPath(args[0], "stopped")}
		if a.asJSON {
			return a.passOn(cmd.Context(), c, r, args[0])
		}
		var list adminapi.WorkerList
		if err := c.call(cmd.Context(), r, &list); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		for _, w := range list.Workers {
			if _, err := fmt.Fprintf(a.io.Out, "%s is dead; others take its %s\n", w.ID, counted(w.Sessions, "session")); err != nil {
				return err
			}
		}
		return nil
	}
	return a.clientCommand(cmd)
}

// confirmStopped shows a person when the worker was heard last, before it is
// declared dead.
func (a *app) confirmStopped(cmd *cobra.Command, c *client, id string, yes bool) error {
	if yes || !terminalIn(a.io.In) {
		return nil
	}
	list, err := c.workers(cmd.Context())
	if err != nil {
		return fmt.Errorf("workers: %w", err)
	}
	var about []string
	for _, w := range list {
		if w.ID == id || w.Task != "" && w.Task == id {
			about = append(about, fmt.Sprintf("%s (%s, last heard %s ago, %s)", w.ID, stand(w), a.ago(w.SeenAt), counted(w.Sessions, "session")))
		}
	}
	if len(about) == 0 {
		return nil // the server says so in its own words
	}
	return a.confirmed(false, "Declare dead for good: "+strings.Join(about, ", ")+"? Its process must have ended.")
}

// counted is a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
