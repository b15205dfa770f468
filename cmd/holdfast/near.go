package main

import "strings"

// didYouMean ends an error about an unknown word: the nearest of the known ones
// if one is near enough to be a slip of the finger, else the given advice.
func didYouMean(word string, known []string, otherwise string) string {
	if near := nearest(word, known); near != "" {
		return "did you mean " + near + "?"
	}
	return otherwise
}

// nearest returns the known word with the fewest edits to the given one, empty
// if all are further than a third of its length (at least one, at most three
// edits).
func nearest(word string, known []string) string {
	bound := min(max(len(word)/3, 1), 3)
	best, found := bound+1, ""
	for _, k := range known {
		d := edits(strings.ToLower(word), strings.ToLower(k), best)
		if d < best {
			best, found = d, k
		}
	}
	return found
}

// edits counts the insertions, deletions, replacements and swaps of neighbours
// that turn a into b. Counts of at least limit are returned as limit.
func edits(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], limit)
}
