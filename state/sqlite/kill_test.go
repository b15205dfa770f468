package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/sqlite"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// The child of the kill test is this binary with killChild set.
const (
	killChild    = "SQLITE_KILL_CHILD"
	killSessions = 4
	killKept     = 40 // events that a session keeps
)

// commitForever claims each session and commits batches to it: a pair of
// records with the number of the batch, and that batch's event. It says what it
// was told is durable: "claim SESSION EPOCH" or "commit SESSION N".
func commitForever(path string) error {
	s, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		return err
	}
	ctx := context.Background()
	failed := make(chan error)
	for i := range killSessions {
		go func() { failed <- commitTo(ctx, s, fmt.Sprintf("s%d", i)) }()
	}
	return <-failed
}

func commitTo(ctx context.Context, s state.Store, name string) error {
	if err := s.CreateSession(ctx, name, nil); err != nil && !errors.Is(err, state.ErrExists) {
		return err
	}
	o, err := statetest.Take(ctx, s, name, fmt.Sprintf("w%d", os.Getpid()))
	if err != nil {
		return err
	}
	fmt.Println("claim", name, o.Epoch)
	last, err := lastEvent(ctx, s, name)
	if err != nil {
		return err
	}
	for n := last + 1; ; n++ {
		value := []byte(strings.Repeat(strconv.FormatUint(n, 10)+" ", 300))
		writes := []state.Write{state.Put(state.KindSignal, "a", value), state.Put(state.KindSignal, "b", value), state.Put(state.KindEvent, state.EventID(n), value)}
		if n > killKept {
			writes = append(writes, state.Del(state.KindEvent, state.EventID(n-killKept)))
		}
		if err := s.Commit(ctx, o.Fence(), fmt.Sprintf("%d", n), writes); err != nil {
			return err
		}
		fmt.Println("commit", name, n)
	}
}

func lastEvent(ctx context.Context, s state.Store, name string) (uint64, error) {
	page, err := s.Query(ctx, state.OfSession(name), state.Query{Kind: state.KindEvent, Descending: true, Limit: 1})
	if err != nil || len(page.Records) == 0 {
		return 0, err
	}
	return strconv.ParseUint(page.Records[0].Key.ID, 10, 64)
}

// TestKilled kills a process that commits, again and again, at any moment, its
// opening of the file included. HOLDFAST_KILLS is how often; 50 by default.
func TestKilled(t *testing.T) {
	kills := 50
	if n := os.Getenv("HOLDFAST_KILLS"); n != "" {
		var err error
		if kills, err = strconv.Atoi(n); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "state.db")
	told := map[string]uint64{} // the highest number reported, by "claim s0" and "commit s0"
	reports := 0
	for kill := range kills {
		after := time.Duration(random.IntN(60_000)) * time.Microsecond
		reports += runAndKill(t, path, told, after, random.IntN(3) == 0)
		if random.IntN(3) == 0 && kill < kills-1 {
			continue // let the next process recover the file by itself
		}
		verifyKilled(t, path, told)
		if t.Failed() {
			t.Fatalf("after %d kills", kill+1)
		}
	}
	t.Logf("%d kills, %d commits and claims reported durable", kills, reports)
	if reports < kills {
		t.Errorf("only %d reports in %d kills: the test proves little", reports, kills)
	}
}

// runAndKill lets a child run for a while, kills it and notes what it said. The
// while counts from its start, so that it may end in the opening of the file, or
// from the first thing that it says.
func runAndKill(t *testing.T, path string, told map[string]uint64, after time.Duration, fromStart bool) (reports int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killChild+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() { _ = cmd.Process.Kill() } // it may have ended by itself, which its output tells
	timer := time.AfterFunc(time.Hour, kill)
	defer timer.Stop()
	if fromStart {
		timer.Reset(after)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); reports++ {
		if reports == 0 && !fromStart {
			timer.Reset(after)
		}
		what, number, ok := cutLast(lines.Text())
		n, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil {
			t.Fatalf("the child said %q", lines.Text())
		}
		if n <= told[what] {
			t.Fatalf("%q after %d", lines.Text(), told[what])
		}
		told[what] = n
	}
	_ = cmd.Wait() // it was killed
	return reports
}

func cutLast(line string) (before, after string, ok bool) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return "", "", false
	}
	return line[:i], line[i+1:], true
}

// verifyKilled opens the file, which checks it, and compares it with what was
// reported.
func verifyKilled(t *testing.T, path string, told map[string]uint64) {
	t.Helper()
	ctx := t.Context()
	s, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i := range killSessions {
		name := fmt.Sprintf("s%d", i)
		o, err := s.Owner(ctx, name)
		if errors.Is(err, state.ErrNotFound) && told["claim "+name] == 0 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if claim := told["claim "+name]; o.Epoch < claim {
			t.Errorf("%s is at epoch %d, %d was claimed", name, o.Epoch, claim)
		}
		told["claim "+name] = o.Epoch // so that no later claim may be at or below it
		page, err := s.Query(ctx, state.OfSession(name), state.Query{Kind: state.KindEvent})
		if err != nil {
			t.Fatal(err)
		}
		var last uint64
		for k, r := range page.Records {
			n, err := strconv.ParseUint(r.Key.ID, 10, 64)
			if err != nil || k > 0 && n != last+1 {
				t.Fatalf("%s has event %s after %d", name, r.Key.ID, last)
			}
			last = n
			whole(t, name, r, n)
		}
		if want := min(last, killKept); uint64(len(page.Records)) != want {
			t.Errorf("%s has %d events up to %d, want %d", name, len(page.Records), last, want)
		}
		if commit := told["commit "+name]; last < commit {
			t.Errorf("%s: commit %d was reported durable, the last one there is %d", name, commit, last)
		}
		told["commit "+name] = last
		if last == 0 {
			continue
		}
		for _, id := range []string{"a", "b"} {
			r, err := s.Get(ctx, state.OfSession(name), state.Key{Kind: state.KindSignal, ID: id})
			if err != nil {
				t.Fatal(err)
			}
			whole(t, name, r, last)
		}
	}
}

// whole tells whether a record is that of batch n, to the last byte.
func whole(t *testing.T, name string, r state.Record, n uint64) {
	t.Helper()
	if want := strings.Repeat(strconv.FormatUint(n, 10)+" ", 300); string(r.Value) != want {
		t.Errorf("%s: %s is not that of batch %d", name, r.Key, n)
	}
}
