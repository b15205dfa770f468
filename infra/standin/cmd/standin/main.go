// Command standin runs what a fleet needs of AWS on this machine: DynamoDB
// Local, versitygw and a fake KMS, with tables and bucket made, and a line of
// its own to each of them for every worker.
//
//	go run ./cmd/standin -lines w1,w2,w3
//
// It prints one JSON line: the environment that the user of each line needs, and
// the address of the control, with which lines are broken and healed:
//
//	curl -X PUT    $CONTROL/lines/w1/dynamodb -d '{"kind":"hole"}'
//	curl -X DELETE $CONTROL/lines
//
// It ends with SIGTERM or an interrupt, and everything it started with it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
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
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, errs io.Writer) (err error) {
	flags := flag.NewFlagSet("standin", flag.ContinueOnError)
	flags.SetOutput(errs)
	dir := flags.String("dir", "", "folder to keep tables, objects and keys in; by itself a new one, removed at the end")
	lines := flags.String("lines", "w1,w2,w3,admin", "names of those who call, with commas between")
	listen := flags.String("control", "127.0.0.1:0", "HOST:PORT of the control; port 0: a free one")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o := standin.Options{Dir: *dir, Keep: *dir != "", Lines: strings.Split(*lines, ",")}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "holdfast-standin-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.Dir)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("control: %w; choose another address with -control", err)
	}
	defer listener.Close()
	s, err := standin.Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	control := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- control.Serve(listener) }()
	defer control.Close()

	d, err := s.Describe()
	if err != nil {
		return err
	}
	line, err := json.Marshal(struct {
		Dir     string `json:"dir"`
		Control string `json:"control"`
		standin.Description
	}{o.Dir, "http://" + listener.Addr().String(), d})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "%s\n", line); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-served:
		return fmt.Errorf("control: %w", err)
	}
}
