// Package guide tests the guide: what its pages tell to type is typed, and what
// they link to is there.
package guide

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/guide/follow"
)

// root is the folder of the source.
var root = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

// need skips a test for which something is not installed; see CONTRIBUTING.md.
func need(t *testing.T, ok bool, why string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

var curlVersion = regexp.MustCompile(`^curl (\d+)\.(\d+)`)

// curlKnowsJSON tells whether there is a curl with --json, which came with 7.82.
func curlKnowsJSON() bool {
	out, err := exec.Command("curl", "--version").Output()
	m := curlVersion.FindSubmatch(out)
	if err != nil || m == nil {
		return false
	}
	major, _ := strconv.Atoi(string(m[1]))
	minor, _ := strconv.Atoi(string(m[2]))
	return major > 7 || major == 7 && minor >= 82
}

// program builds holdfast as make build does, once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "holdfast-guide")
	if err != nil {
		return "", err
	}
	built = dir
	file := filepath.Join(dir, "holdfast")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-X main.release=devel", "-o", file, "./cmd/holdfast")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", &buildError{string(out)}
	}
	return file, nil
})

var built string // the folder of the program, to be removed

type buildError struct{ out string }

func (e *buildError) Error() string { return "go build: " + e.out }

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

// TestPagesAreAsTheySay types what the pages tell to type.
func TestPagesAreAsTheySay(t *testing.T) {
	_, err := exec.LookPath("bash")
	need(t, err == nil, "bash is not installed, and pages are followed with it")
	need(t, curlKnowsJSON(), "curl 7.82 or newer is not installed, and the pages use curl --json")
	_, err = exec.LookPath("make")
	need(t, err == nil, "make is not installed, and the pages use it")
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range followed(t) {
		t.Run(strings.ReplaceAll(strings.TrimSuffix(filepath.ToSlash(page), ".md"), "/", "."), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			var log bytes.Buffer
			if err := follow.File(ctx, filepath.Join(root, page), follow.Options{Binary: binary, Source: root, Log: &log}); err != nil {
				lines := strings.Split(log.String(), "\n")
				t.Errorf("%s\n\nWhat was done:\n%s", err, strings.Join(lines[max(0, len(lines)-60):], "\n"))
			}
		})
	}
}

// followed lists the pages with marks to follow, which some must have.
func followed(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, page := range pages(t) {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("<!-- follow")) {
			found = append(found, page)
		}
	}
	for _, must := range []string{"README.md", "infra/guide/quick-start-local.md", "infra/guide/bots.md", "infra/guide/testing-a-bot.md"} {
		if !contains(found, must) {
			t.Errorf("%s has nothing to follow", must)
		}
	}
	return found
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if filepath.ToSlash(s) == one {
			return true
		}
	}
	return false
}

// pages lists the Markdown pages for readers: those at the top and the guide's.
func pages(t *testing.T) []string {
	t.Helper()
	top, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range top {
		found = append(found, filepath.Base(file))
	}
	err = filepath.WalkDir(filepath.Join(root, "infra", "guide"), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "testdata" {
			return filepath.SkipDir
		}
		if rel, err := filepath.Rel(root, path); err == nil && strings.HasSuffix(path, ".md") {
			found = append(found, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 15 {
		t.Fatalf("only %d pages were found: %v", len(found), found)
	}
	return found
}
