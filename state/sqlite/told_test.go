package sqlite_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// told is what the processes have said is durable.
type told struct {
	beats    map[string]uint64                 // by incarnation
	claims   map[string]string                 // session/epoch: line of the process that claimed it
	commits  map[string]map[uint64]state.Owner // by session and number
	declared map[string]bool
	gone     map[string]bool
}

func (k *told) note(t *testing.T, p *process, line string) {
	t.Helper()
	what, number, ok := cutLast(line)
	n, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		t.Fatalf("process %d says %q", p.Process.Pid, line)
	}
	verb, about, _ := strings.Cut(what, " ")
	switch verb {
	case "beat":
		k.beats[about] = max(k.beats[about], n)
	case "declared":
		k.declared[about] = true
	case "gone":
		k.gone[about] = true
	case "claim":
		key, by := fmt.Sprint(about, "/", n), fmt.Sprint("process ", p.Process.Pid)
		if other := k.claims[key]; other != "" {
			t.Errorf("%s was claimed by %s and by %s", key, other, by)
		}
		k.claims[key] = by
	case "commit":
		part := strings.Split(about, "/")
		epoch, _ := strconv.ParseUint(part[2], 10, 64)
		if k.commits[part[0]] == nil {
			k.commits[part[0]] = map[uint64]state.Owner{}
		}
		if other, twice := k.commits[part[0]][n]; twice {
			t.Errorf("commit %d of %s was granted to %v and to %s", n, part[0], other, about)
		}
		k.commits[part[0]][n] = state.Owner{Session: part[0], Incarnation: part[1], Epoch: epoch}
	default:
		t.Fatalf("process %d says %q", p.Process.Pid, line)
	}
}

// verify compares the file with what was told.
func (k *told) verify(t *testing.T, s state.Store) {
	t.Helper()
	ctx := t.Context()
	for i := range workSessions {
		name := fmt.Sprintf("s%d", i)
		commits := k.commits[name]
		var numbers []uint64
		for n := range commits {
			numbers = append(numbers, n)
		}
		slices.Sort(numbers)
		var before state.Owner
		for _, n := range numbers {
			o := commits[n]
			if o.Epoch < before.Epoch || o.Epoch == before.Epoch && o.Incarnation != before.Incarnation {
				t.Errorf("%s: commit %d was granted to %v, one before it to %v", name, n, o, before)
			}
			before = o
		}
		page, err := s.Query(ctx, state.OfSession(name), state.Query{Kind: state.KindEvent})
		if err != nil {
			t.Fatal(err)
		}
		var last uint64
		for i, r := range page.Records {
			n, err := strconv.ParseUint(r.Key.ID, 10, 64)
			if err != nil || i > 0 && n != last+1 {
				t.Fatalf("%s has event %s after %d", name, r.Key.ID, last)
			}
			last = n
			if o, was := commits[n]; was && string(r.Value) != eventOf(o, n) {
				t.Errorf("%s: event %d is not the one of %v", name, n, o)
			}
		}
		if want := min(last, killKept); uint64(len(page.Records)) != want {
			t.Errorf("%s has %d events up to %d, want %d", name, len(page.Records), last, want)
		}
		if len(numbers) > 0 && last < numbers[len(numbers)-1] {
			t.Errorf("%s: commit %d was reported durable, the last one there is %d", name, numbers[len(numbers)-1], last)
		}
		if last == 0 {
			continue
		}
		for _, id := range []string{"a", "b"} {
			r, err := s.Get(ctx, state.OfSession(name), state.Key{Kind: state.KindSignal, ID: id})
			if err != nil || string(r.Value) != string(page.Records[len(page.Records)-1].Value) {
				t.Errorf("%s: %s is not that of commit %d: %v", name, id, last, err)
			}
		}
		if o, err := s.Owner(ctx, name); err != nil || o.Epoch < before.Epoch {
			t.Errorf("%s has the owner %v, %v; %v has committed", name, o, err, before)
		}
	}
	r, err := s.Roster(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range r.Members {
		// The last one may have been granted when it was killed.
		if n := k.beats[m.Incarnation]; n > 0 && m.Beats != n && m.Beats != n+1 {
			t.Errorf("%s has beaten %d times and was told %d", m.Incarnation, m.Beats, n)
		}
		if i > 0 && m.Joined <= r.Members[i-1].Joined {
			t.Errorf("%v joined after %v", m, r.Members[i-1])
		}
	}
}

// TestProcesses has three processes share a file and its sessions, and kills or
// freezes one of them again and again. HOLDFAST_KILLS is how often; 30 by default.
func TestProcesses(t *testing.T) {
	kills := 30
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
	// This process is another one that has the file open all the time.
	s := open(t, path)
	for i := range workSessions {
		if err := s.CreateSession(t.Context(), fmt.Sprintf("s%d", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	k := &told{map[string]uint64{}, map[string]string{}, map[string]map[uint64]state.Owner{}, map[string]bool{}, map[string]bool{}}
	var ended []*process
	workers := make([]*process, 3)
	for i := range workers {
		workers[i] = start(t, "SQLITE_WORKER", path)
	}
	for kill := range kills {
		time.Sleep(time.Duration(random.IntN(150)) * time.Millisecond)
		i := random.IntN(len(workers))
		p := workers[i]
		if random.IntN(4) == 0 {
			// Frozen for longer than the others wait, perhaps within a transaction.
			if err := p.Process.Signal(syscall.SIGSTOP); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			time.Sleep(workTakeover + time.Duration(random.IntN(300))*time.Millisecond)
			if random.IntN(2) == 0 {
				_ = p.Process.Signal(syscall.SIGCONT) // it learns what it missed
				time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond)
			}
		}
		_ = p.kill() // that is how it ends
		ended = append(ended, p)
		workers[i] = start(t, "SQLITE_WORKER", path)
		// Others that were declared dead have ended by themselves.
		for i, p := range workers {
			if p.exited() {
				if err := p.wait(); err != nil {
					t.Errorf("a worker ended with %v: %q", err, p.said())
				}
				ended = append(ended, p)
				workers[i] = start(t, "SQLITE_WORKER", path)
			}
		}
		if kill%10 == 9 {
			if err := s.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	// Every session comes back to somebody who lives.
	before := map[string]uint64{}
	for i := range workSessions {
		name := fmt.Sprintf("s%d", i)
		n, err := lastEvent(t.Context(), s, name)
		if err != nil {
			t.Fatal(err)
		}
		before[name] = n
	}
	deadline := time.Now().Add(30 * time.Second)
	for name, n := range before {
		for {
			now, err := lastEvent(t.Context(), s, name)
			if err != nil {
				t.Fatal(err)
			}
			if now > n+1 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("nobody goes on with %s", name)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	for _, p := range workers {
		_ = p.kill() // that is how it ends
	}
	for _, p := range append(ended, workers...) {
		for _, line := range p.said() {
			k.note(t, p, line)
		}
	}
	k.verify(t, s)
	commits := 0
	for _, c := range k.commits {
		commits += len(c)
	}
	t.Logf("%d kills of %d incarnations; %d commits, %d claims; %d incarnations found gone, %d declared dead by their heartbeats",
		kills, len(k.beats), commits, len(k.claims), len(k.gone), len(k.declared))
	if commits < 5*kills || len(k.claims) < kills || len(k.gone) == 0 {
		t.Error("too little happened: the test proves little")
	}
	wal, err := os.Stat(path + "-wal")
	if err != nil || wal.Size() > 64<<20 {
		t.Errorf("the WAL: %v, %v", wal, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	// What is left opens as it is, checked.
	k.verify(t, open(t, path))
}
