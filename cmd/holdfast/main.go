// Command holdfast keeps WhatsApp sessions connected: a worker with its admin
// API, and the commands that an operator needs beside it.
//
// This package reads the settings, prepares the data folder, talks to a running
// worker over the admin API, and puts the other packages together (wire.go). It
// is the only one that imports both worker and infra.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

func main() {
	ctx, stop := interruptible(context.Background())
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Environ(), IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}

// interruptible ends with the first signal that asks for an orderly end. From
// then on signals have their default meaning again, so that a second one ends
// the process at once.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// IO is what the program reads and writes.
type IO struct {
	In  io.Reader
	Out io.Writer // answers: tables, JSON, NDJSON
	Err io.Writer // errors, the log, progress
}

// terminal tells whether a person is likely to read what is written to w.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminalIn tells whether a person is likely to be there to answer.
func terminalIn(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
