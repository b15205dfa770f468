package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
)

const taskARN = "arn:aws:ecs:eu-central-1:123456789012:task/hold/4f0e"

// join makes a worker known that has just beaten.
func (s *stage) join(id string, info state.MemberInfo, load state.Load) {
	s.t.Helper()
	if info.Since.IsZero() {
		info.Since = s.now()
	}
	if _, err := s.store.Join(s.t.Context(), id, info); err != nil {
		s.t.Fatal(err)
	}
	s.beat(id, load)
}

func (s *stage) beat(id string, load state.Load) {
	s.t.Helper()
	load.At = s.now()
	if err := s.store.Beat(s.t.Context(), id, load); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) workers() map[string]Worker {
	s.t.Helper()
	list := map[string]Worker{}
	for _, w := range want[WorkerList](s.t, s.ask(Viewer, "GET", "/api/workers", ""), 200).Workers {
		list[w.ID] = w
	}
	return list
}

func (s *stage) show(name string) Session {
	s.t.Helper()
	return want[Session](s.t, s.ask(Viewer, "GET", "/api/sessions/"+name, ""), 200)
}

// audits lists what was done to the fleet.
func (s *stage) audits() []state.Audit {
	s.t.Helper()
	page, err := s.store.Query(s.t.Context(), state.Fleet, state.Query{Kind: state.KindAudit})
	if err != nil {
		s.t.Fatal(err)
	}
	var list []state.Audit
	for _, r := range page.Records {
		var a state.Audit
		if err := state.Decode(r.Value, &a); err != nil {
			s.t.Fatal(err)
		}
		list = append(list, a)
	}
	return list
}

func TestWorkersAreTheRoster(t *testing.T) {
	s := newStage(t)
	if got := want[WorkerList](t, s.ask(Viewer, "GET", "/api/workers", ""), 200); len(got.Workers) != 0 {
		t.Errorf("an empty fleet: %+v", got)
	}
	s.join("w-1", state.MemberInfo{Deployment: "rev-7", Task: taskARN, Host: "ip-10", Version: "v1", Format: 1, Capacity: 100},
		state.Load{Sessions: 12, Online: 11, Trust: 6500 * time.Millisecond})
	s.join("w-2", state.MemberInfo{}, state.Load{Draining: true})
	s.join("w-3", state.MemberInfo{}, state.Load{Sessions: 3})
	if err := s.store.DeclareStopped(t.Context(), "w-3"); err != nil {
		t.Fatal(err)
	}
	s.join("import-1", state.MemberInfo{Tool: true}, state.Load{})
	list := s.workers()
	if w := list["w-1"]; w.Standing != fleet.Alive || !w.Alive || w.Draining || w.Sessions != 12 || w.Online != 11 || w.Capacity != 100 ||
		w.TrustSeconds != 6.5 || w.Deployment != "rev-7" || w.Task != taskARN || w.Version != "v1" || w.Host != "ip-10" || !w.SeenAt.Equal(s.now()) || !w.Since.Equal(s.now()) {
		t.Errorf("w-1: %+v", w)
	}
	if w := list["w-2"]; !w.Draining || w.DrainWanted || !w.Alive {
		t.Errorf("w-2: %+v", w)
	}
	if w := list["w-3"]; w.Standing != fleet.Dead || w.Alive {
		t.Errorf("w-3: %+v", w)
	}
	if w := list["import-1"]; !w.Tool {
		t.Errorf("the tool: %+v", w)
	}
	// Long after the last beat it is stale; how long is by the beat's own time.
	s.pass(fleet.DefaultTakeover + fleet.DefaultSkew)
	if w := s.workers()["w-1"]; w.Standing != fleet.Alive {
		t.Errorf("at the bound: %+v", w)
	}
	s.pass(time.Second)
	if w := s.workers()["w-1"]; w.Standing != fleet.Stale || w.Alive {
		t.Errorf("past the bound: %+v", w)
	}
	// A heartbeat that is seen to move is alive, whatever its clock says.
	if err := s.store.Beat(t.Context(), "w-1", state.Load{At: s.now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if w := s.workers()["w-1"]; w.Standing != fleet.Alive {
		t.Errorf("with a clock that is an hour late: %+v", w)
	}
}

func TestAWorkerOfThisProcessIsFresher(t *testing.T) {
	s := newStage(t)
	s.join("w-1", state.MemberInfo{Deployment: "rev-7"}, state.Load{Sessions: 1})
	s.join("w-2", state.MemberInfo{}, state.Load{Sessions: 4})
	s.api.cfg.Alive = func(id string) bool { return id == "w-1" }
	s.api.cfg.Workers = func(context.Context) ([]Worker, error) {
		return []Worker{{ID: "w-1", Alive: true, Sessions: 2, Online: 2, SeenAt: s.now()}, {ID: "w-9", Alive: true}}, nil
	}
	s.pass(time.Hour)
	list := s.workers()
	if w := list["w-1"]; w.Sessions != 2 || w.Deployment != "rev-7" || w.Standing != fleet.Alive || !w.SeenAt.Equal(s.now()) {
		t.Errorf("w-1: %+v", w)
	}
	if w := list["w-2"]; w.Sessions != 4 || w.Standing != fleet.Stale {
		t.Errorf("w-2: %+v", w)
	}
	if w := list["w-9"]; w.Standing != fleet.Alive {
		t.Errorf("one that has not joined yet: %+v", w)
	}
	if err := s.store.DeclareStopped(t.Context(), "w-1"); err != nil {
		t.Fatal(err)
	}
	if w := s.workers()["w-1"]; w.Standing != fleet.Dead || w.Alive {
		t.Errorf("declared dead: %+v", w)
	}
}

func TestUnownedIsWhatNoLiveWorkerHas(t *testing.T) {
	s := newStage(t)
	s.join("w-0", state.MemberInfo{}, state.Load{})
	o := s.session("shop") // of w-1, which joins and never says a time
	s.status(o, state.Status{State: state.Reconnecting, Cause: state.CauseNetwork, Code: 7, Health: state.Unhealthy}, state.Identity{})
	check := func(want state.State, is fleet.Standing) {
		t.Helper()
		v := s.show("shop")
		if v.State != want || v.OwnerIs != is {
			t.Errorf("%s, owner %s is %s; want %s, %s", v.State, v.Owner, v.OwnerIs, want, is)
		}
		if v.Cause != state.CauseNetwork || v.Code != 7 {
			t.Errorf("the cause is lost: %q %d", v.Cause, v.Code)
		}
		if want == state.Unowned && v.Health != "" {
			t.Errorf("an unowned session is %s", v.Health)
		}
		var page SessionPage
		r := s.ask(Viewer, "GET", "/api/sessions?state="+string(want)+"&cause=network", "")
		if err := json.Unmarshal(r.body, &page); err != nil || len(page.Sessions) != 1 {
			t.Errorf("%d sessions are %s", len(page.Sessions), want)
		}
	}
	check(state.Reconnecting, fleet.Alive)
	s.beat("w-1", state.Load{})
	check(state.Reconnecting, fleet.Alive)

	// A fresh API without any memory: from one read only.
	s.pass(23 * time.Second)
	s.api.cfg.View = fleet.NewView(fleet.ViewConfig{Members: s.store, MaxAge: -1, Now: s.now})
	check(state.Unowned, fleet.Stale)
	if err := s.store.DeclareStopped(t.Context(), "w-1"); err != nil {
		t.Fatal(err)
	}
	check(state.Unowned, fleet.Dead)
	if err := s.store.Forget(t.Context(), "w-1"); err != nil {
		t.Fatal(err)
	}
	check(state.Unowned, fleet.Unknown)
	s.beat("w-0", state.Load{})
	if _, err := s.store.Claim(t.Context(), "w-0", o); err != nil {
		t.Fatal(err)
	}
	check(state.Reconnecting, fleet.Alive)
	o.Incarnation, o.Epoch = "w-0", o.Epoch+1
	if err := s.store.Release(t.Context(), o.Fence()); err != nil {
		t.Fatal(err)
	}
	check(state.Unowned, fleet.Nobody)

	// What is not wanted running needs no owner.
	want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/stop", ""), 202)
	if v := s.show("shop"); v.State != state.Reconnecting || v.OwnerIs != fleet.Nobody {
		t.Errorf("wanted stopped: %s, owner %s", v.State, v.OwnerIs)
	}
}

// TestAnOwnerThatJustJoinedIsNotUnknown to a roster that was read before it.
func TestAnOwnerThatJustJoinedIsNotUnknown(t *testing.T) {
	s := newStage(t)
	s.api.cfg.View = fleet.NewView(fleet.ViewConfig{Members: s.store, MaxAge: time.Hour, Now: s.now})
	s.workers()
	s.online(s.session("shop"))
	if v := s.show("shop"); v.OwnerIs != fleet.Alive || v.State != state.Online {
		t.Errorf("%s, owner %s", v.State, v.OwnerIs)
	}
}

func TestDrain(t *testing.T) {
	s := newStage(t)
	s.join("w-1", state.MemberInfo{}, state.Load{Sessions: 2})
	drains := func() bool {
		t.Helper()
		r, err := s.store.Roster(t.Context())
		if err != nil || len(r.Members) != 1 {
			t.Fatal(r, err)
		}
		return r.Members[0].Drain
	}
	for _, step := range []struct {
		method, body string
		want         bool
	}{
		{"POST", "", true}, {"POST", `{}`, true}, {"POST", `{"wanted":false}`, false}, {"DELETE", "", false}, {"POST", `{"wanted":true}`, true}, {"DELETE", "", false},
	} {
		w := want[Worker](t, s.ask(Admin, step.method, "/api/workers/w-1/drain", step.body), 202)
		if w.DrainWanted != step.want || drains() != step.want || w.ID != "w-1" || w.Sessions != 2 {
			t.Errorf("%s %s: %+v, drain %t", step.method, step.body, w, drains())
		}
		if got := s.workers()["w-1"].DrainWanted; got != step.want {
			t.Errorf("the list says %t", got)
		}
	}
	var acts []string
	for _, a := range s.audits() {
		if a.By != "admin-name" || a.Role != "admin" || !strings.Contains(a.Before, "w-1") {
			t.Errorf("audit %+v", a)
		}
		acts = append(acts, a.Action)
	}
	if got := strings.Join(acts, " "); strings.Count(got, "undrain") != 2 || len(acts) != 4 {
		t.Errorf("audits: %s", got)
	}
	if err := s.store.DeclareStopped(t.Context(), "w-1"); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, s.ask(Admin, "POST", "/api/workers/w-1/drain", ""), CodeWorkerDead)
	wantProblem(t, s.ask(Admin, "DELETE", "/api/workers/w-1/drain", ""), CodeWorkerDead)
	if n := len(s.audits()); n != 4 {
		t.Errorf("%d audits after refusals", n)
	}
}

func TestStoppedIsTakenByIncarnationAndByTask(t *testing.T) {
	for _, id := range []string{"w-1", taskARN} {
		s := newStage(t)
		s.join("w-0", state.MemberInfo{Task: taskARN}, state.Load{}) // its incarnation before
		if err := s.store.DeclareStopped(t.Context(), "w-0"); err != nil {
			t.Fatal(err)
		}
		s.join("w-1", state.MemberInfo{Task: taskARN}, state.Load{Sessions: 1})
		s.join("w-2", state.MemberInfo{Task: taskARN + "0"}, state.Load{})
		s.join("w-3", state.MemberInfo{}, state.Load{})
		list := want[WorkerList](t, s.ask(Admin, "POST", "/api/workers/"+url.PathEscape(id)+"/stopped", ""), 200)
		for _, w := range list.Workers {
			if w.Standing != fleet.Dead || w.Alive {
				t.Errorf("%s: answer %+v", id, w)
			}
		}
		for worker, dead := range map[string]bool{"w-0": true, "w-1": true, "w-2": false, "w-3": false} {
			if got := s.workers()[worker].Standing == fleet.Dead; got != dead {
				t.Errorf("%s: %s is dead: %t", id, worker, got)
			}
		}
		audits := s.audits()
		if len(audits) != 1 || audits[0].Action != "stopped" || audits[0].Before != "alive w-1" || audits[0].By != "admin-name" {
			t.Errorf("%s: audits %+v", id, audits)
		}
		// Said twice, as platforms do, it is true all the same, and no act.
		want[WorkerList](t, s.ask(Admin, "POST", "/api/workers/"+url.PathEscape(id)+"/stopped", ""), 200)
		if n := len(s.audits()); n != 1 {
			t.Errorf("%s: %d audits", id, n)
		}
		wantProblem(t, s.ask(Admin, "POST", "/api/workers/"+url.PathEscape(id+"x")+"/stopped", ""), CodeNotFound)
		s.api.cfg.Alive = func(id string) bool { return id == "w-2" }
		wantProblem(t, s.ask(Admin, "POST", "/api/workers/w-2/stopped", ""), CodeWorkerAlive)
		if s.workers()["w-2"].Standing == fleet.Dead {
			t.Error("the process that answered declared itself dead")
		}
	}
}

// TestACommandUnderADeadOwnerIsFoundByTheNext: it lies in the session's
// partition, in the index of whoever was the owner when it was read.
func TestACommandUnderADeadOwnerIsFoundByTheNext(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.online(o)
	if err := s.store.DeclareStopped(t.Context(), "w-1"); err != nil {
		t.Fatal(err)
	}
	c := want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/restart", ""), 202)
	found, err := s.store.Indexed(t.Context(), state.CommandIndex("w-1"), nil, 10)
	if err != nil || len(found) != 1 {
		t.Fatalf("%d commands under the dead owner, %v", len(found), err)
	}
	s.join("w-2", state.MemberInfo{}, state.Load{})
	next, err := s.store.Claim(t.Context(), "w-2", o)
	if err != nil {
		t.Fatal(err)
	}
	// The next owner says that it runs, with its epoch; a wait goes on.
	s.end(next[0], c.ID, func(c *state.Command) { c.State, c.EndedAt = state.CommandRunning, time.Time{} })
	s.pass(time.Hour) // begun in time, it does not expire
	r := s.ask(Viewer, "GET", "/api/commands/"+c.ID+"?wait=20ms", "")
	if v := want[Command](t, r, 200); v.State != state.CommandRunning || v.Epoch != next[0].Epoch || !v.EndedAt.IsZero() {
		t.Errorf("running: %s", r.body)
	}
	s.end(next[0], c.ID, nil)
	if v := want[Command](t, s.ask(Viewer, "GET", "/api/commands/"+c.ID+"?wait=10s", ""), 200); v.State != state.CommandDone || v.Epoch != next[0].Epoch {
		t.Errorf("ended: %+v", v)
	}
}

// offline is a stand-in that does what it is told.
type offline struct {
	asked []string
	do    func() (bool, error)
}

func (o *offline) Try(_ context.Context, session string) (bool, error) {
	o.asked = append(o.asked, session)
	return o.do()
}

func TestWhatMustNotWaitForAWorkerIsTried(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.online(o)
	hand := &offline{do: func() (bool, error) { return false, nil }}
	s.api.cfg.Offline = hand
	for _, verb := range []string{"start", "stop", "restart", "repair"} {
		want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/"+verb, ""), 202)
	}
	if len(hand.asked) != 0 {
		t.Errorf("tried for %v", hand.asked)
	}
	if c := want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/disconnect", ""), 202); c.State != state.CommandPending || len(hand.asked) != 1 {
		t.Errorf("left to a worker: %+v, tried %v", c, hand.asked)
	}
	hand.do = func() (bool, error) { return false, errors.New("the vault is away") }
	if c := want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/disconnect", ""), 202); c.State != state.CommandPending {
		t.Errorf("failed: %+v", c)
	}
	// Done at once, the answer says so without a wait.
	hand.do = func() (bool, error) {
		found, err := s.store.Query(t.Context(), state.OfSession("shop"), state.Query{Kind: state.KindCommand})
		if err != nil {
			return false, err
		}
		for _, r := range found.Records {
			var c state.Command
			if json.Unmarshal(r.Value, &c) == nil && c.Verb == state.VerbDisconnect {
				s.end(o, state.CommandRef("shop", c.ID), nil)
			}
		}
		return true, nil
	}
	if c := want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/disconnect", ""), 202); c.State != state.CommandDone {
		t.Errorf("done: %+v", c)
	}
	hand.do = func() (bool, error) { return true, s.store.RemoveSession(t.Context(), o.Fence()) }
	if c := want[Command](t, s.ask(Admin, "DELETE", "/api/sessions/shop", ""), 202); c.State != state.CommandDone || c.Result != "deleted" {
		t.Errorf("deleted: %+v", c)
	}
}

func TestNotReadyIsSaidToWhoMayKnow(t *testing.T) {
	s := newStage(t)
	why := "the vault does not answer"
	s.api.cfg.NotReady = func() string { return why }
	wantProblem(t, s.ask(0, "GET", "/api/sessions", ""), CodeUnauthorized)
	if p := wantProblem(t, s.ask(Viewer, "GET", "/api/sessions", ""), CodeStoreUnavailable); !strings.Contains(p.Detail, why) || p.RetryAfter == 0 {
		t.Errorf("%+v", p)
	}
	why = ""
	want[SessionPage](t, s.ask(Viewer, "GET", "/api/sessions", ""), 200)
}

// TestStreamsLookAsOftenAsTheyMust: where a bell rings for all, rarely; where
// others work too, by the number of sessions.
func TestStreamsLookAsOftenAsTheyMust(t *testing.T) {
	s := newStage(t)
	s.api.cfg.Poll = 500 * time.Millisecond
	s.api.cfg.Alive = func(id string) bool { return id == "here" }
	pause := func(n int) time.Duration { return s.api.sweepPause(t.Context(), n) }
	s.join("here", state.MemberInfo{}, state.Load{})
	if got := pause(10); got != sweepWithBell {
		t.Errorf("one worker, in this process: %v", got)
	}
	s.join("there", state.MemberInfo{}, state.Load{})
	for n, want := range map[int]time.Duration{0: 500 * time.Millisecond, 100: 500 * time.Millisecond, 1000: 5 * time.Second, 100_000: sweepRarest} {
		if got := pause(n); got != want {
			t.Errorf("with another worker, %d sessions: %v, want %v", n, got, want)
		}
	}
	if err := s.store.DeclareStopped(t.Context(), "there"); err != nil {
		t.Fatal(err)
	}
	if got := pause(10); got != sweepWithBell {
		t.Errorf("the other is dead: %v", got)
	}
	s.api.cfg.Bell = nil
	if got := pause(10); got != 500*time.Millisecond {
		t.Errorf("no bell: %v", got)
	}
}

// TestWithoutABellAllIsSeenByPolling: waits for commands and QR codes, and live
// streams of one session and of all.
func TestWithoutABellAllIsSeenByPolling(t *testing.T) {
	s := newStage(t)
	s.api.cfg.Bell = nil
	o := s.session("shop")
	seq := uint64(0)
	for _, path := range []string{"/api/sessions/shop/events", "/api/events"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		out := newPiece()
		ended := make(chan struct{})
		go func() {
			r := httptest.NewRequestWithContext(ctx, "GET", path, nil)
			r.Header.Set("X-Api-Key", secretOf(Viewer))
			r.Header.Set("Accept", "text/event-stream")
			s.api.ServeHTTP(out, r)
			close(ended)
		}()
		<-out.begun
		seq++
		s.event(o, seq, state.EventHealth, `{"health":"healthy"}`)
		select {
		case <-out.seen:
		case <-ctx.Done():
			t.Errorf("%s: nothing came", path)
		}
		cancel()
		<-ended
	}
	c := want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/stop", ""), 202)
	got := make(chan Command)
	go func() {
		got <- want[Command](t, s.ask(Viewer, "GET", "/api/commands/"+c.ID+"?wait=20s", ""), 200)
	}()
	s.end(o, c.ID, nil)
	if v := <-got; v.State != state.CommandDone {
		t.Errorf("%+v", v)
	}
}

// piece is a live answer: begun when it has begun, seen when an event is in it.
type piece struct {
	header     http.Header
	begun      chan struct{}
	seen       chan struct{}
	once, twin sync.Once
}

func newPiece() *piece {
	return &piece{header: http.Header{}, begun: make(chan struct{}), seen: make(chan struct{})}
}

func (p *piece) Header() http.Header { return p.header }
func (p *piece) WriteHeader(int)     {}
func (p *piece) Flush()              {}
func (p *piece) Write(b []byte) (int, error) {
	p.once.Do(func() { close(p.begun) })
	if strings.Contains(string(b), "session.health") {
		p.twin.Do(func() { close(p.seen) })
	}
	return len(b), nil
}
