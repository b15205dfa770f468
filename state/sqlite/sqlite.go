// Package sqlite keeps state in one SQLite file: the default store, with no
// server beside it.
//
// # Durability
//
// The file is in WAL mode with synchronous=FULL: when Commit returns nil the
// commit has been fsynced and survives kill -9 and, as far as the disk keeps its
// word, a power cut. Writes of all sessions go through one connection and one
// goroutine, which puts everything that waits at that moment into one
// transaction, so that many sessions share one fsync. Each waiting commit still
// applies or fails by itself: its fence and conditions are looked at before its
// first write, inside the transaction. Reads have connections of their own and
// see what is committed.
//
// # One machine, several processes
//
// The file must be on a local disk: WAL does not work over a network. Any number
// of processes of one host may have it open, each once. What one of them has
// committed the others see with their next call: nothing that another process
// may change is kept in memory. Writes take turns (see turn), so that a
// heartbeat waits for about one transaction of each other process, however much
// that one writes. A write that finds the file locked for longer than
// Options.Busy fails with state.ErrUnavailable and has done nothing; so does one
// whose caller gives up before its transaction has begun. A process that is
// killed leaves no lock behind; one that is frozen within a transaction holds up
// the writes of all until it goes on or ends, as with any file of SQLite.
//
// A file copied back from a backup cannot be told from the original and would set
// ratchets back.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/holdfast-wa/holdfast/state"
)

// Options are what Open may be told. The zero value is good.
type Options struct {
	// Now is the clock by which records expire; nil: time.Now.
	Now func() time.Time
	// Busy is how long a transaction waits for another process's; 0: 5 s.
	Busy time.Duration
	// Readers is how many reads run at once; 0: 4.
	Readers int
}

// Store is a state.Store in a SQLite file.
type Store struct {
	path    string
	now     func() time.Time
	file    os.FileInfo // the file that was opened
	readers *sql.DB
	read    readStatements
	writer  *writer

	shutting atomic.Bool
	close    sync.Once
	closed   error
}

var _ state.Store = (*Store)(nil)

// Open opens the store in the file at path, which is made, as are the folders
// above it, if it is not there. The caller must Close it; a process can have a
// file open once. What stands in the way is said in one line that names the
// file: damage and foreign files wrap state.ErrCorrupt and are left as they
// are, the rest wraps state.ErrUnavailable.
func Open(path string, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Busy <= 0 {
		o.Busy = 5 * time.Second
	}
	if o.Readers <= 0 {
		o.Readers = 4
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w: %w", path, state.ErrUnavailable, err)
	}

	opened.Lock()
	defer opened.Unlock()
	found, err := prepare(path)
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w", path, err)
	}
	s := &Store{path: path, now: o.Now, file: found.info}
	turn := openTurn(path)
	s.writer = newWriter(s, dsn(path, o.Busy, writerPragmas), o.Busy, turn)
	// One after the other, so that one makes or checks the file for all.
	end := turn.take(openWait, nil)
	err = s.start(found.suspect && !inUse(path), o)
	end()
	if err != nil {
		if turn.made && errors.Is(err, state.ErrCorrupt) {
			_ = os.Remove(turn.path) // the file is not ours, or not used
		}
		return nil, errors.Join(err, s.shut())
	}
	opened.files = append(opened.files, s.file)
	return s, nil
}

// start connects, checks and upgrades the file, and begins to serve.
func (s *Store) start(suspect bool, o Options) error {
	ctx := context.Background()
	// Looked at through a connection that changes no setting of the file.
	found, err := s.examine(ctx, dsn(s.path, o.Busy, nil), suspect)
	if err != nil {
		return err
	}
	if err := s.writer.connect(ctx, func(c *sql.Conn) error { return migrate(ctx, c, found, migrations) }); err != nil {
		return err
	}
	if s.readers, err = sql.Open("sqlite", dsn(s.path, o.Busy, readerPragmas)); err != nil {
		return s.failure("open", err)
	}
	s.readers.SetMaxOpenConns(o.Readers)
	s.readers.SetMaxIdleConns(o.Readers)
	if err := s.read.prepare(ctx, s.readers); err != nil {
		return s.failure("open", err)
	}
	go s.writer.run()
	s.writer.running = true
	return nil
}

// Close waits for what is being committed, lets SQLite fold the WAL into the
// file, and closes it. Later calls fail with state.ErrUnavailable.
func (s *Store) Close() error {
	s.close.Do(func() {
		opened.Lock()
		defer opened.Unlock()
		s.closed = s.shut()
		opened.remove(s.file)
	})
	return s.closed
}

func (s *Store) shut() error {
	s.shutting.Store(true)
	s.writer.stop()
	var errs []error
	if s.readers != nil {
		errs = append(errs, s.read.all.close(), s.readers.Close())
	}
	// Last, because the last connection to close folds the WAL in.
	errs = append(errs, s.writer.disconnect(), s.writer.turn.close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("state file %s: close: %w", s.path, err)
	}
	return nil
}

// Now is the clock of Options.
func (s *Store) Now() time.Time { return s.now() }

// Ping tells whether the file is there and can be read.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.inPlace(); err != nil {
		return err
	}
	var version int
	if err := s.readers.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return s.failure("ping", err)
	}
	return nil
}

// inPlace tells whether the path still leads to the file that is open: what is
// written to a file that has been deleted or replaced would be lost.
func (s *Store) inPlace() error {
	info, err := os.Stat(s.path)
	switch {
	case err == nil && os.SameFile(info, s.file):
		return nil
	case err == nil:
		return fmt.Errorf("state file %s: %w: another file was put in its place while it was open: put the first one back, or restart", s.path, state.ErrUnavailable)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("state file %s: %w: it was removed while it was open: put it back, or restart", s.path, state.ErrUnavailable)
	}
	return fmt.Errorf("state file %s: %w: %w", s.path, state.ErrUnavailable, err)
}

// failure turns an error of the database into one of the contract's, with the
// file's name and what to do.
func (s *Store) failure(doing string, err error) error {
	if errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrCorrupt) {
		return err
	}
	kind, advice := state.ErrUnavailable, ""
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff {
		case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
			kind, advice = state.ErrCorrupt, damagedAdvice
		case lib.SQLITE_FULL:
			advice = "the disk is full; free some space, nothing that was committed is lost"
		case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
			advice = "another process holds the file locked; stop it if it hangs or should not be there"
		case lib.SQLITE_READONLY, lib.SQLITE_CANTOPEN, lib.SQLITE_PERM:
			advice = "it cannot be written; see to the owner and the mode of the file and its folder"
		case lib.SQLITE_IOERR:
			advice = "the disk or the file system fails; see the kernel log"
		}
	}
	if s.shutting.Load() {
		return fmt.Errorf("state file %s: %s: %w: closed", s.path, doing, state.ErrUnavailable)
	}
	if advice == "" {
		return fmt.Errorf("state file %s: %s: %w: %w", s.path, doing, kind, err)
	}
	return fmt.Errorf("state file %s: %s: %w: %w: %s", s.path, doing, kind, err, advice)
}

// opened holds the files that this process has open. A second descriptor of
// such a file would, when closed, drop the locks that SQLite holds on it.
var opened openFiles

type openFiles struct {
	sync.Mutex
	files []os.FileInfo
}

func (o *openFiles) has(info os.FileInfo) bool {
	for _, f := range o.files {
		if os.SameFile(f, info) {
			return true
		}
	}
	return false
}

func (o *openFiles) remove(info os.FileInfo) {
	for i, f := range o.files {
		if f == info {
			o.files = append(o.files[:i], o.files[i+1:]...)
			return
		}
	}
}

// Pragmas of the connections. The WAL is folded into the file every 16 MiB,
// which is some hundreds of commits, and cut to 64 MiB afterwards if a burst
// had let it grow. What is deleted is overwritten: wrapped keysets are there.
// The page caches are small: the system caches the file too, device state has a
// cache of its own, and what is here counts once a process in each session's memory.
var (
	writerPragmas = []string{"journal_mode(wal)", "synchronous(full)", "wal_autocheckpoint(4096)",
		"journal_size_limit(67108864)", "cache_size(-1024)", "secure_delete(1)", "temp_store(memory)"}
	readerPragmas = []string{"query_only(1)", "cache_size(-256)", "temp_store(memory)"}
)

func dsn(path string, busy time.Duration, pragmas []string) string {
	q := url.Values{"_txlock": {"immediate"}}
	q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", busy.Milliseconds()))
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}
	return u.String()
}
