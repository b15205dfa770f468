package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// guideFolder holds the guide. Some of its pages are references, which are made
// here from the tables that the program itself works by:
//
//	make guide
//
// writes them; the test fails where a committed page is not what would be written.
const guideFolder = "../../infra/guide"

func TestGuideReferences(t *testing.T) {
	for name, page := range map[string]func() string{
		"settings.md": settingsPage,
		"causes.md":   causesPage,
		"commands.md": commandsPage,
		"metrics.md":  metricsPage,
		"api.md":      apiPage,
	} {
		t.Run(name, func(t *testing.T) {
			want := page()
			file := filepath.Join(guideFolder, name)
			if os.Getenv("HOLDFAST_WRITE_GUIDE") == "1" {
				if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v; run make guide", err)
			}
			if is := string(b); is != want {
				t.Errorf("infra/guide/%s is not what the code says; run make guide and commit it.\n%s", name, firstDifference(is, want))
			}
		})
	}
}

// firstDifference shows where two pages begin to differ.
func firstDifference(is, want string) string {
	a, b := strings.Split(is, "\n"), strings.Split(want, "\n")
	for i := range max(len(a), len(b)) {
		var x, y string
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return fmt.Sprintf("line %d is    %q\nand should be %q", i+1, x, y)
		}
	}
	return ""
}

// made begins each of these pages.
const made = "<!-- Made by `make guide` from the code. Change it there. -->\n\n"

// markdown writes a page.
type markdown struct{ strings.Builder }

func (m *markdown) line(format string, a ...any) { fmt.Fprintf(m, format+"\n", a...) }

// text is a paragraph.
func (m *markdown) text(format string, a ...any) { fmt.Fprintf(m, format+"\n\n", a...) }

// table writes rows, the first of which is the head.
func (m *markdown) table(rows [][]string) {
	for i, row := range rows {
		for j := range row {
			row[j] = cell(row[j])
		}
		m.line("| %s |", strings.Join(row, " | "))
		if i == 0 {
			m.line("|%s", strings.Repeat("---|", len(row)))
		}
	}
	m.line("")
}

// cell is text within a table.
func cell(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.ReplaceAll(s, "|", `\|`)
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// sentence begins with a capital and ends with a full stop.
func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return ""
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}
