// Command upgrade has a fleet of an older release upgraded to the present one,
// rolled back, and upgraded again, worker by worker and with messages on their
// way, and tells whether anything was lost, doubled or unreadable. See package
// chaos. It ends with 0 if nothing was.
//
//	go run ./cmd/upgrade -binary ../../bin/holdfast
//
// The older release is built from its commit, older.Oldest by itself.
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
	"github.com/holdfast-wa/holdfast/infra/standin/older"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	out, err := standin.Quiet()
	if err == nil {
		err = run(ctx, os.Args[1:], out, os.Stderr)
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "upgrade:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, errs io.Writer) error {
	o := chaos.Defaults
	o.Sessions = 20
	o.Timing = chaos.Timing{Heartbeat: time.Second, Trust: 6 * time.Second, Takeover: 8 * time.Second, Poll: 500 * time.Millisecond}
	u := chaos.Upgrade{}
	flags := flag.NewFlagSet("upgrade", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.StringVar(&u.New, "binary", "../../bin/holdfast", "the holdfast to upgrade to")
	flags.StringVar(&u.Old, "old", "", "the holdfast to upgrade from; by itself it is built from -from")
	from := flags.String("from", older.Commit(os.Getenv), "commit of the release to upgrade from; also "+older.Variable)
	flags.IntVar(&o.Sessions, "sessions", o.Sessions, "how many sessions")
	flags.IntVar(&o.Workers, "workers", o.Workers, "how many workers of each release")
	flags.Float64Var(&o.In, "in", o.In, "messages a second to all sessions together")
	flags.Float64Var(&o.Out, "out", o.Out, "messages a second from all sessions together")
	flags.DurationVar(&u.Mixed, "mixed", 5*time.Second, "how long both releases have sessions, three times")
	flags.DurationVar(&u.Whole, "whole", 3*time.Second, "how long all workers are of one release, four times")
	flags.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano())%1_000_000, "of the traffic; by itself a new one")
	flags.StringVar(&o.Dir, "keep", "", "folder for logs, data and the history; by itself one that is removed if all went well")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := chaos.Absolute(&u.New); err != nil {
		return err
	}
	if o.Workers < 2 || o.Sessions < o.Workers || u.Mixed < 0 || u.Whole < 0 || flags.NArg() > 0 {
		return errors.New("two workers and a session for each are the least, and flags all that is taken")
	}
	if u.Old == "" {
		dir, err := os.MkdirTemp("", "holdfast-older-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		began := time.Now()
		binary, full, err := older.Build(ctx, ".", *from, dir)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "release %s built in %s\n", full, time.Since(began).Round(time.Second))
		u.Old = binary
	}
	if err := chaos.Absolute(&u.Old); err != nil {
		return err
	}
	return chaos.Told(out, o, func(o chaos.Options) (chaos.Report, error) { return chaos.RunUpgrade(ctx, o, u) })
}
