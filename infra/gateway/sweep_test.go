package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/emf/emftest"
	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// scene is a fleet at a time that the test sets.
type scene struct {
	t       *testing.T
	store   *memory.Store
	faults  *statetest.FaultStore
	counted *statetest.CountingStore
	time    time.Time
	metrics bytes.Buffer
	log     bytes.Buffer
	offline func() (int, error)
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, time: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)}
	s.store = memory.New(s.now)
	s.counted = statetest.Counting(s.store)
	s.faults = statetest.Fault(s.counted)
	return s
}

func (s *scene) now() time.Time { return s.time }

// Sweep implements Offline.
func (s *scene) Sweep(context.Context) (int, error) {
	if s.offline == nil {
		return 0, nil
	}
	return s.offline()
}

// gateway is a new process each time: nothing is remembered but in the store.
func (s *scene) gateway() *Gateway {
	s.t.Helper()
	g, err := New(Config{API: nothing{}, Store: s.faults, View: fleet.NewView(fleet.ViewConfig{Members: s.store, MaxAge: -1, Now: s.now}), Offline: s,
		Fleet: "prod", Metrics: &s.metrics, Now: s.now, Log: slog.New(slog.NewJSONHandler(&s.log, nil))})
	if err != nil {
		s.t.Fatal(err)
	}
	return g
}

func (s *scene) sweep() Swept {
	s.t.Helper()
	s.metrics.Reset()
	s.log.Reset()
	got, err := s.gateway().Sweep(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

func (s *scene) session(name string, wanted state.Wanted, owner string) state.Owner {
	s.t.Helper()
	value, err := state.Encode(state.Spec{V: state.Format, Name: name, Wanted: wanted, Generation: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.store.CreateSession(s.t.Context(), name, []state.Write{state.Put(state.KindSpec, "", value)}); err != nil {
		s.t.Fatal(err)
	}
	if owner == "" {
		return state.Owner{Session: name}
	}
	o, err := statetest.Take(s.t.Context(), s.store, name, owner)
	if err != nil {
		s.t.Fatal(err)
	}
	return o
}

func (s *scene) status(o state.Owner, st state.State) {
	s.t.Helper()
	value, err := state.Encode(state.Status{V: state.Format, State: st, Since: s.time})
	if err == nil {
		err = s.store.Commit(s.t.Context(), o.Fence(), "", []state.Write{state.Put(state.KindStatus, "", value)})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) beat(ids ...string) {
	s.t.Helper()
	for _, id := range ids {
		s.says(id, state.Load{})
	}
}

// says is a heartbeat with its load.
func (s *scene) says(id string, load state.Load) {
	s.t.Helper()
	load.At = s.time
	if err := s.store.Beat(s.t.Context(), id, load); err != nil {
		s.t.Fatal(err)
	}
}

// value is a metric as CloudWatch reads it from the log.
func (s *scene) value(name string) float64 {
	s.t.Helper()
	points := s.points()
	p, there := points[name]
	if !there || p.Unit == "" || len(p.Values) != 1 || !p.At.Equal(s.time) || p.Namespace != "Holdfast" || len(p.Dimensions) != 1 || p.Dimensions["Fleet"] != "prod" {
		s.t.Fatalf("no metric %s as it should be: %s", name, s.metrics.Bytes())
	}
	return p.Values[0]
}

// points are the metrics by name.
func (s *scene) points() map[string]emftest.Point {
	s.t.Helper()
	list, err := emftest.Line(s.metrics.Bytes())
	if err != nil {
		s.t.Fatalf("%v: %s", err, s.metrics.Bytes())
	}
	all := map[string]emftest.Point{}
	for _, p := range list {
		all[p.Name] = p
	}
	return all
}

// Sessions that nobody alive has are raised once that has gone on for long enough,
// whoever swept before; those that are not to run never are.
func TestUnownedSessions(t *testing.T) {
	s := newScene(t)
	s.session("dead", state.WantRunning, "w-1")
	s.session("fine", state.WantRunning, "w-2")
	s.session("nobody", state.WantRunning, "")
	s.session("stopped", state.WantStopped, "")
	s.session("gone", state.WantDisconnected, "w-1")
	s.session("stale", state.WantRunning, "w-3")
	s.beat("w-1", "w-2", "w-3")
	if err := s.store.DeclareStopped(t.Context(), "w-1"); err != nil {
		t.Fatal(err)
	}

	got := s.sweep()
	if got.Sessions != 6 || got.Workers != 2 || got.Stale != 0 || got.Ownerless != 2 || got.Unowned != 0 {
		t.Errorf("at first: %+v", got)
	}
	for range 2 {
		s.time = s.time.Add(time.Minute)
		s.beat("w-2")
		got = s.sweep()
	}
	if got.Workers != 1 || got.Stale != 1 || got.Ownerless != 3 || got.Unowned != 2 || got.Oldest != 2*time.Minute {
		t.Errorf("two minutes later: %+v", got)
	}
	if s.value("SessionsUnowned") != 2 || s.value("UnownedOldest") != 120 || s.value("WorkersAlive") != 1 || s.value("WorkersStale") != 1 || s.value("Sessions") != 6 {
		t.Errorf("metrics: %s", s.metrics.Bytes())
	}
	for _, words := range []string{`"session":"dead"`, `"session":"nobody"`, `"ownerIs":"dead"`, `"since":"2026-05-06T07:08:09Z"`} {
		if !strings.Contains(s.log.String(), words) {
			t.Errorf("the log has no %s:\n%s", words, s.log.String())
		}
	}
	if strings.Contains(s.log.String(), "stale\"") || strings.Contains(s.log.String(), "stopped") {
		t.Errorf("the log has too much:\n%s", s.log.String())
	}
	s.time = s.time.Add(time.Minute)
	s.beat("w-2")
	if got = s.sweep(); got.Unowned != 3 || got.Oldest != 3*time.Minute {
		t.Errorf("after the stale one's time: %+v", got)
	}

	// Somebody has taken one of them; another is deleted. What was a while ago
	// does not count when it happens again.
	for _, name := range []string{"dead", "stale"} {
		if _, err := statetest.Take(t.Context(), s.store, name, "w-2"); err != nil {
			t.Fatal(err)
		}
	}
	o, err := s.store.Owner(t.Context(), "nobody")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.RemoveSession(t.Context(), o.Fence()); err != nil {
		t.Fatal(err)
	}
	if got = s.sweep(); got.Ownerless != 0 || got.Unowned != 0 || s.value("SessionsUnowned") != 0 {
		t.Errorf("when all have owners: %+v", got)
	}
	if o, err = s.store.Owner(t.Context(), "dead"); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Release(t.Context(), o.Fence()); err != nil {
		t.Fatal(err)
	}
	if got = s.sweep(); got.Ownerless != 1 || got.Unowned != 0 {
		t.Errorf("released just now: %+v", got)
	}
}

// Pairings that go on for too long are raised, and the status of a session that
// does not pair is read once in ten minutes.
func TestPairingsWithoutEnd(t *testing.T) {
	s := newScene(t)
	one, two := s.session("one", state.WantRunning, "w-1"), s.session("two", state.WantRunning, "w-1")
	s.status(one, state.Pairing)
	s.status(two, state.Online)
	s.beat("w-1")
	if got := s.sweep(); got.Pairing != 0 {
		t.Errorf("at first: %+v", got)
	}
	pass := func(d time.Duration) Swept {
		s.time = s.time.Add(d)
		s.beat("w-1")
		return s.sweep()
	}
	s.status(two, state.Pairing) // found by the next whole look
	for range 9 {
		if got := pass(time.Minute); got.Pairing != 0 {
			t.Errorf("before its time: %+v", got)
		}
	}
	if got := pass(time.Minute); got.Pairing != 2 || s.value("PairingsStale") != 2 || !strings.Contains(s.log.String(), `"session":"one"`) {
		t.Errorf("after ten minutes: %+v\n%s", got, s.log.String())
	}
	s.status(one, state.Online)
	if got := pass(time.Minute); got.Pairing != 1 {
		t.Errorf("one has paired: %+v", got)
	}
	reads := s.counted.Count(statetest.GetMany)
	if pass(time.Minute); s.counted.Count(statetest.GetMany)-reads != 1 {
		t.Errorf("%d sessions were read, of which one pairs", s.counted.Count(statetest.GetMany)-reads)
	}
}

// What fails fails the invocation, and the next one finds what was noted before.
func TestSweepsThatFail(t *testing.T) {
	s := newScene(t)
	s.session("nobody", state.WantRunning, "")
	s.sweep()
	s.time = s.time.Add(3 * time.Minute)
	for _, call := range []statetest.Method{statetest.Get, statetest.Sessions, statetest.GetMany} {
		s.faults.FailBefore(statetest.Of(call), 1, nil)
		if _, err := s.gateway().Sweep(t.Context()); !errors.Is(err, state.ErrUnavailable) {
			t.Errorf("a store that fails at %v: %v", call, err)
		}
	}
	s.offline = func() (int, error) { return 0, errors.New("no bucket") }
	if got := s.sweep(); got.Unowned != 1 || !strings.Contains(s.log.String(), "no bucket") {
		t.Errorf("%+v\n%s", got, s.log.String())
	}
	s.offline = func() (int, error) { return 3, nil }
	if got := s.sweep(); got.Done != 3 {
		t.Errorf("%+v", got)
	}
	// A note that cannot be read is begun anew.
	if err := s.store.Update(t.Context(), state.Fleet, []state.Write{state.Put(sweepKey.Kind, sweepKey.ID, []byte("{"))}); err != nil {
		t.Fatal(err)
	}
	if got := s.sweep(); got.Unowned != 0 || got.Ownerless != 1 {
		t.Errorf("a damaged note: %+v", got)
	}
	s.time = s.time.Add(2 * time.Minute)
	if got := s.sweep(); got.Unowned != 1 {
		t.Errorf("two minutes after it: %+v", got)
	}
}

// An outage of everything is counted whole; what is noted of it stays within the
// bounds of a record.
func TestManyUnownedSessions(t *testing.T) {
	s := newScene(t)
	const many = kept + 300
	long := strings.Repeat("x", 50)
	for i := range many {
		s.session(fmt.Sprintf("%s-%05d", long, i), state.WantRunning, "")
	}
	s.sweep()
	s.time = s.time.Add(3 * time.Minute)
	got := s.sweep()
	if got.Ownerless != many || got.Unowned != kept {
		t.Errorf("%+v", got)
	}
	if n := strings.Count(s.log.String(), "has no live owner"); n != logged {
		t.Errorf("%d lines in the log", n)
	}
	if !strings.Contains(s.log.String(), fmt.Sprintf(`"more":%d`, kept-logged)) {
		t.Error("the log does not say that there are more")
	}
}

// nothing answers nothing.
type nothing struct{}

func (nothing) ServeHTTP(http.ResponseWriter, *http.Request) {}
