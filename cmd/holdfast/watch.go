package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
)

const (
	// watchEvery is how often watch looks who owns what. A look that takes long,
	// at many sessions, makes it rarer: watchShare of the time is for looking.
	watchEvery = time.Second
	watchShare = 10
)

// eventOwner is a line of watch that is no event of the session: its owner or
// what the owner is has changed.
const eventOwner = "session.owner"

func (a *app) watchCommand() *cobra.Command {
	w := &watcher{a: a, rows: map[string]sessionView{}}
	lines := false
	cmd := &cobra.Command{
		Use:   "watch [SESSION]",
		Short: "Follow a session, or all, until interrupted: state, owner, events",
		Long: "Follows a session, or all of them: on a terminal as a table that is kept up to date\n" +
			"with the last events below it, elsewhere and with --lines one line for each event.\n" +
			"A change of the owner is a line too (" + eventOwner + "), though no event of the session:\n" +
			"in JSON it has neither id nor seq.",
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
			w.c = c
			path, what := "/api/events", "events"
			if len(args) == 1 {
				w.session = args[0]
				path, what = sessionPath(args[0], "events"), args[0]
			}
			if !lines && !a.asJSON && terminal(a.io.Out) {
				w.screen = newScreen(a.io.Out)
			}
			if err := w.run(cmd.Context(), path); err != nil && !errors.Is(err, errEnough) {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&w.count, "count", 0, "end after so many events; 0: never")
	cmd.Flags().BoolVar(&lines, "lines", false, "lines on a terminal as well")
	return a.clientCommand(cmd)
}

var errEnough = errors.New("enough events")

// watcher follows events, and looks beside that who owns what.
type watcher struct {
	a       *app
	c       *client
	session string // empty: all
	count   int

	mu     sync.Mutex
	seen   int
	rows   map[string]sessionView
	looked bool    // rows are known
	screen *screen // nil: lines
}

func (w *watcher) run(ctx context.Context, path string) error {
	ctx, stop := context.WithCancel(ctx)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer stop()
	looking.Go(func() { w.look(ctx) })
	return w.c.follow(ctx, path,
		func(err error, wait time.Duration) {
			w.tell("the stream of events broke: " + cause(err).Error() + "; trying again in " + wait.String())
		},
		func(data []byte) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if err := w.event(data); err != nil {
				return err
			}
			if w.seen++; w.seen == w.count {
				return errEnough
			}
			return nil
		})
}

// tell says something about the watching itself.
func (w *watcher) tell(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.screen != nil {
		w.screen.note(time.Now().Local().Format(time.TimeOnly) + "  " + text)
		_ = w.draw() // what is wrong with the terminal ends it at the next event
		return
	}
	fmt.Fprintf(w.a.io.Err, "holdfast: %s\n", text)
}

// event shows an event: in JSON one a line, for people without what they cannot
// use.
func (w *watcher) event(data []byte) error {
	if w.a.asJSON {
		_, err := fmt.Fprintf(w.a.io.Out, "%s\n", data)
		return err
	}
	var e state.Event
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("an event is not what this release knows: %w; use the same release on both sides", err)
	}
	return w.line(e.Time, e.Session, string(e.Type), summary(e.Data))
}

func (w *watcher) line(at time.Time, session, kind, text string) error {
	line := fmt.Sprintf("%s  %-16s  %-24s  %s", at.Local().Format("15:04:05.000"), session, kind, text)
	if w.screen != nil {
		w.screen.note(line)
		return w.draw()
	}
	_, err := fmt.Fprintln(w.a.io.Out, line)
	return err
}

// look reads the sessions again and again and tells what became of their owners.
func (w *watcher) look(ctx context.Context) {
	for {
		began := time.Now()
		list, err := w.read(ctx)
		if err == nil {
			w.compare(ctx, list)
		} else if w.screen != nil && ctx.Err() == nil {
			w.tell(cause(err).Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(watchEvery, watchShare*time.Since(began))):
		}
	}
}

func (w *watcher) read(ctx context.Context) ([]sessionView, error) {
	if w.session == "" {
		return w.c.sessions(ctx, url.Values{})
	}
	s, err := w.c.session(ctx, w.session)
	return []sessionView{s}, err
}

// compare tells of owners that have changed since the last look.
func (w *watcher) compare(ctx context.Context, list []sessionView) {
	now := make(map[string]sessionView, len(list))
	var changed []ownership
	w.mu.Lock()
	for _, s := range list {
		now[s.Name] = s
		before, known := w.rows[s.Name]
		if w.looked && !known {
			before = sessionView{OwnerIs: fleet.Nobody} // it was made since
		} else if !known {
			continue
		}
		if before.Owner != s.Owner || before.Epoch != s.Epoch && before.Epoch != 0 || before.OwnerIs != s.OwnerIs {
			changed = append(changed, ownership{before, s})
		}
	}
	w.mu.Unlock()
	workers := map[string]adminapi.Worker{}
	if slices.ContainsFunc(changed, func(o ownership) bool { return o.before.Owner != "" && o.before.Owner != o.now.Owner }) {
		list, err := w.c.workers(ctx)
		if err != nil {
			list = nil // the words below then say less
		}
		for _, one := range list {
			workers[one.ID] = one
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rows, w.looked = now, true
	for _, o := range changed {
		how, text := o.words(workers)
		if how == "" {
			continue
		}
		if w.a.asJSON {
			_ = json.NewEncoder(w.a.io.Out).Encode(map[string]any{"type": eventOwner, "time": time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00"), "session": o.now.Name,
				"epoch": o.now.Epoch, "data": map[string]any{"how": how, "owner": o.now.Owner, "ownerIs": o.now.OwnerIs, "from": o.before.Owner, "state": o.now.State}})
			continue
		}
		_ = w.line(time.Now(), o.now.Name, eventOwner, text) // the next event meets the same fault and ends it
	}
	if w.screen != nil {
		_ = w.draw()
	}
}

// ownership is a session before and after a change of its owner.
type ownership struct{ before, now sessionView }

// words say what the change was: its name, and a sentence. Workers has the fleet
// as it is now, as far as that is known.
func (o ownership) words(workers map[string]adminapi.Worker) (how, text string) {
	from, to := o.before.Owner, o.now.Owner
	epochs := fmt.Sprintf("epoch %d → %d", o.before.Epoch, o.now.Epoch)
	switch {
	case from == to && o.before.Epoch != o.now.Epoch:
		return "renewed", fmt.Sprintf("%s took it anew, %s", dash(to), epochs)
	case from == to:
		switch o.now.OwnerIs {
		case fleet.Stale:
			return "stale", fmt.Sprintf("the heartbeat of its owner %s stands still", to)
		case fleet.Dead, fleet.Unknown:
			return "dead", fmt.Sprintf("its owner %s is dead", to)
		case fleet.Alive:
			return "alive", fmt.Sprintf("its owner %s is alive", to)
		}
		return "", ""
	case from == "":
		return "taken", fmt.Sprintf("%s took it, %s", to, epochs)
	case to == "":
		return "released", fmt.Sprintf("%s gave it up, %s", from, epochs)
	}
	old, known := workers[from]
	switch {
	case known && old.Standing == fleet.Dead && old.Draining:
		// It gave away what it had, and ended; or it died over it.
		return "moved", fmt.Sprintf("%s has it after %s, which was draining and has ended, %s", to, from, epochs)
	case known && old.Standing == fleet.Dead, !known && len(workers) > 0, o.before.OwnerIs == fleet.Dead:
		return "takeover", fmt.Sprintf("%s took it over from %s, which is dead, %s", to, from, epochs)
	case known:
		return "hand-over", fmt.Sprintf("%s handed it over to %s, %s", from, to, epochs)
	}
	return "moved", fmt.Sprintf("%s has it after %s, %s", to, from, epochs)
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

// short cuts a value to what fits on a line beside others.
func short(s string) string {
	s = oneLine(s)
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}
