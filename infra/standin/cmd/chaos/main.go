// Command chaos breaks a fleet of Holdfast workers for some minutes and tells
// whether anything was lost, doubled, unexplained or left in the clear. See
// package chaos. It ends with 0 if nothing was.
//
//	go run ./cmd/chaos -binary ../../bin/holdfast -minutes 5 -seed 42
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin"
	"github.com/holdfast-wa/holdfast/infra/standin/chaos"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	out, err := standin.Quiet()
	if err == nil {
		err = run(ctx, os.Args[1:], out, os.Stderr)
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, errs io.Writer) error {
	o := chaos.Defaults
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.StringVar(&o.Binary, "binary", "../../bin/holdfast", "the holdfast to run")
	minutes := flags.Float64("minutes", o.Length.Minutes(), "how long faults go on")
	flags.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano())%1_000_000, "of plan and traffic; by itself a new one")
	flags.IntVar(&o.Sessions, "sessions", o.Sessions, "how many sessions")
	flags.IntVar(&o.Workers, "workers", o.Workers, "how many workers, two at least")
	flags.Float64Var(&o.In, "in", o.In, "messages a second to all sessions together")
	flags.Float64Var(&o.Out, "out", o.Out, "messages a second from all sessions together")
	flags.DurationVar(&o.Timing.Heartbeat, "heartbeat", o.Timing.Heartbeat, "HOLDFAST_HEARTBEAT")
	flags.DurationVar(&o.Timing.Trust, "trust", o.Timing.Trust, "HOLDFAST_TRUST")
	flags.DurationVar(&o.Timing.Takeover, "takeover", o.Timing.Takeover, "HOLDFAST_TAKEOVER")
	flags.DurationVar(&o.Bound, "bound", o.Bound, "until all sessions are online after the last fault")
	flags.StringVar(&o.Dir, "keep", "", "folder for logs, data and the history; by itself one that is removed if all went well")
	planOnly := flags.Bool("plan", false, "print what would be done, and end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := chaos.Absolute(&o.Binary); err != nil {
		return err
	}
	o.Length = time.Duration(*minutes * float64(time.Minute))
	if o.Workers < 2 || o.Sessions < 1 || o.Length < 10*time.Second || flags.NArg() > 0 {
		return errors.New("two workers, one session and 0.2 minutes are the least, and flags all that is taken")
	}
	if *planOnly {
		var names []string
		for i := range o.Workers {
			names = append(names, fmt.Sprintf("w%d", i+1))
		}
		for _, s := range chaos.MakePlan(o.Seed, o.Length, names, o.Timing) {
			fmt.Fprintln(out, s)
		}
		return nil
	}
	return chaos.Told(out, o, func(o chaos.Options) (chaos.Report, error) { return chaos.Run(ctx, o) })
}
