package statetest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

func testRoundTrip(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	until := e.s.Now().Add(time.Hour).Truncate(time.Second)
	for _, want := range []state.Record{
		{Key: state.Key{Kind: state.KindStatus}, Value: []byte("v")},
		{Key: state.Key{Kind: state.KindSignal, ID: "x"}, Value: []byte{0, 1, 0xff, 0}, Rev: 7},
		{Key: state.Key{Kind: state.KindEvent, ID: "y"}, Value: nil, Rev: math.MaxUint64},
		{Key: state.Key{Kind: state.KindOutbox, ID: "z"}, Value: []byte{}, Rev: math.MaxInt64 + 1, Expires: until, Index: "due/a"},
	} {
		e.commit(f, state.Write{Record: want})
		got, err := e.s.Get(e.ctx, p, want.Key)
		e.ok(err)
		if got.Key != want.Key || !bytes.Equal(got.Value, want.Value) || got.Rev != want.Rev ||
			!got.Expires.Equal(want.Expires) || got.Expires.IsZero() != want.Expires.IsZero() || got.Index != want.Index {
			e.Errorf("read %+v, wrote %+v", got, want)
		}
		page, err := e.s.Query(e.ctx, p, state.Query{Kind: want.Key.Kind})
		e.ok(err)
		if len(page.Records) != 1 || page.More || page.Records[0].Rev != want.Rev || !bytes.Equal(page.Records[0].Value, want.Value) {
			e.Errorf("queried %+v, wrote %+v", page, want)
		}
	}
	e.absent(p, state.KindMeta, "")
	e.absent(p, state.KindSignal, "y")
	e.commit(f, state.Del(state.KindSignal, "x"), state.Del(state.KindSignal, "never was"))
	e.absent(p, state.KindSignal, "x")
}

func testNoAliasing(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	mine := []byte("mine")
	e.commit(f, state.Put(state.KindMeta, "", mine))
	copy(mine, "XXXX")
	e.same("the stored value", e.value(p, state.KindMeta, ""), "mine")
	got, err := e.s.Get(e.ctx, p, state.Key{Kind: state.KindMeta})
	e.ok(err)
	copy(got.Value, "XXXX")
	many, err := e.s.GetMany(e.ctx, p, []state.Key{{Kind: state.KindMeta}})
	e.ok(err)
	copy(many[0].Value, "XXXX")
	page, err := e.s.Query(e.ctx, p, state.Query{Kind: state.KindMeta})
	e.ok(err)
	copy(page.Records[0].Value, "XXXX")
	e.same("the stored value", e.value(p, state.KindMeta, ""), "mine")
}

func testReplace(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	e.commit(f, put(state.KindOutbox, "1", "long value", rev(3), index("due/a"), expires(e.s.Now().Add(time.Hour))))
	e.commit(f, put(state.KindOutbox, "1", "new"))
	r, err := e.s.Get(e.ctx, p, state.Key{Kind: state.KindOutbox, ID: "1"})
	e.ok(err)
	e.same("value", string(r.Value), "new")
	if r.Rev != 0 || r.Index != "" || !r.Expires.IsZero() {
		e.Errorf("something of the old record is left: %+v", r)
	}
}

// oddIDs are in bytewise order, which is not that of most collations; some mean
// something to databases.
var oddIDs = []string{" ", "!", "#", "%", "'; DROP TABLE record; --", "*", "0", "00", "1", "10", "2", "A", "B", "Z", "[a]", "\\", "_", "a",
	"a#b", "a%", "aB", "a_", "ab", "b", "z", "~", "é", "ü", "ﬀ", "😀"}

func testOddIDs(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	for _, id := range slices.Backward(oddIDs) {
		e.commit(f, put(state.KindSignal, id, "of "+id))
	}
	for _, id := range oddIDs {
		e.same("the value of "+id, e.value(p, state.KindSignal, id), "of "+id)
	}
	e.same("ids in order", e.all(p, state.Query{Kind: state.KindSignal}), oddIDs)
	e.same("ids in order, by threes", e.all(p, state.Query{Kind: state.KindSignal, Limit: 3}), oddIDs)
	longest := strings.Repeat("x", state.MaxKeyID)
	e.commit(f, put(state.KindContact, longest, "far"))
	e.same("the value of the longest id", e.value(p, state.KindContact, longest), "far")
	e.same("the longest id", e.all(p, state.Query{Kind: state.KindContact, Prefix: longest[:state.MaxKeyID-1]}), []string{longest})
}

func testApart(e *env) {
	a, b := e.owned("a"), e.owned("ab")
	e.commit(a, put(state.KindEvent, "1", "a"), put("EV2", "1", "a2"), put("E", "V#1", "trap"))
	e.commit(b, put(state.KindEvent, "1", "ab"))
	e.same("a", e.value(state.OfSession("a"), state.KindEvent, "1"), "a")
	e.same("ab", e.value(state.OfSession("ab"), state.KindEvent, "1"), "ab")
	e.same("ids of EV", e.all(state.OfSession("a"), state.Query{Kind: state.KindEvent}), []string{"1"})
	e.same("ids of E", e.all(state.OfSession("a"), state.Query{Kind: "E"}), []string{"V#1"})
	e.same("ids of a session that is not there", e.all(state.OfSession("none"), state.Query{Kind: state.KindEvent}), []string{})
}

func testGetMany(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	const n = 250
	var asked []state.Key
	var want []string
	var batch []state.Write
	for i := range n {
		id := fmt.Sprintf("%03d", i)
		asked = append(asked, state.Key{Kind: state.KindSignal, ID: id})
		if i%5 == 0 {
			continue // asked for and not there
		}
		batch = append(batch, put(state.KindSignal, id, "v"+id))
		want = append(want, "SESS#"+id)
		if len(batch) == state.MaxItems {
			e.commit(f, batch...)
			batch = nil
		}
	}
	e.commit(f, batch...)
	e.commit(f, put(state.KindMeta, "", "meta"))
	asked = append(asked, state.Key{Kind: state.KindMeta}, asked[1], asked[1])
	want = append([]string{"META"}, want...)
	got, err := e.s.GetMany(e.ctx, p, asked)
	e.ok(err)
	e.same("keys", keys(got), want)
	for _, r := range got {
		if r.Key.Kind == state.KindSignal && string(r.Value) != "v"+r.Key.ID {
			e.Errorf("%s has the value %q", r.Key, r.Value)
		}
	}
	got, err = e.s.GetMany(e.ctx, p, nil)
	e.ok(err)
	e.same("nothing asked for", len(got), 0)
}

func testConditions(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	const there, gone, never = "there", "gone", "never"
	prepare := func() {
		e.commit(f, put(state.KindCommand, there, "old", rev(5)), put(state.KindCommand, gone, "old", rev(5)))
		e.commit(f, state.Del(state.KindCommand, gone), state.Del(state.KindCommand, never))
	}
	for _, c := range []struct {
		name  string
		cond  state.Condition
		holds []string
	}{
		{"always", state.Condition{}, []string{there, gone, never}},
		{"absent", state.Absent(), []string{gone, never}},
		{"exists", state.Exists(), []string{there}},
		{"at its rev", state.AtRev(5), []string{there}},
		{"at another rev", state.AtRev(4), nil},
		{"at rev 0", state.AtRev(0), nil},
	} {
		for _, id := range []string{there, gone, never} {
			for _, write := range []state.Write{
				put(state.KindCommand, id, "new", rev(6), when(c.cond)),
				{Record: state.Record{Key: state.Key{Kind: state.KindCommand, ID: id}}, Delete: true, If: c.cond},
			} {
				for how, do := range map[string]func() error{
					"Commit": func() error { return e.s.Commit(e.ctx, f, "", []state.Write{write}) },
					"Update": func() error { return e.s.Update(e.ctx, p, []state.Write{write}) },
				} {
					prepare()
					err := do()
					_, read := e.s.Get(e.ctx, p, write.Key)
					what := fmt.Sprintf("%s of a record that is %s, if %s, delete %v", how, id, c.name, write.Delete)
					if slices.Contains(c.holds, id) {
						if err != nil {
							e.Errorf("%s: %v", what, err)
						}
						if found := read == nil; found == write.Delete {
							e.Errorf("%s: had no effect", what)
						}
						continue
					}
					if !errors.Is(err, state.ErrConflict) {
						e.Errorf("%s: %v, want a conflict", what, err)
					}
					if found := read == nil; found != (id == there) {
						e.Errorf("%s: had an effect", what)
					}
				}
			}
		}
	}
	// A record that was written without a rev is at rev 0.
	e.commit(f, put(state.KindCommand, "plain", "x"))
	e.commit(f, put(state.KindCommand, "plain", "y", when(state.AtRev(0))))
	e.commit(f, put(state.KindCommand, "top", "x", rev(math.MaxUint64)))
	e.commit(f, put(state.KindCommand, "top", "y", when(state.AtRev(math.MaxUint64))))
	// Deleting what is absent is no error.
	e.commit(f, state.Del(state.KindCommand, never))
}

func testAtomic(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	e.commit(f, put(state.KindSignal, "1", "old"), put(state.KindSignal, "2", "old"))
	for _, at := range []int{0, 1, 2} {
		writes := []state.Write{put(state.KindSignal, "1", "new"), state.Del(state.KindSignal, "2"), put(state.KindSignal, "3", "new")}
		writes = slices.Insert(writes, at, put(state.KindStatus, "", "x", when(state.Exists())))
		e.fails(e.s.Commit(e.ctx, f, "", writes), state.ErrConflict)
		e.same("1", e.value(p, state.KindSignal, "1"), "old")
		e.same("2", e.value(p, state.KindSignal, "2"), "old")
		e.absent(p, state.KindSignal, "3")
	}
	// Conditions are about what is stored, not about the batch itself.
	e.commit(f, put(state.KindSignal, "4", "new", when(state.Absent())), put(state.KindSignal, "5", "new", when(state.Absent())))
}

func testBounds(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	many := func(n, size int) (ws []state.Write) {
		for i := range n {
			ws = append(ws, put(state.KindOutbox, fmt.Sprintf("%03d", i), strings.Repeat("x", size)))
		}
		return ws
	}
	for _, c := range []struct {
		name   string
		writes []state.Write
		fits   bool
	}{
		{"as many items as may be", many(state.MaxItems, 1), true},
		{"one item more", many(state.MaxItems+1, 1), false},
		{"the largest value", many(1, state.MaxValue), true},
		{"one byte more", many(1, state.MaxValue+1), false},
		{"nearly all bytes", many(11, state.MaxBytes/11-10), true},
		{"more bytes", many(11, state.MaxBytes/11+1), false},
		{"a longer id", []state.Write{put(state.KindOutbox, strings.Repeat("i", state.MaxKeyID+1), "")}, false},
	} {
		for how, do := range map[string]func() error{
			"Commit":        func() error { return e.s.Commit(e.ctx, f, "", c.writes) },
			"Update":        func() error { return e.s.Update(e.ctx, p, c.writes) },
			"CreateSession": func() error { return e.s.CreateSession(e.ctx, "new", c.writes) },
		} {
			err := do()
			if c.fits && err != nil {
				e.Errorf("%s, %s: %v", how, c.name, err)
			}
			if !c.fits && !errors.Is(err, state.ErrTooLarge) {
				e.Errorf("%s, %s: %v, want too large", how, c.name, err)
			}
			if how == "CreateSession" && err == nil {
				o, err := e.s.Owner(e.ctx, "new")
				e.ok(err)
				e.ok(e.s.RemoveSession(e.ctx, o.Fence()))
			}
		}
	}
	e.commit(f, put(state.KindOutbox, "000", strings.Repeat("y", state.MaxValue)))
	e.same("length of the largest value", len(e.value(p, state.KindOutbox, "000")), state.MaxValue)
}

func testMalformed(e *env) {
	f := e.owned("a")
	for name, writes := range map[string][]state.Write{
		"no kind":                  {put("", "1", "x")},
		"a # in a kind":            {put("A#B", "1", "x")},
		"device state in an index": {put(state.KindSignal, "1", "x", index("i"))},
		"a key twice":              {put(state.KindEvent, "1", "x"), put(state.KindEvent, "1", "y")},
		"put and delete":           {put(state.KindEvent, "1", "x"), state.Del(state.KindEvent, "1")},
	} {
		if err := e.s.Commit(e.ctx, f, "", writes); err == nil {
			e.Errorf("%s: accepted", name)
		}
		e.absent(state.OfSession("a"), state.KindEvent, "1")
	}
}

func testExpiry(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	past, future := e.s.Now().Add(-time.Minute), e.s.Now().Add(time.Hour)
	lapse := func() {
		e.commit(f, put(state.KindEventHash, "old", "x", rev(2), expires(past)),
			put(state.KindEventHash, "new", "x", rev(2), expires(future)),
			put(state.KindEventHash, "ever", "x", rev(2)),
			put(state.KindCommand, "old", "x", index("i"), expires(past)),
			put(state.KindCommand, "new", "x", index("i"), expires(future)),
			put(state.KindCommand, "ever", "x", index("i")))
	}
	lapse()
	e.absent(p, state.KindEventHash, "old")
	e.same("the others", e.all(p, state.Query{Kind: state.KindEventHash}), []string{"ever", "new"})
	e.same("the others, downwards", e.all(p, state.Query{Kind: state.KindEventHash, Descending: true, Limit: 1}), []string{"new", "ever"})
	got, err := e.s.GetMany(e.ctx, p, []state.Key{{Kind: state.KindEventHash, ID: "old"}, {Kind: state.KindEventHash, ID: "new"}})
	e.ok(err)
	e.same("many", keys(got), []string{"WEVT#new"})
	e.soon("the index", func() any { return indexed(e, "i") }, []string{"S/a CMD#ever", "S/a CMD#new"})

	old := func(c state.Condition) error {
		return e.s.Commit(e.ctx, f, "", []state.Write{put(state.KindEventHash, "old", "again", when(c))})
	}
	e.fails(old(state.Exists()), state.ErrConflict)
	e.fails(old(state.AtRev(2)), state.ErrConflict)
	e.ok(old(state.Absent()))
	e.same("written anew", e.value(p, state.KindEventHash, "old"), "again")
	lapse()
	e.commit(f, state.Del(state.KindEventHash, "old"))
	e.absent(p, state.KindEventHash, "old")
}
