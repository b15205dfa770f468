package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		asChild()
	}
	code := m.Run()
	if code == 0 {
		// A live client's socket may take some seconds to close, which is more than
		// goleak waits by itself.
		// The library's read loop hangs for good on a frame that nobody takes any
		// more, where a bare client is stopped at that moment.
		hung := goleak.IgnoreAnyFunction("go.mau.fi/whatsmeow/socket.(*FrameSocket).frameComplete")
		err := goleak.Find(hung)
		for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); err = goleak.Find(hung) {
			time.Sleep(100 * time.Millisecond)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func TestWrongUse(t *testing.T) {
	for args, want := range map[string]string{
		"sessons":                        "sessons: there is no command of this name; did you mean sessions?",
		"frobnicate":                     "frobnicate: there is no command of this name; run holdfast --help",
		"sessions":                       "sessions: a command is missing; use one of",
		"sessions strat x":               "sessions strat: there is no command of this name; did you mean start?",
		"dev --data-dri x":               "dev: there is no flag --data-dri; did you mean --data-dir?",
		"dev -z":                         "dev: there is no flag -z;",
		"dev extra":                      "dev: takes no arguments and has 1;",
		"send default 49":                "send: TEXT is missing; use holdfast send SESSION TO TEXT",
		"send default 49 two words":      "send: 4 arguments are too many; use holdfast send SESSION TO TEXT, and quotes",
		"sessions ls --jsn":              "sessions ls: there is no flag --jsn; did you mean --json?",
		"sessions start":                 "sessions start: SESSION is missing",
		"sessions start x --wait soon":   "sessions start: invalid argument \"soon\"",
		"sessions create 4915112345":     "session name \"4915112345\": is digits only",
		"sessions set x":                 "sessions set: nothing to change is given",
		"sessions set x --set y":         "--set: \"y\" has no =",
		"sessions debug x maybe":         "sessions debug: \"maybe\" is neither on nor off",
		"sessions watch a b":             "sessions watch: takes one session or none and has 2",
		"send default 49 hi --at noon":   "--at: \"noon\" is no time",
		"sessions ls --url ftp://x":      "url (--url): has the scheme \"ftp\"",
		"completion tcsh":                "completion",
		"dev --config /nowhere/else.yml": "config /nowhere/else.yml: cannot be read",
	} {
		t.Run(args, func(t *testing.T) {
			r := drive(t, nil, strings.Fields(args)...)
			if r.code != exitUsage || !strings.HasPrefix(r.err, "holdfast: "+want) || r.out != "" {
				t.Errorf("exit code %d, out %q, err %q", r.code, r.out, r.err)
			}
			if strings.Count(r.err, "\n") != 1 || strings.Contains(r.err, "holdfast: holdfast") {
				t.Errorf("not one line: %q", r.err)
			}
		})
	}
}

func TestHelpIsNoError(t *testing.T) {
	for _, args := range []string{"", "--help", "help", "help sessions", "sessions --help", "dev --help", "help send"} {
		r := drive(t, nil, strings.Fields(args)...)
		if r.code != exitDone || r.err != "" || !strings.Contains(r.out, "Usage:") {
			t.Errorf("%q: exit code %d, %q", args, r.code, r.err)
		}
	}
}

func TestEveryCommandSaysWhatItDoes(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" {
			t.Errorf("%s says nothing", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	root := (&app{}).root()
	walk(root)
	for _, path := range []string{"dev", "worker", "sim", "demo", "sessions ls", "sessions create", "sessions show", "sessions start", "sessions stop",
		"sessions restart", "sessions disconnect", "sessions repair", "sessions restore", "sessions qr", "sessions pair-code", "sessions watch",
		"sessions delete", "sessions verify", "sessions debug", "send", "messages ls", "messages show", "messages cancel", "workers", "workers stopped", "drain", "admin", "explain",
		"completion", "keys status", "keys rewrap", "keys rotate", "adopt", "doctor", "healthcheck", "version"} {
		c, rest, err := root.Find(strings.Fields(path))
		if err != nil || len(rest) > 0 || c.CommandPath() != "holdfast "+path {
			t.Errorf("%s is missing: %v", path, err)
		}
	}
}

func TestVersion(t *testing.T) {
	r := drive(t, nil, "version")
	if r.code != exitDone || !strings.HasPrefix(r.out, "holdfast ") || !strings.Contains(r.out, "whatsmeow ") {
		t.Errorf("exit code %d: %s%s", r.code, r.out, r.err)
	}
	r = drive(t, nil, "version", "--json")
	var v Version
	if err := json.Unmarshal([]byte(r.out), &v); err != nil || v.Version == "" || !strings.HasPrefix(v.Go, "go1") || v.Platform == "" {
		t.Errorf("%v: %s", err, r.out)
	}
}

func TestCommitOfTheLinker(t *testing.T) {
	defer func(was string) { commit = was }(commit)
	for given, want := range map[string]string{"4d441e9": "commit    4d441e9\n", "4d441e9-dirty": "commit    4d441e9 (changed)\n"} {
		commit = given
		if r := drive(t, nil, "version"); !strings.Contains(r.out, want) {
			t.Errorf("%q is not in %s%s", want, r.out, r.err)
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		r := drive(t, nil, "completion", shell)
		if r.code != exitDone || !strings.Contains(r.out, "holdfast") {
			t.Errorf("%s: exit code %d, %s", shell, r.code, r.err)
		}
	}
}

func TestNearMisses(t *testing.T) {
	known := []string{"keepalive-interval", "keepalive-deadline", "state", "trust"}
	for word, want := range map[string]string{
		"keepalive-intervall": "keepalive-interval", "keepaliveinterval": "keepalive-interval", "STATE": "state", "stae": "state",
		"tsate": "state", "turst": "trust", "keepalive": "", "x": "", "interval": "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}

func TestReportKeepsToOneLineAFault(t *testing.T) {
	var b strings.Builder
	code := report(&b, usageError{errors.Join(errors.New("a: b\nc"), errors.Join(errors.New("d"), errors.New("e")))})
	if code != exitUsage || b.String() != "holdfast: a: b c\nholdfast: d\nholdfast: e\n" {
		t.Errorf("exit code %d: %q", code, b.String())
	}
	b.Reset()
	if code := report(&b, nil); code != exitDone || b.String() != "" {
		t.Errorf("no error: exit code %d, %q", code, b.String())
	}
	if code := report(&b, errors.New("x")); code != exitFailed {
		t.Errorf("a failure: exit code %d", code)
	}
}
