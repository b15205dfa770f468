package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
)

func (a *app) sessionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "sessions",
		Aliases: []string{"session"},
		Short:   "List, make, steer and pair sessions",
		Args:    group,
		RunE:    func(*cobra.Command, []string) error { return nil },
	}
	cmd.AddCommand(
		a.listCommand(), a.createCommand(), a.setCommand(), a.showCommand(),
		a.verbCommand("start", "Connect, or show a QR code if it is not paired"),
		a.verbCommand("stop", "Close the connection; credentials stay"),
		a.verbCommand("restart", "Connect anew; credentials stay"),
		a.verbCommand("disconnect", "Unlink the device at WhatsApp and destroy the credentials"),
		a.verbCommand("repair", "Clear the credentials in use and show a fresh QR code"),
		a.verbCommand("restore", "Bring quarantined credentials back"),
		a.qrCommand(), a.pairCodeCommand(), a.watchCommand(), a.debugCommand(), a.verifyCommand(), a.deleteCommand(),
	)
	return cmd
}

// sessionCompletion offers the names of the sessions for the first argument.
func (a *app) sessionCompletion(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := a.client(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	sessions, err := c.sessions(ctx, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, s := range sessions {
		names = append(names, s.Name+"\t"+string(s.State))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// sessionCommand is a command whose first argument is a session.
func (a *app) sessionCommand(cmd *cobra.Command, more ...string) *cobra.Command {
	names := append([]string{"SESSION"}, more...)
	cmd.Use += " " + strings.Join(names, " ")
	cmd.Args = exactly(names...)
	cmd.ValidArgsFunction = a.sessionCompletion
	return a.clientCommand(cmd)
}

func (a *app) listCommand() *cobra.Command {
	var wantState, wantCause, owner string
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the sessions", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			filter := url.Values{}
			for name, v := range map[string]string{"state": stateFilter(wantState), "cause": wantCause, "owner": owner} {
				if v != "" {
					filter.Set(name, v)
				}
			}
			list, err := c.sessions(cmd.Context(), filter)
			if err != nil {
				return fmt.Errorf("sessions: %w", err)
			}
			if a.asJSON {
				return printJSON(a.io.Out, list)
			}
			return a.printSessions(list)
		},
	}
	cmd.Flags().StringVar(&wantState, "state", "", "only those in this state; or a store to look at itself, such as sqlite:PATH")
	cmd.Flags().StringVar(&wantCause, "cause", "", "only those with this cause")
	cmd.Flags().StringVar(&owner, "owner", "", "only those of this worker")
	return a.clientCommand(cmd)
}

func (a *app) printSessions(list []sessionView) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(a.io.Err, "there are no sessions; make one with: holdfast sessions create NAME")
		return err
	}
	w := tabwriter.NewWriter(a.io.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATE\tSINCE\tCAUSE\tHEALTH\tNEXT\tOWNER")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, s.State, a.ago(s.Since), dash(string(s.Cause)), dash(string(s.Health)), a.next(s), ownerWord(s))
	}
	return w.Flush()
}

// ownerWord is the owner for a table, with what it is where it is not alive.
func ownerWord(s sessionView) string {
	switch s.OwnerIs {
	case fleet.Alive, fleet.Nobody, "":
		return dash(s.Owner)
	}
	return s.Owner + " (" + string(s.OwnerIs) + ")"
}

// next says what a session waits for.
func (a *app) next(s sessionView) string {
	switch now := a.now(); {
	case s.NextAttemptAt.After(now):
		return "try in " + span(s.NextAttemptAt.Sub(now))
	case s.CooldownUntil.After(now):
		return "cooldown " + span(s.CooldownUntil.Sub(now))
	}
	return "-"
}

// ago shows a time as the time since then.
func (a *app) ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(a.now().Sub(t))
}

// span shows a time with one or two units, as one says it.
func span(d time.Duration) string {
	if d < 0 {
		d = 0
	}
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) showCommand() *cobra.Command {
	return a.sessionCommand(&cobra.Command{
		Use: "show", Short: "Show a session",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			if a.asJSON {
				return a.passOn(cmd.Context(), c, request{method: http.MethodGet, path: sessionPath(args[0])}, args[0])
			}
			s, err := c.session(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.printSession(s)
		},
	})
}

// passOn prints the answer to a request as it is.
func (a *app) passOn(ctx context.Context, c *client, r request, what string) error {
	var raw json.RawMessage
	if err := c.call(ctx, r, &raw); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if len(raw) == 0 {
		return nil
	}
	return printJSON(a.io.Out, raw)
}

func (a *app) printSession(s sessionView) error {
	w := tabwriter.NewWriter(a.io.Out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" && value != "-" {
			fmt.Fprintf(w, "%s\t%s\n", name, oneLine(value))
		}
	}
	when := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.Local().Format(time.DateTime) + " (" + a.relative(t) + ")"
	}
	row("name", s.Name)
	row("state", string(s.State)+", since "+when(s.Since))
	row("wanted", string(s.Wanted))
	if s.Cause != "" {
		text := string(s.Cause)
		if s.Code != 0 {
			text += fmt.Sprintf(" (%d)", s.Code)
		}
		row("cause", text)
	}
	row("server said", s.Text)
	row("decision", s.Decision)
	row("health", string(s.Health))
	row("paired", map[bool]string{true: "yes", false: "no"}[s.Paired])
	row("account", strings.TrimSpace(s.PushName+" "+s.JID))
	row("lid", s.LID)
	row("phone seen", when(s.PhoneLastSeen))
	row("attempt", fmt.Sprint(s.Attempt))
	row("next attempt", when(s.NextAttemptAt))
	row("cooldown until", when(s.CooldownUntil))
	row("restricted until", when(s.RestrictedUntil))
	row("connected", when(s.LastConnectedAt))
	row("last pong", when(s.LastPongAt))
	row("last inbound", when(s.LastInboundAt))
	row("last activity", when(s.LastActivityAt))
	row("observed", when(s.ObservedAt))
	if s.FailuresInARow > 0 {
		row("failures in a row", fmt.Sprint(s.FailuresInARow))
	}
	if s.Undecryptable > 0 {
		row("undecryptable", fmt.Sprintf("%d in 10 min", s.Undecryptable))
	}
	row("owner", ownerWord(s))
	row("epoch", fmt.Sprint(s.Epoch))
	return w.Flush()
}

// relative says how far a time is from now.
func (a *app) relative(t time.Time) string {
	if d := t.Sub(a.now()); d > 0 {
		return "in " + span(d)
	}
	return a.ago(t) + " ago"
}

// settingsFlags gives a command the flags for a session's own settings.
func settingsFlags(cmd *cobra.Command) func() (adminapi.Settings, error) {
	var s adminapi.Settings
	var labels, set []string
	cmd.Flags().StringVar(&s.Profile, "profile", "", "guide or gentle; by itself the worker's")
	cmd.Flags().StringArrayVar(&set, "set", nil, "a single value, such as --set keepalive-interval=20s; may be repeated")
	cmd.Flags().StringVar(&s.Proxy, "proxy", "", "http, https or socks5 URL for this session")
	cmd.Flags().StringVar(&s.WebhookURL, "webhook-url", "", "where this session's events are sent")
	cmd.Flags().StringVar(&s.WebhookSecret, "webhook-secret", "", "signs what is sent there")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "NAME=VALUE, for your own use; may be repeated")
	return func() (adminapi.Settings, error) {
		var err error
		if s.Override, err = pairs("set", set); err != nil {
			return s, err
		}
		s.Labels, err = pairs("label", labels)
		return s, err
	}
}

func pairs(flag string, list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for _, entry := range list {
		name, v, found := strings.Cut(entry, "=")
		if !found || name == "" {
			return nil, usagef("--%s: %q has no =; write NAME=VALUE", flag, entry)
		}
		m[name] = v
	}
	return m, nil
}

func (a *app) createCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "create", Short: "Make a session; it starts by showing a QR code"}
	settings := settingsFlags(cmd)
	stopped := cmd.Flags().Bool("stopped", false, "make it without starting it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		own, err := settings()
		if err != nil {
			return err
		}
		if err := state.CheckName(args[0]); err != nil {
			return usageError{err}
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		body := adminapi.CreateSession{Name: args[0], Wanted: state.WantRunning, Settings: own}
		next := "pair it with: holdfast sessions qr " + args[0]
		if *stopped {
			body.Wanted, next = state.WantStopped, "start it with: holdfast sessions start "+args[0]
		}
		r := request{method: http.MethodPost, path: "/api/sessions", body: body}
		if a.asJSON {
			return a.passOn(cmd.Context(), c, r, args[0])
		}
		if err := c.call(cmd.Context(), r, nil); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		_, err = fmt.Fprintf(a.io.Out, "%s is made; %s\n", args[0], next)
		return err
	}
	a.sessionCommand(cmd)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// setCommand changes the settings of a session. Flags that are not given leave
// theirs as they are; an empty value takes one away.
func (a *app) setCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "set", Short: "Change a session's own settings; an empty value takes one away"}
	settings := settingsFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		own, err := settings()
		if err != nil {
			return err
		}
		patch := adminapi.SettingsPatch{Override: own.Override, Labels: own.Labels}
		given := own.Override != nil || own.Labels != nil
		for flag, field := range map[string]struct {
			to   **string
			text string
		}{
			"profile": {&patch.Profile, own.Profile}, "proxy": {&patch.Proxy, own.Proxy},
			"webhook-url": {&patch.WebhookURL, own.WebhookURL}, "webhook-secret": {&patch.WebhookSecret, own.WebhookSecret},
		} {
			if cmd.Flags().Changed(flag) {
				*field.to, given = &field.text, true
			}
		}
		if !given {
			return usagef("sessions set: nothing to change is given; use flags such as --profile gentle or --set keepalive-interval=20s")
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		r := request{method: http.MethodPatch, path: sessionPath(args[0]), body: adminapi.PatchSession{Settings: patch}}
		if a.asJSON {
			return a.passOn(cmd.Context(), c, r, args[0])
		}
		if err := c.call(cmd.Context(), r, nil); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		_, err = fmt.Fprintf(a.io.Out, "%s is changed\n", args[0])
		return err
	}
	return a.sessionCommand(cmd)
}

// confirmed asks a person at the terminal before something that cannot be taken
// back. Scripts are not asked.
func (a *app) confirmed(yes bool, question string) error {
	if yes || !terminalIn(a.io.In) {
		return nil
	}
	fmt.Fprintf(a.io.Err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(a.io.In).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if said := strings.ToLower(strings.TrimSpace(answer)); said != "y" && said != "yes" {
		return fmt.Errorf("nothing was done: not confirmed; answer y, or use --yes")
	}
	return nil
}

func (a *app) deleteCommand() *cobra.Command {
	yes := false
	cmd := &cobra.Command{
		Use: "delete", Aliases: []string{"rm"}, Short: "Unlink a session and remove all that is kept of it",
	}
	w := waitFlag(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.confirmed(yes, "Delete "+args[0]+" with its credentials and history?"); err != nil {
			return err
		}
		return a.command(cmd, args[0], "delete", request{method: http.MethodDelete, path: sessionPath(args[0]), wait: *w})
	}
	return a.sessionCommand(cmd)
}
