package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/wasim"
)

// Gaps run from the close of the socket before to the next login of the same
// device; a socket that was kicked by its successor leaves none.
func TestMoves(t *testing.T) {
	begin := time.Now()
	at := func(s float64) *time.Time {
		x := begin.Add(time.Duration(s * float64(time.Second)))
		return &x
	}
	sockets := []wasim.Socket{
		{Device: "a", LoggedIn: at(1), Closed: at(10)},
		{Device: "b", LoggedIn: at(2), Closed: at(12.5)},
		{Device: "a", Opened: *at(11)}, // never logged in
		{Device: "a", LoggedIn: at(11.2), Closed: at(20)},
		{Device: "b", LoggedIn: at(12)}, // kicks the one before
		{Device: "a", LoggedIn: at(20.3)},
		{Device: "c", LoggedIn: at(15)}, // its first
	}
	var got []string
	for _, m := range moves(sockets, *at(5)) {
		got = append(got, m.Device+" "+m.Gap().Round(time.Millisecond).String())
	}
	if want := "a 1.2s,b 0s,c 0s,a 300ms"; strings.Join(got, ",") != want {
		t.Errorf("the gaps are %v, want %s", got, want)
	}
	if n := len(moves(sockets, *at(20.3))); n != 0 {
		t.Errorf("%d moves after the last", n)
	}
}

// The quantile is a value that occurs, and the longest for the whole.
func TestQuantile(t *testing.T) {
	var d []time.Duration
	for i := range 100 {
		d = append(d, time.Duration(i))
	}
	for part, want := range map[float64]time.Duration{0: 0, 0.5: 50, 0.99: 99, 1: 99} {
		if got := quantile(d, part); got != want {
			t.Errorf("quantile %g is %d, want %d", part, got, want)
		}
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("nothing has a quantile")
	}
}

// The sink counts each message of each session, and what could not be decrypted.
func TestSink(t *testing.T) {
	k := newSink()
	post := func(body string) int {
		w := httptest.NewRecorder()
		k.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
		return w.Code
	}
	for _, body := range []string{
		`{"type":"message.received","session":"a","data":{"id":"1"}}`,
		`{"id":"x","type":"message.received","session":"b","data":{"id":"1"}}`,
		`{"id":"x","type":"message.received","session":"b","data":{"id":"1"}}`,
		`{"id":"y","type":"message.received","session":"b","data":{"id":"1"}}`,
		`{"type":"message.undecryptable","session":"b","data":{"id":"2"}}`,
		`{"type":"session.state","session":"b","data":{}}`,
	} {
		if code := post(body); code != http.StatusNoContent {
			t.Errorf("%s is answered %d", body, code)
		}
	}
	if post("no event") != http.StatusBadRequest {
		t.Error("what is no event is taken")
	}
	if len(k.messages["a/1"]) != 1 || k.messages["b/1"]["x"] != 2 || k.messages["b/1"]["y"] != 1 || len(k.messages) != 2 || k.unread != 1 {
		t.Errorf("it holds %v, %d undecrypted", k.messages, k.unread)
	}
}

// Trust runs from the sending of a heartbeat to the answer of the next; one that
// failed brings none.
func TestPulse(t *testing.T) {
	p := newPulse(nil)
	begin := time.Now()
	beat := func(sent, took time.Duration, err error) { p.note(begin.Add(sent), begin.Add(sent+took), err) }
	beat(0, 10*time.Millisecond, nil)
	beat(2*time.Second, 30*time.Millisecond, nil)
	beat(4*time.Second, time.Second, http.ErrHandlerTimeout)
	beat(5*time.Second, 20*time.Millisecond, nil)
	want := Beats{Count: 3, Failed: 1, Apart: 3 * time.Second, Answered: 30 * time.Millisecond, Trust: 8*time.Second - 3*time.Second - 20*time.Millisecond}
	if got := p.take(); got != want {
		t.Errorf("seen: %+v, want %+v", got, want)
	}
	if got := p.take(); got.Count != 0 || got.Trust != 8*time.Second {
		t.Errorf("it began with %+v", got)
	}
}
