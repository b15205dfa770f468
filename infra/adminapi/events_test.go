package adminapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

func TestEventHistory(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	for seq := uint64(1); seq <= 9; seq++ {
		kind := state.EventMessage
		if seq%3 == 0 {
			kind = state.EventState
		}
		s.event(o, seq, kind, fmt.Sprintf(`{"n":%d}`, seq))
	}
	for _, tc := range []struct {
		query string
		limit int
		want  string
	}{
		{"", 4, "[9 8 7 6 5 4 3 2 1]"},
		{"order=asc", 4, "[1 2 3 4 5 6 7 8 9]"},
		{"order=asc&after=6", 2, "[7 8 9]"},
		{"after=6", 2, "[9 8 7]"},
		{"type=session.state", 2, "[9 6 3]"},
		{"type=none", 2, "[]"},
	} {
		got := []uint64{}
		cursor := ""
		for range 20 {
			page := want[EventPage](t, s.ask(Viewer, "GET", fmt.Sprintf("/api/sessions/shop/events?limit=%d&%s&cursor=%s", tc.limit, tc.query, cursor), ""), 200)
			for _, ev := range page.Events {
				got = append(got, ev.Seq)
				if data, _ := json.Marshal(ev.Data); string(data) != fmt.Sprintf(`{"n":%d}`, ev.Seq) || ev.Session != "shop" || ev.Epoch != o.Epoch {
					t.Errorf("event %+v", ev)
				}
			}
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		if fmt.Sprint(got) != tc.want {
			t.Errorf("%q: %v, want %s", tc.query, got, tc.want)
		}
	}
}

func TestEventsOfAllSessions(t *testing.T) {
	s := newStage(t)
	a, b := s.session("a"), s.session("b")
	for i := range uint64(6) {
		s.pass(time.Second)
		s.event(a, i+1, state.EventMessage, `{}`)
		s.pass(time.Second)
		s.event(b, i+1, state.EventState, `{}`)
	}
	var got []string
	cursor := ""
	for range 10 {
		page := want[EventPage](t, s.ask(Viewer, "GET", "/api/events?limit=5&cursor="+cursor, ""), 200)
		for _, ev := range page.Events {
			got = append(got, fmt.Sprint(ev.Session, ev.Seq))
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if fmt.Sprint(got) != "[b6 a6 b5 a5 b4 a4 b3 a3 b2 a2 b1 a1]" {
		t.Errorf("events %v", got)
	}
	if page := want[EventPage](t, s.ask(Viewer, "GET", "/api/events?type=session.state&limit=50", ""), 200); len(page.Events) != 6 {
		t.Errorf("%d events", len(page.Events))
	}
}

func TestViewersDoNotSeeQRTexts(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.event(o, 1, state.EventQR, `{"code":"2@hush"}`)
	for _, path := range []string{"/api/sessions/shop/events", "/api/events"} {
		if r := s.ask(Viewer, "GET", path, ""); strings.Contains(string(r.body), "hush") || !strings.Contains(string(r.body), `"hidden":true`) {
			t.Errorf("viewer is shown %s", r.body)
		}
		if r := s.ask(Operator, "GET", path, ""); !strings.Contains(string(r.body), "hush") {
			t.Errorf("operator is shown %s", r.body)
		}
	}
}

func TestTrimmedAndDamagedEvents(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.commit(o,
		state.Put(state.KindEvent, state.EventID(1), s.encode(state.StoredEvent{V: 1, ID: "01A", Type: state.EventMessage, At: s.now(), Trimmed: true})),
		state.Put(state.KindEvent, state.EventID(2), s.encode(state.StoredEvent{V: 1, ID: "01B", Type: state.EventMessage, At: s.now(), Sealed: []byte("damaged")})),
		state.Put(state.KindEvent, state.EventID(3), []byte("{")))
	page := want[EventPage](t, s.ask(Viewer, "GET", "/api/sessions/shop/events?order=asc", ""), 200)
	if len(page.Events) != 3 || !page.Events[0].Trimmed || page.Events[0].Data != nil || page.Events[1].ID != "01B" || page.Events[2].Seq != 3 {
		t.Errorf("events %+v", page.Events)
	}
}

// listen opens a live stream at a real server and returns its events.
func (s *stage) listen(target string, headers ...string) (<-chan [3]string, func()) {
	s.t.Helper()
	server := httptest.NewServer(s.api)
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", server.URL+target, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", secretOf(Viewer))
	req.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{Transport: &http.Transport{}}
	resp, err := client.Do(req) //nolint:bodyclose // the function that is returned closes it
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		s.t.Fatalf("HTTP %d %v", resp.StatusCode, resp.Header)
	}
	got := make(chan [3]string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(got)
		var ev [3]string
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				ev[0] = value
			case "event":
				ev[1] = value
			case "data":
				ev[2] = value
			case "":
				if ev[0] != "" {
					got <- ev
				}
				ev = [3]string{}
			}
		}
	}()
	return got, func() {
		cancel()
		<-done
		resp.Body.Close()
		client.CloseIdleConnections()
		server.Close()
	}
}

func next(t *testing.T, got <-chan [3]string) [3]string {
	t.Helper()
	select {
	case ev, ok := <-got:
		if !ok {
			t.Fatal("the stream ended")
		}
		return ev
	case <-time.After(20 * time.Second):
		t.Fatal("no event came")
	}
	return [3]string{}
}

func TestLiveEventsOfASession(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.event(o, 1, state.EventMessage, `{"n":1}`)
	s.event(o, 2, state.EventMessage, `{"n":2}`)

	got, stop := s.listen("/api/sessions/shop/events")
	s.event(o, 3, state.EventState, `{"text":"two\nlines"}`)
	ev := next(t, got)
	var body Event
	if err := json.Unmarshal([]byte(ev[2]), &body); err != nil || ev[0] != "3" || ev[1] != "session.state" || body.Seq != 3 {
		t.Errorf("event %v, %v", ev, err)
	}
	stop()

	got, stop = s.listen("/api/sessions/shop/events", "Last-Event-ID", "1")
	for _, want := range []string{"2", "3"} {
		if ev := next(t, got); ev[0] != want {
			t.Errorf("event %v, want %s", ev, want)
		}
	}
	stop()

	got, stop = s.listen("/api/sessions/shop/events?type=session.state&after=1")
	if ev := next(t, got); ev[0] != "3" {
		t.Errorf("event %v", ev)
	}
	stop()
	wantProblem(t, s.ask(Viewer, "GET", "/api/sessions/shop/events", "", "Accept", "text/event-stream", "Last-Event-ID", "x"), CodeInvalid)
	wantProblem(t, s.ask(Viewer, "GET", "/api/events", "", "Accept", "text/event-stream", "Last-Event-ID", "x"), CodeInvalid)
}

func TestLiveEventsOfAllSessions(t *testing.T) {
	s := newStage(t)
	a, b := s.session("a"), s.session("b")
	s.event(a, 1, state.EventMessage, `{}`)
	got, stop := s.listen("/api/events")
	s.pass(time.Minute)
	s.event(b, 1, state.EventMessage, `{}`)
	first := next(t, got)
	var body Event
	if err := json.Unmarshal([]byte(first[2]), &body); err != nil || body.Session != "b" || body.ID != first[0] {
		t.Errorf("event %v, %v", first, err)
	}
	c := s.session("c") // is new to the stream
	s.event(c, 1, state.EventState, `{}`)
	if ev := next(t, got); ev[1] != "session.state" {
		t.Errorf("event %v", ev)
	}
	stop()
	s.pass(time.Minute)
	s.event(a, 2, state.EventMessage, `{"late":true}`)
	got, stop = s.listen("/api/events", "Last-Event-ID", first[0])
	seen := map[string]bool{}
	for range 3 { // b again, for safety; c; a's new one, but not its old one
		ev := next(t, got)
		if err := json.Unmarshal([]byte(ev[2]), &body); err != nil {
			t.Fatal(err)
		}
		seen[fmt.Sprint(body.Session, body.Seq)] = true
	}
	if !seen["a2"] || !seen["c1"] || seen["a1"] {
		t.Errorf("resumed with %v", seen)
	}
	stop()
}

func TestStreamEndsByItself(t *testing.T) {
	s := newStage(t)
	s.session("shop")
	s.api.cfg.StreamFor = 30 * time.Millisecond
	got, stop := s.listen("/api/sessions/shop/events")
	for range got {
		t.Error("an event from nowhere")
	}
	stop()
}
