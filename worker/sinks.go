package worker

import (
	"context"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/worker/deliver"
)

// webhook is the receiver of a session's events: its own, or the worker's. Who
// posts to it says how far the URL is trusted.
func (w *Worker) webhook(own state.SessionSettings) (Webhook, *deliver.Poster) {
	if own.WebhookURL != "" {
		return Webhook{own.WebhookURL, own.WebhookSecret}, w.cfg.Poster
	}
	return w.cfg.Webhook, w.cfg.OwnPoster
}

func (w *Worker) sinkNames(own state.SessionSettings) []string {
	var names []string
	if w.cfg.NDJSON != nil {
		names = append(names, deliver.SinkNDJSON)
	}
	if hook, _ := w.webhook(own); hook.URL != "" {
		names = append(names, deliver.SinkWebhook)
	}
	return names
}

func (w *Worker) sinks(name string, own state.SessionSettings) []deliver.Sink {
	var sinks []deliver.Sink
	if w.cfg.NDJSON != nil {
		sinks = append(sinks, w.cfg.NDJSON)
	}
	if hook, poster := w.webhook(own); hook.URL != "" {
		sink, err := poster.Webhook(hook.URL, hook.Secret)
		if err != nil {
			w.log.Error("the webhook cannot be used; events stay in the queue", "session", name, "error", err)
			return sinks
		}
		sinks = append(sinks, sink)
	}
	return sinks
}

// attach begins delivering from a journal; nil ends it.
func (w *Worker) attach(r *running, name string, j *journal.Journal, own state.SessionSettings) {
	r.mu.Lock()
	queue := r.queue
	r.queue = nil
	r.mu.Unlock()
	if queue != nil {
		// Not under the lock: what is delivered just now may commit, and a commit
		// asks for the queue.
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := queue.Close(ctx); err != nil {
			w.log.Warn("deliveries were still running", "session", name, "error", err)
		}
	}
	if j == nil {
		return
	}
	queue, err := w.out.Attach(deliver.Session{
		Name: name, Sinks: w.sinks(name, own), Last: j.Seq(), Delivered: j.Delivered,
		Commit: func(ctx context.Context, writes ...state.Write) error {
			return j.Commit(ctx, journal.Batch{Writes: writes})
		},
		Filling: func(depth int, age time.Duration) {
			w.log.Warn("the queue of events is filling", "session", name, "events", depth, "oldest", age.Round(time.Second).String())
			_ = j.Commit(context.Background(), journal.Batch{Events: []journal.Draft{{ // a failure breaks the journal, which says so itself
				Type: state.EventQueueFilling, Data: map[string]any{"events": depth, "oldestSeconds": int(age.Seconds())}}}})
		},
	})
	if err != nil {
		w.log.Error("events are not delivered", "session", name, "error", err)
		return
	}
	r.mu.Lock()
	r.queue = queue
	r.mu.Unlock()
	queue.Seen(j.Seq()) // what was committed meanwhile was announced to nobody
}

// committed hands durable events to the deliveries.
func (w *Worker) committed(r *running, name string, events []state.Event) {
	r.mu.Lock()
	queue := r.queue
	r.mu.Unlock()
	if queue != nil {
		queue.Committed(events)
	}
	w.cfg.Metrics.Committed(events)
	if w.cfg.Changed != nil {
		w.cfg.Changed(name)
	}
}

func (r *running) redrive(ctx context.Context, id string) (int, error) {
	r.mu.Lock()
	queue := r.queue
	r.mu.Unlock()
	if queue == nil {
		return 0, deliver.ErrNoSink
	}
	if id == "" {
		return queue.RedriveAll(ctx)
	}
	if err := queue.Redrive(ctx, id); err != nil {
		return 0, err
	}
	return 1, nil
}
