package session

import (
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// switched lets one session log in detail while the others do not.
type switched struct {
	slog.Handler
	on *atomic.Bool
}

// Enabled implements slog.Handler.
func (s switched) Enabled(ctx context.Context, level slog.Level) bool {
	return s.on.Load() && level >= slog.LevelDebug || s.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (s switched) WithAttrs(attrs []slog.Attr) slog.Handler {
	return switched{s.Handler.WithAttrs(attrs), s.on}
}

// WithGroup implements slog.Handler.
func (s switched) WithGroup(name string) slog.Handler {
	return switched{s.Handler.WithGroup(name), s.on}
}

// debug switches the session's log to detail and back, by itself after a time.
func (a *actor) debug(o Order) phase {
	on, err := strconv.ParseBool(o.Args["on"])
	if err != nil {
		return a.finish(o, failed("bad_command", "the command does not say on or off"), nil)
	}
	if a.quiet != nil {
		a.quiet.Stop()
		a.quiet = nil
	}
	a.detail.Store(on)
	if d, err := time.ParseDuration(o.Args["for"]); on && err == nil && d > 0 {
		a.quiet = time.AfterFunc(d, func() { a.detail.Store(false) })
	}
	return a.finish(o, outcome{state: state.CommandDone}, nil)
}
