package crash

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain doubles as the process that dies.
func TestMain(m *testing.M) {
	dir := os.Getenv("CRASH_TEST_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := Start(dir, "w-dying"); err != nil {
		os.Exit(3)
	}
	if os.Getenv("CRASH_TEST_KILL") != "" {
		p, _ := os.FindProcess(os.Getpid())
		_ = p.Kill()
		select {}
	}
	go func() {
		Label("shop-1")
		go func() {
			go func() {
				var m map[string]int
				m["x"] = 1
			}()
		}()
	}()
	select {}
}

func die(t *testing.T, dir string, env ...string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "CRASH_TEST_DIR="+dir), env...)
	if err := cmd.Run(); err == nil {
		t.Fatal("the child was to die and did not")
	}
}

func TestAPanicNamesItsSession(t *testing.T) {
	dir := t.TempDir()
	die(t, dir)
	// The next process has a report of its own beside it.
	if err := Start(dir, "w-next"); err != nil {
		t.Fatal(err)
	}
	defer Stop(dir, "w-next")
	want := Report{Incarnation: "w-dying", Panicked: true, Session: "shop-1", Text: "panic: assignment to entry in nil map"}
	all := reports(t, dir)
	if len(all) != 2 || all[0] != want || all[1] != (Report{Incarnation: "w-next"}) {
		t.Fatalf("got %+v, want %+v first", all, want)
	}
	if err := Settle(dir, all[0]); err != nil {
		t.Fatal(err)
	}
	if all := reports(t, dir); len(all) != 1 {
		t.Fatalf("the panic was blamed twice: %+v", all)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "crash.log.old")); err != nil || !strings.Contains(string(text), "nil map") {
		t.Errorf("the panic is not kept for people: %v", err)
	}
}

func reports(t *testing.T, dir string) []Report {
	t.Helper()
	all, err := Reports(dir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAKillBlamesNobody(t *testing.T) {
	dir := t.TempDir()
	die(t, dir, "CRASH_TEST_KILL=1")
	all := reports(t, dir)
	if len(all) != 1 || all[0] != (Report{Incarnation: "w-dying"}) {
		t.Fatalf("got %+v", all)
	}
	if err := Settle(dir, all[0]); err != nil || len(reports(t, dir)) != 0 {
		t.Errorf("it is still there: %v", err)
	}
}

func TestAForeignFileBlamesNobody(t *testing.T) {
	for _, text := range []string{"", "\x00\x01", "panic: boo\n\ngoroutine 1 [running]:\n", "holdfast incarnation"} {
		if prev := parse(text); prev.Panicked || prev.Session != "" {
			t.Errorf("%q: got %+v", text, prev)
		}
	}
}
