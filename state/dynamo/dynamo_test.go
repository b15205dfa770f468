package dynamo_test

import (
	"context"
	"flag"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamotest"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	statetest.Store(t, func(t *testing.T) state.Store { return dynamotest.Open(t) })
}

// Random histories mean the same here and in memory. DynamoDB Local answers some
// hundred requests a second: it gets fewer and shorter ones than other stores.
func TestModel(t *testing.T) {
	for name, value := range map[string]string{"rapid.checks": "30", "rapid.steps": "25"} {
		f := flag.Lookup(name)
		before := f.Value.String()
		if f.DefValue != before {
			continue // somebody asks for more
		}
		if err := f.Value.Set(value); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := f.Value.Set(before); err != nil {
				t.Error(err)
			}
		})
	}
	statetest.Model(t, func(t *testing.T) state.Store { return dynamotest.Open(t) })
}

// owned makes a session that w1 owns.
func owned(t *testing.T, s *dynamo.Store, name string) state.Fence {
	t.Helper()
	ctx := context.Background()
	if err := s.CreateSession(ctx, name, nil); err != nil {
		t.Fatal(err)
	}
	o, err := statetest.Take(ctx, s, name, "w1")
	if err != nil {
		t.Fatal(err)
	}
	return o.Fence()
}

func put(kind state.Kind, id, value string, with ...func(*state.Write)) state.Write {
	w := state.Put(kind, id, []byte(value))
	for _, f := range with {
		f(&w)
	}
	return w
}

func when(c state.Condition) func(*state.Write) { return func(w *state.Write) { w.If = c } }

func expires(at time.Time) func(*state.Write) { return func(w *state.Write) { w.Expires = at } }

// value is a record's; empty if it is not there.
func value(t *testing.T, s *dynamo.Store, session string, kind state.Kind, id string) string {
	t.Helper()
	found, err := s.GetMany(context.Background(), state.OfSession(session), []state.Key{{Kind: kind, ID: id}})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		return ""
	}
	return string(found[0].Value)
}
