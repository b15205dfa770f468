// Package crash tells which session killed the process.
//
// The library handles receipts and notifications in goroutines that recover
// from nothing, so one malformed stanza can end the whole worker with a panic.
// A session that does so three times must be parked alone, and the others must
// not be blamed. The Go runtime can write a panic to a file of its own and name
// the labels of the goroutine it happened in, and labels are inherited by
// every goroutine started from a labelled one. So each session runs under the
// label session=NAME, and the next run of the worker reads who it was. A
// process that was killed from outside leaves no panic, and nobody is blamed.
package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"runtime/pprof"
	"strings"
)

// Report is what one run of a worker left behind.
type Report struct {
	Incarnation string // who that was
	Panicked    bool
	Session     string // whose goroutine panicked; empty: none of a session
	Text        string // the first line of the panic
}

const (
	suffix = ".crash"
	// lastPanic is the name under which the newest panic is kept for people.
	lastPanic = "crash.log.old"
	label     = "session"
	header    = "holdfast incarnation "
	// maxRead bounds what is read of a crash file: the panicking goroutine is
	// the first in it.
	maxRead = 64 << 10
)

func file(dir, incarnation string) string { return filepath.Join(dir, incarnation+suffix) }

// Start directs a panic of this process to a file of its incarnation in dir. It
// is called once, before any session runs.
func Start(dir, incarnation string) error {
	f, err := os.OpenFile(file(dir, incarnation), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("crash report: %w", err)
	}
	defer f.Close() // the runtime keeps a descriptor of its own
	if _, err := fmt.Fprintf(f, "%s%s\n", header, incarnation); err != nil {
		return fmt.Errorf("crash report: %w", err)
	}
	// The runtime notices this change of its environment; labels are then part
	// of every traceback.
	godebug := os.Getenv("GODEBUG")
	if !strings.Contains(godebug, "tracebacklabels=") {
		if err := os.Setenv("GODEBUG", strings.TrimPrefix(godebug+",tracebacklabels=1", ",")); err != nil {
			return fmt.Errorf("crash report: %w", err)
		}
	}
	if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
		return fmt.Errorf("crash report: %w", err)
	}
	return nil
}

// Stop ends what Start began, in an orderly end: nothing is left of it.
func Stop(dir, incarnation string) {
	_ = debug.SetCrashOutput(nil, debug.CrashOptions{})
	_ = os.Remove(file(dir, incarnation))
}

// Reports lists what runs of workers in dir left behind, also those that live:
// which of them have ended is for the caller to know. What is no report is left
// out.
func Reports(dir string) ([]Report, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		return nil, fmt.Errorf("crash reports: %w", err)
	}
	var all []Report
	for _, path := range paths {
		r, err := read(path)
		if err != nil {
			return nil, err
		}
		if r.Incarnation != "" && path == file(dir, r.Incarnation) {
			all = append(all, r)
		}
	}
	return all, nil
}

// Settle takes a report away that has been told of. The newest panic stays in dir
// as crash.log.old, for people.
func Settle(dir string, r Report) error {
	path := file(dir, r.Incarnation)
	var err error
	if r.Panicked {
		err = os.Rename(path, filepath.Join(dir, lastPanic))
	} else {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("keeping the crash report: %w", err)
	}
	return nil
}

// Label makes the calling goroutine, and those that it starts from now on, carry
// the session's name until they end. It is no wrapper around what they do: the
// frames of one would lie on the stack of each session for good.
func Label(session string) {
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(label, session)))
}

var (
	running = regexp.MustCompile(`(?m)^goroutine \d+ [^\n]*\[running[^\n]*`)
	named   = regexp.MustCompile(`"` + label + `": "([a-z0-9_-]+)"`)
)

func read(path string) (Report, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return Report{}, nil
	}
	if err != nil {
		return Report{}, fmt.Errorf("crash report of an earlier run: %w", err)
	}
	defer f.Close()
	buf := make([]byte, maxRead)
	n, _ := f.Read(buf) // an empty or unreadable report blames nobody
	return parse(string(buf[:n])), nil
}

func parse(text string) Report {
	first, rest, _ := strings.Cut(text, "\n")
	id, ok := strings.CutPrefix(first, header)
	if !ok {
		return Report{}
	}
	r := Report{Incarnation: id}
	rest = strings.TrimSpace(rest)
	if rest == "" {
		return r
	}
	r.Panicked = true
	r.Text, _, _ = strings.Cut(rest, "\n")
	if m := named.FindStringSubmatch(running.FindString(rest)); m != nil {
		r.Session = m[1]
	}
	return r
}
