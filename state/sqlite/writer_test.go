package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
	"go.uber.org/goleak"
)

func openInside(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "state.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// pragma reads a setting of the writer's connection.
func pragma(t *testing.T, s *Store, name string) (v int) {
	t.Helper()
	err := s.writer.submit(t.Context(), "test", func(ctx context.Context, w *writer) error {
		return w.conn.QueryRowContext(ctx, "PRAGMA "+name).Scan(&v)
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A commit is fsynced with synchronous=FULL (2) only.
func TestWritesAreSynchronous(t *testing.T) {
	s := openInside(t)
	if got := pragma(t, s, "synchronous"); got != 2 {
		t.Errorf("synchronous is %d, want 2", got)
	}
	if got := pragma(t, s, "secure_delete"); got != 1 {
		t.Errorf("secure_delete is %d, want 1", got)
	}
	var mode string
	if err := s.readers.QueryRow("PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		t.Errorf("journal_mode is %q, %v", mode, err)
	}
}

// hold keeps the writer in a transaction until release is called, so that what
// comes meanwhile waits together.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	held, let := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.writer.submit(context.Background(), "hold", func(context.Context, *writer) error {
			close(held)
			<-let
			return nil
		})
		if err != nil {
			t.Errorf("holding: %v", err)
		}
	})
	<-held
	return func() {
		close(let)
		wg.Wait()
	}
}

// gathered waits until n changes wait, besides the one that holds the writer.
func gathered(s *Store, n int64) {
	for s.writer.waiting.Load() < n+1 {
		runtime.Gosched()
	}
}

// All that wait share a transaction; those whose fence or condition fails, or
// whose change cannot be made at all, do not take the others with them.
func TestGroupCommit(t *testing.T) {
	const n = 60
	for _, broken := range []bool{false, true} {
		t.Run(fmt.Sprintf("one broken %v", broken), func(t *testing.T) {
			s := openInside(t)
			ctx := t.Context()
			fences := make([]state.Fence, n)
			for i := range fences {
				name := fmt.Sprintf("s%d", i)
				if err := s.CreateSession(ctx, name, nil); err != nil {
					t.Fatal(err)
				}
				o, err := s.Owner(ctx, name)
				if err != nil {
					t.Fatal(err)
				}
				fences[i] = o.Fence()
				if i%3 == 1 {
					fences[i].Epoch++
				}
			}
			release := hold(t, s)
			var wg sync.WaitGroup
			errs := make([]error, n)
			for i, f := range fences {
				wg.Go(func() {
					w := state.Put(state.KindSignal, "x", []byte("v"))
					if i%3 == 2 {
						w.If = state.Exists()
					}
					errs[i] = s.Commit(ctx, f, "", []state.Write{state.Put(state.KindSignal, "y", nil), w})
				})
			}
			var bad error
			if broken {
				wg.Go(func() {
					bad = s.writer.submit(ctx, "break", func(ctx context.Context, w *writer) error {
						if _, err := w.conn.ExecContext(ctx, "INSERT INTO owner VALUES ('half', '', 1, 0)"); err != nil {
							return err
						}
						_, err := w.conn.ExecContext(ctx, "INSERT INTO owner VALUES (NULL)")
						return err
					})
				})
			}
			waiting := int64(n)
			if broken {
				waiting++
			}
			gathered(s, waiting)
			release()
			wg.Wait()
			for i, err := range errs {
				want := []error{nil, state.ErrFenced, state.ErrConflict}[i%3]
				if !errors.Is(err, want) {
					t.Errorf("commit %d: %v, want %v", i, err, want)
				}
				for _, id := range []string{"x", "y"} {
					_, err := s.Get(ctx, state.OfSession(fmt.Sprintf("s%d", i)), state.Key{Kind: state.KindSignal, ID: id})
					if (err == nil) != (want == nil) {
						t.Errorf("record %s of commit %d: %v, although it ended with %v", id, i, err, want)
					}
				}
			}
			if broken {
				if !errors.Is(bad, state.ErrUnavailable) {
					t.Errorf("the broken change: %v", bad)
				}
				if _, err := s.Owner(ctx, "half"); !errors.Is(err, state.ErrNotFound) {
					t.Errorf("half of the broken change is there: %v", err)
				}
			}
		})
	}
}

// Waiting changes share transactions.
func TestFewTransactions(t *testing.T) {
	s := openInside(t)
	ctx := t.Context()
	before := s.writer.transactions.Load()
	release := hold(t, s)
	var wg sync.WaitGroup
	const n = 100
	for i := range n {
		wg.Go(func() {
			if err := s.Update(ctx, state.Fleet, []state.Write{state.Put(state.KindFleet, fmt.Sprint(i), nil)}); err != nil {
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	gathered(s, n)
	release()
	wg.Wait()
	if took := s.writer.transactions.Load() - before; took > n/2 {
		t.Errorf("%d updates that waited together took %d transactions", n, took)
	}
}

// A caller that gives up while it waits has changed nothing.
func TestGivingUp(t *testing.T) {
	s := openInside(t)
	release := hold(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- s.Update(ctx, state.Fleet, []state.Write{state.Put(state.KindFleet, "x", nil)})
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("an update that was given up: %v", err)
	}
	release()
	if _, err := s.Get(t.Context(), state.Fleet, state.Key{Kind: state.KindFleet, ID: "x"}); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("it had an effect: %v", err)
	}
}

// A full disk fails what does not fit, in clear words, and nothing else; when
// there is space again it goes on.
func TestDiskFull(t *testing.T) {
	s := openInside(t)
	ctx := t.Context()
	if err := s.CreateSession(ctx, "a", []state.Write{state.Put(state.KindSpec, "", []byte("kept"))}); err != nil {
		t.Fatal(err)
	}
	// The connection is told that the disk ends here. It forgets that when it is
	// opened anew, which is what frees the disk in this test.
	pages := pragma(t, s, "page_count")
	pragma(t, s, fmt.Sprintf("max_page_count = %d", pages))
	large := []state.Write{state.Put(state.KindStatus, "", make([]byte, 100<<10))}
	err := s.Update(ctx, state.OfSession("a"), large)
	if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "disk is full") || !strings.Contains(err.Error(), s.path) {
		t.Errorf("the disk is full: %v", err)
	}
	if r, err := s.Get(ctx, state.OfSession("a"), state.Key{Kind: state.KindSpec}); err != nil || string(r.Value) != "kept" {
		t.Errorf("what was there before is %q, %v", r.Value, err)
	}
	if _, err := s.Get(ctx, state.OfSession("a"), state.Key{Kind: state.KindStatus}); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("what did not fit: %v", err)
	}
	if err := s.Update(ctx, state.OfSession("a"), large); err != nil {
		t.Errorf("there is space again: %v", err)
	}
}

// A file of the format before is brought up to the next in place; a step that
// fails leaves it as it was.
func TestMigration(t *testing.T) {
	s := openInside(t)
	ctx := t.Context()
	if err := s.CreateSession(ctx, "a", nil); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The store beside it may be tidying up just now; Open waits for it likewise.
	if _, err := conn.ExecContext(ctx, "PRAGMA busy_timeout = 5000"); err != nil {
		t.Fatal(err)
	}
	version := func() (v int) {
		t.Helper()
		if err := conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	now := len(migrations)
	next := append(append([]string{}, migrations...), "ALTER TABLE owner ADD COLUMN note TEXT NOT NULL DEFAULT 'new';")
	broken := append(append([]string{}, migrations...), "CREATE TABLE extra (x);", "SELECT nonsense FROM nowhere;")
	if err := migrate(ctx, conn, now, broken); err == nil {
		t.Error("a step that cannot be taken was taken")
	}
	var extra int
	if err := conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE name = 'extra'").Scan(&extra); err != nil || extra != 0 || version() != now {
		t.Errorf("half of an upgrade is there: %d, %v, format %d", extra, err, version())
	}
	if err := migrate(ctx, conn, now, next); err != nil {
		t.Fatalf("upgrading: %v", err)
	}
	var note string
	if err := conn.QueryRowContext(ctx, "SELECT note FROM owner WHERE name = 'a'").Scan(&note); err != nil || note != "new" || version() != now+1 {
		t.Errorf("after the upgrade: %q, %v, format %d", note, err, version())
	}
	if err := migrate(ctx, conn, now+1, next); err != nil {
		t.Errorf("when there is nothing to do: %v", err)
	}
}

func TestNoGoroutinesAreLeft(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	s, err := Open(filepath.Join(t.TempDir(), "state.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CreateSession(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, ignore)
}
