package follow

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// needBash skips where there is none; see CONTRIBUTING.md.
func needBash(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("bash"); err == nil {
		return
	}
	const why = "bash is not installed, and pages are followed with it"
	if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func TestAPageThatIsRight(t *testing.T) {
	needBash(t)
	var log bytes.Buffer
	if err := File(t.Context(), "testdata/good.md", Options{Log: &log}); err != nil {
		t.Fatalf("%s\n%s", err, log.String())
	}
	if !strings.Contains(log.String(), "good day") {
		t.Errorf("the log does not hold what was printed:\n%s", log.String())
	}
}

// What is wrong with a page is told with the line that it is wrong at.
func TestWhatIsWrongIsTold(t *testing.T) {
	needBash(t)
	for name, c := range map[string]struct {
		page string
		says []string // in its error, which begins with the first
	}{
		"another output":      {"# P\n\n<!-- follow -->\n```sh\necho one\necho two\n```\n\n```output\none\nthree\n```\n", []string{"page.md:9: ", "differs", "    two"}},
		"more output":         {"<!-- follow -->\n```sh\necho one\necho two\n```\n```output\none\n```\n", []string{"page.md:6: ", "differs"}},
		"a failing command":   {"# P\n\n<!-- follow -->\n```sh\necho one\nls no-such-file\necho two\n```\n", []string{"page.md:6: ", "it fails with 2: ls no-such-file", "    one"}},
		"failing in a pipe":   {"<!-- follow -->\n```sh\nfalse | cat\n```\n", []string{"page.md:3: ", "it fails with 1"}},
		"a wrong sign":        {"<!-- follow -->\n```sh\necho (\n```\n", []string{"page.md:3: ", "it ends the session", "syntax error"}},
		"an end":              {"<!-- follow -->\n```sh\nexit 3\n```\n", []string{"page.md:3: ", "it ends the session"}},
		"a hanging command":   {"\n\n<!-- follow: within=1s -->\n```sh\necho begun\nsleep 1000\n```\n", []string{"page.md:5: ", "it does not end within 1s", "    begun"}},
		"no failure":          {"<!-- follow: fails -->\n```sh\ntrue\n```\n", []string{"page.md:3: ", "it succeeds"}},
		"never printed":       {"<!-- follow: until within=1s -->\n```sh\necho one\n```\n```output\ntwo\n```\n", []string{"page.md:5: ", "does not come to print this", "    one"}},
		"ended beside":        {"<!-- follow: background -->\n```sh\necho one; false\n```\n```output\ntwo\n```\n", []string{"page.md:3: ", "it ends before it prints", "    one"}},
		"silent beside":       {"<!-- follow: background within=1s -->\n```sh\necho one; sleep 1000\n```\n```output\ntwo\n```\n", []string{"page.md:5: ", "does not come to print", "    one"}},
		"not printed later":   {"<!-- follow: background -->\n```sh\necho one; sleep 1000\n```\n<!-- follow: prints within=1s -->\n```output\ntwo\n```\n", []string{"page.md:6: ", "does not come to print", "    one"}},
		"nothing that prints": {"<!-- follow: prints -->\n```output\ntwo\n```\n", []string{"page.md:1: ", "no background command"}},
		"printed by a shell":  {"<!-- follow: prints -->\n```sh\ntwo\n```\n", []string{"page.md:2: ", "language output"}},
		"nothing to end":      {"<!-- follow: interrupt -->\n", []string{"page.md:1: ", "no background command"}},
		"ended too early":     {"<!-- follow: background -->\n```sh\necho one\n```\n<!-- follow: until -->\n```sh\njobs -r\n```\n```output\n```\n\n<!-- follow: kill -->\n", []string{"page.md:12: ", "the command of line 3 has ended"}},
		"an unknown mark":     {"\n<!-- follow: sometimes -->\n```sh\n```\n", []string{"page.md:2: ", `"sometimes"`}},
		"an unknown page":     {"<!-- follow page: simulated -->\n", []string{"page.md:1: ", `"simulated"`}},
		"a bad time":          {"<!-- follow: within=soon -->\n```sh\n```\n", []string{"page.md:1: ", "within=soon"}},
		"two words":           {"<!-- follow: until background -->\n```sh\n```\n", []string{"page.md:1: ", "do not go together"}},
		"a mistyped mark":     {"x\n<!-- follow until -->\n```sh\n```\n", []string{"page.md:2: ", "not written as one"}},
		"a mark for nothing":  {"<!-- follow -->\n\ntext\n", []string{"page.md:1: ", "no block follows"}},
		"another language":    {"<!-- follow -->\n```python\nexit()\n```\n", []string{"page.md:2: ", `"python"`}},
		"no end of a block":   {"x\n```sh\ntrue\n", []string{"page.md:2: ", "does not end"}},
		"nothing to wait for": {"<!-- follow: until -->\n```sh\ntrue\n```\n", []string{"page.md:3: ", "no output"}},
		"nothing to follow":   {"# P\n", []string{"page.md:1: ", "nothing in it"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "page.md")
			if err := os.WriteFile(file, []byte(c.page), 0o600); err != nil {
				t.Fatal(err)
			}
			err := File(t.Context(), file, Options{})
			if err == nil {
				t.Fatal("the page is wrong, and nothing is told")
			}
			text := strings.TrimPrefix(err.Error(), filepath.Dir(file)+"/")
			if !strings.HasPrefix(text, c.says[0]) {
				t.Errorf("told: %s\nwant it to begin with %s", text, c.says[0])
			}
			for _, s := range c.says[1:] {
				if !strings.Contains(text, s) {
					t.Errorf("told: %s\nwant in it: %s", text, s)
				}
			}
		})
	}
}

// Nothing that a page has started is left when following it has ended, also
// where it was given up.
func TestNothingIsLeftRunning(t *testing.T) {
	needBash(t)
	for name, c := range map[string]struct {
		end  string
		fine bool
	}{
		"at the end":   {"", true},
		"after a kill": {"<!-- follow: kill -->\n", true},
		"given up":     {"<!-- follow -->\n```sh\nfalse\n```\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file, pid := filepath.Join(dir, "page.md"), filepath.Join(dir, "pid")
			page := "<!-- follow: background -->\n```sh\nsh -c 'echo $PPID >\"$1\"; echo ready; sleep 1000' - \"$NOTE\"\n```\n```output\nready\n```\n" + c.end
			if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := File(t.Context(), file, Options{Env: []string{"NOTE=" + pid}}); (err == nil) != c.fine {
				t.Fatal(err)
			}
			group, err := strconv.Atoi(strings.TrimSpace(read(pid)))
			if err != nil {
				t.Fatal(err)
			}
			if lives(group) {
				t.Error("it still runs")
			}
		})
	}
}

func TestAFollowingThatIsCancelledEnds(t *testing.T) {
	needBash(t)
	file := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(file, []byte("<!-- follow -->\n```sh\nsleep 1000\n```\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("the reader has left")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, gone)
	defer cancel()
	if err := File(ctx, file, Options{}); err == nil || !strings.Contains(err.Error(), gone.Error()) {
		t.Errorf("told: %v", err)
	}
}
