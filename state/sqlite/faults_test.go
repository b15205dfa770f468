package sqlite_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/sqlite"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// filled makes a store with some sessions and records in it, closed.
func filled(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		err := s.CreateSession(t.Context(), fmt.Sprintf("s%d", i), []state.Write{state.Put(state.KindSpec, "", bytes.Repeat([]byte("x"), 3000))})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// refused opens a file that must not open, and checks that the error is one
// line that names it, and that the file is as it was.
func refused(t *testing.T, path string, want error, words string) {
	t.Helper()
	before, _ := os.ReadFile(path)
	s, err := sqlite.Open(path, sqlite.Options{})
	if err == nil {
		s.Close()
		t.Fatalf("opened; want %q", want)
	}
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %q", err, want)
	}
	if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, path) || !strings.Contains(text, words) {
		t.Errorf("the error must be one line with the file's name and %q: %s", words, text)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the file was changed")
	}
}

func overwrite(t *testing.T, path string, offset int64, with []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(with, offset)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestRefusesWhatIsNotADatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	for name, content := range map[string]string{"text": "this is a letter\n", "one byte": "S", "a page of zeros": strings.Repeat("\x00", 4096)} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			refused(t, path, state.ErrCorrupt, "not a SQLite database")
		})
	}
}

func TestRefusesDamage(t *testing.T) {
	garbage := bytes.Repeat([]byte{0x5a}, 4096)
	t.Run("a page overwritten", func(t *testing.T) {
		path := filled(t)
		overwrite(t, path, 5*4096, garbage)
		refused(t, path, state.ErrCorrupt, "damaged")
	})
	t.Run("the schema overwritten", func(t *testing.T) {
		path := filled(t)
		overwrite(t, path, 100, garbage[:3000])
		refused(t, path, state.ErrCorrupt, "damaged")
	})
	t.Run("cut short", func(t *testing.T) {
		path := filled(t)
		if err := os.Truncate(path, 6*4096); err != nil {
			t.Fatal(err)
		}
		refused(t, path, state.ErrCorrupt, "damaged")
	})
}

// A file with a torn WAL, as a power cut leaves it, opens with all that was
// whole.
func TestTornWAL(t *testing.T) {
	from := filled(t)
	s := open(t, from)
	if err := s.Update(t.Context(), state.Fleet, []state.Write{state.Put(state.KindFleet, "x", []byte("kept"))}); err != nil {
		t.Fatal(err)
	}
	// A copy taken while it is open is what a crash leaves.
	to := filepath.Join(t.TempDir(), "state.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(from + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if suffix != "" {
			b = append(b, bytes.Repeat([]byte{0x5a}, 5000)...)
		}
		if err := os.WriteFile(to+suffix, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := open(t, to).Get(t.Context(), state.Fleet, state.Key{Kind: state.KindFleet, ID: "x"})
	if err != nil || string(r.Value) != "kept" {
		t.Errorf("the last commit is %q, %v", r.Value, err)
	}
}

func execute(t *testing.T, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(query)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestRefusesAForeignDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "whatsmeow.db")
	execute(t, path, "CREATE TABLE whatsmeow_device (jid TEXT)")
	refused(t, path, state.ErrCorrupt, "another program")
}

func TestRefusesANewerFormat(t *testing.T) {
	path := filled(t)
	execute(t, path, "PRAGMA user_version = 99")
	refused(t, path, state.ErrCorrupt, "newer release")
}

func TestUnusablePlaces(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, state.ErrUnavailable, "is a folder")
	refused(t, filepath.Join(file, "state.db"), state.ErrUnavailable, "folder cannot be made")
	refused(t, "/sys/state.db", state.ErrUnavailable, "cannot be opened for writing")
	refused(t, "/dev/null", state.ErrUnavailable, "not a regular file")
	path := filled(t)
	s := open(t, path)
	refused(t, path, state.ErrUnavailable, "open in this process already")
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOddPaths(t *testing.T) {
	for _, name := range []string{"with space.db", "100%.db", "what?.db", "a#b.db", "ü😀.db", "mode=ro&x.db"} {
		path := filepath.Join(t.TempDir(), "deep", "er", name)
		s := open(t, path)
		if err := s.CreateSession(t.Context(), "a", nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o", name, info.Mode().Perm())
		}
		for _, suffix := range []string{"-wal", "-shm"} {
			if info, err := os.Stat(path + suffix); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s%s: %v, %v", name, suffix, info, err)
			}
		}
	}
}

func TestModeIsTightened(t *testing.T) {
	path := filled(t)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// What is written to a file that is gone would be lost without a word.
func TestFileTakenAway(t *testing.T) {
	path := filled(t)
	s := open(t, path)
	if err := os.Rename(path, path+".bak"); err != nil {
		t.Fatal(err)
	}
	write := func() error {
		return s.Update(t.Context(), state.Fleet, []state.Write{state.Put(state.KindFleet, "x", nil)})
	}
	for _, err := range []error{write(), s.Ping(t.Context())} {
		if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "removed while it was open") {
			t.Errorf("the file was moved away: %v", err)
		}
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := write(); !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "another file") {
		t.Errorf("another file is in its place: %v", err)
	}
	if err := os.Rename(path+".bak", path); err != nil {
		t.Fatal(err)
	}
	if err := write(); err != nil {
		t.Errorf("the file is back: %v", err)
	}
}

// Two processes may write one file; here the second is a plain connection that
// holds the lock for longer than the store waits.
func TestLockedByAnother(t *testing.T) {
	path := filled(t)
	s, err := sqlite.Open(path, sqlite.Options{Busy: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	write := func() error {
		return s.Update(t.Context(), state.Fleet, []state.Write{state.Put(state.KindFleet, "x", nil)})
	}
	if err := write(); !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("the file is locked: %v", err)
	}
	if _, err := db.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := write(); err != nil {
		t.Errorf("the lock is gone: %v", err)
	}
}

// Everything is there after a close and an open, tokens and tombstones too.
func TestReopened(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "state.db")
	s, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if err := s.CreateSession(ctx, name, nil); err != nil {
			t.Fatal(err)
		}
	}
	a, err := statetest.Take(ctx, s, "a", "w")
	if err != nil {
		t.Fatal(err)
	}
	once := []state.Write{{Record: state.Record{Key: state.Key{Kind: state.KindSignal, ID: "1"}, Value: []byte("x"), Rev: 3}, If: state.Absent()}}
	if err := s.Commit(ctx, a.Fence(), "token", once); err != nil {
		t.Fatal(err)
	}
	b, err := s.Owner(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveSession(ctx, b.Fence()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if wal, err := os.Stat(path + "-wal"); err == nil {
		t.Errorf("a WAL of %d bytes is left after a clean end", wal.Size())
	}

	again := open(t, path)
	if got, err := again.Owner(ctx, "a"); err != nil || got != a {
		t.Errorf("the owner is %v, %v; want %v", got, err, a)
	}
	if err := again.Commit(ctx, a.Fence(), "token", once); err != nil {
		t.Errorf("a commit repeated with its token: %v", err)
	}
	if err := again.CreateSession(ctx, "b", nil); err != nil {
		t.Fatal(err)
	}
	if got, err := again.Owner(ctx, "b"); err != nil || got.Epoch <= b.Epoch {
		t.Errorf("the successor's epoch is %d, %v; that of the one before was %d", got.Epoch, err, b.Epoch)
	}
}

// Expired records and tokens are removed, and only they.
func TestSweep(t *testing.T) {
	ctx := t.Context()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var passed atomic.Int64
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := sqlite.Open(path, sqlite.Options{Now: func() time.Time { return now.Add(time.Duration(passed.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CreateSession(ctx, "a", nil); err != nil {
		t.Fatal(err)
	}
	o, err := s.Owner(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, o.Fence(), "early", []state.Write{
		{Record: state.Record{Key: state.Key{Kind: state.KindEventHash, ID: "old"}, Expires: now.Add(time.Hour)}},
		{Record: state.Record{Key: state.Key{Kind: state.KindEventHash, ID: "new"}, Expires: now.Add(3 * time.Hour)}},
		{Record: state.Record{Key: state.Key{Kind: state.KindEventHash, ID: "ever"}}},
	}); err != nil {
		t.Fatal(err)
	}
	passed.Store(int64(2 * time.Hour))
	if err := s.Commit(ctx, o.Fence(), "late", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for query, want := range map[string]string{
		"SELECT group_concat(CAST(id AS TEXT) ORDER BY id) FROM record": "ever,new",
		"SELECT group_concat(substr(name, 1, 4)) FROM token":            "late",
	} {
		var got string
		if err := db.QueryRow(query).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", query, got, err, want)
		}
	}
}
