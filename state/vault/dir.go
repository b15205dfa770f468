// Package vault keeps credential objects, apart from the records, so that
// neither alone is worth stealing. Dir keeps them as files in a folder, S3 in a
// bucket.
package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// tempPattern is that of files which are being written. Objects' names do not
// begin with a dot, so the two cannot meet.
const (
	tempPattern = ".new-*"
	tempPrefix  = ".new-"
)

// Dir is a state.Vault in a folder: the object NAME of SESSION is the file
// SESSION/NAME. Folders have mode 0700, files 0600. An object appears under its
// name whole and fsynced or not at all, however the process ends; it has no
// versions. What an object holds is not looked at: whoever reads it compares
// its checksum.
type Dir struct {
	root string
}

var _ state.Vault = (*Dir)(nil)

// OpenDir opens the vault in the folder at root, which is made if it is not
// there, and removes what writers that were killed have left half-written. Several
// processes may have it open. Errors wrap state.ErrUnavailable.
func OpenDir(root string) (*Dir, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("vault %s: %w: %w", root, state.ErrUnavailable, err)
	}
	d := &Dir{root}
	if info, err := os.Stat(root); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("vault %s: %w: is not a folder: name one, or move the file away", root, state.ErrUnavailable)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, d.failure("make", err)
	}
	info, err := os.Stat(root)
	if err != nil {
		return nil, d.failure("open", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(root, 0o700); err != nil {
			return nil, d.failure("close to others", err)
		}
	}
	if err := d.clean(); err != nil {
		return nil, err
	}
	if err := d.Ping(context.Background()); err != nil {
		return nil, err
	}
	return d, nil
}

// abandoned is how old a half-written file must be to be removed: a writer of
// another process takes seconds.
const abandoned = time.Hour

// clean removes half-written files that nobody is writing any more.
func (d *Dir) clean() error {
	sessions, err := os.ReadDir(d.root)
	if err != nil {
		return d.failure("list", err)
	}
	for _, s := range sessions {
		if !s.IsDir() {
			if leftOver(s) {
				if err := remove(filepath.Join(d.root, s.Name())); err != nil {
					return d.failure("clean", err)
				}
			}
			continue
		}
		files, err := os.ReadDir(filepath.Join(d.root, s.Name()))
		if err != nil {
			return d.failure("list", err)
		}
		for _, f := range files {
			if !leftOver(f) {
				continue
			}
			if err := remove(filepath.Join(d.root, s.Name(), f.Name())); err != nil {
				return d.failure("clean", err)
			}
		}
	}
	return nil
}

func leftOver(e fs.DirEntry) bool {
	if !strings.HasPrefix(e.Name(), tempPrefix) {
		return false
	}
	info, err := e.Info()
	return err == nil && time.Since(info.ModTime()) > abandoned
}

// PutObject implements state.Vault. There are no version ids.
func (d *Dir) PutObject(ctx context.Context, session, name string, body []byte) (string, error) {
	path, err := d.path(ctx, session, name)
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(path)
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		if err := syncDir(d.root); err != nil {
			return "", d.failure("store", err)
		}
	case !errors.Is(err, fs.ErrExist):
		return "", d.failure("store", err)
	}
	if _, err := os.Lstat(path); err == nil {
		return "", taken(session, name)
	}
	temp, err := write(dir, body)
	if err != nil {
		return "", d.failure("store", err)
	}
	defer func() { _ = remove(temp) }()
	switch err := publish(temp, path); {
	case errors.Is(err, fs.ErrExist):
		return "", taken(session, name)
	case err != nil:
		return "", d.failure("store", err)
	}
	// The temporary name goes before the sync, so that it is gone for good too.
	if err := errors.Join(remove(temp), syncDir(dir)); err != nil {
		return "", d.failure("store", err)
	}
	return "", nil
}

func taken(session, name string) error {
	return fmt.Errorf("object %s of %s: %w", name, session, state.ErrExists)
}

// write puts the body into a new file in dir, durably.
func write(dir string, body []byte) (path string, err error) {
	f, err := os.CreateTemp(dir, tempPattern) // of mode 0600
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = remove(f.Name()) // what is left is cleaned at the next start
		}
	}()
	_, err = f.Write(body)
	if err == nil {
		err = f.Sync()
	}
	return f.Name(), errors.Join(err, f.Close())
}

// publish gives the file its name, unless that is taken.
func publish(temp, path string) error {
	err := os.Link(temp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if !errors.Is(err, syscall.EPERM) && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EMLINK) {
		return err
	}
	// The file system knows no second names (some shared folders do not). The
	// name is taken by an empty file, then the object put in its place. A crash
	// between the two leaves an empty object that nothing points to.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// GetObject implements state.Vault.
func (d *Dir) GetObject(ctx context.Context, session, name, _ string) ([]byte, error) {
	path, err := d.path(ctx, session, name)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("object %s of %s: %w", name, session, state.ErrNotFound)
	case err != nil:
		return nil, d.failure("read", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("vault %s: %w: %s is not a regular file: put the object back in its place", d.root, state.ErrCorrupt, path)
	}
	body, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("object %s of %s: %w", name, session, state.ErrNotFound)
	}
	if err != nil {
		return nil, d.failure("read", err)
	}
	return body, nil
}

// DeleteObject implements state.Vault.
func (d *Dir) DeleteObject(ctx context.Context, session, name, _ string) error {
	path, err := d.path(ctx, session, name)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	switch err := os.Remove(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return d.failure("delete", err)
	}
	if err := syncDir(dir); err != nil {
		return d.failure("delete", err)
	}
	return nil
}

// ListObjects implements state.Vault.
func (d *Dir) ListObjects(ctx context.Context, session string) ([]string, error) {
	path, err := d.path(ctx, session, "any")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, d.failure("list", err)
	}
	var names []string
	for _, e := range entries {
		if state.CheckObject(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Ping implements state.Vault: it writes a file and removes it.
func (d *Dir) Ping(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return d.failure("ping", err)
	}
	temp, err := write(d.root, []byte("ping"))
	if err != nil {
		return d.failure("write into", err)
	}
	if err := remove(temp); err != nil {
		return d.failure("write into", err)
	}
	return nil
}

// path is where an object lies. Both names are checked, so that none leads out
// of its folder.
func (d *Dir) path(ctx context.Context, session, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", d.failure("ask", err)
	}
	if err := state.CheckName(session); err != nil {
		return "", err
	}
	if err := state.CheckObject(name); err != nil {
		return "", err
	}
	return filepath.Join(d.root, session, name), nil
}

// failure says in one line what could not be done to which vault, and what
// would help.
func (d *Dir) failure(doing string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		advice = ": the disk is full; free some space, nothing that was stored is lost"
	case errors.Is(err, fs.ErrPermission):
		advice = ": give this user the right to read and write there, or choose another place"
	case errors.Is(err, syscall.EROFS):
		advice = ": the file system is read-only; choose another place"
	case errors.Is(err, syscall.ENOTDIR):
		advice = ": a file is in the place of a folder; move it away"
	}
	return fmt.Errorf("vault %s: cannot %s: %w: %w%s", d.root, doing, state.ErrUnavailable, err, advice)
}

// remove removes a file that may be gone already.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir makes changes of a folder's entries durable. File systems that cannot
// sync a folder say EINVAL; there is nothing more to be done on them.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}
