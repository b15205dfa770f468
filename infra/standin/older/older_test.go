package older

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// clone makes a repository of one small program with two commits, and a clone of
// it; the second commit does not build.
func clone(t *testing.T, args ...string) (dir string, commits []string) {
	t.Helper()
	origin := filepath.Join(t.TempDir(), "origin")
	run := func(dir, name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(origin, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.org/x\n\ngo 1.26\n")
	write("cmd/holdfast/main.go", "package main\n\nvar release string\n\nfunc main() { println(release) }\n")
	run(origin, "git", "init", "-q", "-b", "main")
	commit := func() {
		run(origin, "git", "add", "-A")
		run(origin, "git", "commit", "-q", "-m", "x")
		commits = append(commits, run(origin, "git", "rev-parse", "HEAD"))
	}
	commit()
	write("cmd/holdfast/main.go", "package main\n\nfunc main() { nothing() }\n")
	commit()
	dir = filepath.Join(t.TempDir(), "clone")
	run(origin, "git", append(append([]string{"clone", "-q"}, args...), "file://"+origin, dir)...)
	return dir, commits
}

func TestBuild(t *testing.T) {
	dir, commits := clone(t)
	into := t.TempDir()
	binary, full, err := Build(t.Context(), filepath.Join(dir, "cmd"), commits[0][:10], into)
	if err != nil || full != commits[0] {
		t.Fatalf("%s, %v", full, err)
	}
	if out, err := exec.CommandContext(t.Context(), binary).CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != commits[0][:12] {
		t.Errorf("it says %q, %v", out, err)
	}
	if left, _ := filepath.Glob(filepath.Join(into, "*")); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if _, _, err := Build(t.Context(), dir, commits[1], t.TempDir()); err == nil || !strings.Contains(err.Error(), "go build") || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("one that does not build: %v", err)
	}
}

// A clone without the commit says how to get it, in one line.
func TestWithoutTheCommit(t *testing.T) {
	shallow, commits := clone(t, "--depth=1")
	whole, _ := clone(t)
	for name, c := range map[string]struct{ dir, commit, want string }{
		"shallow":   {shallow, commits[0], "is not in this clone, which is shallow; run: git fetch --unshallow"},
		"whole":     {whole, strings.Repeat("ab", 20), "is not in this clone; run: git fetch origin abab"},
		"an option": {whole, "--all", "is not in this clone"},
		"no clone":  {t.TempDir(), commits[0], "is no clone of the repository"},
	} {
		_, _, err := Build(t.Context(), c.dir, c.commit, t.TempDir())
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if (name == "no clone") == errors.Is(err, ErrMissing) {
			t.Errorf("%s: which error it is: %v", name, err)
		}
	}
}

func TestCommit(t *testing.T) {
	if got := Commit(func(string) string { return "" }); got != Oldest {
		t.Error(got)
	}
	if got := Commit(func(name string) string { return "of " + name }); got != "of "+Variable {
		t.Error(got)
	}
}
