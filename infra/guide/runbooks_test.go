package guide

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
)

// runbooks is the folder of the runbooks.
const runbooks = "infra/guide/runbooks"

// row is a line of a table of the index: what it is about, and its page.
var row = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| \\[[^\\]]+\\]\\(([a-z0-9-]+)\\.md\\) \\|$")

// indexed are the tables of the index: page by alarm, and by cause.
func indexed(t *testing.T) (text string, alarms, causes map[string]string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, runbooks, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	text = string(b)
	table := func(heading string) map[string]string {
		_, after, _ := strings.Cut(text, "\n## "+heading+"\n")
		after, _, _ = strings.Cut(after, "\n## ")
		rows := map[string]string{}
		for _, m := range row.FindAllStringSubmatch(after, -1) {
			if rows[m[1]] != "" {
				t.Errorf("%s: %s stands there twice", heading, m[1])
			}
			rows[m[1]] = m[2]
		}
		return rows
	}
	return text, table("By alarm"), table("By cause")
}

// TestEveryCauseAndAlarmHasARunbook, and nothing else is in the index: whoever is
// woken finds his page, and no page is about what is not there any more.
func TestEveryCauseAndAlarmHasARunbook(t *testing.T) {
	text, alarms, causes := indexed(t)
	for _, c := range state.Causes() {
		page, ok := causes[string(c)]
		if !ok {
			t.Errorf("the cause %s has no runbook; add a row to the index", c)
			continue
		}
		if b, err := os.ReadFile(filepath.Join(root, runbooks, page+".md")); err != nil || !strings.Contains(string(b), "`"+string(c)+"`") {
			t.Errorf("the page %s is said to be about the cause %s and does not name it: %v", page, c, err)
		}
		delete(causes, string(c))
	}
	for c := range causes {
		t.Errorf("the index has a cause %s, which is none", c)
	}
	for name, page := range alarms {
		// The alarm's description in AWS names the page by the alarm's name.
		if page != name {
			t.Errorf("the alarm %s has the page %s; its page has its name", name, page)
		}
	}
	defined := alarmNames(t)
	for _, name := range defined {
		if alarms[name] == "" {
			t.Errorf("the alarm %s has no runbook; add %s/%s.md and a row to the index", name, runbooks, name)
		}
	}
	for name := range alarms {
		if len(defined) > 0 && !slices.Contains(defined, name) {
			t.Errorf("the index has an alarm %s, which is none", name)
		}
	}
	if len(alarms) < 20 {
		t.Errorf("the index has %d alarms only", len(alarms))
	}

	pages, err := filepath.Glob(filepath.Join(root, runbooks, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		name := filepath.Base(page)
		if name != "README.md" && !strings.Contains(text, "("+name+")") {
			t.Errorf("the page %s is not in the index", name)
		}
	}
	guide, err := os.ReadFile(filepath.Join(root, "infra/guide/README.md"))
	if err != nil || !strings.Contains(string(guide), "(runbooks/README.md)") {
		t.Errorf("the guide does not lead to the runbooks: %v", err)
	}
}

// alarmNames are those that the Terraform module defines.
func alarmNames(t *testing.T) (names []string) {
	t.Helper()
	modules := filepath.Join(root, "terraform", "modules")
	if _, err := os.Stat(modules); errors.Is(err, fs.ErrNotExist) {
		return nil // a copy of the source without the modules
	}
	b, err := os.ReadFile(filepath.Join(modules, "observability", "alarms.json"))
	if err != nil {
		t.Fatal(err)
	}
	var meanings map[string]string
	if err := json.Unmarshal(b, &meanings); err != nil || len(meanings) == 0 {
		t.Fatalf("alarms.json: %v", err)
	}
	for name := range meanings {
		names = append(names, name)
	}
	return names
}

// sections are the headings of a runbook, in their order.
var sections = []string{"What you see", "What it means", "First look", "What to do", "How to know that it is over", "What not to do"}

// TestRunbooksAreOfOneForm and short: who reads one at night knows where to look.
func TestRunbooksAreOfOneForm(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, runbooks, "*.md"))
	if err != nil || len(pages) < 30 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		name := filepath.Base(page)
		if name == "README.md" {
			continue
		}
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range prose(string(b)) {
			if h, ok := strings.CutPrefix(l, "## "); ok {
				got = append(got, h)
			}
		}
		if !slices.Equal(got, sections) {
			t.Errorf("%s has the headings %q, want %q", name, got, sections)
		}
		if !strings.Contains(string(b), "```sh\n") {
			t.Errorf("%s has no command to copy", name)
		}
	}
}

// command finds what a page tells to type of holdfast, in blocks and in a line.
var command = regexp.MustCompile("(?m)(?:^ *|[(`|] ?)holdfast ([a-z][^`\n|>]*)")

// TestCommandsOfRunbooksAreThere: each is a command of this program, with flags
// that it has.
func TestCommandsOfRunbooksAreThere(t *testing.T) {
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(root, runbooks, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	help := map[string]string{}
	checked := 0
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range command.FindAllStringSubmatch(string(b), -1) {
			words := strings.Fields(m[1])
			args := words[:1]
			if len(words) > 1 && slices.Contains([]string{"sessions", "workers", "keys", "messages"}, words[0]) && regexp.MustCompile(`^[a-z-]+$`).MatchString(words[1]) && !strings.HasPrefix(words[1], "-") {
				args = words[:2]
			}
			name := strings.Join(args, " ")
			if _, known := help[name]; !known {
				out, err := exec.CommandContext(t.Context(), binary, append(slices.Clone(args), "--help")...).CombinedOutput()
				usage := "holdfast " + name
				if err != nil || !strings.Contains(string(out), "\n  "+usage) {
					t.Errorf("%s: there is no command %q: %v", filepath.Base(page), usage, err)
				}
				help[name] = string(out)
			}
			for _, w := range words {
				flag, _, _ := strings.Cut(strings.Trim(w, ".,;:)"), "=")
				if strings.HasPrefix(flag, "--") && !strings.Contains(help[name], flag+" ") {
					t.Errorf("%s: holdfast %s has no flag %s", filepath.Base(page), name, flag)
				}
			}
			checked++
		}
	}
	if checked < 80 {
		t.Errorf("only %d commands were found", checked)
	}
}
