package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/term"

	"github.com/holdfast-wa/holdfast/state"
)

const (
	keptNotes = 200 // lines that a screen remembers
	leastRows = 3   // of the table, however many notes there are
)

// screen is a table with lines below it that is drawn again in its place.
type screen struct {
	out   io.Writer
	size  func() (width, height int)
	notes []string
	drawn int // lines that the last drawing took
}

func newScreen(out io.Writer) *screen {
	return &screen{out: out, size: func() (int, int) {
		if f, ok := out.(*os.File); ok {
			if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
				return w, h
			}
		}
		return 80, 24
	}}
}

// note adds a line; draw shows it.
func (s *screen) note(line string) {
	if s.notes = append(s.notes, line); len(s.notes) > keptNotes {
		s.notes = slices.Delete(s.notes, 0, len(s.notes)-keptNotes)
	}
}

// draw shows a table, of which the first line is the head, and as many of the
// last notes as there is room for. Lines are cut at the width: one that wrapped
// would be left over at the next drawing.
func (s *screen) draw(table []string) error {
	width, height := s.size()
	room := max(height-1, leastRows+1) // the cursor stands below the last line
	rows := table
	forNotes := min(len(s.notes), max(room-len(rows)-1, room/3))
	most := room - forNotes - 1
	if len(rows) > most && most <= leastRows {
		forNotes, most = 0, room
	}
	if len(rows) > most {
		rows = append(slices.Clone(rows[:most-1]), fmt.Sprintf("… and %d more", len(rows)-most+1))
	}
	if forNotes > 0 {
		rows = append(append(slices.Clone(rows), ""), s.notes[len(s.notes)-forNotes:]...)
	}
	var b bytes.Buffer
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", s.drawn)
	}
	b.WriteString("\x1b[J")
	s.drawn = 0
	for _, line := range rows {
		if r := []rune(line); len(r) >= width {
			line = string(r[:max(width-2, 0)]) + "…"
		}
		b.WriteString(line + "\n")
		s.drawn++
	}
	_, err := s.out.Write(b.Bytes())
	return err
}

// draw shows what the watcher knows. Called with mu held.
func (w *watcher) draw() error {
	list := make([]sessionView, 0, len(w.rows))
	for _, s := range w.rows {
		list = append(list, s)
	}
	// What is not as it should be comes first: it must not be cut off.
	slices.SortFunc(list, func(a, b sessionView) int {
		if x, y := a.State == state.Online, b.State == state.Online; x != y {
			if y {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tSINCE\tCAUSE\tOWNER\tEPOCH\tNEXT")
	for _, s := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", s.Name, s.State, w.a.ago(s.Since), dash(string(s.Cause)), ownerWord(s), s.Epoch, w.a.next(s))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return w.screen.draw(strings.Split(strings.TrimRight(b.String(), "\n"), "\n"))
}
