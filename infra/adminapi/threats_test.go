package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// The tests of what ARCHITECTURE.md says of threats to the API, those that have no
// better place.

// TestAStolenKeyYieldsNoSecrets: whoever has the highest key may do everything, and
// still reads no key, no secret of a receiver, no password and no credentials.
func TestAStolenKeyYieldsNoSecrets(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	want[ChangedSession](t, s.ask(Operator, "PATCH", "/api/sessions/shop",
		`{"settings":{"webhookUrl":"https://example.test/hook","webhookSecret":"hush-hush-hush-hush","proxy":"socks5://u:hush@127.0.0.1:1"}}`), 202)
	s.commit(o, state.Put(state.KindMeta, "", s.encode(state.Meta{V: state.Format, Keyset: []byte("hush-keyset"),
		Credential: &state.ObjectPointer{Name: "hush-object"}})))
	s.online(o)
	var keys []string
	for _, r := range roles {
		keys = append(keys, secretOf(r), HashKey(secretOf(r)))
	}
	looked := 0
	for _, r := range routes {
		if r.method != http.MethodGet {
			continue
		}
		got := s.ask(Admin, r.method, filled(r.path), "")
		looked++
		for _, word := range append(keys, "hush") {
			if strings.Contains(string(got.body), word) {
				t.Errorf("%s shows %q: %s", r.path, word, got.body)
			}
		}
	}
	if looked < 8 {
		t.Errorf("only %d routes were read", looked)
	}
	// What was done with it stands in the audit, under the key's name.
	page, err := s.store.Query(t.Context(), state.OfSession("shop"), state.Query{Kind: state.KindAudit, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	told := false
	for _, r := range page.Records {
		var a state.Audit
		if err := state.Decode(r.Value, &a); err != nil {
			t.Fatal(err)
		}
		told = told || a.By == "operator-name" && a.Role == "operator" && a.Action == "patch"
	}
	if !told {
		t.Errorf("the audit does not tell who changed the settings: %d records", len(page.Records))
	}
}

// TestStrangersCannotTellWhatIsThere: without a key every name, route and method
// has the same answer.
func TestStrangersCannotTellWhatIsThere(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.showQR(o, "2@hush", time.Minute)
	first := ""
	for _, r := range routes {
		for _, name := range []string{"shop", "nobody", "UP"} {
			for _, key := range []string{"", "wrong", "viewer-name", HashKey(secretOf(Admin))} {
				got := s.ask(0, r.method, strings.NewReplacer("{name}", name, "{id}", name).Replace(r.path), r.body, "X-Api-Key", key)
				answer := got.Status + got.Header.Get("Content-Type") + string(got.body)
				if first == "" {
					first = answer
				}
				if answer != first || got.StatusCode != http.StatusUnauthorized {
					t.Fatalf("%s %s as %s: %s, where another is answered %s", r.method, r.path, name, answer, first)
				}
			}
		}
	}
}

// TestHostileTextStaysText: what a stranger wrote comes back as it was, as data that
// no browser takes for a page and no stream for an event of ours.
func TestHostileTextStaysText(t *testing.T) {
	hostile := "</script><script>alert(1)</script>\r\n\r\nevent: session.state\r\ndata: {\"state\":\"banned\"}\r\n\r\nid: 99\u2028\u0000\x1b[2J"
	data, err := json.Marshal(map[string]string{"text": hostile, "pushName": hostile})
	if err != nil {
		t.Fatal(err)
	}
	s := newStage(t)
	o := s.session("shop")
	s.status(o, state.Status{State: state.Online, Paired: true, Since: s.now()}, state.Identity{PushName: hostile, Text: hostile})
	s.event(o, 1, state.EventMessage, string(data))
	for _, path := range []string{"/api/sessions/shop/events", "/api/events", "/api/sessions/shop", "/api/sessions"} {
		got := s.ask(Admin, "GET", path, "")
		if got.StatusCode != 200 || got.Header.Get("Content-Type") != "application/json" || got.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %s %v", path, got.Status, got.Header)
		}
		if strings.Contains(string(got.body), "\r") || strings.Contains(string(got.body), "\x1b") || strings.Contains(string(got.body), "\x00") {
			t.Errorf("%s: control characters in the answer: %q", path, got.body)
		}
	}
	page := want[EventPage](t, s.ask(Admin, "GET", "/api/events", ""), 200)
	if got, _ := page.Events[0].Data.(map[string]any); got["text"] != hostile {
		t.Errorf("the text came back as %q", got["text"])
	}
	stream, stop := s.listen("/api/sessions/shop/events", "Last-Event-ID", "0")
	defer stop()
	s.event(o, 2, state.EventState, `{}`)
	s.bell.Ring("shop")
	for i, kind := range []string{"message.received", "session.state"} {
		got := next(t, stream)
		var ev Event
		if err := json.Unmarshal([]byte(got[2]), &ev); err != nil || got[1] != kind || ev.Seq != uint64(i+1) {
			t.Errorf("event %d of the stream: %q, %v", i, got, err)
		}
	}
}

// TestAFailureOfOursShowsNothing: what a panic says is for the log of the server.
func TestAFailureOfOursShowsNothing(t *testing.T) {
	s := newStage(t)
	s.session("shop")
	s.api.cfg.Live = func(string) (state.Status, bool) { panic("hush: of the inside") }
	s.api.cfg.Workers = func(context.Context) ([]Worker, error) { return nil, errors.New("hush: of the roster inside") }
	for target, logged := range map[string]string{"/api/sessions/shop": "hush: of the inside", "/api/workers": "hush: of the roster inside"} {
		got := s.ask(Admin, "GET", target, "")
		p := wantProblem(t, got, CodeInternal)
		if leftovers.Match(got.body) || strings.Contains(string(got.body), "hush") || strings.Contains(p.Detail, "inside") {
			t.Errorf("%s: the answer shows %s", target, got.body)
		}
		if !strings.Contains(s.log.String(), logged) {
			t.Errorf("%s: the log does not tell what it was", target)
		}
	}
}
