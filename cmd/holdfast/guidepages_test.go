package main

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

func settingsPage() string {
	var m markdown
	m.WriteString(made)
	m.text("# Settings")
	m.text("Each setting is a flag, a variable and a key of a YAML file: `--keepalive-interval`, `HOLDFAST_KEEPALIVE_INTERVAL`, and `keepalive-interval: 20s` in the file that `--config` or `HOLDFAST_CONFIG` names. " +
		"Flags win over the environment, and the environment over the file. Unknown names are refused, and all that is wrong is told at once. `holdfast doctor` shows the value of each and where it comes from.")
	m.text("Durations are written as `20s`, `5m`, `1h30m` or `7d`.")
	m.text("## Of the process")
	var process, client [][]string
	head := []string{"setting", "variable", "default", "meaning"}
	process, client = append(process, head), append(client, head)
	byHand := workerSettings()
	for _, s := range settings() {
		if isPolicy(s.name) {
			continue
		}
		value := code(strings.ReplaceAll(s.fallback, "{data}", "./data"))
		row := []string{code(s.name), code(variable(s.name)), cmp.Or(value, "none"), s.meaning}
		if slices.Contains(byHand, s.name) {
			process = append(process, row)
		} else {
			client = append(client, row)
		}
	}
	m.table(process)
	m.text("## Of the profile")
	m.text("How a connection is kept, when it counts as lost, and how it is taken up again. `profile` is `guide` or `gentle`: a set of defaults for the values below. " +
		"Profile and values can be set for one session too: `holdfast sessions set default --set keepalive-interval=20s`.")
	rows := [][]string{{"setting", "`guide`", "`gentle`", "range", "meaning"}}
	for _, d := range policy.Names() {
		rows = append(rows, []string{code(d.Name), code(d.Guide), code(d.Gentle), d.Range, d.Meaning})
	}
	m.table(rows)
	m.text("The variable of each is `HOLDFAST_` and its name in capitals: `%s` is `%s`.", policy.Names()[0].Name, policy.Names()[0].Env)
	m.text("## Of commands that ask a running holdfast")
	m.table(client)
	return strings.TrimRight(m.String(), "\n") + "\n"
}

func causesPage() string {
	var m markdown
	m.WriteString(made)
	m.text("# Causes")
	m.text("Every state of a session has a cause. It has the same name in the log, the metrics, the API, the events and `holdfast explain`, and the names are stable. What each does is " +
		"[one table](../../worker/policy/rules.go) and [one function](../../worker/policy/decide.go). Times are [settings](settings.md) where a name stands in their place.")
	m.text("**Actions.** `stay`: the connection goes on. `redial`: connect again, by itself, after a delay. `park`: no connection until a command, or until a stored deadline. `retire`: the credentials " +
		"are put out of reach, and a new QR code is needed.")
	m.text("**Credentials.** `kept`; `quarantined`: out of use at once, sealed for `quarantine`, so that `holdfast sessions restore` can bring them back; `destroyed`; `discarded`: those of a device that was never fully paired.")
	rows := [][]string{{"cause", "code", "", "action", "credentials", "state", "then"}}
	for _, r := range policy.Rules() {
		number := ""
		if r.Code != 0 {
			number = strconv.Itoa(r.Code)
		}
		rows = append(rows, []string{fmt.Sprintf("[`%s`](#%s)", r.Cause, r.Cause), number, r.Title, string(r.Action), string(r.Credentials), code(string(r.State)), then(r)})
	}
	m.table(rows)
	m.text("## What a number means")
	m.text("A number of WhatsApp's `failure` and `stream:error` stanzas, for a session that is paired. While pairing every failure is [`pairing_failed`](#pairing_failed), but for those that say otherwise.")
	numbers := [][]string{{"number", "as `failure`", "as `stream:error`"}}
	for number := 400; number < 600; number++ {
		failure := policy.Classify(policy.Signal{Kind: policy.SignalFailure, Code: number}, true)
		stream := policy.Classify(policy.Signal{Kind: policy.SignalStreamError, Code: number}, true)
		if failure != state.CauseRejected || stream != state.CauseServerError {
			numbers = append(numbers, []string{strconv.Itoa(number), linked(failure), linked(stream)})
		}
	}
	numbers = append(numbers, []string{"any other", linked(policy.Classify(policy.Signal{Kind: policy.SignalFailure, Code: 599}, true)),
		linked(policy.Classify(policy.Signal{Kind: policy.SignalStreamError, Code: 599}, true))})
	m.table(numbers)
	m.text("A `stream:error` whose conflict is `replaced` or `device_removed` is %s or %s, whatever its number.",
		linked(policy.Classify(policy.Signal{Kind: policy.SignalStreamError, Conflict: "replaced"}, true)),
		linked(policy.Classify(policy.Signal{Kind: policy.SignalStreamError, Conflict: "device_removed"}, true)))
	m.text("## Each cause")
	for _, r := range policy.Rules() {
		m.text("### %s", r.Cause)
		title := "**" + r.Title + "**"
		if r.Code != 0 {
			title += fmt.Sprintf(" (%d)", r.Code)
		}
		m.text("%s. Seen as: %s.", title, strings.TrimSuffix(r.Signal, "."))
		m.line("- Does: `%s`, %s; the state is `%s`, and the credentials are %s.", r.Action, then(r), r.State, fate(r.Credentials))
		if c := cooldown(r); c != "" {
			m.line("- Cooldown: %s.", c)
		}
		if notes := notes(r); notes != "" {
			m.line("- %s", notes)
		}
		m.line("- What to do: %s", r.Advice)
		m.line("")
	}
	return strings.TrimRight(m.String(), "\n") + "\n"
}

func linked(c state.Cause) string { return fmt.Sprintf("[`%s`](#%s)", c, c) }

func fate(f policy.Fate) string {
	if f == policy.NoFate {
		return "none yet"
	}
	return string(f)
}

// then is what a rule's wait comes to, in words.
func then(r policy.Rule) string {
	limit := ""
	if r.Limit != policy.Unlimited {
		limit = ", at most `" + string(r.Limit) + "` times in a row"
	}
	switch r.Wait {
	case policy.WaitBackoff:
		return "again after `backoff`" + limit
	case policy.WaitNetwork:
		return "again after `network-delay`" + limit
	case policy.WaitRestart:
		return "again after `restart-delay`" + limit
	case policy.WaitRateLimit:
		return "again after 60 s, doubling to 15 min"
	case policy.WaitExpire:
		return "again when the time is over that the server named, 24 h where it named none"
	case policy.WaitFixed:
		return "tried once more after " + policyTime(r.Fixed)
	case policy.WaitStore:
		return "again when the store answers, asked after `backoff`"
	}
	switch {
	case r.Action == policy.Stay:
		return "nothing"
	case r.Cause == state.CauseLeaseLost:
		return "the owner goes on"
	}
	return "waits for a command"
}

func policyTime(d time.Duration) string {
	if d%time.Hour == 0 {
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d min", d/time.Minute)
}

func cooldown(r policy.Rule) string {
	switch r.Cooldown {
	case policy.CooldownLoggedOut:
		return "`cooldown-logged-out` before it may pair again, also over restarts; an admin may override it with `--force`"
	case policy.CooldownWait:
		if r.Overridable {
			return "as long as the wait; `start` and `restart` cut it short"
		}
		return "as long as the wait, also for commands and over restarts"
	}
	return ""
}

func notes(r policy.Rule) string {
	var all []string
	if r.Charged {
		all = append(all, "counts as an attempt; when attempts are used up the session rests for `rest-after-exhaustion`")
	}
	if r.Overridable && r.Cooldown == policy.CooldownNone {
		all = append(all, "`start` and `restart` cut the wait short")
	}
	if r.ServerSide {
		all = append(all, "many sessions with it at once are one outage: one alarm, and one session at a time tries")
	}
	if r.Fatal {
		all = append(all, "the session's health is `dead`")
	}
	return sentence(strings.Join(all, "; "))
}

func commandsPage() string {
	var m markdown
	m.WriteString(made)
	m.text("# Commands")
	m.text("`holdfast COMMAND --help` says the same. Exit codes: %d done, %d failed, %d wrong use. An error is one line on standard error: what, why, what to do.", exitDone, exitFailed, exitUsage)
	m.text("Flags that are settings of the same name are in [settings](settings.md), and are not repeated here. A command that asks a running holdfast finds it by `--url`, else at the address of `listen`, and its key in " +
		"the data folder; `--state`, `--vault` and `--master-key` have it work on the store itself.")
	root := (&app{io: IO{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}}).root()
	rows := [][]string{{"command", ""}}
	all := available(root)
	for _, c := range all {
		rows = append(rows, []string{fmt.Sprintf("[`%s`](#%s)", path(c), anchor(c.CommandPath())), sentence(c.Short)})
	}
	m.table(rows)
	for _, c := range all {
		m.text("## %s", c.CommandPath())
		for _, paragraph := range strings.Split(cmp.Or(c.Long, sentence(c.Short)), "\n\n") {
			if strings.HasPrefix(paragraph, " ") { // lines to be typed
				m.text("    %s", strings.ReplaceAll(strings.TrimSpace(paragraph), "\n  ", "\n    "))
				continue
			}
			m.text("%s", strings.ReplaceAll(paragraph, "\n", " "))
		}
		m.text("    %s", c.UseLine())
		if flags := ownFlags(c); len(flags) > 1 {
			m.table(flags)
		}
		if c.Example != "" {
			m.text("%s", c.Example)
		}
	}
	return strings.TrimRight(m.String(), "\n") + "\n"
}

func anchor(heading string) string { return strings.ReplaceAll(heading, " ", "-") }

// available lists the commands that do something, in the order of the help.
func available(c *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() || sub.Name() == "help" {
			continue
		}
		// A command that only has others below it says so when it is run alone.
		if !sub.HasAvailableSubCommands() || sub.Args == nil || sub.Args(sub, nil) == nil {
			all = append(all, sub)
		}
		all = append(all, available(sub)...)
	}
	return all
}

// ownFlags is the table of the flags that are not settings.
func ownFlags(c *cobra.Command) [][]string {
	rows := [][]string{{"flag", "default", ""}}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if _, isSetting := f.Annotations[settingFlag]; isSetting || f.Hidden || f.Name == "help" || f.Name == "config" {
			return
		}
		value := f.DefValue
		if value == "[]" || value == "false" && f.Value.Type() == "bool" {
			value = ""
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		rows = append(rows, []string{code(name), code(value), f.Usage})
	})
	return rows
}

// describedMetric takes a description of the library's apart, which has no
// methods that tell.
var describedMetric = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "((?:[^"\\]|\\.)*)", (?:unit: "[^"]*", )?constLabels: \{[^}]*\}, variableLabels: \{([^}]*)\}\}$`)

func metricsPage() string {
	var m markdown
	m.WriteString(made)
	m.text("# Metrics")
	m.text("`GET /metrics` on a worker's listener, in Prometheus' format.")
	metrics := worker.NewMetrics()
	metrics.Scheduled(func() int { return 0 })
	descriptions := make(chan *prometheus.Desc)
	go func() { metrics.Registry.Describe(descriptions); close(descriptions) }()
	kinds := map[string]string{}
	if families, err := metrics.Registry.Gather(); err == nil {
		for _, f := range families {
			kinds[f.GetName()] = strings.ToLower(f.GetType().String())
		}
	}
	rows := [][]string{}
	for d := range descriptions {
		p := describedMetric.FindStringSubmatch(d.String())
		if p == nil {
			panic("a metric's description is not written as it was: " + d.String()) // see describedMetric
		}
		kind := cmp.Or(kinds[p[1]], map[bool]string{true: "counter", false: "gauge"}[strings.HasSuffix(p[1], "_total")])
		var labels []string
		for _, l := range strings.Split(p[3], ",") {
			if l != "" {
				labels = append(labels, code(l))
			}
		}
		help := p[2]
		if unquoted, err := strconv.Unquote(`"` + help + `"`); err == nil {
			help = unquoted
		}
		rows = append(rows, []string{code(p[1]), kind, strings.Join(labels, ", "), help})
	}
	slices.SortFunc(rows, slices.Compare)
	m.table(append([][]string{{"metric", "kind", "labels", "meaning"}}, rows...))
	m.text("The label `cause` has the names of [causes](causes.md), `state` those of [the API](api.md).")
	return strings.TrimRight(m.String(), "\n") + "\n"
}
