package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stage is the API over a store in memory, with a key for each role.
type stage struct {
	t      testing.TB
	store  *memory.Store
	vault  *memory.Vault
	fleet  *seal.Keyset
	api    *API
	bell   *Bell
	log    *lockedBuffer
	mu     sync.Mutex
	time   time.Time
	nudged []string
}

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

// roles are the keys of the stage: each role's secret is its name and "-key".
var roles = []Role{Viewer, Operator, Admin}

func secretOf(r Role) string { return r.String() + "-key" }

func newStage(t testing.TB) *stage {
	t.Helper()
	keyset, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, fleet: keyset, bell: &Bell{}, log: &lockedBuffer{}, time: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)}
	s.store = memory.New(s.now)
	var list []string
	for _, r := range roles {
		list = append(list, fmt.Sprintf("%s-name:%s:%s", r, r, HashKey(secretOf(r))))
	}
	keys, err := ParseKeys(strings.Join(list, ","))
	if err != nil {
		t.Fatal(err)
	}
	s.vault = memory.NewVault()
	s.api = New(Config{Store: s.store, Vault: s.vault, MaxMedia: 256 << 10, Fleet: keyset, Keys: keys, View: fleet.NewView(fleet.ViewConfig{Members: s.store, MaxAge: -1, Now: s.now}), Bell: s.bell, Now: s.now, Poll: 5 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Nudge: func(name string) {
			s.mu.Lock()
			s.nudged = append(s.nudged, name)
			s.mu.Unlock()
		},
		ValidateSettings: func(set state.SessionSettings) error {
			if set.Profile != "" && set.Profile != "guide" && set.Profile != "gentle" {
				return fmt.Errorf("profile: is none of guide and gentle")
			}
			return nil
		},
	})
	return s
}

func (s *stage) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.time
}

func (s *stage) pass(d time.Duration) {
	s.mu.Lock()
	s.time = s.time.Add(d)
	s.mu.Unlock()
}

// reply is an answer with its body read.
type reply struct {
	*http.Response
	body []byte
}

// ask sends a request as a role (0: without a key). Headers are name, value.
func (s *stage) ask(role Role, method, target, body string, headers ...string) reply {
	s.t.Helper()
	return s.askCtx(context.Background(), role, method, target, body, headers...)
}

func (s *stage) askCtx(ctx context.Context, role Role, method, target, body string, headers ...string) reply {
	s.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req := httptest.NewRequestWithContext(ctx, method, target, r)
	if role > 0 {
		req.Header.Set("X-Api-Key", secretOf(role))
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.api.ServeHTTP(w, req)
	resp := w.Result()
	return reply{resp, w.Body.Bytes()}
}

// want checks status, decodes the body into a T.
func want[T any](t testing.TB, r reply, status int) T {
	t.Helper()
	var v T
	if r.StatusCode != status {
		t.Fatalf("HTTP %d, want %d: %s", r.StatusCode, status, r.body)
	}
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatalf("body %s: %v", r.body, err)
	}
	return v
}

// wantProblem checks that an answer is a problem of a code, and returns it.
func wantProblem(t testing.TB, r reply, code Code) Problem {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Fatalf("HTTP %d %s: %v", r.StatusCode, r.body, err)
	}
	if p.Code != code || r.StatusCode != problems[code].status || p.Status != r.StatusCode {
		t.Fatalf("HTTP %d, code %s (%s), want %s", r.StatusCode, p.Code, p.Detail, code)
	}
	if got := r.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("Content-Type %q", got)
	}
	if p.Title == "" || p.Detail == "" {
		t.Fatalf("a problem without words: %s", r.body)
	}
	return p
}

// session creates a session and gives it an owner.
func (s *stage) session(name string) state.Owner {
	s.t.Helper()
	want[ChangedSession](s.t, s.ask(Operator, "POST", "/api/sessions", `{"name":"`+name+`"}`), 202)
	return s.own(name)
}

// own gives a session an owner.
func (s *stage) own(name string) state.Owner {
	s.t.Helper()
	owner, err := statetest.Take(context.Background(), s.store, name, "w-1")
	if err != nil {
		s.t.Fatal(err)
	}
	return owner
}

// commit writes as the owner would, and rings.
func (s *stage) commit(o state.Owner, writes ...state.Write) {
	s.t.Helper()
	if err := s.store.Commit(context.Background(), o.Fence(), "", writes); err != nil {
		s.t.Fatal(err)
	}
	s.bell.Ring(o.Session)
}

func (s *stage) encode(doc any) []byte {
	s.t.Helper()
	b, err := state.Encode(doc)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *stage) seal(session string, kind state.Kind, id string, v any) []byte {
	s.t.Helper()
	plain, ok := v.([]byte)
	if !ok {
		plain, _ = json.Marshal(v)
	}
	sealed, err := s.fleet.Seal(seal.Place{Partition: state.OfSession(session), Kind: kind, ID: id}, plain)
	if err != nil {
		s.t.Fatal(err)
	}
	return sealed
}

func (s *stage) status(o state.Owner, st state.Status, id state.Identity) {
	s.t.Helper()
	st.V = state.Format
	st.Sealed = s.seal(o.Session, state.KindStatus, "", id)
	s.commit(o, state.Put(state.KindStatus, "", s.encode(st)))
}

// online makes a session paired and online.
func (s *stage) online(o state.Owner) {
	s.status(o, state.Status{State: state.Online, Paired: true, Since: s.now(), Health: state.Healthy}, state.Identity{JID: "4915123456789@s.whatsapp.net"})
}

func (s *stage) showQR(o state.Owner, text string, valid time.Duration) {
	s.commit(o, state.Put(state.KindQR, "", s.encode(state.QRShown{V: 1, ExpiresAt: s.now().Add(valid), Sealed: s.seal(o.Session, state.KindQR, "", []byte(text))})))
}

func (s *stage) event(o state.Owner, seq uint64, kind state.EventType, data string) {
	id := state.EventID(seq)
	ev := state.Event{ID: s.api.newID(), Type: kind, Time: s.now(), Session: o.Session, Epoch: o.Epoch, Seq: seq, Data: json.RawMessage(data)}
	s.commit(o, state.Put(state.KindEvent, id, s.encode(state.StoredEvent{V: 1, ID: ev.ID, Type: kind, At: ev.Time, Sealed: s.seal(o.Session, state.KindEvent, id, ev)})))
}

// end finishes a command as its owner would.
func (s *stage) end(o state.Owner, ref string, change func(*state.Command)) {
	s.t.Helper()
	_, id, err := state.ParseCommandRef(ref)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := s.store.Get(context.Background(), state.OfSession(o.Session), state.Key{Kind: state.KindCommand, ID: id})
	if err != nil {
		s.t.Fatal(err)
	}
	var c state.Command
	if err := state.Decode(r.Value, &c); err != nil {
		s.t.Fatal(err)
	}
	c.State, c.EndedAt, c.Epoch = state.CommandDone, s.now(), o.Epoch
	if change != nil {
		change(&c)
	}
	w := state.Put(state.KindCommand, id, s.encode(c))
	w.Rev, w.If, w.Expires = r.Rev+1, state.AtRev(r.Rev), r.Expires
	s.commit(o, w)
}

func (s *stage) spec(name string) state.Spec {
	s.t.Helper()
	r, err := s.store.Get(context.Background(), state.OfSession(name), state.Key{Kind: state.KindSpec})
	if err != nil {
		s.t.Fatal(err)
	}
	var spec state.Spec
	if err := state.Decode(r.Value, &spec); err != nil {
		s.t.Fatal(err)
	}
	if r.Rev != spec.Generation {
		s.t.Fatalf("rev %d, generation %d", r.Rev, spec.Generation)
	}
	return spec
}
