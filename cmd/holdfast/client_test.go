package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

const (
	testKey     = "hf_test"
	viewerKey   = "hf_viewer"
	incarnation = "w-1"
)

// office is the real admin API over a store in memory, with a worker that does
// at once what it is told.
type office struct {
	t     *testing.T
	store *memory.Store
	fleet *seal.Keyset
	bell  *adminapi.Bell
	url   string
	seq   uint64

	mu   sync.Mutex
	fail bool // the worker refuses what it is told
	away bool // there is no worker
}

func newOffice(t *testing.T) *office {
	t.Helper()
	keyset, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	o := &office{t: t, store: memory.New(time.Now), fleet: keyset, bell: &adminapi.Bell{}}
	keys, err := adminapi.ParseKeys("test:admin:" + adminapi.HashKey(testKey) + ",eyes:viewer:" + adminapi.HashKey(viewerKey))
	if err != nil {
		t.Fatal(err)
	}
	o.join(incarnation, state.MemberInfo{Capacity: 100, Since: time.Now().Add(-time.Hour), Version: "v1", Deployment: "rev-7", Task: "arn:aws:ecs:x:1:task/a/b"},
		state.Load{Sessions: 2, Online: 1, Trust: 6400 * time.Millisecond})
	api := adminapi.New(adminapi.Config{Store: o.store, Fleet: keyset, Keys: keys, Bell: o.bell, Poll: 20 * time.Millisecond, Nudge: o.work,
		View: fleet.NewView(fleet.ViewConfig{Members: o.store, MaxAge: -1})})
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	o.url = server.URL
	return o
}

// join makes a worker known that has just beaten.
func (o *office) join(id string, info state.MemberInfo, load state.Load) {
	o.t.Helper()
	if _, err := o.store.Join(context.Background(), id, info); err != nil {
		o.t.Fatal(err)
	}
	o.beat(id, load)
}

func (o *office) beat(id string, load state.Load) {
	o.t.Helper()
	load.At = time.Now()
	if err := o.store.Beat(context.Background(), id, load); err != nil {
		o.t.Fatal(err)
	}
}

func (o *office) environ() []string {
	return []string{"HOLDFAST_URL=" + o.url, "HOLDFAST_API_KEY=" + testKey}
}

func (o *office) run(args ...string) ran { o.t.Helper(); return drive(o.t, o.environ(), args...) }

// ok runs a command that must succeed and returns what it printed.
func (o *office) ok(args ...string) string {
	o.t.Helper()
	r := o.run(args...)
	if r.code != exitDone || r.err != "" {
		o.t.Fatalf("%v: exit code %d, %s", args, r.code, r.err)
	}
	return r.out
}

// own claims a session for the worker, if it is not its own yet.
func (o *office) own(session string) state.Fence {
	owner, err := o.store.Owner(context.Background(), session)
	if err == nil && owner.Incarnation != incarnation {
		owner, err = statetest.Take(context.Background(), o.store, session, incarnation)
	}
	if err != nil {
		o.t.Errorf("claiming %s: %v", session, err)
	}
	return owner.Fence()
}

func (o *office) commit(session string, writes ...state.Write) {
	o.t.Helper()
	if err := o.store.Commit(context.Background(), o.own(session), "", writes); err != nil {
		o.t.Errorf("committing for %s: %v", session, err)
	}
	o.bell.Ring(session)
}

func (o *office) sealed(kind state.Kind, session, id string, doc any) []byte {
	o.t.Helper()
	plain, ok := doc.([]byte)
	if !ok {
		var err error
		if plain, err = json.Marshal(doc); err != nil {
			o.t.Fatal(err)
		}
	}
	b, err := o.fleet.Seal(seal.Place{Partition: state.OfSession(session), Kind: kind, ID: id}, plain)
	if err != nil {
		o.t.Fatal(err)
	}
	return b
}

func (o *office) encode(doc any) []byte {
	b, err := state.Encode(doc)
	if err != nil {
		o.t.Fatal(err)
	}
	return b
}

// status writes what a session is.
func (o *office) status(session string, s state.Status, id state.Identity) {
	o.t.Helper()
	s.V = state.Format
	if s.Since.IsZero() {
		s.Since = time.Now().Add(-90 * time.Second)
	}
	s.Sealed = o.sealed(state.KindStatus, session, "", id)
	o.commit(session, state.Put(state.KindStatus, "", o.encode(s)))
}

// work carries out the open commands of a session.
func (o *office) work(session string) {
	o.mu.Lock()
	fail, away := o.fail, o.away
	o.mu.Unlock()
	if away {
		return
	}
	for _, index := range []string{"", incarnation} {
		found, err := o.store.Indexed(context.Background(), state.CommandIndex(index), nil, 100)
		if err != nil {
			o.t.Errorf("looking for commands: %v", err)
		}
		for _, f := range found {
			var c state.Command
			if err := state.Decode(f.Value, &c); err != nil {
				o.t.Errorf("reading a command: %v", err)
			}
			if c.Verb == state.VerbDelete {
				if err := o.store.RemoveSession(context.Background(), o.own(c.Session)); err != nil {
					o.t.Errorf("removing %s: %v", c.Session, err)
				}
				o.bell.Ring(c.Session)
				continue
			}
			c.State, c.EndedAt = state.CommandDone, time.Now()
			if fail {
				c.State, c.Code, c.Problem = state.CommandFailed, "not_now", "the worker does not want to"
			}
			if c.Verb == state.VerbPairCode {
				c.Sealed = o.sealed(state.KindCommand, c.Session, c.ID, state.CommandSecret{PairCode: "ABCD-1234"})
			}
			w := state.Put(state.KindCommand, c.ID, o.encode(c))
			w.Rev = f.Rev + 1
			o.commit(c.Session, w)
		}
	}
}

// event adds an event to a session's history.
func (o *office) event(session string, kind state.EventType, data string) {
	o.t.Helper()
	o.mu.Lock()
	o.seq++
	seq := o.seq
	o.mu.Unlock()
	e := state.Event{ID: fmt.Sprintf("01JABCDEFGHJKMNPQRSTVW%04d", seq), Type: kind, Time: time.Now(), Session: session, Epoch: 1, Seq: seq, Data: json.RawMessage(data)}
	id := state.EventID(seq)
	o.commit(session, state.Put(state.KindEvent, id, o.encode(state.StoredEvent{V: state.Format, ID: e.ID, Type: kind, At: e.Time,
		Sealed: o.sealed(state.KindEvent, session, id, e)})))
}

func TestASessionFromItsMakingToItsEnd(t *testing.T) {
	o := newOffice(t)
	if r := o.run("sessions", "ls"); r.code != exitDone || !strings.Contains(r.err, "there are no sessions") {
		t.Errorf("no sessions: exit code %d, %s", r.code, r.err)
	}
	if out := o.ok("sessions", "create", "shop", "--profile", "gentle", "--set", "qr-timeout=2m", "--label", "team=a"); !strings.Contains(out, "holdfast sessions qr shop") {
		t.Errorf("create says %s", out)
	}
	o.status("shop", state.Status{State: state.Online, Health: state.Healthy, Paired: true, LastPongAt: time.Now(), ObservedAt: time.Now()},
		state.Identity{JID: "491@s.whatsapp.net", PushName: "Shop"})
	if out := o.ok("sessions", "ls"); !strings.Contains(out, "shop") || !strings.Contains(out, "online") || !strings.Contains(out, "1m30s") {
		t.Errorf("ls says\n%s", out)
	}
	var list []adminapi.Session
	if err := json.Unmarshal([]byte(o.ok("sessions", "ls", "--json", "--state", "online")), &list); err != nil || len(list) != 1 || list[0].Settings.Profile != "gentle" {
		t.Errorf("ls --json: %v, %+v", err, list)
	}
	if out := o.ok("sessions", "ls", "--json", "--cause", "replaced"); strings.TrimSpace(out) != "[]" {
		t.Errorf("ls of none: %s", out)
	}
	if out := o.ok("sessions", "show", "shop"); !strings.Contains(out, "Shop 491@s.whatsapp.net") || !strings.Contains(out, "healthy") {
		t.Errorf("show says\n%s", out)
	}
	o.ok("sessions", "set", "shop", "--profile", "", "--set", "qr-timeout=")
	var s adminapi.Session
	if err := json.Unmarshal([]byte(o.ok("sessions", "show", "shop", "--json")), &s); err != nil || s.Settings.Profile != "" || s.Settings.Override["qr-timeout"] != "" || s.Settings.Labels["team"] != "a" {
		t.Errorf("after set: %v, %+v", err, s.Settings)
	}
	for _, verb := range []string{"start", "stop", "restart", "disconnect", "repair"} {
		if out := o.ok("sessions", verb, "shop"); out != "shop: "+verb+" is done\n" {
			t.Errorf("%s says %s", verb, out)
		}
	}
	if out := o.ok("sessions", "debug", "shop", "on", "--for", "5m"); out != "shop: debug is done\n" {
		t.Errorf("debug says %s", out)
	}
	if out := o.ok("sessions", "delete", "shop"); out != "shop: delete is done\n" {
		t.Errorf("delete says %s", out)
	}
	if r := o.run("sessions", "show", "shop"); r.code != exitFailed || !strings.Contains(r.err, "shop: ") || !strings.Contains(r.err, "(not_found); holdfast sessions ls") {
		t.Errorf("after delete: exit code %d, %s", r.code, r.err)
	}
}

func TestWhatTheWorkerDoesNotDo(t *testing.T) {
	o := newOffice(t)
	o.ok("sessions", "create", "shop", "--stopped")
	o.fail = true
	r := o.run("sessions", "restart", "shop")
	if r.code != exitFailed || !strings.Contains(r.err, "restart shop: failed: the worker does not want to (not_now); ") {
		t.Errorf("exit code %d, %s", r.code, r.err)
	}
	o.away = true
	if out := o.ok("sessions", "start", "shop", "--wait", "0s"); !strings.Contains(out, "start is pending") {
		t.Errorf("without a wait: %s", out)
	}
	r = o.run("sessions", "restore", "shop")
	if r.code != exitFailed || !strings.Contains(r.err, "(nothing_to_restore)") {
		t.Errorf("restore: exit code %d, %s", r.code, r.err)
	}
}

func TestACooldownIsSaidAndForced(t *testing.T) {
	o := newOffice(t)
	o.ok("sessions", "create", "shop")
	o.status("shop", state.Status{State: state.Conflict, Cause: state.CauseLoggedOut, Code: 401, CooldownUntil: time.Now().Add(5 * time.Minute),
		Decision: "retire: credentials are quarantined"}, state.Identity{Text: "device removed"})
	r := o.run("sessions", "repair", "shop")
	if r.code != exitFailed || !strings.Contains(r.err, "(cooldown); try again in ") {
		t.Errorf("repair: exit code %d, %s", r.code, r.err)
	}
	o.ok("sessions", "repair", "shop", "--force")
	out := o.ok("explain", "shop")
	for _, want := range []string{"shop is conflict, for 1m30s", "logged_out", "retire: credentials are quarantined", "the server's code: 401", "device removed",
		"its cooldown ends in 4m", "holdfast sessions repair shop"} {
		if !strings.Contains(out, want) {
			t.Errorf("explain does not say %q:\n%s", want, out)
		}
	}
	var e Explanation
	if err := json.Unmarshal([]byte(o.ok("explain", "shop", "--json")), &e); err != nil || e.Cause != state.CauseLoggedOut || e.Advice == "" || len(e.Next) == 0 {
		t.Errorf("explain --json: %v, %+v", err, e)
	}
}

func TestPairing(t *testing.T) {
	o := newOffice(t)
	o.ok("sessions", "create", "shop")
	o.status("shop", state.Status{State: state.Pairing}, state.Identity{})
	show := func(code string, life time.Duration) {
		o.commit("shop", state.Put(state.KindQR, "", o.encode(state.QRShown{V: state.Format, ExpiresAt: time.Now().Add(life), Sealed: o.sealed(state.KindQR, "shop", "", []byte(code))})))
	}
	show("first code", time.Minute)
	if out := o.ok("sessions", "qr", "shop", "--once"); !strings.Contains(out, "█") || !strings.Contains(out, "Scan this with WhatsApp") || strings.Contains(out, "first code") {
		t.Errorf("qr says\n%s", out)
	}
	var shown adminapi.QR
	if err := json.Unmarshal([]byte(o.ok("sessions", "qr", "shop", "--json")), &shown); err != nil || shown.Code != "first code" {
		t.Errorf("qr --json: %v, %+v", err, shown)
	}
	file := filepath.Join(t.TempDir(), "qr.png")
	o.ok("sessions", "qr", "shop", "--png", file)
	picture, err := os.ReadFile(file)
	info, statErr := os.Stat(file)
	if err := errors.Join(err, statErr); err != nil || !strings.HasPrefix(string(picture), "\x89PNG") || info.Mode().Perm() != 0o600 {
		t.Errorf("qr --png: %v, %d bytes", err, len(picture))
	}
	if out := o.ok("sessions", "pair-code", "shop", "+49 151 12345678"); !strings.HasPrefix(out, "ABCD-1234\n") {
		t.Errorf("pair-code says %s", out)
	}

	// The terminal follows until the session is paired.
	done := make(chan ran, 1)
	go func() { done <- drive(t, o.environ(), "sessions", "qr", "shop") }()
	show("second code", time.Minute)
	o.status("shop", state.Status{State: state.Online, Paired: true}, state.Identity{PushName: "Shop"})
	if r := <-done; r.code != exitDone || !strings.Contains(r.out, "shop is paired with Shop.") {
		t.Errorf("qr: exit code %d, %s%s", r.code, r.out, r.err)
	}
	if r := o.run("sessions", "qr", "shop", "--json"); r.code != exitFailed || !strings.Contains(r.err, "(already_paired)") {
		t.Errorf("qr of a paired one: exit code %d, %s", r.code, r.err)
	}
}

func TestAPairingThatEnds(t *testing.T) {
	o := newOffice(t)
	o.ok("sessions", "create", "shop")
	o.status("shop", state.Status{State: state.Unpaired, Cause: state.CauseQRExpired}, state.Identity{})
	o.commit("shop", state.Put(state.KindQR, "", o.encode(state.QRShown{V: state.Format, ExpiresAt: time.Now().Add(time.Minute), Sealed: o.sealed(state.KindQR, "shop", "", []byte("code"))})))
	r := o.run("sessions", "qr", "shop", "--for", "0")
	if r.code != exitFailed || !strings.Contains(r.err, "the pairing has ended: unpaired, qr_expired; start it again with: holdfast sessions start shop") {
		t.Errorf("exit code %d, %s", r.code, r.err)
	}

	// By itself it is started again, until somebody scans.
	starts := func() (n int) {
		page, err := o.store.Query(t.Context(), state.OfSession("shop"), state.Query{Kind: state.KindCommand})
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range page.Records {
			var c state.Command
			if state.Decode(rec.Value, &c) == nil && c.Verb == state.VerbStart {
				n++
			}
		}
		return n
	}
	before := starts()
	done := make(chan ran, 1)
	go func() { done <- drive(t, o.environ(), "sessions", "qr", "shop") }()
	for end := time.Now().Add(20 * time.Second); starts() == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it was not started again")
		}
	}
	o.status("shop", state.Status{State: state.Online, Paired: true}, state.Identity{PushName: "Shop"})
	if r := <-done; r.code != exitDone || !strings.Contains(r.out, "shop is paired with Shop.") || !strings.Contains(r.err, "showing another one") {
		t.Errorf("exit code %d, %s %s", r.code, r.out, r.err)
	}
}

func TestSending(t *testing.T) {
	o := newOffice(t)
	o.ok("sessions", "create", "shop")
	if r := o.run("send", "shop", "4915112345678", "hello"); r.code != exitFailed || !strings.Contains(r.err, "(not_paired)") {
		t.Errorf("unpaired: exit code %d, %s", r.code, r.err)
	}
	o.status("shop", state.Status{State: state.Online, Paired: true}, state.Identity{})
	var m adminapi.Message
	if err := json.Unmarshal([]byte(o.ok("send", "shop", "4915112345678", "hello", "--wait", "0s", "--json", "--idempotency-key", "k")), &m); err != nil || m.ID == "" || m.State != state.OutQueued {
		t.Fatalf("send: %v, %+v", err, m)
	}
	var again adminapi.Message
	if err := json.Unmarshal([]byte(o.ok("send", "shop", "4915112345678", "hello", "--wait", "0s", "--json", "--idempotency-key", "k")), &again); err != nil || again.ID != m.ID {
		t.Errorf("sent twice: %v, %s and %s", err, m.ID, again.ID)
	}
	if out := o.ok("send", "shop", "4915112345678", "later", "--at", "2h"); !strings.Contains(out, "queued") {
		t.Errorf("later: %s", out)
	}
	if out := o.ok("messages", "ls", "shop"); strings.Count(out, "queued") != 2 || strings.Contains(out, "hello") {
		t.Errorf("ls says\n%s", out)
	}
	if out := o.ok("messages", "show", "shop", m.ID); !strings.Contains(out, m.ID) {
		t.Errorf("show says\n%s", out)
	}
	if out := o.ok("messages", "cancel", "shop", m.ID); !strings.Contains(out, "cancelled") {
		t.Errorf("cancel says\n%s", out)
	}
	if out := o.ok("messages", "ls", "shop", "--state", "cancelled"); strings.Count(out, "cancelled") != 1 || strings.Contains(out, "queued") {
		t.Errorf("ls --state says\n%s", out)
	}
	for _, wrong := range [][]string{
		{}, {"x", "--file", "a", "--media-url", "https://h/b"}, {"--react", "👍"}, {"x", "--react", "👍", "--reply-to", "A"}, {"--react", "👍", "--unreact", "--reply-to", "A"},
		{"x", "--message", "m.json"}, {"x", "--kind", "image"}, {"-", "--file", "-"}, {"x", "--at", "soon"}, {""},
	} {
		if r := o.run(append([]string{"send", "shop", "4915112345678"}, wrong...)...); r.code != exitUsage || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%q: exit code %d, %s", wrong, r.code, r.err)
		}
	}
	for args, want := range map[string]string{
		"yes --reply-to 3AX --json":                      `"replyTo": "3AX"`,
		"--react 👍 --reply-to 3AX --json":                `"emoji": "👍"`,
		"--unreact --reply-to 3AX --json":                `"emoji": ""`,
		"--media-url https://h/b --kind video --json":    `"kind": "video"`,
		"look --media-url https://h/b --mime a/b --json": `"mime": "a/b"`,
	} {
		if out := o.ok(append([]string{"send", "shop", "4915112345678", "--wait", "0s"}, strings.Fields(args)...)...); !strings.Contains(out, want) {
			t.Errorf("%s: %s", args, out)
		}
	}
	message := filepath.Join(t.TempDir(), "m.json")
	if err := os.WriteFile(message, []byte(`{"locationMessage":{"degreesLatitude":1.5}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := o.ok("send", "shop", "4915112345678", "--message", message, "--wait", "0s", "--json"); !strings.Contains(out, "degreesLatitude") {
		t.Errorf("--message: %s", out)
	}
	if r := o.run("send", "shop", "4915112345678", "--file", filepath.Join(t.TempDir(), "none")); r.code != exitFailed || !strings.Contains(r.err, "cannot be read") {
		t.Errorf("a file that is not there: %d %s", r.code, r.err)
	}
	if r := o.run("send", "shop", "4915112345678", "--file", message); r.code != exitFailed || !strings.Contains(r.err, "no_uploads") {
		t.Errorf("where nothing is taken: %d %s", r.code, r.err)
	}
	var fromInput strings.Builder
	code := run(t.Context(), []string{"send", "shop", "4915112345678", "-", "--wait", "0s"}, o.environ(), IO{In: strings.NewReader("from a pipe\n"), Out: &fromInput, Err: &fromInput})
	if code != exitDone || !strings.Contains(fromInput.String(), "queued") {
		t.Errorf("from the input: exit code %d, %s", code, fromInput.String())
	}
}

func TestWatching(t *testing.T) {
	o := newOffice(t)
	o.ok("sessions", "create", "shop")
	// A proxy that cuts the first stream after one event.
	var mu sync.Mutex
	var resumed []string
	streams := make(chan int, 8)
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 0
		if r.Header.Get("Accept") == "text/event-stream" {
			mu.Lock()
			resumed = append(resumed, r.Header.Get("Last-Event-ID"))
			n = len(resumed)
			mu.Unlock()
		}
		req, err := http.NewRequestWithContext(r.Context(), r.Method, o.url+r.URL.RequestURI(), nil)
		if err != nil {
			t.Error(err)
			return
		}
		req.Header = r.Header
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		w.WriteHeader(resp.StatusCode)
		w.(http.Flusher).Flush()
		if n > 0 {
			streams <- n
		}
		buffer := make([]byte, 4096)
		for {
			k, err := resp.Body.Read(buffer)
			if _, writeErr := w.Write(buffer[:k]); err != nil || writeErr != nil {
				return
			}
			w.(http.Flusher).Flush()
			if n == 1 && strings.Contains(string(buffer[:k]), "session.state") {
				return
			}
		}
	}))
	defer behind.Close()
	defer http.DefaultClient.CloseIdleConnections()
	done := make(chan ran, 1)
	go func() {
		done <- drive(t, []string{"HOLDFAST_API_KEY=" + testKey}, "sessions", "watch", "shop", "--count", "2", "--url", behind.URL)
	}()
	<-streams
	o.event("shop", state.EventState, `{"state":"online","attempt":3}`)
	<-streams
	o.event("shop", state.EventHealth, `{"health":"healthy"}`)
	r := <-done
	if r.code != exitDone || r.err != "" || !strings.Contains(r.out, "session.state") || !strings.Contains(r.out, "attempt=3 state=online") || !strings.Contains(r.out, "health=healthy") {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(resumed) != "[ 1]" {
		t.Errorf("streams began behind %q", resumed)
	}
}

func TestWatchingWhatIsNotThere(t *testing.T) {
	o := newOffice(t)
	if r := o.run("sessions", "watch", "nobody"); r.code != exitFailed || !strings.Contains(r.err, "nobody: ") || !strings.Contains(r.err, "(not_found)") {
		t.Errorf("exit code %d, %s", r.code, r.err)
	}
}

func TestKeysThatDoNotFit(t *testing.T) {
	o := newOffice(t)
	r := drive(t, []string{"HOLDFAST_URL=" + o.url, "HOLDFAST_API_KEY=wrong"}, "sessions", "ls")
	if r.code != exitFailed || !strings.Contains(r.err, "(unauthorized); give the right key") || strings.Contains(r.err, "wrong") {
		t.Errorf("a wrong key: exit code %d, %s", r.code, r.err)
	}
	r = drive(t, []string{"HOLDFAST_URL=" + o.url, "HOLDFAST_API_KEY=" + viewerKey}, "sessions", "create", "shop")
	if r.code != exitFailed || !strings.Contains(r.err, "(forbidden); use a key with a higher role") {
		t.Errorf("a viewer: exit code %d, %s", r.code, r.err)
	}
	dir := t.TempDir()
	r = drive(t, []string{"HOLDFAST_URL=" + o.url, "HOLDFAST_DATA_DIR=" + dir}, "sessions", "ls")
	if r.code != exitFailed || !strings.Contains(r.err, "start holdfast dev once, or set HOLDFAST_API_KEY") {
		t.Errorf("no key: exit code %d, %s", r.code, r.err)
	}
	if err := os.WriteFile(filepath.Join(dir, apiKeyFile), []byte(testKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := drive(t, []string{"HOLDFAST_URL=" + o.url, "HOLDFAST_DATA_DIR=" + dir}, "sessions", "ls"); r.code != exitDone {
		t.Errorf("the key of the data folder: exit code %d, %s", r.code, r.err)
	}
}

func TestServersThatAreNotHoldfast(t *testing.T) {
	r := drive(t, []string{"HOLDFAST_API_KEY=k"}, "sessions", "ls", "--url", "http://"+deadAddress(t))
	if r.code != exitFailed || !strings.Contains(r.err, "nothing listens at ") || !strings.Contains(r.err, "; start holdfast dev") {
		t.Errorf("nobody: exit code %d, %s", r.code, r.err)
	}
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   string
	}{
		"a page":     {func(w http.ResponseWriter) { fmt.Fprint(w, "<html>") }, "is not what this release knows"},
		"an error":   {func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) }, "answers 418 I'm a teapot and not as holdfast does"},
		"a redirect": {func(w http.ResponseWriter) { w.Header().Set("Location", "http://evil.invalid/"); w.WriteHeader(302) }, "answers 302 Found and not as"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { c.answer(w) }))
		r := drive(t, []string{"HOLDFAST_API_KEY=k"}, "sessions", "ls", "--url", s.URL)
		s.Close()
		if r.code != exitFailed || !strings.Contains(r.err, c.want) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%s: exit code %d, %s", name, r.code, r.err)
		}
	}
}

func TestNamesAreCompleted(t *testing.T) {
	o := newOffice(t)
	o.ok("sessions", "create", "shop")
	o.ok("sessions", "create", "office")
	r := o.run("__complete", "sessions", "start", "")
	if !strings.Contains(r.out, "shop\t") || !strings.Contains(r.out, "office\t") {
		t.Errorf("completion offers %s", r.out)
	}
}
