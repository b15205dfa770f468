package guide

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

var (
	fenceLine  = regexp.MustCompile("^ *(```+|~~~+) *(\\S*)")
	codeMark   = regexp.MustCompile(`^ *<!-- code: (\S+) -->$`)
	link       = regexp.MustCompile(`\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)`)
	codeSpan   = regexp.MustCompile("`[^`]*`")
	heading    = regexp.MustCompile(`^#{1,6} +(.*?) *#*$`)
	headedLink = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// prose is a page without its fenced blocks: the lines stay where they are.
func prose(text string) []string {
	lines := strings.Split(text, "\n")
	closing := ""
	for i, l := range lines {
		switch m := fenceLine.FindStringSubmatch(l); {
		case closing != "":
			if strings.TrimSpace(l) == closing {
				closing = ""
			}
			lines[i] = ""
		case m != nil:
			closing, lines[i] = m[1], ""
		}
	}
	return lines
}

// anchors are the places that a page can be linked at, as GitHub names them.
func anchors(text string) []string {
	var found []string
	for _, l := range prose(text) {
		m := heading.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, headedLink.ReplaceAllString(m[1], "$1"))
		again := name
		for n := 1; slices.Contains(found, again); n++ {
			again = fmt.Sprintf("%s-%d", name, n)
		}
		found = append(found, again)
	}
	return found
}

// faults says what is wrong with the links of a page in dir.
func faults(text, dir string, read func(file string) (string, error)) []string {
	var found []string
	for i, l := range prose(text) {
		for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(l, "``"), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			there := text
			if target != "" {
				var err error
				if there, err = read(filepath.Join(dir, filepath.FromSlash(target))); err != nil {
					found = append(found, fmt.Sprintf("%d: %s: there is no such file", i+1, m[1]))
					continue
				}
			}
			if anchor != "" && !slices.Contains(anchors(there), anchor) {
				found = append(found, fmt.Sprintf("%d: %s: there is no heading #%s; there are %v", i+1, m[1], anchor, anchors(there)))
			}
		}
	}
	return found
}

// readPage reads what a link leads to; a folder has no text.
func readPage(file string) (string, error) {
	if info, err := os.Stat(file); err != nil || info.IsDir() {
		return "", err
	}
	b, err := os.ReadFile(file)
	return string(b), err
}

func TestLinksLeadSomewhere(t *testing.T) {
	for _, page := range pages(t) {
		text, err := readPage(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range faults(text, filepath.Dir(filepath.Join(root, page)), readPage) {
			t.Errorf("%s:%s", page, f)
		}
	}
}

// TestEveryPageIsInTheIndex, which is where readers look.
func TestEveryPageIsInTheIndex(t *testing.T) {
	index, err := readPage(filepath.Join(root, "infra", "guide", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages(t) {
		rel, err := filepath.Rel(filepath.Join("infra", "guide"), page)
		if err != nil {
			t.Fatal(err)
		}
		rel = filepath.ToSlash(rel)
		if strings.HasPrefix(rel, "../") || rel == "README.md" {
			continue
		}
		// A folder may have an index of its own.
		if dir, file := filepath.Split(rel); dir != "" {
			own, err := readPage(filepath.Join(root, "infra", "guide", dir, "README.md"))
			if err == nil && (file == "README.md" || strings.Contains(own, "]("+file)) {
				continue
			}
		}
		if !strings.Contains(index, "]("+rel) {
			t.Errorf("infra/guide/README.md does not name %s", rel)
		}
	}
}

// TestLinksThatLeadNowhereAreFound keeps the checks themselves honest.
func TestLinksThatLeadNowhereAreFound(t *testing.T) {
	files := map[string]string{
		"/d/a.md": "# One\n## `two` words: x_y, [three](b.md)!\n## One\n```\n# none\n```\n",
	}
	read := func(file string) (string, error) {
		if text, ok := files[file]; ok {
			return text, nil
		}
		return "", os.ErrNotExist
	}
	for text, want := range map[string]int{
		"[a](a.md) and [a](a.md#one), [again](a.md#one-1), [w](a.md#two-words-x_y-three)": 0,
		"[b](b.md)":                                1,
		"[b](../d/a.md#none)":                      1,
		"[b](a.md#two)\n[x](y)":                    2,
		"[one [two]](b.md)":                        1,
		"# Here\n[h](#here) [g](#gone)":            1,
		"`[b](b.md)`\n```\n[b](b.md)\n```\n":       0,
		"[w](https://example.org/nowhere#nothing)": 0,
	} {
		if got := faults(text, "/d", read); len(got) != want {
			t.Errorf("%q: %d faults are found, want %d: %v", text, len(got), want, got)
		}
	}
}

// TestShownCodeIsTheFiles: a block under a mark <!-- code: FILE --> is a part of
// that file, which is compiled and tested where it lies.
func TestShownCodeIsTheFiles(t *testing.T) {
	shown := 0
	for _, page := range pages(t) {
		text, err := readPage(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(text, "\n")
		for i, l := range lines {
			m := codeMark.FindStringSubmatch(l)
			if m == nil {
				continue
			}
			shown++
			file, err := readPage(filepath.Join(root, filepath.Dir(page), m[1]))
			if err != nil {
				t.Errorf("%s:%d: %v", page, i+1, err)
				continue
			}
			begin := i + 2
			end := begin
			for end < len(lines) && !strings.HasPrefix(lines[end], "```") {
				end++
			}
			if block := strings.Join(lines[begin:end], "\n"); block == "" || !strings.Contains(file, block+"\n") {
				t.Errorf("%s:%d: this block is not in %s any more", page, begin, m[1])
			}
		}
	}
	if shown == 0 {
		t.Error("no page shows code of a file; then this test is of no use")
	}
}
