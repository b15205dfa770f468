package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// table is figures side by side.
type table struct {
	title string
	head  []string
	rows  [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s\n", t.title)
	w := tabwriter.NewWriter(out, 2, 0, 3, ' ', 0)
	for _, row := range append([][]string{t.head}, t.rows...) {
		fmt.Fprintln(w, "  "+strings.Join(row, "\t"))
	}
	_ = w.Flush()
}

// bound prints a figure with its bound, and notes a miss.
func (b *bench) bound(what, have, want string, ok bool) {
	verdict := "ok"
	if !ok {
		verdict = "MISSED"
		b.errs = append(b.errs, fmt.Errorf("%s: %s, not %s", what, have, want))
	}
	fmt.Fprintf(b.out, "  → %s: %s (bound: %s) %s\n", what, have, want, verdict)
}

func f1(v float64) string { return fmt.Sprintf("%.1f", v) }
func f2(v float64) string { return fmt.Sprintf("%.2f", v) }
