package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// terminalSaying is a terminal at which somebody has typed a line.
func terminalSaying(t *testing.T, line string) *os.File {
	t.Helper()
	const why = "no pseudo-terminal can be opened here: mount devpts"
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
			t.Fatalf("%s: %v", why, err)
		}
		t.Skipf("%s: %v", why, err)
	}
	t.Cleanup(func() { keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	screen, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	if _, err := keyboard.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
	return screen
}

// TestWhatClearsCredentialsIsAskedFor at a terminal, and nothing is done without a yes.
func TestWhatClearsCredentialsIsAskedFor(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"id":"shop.1","session":"shop","verb":"stop","state":"done"}`)
	}))
	defer server.Close()
	for _, verb := range []string{"disconnect", "repair", "delete"} {
		for _, tt := range []struct {
			line string
			args []string
			done bool
		}{{"n", nil, false}, {"", nil, false}, {"y", nil, true}, {"n", []string{"--yes"}, true}} {
			asked.Store(0)
			var out, errs bytes.Buffer
			args := append([]string{"sessions", verb, "shop", "--url", server.URL, "--api-key", "k"}, tt.args...)
			code := run(t.Context(), args, nil, IO{In: terminalSaying(t, tt.line), Out: &out, Err: &errs})
			if done := asked.Load() == 1 && code == exitDone; done != tt.done || asked.Load() > 1 {
				t.Errorf("%s %v, answered %q: %d requests, exit code %d, %s", verb, tt.args, tt.line, asked.Load(), code, errs.String())
			}
			if len(tt.args) == 0 && !strings.Contains(errs.String(), "shop") {
				t.Errorf("%s asks %q", verb, errs.String())
			}
		}
	}
}
