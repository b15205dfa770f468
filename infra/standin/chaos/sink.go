package chaos

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// sink is the receiver of events. What it has answered 200 to is recorded.
type sink struct {
	server *http.Server
	url    string
	deaf   atomic.Bool

	mu       sync.Mutex
	arrivals []Arrival
	messages map[string]bool // session and message id
	refused  int             // while it was deaf
	bad      int             // requests that were no event
}

// stateEvent is the type of event that says what a session is now.
const stateEvent = "session.state"

// envelope is what is read of an event.
type envelope struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Session string `json:"session"`
	Epoch   uint64 `json:"epoch"`
	Seq     uint64 `json:"seq"`
	Data    struct {
		ID     string `json:"id"`
		Text   string `json:"text"`
		FromMe bool   `json:"fromMe"`
		State  string `json:"state"`
		Cause  string `json:"cause"`
	} `json:"data"`
}

func openSink() (*sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{url: "http://" + l.Addr().String() + "/events", messages: map[string]bool{}}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.server.Serve(l) }()
	return s, nil
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
	if err != nil {
		return // the sender is gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deaf.Load() {
		s.refused++
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var e envelope
	if json.Unmarshal(b, &e) != nil || e.ID == "" || e.ID != r.Header.Get("Webhook-Id") {
		s.bad++
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a := Arrival{At: time.Now(), Event: e.ID, Type: e.Type, Session: e.Session, Epoch: e.Epoch, Seq: e.Seq}
	if e.Type == "message.received" && !e.Data.FromMe {
		a.Message, a.Text = e.Data.ID, e.Data.Text
		s.messages[a.Session+" "+a.Message] = true
	}
	if e.Type == stateEvent {
		a.State, a.Cause = e.Data.State, e.Data.Cause
	}
	s.arrivals = append(s.arrivals, a)
}

// has tells whether a message has arrived.
func (s *sink) has(session, message string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.messages[session+" "+message]
}

// all are the arrivals so far, and how many requests were no events.
func (s *sink) all() (arrivals []Arrival, bad int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Arrival(nil), s.arrivals...), s.bad
}

func (s *sink) close() { _ = s.server.Close() }
