package hostlock_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/holdfast-wa/holdfast/state/hostlock"
)

// child is this binary as another process, which holds "DIR INCARNATION" until
// it is killed or its standard input ends.
const child = "HOSTLOCK_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(child); what != "" {
		dir, incarnation, _ := strings.Cut(what, " ")
		if _, err := hostlock.Hold(dir, incarnation); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// process starts another process that holds a lock.
func process(t *testing.T, dir, incarnation string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), child+"="+dir+" "+incarnation)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe() // open as long as the test runs
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // so it may have been waited for, too
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	return cmd
}

func hold(t *testing.T, dir, incarnation string) func() {
	t.Helper()
	release, err := hostlock.Hold(dir, incarnation)
	if err != nil {
		t.Fatal(err)
	}
	return release
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func sweep(t *testing.T, dir string, remembered ...string) {
	t.Helper()
	if err := hostlock.Sweep(dir, remembered); err != nil {
		t.Fatal(err)
	}
}

// A process that is killed is gone at once; one that lives or is frozen is not.
func TestGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "locks")
	other := process(t, dir, "w-1")
	alive := func(when string) {
		t.Helper()
		for range 3 {
			if hostlock.Gone(dir, "w-1") {
				t.Errorf("gone %s", when)
			}
		}
	}
	alive("while it lives")
	if err := other.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	alive("while it is frozen")
	sweep(t, dir)
	if got := files(t, dir); !slices.Equal(got, []string{"w-1.lock"}) {
		t.Errorf("files %q", got)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait() // it was killed
	// Also while somebody else is asking the same.
	asking := flock.New(filepath.Join(dir, "w-1.lock"))
	if got, err := asking.TryRLock(); err != nil || !got {
		t.Fatal(got, err)
	}
	if !hostlock.Gone(dir, "w-1") {
		t.Error("it was killed and is not gone")
	}
	if err := asking.Close(); err != nil {
		t.Fatal(err)
	}
	// Its file is kept as long as somebody remembers it.
	sweep(t, dir, "w-0", "w-1")
	if !hostlock.Gone(dir, "w-1") {
		t.Error("not gone any more after a sweep")
	}
	sweep(t, dir, "w-0")
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("files %q", got)
	}
	if hostlock.Gone(dir, "w-1") {
		t.Error("a missing file says that a process is gone")
	}
}

// Within a process it is the same: locks belong to the open file.
func TestRelease(t *testing.T) {
	dir := t.TempDir()
	release := hold(t, dir, "w-1")
	if hostlock.Gone(dir, "w-1") {
		t.Error("gone while it is held")
	}
	if _, err := hostlock.Hold(dir, "w-1"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("held twice: %v", err)
	}
	if hostlock.Gone(dir, "w-1") {
		t.Error("gone after a second hold failed")
	}
	hold(t, dir, "w-2")
	release()
	release()
	if hostlock.Gone(dir, "w-1") {
		t.Error("who has released in order is not gone: it may live on")
	}
	if got := files(t, dir); !slices.Equal(got, []string{"w-2.lock"}) {
		t.Errorf("files %q", got)
	}
}

// A release never shows a file that is free.
func TestReleaseIsNeverGone(t *testing.T) {
	dir := t.TempDir()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				for i := range 300 {
					if hostlock.Gone(dir, fmt.Sprintf("w-%d", i)) {
						t.Errorf("w-%d is gone", i)
						return
					}
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i := range 300 {
		hold(t, dir, fmt.Sprintf("w-%d", i))()
	}
	close(stop)
	wg.Wait()
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	for _, bad := range []string{"", "../x", "a/b", "a b", strings.Repeat("x", 65)} {
		if _, err := hostlock.Hold(dir, bad); err == nil {
			t.Errorf("%q was held", bad)
		}
		if hostlock.Gone(dir, bad) {
			t.Errorf("%q is gone", bad)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := hostlock.Hold(file, "w-1"); err == nil || !strings.Contains(err.Error(), "folder cannot be made") {
		t.Errorf("a folder that is a file: %v", err)
	}
	if hostlock.Gone(file, "w-1") || hostlock.Gone(filepath.Join(dir, "none"), "w-1") {
		t.Error("gone where there is no folder")
	}
}

// What is not a lock file is left alone; leftovers of a Hold that was killed go
// when they are old.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"notes.txt", "a b.lock", ".new-w-8", ".new-w-9", "w-7.lock"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, ".new-w-9"), old, old); err != nil {
		t.Fatal(err)
	}
	sweep(t, dir)
	if got := files(t, dir); !slices.Equal(got, []string{".new-w-8", "a b.lock", "notes.txt"}) {
		t.Errorf("files %q", got)
	}
	sweep(t, filepath.Join(dir, "none"))
}
