package statetest

import (
	"fmt"
	"slices"

	"github.com/holdfast-wa/holdfast/state"
)

// numbered writes n events and returns their ids.
func numbered(e *env, f state.Fence, n int) []string {
	var ids []string
	var batch []state.Write
	for i := range n {
		id := state.EventID(uint64(i) * 7)
		ids = append(ids, id)
		batch = append(batch, put(state.KindEvent, id, "v"))
		if len(batch) == state.MaxItems || i == n-1 {
			e.commit(f, batch...)
			batch = nil
		}
	}
	return ids
}

func testQueryAscending(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	ids := numbered(e, f, 40)
	for _, limit := range []int{1, 7, 39, 40, 41, 0} {
		e.same(fmt.Sprintf("all by %d", limit), e.all(p, state.Query{Kind: state.KindEvent, Limit: limit}), ids)
	}
	page, err := e.s.Query(e.ctx, p, state.Query{Kind: state.KindEvent, Limit: 40})
	e.ok(err)
	if len(page.Records) > 40 {
		e.Errorf("%d records, at most 40 were asked for", len(page.Records))
	}
	e.same("after one that is there", e.all(p, state.Query{Kind: state.KindEvent, After: ids[9]}), ids[10:])
	e.same("after one that is not", e.all(p, state.Query{Kind: state.KindEvent, After: state.EventID(8)}), ids[2:])
	e.same("after the last", e.all(p, state.Query{Kind: state.KindEvent, After: ids[39]}), []string{})
}

func testQueryDescending(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	ids := numbered(e, f, 40)
	slices.Reverse(ids)
	down := state.Query{Kind: state.KindEvent, Descending: true}
	for _, limit := range []int{1, 7, 40, 0} {
		q := down
		q.Limit = limit
		e.same(fmt.Sprintf("all by %d", limit), e.all(p, q), ids)
	}
	page, err := e.s.Query(e.ctx, p, state.Query{Kind: state.KindEvent, Descending: true, Limit: 1})
	e.ok(err)
	e.same("the highest", page.Records[0].Key.ID, ids[0])
	down.After = ids[9]
	e.same("below one that is there", e.all(p, down), ids[10:])
	down.After = ids[39]
	e.same("below the first", e.all(p, down), []string{})
}

func testQueryPrefix(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	for _, id := range []string{"a", "a:", "a:1", "a:10", "a:2", "a;", "a_1", "aX1", "b:1", "a%", "é:1", "😀", "😀1"} {
		e.commit(f, put(state.KindSignal, id, "v"))
	}
	for _, c := range []struct {
		q    state.Query
		want []string
	}{
		{state.Query{Prefix: "a:"}, []string{"a:", "a:1", "a:10", "a:2"}},
		{state.Query{Prefix: "a:", Limit: 1}, []string{"a:", "a:1", "a:10", "a:2"}},
		{state.Query{Prefix: "a:", Descending: true, Limit: 1}, []string{"a:2", "a:10", "a:1", "a:"}},
		{state.Query{Prefix: "a:", After: "a:1"}, []string{"a:10", "a:2"}},
		{state.Query{Prefix: "a:", After: "a:2", Descending: true}, []string{"a:10", "a:1", "a:"}},
		{state.Query{Prefix: "a:", After: "A"}, []string{"a:", "a:1", "a:10", "a:2"}},
		{state.Query{Prefix: "a:", After: "z", Descending: true}, []string{"a:2", "a:10", "a:1", "a:"}},
		{state.Query{Prefix: "a:", After: "z"}, []string{}},
		{state.Query{Prefix: "a:", After: "A", Descending: true}, []string{}},
		{state.Query{Prefix: "a%"}, []string{"a%"}},
		{state.Query{Prefix: "a_"}, []string{"a_1"}},
		{state.Query{Prefix: "é"}, []string{"é:1"}},
		{state.Query{Prefix: "😀"}, []string{"😀", "😀1"}},
		{state.Query{Prefix: "c"}, []string{}},
	} {
		c.q.Kind = state.KindSignal
		e.same(fmt.Sprintf("%+v", c.q), e.all(p, c.q), c.want)
	}
}

func testQueryDefaultLimit(e *env) {
	f := e.owned("a")
	ids := numbered(e, f, 1010)
	page, err := e.s.Query(e.ctx, state.OfSession("a"), state.Query{Kind: state.KindEvent})
	e.ok(err)
	if len(page.Records) > 1000 || !page.More {
		e.Errorf("%d records, more %v; at most 1000 and more", len(page.Records), page.More)
	}
	e.same("all", e.all(state.OfSession("a"), state.Query{Kind: state.KindEvent}), ids)
}

// indexed lists an index, by twos.
func indexed(e *env, name string) []string {
	e.Helper()
	out := []string{}
	var after *state.Indexed
	for {
		page, err := e.s.Indexed(e.ctx, name, after, 2)
		e.ok(err)
		if len(page) > 2 {
			e.Fatalf("%d records, at most 2 were asked for", len(page))
		}
		for _, r := range page {
			out = append(out, fmt.Sprintf("%s %s", r.Partition, r.Key))
		}
		if len(page) == 0 {
			return out
		}
		after = &page[len(page)-1]
	}
}

func testIndex(e *env) {
	f := e.owned("a")
	is := func(name string, want ...string) {
		e.Helper()
		e.soon("index "+name, func() any { return indexed(e, name) }, append([]string{}, want...))
	}
	is("cmd/w1")
	e.commit(f, put(state.KindCommand, "1", "x", index("cmd/w1"), rev(1)), put(state.KindCommand, "2", "x"))
	is("cmd/w1", "S/a CMD#1")
	found, err := e.s.Indexed(e.ctx, "cmd/w1", nil, 0)
	e.ok(err)
	if r := found[0]; string(r.Value) != "x" || r.Rev != 1 || r.Index != "cmd/w1" {
		e.Errorf("the record found is %+v", r)
	}
	// It moves,
	e.commit(f, put(state.KindCommand, "1", "x", index("cmd/w2")))
	is("cmd/w1")
	is("cmd/w2", "S/a CMD#1")
	// leaves,
	e.commit(f, put(state.KindCommand, "1", "x"))
	is("cmd/w2")
	// and is removed, with the record or the session.
	e.commit(f, put(state.KindCommand, "1", "x", index("cmd/w1")), put(state.KindCommand, "3", "x", index("cmd/w1")))
	e.commit(f, state.Del(state.KindCommand, "1"))
	is("cmd/w1", "S/a CMD#3")
	e.ok(e.s.RemoveSession(e.ctx, f))
	is("cmd/w1")
	// The empty name is no index, but the empty incarnation has one.
	e.ok(e.s.Update(e.ctx, state.Fleet, []state.Write{put(state.KindFleet, "1", "x"), put(state.KindFleet, "2", "x", index(state.CommandIndex("")))}))
	is("")
	is(state.CommandIndex(""), "FLEET F#2")
}

func testIndexPaging(e *env) {
	var want []string
	e.ok(e.s.Update(e.ctx, state.Fleet, []state.Write{put(state.KindFleet, "f", "x", index("i"))}))
	want = append(want, "FLEET F#f")
	for _, name := range []string{"a", "a-b", "a1", "b"} {
		f := e.owned(name)
		e.commit(f, put(state.KindOutbox, "1", "x", index("i")), put(state.KindCommand, "2", "x", index("i")), put(state.KindCommand, "10", "x", index("i")))
		want = append(want, "S/"+name+" CMD#10", "S/"+name+" CMD#2", "S/"+name+" OB#1")
	}
	e.soon("the index", func() any { return indexed(e, "i") }, want)
}
