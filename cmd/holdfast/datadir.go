package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofrs/flock"
)

// The files that the data folder holds beside store and vault.
const (
	lockFile   = "lock"
	apiKeyFile = "api.key"
)

// dataDir is the data folder while this process uses it.
type dataDir struct {
	path  string
	locks []*flock.Flock
}

// use is how a process uses a data folder and the SQLite file in it.
type use int

const (
	shared use = iota // a worker: others may run beside it
	alone             // a command that needs all workers to be stopped
)

// openDataDir makes the data folder if it is not there, sees that it can be
// written, and locks it together with a SQLite file that lies elsewhere, until
// close. Who is in the way is named in the error. With a store that is not a file
// nothing is locked: that store's own protocol keeps processes apart.
func openDataDir(cfg Config, how use) (*dataDir, error) {
	d := &dataDir{path: cfg.DataDir}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, writeFault("data folder "+d.path, "cannot be made", err)
	}
	if err := probe(d.path); err != nil {
		return nil, err
	}
	for _, path := range lockPaths(cfg) {
		l, err := lock(path, how)
		if err != nil {
			d.close()
			return nil, err
		}
		d.locks = append(d.locks, l)
	}
	return d, nil
}

// lockPaths are the files to lock: one in the data folder, and one beside the
// SQLite file if that is in another folder, where a process with another data
// folder could use it as well.
func lockPaths(cfg Config) []string {
	if cfg.State.Scheme != "sqlite" {
		return nil
	}
	paths := []string{filepath.Join(cfg.DataDir, lockFile)}
	if !sameFolder(filepath.Dir(cfg.State.Path), cfg.DataDir) {
		paths = append(paths, filepath.Join(filepath.Dir(cfg.State.Path), lockFile))
	}
	return paths
}

func sameFolder(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

func lock(path string, how use) (*flock.Flock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, writeFault("lock "+path, "cannot be made", err)
	}
	l := flock.New(path)
	try := l.TryLock
	if how == shared {
		try = l.TryRLock
	}
	got, err := try()
	if err != nil {
		return nil, writeFault("lock "+path, "cannot be taken", err)
	}
	folder := filepath.Dir(path)
	switch {
	case !got && how == shared:
		who := "another process"
		if pid := lockedBy(path); pid > 0 {
			who = fmt.Sprintf("process %d", pid)
		}
		return nil, fmt.Errorf("data folder %s: %s is working on it alone; wait until it has ended", folder, who)
	case !got:
		return nil, fmt.Errorf("data folder %s: a holdfast is using it; stop that one first", folder)
	case how == shared:
		return l, nil
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return nil, errors.Join(writeFault("lock "+path, "cannot be written", err), l.Close())
	}
	return l, nil
}

// lockedBy reads which process wrote the lock file last; 0 if it does not say.
func lockedBy(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// close gives the folder free. The lock files stay: removing one would let two
// processes lock two files of one name.
func (d *dataDir) close() error {
	var errs []error
	for _, l := range d.locks {
		errs = append(errs, l.Close())
	}
	d.locks = nil
	return errors.Join(errs...)
}

// probe sees whether a file can be written durably in a folder.
func probe(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return writeFault("data folder "+dir, "cannot be written", err)
	}
	defer os.Remove(f.Name())
	// One page of a database: on a full disk creating a file often still works.
	_, err = f.Write(make([]byte, 16<<10))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return writeFault("data folder "+dir, "cannot be written", err)
	}
	return nil
}

// writeFault words an error of the file system with what to do about it.
func writeFault(what, why string, err error) error {
	todo := "check the folder and the user that holdfast runs as"
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		why, todo = why+": the disk is full", "free some space, or set --data-dir to a disk that has some"
	case errors.Is(err, syscall.EROFS):
		why, todo = why+": the file system is read-only", "set --data-dir to one that can be written"
	case errors.Is(err, fs.ErrPermission):
		todo = fmt.Sprintf("give the folder to user %d (chown), or set --data-dir to one of its own", os.Getuid())
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		todo = "a file is in the way: remove it, or set --data-dir elsewhere"
	}
	return fmt.Errorf("%s: %s: %w; %s", what, why, bare(err), todo)
}

// apiKey returns the key of the data folder, making one if there is none.
func apiKey(dir string) (key Secret, made bool, err error) {
	path := filepath.Join(dir, apiKeyFile)
	key, err = readKeyFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	secret := make([]byte, 24)
	rand.Read(secret)
	text := "hf_" + base64.RawURLEncoding.EncodeToString(secret)
	// Whole or not at all: a key cut short by a crash would be taken for a key.
	f, err := os.CreateTemp(dir, ".api-*.tmp") // of mode 0600
	if err != nil {
		return "", false, writeFault("api key "+path, "cannot be made", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return "", false, writeFault("api key "+path, "cannot be written", err)
	}
	return Secret(text), true, nil
}

// readKeyFile reads a file that holds one key. It refuses one that others can
// read. The error of a missing file wraps fs.ErrNotExist.
func readKeyFile(path string) (Secret, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("api key %s: cannot be read: %w; start holdfast dev once, or set HOLDFAST_API_KEY", path, bare(err))
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("api key %s: others may read it (mode %04o); run: chmod 600 %s", path, mode, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("api key %s: cannot be read: %w; check whose file it is", path, bare(err))
	}
	var c Config
	text := strings.TrimSpace(string(b))
	if text == "" {
		return "", fmt.Errorf("api key %s: the file is empty; remove it, and the next start of holdfast dev makes a new key", path)
	}
	if err := parseAPIKey(&c, text); err != nil {
		return "", fmt.Errorf("api key %s: %w", path, err)
	}
	return c.APIKey, nil
}
