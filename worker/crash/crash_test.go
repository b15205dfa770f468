package crash

import (
	"os"
	"os/exec"
	"testing"
)

// TestMain doubles as the process that dies.
func TestMain(m *testing.M) {
	dir := os.Getenv("CRASH_TEST_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	if _, err := Start(dir, "w-dying"); err != nil {
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
	prev, err := Start(dir, "w-next")
	if err != nil {
		t.Fatal(err)
	}
	want := Previous{Incarnation: "w-dying", Panicked: true, Session: "shop-1", Text: "panic: assignment to entry in nil map"}
	if prev != want {
		t.Fatalf("got %+v, want %+v", prev, want)
	}
	again, err := Start(dir, "w-third")
	if err != nil {
		t.Fatal(err)
	}
	if again != (Previous{Incarnation: "w-next"}) {
		t.Fatalf("the panic was blamed twice: %+v", again)
	}
}

func TestAKillBlamesNobody(t *testing.T) {
	dir := t.TempDir()
	die(t, dir, "CRASH_TEST_KILL=1")
	prev, err := Start(dir, "w-next")
	if err != nil {
		t.Fatal(err)
	}
	if prev != (Previous{Incarnation: "w-dying"}) {
		t.Fatalf("got %+v", prev)
	}
}

func TestAForeignFileBlamesNobody(t *testing.T) {
	for _, text := range []string{"", "\x00\x01", "panic: boo\n\ngoroutine 1 [running]:\n", "holdfast incarnation"} {
		if prev := parse(text); prev.Panicked || prev.Session != "" {
			t.Errorf("%q: got %+v", text, prev)
		}
	}
}
