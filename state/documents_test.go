package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-wa/holdfast/state"
)

// documents are all that are stored by themselves, each with every field set.
func documents(t testing.TB) []any {
	at := time.Date(2026, 11, 21, 20, 15, 30, 123456789, time.UTC)
	docs := []any{&state.Spec{}, &state.Status{}, &state.Meta{}, &state.Command{}, &state.Audit{}, &state.Outbox{}, &state.QRShown{}, &state.StoredEvent{}, &state.Cursor{},
		&state.DeadLetter{}}
	for _, doc := range docs {
		fill(t, reflect.ValueOf(doc).Elem(), at)
		reflect.ValueOf(doc).Elem().FieldByName("V").SetInt(state.Format)
	}
	return docs
}

// fill sets every field to something that is not its zero value.
func fill(t testing.TB, v reflect.Value, at time.Time) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(at))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), at)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), at)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0), at)
		fill(t, v.Index(1), at)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key, at)
		fill(t, value, at)
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("é")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint64:
		v.SetUint(1<<63 + 1) // more than a float holds
	case reflect.Uint32:
		v.SetUint(1<<32 - 1)
	case reflect.Uint8:
		v.SetUint(255)
	default:
		t.Fatalf("a document has a %s", v.Type())
	}
}

func TestDocumentsRoundTrip(t *testing.T) {
	for _, doc := range documents(t) {
		b, err := state.Encode(doc)
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(reflect.TypeOf(doc).Elem()).Interface()
		if err := state.Decode(b, got); err != nil {
			t.Fatalf("%T: %v", doc, err)
		}
		if !reflect.DeepEqual(got, doc) {
			t.Errorf("wrote %+v, read %+v", doc, got)
		}
		// What a later release adds is not in the way of this one.
		more := append([]byte(`{"added":{"later":[1]},`), b[1:]...)
		if err := state.Decode(more, got); err != nil || !reflect.DeepEqual(got, doc) {
			t.Errorf("%T with a field more: %v", doc, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, c := range map[string]struct{ value, words string }{
		"nothing":             {"", "not a document"},
		"half a document":     {`{"v":1,"name":"x"`, "not a document"},
		"another thing":       {`[1]`, "not a document"},
		"no format":           {`{"name":"x"}`, "format 0"},
		"a negative format":   {`{"v":-1}`, "format -1"},
		"a newer format":      {fmt.Sprintf(`{"v":%d}`, state.Format+1), "run the release that wrote it"},
		"a field of one type": {`{"v":1,"generation":"many"}`, "generation"},
		"two documents":       {`{"v":1}{"v":1}`, "not a document"},
	} {
		var spec state.Spec
		err := state.Decode([]byte(c.value), &spec)
		if !errors.Is(err, state.ErrCorrupt) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, want it to be corrupt and to say %q", name, err, c.words)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, doc := range documents(f) {
		b, err := state.Encode(doc)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, doc := range []any{&state.Spec{}, &state.Status{}, &state.Meta{}, &state.Command{}, &state.Outbox{}} {
			if err := state.Decode(value, doc); err != nil {
				if !errors.Is(err, state.ErrCorrupt) {
					t.Fatalf("%T: %v", doc, err)
				}
				continue
			}
			if _, err := state.Encode(doc); err != nil {
				t.Fatalf("a %T that was read cannot be written: %v", doc, err)
			}
		}
	})
}

func TestEventJSON(t *testing.T) {
	zone := time.FixedZone("CEST", 7200)
	e := state.Event{ID: "01J", Type: state.EventMessage, Time: time.Date(2026, 7, 1, 14, 0, 5, 0, zone), Session: "shop", Epoch: 7, Seq: 12,
		Data: json.RawMessage(`{"text":"hi"}`)}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"id": `"01J"`, "type": `"message.received"`, "time": `"2026-07-01T12:00:05.000Z"`,
		"session": `"shop"`, "epoch": "7", "seq": "12", "data": `{"text":"hi"}`} {
		if got := string(fields[name]); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if len(fields) != 7 {
		t.Errorf("the event has %d fields, want 7: %s", len(fields), b)
	}
	var back state.Event
	if err := json.Unmarshal(b, &back); err != nil || !back.Time.Equal(e.Time) || back.Seq != e.Seq || string(back.Data) != string(e.Data) {
		t.Errorf("read back %+v, %v", back, err)
	}
	// Through a pointer and inside of something it looks the same.
	inside, err := json.Marshal([]*state.Event{&e})
	if err != nil || string(inside) != "["+string(b)+"]" {
		t.Errorf("inside of a list: %s, %v", inside, err)
	}
}

func TestEventTimesHaveThreeDecimals(t *testing.T) {
	for nanos, want := range map[int]string{0: ".000Z", 1_000_000: ".001Z", 999_999_999: ".999Z", 120_000_000: ".120Z"} {
		b, err := json.Marshal(state.Event{Time: time.Date(2026, 1, 1, 0, 0, 0, nanos, time.UTC)})
		if err != nil || !strings.Contains(string(b), "00:00:00"+want) {
			t.Errorf("%d ns: %s, %v", nanos, b, err)
		}
	}
}

func TestEventIDsSort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Uint64().Draw(t, "a"), rapid.Uint64().Draw(t, "b")
		if (a < b) != (state.EventID(a) < state.EventID(b)) {
			t.Fatalf("%s and %s", state.EventID(a), state.EventID(b))
		}
	})
}

func TestFinalCommands(t *testing.T) {
	for s, final := range map[state.CommandState]bool{state.CommandPending: false, state.CommandRunning: false,
		state.CommandDone: true, state.CommandFailed: true, state.CommandExpired: true} {
		if s.Final() != final {
			t.Errorf("%s: final %v, want %v", s, !final, final)
		}
	}
}
