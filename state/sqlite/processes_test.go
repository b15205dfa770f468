package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/sqlite"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// The other processes of these tests are this binary with one of these set to
// the path of the file.
var children = map[string]func(path string) error{
	killChild:          commitForever,
	"SQLITE_WORKER":    workForever,
	"SQLITE_OPEN_ONCE": openOnce,
	"SQLITE_MUCH":      writeMuch,
	"SQLITE_FREEZE":    freeze,
}

func TestMain(m *testing.M) {
	for name, run := range children {
		if path := os.Getenv(name); path != "" {
			if err := run(path); err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// process is one that was started.
type process struct {
	*exec.Cmd
	mu    sync.Mutex
	lines []string      // what it has said so far
	ended chan struct{} // closed when it says nothing more
	once  sync.Once
	how   error // it ended, set by wait
}

func start(t *testing.T, role, path string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0]), ended: make(chan struct{})}
	p.Env = append(os.Environ(), role+"="+path)
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stderr = os.Stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, s.Text())
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() { _ = p.kill() }) // it may have ended long ago
	return p
}

// wait waits for its end, and says how it ended.
func (p *process) wait() error {
	<-p.ended // reading its output comes first
	p.once.Do(func() { p.how = p.Wait() })
	return p.how
}

func (p *process) kill() error {
	_ = p.Process.Kill() // it may have ended by itself
	return p.wait()
}

// exited tells whether it has ended.
func (p *process) exited() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *process) said() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}

// says waits for the first thing that it says.
func (p *process) says(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		said := p.said()
		if len(said) > 0 && said[0] == want {
			return
		}
		if len(said) > 0 || p.exited() || time.Now().After(deadline) {
			t.Fatalf("the other process says %q, want %q", said, want)
		}
	}
}

// openOnce opens the file, adds one to a counter and one record, and closes.
func openOnce(path string) error {
	s, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		return err
	}
	ctx := context.Background()
	key := state.Key{Kind: state.KindFleet, ID: "counter"}
	for {
		r, err := s.Get(ctx, state.Fleet, key)
		w := state.Put(state.KindFleet, "counter", []byte(strconv.FormatUint(r.Rev+1, 10)))
		w.Rev, w.If = r.Rev+1, state.AtRev(r.Rev)
		if errors.Is(err, state.ErrNotFound) {
			w.If = state.Absent()
		} else if err != nil {
			return err
		}
		err = s.Update(ctx, state.Fleet, []state.Write{w, state.Put(state.KindFleet, "p"+strconv.Itoa(os.Getpid()), nil)})
		if err == nil {
			break
		}
		if !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
	if _, err := s.Join(ctx, fmt.Sprint("w-", os.Getpid()), state.MemberInfo{}); err != nil {
		return err
	}
	fmt.Println("done")
	return s.Close()
}

// TestOpenedAtOnce has several processes open a file at the same moment: one that
// is not there yet, or one of the format before. Some are killed at it.
func TestOpenedAtOnce(t *testing.T) {
	for round := range 6 { // each kind of beginning with each end
		path := filepath.Join(t.TempDir(), "state.db")
		var before int
		if round%2 == 1 {
			older(t, path)
			before = 1
		}
		var all []*process
		for range 4 {
			all = append(all, start(t, "SQLITE_OPEN_ONCE", path))
		}
		killed := map[*process]bool{}
		if round%3 == 2 {
			time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
			killed[all[0]] = true
			_ = all[0].kill() // that is how it ends
		}
		done := 0
		for _, p := range all {
			err := p.wait()
			said := slices.Equal(p.said(), []string{"done"})
			if said {
				done++
			}
			if !killed[p] && (err != nil || !said) {
				t.Errorf("a process ended with %v and said %q", err, p.said())
			}
		}
		s := open(t, path)
		page, err := s.Query(t.Context(), state.Fleet, state.Query{Kind: state.KindFleet})
		if err != nil {
			t.Fatal(err)
		}
		counter, err := s.Get(t.Context(), state.Fleet, state.Key{Kind: state.KindFleet, ID: "counter"})
		if err != nil {
			t.Fatal(err)
		}
		// One that was killed may have written before it could say so.
		if written := len(page.Records) - 1; written < done || written > 4 || counter.Rev != uint64(written) {
			t.Errorf("%d have written, the counter is %d, %d said that they were done", written, counter.Rev, done)
		}
		sessions, err := s.Sessions(t.Context(), "", 0)
		if err != nil || len(sessions) != before {
			t.Errorf("%d sessions, %v; there were %d", len(sessions), err, before)
		}
		if r, err := s.Roster(t.Context()); err != nil || len(r.Members) < done || r.Members[0].Joined != 1 {
			t.Errorf("members %v, %v", r, err)
		}
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}

// older makes a file as the release before members wrote it.
func older(t *testing.T, path string) {
	t.Helper()
	s, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CreateSession(t.Context(), "a", []state.Write{state.Put(state.KindSpec, "", []byte("kept"))}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	execute(t, path, "DROP TABLE member; DROP TABLE roster; PRAGMA user_version = 1")
}

// A file of the release before gains what is new, and keeps what it has.
func TestOlderFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	older(t, path)
	s := open(t, path)
	if r, err := s.Roster(t.Context()); err != nil || len(r.Members) != 0 {
		t.Errorf("the roster is %v, %v", r, err)
	}
	o, err := statetest.Take(t.Context(), s, "a", "w-1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), state.OfSession("a"), state.Key{Kind: state.KindSpec})
	if err != nil || string(r.Value) != "kept" {
		t.Errorf("what was there is %q, %v", r.Value, err)
	}
	if err := s.Commit(t.Context(), o.Fence(), "", []state.Write{state.Put(state.KindStatus, "", nil)}); err != nil {
		t.Error(err)
	}
}

// writeMuch commits without a pause, from many goroutines.
func writeMuch(path string) error {
	s, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		return err
	}
	fmt.Println("writing")
	failed := make(chan error)
	for i := range 64 {
		go func() {
			for n := 0; ; n++ {
				err := s.Update(context.Background(), state.Fleet, []state.Write{state.Put(state.KindFleet, fmt.Sprint(i), make([]byte, 2048))})
				if err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

// However much others write, a heartbeat gets its turn: h is 2 s, and its attempt
// has 1 s.
func TestHeartbeatsBesideMuchWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	if _, err := s.Join(t.Context(), "w-1", state.MemberInfo{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		start(t, "SQLITE_MUCH", path).says(t, "writing")
	}
	var took []time.Duration
	for range 200 {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := s.Beat(ctx, "w-1", state.Load{})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
		time.Sleep(2 * time.Millisecond)
	}
	slices.Sort(took)
	t.Logf("a heartbeat beside two processes that write without a pause: median %v, p99 %v, most %v", took[100], took[198], took[199])
	if took[190] > time.Second {
		t.Errorf("one heartbeat in twenty takes over %v", took[190])
	}
}

// freeze takes the write lock and keeps it until it is killed.
func freeze(path string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE; DELETE FROM owner"); err != nil {
		return err
	}
	fmt.Println("frozen")
	select {}
}

// A process that hangs within a transaction holds up writes, for as long as each
// caller is patient, and no reads; when it ends they go on, and what it had begun
// has not happened.
func TestFrozenWithinATransaction(t *testing.T) {
	path := filled(t)
	s := open(t, path)
	frozen := start(t, "SQLITE_FREEZE", path)
	frozen.says(t, "frozen")
	update := func(ctx context.Context, id string) error {
		return s.Update(ctx, state.Fleet, []state.Write{state.Put(state.KindFleet, id, nil)})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := update(ctx, "given up"); !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a write with 50 ms of patience: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	if all, err := s.Sessions(t.Context(), "", 0); err != nil || len(all) != 50 {
		t.Errorf("%d sessions, %v", len(all), err)
	}
	errs := make(chan error)
	go func() { errs <- update(context.WithoutCancel(ctx), "patient") }()
	for s.Ping(t.Context()) == nil && len(errs) == 0 && time.Since(began) < 300*time.Millisecond {
		time.Sleep(time.Millisecond)
	}
	_ = frozen.kill() // that is how it ends
	if err := <-errs; err != nil {
		t.Errorf("a write that waited for its end: %v", err)
	}
	for id, want := range map[string]error{"given up": state.ErrNotFound, "patient": nil} {
		if _, err := s.Get(t.Context(), state.Fleet, state.Key{Kind: state.KindFleet, ID: id}); !errors.Is(err, want) {
			t.Errorf("the write that was %s: %v, want %v", id, err, want)
		}
	}
	if all, err := s.Sessions(t.Context(), "", 0); err != nil || len(all) != 50 {
		t.Errorf("%d sessions after it, %v", len(all), err)
	}
}

// The lock by which processes take turns is a courtesy: one that hangs while it
// has it holds up nobody for long.
func TestTurnThatNeverEnds(t *testing.T) {
	path := filled(t)
	s := open(t, path)
	turn := flock.New(path + "-turn")
	if got, err := turn.TryLock(); err != nil || !got {
		t.Fatal(got, err)
	}
	defer turn.Close()
	began := time.Now()
	for range 50 {
		if err := s.Update(t.Context(), state.Fleet, []state.Write{state.Put(state.KindFleet, "x", nil)}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("50 writes took %v", took)
	}
}

// A folder that is not ours gets no file from us.
func TestNoLockFileBesideAForeignDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "whatsmeow.db")
	execute(t, path, "CREATE TABLE whatsmeow_device (jid TEXT)")
	refused(t, path, state.ErrCorrupt, "another program")
	if _, err := os.Stat(path + "-turn"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a lock file is left: %v", err)
	}
}
