package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/state"
)

func (a *app) watchCommand() *cobra.Command {
	count := 0
	cmd := &cobra.Command{
		Use:               "watch [SESSION]",
		Short:             "Follow the events of a session, or of all, until interrupted",
		ValidArgsFunction: a.sessionCompletion,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%s: takes one session or none and has %d arguments; run it once for each", path(cmd), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			path, what := "/api/events", "events"
			if len(args) == 1 {
				path, what = sessionPath(args[0], "events"), args[0]
			}
			seen := 0
			err = c.follow(cmd.Context(), path,
				func(err error, wait time.Duration) {
					fmt.Fprintf(a.io.Err, "holdfast: the stream of events broke: %v; trying again in %v\n", cause(err), wait)
				},
				func(data []byte) error {
					if err := a.printEvent(data); err != nil {
						return err
					}
					if seen++; seen == count {
						return errEnough
					}
					return nil
				})
			if err != nil && !errors.Is(err, errEnough) {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&count, "count", 0, "end after so many events; 0: never")
	return a.clientCommand(cmd)
}

var errEnough = errors.New("enough events")

// printEvent writes an event: in JSON one a line, for people without what they
// cannot use.
func (a *app) printEvent(data []byte) error {
	if a.asJSON {
		_, err := fmt.Fprintf(a.io.Out, "%s\n", data)
		return err
	}
	var e state.Event
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("an event is not what this release knows: %w; use the same release on both sides", err)
	}
	_, err := fmt.Fprintf(a.io.Out, "%s  %-16s  %-24s  %s\n", e.Time.Local().Format("15:04:05.000"), e.Session, e.Type, summary(e.Data))
	return err
}

// summary shows the plain values of an event's data in one line.
func summary(data json.RawMessage) string {
	var fields map[string]any
	if json.Unmarshal(data, &fields) != nil {
		return ""
	}
	var parts []string
	for name, v := range fields {
		switch v := v.(type) {
		case string:
			if v != "" && name != "code" || len(v) < 40 && v != "" {
				parts = append(parts, name+"="+short(v))
			}
		case float64, bool:
			parts = append(parts, fmt.Sprintf("%s=%v", name, v))
		}
	}
	sort.Strings(parts)
	return strings.Join(parts, " ")
}

func short(s string) string {
	s = oneLine(s)
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}
