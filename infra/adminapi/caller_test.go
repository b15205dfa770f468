package adminapi

import (
	"context"
	"net/http"
	"testing"
)

// A caller whom somebody before the API has found out needs no key, and has the
// role that he was given.
func TestCallersFromOutside(t *testing.T) {
	s := newStage(t)
	as := func(name string, role Role) context.Context {
		return WithCaller(context.Background(), Caller{Name: name, Role: role})
	}
	want[ChangedSession](t, s.askCtx(as("jwt:ann", Operator), 0, "POST", "/api/sessions", `{"name":"shop"}`), http.StatusAccepted)
	c := want[Command](t, s.askCtx(as("jwt:ben", Operator), 0, "POST", "/api/sessions/shop/stop", ""), http.StatusAccepted)
	if c.By != "jwt:ben" {
		t.Errorf("by %q", c.By)
	}
	for name, ctx := range map[string]context.Context{"a viewer": as("jwt:eve", Viewer), "nobody": as("jwt:eve", 0)} {
		// Also with a key that could: the caller is who he is.
		if p := want[Problem](t, s.askCtx(ctx, Admin, "POST", "/api/sessions", `{"name":"other"}`), http.StatusForbidden); p.Code != CodeForbidden {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// Where answers are sent whole, a live stream is refused with what to ask instead,
// unless the client takes that as well.
func TestNoStreams(t *testing.T) {
	s := newStage(t)
	s.api.cfg.NoStreams = true
	want[ChangedSession](t, s.ask(Operator, "POST", "/api/sessions", `{"name":"shop"}`), http.StatusAccepted)
	for _, path := range []string{"/api/events", "/api/sessions/shop/events"} {
		p := want[Problem](t, s.ask(Viewer, "GET", path, "", "Accept", "text/event-stream"), http.StatusNotAcceptable)
		if p.Code != CodeStreamingNotHere {
			t.Errorf("%s: %+v", path, p)
		}
		want[EventPage](t, s.ask(Viewer, "GET", path, "", "Accept", "text/event-stream, application/json;q=0.5"), http.StatusOK)
	}
}
