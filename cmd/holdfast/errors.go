package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError marks an error as wrong use of the program: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// silentError ends the program with its exit code and no further line, because
// what there is to say has been written already.
type silentError struct{ code int }

func (e silentError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// report writes an error for a person, one line a fault, and returns the exit
// code that goes with it.
func report(w io.Writer, err error) int {
	if err == nil {
		return exitDone
	}
	var silent silentError
	if errors.As(err, &silent) {
		return silent.code
	}
	for _, fault := range faults(err) {
		fmt.Fprintln(w, "holdfast: "+oneLine(fault.Error()))
	}
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// faults takes errors that were joined apart again.
func faults(err error) []error {
	var usage usageError
	if errors.As(err, &usage) {
		err = usage.error
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || !strings.Contains(err.Error(), "\n") {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, faults(e)...)
	}
	return all
}

func oneLine(s string) string {
	return strings.Join(strings.Fields(plain(s)), " ")
}

// plain takes out of a text what a terminal would obey or turn around: names and
// words that strangers wrote are shown, too.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\u200e', r == '\u200f', r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069',
			r == '\u0085', unicode.IsControl(r) && !unicode.IsSpace(r):
			return -1
		}
		return r
	}, s)
}
