// Package older builds an older release of Holdfast from its commit, so that a
// fleet of it can be upgraded, rolled back, and judged.
package older

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Oldest is the oldest release that a fleet may be upgraded from, as its commit:
// the first one that knows fleets. Move it when a record gets a format that it
// cannot read.
const Oldest = "a0ea6bfd8fcfacb02632cbc6197be53b41f4831d"

// Variable is that of the environment which names another commit.
const Variable = "HOLDFAST_UPGRADE_FROM"

// Commit is what is upgraded from by itself.
func Commit(getenv func(string) string) string {
	if c := getenv(Variable); c != "" {
		return c
	}
	return Oldest
}

// ErrMissing says that a clone does not have the commit.
var ErrMissing = errors.New("is not in this clone")

// Build builds the release of a commit of the repository that has a folder, into
// another folder, and returns the path of the program and the commit's full name.
// The work tree is left alone.
func Build(ctx context.Context, repository, commit, into string) (binary, full string, err error) {
	full, err = resolve(ctx, repository, commit)
	if err != nil {
		return "", "", err
	}
	source := filepath.Join(into, "source")
	if err := os.MkdirAll(source, 0o700); err != nil {
		return "", "", fmt.Errorf("release %s: %w", full[:12], err)
	}
	root, err := git(ctx, repository, "rev-parse", "--show-toplevel")
	if err != nil {
		return "", "", fmt.Errorf("release %s: %w", full[:12], err)
	}
	packed, err := git(ctx, strings.TrimSpace(string(root)), "archive", "--format=tar", full)
	if err == nil {
		err = unpack(packed, source)
	}
	if err != nil {
		return "", "", fmt.Errorf("release %s: its source: %w", full[:12], err)
	}
	if binary, err = filepath.Abs(filepath.Join(into, "holdfast-"+full[:12])); err != nil {
		return "", "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-X main.release="+full[:12], "-o", binary, "./cmd/holdfast") //nolint:gosec // the release that was asked for
	cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("release %s: go build: %w: %s", full[:12], err, tail(out))
	}
	return binary, full, os.RemoveAll(source)
}

// resolve finds a commit's full name.
func resolve(ctx context.Context, repository, commit string) (string, error) {
	out, err := git(ctx, repository, "rev-parse", "--verify", "--quiet", "--end-of-options", commit+"^{commit}")
	if err == nil {
		return strings.TrimSpace(string(out)), nil
	}
	shallow, other := git(ctx, repository, "rev-parse", "--is-shallow-repository")
	switch {
	case other != nil:
		return "", fmt.Errorf("release %s: %s is no clone of the repository: %w; run it in one, or give -old a binary", commit, repository, other)
	case strings.TrimSpace(string(shallow)) == "true":
		return "", fmt.Errorf("release %s: %w, which is shallow; run: git fetch --unshallow", commit, ErrMissing)
	}
	return "", fmt.Errorf("release %s: %w; run: git fetch origin %s, or name another commit with %s", commit, ErrMissing, commit, Variable)
}

func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	var errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "git", args...) //nolint:gosec // git with arguments from here
	cmd.Dir, cmd.Stderr = dir, &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], err, tail(errs.Bytes()))
	}
	return out, nil
}

func tail(b []byte) string {
	return strings.TrimSpace(string(b[max(0, len(b)-600):]))
}

// unpack writes the regular files of a tar archive.
func unpack(packed []byte, dir string) error {
	for in := tar.NewReader(bytes.NewReader(packed)); ; {
		h, err := in.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case h.Typeflag != tar.TypeReg:
			continue
		case !fs.ValidPath(h.Name):
			return fmt.Errorf("a file is named %q", h.Name)
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		b, err := io.ReadAll(io.LimitReader(in, 64<<20))
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
	}
}
