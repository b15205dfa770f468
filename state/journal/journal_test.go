package journal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

const session = "shop-1"

var partition = state.OfSession(session)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// owner is a session with an owner, over a store that counts and fails.
type owner struct {
	t      *testing.T
	fault  *statetest.FaultStore
	count  *statetest.CountingStore
	fleet  *seal.Keyset
	mu     sync.Mutex
	events []state.Event
	broken []error
}

func newOwner(t *testing.T) *owner {
	t.Helper()
	o := &owner{t: t, fault: statetest.Fault(memory.New(time.Now))}
	o.count = statetest.Counting(o.fault)
	must(t, o.count.CreateSession(context.Background(), session, nil))
	var err error
	o.fleet, err = seal.NewKeyset()
	must(t, err)
	return o
}

func (o *owner) open(edit func(*journal.Config)) *journal.Journal {
	o.t.Helper()
	ctx := context.Background()
	own, err := o.count.Owner(ctx, session)
	must(o.t, err)
	own, err = statetest.Take(ctx, o.count, session, fmt.Sprint("w", own.Epoch))
	must(o.t, err)
	c := journal.Config{Store: o.count, Fence: own.Fence(), Fleet: o.fleet, Sinks: []string{"hook"},
		Committed: func(e []state.Event) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.events = append(o.events, e...)
		},
		Broken: func(err error) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.broken = append(o.broken, err)
		}}
	if edit != nil {
		edit(&c)
	}
	j, err := journal.Open(ctx, c)
	must(o.t, err)
	o.t.Cleanup(j.Close)
	return j
}

func (o *owner) stored(kind state.Kind) []state.Record {
	o.t.Helper()
	page, err := o.count.Query(context.Background(), partition, state.Query{Kind: kind})
	must(o.t, err)
	return page.Records
}

func event(text string) journal.Batch {
	return journal.Batch{Events: []journal.Draft{{Type: state.EventMessage, Data: text}}}
}

func put(id, value string) state.Write { return state.Put(state.KindStatus, id, []byte(value)) }

// TestEvents: events are numbered without gaps, over owners and over failures of
// the caller's own conditions, are told of in order, and are stored sealed.
func TestEvents(t *testing.T) {
	o := newOwner(t)
	ctx := context.Background()
	j := o.open(nil)
	must(t, j.Commit(ctx, event("one")))
	two := event("two")
	two.Events = append(two.Events, journal.Draft{Type: state.EventState, ID: "own-id", Time: time.Unix(5, 0), Data: map[string]int{"a": 1}})
	must(t, j.Commit(ctx, two))
	refused := event("refused")
	w := put("x", "1")
	w.If = state.Exists()
	refused.Writes = []state.Write{w}
	if err := j.Commit(ctx, refused); !errors.Is(err, state.ErrConflict) {
		t.Fatalf("got %v", err)
	}
	must(t, j.Err())
	j = o.open(nil)
	if j.Seq() != 3 || j.Undelivered() != 3 {
		t.Fatalf("seq %d, %d undelivered", j.Seq(), j.Undelivered())
	}
	must(t, j.Commit(ctx, event("four")))
	records := o.stored(state.KindEvent)
	if len(o.events) != 4 || len(records) != 4 {
		t.Fatalf("%d events, %d records", len(o.events), len(records))
	}
	for i, e := range o.events {
		if e.Seq != uint64(i+1) || e.Session != session || e.Epoch != []uint64{2, 2, 2, 3}[i] || e.ID == "" || e.Time.IsZero() {
			t.Errorf("event %d is %+v", i+1, e)
		}
		back, err := j.OpenEvent(records[i])
		must(t, err)
		if back.ID != e.ID || string(back.Data) != string(e.Data) || records[i].Key.ID != state.EventID(e.Seq) {
			t.Errorf("record %d reads as %+v", i+1, back)
		}
		if strings.Contains(string(records[i].Value), "four") {
			t.Error("an event in the clear")
		}
	}
	if o.events[2].ID != "own-id" || o.events[2].Time.Unix() != 5 {
		t.Errorf("the draft's id and time: %+v", o.events[2])
	}
	records[0].Key.ID = state.EventID(2)
	if _, err := j.OpenEvent(records[0]); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("an event in another's place: %v", err)
	}
}

// TestSeqSurvivesExpiry: numbers go on when no event is left.
func TestSeqSurvivesExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(t)
		j := o.open(nil)
		for range 3 {
			must(t, j.Commit(context.Background(), event("x")))
		}
		j.Delivered("hook", 3)
		time.Sleep(time.Minute)
		time.Sleep(8 * 24 * time.Hour)
		if n := len(o.stored(state.KindEvent)); n != 0 {
			t.Fatalf("%d events left", n)
		}
		j.Close()
		if j = o.open(nil); j.Seq() != 3 {
			t.Fatalf("seq %d", j.Seq())
		}
		j.Close()
	})
}

// TestDelivered: what all sinks have had loses its content with the next commit,
// or within a minute.
func TestDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(t)
		j := o.open(func(c *journal.Config) { c.Sinks = []string{"hook", "file"} })
		ctx := context.Background()
		for _, text := range []string{"one", "two", "three"} {
			must(t, j.Commit(ctx, event(text)))
		}
		j.Delivered("hook", 2)
		j.Delivered("unknown", 3)
		must(t, j.Flush(ctx))
		content := func() (texts []string) {
			for _, r := range o.stored(state.KindEvent) {
				e, err := j.OpenEvent(r)
				must(t, err)
				texts = append(texts, string(e.Data))
			}
			return texts
		}
		if got := strings.Join(content(), " "); got != `"one" "two" "three"` {
			t.Fatalf("a sink has had them, the other not: %s", got)
		}
		before := o.count.Count(statetest.Commit)
		j.Delivered("file", 1)
		j.Delivered("file", 0)
		if o.count.Count(statetest.Commit) != before {
			t.Fatal("a cursor is no commit of its own")
		}
		must(t, j.Commit(ctx, event("four")))
		if got := strings.Join(content(), " "); got != `{"trimmed":true} "two" "three" "four"` {
			t.Fatalf("after the next commit: %s", got)
		}
		j.Delivered("file", 9)
		j.Delivered("hook", 9)
		time.Sleep(time.Minute)
		if got := strings.Join(content(), " "); strings.Contains(got, "two") || strings.Contains(got, "four") {
			t.Fatalf("after a minute: %s", got)
		}
		j.Close()
		j = o.open(func(c *journal.Config) { c.Sinks = []string{"hook", "file"} })
		if j.Undelivered() != 0 || j.Cursor("file") != 4 || j.Cursor("unknown") != 0 {
			t.Fatalf("%d undelivered, cursor %d", j.Undelivered(), j.Cursor("file"))
		}
		if j.Seq() != 4 {
			t.Fatalf("seq %d", j.Seq())
		}
		j.Close()
	})
}

// TestDeliveredByTheNextOwner: what is not in memory any more is read, and loses
// its content likewise. The history keeps it.
func TestDeliveredByTheNextOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(t)
		ctx := context.Background()
		j := o.open(nil)
		const n = 230
		for i := range n {
			must(t, j.Commit(ctx, event(fmt.Sprint("content ", i))))
		}
		j.Close()
		j = o.open(nil)
		must(t, j.Commit(ctx, event("content of its own")))
		trimmed := func() (count int) {
			got := o.stored(state.KindEvent)
			if len(got) != n+1 {
				t.Fatalf("%d events, want %d", len(got), n+1)
			}
			for _, r := range got {
				e, err := j.OpenEvent(r)
				must(t, err)
				if string(e.Data) == `{"trimmed":true}` {
					count++
				}
			}
			return count
		}
		j.Delivered("hook", 100)
		o.fault.FailBefore(statetest.Of(statetest.Query), 1, state.ErrUnavailable)
		time.Sleep(6 * time.Second)
		o.fault.Heal()
		if got := trimmed(); got != 0 {
			t.Fatalf("%d were trimmed without being read", got)
		}
		j.Delivered("hook", n+1)
		time.Sleep(time.Minute)
		if got := trimmed(); got != n+1 {
			t.Fatalf("%d of %d are trimmed", got, n+1)
		}
		for _, r := range o.stored(state.KindEvent) {
			if r.Expires.IsZero() {
				t.Fatalf("%s stays for ever", r.Key)
			}
		}
		// With nothing owed any more it costs no reading.
		must(t, j.Commit(ctx, event("one more")))
		before := o.count.Count(statetest.Query)
		j.Delivered("hook", n+2)
		time.Sleep(time.Minute)
		if got := o.count.Count(statetest.Query); got != before {
			t.Errorf("%d queries", got-before)
		}
		j.Close()
	})
}

// TestTrimsLeftOver: content whose removal did not fit beside the cursor is
// removed by the next owner, when the one before dies in between.
func TestTrimsLeftOver(t *testing.T) {
	o := newOwner(t)
	ctx := context.Background()
	j := o.open(nil)
	const n = 200
	for i := range n {
		must(t, j.Commit(ctx, event(fmt.Sprint(i))))
	}
	j.Delivered("hook", n-1)
	must(t, j.Commit(ctx, event("last"))) // takes the cursor and as much as fits
	j = o.open(nil)
	if got := j.Cursor("hook"); got != n-1 {
		t.Fatalf("the cursor is at %d", got)
	}
	must(t, j.Flush(ctx))
	for _, r := range o.stored(state.KindEvent) {
		var e state.StoredEvent
		must(t, state.Decode(r.Value, &e))
		if left := r.Key.ID >= state.EventID(n); e.Trimmed == left {
			t.Fatalf("%s: trimmed is %v", r.Key, e.Trimmed)
		}
	}
	if j.Undelivered() != 2 {
		t.Fatalf("%d undelivered", j.Undelivered())
	}
}

// TestFull: the queue is bounded in number and in age.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(t)
		j := o.open(func(c *journal.Config) { c.MaxEvents = 3; c.MaxAge = time.Hour })
		for i := range 3 {
			if j.Full() {
				t.Fatalf("full with %d events", i)
			}
			must(t, j.Commit(context.Background(), event("x")))
		}
		if !j.Full() {
			t.Fatal("not full with 3 of 3")
		}
		j.Delivered("hook", 2)
		if j.Full() {
			t.Fatal("full with 1 of 3")
		}
		time.Sleep(2 * time.Hour)
		if !j.Full() {
			t.Fatal("not full after twice its age")
		}
		j.Close()
		j = o.open(func(c *journal.Config) { c.MaxEvents = 3; c.MaxAge = time.Hour })
		if !j.Full() {
			t.Fatal("the next owner does not know the age")
		}
		j.Delivered("hook", 3)
		if j.Full() {
			t.Fatal("full with nothing")
		}
		j.Close()
	})
}

// TestLazy: lazy writes ride, the latest wins, and none is older than what a
// commit wrote.
func TestLazy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(t)
		ctx := context.Background()
		j := o.open(nil)
		must(t, j.Flush(ctx))
		commits := o.count.Count(statetest.Commit)
		j.Lazy(put("a", "1"), put("b", "1"))
		j.Lazy(put("a", "2"))
		if w, ok := j.Pending(state.Key{Kind: state.KindStatus, ID: "a"}); !ok || string(w.Value) != "2" {
			t.Fatalf("pending: %v %s", ok, w.Value)
		}
		must(t, j.Commit(ctx, journal.Batch{Writes: []state.Write{put("b", "3"), put("c", "3")}}))
		got := func() string {
			s := ""
			for _, r := range o.stored(state.KindStatus) {
				s += r.Key.ID + string(r.Value) + " "
			}
			return s
		}
		if got() != "a2 b3 c3 " || o.count.Count(statetest.Commit) != commits+1 {
			t.Fatalf("got %s with %d commits", got(), o.count.Count(statetest.Commit)-commits)
		}
		if _, ok := j.Pending(state.Key{Kind: state.KindStatus, ID: "a"}); ok {
			t.Fatal("still pending")
		}
		j.Lazy(put("a", "4"))
		time.Sleep(time.Minute)
		if got() != "a4 b3 c3 " {
			t.Fatalf("after a minute: %s", got())
		}
		// A commit that is refused puts them back.
		j.Lazy(put("a", "5"), put("z", "5"))
		w := put("z", "no")
		w.If = state.Exists()
		if err := j.Commit(ctx, journal.Batch{Writes: []state.Write{w}}); !errors.Is(err, state.ErrConflict) {
			t.Fatal(err)
		}
		must(t, j.Flush(ctx))
		if got() != "a5 b3 c3 z5 " {
			t.Fatalf("after a refusal: %s", got())
		}
		for i := range 300 {
			j.Lazy(put(fmt.Sprint("n", i), "x"))
		}
		commits = o.count.Count(statetest.Commit)
		must(t, j.Commit(ctx, journal.Batch{Writes: []state.Write{put("a", "6")}}))
		must(t, j.Flush(ctx))
		if n := o.count.Count(statetest.Commit) - commits; n != 4 || len(o.stored(state.KindStatus)) != 304 {
			t.Fatalf("301 writes in %d commits, %d records", n, len(o.stored(state.KindStatus)))
		}
		j.Close()
		j.Lazy(put("late", "x"))
		time.Sleep(time.Hour)
	})
}

// TestUnavailable: a store that does not answer is asked again with the same
// token, and for so long only.
func TestUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(t)
		j := o.open(nil)
		o.fault.FailAfter(statetest.Of(statetest.Commit), 3, nil)
		must(t, j.Commit(context.Background(), event("one")))
		if n := len(o.stored(state.KindEvent)); n != 1 || len(o.events) != 1 {
			t.Fatalf("%d events, told of %d", n, len(o.events))
		}
		o.fault.FailBefore(statetest.Of(statetest.Commit), -1, nil)
		begun := time.Now()
		err := j.Commit(context.Background(), event("two"))
		if !errors.Is(err, state.ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
		if took := time.Since(begun); took < 2*time.Second || took > 4*time.Second {
			t.Errorf("gave up after %s", took)
		}
		if len(o.broken) != 1 || !errors.Is(o.broken[0], state.ErrUnavailable) {
			t.Fatalf("broken: %v", o.broken)
		}
		o.fault.Heal()
		if err := j.Commit(context.Background(), event("three")); !errors.Is(err, state.ErrUnavailable) {
			t.Fatalf("a broken journal goes on: %v", err)
		}
		if err := j.Flush(context.Background()); err == nil {
			t.Fatal("a broken journal flushes")
		}
		if len(o.broken) != 1 {
			t.Fatalf("broken %d times", len(o.broken))
		}
		j.Close()
	})
}

// TestBreaks: what breaks a journal, and what it says.
func TestBreaks(t *testing.T) {
	ctx := context.Background()
	many := journal.Batch{}
	for i := range state.MaxItems + 1 {
		many.Writes = append(many.Writes, put(fmt.Sprint(i), "x"))
	}
	for name, test := range map[string]struct {
		do   func(o *owner, j *journal.Journal) error
		want error
	}{
		"fenced":   {func(o *owner, j *journal.Journal) error { o.open(nil); return j.Commit(ctx, event("x")) }, state.ErrFenced},
		"too many": {func(o *owner, j *journal.Journal) error { return j.Commit(ctx, many) }, state.ErrTooLarge},
		"too large": {func(o *owner, j *journal.Journal) error {
			return j.Commit(ctx, journal.Batch{Writes: []state.Write{put("x", strings.Repeat("x", state.MaxValue+1))}})
		}, state.ErrTooLarge},
		"not ours": {func(o *owner, j *journal.Journal) error {
			o.fault.FailBefore(nil, 1, state.ErrConflict)
			return j.Commit(ctx, event("x"))
		}, state.ErrConflict},
		"fenced lazily": {func(o *owner, j *journal.Journal) error { o.open(nil); j.Lazy(put("a", "1")); return j.Flush(ctx) }, state.ErrFenced},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOwner(t)
			j := o.open(nil)
			must(t, j.Flush(ctx))
			if err := test.do(o, j); !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if len(o.broken) != 1 || !errors.Is(j.Err(), test.want) || len(o.events) != 0 {
				t.Fatalf("broken %v, err %v, events %v", o.broken, j.Err(), o.events)
			}
		})
	}
}

// TestCallerGoesAway: a caller whose ctx ends while it waits writes nothing; one
// whose ctx ends in the middle learns what became of it.
func TestCallerGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(t)
		slow := statetest.Delay(o.count, time.Second)
		j := o.open(func(c *journal.Config) { c.Store = slow })
		must(t, j.Flush(context.Background()))
		ctx, cancel := context.WithCancel(context.Background())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- j.Commit(ctx, event("one")) }()
		synctest.Wait()
		go func() { second <- j.Commit(ctx, event("two")) }()
		synctest.Wait()
		cancel()
		must(t, <-first)
		if err := <-second; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		if len(o.events) != 1 || j.Err() != nil {
			t.Fatalf("%d events, %v", len(o.events), j.Err())
		}
		j.Close()
		if err := j.Commit(context.Background(), event("three")); !errors.Is(err, journal.ErrClosed) {
			t.Fatalf("got %v", err)
		}
		if len(o.broken) != 0 {
			t.Fatal("closing is not breaking")
		}
	})
}

// TestNeverLost draws commits, lazy writes and faults, and compares what the
// next owner finds with what was acknowledged.
func TestNeverLost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := newOwner(t)
		ctx := context.Background()
		j := o.open(func(c *journal.Config) { c.Retry = 5 * time.Second })
		model := make(map[string]string)
		events := 0
		for i := range rapid.IntRange(1, 30).Draw(rt, "steps") {
			id := fmt.Sprint(rapid.IntRange(0, 5).Draw(rt, "id"))
			value := fmt.Sprint(i)
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0:
				must(t, j.Commit(ctx, journal.Batch{Writes: []state.Write{put(id, value)}}))
				model[id] = value
			case 1:
				j.Lazy(put(id, value))
				model[id] = value
			case 2:
				must(t, j.Commit(ctx, event(value)))
				events++
			case 3:
				o.fault.Heal()
				o.fault.FailAfter(statetest.Of(statetest.Commit), 1, nil)
			case 4:
				j.Delivered("hook", uint64(rapid.IntRange(0, events).Draw(rt, "delivered")))
			}
		}
		o.fault.Heal()
		must(t, j.Flush(ctx))
		j = o.open(nil)
		for _, r := range o.stored(state.KindStatus) {
			if model[r.Key.ID] != string(r.Value) {
				rt.Fatalf("%s is %s, want %s", r.Key.ID, r.Value, model[r.Key.ID])
			}
			delete(model, r.Key.ID)
		}
		if len(model) != 0 || j.Seq() != uint64(events) || len(o.stored(state.KindEvent)) != events {
			rt.Fatalf("missing %v, seq %d of %d", model, j.Seq(), events)
		}
	})
}
