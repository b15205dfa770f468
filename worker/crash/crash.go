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

// Previous is what the run before this one left behind.
type Previous struct {
	Incarnation string // who that was; empty: no run is known
	Panicked    bool
	Session     string // whose goroutine panicked; empty: none of a session
	Text        string // the first line of the panic
}

const (
	fileName = "crash.log"
	label    = "session"
	header   = "holdfast incarnation "
	// maxRead bounds what is read of a crash file: the panicking goroutine is
	// the first in it.
	maxRead = 64 << 10
)

// Start reads what the previous run left in dir, keeps that file as
// crash.log.old if it holds a panic, and directs a panic of this process to a
// new file. It is called once, before any session runs.
func Start(dir, incarnation string) (Previous, error) {
	path := filepath.Join(dir, fileName)
	prev, err := read(path)
	if err != nil {
		return Previous{}, err
	}
	if prev.Panicked {
		if err := os.Rename(path, path+".old"); err != nil {
			return prev, fmt.Errorf("keeping the crash report: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return prev, fmt.Errorf("crash report: %w", err)
	}
	defer f.Close() // the runtime keeps a descriptor of its own
	if _, err := fmt.Fprintf(f, "%s%s\n", header, incarnation); err != nil {
		return prev, fmt.Errorf("crash report: %w", err)
	}
	// The runtime notices this change of its environment; labels are then part
	// of every traceback.
	godebug := os.Getenv("GODEBUG")
	if !strings.Contains(godebug, "tracebacklabels=") {
		if err := os.Setenv("GODEBUG", strings.TrimPrefix(godebug+",tracebacklabels=1", ",")); err != nil {
			return prev, fmt.Errorf("crash report: %w", err)
		}
	}
	if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
		return prev, fmt.Errorf("crash report: %w", err)
	}
	return prev, nil
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

func read(path string) (Previous, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return Previous{}, nil
	}
	if err != nil {
		return Previous{}, fmt.Errorf("crash report of the last run: %w", err)
	}
	defer f.Close()
	buf := make([]byte, maxRead)
	n, _ := f.Read(buf) // an empty or unreadable report blames nobody
	return parse(string(buf[:n])), nil
}

func parse(text string) Previous {
	first, rest, _ := strings.Cut(text, "\n")
	id, ok := strings.CutPrefix(first, header)
	if !ok {
		return Previous{}
	}
	prev := Previous{Incarnation: id}
	rest = strings.TrimSpace(rest)
	if rest == "" {
		return prev
	}
	prev.Panicked = true
	prev.Text, _, _ = strings.Cut(rest, "\n")
	if m := named.FindStringSubmatch(running.FindString(rest)); m != nil {
		prev.Session = m[1]
	}
	return prev
}
