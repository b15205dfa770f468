// Package follow does what a Markdown page tells its reader to do: it types the
// page's commands into one bash session and compares what they print with what
// the page says. A page that is wrong then fails a test, with its line.
//
// A mark is an HTML comment, which nobody sees who reads the page. It stands
// before the fenced block that it is for:
//
//	<!-- follow -->             run it; it must succeed within the limit
//	<!-- follow: until -->      run it again until it prints what follows it
//	<!-- follow: background --> run it beside the others, as in a terminal of its own
//	<!-- follow: fails -->      its last command must fail
//	<!-- follow: within=90s --> another limit than 60 s; may be added to the words above
//
// before a block of output:
//
//	<!-- follow: prints -->     the last background command prints this some time from here on
//
// or alone, between blocks:
//
//	<!-- follow: interrupt -->  types Ctrl-C where the last background command runs, and waits for its end
//	<!-- follow: kill -->       the same with kill -9
//
// The next block whose language is output is what the commands print, on both
// outputs; in it … stands for any text. That of a background command is what it
// prints at some time, from its beginning on.
//
// At the top of the page, for all of it:
//
//	<!-- follow page: sim -->      a simulated WhatsApp service is there, and holdfast uses it; $sim is its control API
//	<!-- follow page: autoscan --> the same, and a simulated phone scans each QR code
//	<!-- follow page: source -->   the folder is a copy of the source, with bin/holdfast built
//
// The session begins in an empty folder with holdfast in its PATH. A page shows
// the usual addresses; each 127.0.0.1:PORT in its commands is another, free port
// while it is followed, the same one throughout, and 127.0.0.1:8080 is where
// holdfast listens.
package follow

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// limit is how long a block may take, and how long until and background wait.
const limit = 60 * time.Second

// page is a Markdown page, as far as it can be followed.
type page struct {
	words []string // of the page's own marks
	steps []step
}

// does tells whether the page has a mark of its own with this word.
func (p page) does(word string) bool { return slices.Contains(p.words, word) }

// step is one block of commands, or a mark that stands alone.
type step struct {
	word   string // run, until, background, fails, prints, interrupt, kill
	within time.Duration
	line   int // of the first command, or of the mark; from 1
	text   string

	wants      *string // what it prints; nil: anything
	wantsLine  int
	wantsMatch *regexp.Regexp
}

var (
	pageWords  = []string{"sim", "autoscan", "source"}
	blockWords = []string{"until", "background", "fails", "prints"}
	loneWords  = []string{"interrupt", "kill"}

	mark  = regexp.MustCompile(`^<!-- follow( page)?(?:: (.*?))? -->$`)
	fence = regexp.MustCompile("^( *)(```+|~~~+)\\s*(\\S*)")
)

// fault is what is wrong at a line of a page.
type fault struct {
	name string
	line int
	why  string
}

func (f *fault) Error() string { return fmt.Sprintf("%s:%d: %s", f.name, f.line, f.why) }

// parse reads a page. Its name is for errors.
func parse(name string, text []byte) (page, error) {
	var (
		p       page
		waiting *step  // a mark, for the block that follows it
		latest  int    // the step that an output block belongs to, from 1; 0: none
		closing string // the end of the block that the line is in; empty: in none
		body    []string
		begin   int
		indent  int // of the block, which may stand in a list
		lang    string
	)
	wrong := func(line int, format string, a ...any) error {
		return &fault{name, line, fmt.Sprintf(format, a...)}
	}
	lines := strings.Split(string(bytes.TrimRight(text, "\n")), "\n")
	for i, l := range lines {
		n := i + 1
		if closing != "" {
			if strings.TrimSpace(l) != closing {
				body = append(body, undented(l, indent))
				continue
			}
			closing = ""
			block := strings.Join(body, "\n")
			switch {
			case waiting != nil && waiting.word == "prints":
				if lang != "output" {
					return p, wrong(begin, "what is printed is a block of language output, not %q", lang)
				}
				waiting.wants, waiting.wantsLine, waiting.wantsMatch = &block, begin, pattern("…"+block, true)
				p.steps = append(p.steps, *waiting)
				waiting, latest = nil, 0
			case waiting != nil:
				if lang != "sh" && lang != "bash" {
					return p, wrong(begin, "a block to follow is of language %q: sh or bash are run", lang)
				}
				waiting.line, waiting.text = begin+1, block
				p.steps = append(p.steps, *waiting)
				waiting, latest = nil, len(p.steps)
			case lang == "output" && latest > 0:
				s := &p.steps[latest-1]
				s.wants, s.wantsLine = &block, begin
				s.wantsMatch = pattern(block, s.word == "background")
				latest = 0
			default:
				latest = 0
			}
			continue
		}
		if m := fence.FindStringSubmatch(l); m != nil {
			indent, closing, lang, begin, body = len(m[1]), m[2], m[3], n, nil
			continue
		}
		m := mark.FindStringSubmatch(strings.TrimSpace(l))
		switch {
		case m == nil && strings.Contains(l, "<!-- follow"):
			return p, wrong(n, "a mark to follow is not written as one; it stands alone in its line, as <!-- follow: until -->")
		case m == nil:
			continue
		case waiting != nil:
			return p, wrong(n, "two marks for one block; put their words into one")
		}
		words := strings.Fields(m[2])
		if m[1] != "" {
			for _, w := range words {
				if !slices.Contains(pageWords, w) {
					return p, wrong(n, "there is no mark %q for a page; use %s", w, strings.Join(pageWords, ", "))
				}
			}
			p.words = append(p.words, words...)
			continue
		}
		s, err := marked(words)
		if err != nil {
			return p, wrong(n, "%s", err)
		}
		s.line = n
		if slices.Contains(loneWords, s.word) {
			p.steps = append(p.steps, s)
			continue
		}
		waiting = &s
	}
	switch {
	case closing != "":
		return p, wrong(begin, "a block that begins here does not end")
	case waiting != nil:
		return p, wrong(waiting.line, "no block follows this mark")
	}
	for _, s := range p.steps {
		if s.word == "until" && s.wants == nil {
			return p, wrong(s.line, "a block to repeat has no output to wait for; add a block of language output")
		}
	}
	return p, nil
}

// undented takes as many spaces from a line as its block is indented by.
func undented(line string, by int) string {
	for ; by > 0 && strings.HasPrefix(line, " "); by-- {
		line = line[1:]
	}
	return line
}

// marked reads the words of a block's mark.
func marked(words []string) (step, error) {
	s := step{word: "run", within: limit}
	for _, w := range words {
		if text, ok := strings.CutPrefix(w, "within="); ok {
			d, err := time.ParseDuration(text)
			if err != nil || d <= 0 {
				return s, fmt.Errorf("within=%s is no time; use for example within=90s", text)
			}
			s.within = d
			continue
		}
		if known := slices.Concat(blockWords, loneWords); !slices.Contains(known, w) {
			return s, fmt.Errorf("there is no mark %q for a block; use %s or within=TIME", w, strings.Join(known, ", "))
		}
		if s.word != "run" {
			return s, fmt.Errorf("%s and %s do not go together", s.word, w)
		}
		s.word = w
	}
	return s, nil
}

// pattern is what an output must match: the text itself, where … is any text.
// Spaces at the ends of lines and empty lines at the end do not count, and
// neither does how wide the columns of a table are.
func pattern(text string, more bool) *regexp.Regexp {
	parts := strings.Split(tidy(text), "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	end := `\z`
	if more {
		end = ""
	}
	return regexp.MustCompile(`(?s)\A` + strings.Join(parts, `.*?`) + end)
}

var (
	lineEnds = regexp.MustCompile(`[ \t\r]+\n`)
	columns  = regexp.MustCompile(`(\S)   *`)
)

func tidy(text string) string {
	return columns.ReplaceAllString(strings.TrimRight(lineEnds.ReplaceAllString(text+"\n", "\n"), "\n"), "$1  ")
}
