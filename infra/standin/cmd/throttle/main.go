// Command throttle has the tables of a fleet refuse every request for its number,
// first for a moment and then for a minute, with messages on their way, and tells
// whether the first was sat out, the sockets were closed in time in the second,
// and nothing was lost or doubled. See package chaos. It ends with 0 if all is so.
//
//	go run ./cmd/throttle -binary ../../bin/holdfast
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
		fmt.Fprintln(os.Stderr, "throttle:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, errs io.Writer) error {
	o := chaos.Defaults
	o.Sessions, o.Workers, o.Orders = 12, 2, 0 // a command may close a socket, and none is to be closed here
	// The times that workers have by themselves: a call of the store is repeated for
	// 3 s, which has to fit in.
	o.Timing = chaos.Timing{Heartbeat: 2 * time.Second, Trust: 8 * time.Second, Takeover: 12 * time.Second, Poll: 2 * time.Second}
	x := chaos.Throttled{Brief: 1500 * time.Millisecond, Whole: 4 * time.Second}
	flags := flag.NewFlagSet("throttle", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.StringVar(&o.Binary, "binary", "../../bin/holdfast", "the holdfast to run")
	flags.DurationVar(&x.Long, "for", time.Minute, "how long everything is refused the second time")
	flags.IntVar(&o.Sessions, "sessions", o.Sessions, "how many sessions")
	flags.IntVar(&o.Workers, "workers", o.Workers, "how many workers")
	flags.Float64Var(&o.In, "in", o.In, "messages a second to all sessions together")
	flags.Float64Var(&o.Out, "out", o.Out, "messages a second from all sessions together")
	flags.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano())%1_000_000, "of the traffic; by itself a new one")
	flags.StringVar(&o.Dir, "keep", "", "folder for logs, data and the history; by itself one that is removed if all went well")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := chaos.Absolute(&o.Binary); err != nil {
		return err
	}
	if o.Workers < 1 || o.Sessions < 1 || x.Long < o.Timing.Takeover || flags.NArg() > 0 {
		return fmt.Errorf("one worker, one session and %s are the least, and flags all that is taken", o.Timing.Takeover)
	}
	return chaos.Told(out, o, func(o chaos.Options) (chaos.Report, error) { return chaos.RunThrottled(ctx, o, x) })
}
