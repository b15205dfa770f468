package main

import (
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
)

// newLog makes the program's log: text for people, else JSON. level may be changed
// while it runs.
func newLog(w io.Writer, format string, level *slog.LevelVar) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: redact}
	if forPeople(w, format) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// forPeople says whether a person reads w, and not a program: with the format auto
// where it is a terminal.
func forPeople(w io.Writer, format string) bool {
	return format == "text" || format == "auto" && terminal(w)
}

// phoneLike finds what may be a phone number: 8 to 15 digits, on their own or
// as the user of a JID, or a number written with + and spaces. What stands
// before keeps it from taking fractions of a second and parts of ids.
var phoneLike = regexp.MustCompile(`(^|[^0-9A-Za-z.])(\+?[0-9]{8,15}|\+[0-9][0-9 ()/-]{6,18}[0-9])($|[^0-9A-Za-z])`)

// redact is the last line of defence against phone numbers in the log: code
// that logs ought not to hand them over in the first place. Of what looks like
// one the last two digits stay.
func redact(_ []string, a slog.Attr) slog.Attr {
	switch a.Key {
	case slog.TimeKey, slog.LevelKey, slog.SourceKey, "session", "worker", "epoch":
		// Names of sessions are checked not to be numbers.
		return a
	}
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(withoutPhones(a.Value.String()))
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case error:
			a.Value = slog.StringValue(withoutPhones(v.Error()))
		case fmt.Stringer:
			a.Value = slog.StringValue(withoutPhones(v.String()))
		case []string:
			a.Value = slog.StringValue(withoutPhones(strings.Join(v, ", ")))
		}
	}
	return a
}

func withoutPhones(s string) string {
	if !strings.ContainsAny(s, "0123456789") {
		return s
	}
	// Twice, since one match takes the separator that the next one begins with.
	for range 2 {
		s = phoneLike.ReplaceAllStringFunc(s, func(m string) string {
			parts := phoneLike.FindStringSubmatch(m)
			return parts[1] + "…" + parts[2][len(parts[2])-2:] + parts[3]
		})
	}
	return s
}
