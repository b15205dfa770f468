package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestBundle(t *testing.T) {
	var packed [2][]byte
	for i := range packed {
		dir := t.TempDir()
		program, licence := filepath.Join(dir, "holdfast"), filepath.Join(dir, "LICENSE")
		for name, mode := range map[string]os.FileMode{program: 0o700, licence: 0o600} {
			if err := os.WriteFile(name, []byte("contents of "+filepath.Base(name)), mode); err != nil {
				t.Fatal(err)
			}
			// A file's own time has no part in it, and of its mode only one bit.
			if err := os.Chtimes(name, time.Time{}, time.Unix(int64(1_700_000_000+1e6*i), 0)); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(name, mode|os.FileMode(i*0o44)); err != nil {
				t.Fatal(err)
			}
		}
		out := filepath.Join(dir, "holdfast-linux-arm64.tar.gz")
		if err := run([]string{out, program, licence}); err != nil {
			t.Fatal(err)
		}
		var err error
		if packed[i], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(packed[0], packed[1]) {
		t.Error("the same files give other bytes")
	}
	z, err := gzip.NewReader(bytes.NewReader(packed[0]))
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(z)
	for _, want := range []struct {
		name    string
		mode    int64
		content string
	}{
		{"holdfast-linux-arm64/holdfast", 0o755, "contents of holdfast"},
		{"holdfast-linux-arm64/LICENSE", 0o644, "contents of LICENSE"},
	} {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil || h.Name != want.name || h.Mode != want.mode || string(content) != want.content {
			t.Errorf("%s %o %q, %v; wanted %v", h.Name, h.Mode, content, err, want)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("something is behind the last file: %v", err)
	}
}

func TestWrongUse(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{nil, {"x.tar.gz"}, {"x.zip", "y"}, {filepath.Join(dir, "x.tar.gz"), filepath.Join(dir, "missing")}} {
		if err := run(args); err == nil {
			t.Errorf("%q is no error", args)
		}
	}
}
