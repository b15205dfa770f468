package adminapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
)

const (
	heartbeatEvery = 15 * time.Second
	// sweepEach bounds a stream of all sessions to 200 looks a second: with many
	// sessions each is looked at more rarely, with few at every poll.
	sweepEach     = 5 * time.Millisecond
	sweepRarest   = 30 * time.Second
	sweepWithBell = 30 * time.Second // where all that commits rings
	writeTime     = 30 * time.Second // for a client to take what is written
)

// resumeSlack is how far ids of different sessions may be out of order.
const resumeSlack = 5 * time.Second

// heads tells where a stream of all sessions begins: at their ends, or behind
// the event of the given id.
func (a *API) heads(ctx context.Context, lastID string) (map[string]uint64, error) {
	var since string
	if lastID != "" {
		id, err := ulid.ParseStrict(lastID)
		if err != nil {
			return nil, invalid("header.Last-Event-ID", "is not the id of an event")
		}
		var floor ulid.ULID
		_ = floor.SetTime(id.Time() - min(id.Time(), uint64(resumeSlack.Milliseconds()))) // it is less than one that was valid
		since = floor.String()
	}
	var mu sync.Mutex
	from := map[string]uint64{}
	err := a.eachSession(ctx, func(name string) error {
		seq, err := a.head(ctx, name, since)
		mu.Lock()
		from[name] = seq
		mu.Unlock()
		return err
	})
	return from, err
}

// head is a session's last seq, or that before its first event since an id.
func (a *API) head(ctx context.Context, session, since string) (uint64, error) {
	q := state.Query{Kind: state.KindEvent, Limit: 1, Descending: true}
	if since != "" {
		q.Limit = 100
	}
	low := uint64(0)
	for looked := 0; looked < scanned; {
		got, err := a.cfg.Store.Query(ctx, state.OfSession(session), q)
		if err != nil {
			return 0, err
		}
		for _, r := range got.Records {
			q.After = r.Key.ID
			looked++
			seq, _ := strconv.ParseUint(r.Key.ID, 10, 64)
			var s state.StoredEvent
			if since == "" || state.Decode(r.Value, &s) == nil && s.ID < since {
				return seq, nil
			}
			low = seq - 1
		}
		if !got.More || len(got.Records) == 0 {
			break
		}
	}
	return low, nil
}

// stream writes live events until the client goes away. From has the last seq
// that it has of each session; session is empty for all.
func (a *API) stream(hc huma.Context, session string, role Role, kind string, from map[string]uint64) {
	ctx, cancel := context.WithTimeout(hc.Context(), a.cfg.StreamFor)
	defer cancel()
	heard, stop := a.cfg.Bell.listen(session)
	defer stop()
	hc.SetHeader("Content-Type", "text/event-stream")
	hc.SetHeader("X-Accel-Buffering", "no")
	hc.SetStatus(http.StatusOK)
	out := newStreamWriter(hc)
	if !out.write("retry: 2000\n\n") {
		return
	}
	every := a.cfg.Poll
	if session == "" {
		every = a.sweepPause(ctx, len(from))
	}
	poll := time.NewTicker(every)
	defer poll.Stop()
	beat := time.NewTicker(heartbeatEvery)
	defer beat.Stop()
	look := []string{session}
	if session == "" {
		for name := range from {
			look = append(look, name)
		}
		look = look[1:]
	}
	for {
		for _, name := range look {
			if !a.streamNew(ctx, out, name, session == "", role, kind, from) {
				return
			}
		}
		look = look[:0]
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			if !out.write(": still here\n\n") {
				return
			}
		case <-heard.signal:
			look = append(look, a.cfg.Bell.take(heard)...)
		case <-poll.C:
			if session != "" {
				look = append(look, session)
				continue
			}
			var mu sync.Mutex
			err := a.eachSession(ctx, func(name string) error {
				mu.Lock()
				look = append(look, name)
				mu.Unlock()
				return nil
			})
			if err != nil {
				a.cfg.Log.Debug("event stream: looking again later", "error", err)
			}
			poll.Reset(a.sweepPause(ctx, len(look)))
		}
	}
}

// sweepPause is how long a stream of so many sessions waits before it looks at
// all of them again.
func (a *API) sweepPause(ctx context.Context, sessions int) time.Duration {
	pause := min(max(time.Duration(sessions)*sweepEach, a.cfg.Poll), sweepRarest)
	if a.cfg.Bell == nil {
		return pause
	}
	sight, err := a.cfg.View.Read(ctx)
	if err != nil {
		return pause
	}
	for _, m := range sight.Members {
		if !m.Dead && !a.cfg.Alive(m.Incarnation) {
			return pause // it works in another process, where no bell rings
		}
	}
	return sweepWithBell
}

// streamNew writes a session's new events. False: the client is gone.
func (a *API) streamNew(ctx context.Context, out *streamWriter, name string, byID bool, role Role, kind string, from map[string]uint64) bool {
	p := state.OfSession(name)
	for {
		q := state.Query{Kind: state.KindEvent, Limit: 100}
		if from[name] > 0 {
			q.After = state.EventID(from[name])
		}
		got, err := a.cfg.Store.Query(ctx, p, q)
		if err != nil {
			return ctx.Err() == nil // the store may come back
		}
		for _, r := range got.Records {
			ev := a.openEvent(role, p, r)
			from[name] = ev.Seq
			if kind != "" && string(ev.Type) != kind {
				continue
			}
			data, err := json.Marshal(ev)
			if err != nil {
				continue
			}
			id := strconv.FormatUint(ev.Seq, 10)
			if byID {
				id = ev.ID
			}
			if !out.write("id: " + oneLine(id) + "\nevent: " + oneLine(string(ev.Type)) + "\ndata: " + string(data) + "\n\n") {
				return false
			}
		}
		if !got.More || len(got.Records) == 0 {
			return true
		}
	}
}

// oneLine keeps a stored word from ending its line.
func oneLine(s string) string { return strings.NewReplacer("\n", "", "\r", "").Replace(s) }
