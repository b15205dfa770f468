package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

func taskStopped(task string, exit int) []byte {
	return fmt.Appendf(nil, `{"source":"aws.ecs","detail-type":"ECS Task State Change","detail":{"taskArn":%q,"lastStatus":"STOPPED","containers":[{"name":"holdfast","exitCode":%d}]}}`, task, exit)
}

func (s *scene) death(id string) (state.Death, error) {
	var d state.Death
	r, err := s.store.Get(s.t.Context(), state.Fleet, state.DeathKey(id))
	if err != nil {
		return d, err
	}
	return d, state.Decode(r.Value, &d)
}

// A store that fails half way leaves nothing that the event, sent again, does not
// put right: nobody is declared dead before it is told how.
func TestATaskStopsWhileTheStoreFails(t *testing.T) {
	s := newScene(t)
	if _, err := s.store.Join(t.Context(), "w-1", state.MemberInfo{Task: "arn:task"}); err != nil {
		t.Fatal(err)
	}
	alive := func() bool {
		r, err := s.store.Roster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return !r.Members[0].Dead
	}
	g := s.gateway()
	for _, c := range []struct {
		method statetest.Method
		told   bool // how it ended
	}{{statetest.Roster, false}, {statetest.Update, false}, {statetest.DeclareStopped, true}} {
		s.faults.FailBefore(statetest.Of(c.method), 1, nil)
		if _, err := g.Invoke(t.Context(), taskStopped("arn:task", 2)); !errors.Is(err, state.ErrUnavailable) || !alive() {
			t.Fatalf("%s fails: %v", c.method, err)
		}
		if _, err := s.death("w-1"); (err == nil) != c.told {
			t.Errorf("%s fails: how it ended: %v", c.method, err)
		}
	}
	// Done, but the answer was lost.
	s.faults.FailAfter(statetest.Of(statetest.DeclareStopped), 1, nil)
	if _, err := g.Invoke(t.Context(), taskStopped("arn:task", 2)); err == nil || alive() {
		t.Errorf("an answer that is lost: %v", err)
	}
	out, err := g.Invoke(t.Context(), taskStopped("arn:task", 2))
	var done TaskStopped
	if err := errors.Join(err, json.Unmarshal(out, &done)); err != nil || done.Declared != 0 || len(done.Workers) != 1 || !done.Panicked || alive() {
		t.Errorf("sent again: %+v, %v", done, err)
	}
	if d, err := s.death("w-1"); err != nil || !d.Panicked {
		t.Errorf("how it ended: %+v, %v", d, err)
	}
}

// What the next process on the host has told knows the session: it stays.
func TestABetterWordStays(t *testing.T) {
	s := newScene(t)
	if _, err := s.store.Join(t.Context(), "w-1", state.MemberInfo{Task: "arn:task"}); err != nil {
		t.Fatal(err)
	}
	value, err := state.Encode(state.Death{V: state.Format, Panicked: true, Session: "poison"})
	if err != nil {
		t.Fatal(err)
	}
	key := state.DeathKey("w-1")
	if err := s.store.Update(t.Context(), state.Fleet, []state.Write{state.Put(key.Kind, key.ID, value)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.gateway().Invoke(t.Context(), taskStopped("arn:task", 2)); err != nil {
		t.Fatal(err)
	}
	if d, err := s.death("w-1"); err != nil || d.Session != "poison" {
		t.Errorf("%+v, %v", d, err)
	}
}

// Whatever comes, the answer is JSON or an error that says nothing of it.
func FuzzInvoke(f *testing.F) {
	for _, seed := range []string{`{}`, `null`, `[]`, `{"version":"2.0","requestContext":{"http":{"method":"GET"}},"rawPath":"/%zz"}`,
		`{"version":"2.0","requestContext":{"http":{"method":"A B"},"stage":"x"},"rawPath":"/x","headers":{"":"","a\n":"b"},"body":"=","isBase64Encoded":true}`,
		`{"version":"2.0","requestContext":{"http":{"method":"GET"},"authorizer":{"jwt":null,"iam":{}}},"rawPath":"//x","cookies":["=;"]}`,
		string(taskStopped("a", 2)), `{"source":"aws.events","detail-type":"Scheduled Event"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		s := newScene(t)
		out, err := s.gateway().Invoke(t.Context(), payload)
		switch {
		case err != nil && !errors.Is(err, ErrEvent):
			t.Errorf("%v", err)
		case err == nil && !json.Valid(out):
			t.Errorf("%q", out)
		case err != nil && len(err.Error()) > 250:
			t.Errorf("%v", err)
		}
	})
}

// How a task has ended is a metric of the fleet: its worker cannot tell any more.
func TestTasksThatEndBadly(t *testing.T) {
	for exit, want := range map[int][2]float64{0: {0, 0}, 1: {0, 0}, 2: {1, 0}, 137: {0, 1}} {
		s := newScene(t)
		if _, err := s.store.Join(t.Context(), "w-1", state.MemberInfo{Task: "arn:task"}); err != nil {
			t.Fatal(err)
		}
		out, err := s.gateway().Invoke(t.Context(), taskStopped("arn:task", exit))
		var done TaskStopped
		if err := errors.Join(err, json.Unmarshal(out, &done)); err != nil || done.Panicked != (want[0] == 1) || done.Killed != (want[1] == 1) {
			t.Errorf("exit code %d: %+v, %v", exit, done, err)
		}
		if s.value("WorkersStopped") != 1 || s.value("WorkersPanicked") != want[0] || s.value("WorkersKilled") != want[1] {
			t.Errorf("exit code %d: %s", exit, s.metrics.Bytes())
		}
	}
}
