package adminapi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// entries reads the audit page by page.
func (s *stage) entries(query string, limit int) []AuditEntry {
	s.t.Helper()
	var all []AuditEntry
	cursor := ""
	for range 50 {
		page := want[AuditPage](s.t, s.ask(Admin, "GET", fmt.Sprintf("/api/audit?limit=%d&cursor=%s&%s", limit, cursor, query), ""), 200)
		all = append(all, page.Entries...)
		if cursor = page.Next; cursor == "" {
			return all
		}
	}
	s.t.Fatal("the audit has no end")
	return nil
}

// TestWhoDidWhatIsKept for all sessions, the newest first, also of one that is gone.
func TestWhoDidWhatIsKept(t *testing.T) {
	s := newStage(t)
	for _, name := range []string{"shop", "bar", "gone"} {
		s.pass(time.Second)
		want[ChangedSession](t, s.ask(Operator, "POST", "/api/sessions", `{"name":"`+name+`"}`), 202)
	}
	for _, path := range []string{"shop/stop", "bar/stop", "shop/start", "bar/start", "shop/restart"} {
		s.pass(time.Second)
		want[Command](t, s.ask(Operator, "POST", "/api/sessions/"+path, ""), 202)
	}
	s.pass(time.Second)
	want[Command](t, s.ask(Admin, "DELETE", "/api/sessions/gone", ""), 202)
	var told []string
	for _, e := range s.entries("", 100) {
		told = append(told, e.By+" "+e.Action+" "+e.Session)
	}
	full := strings.Join(told, "\n")
	if full != strings.TrimSpace(`
admin-name delete 
operator-name restart shop
operator-name start bar
operator-name start shop
operator-name stop bar
operator-name stop shop
operator-name create bar
operator-name create shop`) {
		t.Errorf("the audit tells\n%s", full)
	}
	for _, limit := range []int{1, 2, 3, 7, 8} {
		var paged []string
		for _, e := range s.entries("", limit) {
			paged = append(paged, e.By+" "+e.Action+" "+e.Session)
		}
		if got := strings.Join(paged, "\n"); got != full {
			t.Errorf("in pages of %d it tells\n%s", limit, got)
		}
	}
	for query, n := range map[string]int{"session=shop": 4, "by=admin-name": 1, "action=stop": 2, "action=stop&session=bar": 1, "by=nobody": 0} {
		if got := s.entries(query, 2); len(got) != n {
			t.Errorf("%s: %d entries, want %d", query, len(got), n)
		}
	}
	if e := s.entries("action=delete", 5); len(e) != 1 || !strings.Contains(e[0].Before, "gone") || e[0].Role != "admin" {
		t.Errorf("%+v", e)
	}
	wantProblem(t, s.ask(Operator, "GET", "/api/audit", ""), CodeForbidden)
	wantProblem(t, s.ask(Admin, "GET", "/api/audit?session=gone", ""), CodeNotFound)
	s.pass(401 * 24 * time.Hour)
	if left := s.entries("", 100); len(left) != 0 {
		t.Errorf("%d entries after 401 days", len(left))
	}
}

// TestEachKeyHasItsRate: who asks too often waits, and nobody else does.
func TestEachKeyHasItsRate(t *testing.T) {
	s := newStage(t)
	s.api.rate = newLimits(10, 20)
	s.api.cfg.Rate = 10
	asked := func(role Role) int {
		n := 0
		for s.ask(role, "GET", "/api/me", "").StatusCode == 200 {
			n++
		}
		return n
	}
	if n := asked(Viewer); n != 20 {
		t.Errorf("%d at once, want 20", n)
	}
	p := wantProblem(t, s.ask(Viewer, "GET", "/api/me", ""), CodeRateLimited)
	if p.RetryAfter != 1 {
		t.Errorf("retry after %d", p.RetryAfter)
	}
	if r := s.ask(Viewer, "GET", "/api/me", ""); r.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
	}
	if n := asked(Operator); n != 20 {
		t.Errorf("another key: %d", n)
	}
	s.pass(time.Second)
	if n := asked(Viewer); n != 10 {
		t.Errorf("a second later %d, want 10: refused requests must not count", n)
	}
	// A key that is none is refused as such, and the documents need none.
	wantProblem(t, s.ask(0, "GET", "/api/me", "", "X-Api-Key", "guess"), CodeUnauthorized)
	if s.ask(0, "GET", "/api/docs", "").StatusCode != 200 {
		t.Error("the docs are bounded")
	}
}

// TestChangesNameTheirVersion: every change takes If-Match.
func TestChangesNameTheirVersion(t *testing.T) {
	s := newStage(t)
	s.online(s.session("shop"))
	for _, tt := range []struct{ method, path, body string }{
		{"PATCH", "", `{"settings":{"profile":"gentle"}}`}, {"POST", "/stop", ""}, {"POST", "/start", ""}, {"POST", "/repair", "{}"},
		{"POST", "/disconnect", ""}, {"DELETE", "", ""},
	} {
		at := s.ask(Viewer, "GET", "/api/sessions/shop", "").Header.Get("ETag")
		wantProblem(t, s.ask(Admin, tt.method, "/api/sessions/shop"+tt.path, tt.body, "If-Match", `"99"`), CodePrecondition)
		if now := s.ask(Viewer, "GET", "/api/sessions/shop", "").Header.Get("ETag"); now != at {
			t.Errorf("%s %s changed it all the same: %s, %s", tt.method, tt.path, at, now)
		}
		wantProblem(t, s.ask(Admin, tt.method, "/api/sessions/shop"+tt.path, tt.body, "If-Match", "W/"+at), CodePrecondition)
		if r := s.ask(Admin, tt.method, "/api/sessions/shop"+tt.path, tt.body, "If-Match", `"98", `+at); r.StatusCode/100 != 2 {
			t.Errorf("%s %s: HTTP %d %s", tt.method, tt.path, r.StatusCode, r.body)
		}
	}
}

// TestCreatingIsRepeated with the same key, and with no other.
func TestCreatingIsRepeated(t *testing.T) {
	s := newStage(t)
	create := func(key string) reply {
		return s.ask(Operator, "POST", "/api/sessions", `{"name":"shop"}`, "Idempotency-Key", key)
	}
	first := want[ChangedSession](t, create("k"), 202)
	s.online(s.own("shop"))
	again := want[ChangedSession](t, create("k"), 202)
	if first.Command != again.Command || again.Generation != 1 {
		t.Errorf("%s and %s", first.Command, again.Command)
	}
	for _, other := range []string{`{"name":"shop","wanted":"stopped"}`, `{"name":"shop","settings":{"profile":"gentle"}}`} {
		wantProblem(t, s.ask(Operator, "POST", "/api/sessions", other, "Idempotency-Key", "k"), CodeIdempotencyMismatch)
	}
	wantProblem(t, create("l"), CodeExists)
	wantProblem(t, create(""), CodeExists)
	// A key used for one order does not stand for another, nor for other arguments.
	order := func(path, body, key string) reply {
		return s.ask(Admin, "POST", "/api/sessions/shop/"+path, body, "Idempotency-Key", key)
	}
	debug := want[Command](t, order("debug", `{"on":true}`, "d"), 202)
	if same := want[Command](t, order("debug", `{"on":true}`, "d"), 202); same.ID != debug.ID {
		t.Errorf("%s and %s", debug.ID, same.ID)
	}
	wantProblem(t, order("debug", `{"on":false}`, "d"), CodeIdempotencyMismatch)
	wantProblem(t, order("debug", `{"on":true,"for":"1h"}`, "d"), CodeIdempotencyMismatch)
	wantProblem(t, order("stop", "", "d"), CodeIdempotencyMismatch)
	want[Command](t, order("repair", `{}`, "r"), 202)
	wantProblem(t, order("repair", `{"force":true}`, "r"), CodeIdempotencyMismatch)

	change := func(body string) reply {
		return s.ask(Operator, "PATCH", "/api/sessions/shop", body, "Idempotency-Key", "p")
	}
	changed := want[ChangedSession](t, change(`{"settings":{"profile":"gentle","webhookSecret":"hush-hush-hush-hush"}}`), 202)
	if same := want[ChangedSession](t, change(`{"settings":{"webhookSecret":"hush-hush-hush-hush","profile":"gentle"}}`), 202); same.Command != changed.Command {
		t.Errorf("%s and %s", changed.Command, same.Command)
	}
	wantProblem(t, change(`{"settings":{"profile":"guide","webhookSecret":"hush-hush-hush-hush"}}`), CodeIdempotencyMismatch)
	wantProblem(t, change(`{"settings":{"profile":"gentle"}}`), CodeIdempotencyMismatch)

	page := want[CommandPage](t, s.ask(Viewer, "GET", "/api/sessions/shop/commands?limit=3", ""), 200)
	rest := want[CommandPage](t, s.ask(Viewer, "GET", "/api/sessions/shop/commands?cursor="+page.Next, ""), 200)
	if len(page.Commands) != 3 || len(rest.Commands) != 1 || rest.Next != "" {
		t.Errorf("%d and %d commands", len(page.Commands), len(rest.Commands))
	}
}

// TestACommandThatACooldownRefused tells how long that lasts, for as long as it does.
func TestACommandThatACooldownRefused(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.status(o, state.Status{State: state.Banned, Cause: state.CauseTemporaryBan, Paired: true, CooldownUntil: s.now().Add(90 * time.Second)}, state.Identity{})
	c := want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/start", ""), 202)
	s.end(o, c.ID, func(c *state.Command) {
		c.State, c.Code, c.Problem = state.CommandFailed, "cooldown", "temporary_ban is cooling down"
	})
	for _, step := range []struct {
		pass time.Duration
		left int
	}{{0, 90}, {30*time.Second + time.Millisecond, 60}, {time.Minute, 0}} {
		s.pass(step.pass)
		if got := want[Command](t, s.ask(Viewer, "GET", "/api/commands/"+c.ID, ""), 200); got.RetryAfter != step.left {
			t.Errorf("%d s, want %d", got.RetryAfter, step.left)
		}
	}
}

// TestUploadsAtOnceAreBounded: each is in memory.
func TestUploadsAtOnceAreBounded(t *testing.T) {
	s := newStage(t)
	s.session("shop")
	for range uploadsAtOnce {
		s.api.room <- struct{}{}
	}
	wantProblem(t, s.ask(Operator, "POST", toMedia, "x", "Content-Type", "text/plain"), CodeRateLimited)
	want[Session](t, s.ask(Viewer, "GET", "/api/sessions/shop", ""), 200)
	<-s.api.room
	for range 3 {
		want[Upload](t, s.ask(Operator, "POST", toMedia, "x", "Content-Type", "text/plain"), 201)
	}
}
