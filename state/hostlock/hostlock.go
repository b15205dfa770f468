// Package hostlock tells the worker processes of one host which of them have
// ended, without waiting for heartbeats.
//
// Each incarnation holds a lock on a file of its own, DIR/<incarnation>.lock, as
// long as its process lives. The system drops the lock when the process ends,
// however it ends: kill -9, a crash, an OOM kill. Who finds the file and can lock
// it knows that its process is gone, and may declare that incarnation dead at
// once. Who cannot knows nothing new: the process may be frozen, and then it is
// the standing heartbeat that counts.
//
//	Hold ──► locked ── release ──► no file: says nothing
//	            │
//	            └── the process ends ──► file without a lock: Gone
//	                                            │
//	                                            └── forgotten, Sweep ──► no file
//
// The folder must be on a local disk of that host, as the SQLite file beside it:
// over a network a lock may look free that another host holds.
package hostlock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/holdfast-wa/holdfast/state"
)

const (
	suffix  = ".lock"
	newborn = ".new-" // before the name of a file that may not be locked yet
	// newbornLife is the time after which such a file is a leftover.
	newbornLife = time.Minute
)

// Hold locks an incarnation's file until release is called or this process
// ends. It must be called before the incarnation joins: from then on others may
// ask Gone. The folder is made if it is not there. Incarnation ids are never used
// twice; that a file of this one is there is an error.
func Hold(dir, incarnation string) (release func(), err error) {
	if err := state.CheckIncarnation(incarnation); err != nil {
		return nil, fmt.Errorf("host lock: %w", err)
	}
	path := filepath.Join(dir, incarnation+suffix)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("host lock %s: its folder cannot be made: %w", path, err)
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("host lock %s: %w; give each run of a worker an id of its own", path, fs.ErrExist)
	}
	// It gets its name when it is locked: under that name it is never seen free.
	early := filepath.Join(dir, newborn+incarnation)
	lock := flock.New(early)
	got, err := lock.TryLock()
	if err == nil && !got {
		err = fs.ErrExist
	}
	if err == nil {
		err = os.Rename(early, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("host lock %s: cannot be taken: %w", path, err), lock.Close())
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			// In this order: a file that is free would say that the process has ended.
			_ = os.Remove(path)
			_ = lock.Close()
		})
	}, nil
}

// Gone tells whether the process of an incarnation has ended: true only if its
// file is there and nobody holds its lock. Everything else, a missing file
// included, says nothing and is false.
func Gone(dir, incarnation string) bool {
	if state.CheckIncarnation(incarnation) != nil {
		return false
	}
	path := filepath.Join(dir, incarnation+suffix)
	// Shared, so that several who ask at once do not see one another.
	lock := flock.New(path, flock.SetFlag(os.O_RDONLY))
	got, err := lock.TryRLock()
	if err != nil || !got {
		return false
	}
	defer lock.Close()
	// It may be free because it was released in order since it was opened: then it
	// has no name any more.
	locked, err := lock.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(locked, named)
}

// Sweep removes the files of processes that have ended, less those of the
// incarnations that are still remembered: as long as one is, its file is what
// says that it is gone.
func Sweep(dir string, remembered []string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("host locks %s: cannot be listed: %w", dir, err)
	}
	var errs []error
	for _, e := range entries {
		incarnation, named := strings.CutSuffix(e.Name(), suffix)
		switch {
		case strings.HasPrefix(e.Name(), newborn):
			// Left behind by a process that was killed within Hold, unless it is new.
			if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < newbornLife {
				continue
			}
		case !named, state.CheckIncarnation(incarnation) != nil, slices.Contains(remembered, incarnation):
			continue
		}
		errs = append(errs, remove(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// remove removes a file that nobody holds.
func remove(path string) error {
	lock := flock.New(path, flock.SetFlag(os.O_RDONLY))
	got, err := lock.TryLock()
	if errors.Is(err, fs.ErrNotExist) || err == nil && !got {
		return nil
	}
	if err == nil {
		err = os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err := errors.Join(err, lock.Close()); err != nil {
		return fmt.Errorf("host lock %s: cannot be removed: %w", path, err)
	}
	return nil
}
