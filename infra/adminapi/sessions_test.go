package adminapi

import (
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

func TestCreateLeavesSpecCommandAndAudit(t *testing.T) {
	s := newStage(t)
	r := s.ask(Operator, "POST", "/api/sessions", `{"name":"shop","settings":{"profile":"gentle","labels":{"team":"a"}}}`)
	v := want[ChangedSession](t, r, 202)
	if v.Name != "shop" || v.Wanted != state.WantRunning || v.State != state.Unowned || v.Generation != 1 || v.Settings.Profile != "gentle" {
		t.Errorf("session %+v", v)
	}
	if r.Header.Get("ETag") != `"1"` || r.Header.Get("Location") != "/api/sessions/shop" {
		t.Errorf("headers %v", r.Header)
	}
	c := want[Command](t, s.ask(Viewer, "GET", "/api/commands/"+v.Command, ""), 200)
	if c.Verb != state.VerbStart || c.State != state.CommandPending || c.By != "operator-name" || c.Args["generation"] != "1" {
		t.Errorf("command %+v", c)
	}
	found, err := s.store.Indexed(t.Context(), state.CommandIndex(""), nil, 10)
	if err != nil || len(found) != 1 || state.CommandRef("shop", found[0].Key.ID) != v.Command {
		t.Errorf("open commands of unowned sessions: %v, %v", found, err)
	}
	page, err := s.store.Query(t.Context(), state.OfSession("shop"), state.Query{Kind: state.KindAudit})
	if err != nil || len(page.Records) != 1 {
		t.Fatalf("audit: %v, %v", page, err)
	}
	var audit state.Audit
	if err := state.Decode(page.Records[0].Value, &audit); err != nil || audit.By != "operator-name" || audit.Role != "operator" || audit.Action != "create" {
		t.Errorf("audit %+v, %v", audit, err)
	}
	if len(s.nudged) != 1 || s.nudged[0] != "shop" {
		t.Errorf("nudged %v", s.nudged)
	}
}

func TestWantedStateAndCommandAreOneWrite(t *testing.T) {
	for _, tc := range []struct {
		verb       state.Verb
		body       string
		wanted     state.Wanted
		generation uint64
		repairs    uint64
	}{
		{state.VerbStart, "", state.WantRunning, 1, 0}, // it is that already
		{state.VerbStop, "", state.WantStopped, 2, 0},
		{state.VerbRestart, "", state.WantRunning, 1, 0},
		{state.VerbDisconnect, "", state.WantDisconnected, 2, 0},
		{state.VerbRepair, "", state.WantRunning, 2, 1},
		{state.VerbRepair, "{}", state.WantRunning, 2, 1},
	} {
		t.Run(string(tc.verb)+tc.body, func(t *testing.T) {
			s := newStage(t)
			s.session("shop")
			c := want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/"+string(tc.verb), tc.body), 202)
			spec := s.spec("shop")
			if spec.Wanted != tc.wanted || spec.Generation != tc.generation || spec.RepairGeneration != tc.repairs {
				t.Errorf("spec %+v", spec)
			}
			if c.Verb != tc.verb || c.State != state.CommandPending || c.Args["generation"] != fmt.Sprint(tc.generation) {
				t.Errorf("command %+v", c)
			}
			found, err := s.store.Indexed(t.Context(), state.CommandIndex("w-1"), nil, 10)
			if err != nil || len(found) != 1 || found[0].Rev != 1 {
				t.Errorf("open commands of the owner: %v, %v", found, err)
			}
		})
	}
}

func TestCommandsAreWaitedFor(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	got := make(chan Command)
	go func() {
		got <- want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/stop?wait=20s", ""), 202)
	}()
	var ref string
	for ref == "" {
		found, err := s.store.Indexed(t.Context(), state.CommandIndex("w-1"), nil, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			ref = state.CommandRef("shop", found[0].Key.ID)
		}
	}
	s.end(o, ref, func(c *state.Command) { c.Result = "stopped" })
	if c := <-got; c.State != state.CommandDone || c.Result != "stopped" || c.ID != ref || c.Epoch != o.Epoch {
		t.Errorf("command %+v", c)
	}
	// One that nobody takes is answered as it is when the wait is over.
	c := want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/start?wait=20ms", ""), 202)
	if c.State != state.CommandPending {
		t.Errorf("command %+v", c)
	}
	s.pass(time.Hour)
	if c := want[Command](t, s.ask(Viewer, "GET", "/api/commands/"+c.ID, ""), 200); c.State != state.CommandExpired || c.Code != "expired" {
		t.Errorf("after its time %+v", c)
	}
	s.pass(25 * time.Hour)
	wantProblem(t, s.ask(Viewer, "GET", "/api/commands/"+c.ID, ""), CodeNotFound)
}

func TestWaitEndsWithTheClient(t *testing.T) {
	s := newStage(t)
	s.session("shop")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	began := time.Now()
	s.askCtx(ctx, Operator, "POST", "/api/sessions/shop/stop?wait=60s", "")
	if time.Since(began) > 10*time.Second {
		t.Error("the request went on without its client")
	}
}

func TestWaitsOutliveTheServersTimeouts(t *testing.T) {
	s := newStage(t)
	s.session("shop")
	server := httptest.NewUnstartedServer(s.api)
	server.Config.ReadTimeout, server.Config.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	server.Start()
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/api/sessions/shop/repair?wait=300ms", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", secretOf(Operator))
	req.Header.Set("Content-Type", "application/json")
	began := time.Now()
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 202 || time.Since(began) < 300*time.Millisecond {
		t.Errorf("HTTP %d after %v", resp.StatusCode, time.Since(began))
	}
}

func TestIdempotencyKeysOfCommands(t *testing.T) {
	s := newStage(t)
	s.session("shop")
	first := want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/repair", "", "Idempotency-Key", "k1"), 202)
	again := want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/repair", "", "Idempotency-Key", "k1"), 202)
	other := want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/repair", "", "Idempotency-Key", "k2"), 202)
	if first.ID != again.ID || first.ID == other.ID {
		t.Errorf("ids %s, %s, %s", first.ID, again.ID, other.ID)
	}
	if n := s.spec("shop").RepairGeneration; n != 2 {
		t.Errorf("%d repairs for 2 keys", n)
	}
	wantProblem(t, s.ask(Operator, "POST", "/api/sessions/shop/stop", "", "Idempotency-Key", "k1"), CodeIdempotencyMismatch)
}

func TestRepairDuringCooldown(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.status(o, state.Status{State: state.Conflict, Cause: state.CauseLoggedOut, CooldownUntil: s.now().Add(4 * time.Minute)}, state.Identity{})
	r := s.ask(Operator, "POST", "/api/sessions/shop/repair", "")
	if p := wantProblem(t, r, CodeCooldown); p.RetryAfter != 240 || r.Header.Get("Retry-After") != "240" {
		t.Errorf("retryAfter %d, header %q", p.RetryAfter, r.Header.Get("Retry-After"))
	}
	wantProblem(t, s.ask(Admin, "POST", "/api/sessions/shop/repair", ""), CodeCooldown)
	wantProblem(t, s.ask(Operator, "POST", "/api/sessions/shop/repair", `{"force":true}`), CodeForbidden)
	wantProblem(t, s.ask(Operator, "POST", "/api/sessions/shop/pair-code", `{"phone":"4915123456789"}`), CodeCooldown)
	if c := want[Command](t, s.ask(Admin, "POST", "/api/sessions/shop/repair", `{"force":true}`), 202); c.Args["force"] != "true" {
		t.Errorf("command %+v", c)
	}
	s.pass(5 * time.Minute)
	want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/repair", ""), 202)
}

func TestRestoreNeedsKeptCredentials(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	wantProblem(t, s.ask(Operator, "POST", "/api/sessions/shop/restore", ""), CodeNothingToRestore)
	s.commit(o, state.Put(state.KindMeta, "", s.encode(state.Meta{V: 1, Quarantined: []state.QuarantinedSet{{Cause: state.CauseLoggedOut, At: s.now(), Until: s.now().Add(time.Hour)}}})))
	if c := want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/restore", ""), 202); c.Verb != state.VerbRestore {
		t.Errorf("command %+v", c)
	}
	if v := want[Session](t, s.ask(Viewer, "GET", "/api/sessions/shop", ""), 200); len(v.Quarantined) != 1 || v.Quarantined[0].Cause != state.CauseLoggedOut {
		t.Errorf("quarantined %+v", v.Quarantined)
	}
	s.pass(2 * time.Hour)
	wantProblem(t, s.ask(Operator, "POST", "/api/sessions/shop/restore", ""), CodeNothingToRestore)
}

func TestDebugIsACommand(t *testing.T) {
	s := newStage(t)
	s.session("shop")
	if c := want[Command](t, s.ask(Admin, "POST", "/api/sessions/shop/debug", `{"on":true,"for":"1h"}`), 202); c.Verb != state.VerbDebug || c.Args["on"] != "true" || c.Args["for"] != "1h0m0s" {
		t.Errorf("command %+v", c)
	}
}

func TestPatchMergesAndIsConditional(t *testing.T) {
	s := newStage(t)
	s.session("shop")
	r := s.ask(Operator, "PATCH", "/api/sessions/shop", `{"settings":{"profile":"gentle","labels":{"a":"1","b":"2"},"override":{"keepalive-interval":"20s"}}}`, "If-Match", `"1"`)
	v := want[ChangedSession](t, r, 202)
	if v.Generation != 2 || r.Header.Get("ETag") != `"2"` {
		t.Errorf("generation %d, ETag %s", v.Generation, r.Header.Get("ETag"))
	}
	wantProblem(t, s.ask(Operator, "PATCH", "/api/sessions/shop", `{"settings":{"profile":"guide"}}`, "If-Match", `"1"`), CodePrecondition)
	v = want[ChangedSession](t, s.ask(Operator, "PATCH", "/api/sessions/shop", `{"settings":{"profile":"","labels":{"a":"","c":"3"}}}`), 202)
	if got := fmt.Sprint(v.Settings.Profile, v.Settings.Labels, v.Settings.Override); got != "map[b:2 c:3] map[keepalive-interval:20s]" {
		t.Errorf("settings %s", got)
	}
	if c := want[Command](t, s.ask(Viewer, "GET", "/api/commands/"+v.Command, ""), 200); c.Verb != state.VerbReconcile || c.Args["generation"] != "3" {
		t.Errorf("command %+v", c)
	}
}

func TestDeleteOfASession(t *testing.T) {
	s := newStage(t)
	want[ChangedSession](t, s.ask(Operator, "POST", "/api/sessions", `{"name":"never-owned"}`), 202)
	if c := want[Command](t, s.ask(Admin, "DELETE", "/api/sessions/never-owned", ""), 202); c.State != state.CommandDone {
		t.Errorf("command %+v", c)
	}
	wantProblem(t, s.ask(Admin, "GET", "/api/sessions/never-owned", ""), CodeNotFound)

	o := s.session("owned")
	s.online(o)
	c := want[Command](t, s.ask(Admin, "DELETE", "/api/sessions/owned", ""), 202)
	if c.State != state.CommandPending || c.Verb != state.VerbDelete || s.spec("owned").Wanted != state.WantDisconnected {
		t.Errorf("command %+v, spec %+v", c, s.spec("owned"))
	}
	got := make(chan Command)
	go func() {
		got <- want[Command](t, s.ask(Admin, "DELETE", "/api/sessions/owned?wait=20s", "", "Idempotency-Key", "x"), 202)
	}()
	for {
		found, err := s.store.Indexed(t.Context(), state.CommandIndex("w-1"), nil, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 2 {
			break
		}
	}
	if err := s.store.RemoveSession(t.Context(), o.Fence()); err != nil {
		t.Fatal(err)
	}
	if c := <-got; c.State != state.CommandDone {
		t.Errorf("command %+v", c)
	}
}

func TestSessionShowsAllThatIsKnown(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	at := func(m int) time.Time { return s.now().Add(-time.Duration(m) * time.Minute) }
	s.status(o, state.Status{State: state.Reconnecting, Cause: state.CauseNetwork, Code: 7, Since: at(1), Health: state.Unhealthy, Attempt: 3,
		NextAttemptAt: at(-1), CooldownUntil: at(-2), ObservedGeneration: 1, Paired: true, LastConnectedAt: at(9), LastPongAt: at(8), LastInboundAt: at(7),
		LastActivityAt: at(6), FailuresInARow: 2, Undecryptable: 5, ObservedAt: at(5), Decision: "redial",
		Hours: []state.HourTally{{Hour: s.now().Add(-time.Hour).Format("2006-01-02T15"), Up: 60, Reconnects: map[state.Cause]int{state.CauseNetwork: 4}}}},
		state.Identity{JID: "4915@s.whatsapp.net", LID: "1@lid", PushName: "Shop", PhoneLastSeen: s.now().Add(-13 * 24 * time.Hour), Text: "gone"})
	s.pass(2 * time.Hour)
	r := s.ask(Viewer, "GET", "/api/sessions/shop", "")
	v := want[Session](t, r, 200)
	if v.State != state.Reconnecting || v.Owner != "w-1" || v.Epoch != o.Epoch || v.JID == "" || !v.PhoneAbsent || v.Text != "gone" || v.Undecryptable != 5 {
		t.Errorf("session %+v", v)
	}
	var fields map[string]any
	if err := json.Unmarshal(r.body, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"state", "health", "cause", "since", "attempt", "nextAttemptAt", "cooldownUntil", "lastConnectedAt", "lastPongAt",
		"lastInboundAt", "lastActivityAt", "observedAt", "failuresInARow", "undecryptable", "owner", "epoch", "jid", "lid", "pushName", "phoneLastSeen", "day", "week"} {
		if _, ok := fields[name]; !ok {
			t.Errorf("%s is not shown", name)
		}
	}
	// Without an owner it is unowned, whatever its last one wrote.
	if err := s.store.Release(t.Context(), o.Fence()); err != nil {
		t.Fatal(err)
	}
	if v := want[Session](t, s.ask(Viewer, "GET", "/api/sessions/shop", ""), 200); v.State != state.Unowned || v.Health != "" {
		t.Errorf("state %s, health %s", v.State, v.Health)
	}
}

func TestListPagesAndFilters(t *testing.T) {
	s := newStage(t)
	for i := range 25 {
		o := s.session(fmt.Sprintf("s-%02d", i))
		if i%5 == 0 {
			s.status(o, state.Status{State: state.Banned, Cause: state.CauseAccountBanned}, state.Identity{})
		} else {
			s.online(o)
		}
	}
	for _, tc := range []struct {
		query string
		limit int
		names int
	}{{"", 10, 25}, {"", 25, 25}, {"", 500, 25}, {"state=banned", 2, 5}, {"cause=account_banned", 3, 5}, {"state=online", 7, 20}, {"state=failed", 5, 0}, {"owner=w-1", 9, 25}, {"owner=w-2", 9, 0}} {
		var names []string
		cursor := ""
		for pages := 0; ; pages++ {
			page := want[SessionPage](t, s.ask(Viewer, "GET", fmt.Sprintf("/api/sessions?limit=%d&%s&cursor=%s", tc.limit, tc.query, cursor), ""), 200)
			if len(page.Sessions) > tc.limit || pages > 30 {
				t.Fatalf("%s: page of %d, %d pages", tc.query, len(page.Sessions), pages)
			}
			for _, v := range page.Sessions {
				names = append(names, v.Name)
			}
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		if len(names) != tc.names || !strings.HasPrefix(strings.Join(names, ","), strings.Join(sortedUnique(names), ",")) {
			t.Errorf("%q by %d: %v, want %d", tc.query, tc.limit, names, tc.names)
		}
	}
}

func sortedUnique(names []string) []string {
	var out []string
	for _, n := range names {
		if len(out) == 0 || out[len(out)-1] < n {
			out = append(out, n)
		}
	}
	return out
}

func TestDamagedRecordsAreNamed(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.commit(o, state.Put(state.KindStatus, "", s.encode(state.Status{V: 1, State: state.Online, Sealed: []byte("damaged")})),
		state.Put(state.KindMeta, "", []byte("{")))
	if v := want[Session](t, s.ask(Viewer, "GET", "/api/sessions/shop", ""), 200); fmt.Sprint(v.Unreadable) != "[meta identity]" && fmt.Sprint(v.Unreadable) != "[identity meta]" {
		t.Errorf("unreadable %v", v.Unreadable)
	}
	if page := want[SessionPage](t, s.ask(Viewer, "GET", "/api/sessions", ""), 200); len(page.Sessions) != 1 {
		t.Errorf("a damaged session hides the list")
	}
}

func TestSpan(t *testing.T) {
	now := time.Date(2026, 5, 6, 12, 30, 0, 0, time.UTC)
	hour := func(ago, up int, n int) state.HourTally {
		h := state.HourTally{Hour: now.Add(-time.Duration(ago) * time.Hour).Format("2006-01-02T15"), Up: up}
		if n > 0 {
			h.Reconnects = map[state.Cause]int{state.CauseNetwork: n}
		}
		return h
	}
	full := func(from, to int) []state.HourTally {
		var hours []state.HourTally
		for ago := from; ago >= to; ago-- {
			hours = append(hours, hour(ago, 3600, 0))
		}
		return hours
	}
	old := now.Add(-100 * 24 * time.Hour)
	for _, tc := range []struct {
		name    string
		status  state.Status
		created time.Time
		online  bool
		want    float64
		n       int
	}{
		{"nothing known", state.Status{}, old, false, 0, 0},
		{"never down", state.Status{Hours: full(200, 1), ObservedAt: now.Add(-30 * time.Minute)}, old, true, 1, 0},
		{"online, quiet since long ago", state.Status{Since: now.Add(-50 * time.Hour), ObservedAt: now.Add(-50 * time.Hour)}, old, true, 1, 0},
		{"online for six hours", state.Status{Since: now.Add(-6 * time.Hour), ObservedAt: now.Add(-6 * time.Hour)}, old, true, 0.25, 0},
		{"half of each hour", state.Status{Hours: []state.HourTally{hour(1, 1800, 2), hour(2, 1800, 1), hour(30, 3600, 9)}}, old, false, 1.0 / 24, 3},
		{"created two hours ago", state.Status{Hours: []state.HourTally{hour(1, 3600, 0)}}, now.Add(-2 * time.Hour), false, 0.5, 0},
		{"created within this hour", state.Status{Hours: []state.HourTally{hour(0, 600, 0)}}, now.Add(-20 * time.Minute), false, 0.5, 0},
		{"created just now", state.Status{}, now, true, 0, 0},
		{"nonsense in the tally", state.Status{Hours: []state.HourTally{{Hour: "soon", Up: 9}, hour(1, 1<<40, 0)}}, old, false, 1.0 / 24, 0},
	} {
		got := spanOf(tc.status, tc.created, now, 24*time.Hour, tc.online)
		if diff := got.Availability - tc.want; diff > 0.001 || diff < -0.001 || got.Reconnects[state.CauseNetwork] != tc.n {
			t.Errorf("%s: %v, want %.3f and %d", tc.name, got, tc.want, tc.n)
		}
	}
}

// TestAStoreThatCannotWriteIsShown by what the worker in this process knows: the
// record still says online.
func TestAStoreThatCannotWriteIsShown(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.online(o)
	s.api.cfg.Alive = func(string) bool { return true }
	s.api.cfg.Live = func(string) (state.Status, bool) {
		return state.Status{State: state.Reconnecting, Cause: state.CauseStoreUnavailable, Health: state.Dead, ObservedAt: s.now()}, true
	}
	got := s.ask(Viewer, "GET", "/api/sessions/shop", "")
	var v Session
	if err := json.Unmarshal(got.body, &v); err != nil {
		t.Fatal(err)
	}
	if v.State != state.Reconnecting || v.Cause != state.CauseStoreUnavailable || v.Health != state.Dead {
		t.Errorf("%s %s %s", v.State, v.Cause, v.Health)
	}
}

// TestFresherTimesTakeNothingFromTheAvailability: the hours of the record reach to
// when the record was observed, whatever the worker in this process knows since.
func TestFresherTimesTakeNothingFromTheAvailability(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.online(o)
	s.pass(6 * time.Hour)
	s.api.cfg.Alive = func(string) bool { return true }
	s.api.cfg.Live = func(string) (state.Status, bool) {
		return state.Status{State: state.Online, Health: state.Healthy, ObservedAt: s.now()}, true
	}
	v := want[Session](t, s.ask(Viewer, "GET", "/api/sessions/shop", ""), 200)
	if !v.ObservedAt.Equal(s.now()) || v.Day.Availability < 0.99 || v.Week.Availability < 0.99 {
		t.Errorf("observed %s, online for %v of a day and %v of a week", v.ObservedAt, v.Day.Availability, v.Week.Availability)
	}
}
