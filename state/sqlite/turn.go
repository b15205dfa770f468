package sqlite

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

const (
	// turnWait is how long a writer waits for its turn before it goes without.
	turnWait = 250 * time.Millisecond
	// openWait is the same for who opens the file: another process may be
	// checking it.
	openWait = 10 * time.Second
	// What a look at a lock that others hold is repeated after: soon at first,
	// because a transaction takes about as long as an fsync.
	pauseFirst = 200 * time.Microsecond
	pauseMost  = 5 * time.Millisecond
)

// turn is what makes writers of several processes take turns: a lock on a file
// beside the database, which a writer holds from when it wants to write until
// its transaction has begun. SQLite alone would let the process that has just
// written write again and again, because the others look at the lock now and
// then only; here that one has to queue behind who waits for the database.
//
// The lock is a courtesy and protects nothing. Who does not get it in time,
// because a process was frozen while it held it, goes on without.
type turn struct {
	path   string
	file   *os.File // nil: could not be opened; there are no turns then
	made   bool     // the file was not there before
	missed bool     // the last wait was in vain
}

// openTurn opens the lock file of a database.
func openTurn(path string) *turn {
	t := &turn{path: path + "-turn"}
	_, err := os.Stat(t.path)
	t.made = errors.Is(err, fs.ErrNotExist)
	if t.file, err = os.OpenFile(t.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		t.file = nil
	}
	return t
}

func (t *turn) close() error {
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}

// take waits for the turn, at most for so long or until quit is closed, and
// returns what ends it.
func (t *turn) take(most time.Duration, quit <-chan struct{}) (end func()) {
	if t.file == nil {
		return func() {}
	}
	if t.missed {
		most = 0 // whoever has it may have it for long
	}
	fd := int(t.file.Fd())
	got := patiently(most, quit, func() (bool, error) {
		err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
		return errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR), err
	}) == nil
	t.missed = !got
	return func() {
		if got {
			_ = syscall.Flock(fd, syscall.LOCK_UN) // closing the file is the other way, and that comes
		}
	}
}

// patiently tries something until it succeeds, fails for another reason than
// being busy, or time is up; then it returns the last error.
func patiently(most time.Duration, quit <-chan struct{}, try func() (busy bool, err error)) error {
	var timer *time.Timer
	until := time.Now().Add(most)
	for pause := pauseFirst; ; pause = min(pause*3/2, pauseMost) {
		busy, err := try()
		if err == nil || !busy {
			return err
		}
		// Not in step with the others.
		wait := pause/2 + rand.N(pause)
		if time.Until(until) < wait {
			return err
		}
		if timer == nil {
			timer = time.NewTimer(wait)
			defer timer.Stop()
		} else {
			timer.Reset(wait)
		}
		select {
		case <-timer.C:
		case <-quit:
			return err
		}
	}
}

// begin begins a transaction that writes, when it is this process's turn.
func (w *writer) begin(ctx context.Context) error {
	defer w.turn.take(min(turnWait, w.busy), w.quit)()
	return patiently(w.busy, w.quit, func() (bool, error) {
		_, err := w.st.begin.ExecContext(ctx)
		return isBusy(err), err
	})
}

// isBusy tells whether another connection is in the way.
func isBusy(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == lib.SQLITE_BUSY
}

// inUse tells whether another process has the database open, as far as can be
// seen from here: SQLite keeps a lock on one byte of its index of the WAL as long
// as it has the file open.
func inUse(path string) bool {
	const deadMansSwitch = 128 // UNIX_SHM_DMS of SQLite's os_unix.c
	f, err := os.Open(path + "-shm")
	if err != nil {
		return false
	}
	defer f.Close()
	l := syscall.Flock_t{Type: syscall.F_WRLCK, Start: deadMansSwitch, Len: 1}
	return syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &l) == nil && l.Type != syscall.F_UNLCK
}
