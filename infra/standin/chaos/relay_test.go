package chaos

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// What goes in comes out, the address is known, and an end is passed on.
func TestRelay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r, err := openRelay(l.Addr().String(), func() (string, int) { return "w1", 3 })
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	c, err := net.Dial("tcp", r.address())
	if err != nil {
		t.Fatal(err)
	}
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(served, b); err != nil || string(b) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
	got := r.conns()
	if len(got) != 1 || got[0].Remote != served.RemoteAddr().String() || got[0].Process != "w1" || got[0].Run != 3 || got[0].Opened.After(now) {
		t.Errorf("%+v, want %s", got, served.RemoteAddr())
	}
	_ = c.Close()
	_ = served.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := served.Read(b); !errors.Is(err, io.EOF) {
		t.Errorf("the end is not passed on: %v", err)
	}
}

func TestSink(t *testing.T) {
	s, err := openSink()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	post := func(id string, event any) int {
		t.Helper()
		b, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("webhook-id", id)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	message := map[string]any{"id": "E1", "type": "message.received", "session": "shop", "epoch": 2, "seq": 7, "data": map[string]any{"id": "M1", "text": "hello"}}
	state := map[string]any{"id": "E2", "type": "session.state", "session": "shop", "epoch": 2, "seq": 8, "data": map[string]any{"id": "no message"}}
	s.deaf.Store(true)
	if got := post("E1", message); got != 503 || s.has("shop", "M1") {
		t.Errorf("deaf: %d", got)
	}
	s.deaf.Store(false)
	if got := post("E1", message); got != 200 || !s.has("shop", "M1") || s.has("other", "M1") {
		t.Errorf("heard: %d", got)
	}
	if got := post("E2", state); got != 200 {
		t.Errorf("another event: %d", got)
	}
	if got := post("E9", state); got != 400 {
		t.Errorf("another id in the header: %d", got)
	}
	all, bad := s.all()
	if len(all) != 2 || bad != 1 || all[0].Message != "M1" || all[0].Text != "hello" || all[0].Seq != 7 || all[0].Epoch != 2 || all[1].Message != "" {
		t.Errorf("%+v, %d bad", all, bad)
	}
}
