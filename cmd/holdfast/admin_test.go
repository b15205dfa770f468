package main

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
)

// administration is holdfast admin in this process, over a data folder.
type administration struct {
	t       *testing.T
	environ []string
	url     string
	log     *lockedBuffer
	stop    func() int
}

func startAdmin(t *testing.T, dir string, extra ...string) *administration {
	t.Helper()
	listen, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	a := &administration{t: t, url: "http://" + listen, log: &lockedBuffer{}, environ: []string{"HOLDFAST_DATA_DIR=" + dir, "HOLDFAST_URL=http://" + listen}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, append([]string{"admin", "--data-dir", dir, "--listen", listen, "--log-format", "json"}, extra...), nil,
			IO{In: strings.NewReader(""), Out: io.Discard, Err: a.log})
	}()
	a.stop = func() int {
		cancel()
		code := <-ended
		ended <- code
		return code
	}
	t.Cleanup(func() {
		a.stop()
		if t.Failed() {
			t.Logf("admin:\n%s", a.log)
		}
	})
	for end := time.Now().Add(20 * time.Second); a.status("/health/ready") != http.StatusOK; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never ready")
		}
	}
	return a
}

func (a *administration) get(path string) (int, string) {
	client := newHTTPClient()
	defer client.CloseIdleConnections()
	resp, err := client.Get(a.url + path)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

func (a *administration) status(path string) int { code, _ := a.get(path); return code }

func (a *administration) run(args ...string) ran { a.t.Helper(); return drive(a.t, a.environ, args...) }

func (a *administration) ok(args ...string) string {
	a.t.Helper()
	r := a.run(args...)
	if r.code != exitDone {
		a.t.Fatalf("%v: exit code %d, %s", args, r.code, r.err)
	}
	return r.out
}

func TestAdminAlone(t *testing.T) {
	dir := t.TempDir()
	a := startAdmin(t, dir)
	for path, want := range map[string]string{"/health/live": "live", "/health": `"status"`, "/metrics": "holdfast_workers_alive 0", "/api/openapi.json": "/api/workers/{id}/stopped"} {
		if code, body := a.get(path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: HTTP %d without %q", path, code, want)
		}
	}
	if code, _ := a.get("/api/sessions"); code != http.StatusUnauthorized {
		t.Errorf("without a key: HTTP %d", code)
	}
	if r := a.run("workers"); r.code != exitDone || !strings.Contains(r.err, "no worker has joined yet") {
		t.Errorf("workers: %d %s", r.code, r.err)
	}
	a.ok("sessions", "create", "shop")
	if out := a.ok("sessions", "ls"); !strings.Contains(out, "unowned") {
		t.Errorf("ls says\n%s", out)
	}
	if out := a.ok("explain", "shop"); !strings.Contains(out, "nothing until a worker runs") {
		t.Errorf("explain says\n%s", out)
	}
	if r := a.run("sessions", "create", "bad", "--set", "keepalive-interval=1ns"); r.code != exitFailed || !strings.Contains(r.err, "(invalid)") {
		t.Errorf("settings that a worker would refuse: %d %s", r.code, r.err)
	}
	if out := a.ok("sessions", "disconnect", "shop"); !strings.Contains(out, fleet.Unlinked) {
		t.Errorf("disconnect says %s", out)
	}
	if out := a.ok("sessions", "ls"); !strings.Contains(out, "disconnected") {
		t.Errorf("ls says\n%s", out)
	}
	if out := a.ok("sessions", "delete", "shop", "--yes"); !strings.Contains(out, "is done") {
		t.Errorf("delete says %s", out)
	}
	if a.stop() != exitDone {
		t.Errorf("it ended with %d", a.stop())
	}
}

func TestAdminWantsKeysOfAFleet(t *testing.T) {
	listen, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	r := drive(t, nil, "admin", "--data-dir", t.TempDir(), "--listen", listen, "--state", "dynamodb:hold", "--vault", "s3://b/p", "--master-key", "awskms:arn:aws:kms:eu-central-1:123456789012:key/1")
	if r.code != exitUsage || !strings.Contains(r.err, "api-keys: none are set") {
		t.Errorf("exit code %d, %s", r.code, r.err)
	}
}

// quickFleet are times of the protocol that a test can wait for.
var quickFleet = []string{"--heartbeat", "250ms", "--trust", "1s", "--takeover", "2s", "--poll", "250ms"}

// TestDisconnectWithoutAnybodyToDoIt: the admin process is beside a worker; that
// is frozen, then killed. What is asked for is done all the same, and the worker
// that comes back has lost the session, and pairs it anew on demand.
func TestDisconnectWithoutAnybodyToDoIt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	sim := startSim(t, wasim.Options{QuietPhone: true})
	p := newProcess(t, sim, quickFleet...)
	p.start()
	if err := p.pair(ctx, sim).WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}
	a := startAdmin(t, p.dir, quickFleet...)
	key, err := readKeyFile(filepath.Join(p.dir, apiKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	c := &client{base: a.url, key: key, http: newHTTPClient()}
	defer c.http.CloseIdleConnections()
	until := func(want func(adminapi.Session) bool) adminapi.Session {
		t.Helper()
		for {
			s, err := c.session(ctx, defaultSession)
			if err == nil && want(s) {
				return s
			}
			if ctx.Err() != nil {
				t.Fatalf("it stays %s, owner %s is %s (%v)", s.State, s.Owner, s.OwnerIs, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	s := until(func(s adminapi.Session) bool { return s.State == state.Online && s.OwnerIs == fleet.Alive })
	first := s.Owner

	// A command reaches the worker through the store, and its end is seen by polling.
	begun := time.Now()
	if out := a.ok("sessions", "restart", defaultSession); !strings.Contains(out, "is done") {
		t.Errorf("restart says %s", out)
	}
	t.Logf("a command through the store took %v", time.Since(begun).Round(time.Millisecond))
	until(func(s adminapi.Session) bool { return s.State == state.Online })

	// A drain is asked for, and taken back, through the store as well.
	if out := a.ok("drain", first); !strings.Contains(out, first) {
		t.Errorf("drain says %s", out)
	}
	for {
		list, err := c.workers(ctx)
		if err == nil && len(list) == 1 && list[0].DrainWanted && list[0].Draining {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("it never drains: %+v, %v", list, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	a.ok("drain", first, "--undo")
	until(func(s adminapi.Session) bool { return s.State == state.Online && s.Owner == first })

	// Frozen: nobody can tell it from a slow one before the takeover time. One that
	// is frozen in the middle of a write holds the file's lock, and nobody can do
	// anything at all: then again.
	var out ran
	for out.code = exitFailed; out.code != exitDone; {
		if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		begun = time.Now()
		out = a.run("sessions", "disconnect", defaultSession, "--wait", "30s")
		if out.code == exitDone {
			break
		}
		if !strings.Contains(out.err, "(store_unavailable)") || ctx.Err() != nil {
			t.Fatalf("disconnect: exit code %d, %s", out.code, out.err)
		}
		if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		s = until(func(s adminapi.Session) bool { return s.State == state.Online && s.OwnerIs == fleet.Alive })
		first = s.Owner
	}
	if !strings.Contains(out.out, fleet.Unlinked) {
		t.Errorf("disconnect says %s", out.out)
	}
	if took := time.Since(begun); took < 2*time.Second || took > 10*time.Second {
		t.Errorf("beside a frozen worker it took %v", took)
	}
	s = until(func(s adminapi.Session) bool { return s.State == state.Disconnected })
	if s.Paired || s.Owner != "" || s.Cause != state.CauseDisconnected || s.Epoch < 2 {
		t.Errorf("after it: %+v", s)
	}
	if list, err := c.workers(ctx); err != nil || len(list) == 0 || list[len(list)-1].ID != first || list[len(list)-1].Standing != fleet.Dead {
		t.Errorf("the fleet: %+v, %v", list, err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// It finds that it is dead, and comes back under another name; the session is its
	// again and stays as it is.
	s = until(func(s adminapi.Session) bool { return s.OwnerIs == fleet.Alive })
	if s.Owner == first || s.State != state.Disconnected {
		t.Errorf("after the thaw: %s, owner %s", s.State, s.Owner)
	}
	for openLines(sim) > 0 {
		if ctx.Err() != nil {
			t.Fatal("the old line stays open")
		}
		time.Sleep(20 * time.Millisecond)
	}
	a.ok("sessions", "start", defaultSession)
	if err := p.pair(ctx, sim).WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}

	// Killed, on this host: that is known at once.
	p.kill()
	begun = time.Now()
	if out := a.ok("sessions", "disconnect", defaultSession); !strings.Contains(out, fleet.Unlinked) {
		t.Errorf("disconnect says %s", out)
	}
	t.Logf("beside a killed worker it took %v", time.Since(begun).Round(time.Millisecond))
	truth := sim.Truth()
	if len(truth.Pairings) != 2 || len(truth.Overlaps) != 0 {
		t.Errorf("pairings %v, overlaps %v", truth.Pairings, truth.Overlaps)
	}
}

// openLines counts the connections that are logged in, as the service sees it.
func openLines(sim *wasim.Server) int {
	n := 0
	for _, s := range sim.Truth().Sockets {
		if s.LoggedIn != nil && s.Closed == nil {
			n++
		}
	}
	return n
}

// TestACommandOutlivesItsOwner: it is put while the owner has just died, and the
// next owner runs it.
func TestACommandOutlivesItsOwner(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sim := startSim(t, wasim.Options{QuietPhone: true})
	p := newProcess(t, sim, quickFleet...)
	p.start()
	if err := p.pair(ctx, sim).WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}
	next := newProcess(t, sim, quickFleet...)
	next.args[0] = string(ModeWorker)
	for i, arg := range next.args {
		if arg == next.dir {
			next.args[i] = p.dir
		}
	}
	next.start()
	a := startAdmin(t, p.dir, quickFleet...)
	key, err := readKeyFile(filepath.Join(p.dir, apiKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	c := &client{base: a.url, key: key, http: newHTTPClient()}
	defer c.http.CloseIdleConnections()
	var before adminapi.Session
	for alive := 0; alive < 2 || before.State != state.Online; time.Sleep(20 * time.Millisecond) {
		list, err := c.workers(ctx)
		alive = 0
		for _, w := range list {
			if w.Alive {
				alive++
			}
		}
		if err == nil {
			before, err = c.session(ctx, defaultSession)
		}
		if ctx.Err() != nil {
			t.Fatalf("%d workers, %s (%v)", alive, before.State, err)
		}
	}
	victim, other := p, next
	if out := a.ok("workers"); !strings.Contains(out, before.Owner) {
		t.Fatalf("the owner %s is none of\n%s", before.Owner, out)
	}
	var first struct{ Worker string }
	if status, err := p.ask(ctx, "GET", "/health", nil, &first); err != nil || status != http.StatusOK {
		t.Fatal(status, err)
	}
	if first.Worker != before.Owner {
		victim, other = next, p
	}
	victim.kill()
	begun := time.Now()
	var cmd adminapi.Command
	err = c.call(ctx, request{method: http.MethodPost, path: sessionPath(defaultSession, "restart"), wait: 30 * time.Second}, &cmd)
	if err != nil || cmd.State != state.CommandDone || cmd.Epoch <= before.Epoch {
		t.Fatalf("%+v, %v; it was put under epoch %d", cmd, err, before.Epoch)
	}
	t.Logf("from the kill to the end of the command: %v", time.Since(begun).Round(time.Millisecond))
	after, err := c.session(ctx, defaultSession)
	if err != nil || after.Owner == before.Owner {
		t.Errorf("%s has it still (%v)", after.Owner, err)
	}
	other.terminate()
	truth := sim.Truth()
	if len(truth.Pairings) != 1 || len(truth.Overlaps) != 0 {
		t.Errorf("pairings %v, overlaps %v", truth.Pairings, truth.Overlaps)
	}
	var ended adminapi.Command
	err = c.get(ctx, "/api/commands/"+cmd.ID, nil, &ended)
	if err != nil || !ended.EndedAt.Equal(cmd.EndedAt) {
		t.Errorf("it ended again: %+v, %v", ended, err)
	}
}
