package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func inFolder(t *testing.T, dir string) Config {
	t.Helper()
	cfg, err := configOf(t, []string{"HOLDFAST_DATA_DIR=" + dir})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestFirstRunMakesTheFilesOnce(t *testing.T) {
	cfg := inFolder(t, filepath.Join(t.TempDir(), "a", "data"))
	d, err := openDataDir(cfg, shared)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	unused := func() (string, error) { return sealedAlready(cfg), nil }
	first, made, err := masterKey(t.Context(), cfg, unused)
	if err != nil || !made {
		t.Fatalf("first start: made %v, %v", made, err)
	}
	again, made, err := masterKey(t.Context(), cfg, unused)
	if err != nil || made || again.ID() != first.ID() {
		t.Errorf("second start: made %v, key %v instead of %v, %v", made, again, first.ID(), err)
	}
	key, made, err := apiKey(cfg.DataDir)
	if err != nil || !made || len(key.Reveal()) < 32 {
		t.Fatalf("first start: made %v, %d characters, %v", made, len(key.Reveal()), err)
	}
	same, made, err := apiKey(cfg.DataDir)
	if err != nil || made || same != key {
		t.Errorf("second start: made %v, same %v, %v", made, same == key, err)
	}
	for _, name := range []string{"master.key", apiKeyFile, lockFile} {
		info, err := os.Stat(filepath.Join(cfg.DataDir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, mode %v, want 0600", name, err, info.Mode().Perm())
		}
	}
	left, err := filepath.Glob(filepath.Join(cfg.DataDir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAMissingMasterKeyIsNotReplaced(t *testing.T) {
	cfg := inFolder(t, t.TempDir())
	if err := os.WriteFile(cfg.State.Path, []byte("sealed"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, made, err := masterKey(t.Context(), cfg, func() (string, error) { return sealedAlready(cfg), nil })
	if err == nil || made || !strings.Contains(err.Error(), "is missing, but") || !strings.Contains(err.Error(), "from your backup") {
		t.Errorf("made %v, %v", made, err)
	}
	if _, err := os.Stat(cfg.MasterKey.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key was made: %v", err)
	}
}

// Workers share a folder; a command that needs it for itself does not come
// between them, and they not in its way.
func TestProcessesOnOneFolder(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	first, err := openDataDir(inFolder(t, dir), shared)
	if err != nil {
		t.Fatal(err)
	}
	second, err := openDataDir(inFolder(t, dir), shared)
	if err != nil {
		t.Fatalf("a second worker: %v", err)
	}
	// A third one has a folder of its own, and the database of the others.
	cfg, err := configOf(t, []string{"HOLDFAST_DATA_DIR=" + elsewhere, "HOLDFAST_STATE=sqlite:" + filepath.Join(dir, "holdfast.db")})
	if err != nil {
		t.Fatal(err)
	}
	third, err := openDataDir(cfg, shared)
	if err != nil {
		t.Fatalf("a third worker: %v", err)
	}
	refused := func(when string) {
		t.Helper()
		d, err := openDataDir(inFolder(t, dir), alone)
		if err == nil || err.Error() != "data folder "+dir+": a holdfast is using it; stop that one first" {
			t.Errorf("%s: %v", when, err)
		}
		if err == nil {
			d.close()
		}
	}
	refused("three workers")
	if err := errors.Join(first.close(), second.close()); err != nil {
		t.Fatal(err)
	}
	refused("the worker from elsewhere")
	if err := third.close(); err != nil {
		t.Fatal(err)
	}
	command, err := openDataDir(inFolder(t, dir), alone)
	if err != nil {
		t.Fatalf("after they ended: %v", err)
	}
	want := fmt.Sprintf("data folder %s: process %d is working on it alone; wait until it has ended", dir, os.Getpid())
	for name, cfg := range map[string]Config{"here": inFolder(t, dir), "from elsewhere": cfg} {
		if _, err := openDataDir(cfg, shared); err == nil || err.Error() != want {
			t.Errorf("a worker %s beside a command: %v, want %q", name, err, want)
		}
	}
	if err := command.close(); err != nil {
		t.Fatal(err)
	}
	again, err := openDataDir(inFolder(t, dir), shared)
	if err != nil {
		t.Fatalf("after the command: %v", err)
	}
	again.close()
}

// A store that is no file keeps its processes apart by itself.
func TestNoLocksBesideAFleetsStore(t *testing.T) {
	cfg, err := configOf(t, []string{"HOLDFAST_DATA_DIR=" + t.TempDir(), "HOLDFAST_STATE=dynamodb:fleet"})
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []use{alone, shared, alone} {
		d, err := openDataDir(cfg, how)
		if err != nil {
			t.Fatal(err)
		}
		defer d.close()
	}
}

func TestAFolderThatCannotBeWritten(t *testing.T) {
	file := writeFile(t, "file", "")
	for _, dir := range []string{file, filepath.Join(file, "below"), "/proc/holdfast"} {
		_, err := openDataDir(inFolder(t, dir), shared)
		if err == nil || !strings.HasPrefix(err.Error(), "data folder "+dir+": cannot be ") || !strings.Contains(err.Error(), "; ") {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if os.Getuid() != 0 {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		if _, err := openDataDir(inFolder(t, dir), shared); err == nil || !strings.Contains(err.Error(), "chown") {
			t.Errorf("a read-only folder: %v", err)
		}
	}
}

func TestWhatTheFileSystemSays(t *testing.T) {
	for err, want := range map[error]string{
		syscall.ENOSPC: "data folder d: cannot be written: the disk is full: no space left on device; free some space",
		syscall.EDQUOT: "the disk is full",
		syscall.EROFS:  "the file system is read-only",
		syscall.EACCES: "chown",
		syscall.EIO:    "input/output error; check the folder",
	} {
		got := writeFault("data folder d", "cannot be written", &fs.PathError{Op: "write", Path: "d/x", Err: err})
		if !strings.Contains(got.Error(), want) || !errors.Is(got, err) {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

// What is neither a terminal nor asked to be text ends in a log, as a container's
// output does.
func TestTheKeyIsShownToPeopleAlone(t *testing.T) {
	for format, shown := range map[string]bool{"auto": false, "json": false, "text": true} {
		cfg := settingsOf(t, "HOLDFAST_DATA_DIR="+t.TempDir(), "HOLDFAST_LOG_FORMAT="+format)
		var out bytes.Buffer
		if _, err := devKey(cfg, IO{Out: &out, Err: &out}, slog.New(slog.NewTextHandler(&out, nil))); err != nil {
			t.Fatal(err)
		}
		key, made, err := apiKey(cfg.DataDir)
		if err != nil || made {
			t.Fatalf("made again: %v, %v", made, err)
		}
		if strings.Contains(out.String(), key.Reveal()) != shown || !strings.Contains(out.String(), filepath.Join(cfg.DataDir, apiKeyFile)) {
			t.Errorf("%s: it says %s", format, &out)
		}
	}
}

func TestAPIKeyFilesThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{"hf_abc", 0o644, "others may read it (mode 0644); run: chmod 600"},
		{" \n", 0o600, "the file is empty"},
		{"two words", 0o600, "has spaces"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, apiKeyFile)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if _, made, err := apiKey(dir); err == nil || made || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %v: made %v, %v", c.text, c.mode, made, err)
		}
	}
}
