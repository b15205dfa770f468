package crew

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shell is a process that counts into a file, ten times a second, and ends with
// 7 on SIGTERM.
func shell(t *testing.T, g *Guard) (p *Process, count func() int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "count")
	p = &Process{Name: "shell", Path: "/bin/sh", Args: []string{"-c", `trap 'exit 7' TERM; while :; do echo >>"$0"; sleep 0.1; done`, file}, Env: os.Environ(), Guard: g}
	return p, func() int {
		b, _ := os.ReadFile(file)
		return len(b)
	}
}

// until polls what must come true soon.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestProcess(t *testing.T) {
	p, count := shell(t, nil)
	if err := p.Kill(); !errors.Is(err, ErrDown) {
		t.Errorf("killed before its start: %v", err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); !errors.Is(err, ErrRuns) {
		t.Errorf("started twice: %v", err)
	}
	until(t, "it counts", func() bool { return count() > 0 })
	if err := p.Freeze(); err != nil {
		t.Fatal(err)
	}
	stat := func() string {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(p.Runs()[0].PID) + "/stat")
		return string(b)
	}
	if _, err := os.Stat("/proc/self/stat"); err == nil {
		until(t, "it is stopped", func() bool { return strings.Contains(stat(), ") T ") })
	}
	if err := p.Thaw(); err != nil {
		t.Fatal(err)
	}
	thawed := p.Runs()[0].Frozen[0].To
	if err := p.Thaw(); err != nil || thawed.IsZero() || !p.Runs()[0].Frozen[0].To.Equal(thawed) {
		t.Errorf("thawed at %v, and again: %v, %+v", thawed, err, p.Runs()[0].Frozen)
	}
	n := count()
	until(t, "it counts on", func() bool { return count() > n })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := p.Terminate(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	if err := p.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	runs := p.Runs()
	if len(runs) != 2 || p.Running() || p.Current() != 2 {
		t.Fatalf("runs: %+v", runs)
	}
	if r := runs[0]; r.How != Terminated || r.Error != "exit status 7" || len(r.Frozen) != 1 || r.Frozen[0].To.IsZero() || r.Ended.Before(r.Asked) {
		t.Errorf("the first: %+v", r)
	}
	if r := runs[1]; r.How != Killed || len(r.Frozen) != 1 || r.Frozen[0].To.IsZero() {
		t.Errorf("the second: %+v", r)
	}
}

func TestByItself(t *testing.T) {
	p := &Process{Name: "short", Path: "/bin/sh", Args: []string{"-c", "exit 3"}}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "it ends", func() bool { return !p.Running() })
	if r := p.Runs()[0]; r.How != ByItself || r.Error != "exit status 3" {
		t.Errorf("%+v", r)
	}
}

// When the guard's input ends, which is what the death of the program does to
// it, it kills who was not forgotten, and nobody else.
func TestGuard(t *testing.T) {
	g, err := NewGuard()
	if err != nil {
		t.Fatal(err)
	}
	kept, _ := shell(t, g)
	stays, _ := shell(t, nil)
	gone, _ := shell(t, g)
	for _, p := range []*Process{kept, stays, gone} {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := gone.Kill(); err != nil {
		t.Fatal(err)
	}
	g.forget(999999) // whom it does not know
	if err := kept.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "it is killed", func() bool { return !kept.Running() })
	if err := syscall.Kill(stays.Runs()[0].PID, 0); err != nil || !stays.Running() {
		t.Errorf("the one that is not guarded: %v", err)
	}
	if err := stays.Kill(); err != nil {
		t.Error(err)
	}
}

func TestEnviron(t *testing.T) {
	t.Setenv("HOLDFAST_STATE", "mine")
	t.Setenv("AWS_PROFILE", "mine")
	t.Setenv("OTHER", "stays")
	env := strings.Join(Environ(map[string]string{"HOLDFAST_VAULT": "theirs"}), "\n")
	for text, want := range map[string]bool{"HOLDFAST_STATE": false, "AWS_PROFILE": false, "OTHER=stays": true, "HOLDFAST_VAULT=theirs": true} {
		if strings.Contains(env, text) != want {
			t.Errorf("%s is in it: %v", text, !want)
		}
	}
}
