package vault_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/state/vault"
)

func TestMain(m *testing.M) {
	if root := os.Getenv("VAULT_CHILD"); root != "" {
		writeForever(root)
	}
	os.Exit(m.Run())
}

func openDir(t *testing.T, root string) *vault.Dir {
	t.Helper()
	d, err := vault.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestVault(t *testing.T) {
	statetest.Vault(t, func(t *testing.T) state.Vault { return openDir(t, filepath.Join(t.TempDir(), "vault")) })
}

func TestModes(t *testing.T) {
	root := filepath.Join(t.TempDir(), "made", "here")
	d := openDir(t, root)
	if _, err := d.PutObject(t.Context(), "a", "x", []byte("body")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{"": 0o700, "a": 0o700, "a/x": 0o600} {
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", path, info.Mode().Perm(), want)
		}
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	openDir(t, root)
	if info, err := os.Stat(root); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("a folder that others may read stays so: %v %v", info.Mode(), err)
	}
}

func TestLeftoversAreCleaned(t *testing.T) {
	root := t.TempDir()
	d := openDir(t, root)
	if _, err := d.PutObject(t.Context(), "a", "x", []byte("body")); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(root, "a", ".new-123")
	if err := os.WriteFile(left, []byte("bo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if names, err := d.ListObjects(t.Context(), "a"); err != nil || fmt.Sprint(names) != "[x]" {
		t.Errorf("objects %v, %v; want x alone", names, err)
	}
	openDir(t, root) // by another process, while a writer of this one is at it
	if _, err := os.Stat(left); err != nil {
		t.Errorf("a file that may still be written is gone: %v", err)
	}
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(left, old, old); err != nil {
		t.Fatal(err)
	}
	d = openDir(t, root)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a half-written file is still there: %v", err)
	}
	if body, err := d.GetObject(t.Context(), "a", "x", ""); err != nil || string(body) != "body" {
		t.Errorf("the object is %q, %v", body, err)
	}
}

func TestUnusable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string]string{"a file": file, "below a file": filepath.Join(file, "vault"), "not writable": "/sys/vault"} {
		_, err := vault.OpenDir(root)
		if !errors.Is(err, state.ErrUnavailable) {
			t.Fatalf("%s: %v, want unavailable", name, err)
		}
		if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, root) {
			t.Errorf("%s: the error is not one line that names the folder: %q", name, text)
		}
	}
	root := t.TempDir()
	d := openDir(t, root)
	if err := os.MkdirAll(filepath.Join(root, "a", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := d.GetObject(t.Context(), "a", "x", ""); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("a folder in an object's place: %v", err)
	}
	if _, err := d.PutObject(t.Context(), "a", "x", []byte("body")); !errors.Is(err, state.ErrExists) {
		t.Errorf("storing over a folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, "b"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PutObject(t.Context(), "b", "x", []byte("body")); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("a file in a session's place: %v", err)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	if err := d.Ping(t.Context()); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("the folder is gone: %v", err)
	}
}

// writeForever stores objects and says which, until it is killed.
func writeForever(root string) {
	d, err := vault.OpenDir(root)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for n := 0; ; n++ {
		name := fmt.Sprintf("%d-%d", os.Getpid(), n)
		if _, err := d.PutObject(context.Background(), "a", name, bytes.Repeat([]byte(name+"\n"), 2000)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(name)
	}
}

// What was stored is there, whole, and nothing else is, after kill -9.
func TestKilled(t *testing.T) {
	root := t.TempDir()
	for round := range 10 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "VAULT_CHILD="+root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var stored []string
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			stored = append(stored, lines.Text())
			if len(stored) == 3+round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
		if len(stored) < 3+round {
			t.Fatalf("the child said %q", stored)
		}
		d := openDir(t, root)
		names, err := d.ListObjects(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		there := map[string]bool{}
		for _, name := range names {
			there[name] = true
			body, err := d.GetObject(t.Context(), "a", name, "")
			if err != nil || !bytes.Equal(body, bytes.Repeat([]byte(name+"\n"), 2000)) {
				t.Errorf("object %s is not whole: %d bytes, %v", name, len(body), err)
			}
		}
		for _, name := range stored {
			if !there[name] {
				t.Errorf("object %s was stored and is gone", name)
			}
		}
	}
}
