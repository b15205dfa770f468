package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
)

// member is a worker as the store has it.
func (o *office) member(id string) state.Member {
	o.t.Helper()
	r, err := o.store.Roster(context.Background())
	if err != nil {
		o.t.Fatal(err)
	}
	for _, m := range r.Members {
		if m.Incarnation == id {
			return m
		}
	}
	o.t.Fatalf("there is no worker %s", id)
	return state.Member{}
}

// give moves a session to another worker as a hand-over, or as a claim where its
// owner is not this one.
func (o *office) give(session, to string) {
	o.t.Helper()
	owner, err := o.store.Owner(context.Background(), session)
	if err == nil {
		_, err = o.store.Claim(context.Background(), to, owner)
	}
	if err != nil {
		o.t.Fatal(err)
	}
}

func TestWorkers(t *testing.T) {
	o := newOffice(t)
	o.join("w-2", state.MemberInfo{}, state.Load{Sessions: 3, Draining: true})
	o.join("w-3", state.MemberInfo{}, state.Load{})
	if err := o.store.DeclareStopped(t.Context(), "w-3"); err != nil {
		t.Fatal(err)
	}
	o.join("w-4", state.MemberInfo{Tool: true}, state.Load{})
	o.join("w-5", state.MemberInfo{}, state.Load{})
	if err := o.store.Beat(t.Context(), "w-5", state.Load{Draining: true, At: time.Now().Add(-time.Minute)}); err != nil {
		t.Fatal(err)
	}
	out := o.ok("workers")
	lines := strings.Split(out, "\n")
	for i, want := range []string{"WORKER SESSIONS CAPACITY TRUST DEPLOYMENT SINCE", "w-1 alive 2 1 100 6.4s rev-7 1h00m v1", "w-2 draining 3", "w-3 dead", "w-4 tool", "w-5 stale"} {
		for _, word := range strings.Fields(want) {
			if !strings.Contains(lines[i], word) {
				t.Errorf("line %d has no %s:\n%s", i, word, out)
			}
		}
	}
	var list adminapi.WorkerList
	if err := json.Unmarshal([]byte(o.ok("workers", "--json")), &list); err != nil || len(list.Workers) != 5 || list.Workers[0].TrustSeconds != 6.4 {
		t.Errorf("workers --json: %v, %+v", err, list)
	}
	r := o.run("__complete", "drain", "")
	if !strings.Contains(r.out, "w-1\talive") || !strings.Contains(r.out, "w-2\t") || strings.Contains(r.out, "w-3") || strings.Contains(r.out, "w-4") {
		t.Errorf("completion offers %s", r.out)
	}
}

func TestDraining(t *testing.T) {
	o := newOffice(t)
	if out := o.ok("drain", incarnation); !strings.Contains(out, "gives its 2 sessions away") || !o.member(incarnation).Drain {
		t.Errorf("drain says %s", out)
	}
	if out := o.ok("workers"); !strings.Contains(out, "draining") {
		t.Errorf("workers says\n%s", out)
	}
	if out := o.ok("drain", incarnation, "--undo"); !strings.Contains(out, "takes sessions again") || o.member(incarnation).Drain {
		t.Errorf("drain --undo says %s", out)
	}
	var w adminapi.Worker
	if err := json.Unmarshal([]byte(o.ok("drain", incarnation, "--json")), &w); err != nil || !w.DrainWanted || w.ID != incarnation {
		t.Errorf("drain --json: %+v, %v", w, err)
	}
	if r := o.run("drain", incarnation, "--wait", "10ms"); r.code != exitFailed || !strings.Contains(r.err, "still has 2 sessions after 10ms") {
		t.Errorf("too short a wait: exit code %d, %s", r.code, r.err)
	}
	// Until it has said so itself it is not drained, even without a session.
	o.beat(incarnation, state.Load{})
	done := make(chan string)
	go func() { done <- o.ok("drain", incarnation, "--wait", "30s") }()
	select {
	case out := <-done:
		t.Errorf("drained before the worker said so: %s", out)
	case <-time.After(100 * time.Millisecond):
	}
	o.beat(incarnation, state.Load{Draining: true})
	if out := <-done; !strings.Contains(out, "is drained") {
		t.Errorf("drain --wait says %s", out)
	}
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"drain none", exitFailed, `none: worker "none": is not known, or forgotten since it died (not_found); holdfast workers shows who is there`},
		{"drain w-1 --undo --wait 1s", exitUsage, "--wait is for a drain"},
		{"drain", exitUsage, "WORKER is missing"},
		{"workers stopped", exitUsage, "WORKER|TASK is missing"},
		{"workers stopped none", exitFailed, "is neither an incarnation nor a task that is known (not_found); holdfast workers"},
		{"workers nothing", exitUsage, "takes no arguments"},
	} {
		if r := o.run(strings.Fields(tc.args)...); r.code != tc.code || !strings.Contains(r.err, tc.want) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%s: exit code %d, %s", tc.args, r.code, r.err)
		}
	}
	if r := drive(t, []string{"HOLDFAST_URL=" + o.url, "HOLDFAST_API_KEY=" + viewerKey}, "drain", incarnation); r.code != exitFailed || !strings.Contains(r.err, "(forbidden)") {
		t.Errorf("a viewer: exit code %d, %s", r.code, r.err)
	}
}

func TestSayingThatAWorkerHasStopped(t *testing.T) {
	o := newOffice(t)
	if out := o.ok("workers", "stopped", "arn:aws:ecs:x:1:task/a/b"); !strings.Contains(out, "w-1 is dead; others take its 2 sessions") || !o.member(incarnation).Dead {
		t.Errorf("stopped says %s", out)
	}
	if r := o.run("drain", incarnation); r.code != exitFailed || !strings.Contains(r.err, "(worker_dead)") {
		t.Errorf("draining the dead: exit code %d, %s", r.code, r.err)
	}
	o.join("w-2", state.MemberInfo{}, state.Load{})
	var list adminapi.WorkerList
	if err := json.Unmarshal([]byte(o.ok("workers", "stopped", "w-2", "--json")), &list); err != nil || len(list.Workers) != 1 || list.Workers[0].Standing != fleet.Dead {
		t.Errorf("stopped --json: %+v, %v", list, err)
	}
}

func TestOwnersAreShownAndExplained(t *testing.T) {
	o := newOffice(t)
	o.away = true
	o.ok("sessions", "create", "shop")
	explained := func(want ...string) {
		t.Helper()
		out := o.ok("explain", "shop")
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("explain has no %q:\n%s", w, out)
			}
		}
	}
	explained("owner: -, epoch", "one of 1 workers takes it within seconds")
	o.status("shop", state.Status{State: state.Online, Paired: true}, state.Identity{})
	explained("owner: w-1 (alive), epoch", "it stays connected")
	if out := o.ok("sessions", "ls"); !strings.Contains(out, "w-1") || strings.Contains(out, "(") {
		t.Errorf("ls says\n%s", out)
	}
	if err := o.store.DeclareStopped(t.Context(), incarnation); err != nil {
		t.Fatal(err)
	}
	explained("shop is unowned", "owner: w-1 (dead)", "nothing until a worker runs: none is alive")
	if out := o.ok("sessions", "ls"); !strings.Contains(out, "w-1 (dead)") || !strings.Contains(out, "unowned") {
		t.Errorf("ls says\n%s", out)
	}
	if out := o.ok("sessions", "show", "shop"); !strings.Contains(out, "w-1 (dead)") {
		t.Errorf("show says\n%s", out)
	}
	o.join("w-2", state.MemberInfo{Capacity: 1}, state.Load{Sessions: 1})
	explained("nothing until a worker has room: none of the 1 that are alive takes more")
	o.beat("w-2", state.Load{})
	explained("one of 1 workers takes it within seconds")
	o.give("shop", "w-2")
	if err := o.store.Beat(t.Context(), "w-2", state.Load{At: time.Now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	var e Explanation
	if err := json.Unmarshal([]byte(o.ok("explain", "shop", "--json")), &e); err != nil || e.Owner != "w-2" || e.Epoch == 0 || e.OwnerIs == "" {
		t.Errorf("explain --json: %+v, %v", e, err)
	}
}

// lockedBuffer is written by one goroutine and read by another.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// until waits for a text to be written.
func (b *lockedBuffer) until(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(b.String(), want); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q never came:\n%s", want, b.String())
		}
	}
}

// TestATakeoverAHandOverAndARebalanceCanBeWatched, as lines and as JSON.
func TestATakeoverAHandOverAndARebalanceCanBeWatched(t *testing.T) {
	for _, args := range [][]string{{"shop"}, {}, {"shop", "--json"}} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			t.Parallel()
			o := newOffice(t)
			asJSON := len(args) == 2
			o.ok("sessions", "create", "shop")
			o.status("shop", state.Status{State: state.Online, Paired: true}, state.Identity{})
			for _, id := range []string{"w-2", "w-3"} {
				o.join(id, state.MemberInfo{}, state.Load{})
			}
			ctx, cancel := context.WithCancel(t.Context())
			var out, errs lockedBuffer
			ended := make(chan int)
			go func() {
				ended <- run(ctx, append([]string{"sessions", "watch"}, args...), o.environ(), IO{In: strings.NewReader(""), Out: &out, Err: &errs})
			}()
			// A first event says that it follows; the first look at the owners is over
			// when a change of the owner is told.
			step := func(do func(), words, how string) {
				t.Helper()
				do()
				if asJSON {
					out.until(t, `"how":"`+how+`"`)
					return
				}
				out.until(t, words)
			}
			first := func() {
				for out.String() == "" {
					owner, err := o.store.Owner(t.Context(), "shop")
					if err != nil {
						t.Fatal(err)
					}
					if _, err := o.store.Claim(t.Context(), incarnation, owner); err != nil { // renews its epoch
						t.Fatal(err)
					}
					time.Sleep(200 * time.Millisecond)
				}
			}
			step(first, "w-1 took it anew, epoch", "renewed")
			step(func() { o.give("shop", "w-2") }, "w-1 handed it over to w-2, epoch", "hand-over")
			step(func() {
				if err := o.store.DeclareStopped(ctx, "w-2"); err != nil {
					t.Fatal(err)
				}
			}, "its owner w-2 is dead", "dead")
			step(func() { o.give("shop", "w-3") }, "w-3 took it over from w-2, which is dead, epoch", "takeover")
			step(func() {
				owner, err := o.store.Owner(ctx, "shop")
				if err == nil {
					err = o.store.Release(ctx, owner.Fence())
				}
				if err != nil {
					t.Fatal(err)
				}
			}, "w-3 gave it up", "released")
			step(func() { o.give("shop", incarnation) }, "w-1 took it, epoch", "taken")
			o.event("shop", state.EventState, `{"state":"online","text":"a\u001b[31m\u202eb\nc"}`)
			out.until(t, "session.state")
			cancel()
			if code := <-ended; code != exitDone || errs.String() != "" {
				t.Errorf("exit code %d, %s", code, errs.String())
			}
			if asJSON {
				for line := range strings.Lines(out.String()) {
					if !json.Valid([]byte(line)) {
						t.Errorf("no JSON: %s", line)
					}
				}
			} else if !strings.Contains(out.String(), "text=a[31mb c") {
				t.Errorf("what a terminal would obey is passed on: %q", out.String())
			}
		})
	}
}

func TestTheScreenIsDrawnInItsPlace(t *testing.T) {
	var b bytes.Buffer
	width, height := 20, 10
	s := &screen{out: &b, size: func() (int, int) { return width, height }}
	table := []string{"NAME  STATE", "a  online"}
	draw := func(table []string) []string {
		t.Helper()
		b.Reset()
		if err := s.draw(table); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if len(lines) != s.drawn || len(lines) >= height && height > leastRows+2 {
			t.Errorf("%d lines drawn, %d counted, of %d", len(lines), s.drawn, height)
		}
		for _, l := range lines[1:] {
			if len([]rune(l)) >= width {
				t.Errorf("%q wraps at %d", l, width)
			}
		}
		return lines
	}
	if got := draw(table); strings.Contains(got[0], "A\r") || !strings.Contains(got[0], "NAME") {
		t.Errorf("first: %q", got)
	}
	if got := draw(table); !strings.HasPrefix(got[0], "\x1b[2A\r\x1b[J") {
		t.Errorf("again: %q", got)
	}
	for i := range 300 {
		s.note(fmt.Sprintf("note %d that is longer than the window", i))
	}
	if len(s.notes) != keptNotes {
		t.Errorf("%d notes are kept", len(s.notes))
	}
	if got := draw(table); !strings.HasPrefix(got[len(got)-1], "note 299") {
		t.Errorf("with notes: %q", got)
	}
	for i := range 50 {
		table = append(table, fmt.Sprint("row ", i))
	}
	if got := strings.Join(draw(table), "\n"); !strings.Contains(got, "and 48 more") || !strings.Contains(got, "note 299") {
		t.Errorf("more than fits: %q", got)
	}
	for height = 1; height < 30; height++ {
		draw(table)
	}
}

func TestWatchOnATerminal(t *testing.T) {
	o := newOffice(t)
	o.ok("sessions", "create", "shop")
	o.status("shop", state.Status{State: state.Online, Paired: true}, state.Identity{})
	var out lockedBuffer
	a := &app{environ: o.environ(), io: IO{Out: &out, Err: &out}, now: time.Now, http: newHTTPClient()}
	defer a.http.CloseIdleConnections()
	w := &watcher{a: a, c: &client{base: o.url, key: testKey, http: a.http}, rows: map[string]sessionView{}, count: 1,
		screen: &screen{out: &out, size: func() (int, int) { return 120, 30 }}}
	ended := make(chan error)
	go func() { ended <- w.run(t.Context(), "/api/events") }()
	out.until(t, "w-1")
	o.join("w-2", state.MemberInfo{}, state.Load{})
	o.give("shop", "w-2")
	out.until(t, "handed it over to w-2")
	o.event("shop", state.EventHealth, `{"health":"healthy"}`)
	if err := <-ended; !errors.Is(err, errEnough) {
		t.Error(err)
	}
	if last := out.String()[strings.LastIndex(out.String(), "\x1b[J"):]; !strings.Contains(last, "health=healthy") || !strings.Contains(last, "EPOCH") {
		t.Errorf("the last drawing:\n%s", last)
	}
}
