package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Decision is one end of a connection, as it was logged and stored.
type Decision struct {
	Session string
	Cause   state.Cause
	At      time.Time // when it was logged
	Delay   time.Duration
	Next    time.Time // Status.NextAttemptAt; zero if that was not seen
}

// watch is a worker's log and what is called on changes. It keeps decisions
// and drops everything else but errors.
type watch struct {
	records state.Records
	names   chan string
	ended   sync.WaitGroup

	mu        sync.Mutex
	moved     *sync.Cond
	decisions []Decision
	codes     map[string]string
}

func newWatch(records state.Records) *watch {
	w := &watch{records: records, names: make(chan string, 1<<12), codes: map[string]string{}}
	w.moved = sync.NewCond(&w.mu)
	w.ended.Go(w.readStatus)
	return w
}

func (w *watch) close() {
	close(w.names)
	w.ended.Wait()
}

// changed is told of each commit of a session; it never blocks.
func (w *watch) changed(session string) {
	select {
	case w.names <- session:
	default:
	}
}

// readStatus reads NextAttemptAt of sessions that have changed.
func (w *watch) readStatus() {
	for name := range w.names {
		rec, err := w.records.Get(context.Background(), state.OfSession(name), state.Key{Kind: state.KindStatus})
		var st state.Status
		if err != nil || state.Decode(rec.Value, &st) != nil || st.NextAttemptAt.IsZero() {
			continue
		}
		w.mu.Lock()
		for i := len(w.decisions) - 1; i >= 0; i-- {
			if d := &w.decisions[i]; d.Session == name && d.Cause == st.Cause {
				d.Next = st.NextAttemptAt
				break
			}
		}
		w.mu.Unlock()
	}
}

func (w *watch) showQR(session, code string, _ time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.codes[session] = code
	w.moved.Broadcast()
}

// qr waits for a QR text of a session.
func (w *watch) qr(session string) (string, error) {
	err := w.wait(func() bool { return w.codes[session] != "" })
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.codes[session], err
}

// await waits for a decision of a cause.
func (w *watch) await(session string, cause state.Cause) error {
	return w.wait(func() bool {
		for _, d := range w.decisions {
			if d.Session == session && d.Cause == cause {
				return true
			}
		}
		return false
	})
}

func (w *watch) wait(done func() bool) error {
	over := false
	timer := time.AfterFunc(time.Minute, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		over = true
		w.moved.Broadcast()
	})
	defer timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for !done() {
		if over {
			return errors.New("waited for a minute in vain")
		}
		w.moved.Wait()
	}
	return nil
}

func (w *watch) all() []Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Decision(nil), w.decisions...)
}

// Enabled implements slog.Handler.
func (w *watch) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// WithAttrs implements slog.Handler.
func (w *watch) WithAttrs(attrs []slog.Attr) slog.Handler { return watched{w, attrs} }

// WithGroup implements slog.Handler; nothing of a worker's log is in groups.
func (w *watch) WithGroup(string) slog.Handler { return w }

// Handle implements slog.Handler.
func (w *watch) Handle(ctx context.Context, r slog.Record) error {
	return watched{w, nil}.Handle(ctx, r)
}

// watched is a watch's log of one session.
type watched struct {
	*watch
	attrs []slog.Attr
}

// WithAttrs implements slog.Handler.
func (w watched) WithAttrs(attrs []slog.Attr) slog.Handler {
	return watched{w.watch, append(w.attrs[:len(w.attrs):len(w.attrs)], attrs...)}
}

// WithGroup implements slog.Handler.
func (w watched) WithGroup(string) slog.Handler { return w }

// Handle keeps what tells of a decision with a delay.
func (w watched) Handle(_ context.Context, r slog.Record) error {
	d := Decision{At: r.Time}
	take := func(a slog.Attr) bool {
		switch a.Key {
		case "session":
			d.Session = a.Value.String()
		case "cause":
			d.Cause = state.Cause(a.Value.String())
		case "delay":
			d.Delay, _ = time.ParseDuration(a.Value.String())
		}
		return true
	}
	for _, a := range w.attrs {
		take(a)
	}
	r.Attrs(take)
	if d.Cause != "" && d.Delay > 0 {
		w.mu.Lock()
		w.decisions = append(w.decisions, d)
		w.moved.Broadcast()
		w.mu.Unlock()
		return nil
	}
	if r.Level >= shown {
		return w.print(r)
	}
	return nil
}

// shown is what of a worker's log is in the bench's: errors, or with BENCH_LOG
// all of it.
var shown = func() slog.Level {
	if os.Getenv("BENCH_LOG") != "" {
		return slog.LevelDebug
	}
	return slog.LevelError
}()

// print passes a record on to the bench's log.
func (w watched) print(r slog.Record) error {
	text := fmt.Sprintf("# %s worker %d: %s", r.Time.Format("05.000"), os.Getpid(), r.Message)
	add := func(a slog.Attr) bool { text += fmt.Sprintf(" %s=%s", a.Key, a.Value); return true }
	for _, a := range w.attrs {
		add(a)
	}
	r.Attrs(add)
	_, err := fmt.Fprintln(os.Stderr, text)
	return err
}
