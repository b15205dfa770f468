package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// app is what all commands share.
type app struct {
	environ []string
	io      IO
	now     func() time.Time
	http    *http.Client // of the client commands and healthcheck
	ran     bool         // a command has begun; what failed before is wrong use
	asJSON  bool
	direct  *client  // over the store itself; nil: none was opened
	closing []func() // what is to be done at the end, in reverse
}

// run is the program: it returns the exit code.
func run(ctx context.Context, args, environ []string, io IO) int {
	a := &app{environ: environ, io: io, now: time.Now, http: newHTTPClient()}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	defer a.http.CloseIdleConnections()
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	for i := len(a.closing) - 1; i >= 0; i-- {
		a.closing[i]()
	}
	if err != nil && !a.ran {
		err = usageError{err}
	}
	return report(a.io.Err, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "holdfast",
		Short:         "Keeps WhatsApp sessions connected",
		Long:          "Keeps WhatsApp sessions connected: holdfast dev runs everything on one machine,\nthe other commands look after what runs.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          group,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRun: func(*cobra.Command, []string) {
			a.ran = true
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetIn(a.io.In)
	root.SetOut(a.io.Out)
	root.SetErr(a.io.Err)
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run it:"},
		&cobra.Group{ID: "use", Title: "Use what runs:"},
		&cobra.Group{ID: "care", Title: "Look after it:"},
	)
	add := func(id string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	add("run", a.runCommand(ModeDev), a.runCommand(ModeWorker), a.adminCommand(), a.simCommand(), a.demoCommand())
	add("use", a.sessionsCommand(), a.sendCommand(), a.messagesCommand(), a.workersCommand(), a.drainCommand(), a.explainCommand(), a.auditCommand())
	add("care", a.doctorCommand(), a.keysCommand(), a.adoptCommand(), a.healthcheckCommand(), a.exportCommand(), a.importFileCommand(), a.importCommand(), a.versionCommand(), a.completionCommand())
	return root
}

// path is how an error names a command: without the program's own name, which
// every error begins with.
func path(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), "holdfast ")
}

// group is the Args of a command that only has commands below it.
func group(cmd *cobra.Command, args []string) error {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	switch {
	case len(args) > 0:
		return fmt.Errorf("%s: there is no command of this name; %s", strings.TrimPrefix(path(cmd)+" "+args[0], "holdfast "),
			didYouMean(args[0], names, "run "+cmd.CommandPath()+" --help"))
	case cmd.HasParent():
		return fmt.Errorf("%s: a command is missing; use one of %s", path(cmd), strings.Join(names, ", "))
	}
	return nil
}

// exactly is the Args of a command with the named arguments.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		use := strings.Join(append([]string{cmd.CommandPath()}, names...), " ")
		switch {
		case len(args) == len(names):
			return nil
		case len(args) < len(names):
			return fmt.Errorf("%s: %s is missing; use %s", path(cmd), names[len(args)], use)
		case len(names) == 0:
			return fmt.Errorf("%s: takes no arguments and has %d; run %s --help", path(cmd), len(args), use)
		}
		return fmt.Errorf("%s: %d arguments are too many; use %s, and quotes around text with spaces", path(cmd), len(args), use)
	}
}

func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return fmt.Errorf("%s: %w; run %s --help", path(cmd), err, cmd.CommandPath())
	}
	flag := "--" + unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" {
		flag = "-" + unknown.GetSpecifiedName()
	}
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
	return fmt.Errorf("%s: there is no flag %s; %s", path(cmd), flag, didYouMean(flag, known, "run "+cmd.CommandPath()+" --help"))
}

// jsonFlag gives a command --json.
func (a *app) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.asJSON, "json", false, "answer in JSON")
}

// settingFlag marks the flags that are settings. Others may have the same name:
// the --listen of sim is not the worker's.
const settingFlag = "holdfast_setting"

// settingFlags gives a command --config and a flag for each of the settings.
func settingFlags(cmd *cobra.Command, names []string) {
	cmd.Flags().String("config", "", "YAML file of settings (HOLDFAST_CONFIG)")
	onlyFlags(cmd, names)
}

// onlyFlags gives a command a flag for each of the settings.
func onlyFlags(cmd *cobra.Command, names []string) {
	for _, s := range settings() {
		if !slices.Contains(names, s.name) || cmd.Flags().Lookup(s.name) != nil {
			continue // --state of a list is a filter as well; see storeFlag
		}
		cmd.Flags().String(s.name, "", s.meaning)
		f := cmd.Flags().Lookup(s.name)
		f.Annotations = map[string][]string{settingFlag: nil}
		f.DefValue = strings.ReplaceAll(s.fallback, "{data}", "./data")
		if s.boolean {
			f.NoOptDefVal = "true"
		}
	}
}

// config reads the settings that a command was given: the file, over it the
// environment, over it the flags. Every fault is in the error; only as in
// newConfig.
func (a *app) config(cmd *cobra.Command, only []string) (Config, error) {
	given := layers{}
	var faults []error
	path := variableOf(a.environ, "HOLDFAST_CONFIG")
	if f := cmd.Flags().Lookup("config"); f != nil && f.Changed {
		path = f.Value.String()
	}
	if path != "" {
		file, err := fromFile(path)
		given.over(file)
		faults = append(faults, err)
	}
	environment, err := fromEnvironment(a.environ)
	given.over(environment)
	faults = append(faults, err)
	given.over(fromFlags(cmd))
	if place := storeFlag(cmd); place != "" {
		given["state"] = value{place, "--state"}
	}
	c, err := newConfig(given, only)
	c.ecsMetadata = variableOf(a.environ, "ECS_CONTAINER_METADATA_URI_V4")
	if err := errors.Join(append(faults, err)...); err != nil {
		return c, usageError{err}
	}
	return c, nil
}

// variableOf is a variable's value; the last one counts where there are several.
func variableOf(environ []string, name string) (value string) {
	for _, e := range environ {
		if n, text, _ := strings.Cut(e, "="); n == name {
			value = text
		}
	}
	return value
}

// fromFlags takes the settings that were given as flags.
func fromFlags(cmd *cobra.Command) layers {
	l := layers{}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if _, isSetting := f.Annotations[settingFlag]; isSetting {
			l[f.Name] = value{f.Value.String(), "--" + f.Name}
		}
	})
	return l
}
