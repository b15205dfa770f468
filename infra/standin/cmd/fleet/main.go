// Command fleet runs a whole fleet of Holdfast on this machine, to watch: three
// workers, the admin API, a simulated WhatsApp with phones that scan every code,
// and stand-ins for DynamoDB, S3 and KMS.
//
//	go run ./cmd/fleet -binary ../../bin/holdfast          # until Ctrl-C
//	go run ./cmd/fleet -binary ../../bin/holdfast --tour   # shows a takeover, a hand-over and a rebalance by itself
//
// Everything ends with it, and its folder is removed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	out, err := standin.Quiet()
	if err == nil {
		err = run(ctx, os.Args[1:], out, os.Stderr)
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// options of the command.
type options struct {
	binary   string
	dir      string
	sessions int
	tour     bool
	settings map[string]string // of workers and admin
}

func run(ctx context.Context, args []string, out, errs io.Writer) (err error) {
	var o options
	flags := flag.NewFlagSet("fleet", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.StringVar(&o.binary, "binary", "../../bin/holdfast", "the holdfast to run")
	flags.IntVar(&o.sessions, "sessions", 12, "how many sessions are made and paired; with fewer than nine, three workers are never so uneven that one gives away")
	flags.BoolVar(&o.tour, "tour", false, "take a tour of a minute and end, instead of waiting for Ctrl-C")
	heartbeat := flags.Duration("heartbeat", time.Second, "HOLDFAST_HEARTBEAT; trust is 4 of them and takeover 6, as by itself")
	flags.StringVar(&o.dir, "keep", "", "folder for logs and data; by itself one that is removed at the end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || o.sessions < 1 || *heartbeat < 100*time.Millisecond {
		return errors.New("takes flags only; at least one session and a heartbeat of 100ms")
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	o.settings = map[string]string{"HOLDFAST_HEARTBEAT": heartbeat.String(), "HOLDFAST_TRUST": (4 * *heartbeat).String(),
		"HOLDFAST_TAKEOVER": (6 * *heartbeat).String(), "HOLDFAST_POLL": heartbeat.String()}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "holdfast-fleet-"); err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = os.RemoveAll(o.dir)
			}
		}()
	}
	s := &stage{o: o, out: out, began: time.Now()}
	defer func() {
		err = errors.Join(err, s.close())
		if err != nil {
			err = fmt.Errorf("%w; logs are in %s", err, o.dir)
		}
	}()
	if err := s.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if o.tour {
		if err := s.tour(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		return nil
	}
	v, err := s.look(ctx)
	if err != nil {
		return err
	}
	s.invite(v)
	s.watch(ctx)
	return nil
}
