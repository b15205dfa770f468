package main

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPack(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "function")
	if err := os.WriteFile(source, []byte("machine code"), 0o600); err != nil {
		t.Fatal(err)
	}
	var zips [2][]byte
	for i := range zips {
		to := filepath.Join(dir, "out", "f.zip")
		// A file's own time has no part in it.
		if err := os.Chtimes(source, time.Time{}, time.Unix(int64(1_700_000_000+1e6*i), 0)); err != nil {
			t.Fatal(err)
		}
		if err := run([]string{source, to}, io.Discard); err != nil {
			t.Fatal(err)
		}
		var err error
		if zips[i], err = os.ReadFile(to); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(zips[0], zips[1]) {
		t.Error("the same function gives other bytes")
	}
	z, err := zip.NewReader(bytes.NewReader(zips[0]), int64(len(zips[0])))
	if err != nil || len(z.File) != 1 || z.File[0].Name != "bootstrap" || z.File[0].Mode() != 0o755 {
		t.Fatalf("%+v, %v", z, err)
	}
	f, err := z.File[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(f); err != nil || string(body) != "machine code" {
		t.Errorf("%q, %v", body, err)
	}
	if err := run(nil, io.Discard); err == nil {
		t.Error("without arguments it has nothing to do")
	}
}
