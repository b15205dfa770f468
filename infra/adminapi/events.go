package adminapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// Event is an event as the API shows it.
type Event struct {
	ID      string          `json:"id"`
	Type    state.EventType `json:"type" example:"message.received"`
	Time    string          `json:"time" format:"date-time" doc:"to the millisecond"`
	Session string          `json:"session"`
	Epoch   uint64          `json:"epoch"`
	Seq     uint64          `json:"seq" doc:"counts per session, without gaps"`
	Data    any             `json:"data" doc:"by type"`
	Trimmed bool            `json:"trimmed,omitempty" doc:"delivered to all receivers, so that the content of messages is gone"`
	Hidden  bool            `json:"hidden,omitempty" doc:"the data is for operators"`
}

// EventPage is a page of events.
type EventPage struct {
	Events []Event `json:"events" nullable:"false"`
	Next   string  `json:"next,omitempty" doc:"cursor of the next page; absent on the last one"`
}

type eventsInput struct {
	SessionPath
	PageParams
	Accept string `header:"Accept" hidden:"true" maxLength:"512" doc:"text/event-stream for live ones"`
	LastID string `header:"Last-Event-ID" maxLength:"64" doc:"of a live stream: go on behind this one"`
	Type   string `query:"type" maxLength:"64" doc:"only those of this type"`
	Order  string `query:"order" enum:"asc,desc" default:"desc" doc:"of the history, by seq"`
	After  uint64 `query:"after" doc:"only those with a greater seq; also where a live stream begins"`
}

type allEventsInput struct {
	PageParams
	Accept string `header:"Accept" hidden:"true" maxLength:"512" doc:"text/event-stream for live ones"`
	LastID string `header:"Last-Event-ID" maxLength:"64" doc:"of a live stream: go on behind this one"`
	Type   string `query:"type" maxLength:"64" doc:"only those of this type"`
}

func (a *API) eventRoutes() {
	tags := []string{"Events"}
	route(a, Viewer, huma.Operation{OperationID: "list-events", Method: http.MethodGet, Path: "/api/sessions/{name}/events", Tags: tags,
		Summary: "A session's events", Errors: []int{404, 406},
		Description: "History in pages; live with Accept: text/event-stream, where the id of each is its seq, and Last-Event-ID resumes.",
		Responses:   a.answers(EventPage{}, "A page, or a live stream", "text/event-stream")}, a.events)
	route(a, Viewer, huma.Operation{OperationID: "list-all-events", Method: http.MethodGet, Path: "/api/events", Tags: tags,
		Summary:     "The events of all sessions",
		Errors:      []int{406},
		Description: "History, newest first; live with Accept: text/event-stream, where the id of each is its ULID. A stream that is resumed may repeat events of a few seconds.",
		Responses:   a.answers(EventPage{}, "A page, or a live stream", "text/event-stream")}, a.allEvents)
}

// openEvent shows a stored event to a caller. One that cannot be opened is
// shown by its place.
func (a *API) openEvent(role Role, p state.Partition, r state.Record) Event {
	session, _ := p.Session()
	seq, _ := strconv.ParseUint(r.Key.ID, 10, 64)
	v := Event{Session: session, Seq: seq}
	var s state.StoredEvent
	if err := state.Decode(r.Value, &s); err != nil {
		v.Data = map[string]string{"problem": "the stored event cannot be read"}
		return v
	}
	v.ID, v.Type, v.Trimmed = s.ID, s.Type, s.Trimmed
	v.Time = s.At.UTC().Format("2006-01-02T15:04:05.000Z07:00")
	var ev state.Event
	err := a.openJSON(seal.Place{Partition: p, Kind: state.KindEvent, ID: r.Key.ID}, s.Sealed, &ev)
	switch {
	case s.Trimmed && len(s.Sealed) == 0:
	case err != nil:
		v.Data = map[string]string{"problem": "the stored event cannot be opened"}
	case ev.Type == state.EventQR && role < Operator:
		v.Epoch, v.Hidden = ev.Epoch, true
		v.Time = ev.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00")
	default:
		v.Epoch = ev.Epoch
		v.Time = ev.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00")
		if len(ev.Data) > 0 {
			v.Data = ev.Data
		}
	}
	return v
}

// wantsStream says whether a client asks for a live stream.
func wantsStream(accept string) bool {
	q, specific := quality(accept, "text/event-stream")
	return q > 0 && specific == 3
}

// live says whether to answer with a live stream. Where none can be, a client
// that takes nothing else is told what to ask instead.
func (a *API) live(accept, poll string) (bool, error) {
	if !wantsStream(accept) {
		return false, nil
	}
	if !a.cfg.NoStreams {
		return true, nil
	}
	if q, _ := quality(accept, "application/json"); q > 0 {
		return false, nil
	}
	return false, problem(CodeStreamingNotHere, "header.Accept: events are not streamed here: ask GET %s with Accept: application/json, again and again", poll)
}

func (a *API) events(ctx context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	if _, err := a.cfg.Store.Owner(ctx, in.Name); err != nil {
		return nil, fmt.Errorf("session %q: %w", in.Name, err)
	}
	role := caller(ctx).role
	live, err := a.live(in.Accept, "/api/sessions/"+in.Name+"/events?order=asc&after=SEQ")
	if err != nil {
		return nil, err
	}
	if live {
		from, begun := in.After, in.After > 0
		if in.LastID != "" {
			seq, err := strconv.ParseUint(in.LastID, 10, 64)
			if err != nil {
				return nil, invalid("header.Last-Event-ID", "is not the id of an event of this stream")
			}
			from, begun = seq, true
		}
		if !begun {
			last, err := a.lastSeq(ctx, in.Name)
			if err != nil {
				return nil, err
			}
			from = last
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { a.stream(hc, in.Name, role, in.Type, map[string]uint64{in.Name: from}) }}, nil
	}
	page, err := a.history(ctx, in, role)
	if err != nil {
		return nil, err
	}
	return jsonBody(page), nil
}

// jsonBody answers JSON where the operation's other answer is a stream.
func jsonBody(v any) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", "application/json")
		hc.SetStatus(http.StatusOK)
		_ = huma.DefaultJSONFormat.Marshal(hc.BodyWriter(), v) // the client may be gone
	}}
}

func (a *API) history(ctx context.Context, in *eventsInput, role Role) (EventPage, error) {
	page := EventPage{Events: []Event{}}
	after, err := fromCursor(in.Cursor)
	if err != nil {
		return page, err
	}
	if _, err := strconv.ParseUint(after, 10, 64); after != "" && err != nil {
		return page, invalid("query.cursor", "is not the next of a page before")
	}
	p := state.OfSession(in.Name)
	q := state.Query{Kind: state.KindEvent, After: after, Limit: in.Limit, Descending: in.Order == "desc"}
	if after == "" && !q.Descending && in.After > 0 {
		q.After = state.EventID(in.After)
	}
	floor := state.EventID(in.After)
	for looked := 0; ; {
		got, err := a.cfg.Store.Query(ctx, p, q)
		if err != nil {
			return page, err
		}
		for i, r := range got.Records {
			if in.After > 0 && r.Key.ID <= floor {
				return page, nil // descending: the rest is older still
			}
			q.After = r.Key.ID
			looked++
			if in.Type == "" || storedType(r) == in.Type {
				page.Events = append(page.Events, a.openEvent(role, p, r))
			}
			if len(page.Events) == in.Limit {
				if got.More || i+1 < len(got.Records) {
					page.Next = toCursor(q.After)
				}
				return page, nil
			}
		}
		if !got.More || len(got.Records) == 0 {
			return page, nil
		}
		if looked >= scanned {
			page.Next = toCursor(q.After)
			return page, nil
		}
	}
}

func storedType(r state.Record) string {
	var s state.StoredEvent
	if err := state.Decode(r.Value, &s); err != nil {
		return ""
	}
	return string(s.Type)
}

func (a *API) lastSeq(ctx context.Context, session string) (uint64, error) {
	got, err := a.cfg.Store.Query(ctx, state.OfSession(session), state.Query{Kind: state.KindEvent, Limit: 1, Descending: true})
	if err != nil || len(got.Records) == 0 {
		return 0, err
	}
	seq, _ := strconv.ParseUint(got.Records[0].Key.ID, 10, 64)
	return seq, nil
}

// eventBefore is a stored event of some session, not opened yet.
type eventBefore struct {
	id        string // ULID
	partition state.Partition
	record    state.Record
}

// allEvents shows the newest events of all sessions: the newest of each, merged
// by their ids, which are in order of time.
func (a *API) allEvents(ctx context.Context, in *allEventsInput) (*huma.StreamResponse, error) {
	role := caller(ctx).role
	live, err := a.live(in.Accept, "/api/events")
	if err != nil {
		return nil, err
	}
	if live {
		from, err := a.heads(ctx, in.LastID)
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { a.stream(hc, "", role, in.Type, from) }}, nil
	}
	before, err := fromCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var found []eventBefore
	err = a.eachSession(ctx, func(name string) error {
		got, err := a.newest(ctx, name, before, in.Type, in.Limit+1)
		mu.Lock()
		found = append(found, got...)
		mu.Unlock()
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(x, y eventBefore) int { return cmp.Compare(y.id, x.id) })
	page := EventPage{Events: []Event{}}
	for _, f := range found {
		if len(page.Events) == in.Limit {
			page.Next = toCursor(page.Events[in.Limit-1].ID)
			break
		}
		page.Events = append(page.Events, a.openEvent(role, f.partition, f.record))
	}
	return jsonBody(page), nil
}

// newest returns a session's newest events with ids less than before.
func (a *API) newest(ctx context.Context, session, before, kind string, limit int) ([]eventBefore, error) {
	p := state.OfSession(session)
	q := state.Query{Kind: state.KindEvent, Limit: limit, Descending: true}
	var found []eventBefore
	for looked := 0; looked < scanned; {
		got, err := a.cfg.Store.Query(ctx, p, q)
		if err != nil {
			return nil, err
		}
		for _, r := range got.Records {
			q.After = r.Key.ID
			looked++
			var s state.StoredEvent
			if state.Decode(r.Value, &s) != nil || before != "" && s.ID >= before || kind != "" && string(s.Type) != kind {
				continue
			}
			if found = append(found, eventBefore{s.ID, p, r}); len(found) == limit {
				return found, nil
			}
		}
		if !got.More || len(got.Records) == 0 {
			break
		}
	}
	return found, nil
}

// eachSession calls f for every session, some at a time.
func (a *API) eachSession(ctx context.Context, f func(name string) error) error {
	places := make(chan struct{}, 8)
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	for after := ""; ; {
		owners, err := a.cfg.Store.Sessions(ctx, after, 500)
		if err != nil {
			failed = append(failed, err)
		}
		for _, o := range owners {
			after = o.Session
			places <- struct{}{}
			all.Go(func() {
				defer func() { <-places }()
				if err := f(o.Session); err != nil {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
				}
			})
		}
		if len(owners) == 0 {
			break
		}
	}
	all.Wait()
	return errors.Join(failed...)
}
