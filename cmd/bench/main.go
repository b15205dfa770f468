// Command bench measures what a session costs and how fast it is, each figure
// beside the same of the library alone, on the same simulated service and in the
// same run; how long sessions are away when workers die, end or are replaced; and
// what all of it asks of DynamoDB. It is no part of the product; `make bench` runs
// it.
//
// Everything that is timed runs in a process of its own, so that neither the
// service nor another subject is in a figure:
//
//	bench (orchestrates, prints) ─┬─ service    infra/wasim, and the webhooks' receiver
//	                              ├─ library    an unmodified client, over a store in memory or sqlstore
//	                              └─ holdfast   worker.New over SQLite and a vault, as `holdfast worker` wires it;
//	                                            several of them share one folder
//
// Requests are counted in one process over DynamoDB Local, which is too slow to be
// timed. A figure that is past its bound makes the exit status 1. BENCH_SHORT=1
// runs a small form, whose bounds are wider: it is for a smoke test on a busy
// machine. With BENCH_LOG=1 the workers' logs are in the bench's.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// part is one of the measurements.
type part struct {
	name    string
	measure func(*bench) error
}

var parts = []part{
	{"memory", (*bench).memory}, // and the time to start all
	{"throughput", (*bench).throughput},
	{"resume", (*bench).resume},
	{"delays", (*bench).delays},
	{"takeover", (*bench).takeover},
	{"handover", (*bench).handover},
	{"heartbeat", (*bench).heartbeat},
	{"units", (*bench).units},
}

// names lists the parts.
func names() string {
	out := make([]string, len(parts))
	for i, p := range parts {
		out[i] = p.name
	}
	return strings.Join(out, ", ")
}

// bench is one run.
type bench struct {
	plan plan
	dir  string // for data folders
	prof string // for profiles; empty: none
	out  io.Writer
	log  io.Writer
	errs []error // bounds that were missed
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, log io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(log)
	short := flags.Bool("short", os.Getenv("BENCH_SHORT") != "", "the small form with wide bounds")
	only := flags.String("only", "", "comma-separated: "+names()+"; default all")
	sessions := flags.Int("sessions", 0, "sessions of the memory figure; default 1000, short 100")
	dir := flags.String("dir", "", "where data folders are made; default the system's folder for temporary files")
	prof := flags.String("profiles", "", "folder for pprof profiles of the subjects; default none are taken")
	as := flags.String("role", "", "run as a subject; for the bench itself")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *as != "" {
		return serveRole(*as)
	}
	b := &bench{plan: fullPlan, out: out, log: log, prof: *prof}
	if *short {
		b.plan = shortPlan
	}
	if *sessions > 0 {
		b.plan.sessions = *sessions
	}
	wanted := strings.FieldsFunc(*only, func(r rune) bool { return r == ',' })
	for _, name := range wanted {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			fmt.Fprintf(log, "bench: -only %s: is no part; use %s\n", name, names())
			return 2
		}
	}
	var err error
	if b.dir, err = os.MkdirTemp(*dir, "holdfast-bench-"); err != nil {
		fmt.Fprintln(log, "bench:", err)
		return 2
	}
	defer os.RemoveAll(b.dir)
	if b.prof != "" {
		if err := os.MkdirAll(b.prof, 0o750); err != nil {
			fmt.Fprintln(log, "bench:", err)
			return 2
		}
	}
	b.machine()
	began := time.Now()
	for _, p := range parts {
		if len(wanted) > 0 && !slices.Contains(wanted, p.name) {
			continue
		}
		at := time.Now()
		if err := p.measure(b); err != nil {
			fmt.Fprintf(log, "bench: %s: %v\n", p.name, err)
			return 1
		}
		b.progress("%s took %s", p.name, time.Since(at).Round(time.Second))
	}
	fmt.Fprintf(out, "\nall of it took %s\n", time.Since(began).Round(time.Second))
	if err := errors.Join(b.errs...); err != nil {
		fmt.Fprintf(out, "\nmissed:\n%v\n", err)
		return 1
	}
	fmt.Fprintln(out, "no bound is missed")
	return 0
}

// progress tells on the log what goes on.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.log, "# "+format+"\n", args...)
}
