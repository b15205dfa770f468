package main

import (
	"errors"
	"fmt"
	"io/fs"
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
	d, err := openDataDir(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	first, made, err := masterKey(cfg)
	if err != nil || !made {
		t.Fatalf("first start: made %v, %v", made, err)
	}
	again, made, err := masterKey(cfg)
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
	_, made, err := masterKey(cfg)
	if err == nil || made || !strings.Contains(err.Error(), "is missing, but") || !strings.Contains(err.Error(), "from your backup") {
		t.Errorf("made %v, %v", made, err)
	}
	if _, err := os.Stat(cfg.MasterKey.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key was made: %v", err)
	}
}

func TestTwoProcessesOnOneFolder(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	first, err := openDataDir(inFolder(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	_, err = openDataDir(inFolder(t, dir))
	if want := fmt.Sprintf("process %d is using it; stop that one", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("same folder: %v, want %q", err, want)
	}
	cfg, err := configOf(t, []string{"HOLDFAST_DATA_DIR=" + elsewhere, "HOLDFAST_STATE=sqlite:" + filepath.Join(t.TempDir(), "s.db")})
	if err != nil {
		t.Fatal(err)
	}
	other, err := openDataDir(cfg)
	if err != nil {
		t.Fatalf("another folder: %v", err)
	}
	third := cfg
	third.DataDir = t.TempDir()
	if _, err := openDataDir(third); err == nil || !strings.Contains(err.Error(), "is using it") {
		t.Errorf("same SQLite file from another folder: %v", err)
	}
	if err := errors.Join(first.close(), other.close()); err != nil {
		t.Fatal(err)
	}
	again, err := openDataDir(inFolder(t, dir))
	if err != nil {
		t.Fatalf("after the first one ended: %v", err)
	}
	again.close()
}

func TestAFolderThatCannotBeWritten(t *testing.T) {
	file := writeFile(t, "file", "")
	for _, dir := range []string{file, filepath.Join(file, "below"), "/proc/holdfast"} {
		_, err := openDataDir(inFolder(t, dir))
		if err == nil || !strings.HasPrefix(err.Error(), "data folder "+dir+": cannot be ") || !strings.Contains(err.Error(), "; ") {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if os.Getuid() != 0 {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		if _, err := openDataDir(inFolder(t, dir)); err == nil || !strings.Contains(err.Error(), "chown") {
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

func TestPlacesOfALaterRelease(t *testing.T) {
	cfg, err := configOf(t, []string{"HOLDFAST_STATE=dynamodb:hf", "HOLDFAST_VAULT=s3://b/p", "HOLDFAST_MASTER_KEY=awskms:arn:aws:kms:eu-west-1:1:key/x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := masterKey(cfg); err == nil || err.Error() != "master-key: awskms:arn:aws:kms:eu-west-1:1:key/x is not in this build; use file:PATH" {
		t.Errorf("master key: %v", err)
	}
	if cfg.State.String() != "dynamodb:hf" || cfg.Vault.String() != "s3://b/p" {
		t.Errorf("places are %v and %v", cfg.State, cfg.Vault)
	}
}
