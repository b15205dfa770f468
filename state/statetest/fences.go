package statetest

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/holdfast-wa/holdfast/state"
)

func testTokens(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	once := []state.Write{put(state.KindStatus, "", "one", rev(1), when(state.Absent()))}
	e.ok(e.s.Commit(e.ctx, f, "t1", once))
	// The condition would fail now, so the commit cannot have happened again.
	e.ok(e.s.Commit(e.ctx, f, "t1", once))
	e.commit(f, put(state.KindStatus, "", "two", rev(2)))
	e.ok(e.s.Commit(e.ctx, f, "t1", once))
	e.same("the later value", e.value(p, state.KindStatus, ""), "two")
	// Another token, or none, is another commit.
	e.fails(e.s.Commit(e.ctx, f, "t2", once), state.ErrConflict)
	e.fails(e.s.Commit(e.ctx, f, "", once), state.ErrConflict)
	// Tokens of different sessions do not meet.
	g := e.owned("b")
	e.ok(e.s.Commit(e.ctx, g, "t1", once))
	e.same("b", e.value(state.OfSession("b"), state.KindStatus, ""), "one")
	// A commit that did happen is not fenced afterwards.
	e.claimed("a", "w2")
	e.ok(e.s.Commit(e.ctx, f, "t1", once))
	e.fails(e.s.Commit(e.ctx, f, "t3", once), state.ErrFenced)
	e.same("the later value", e.value(p, state.KindStatus, ""), "two")
}

func testTokenOfFailure(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	w := []state.Write{put(state.KindStatus, "", "new", when(state.Exists()))}
	e.fails(e.s.Commit(e.ctx, f, "t", w), state.ErrConflict)
	e.commit(f, put(state.KindStatus, "", "old"))
	e.ok(e.s.Commit(e.ctx, f, "t", w))
	e.same("value", e.value(p, state.KindStatus, ""), "new")
}

func testFence(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	e.commit(f, put(state.KindStatus, "", "mine"))
	e.join("w3")
	next := f
	next.Epoch++
	last := f
	last.Epoch--
	for name, bad := range map[string]state.Fence{
		"another owner":        {Session: "a", Owner: "w2", Epoch: f.Epoch},
		"no owner":             {Session: "a", Epoch: f.Epoch},
		"an epoch to come":     next,
		"an epoch gone by":     last,
		"no such session":      {Session: "b", Owner: "w1", Epoch: f.Epoch},
		"a session never been": {Session: "b"},
	} {
		for how, err := range map[string]error{
			"Commit":        e.s.Commit(e.ctx, bad, "", []state.Write{put(state.KindStatus, "", "theirs")}),
			"Release":       e.s.Release(e.ctx, bad),
			"RemoveSession": e.s.RemoveSession(e.ctx, bad),
		} {
			if !errors.Is(err, state.ErrFenced) {
				e.Errorf("%s by %s: %v, want fenced", how, name, err)
			}
		}
		if _, err := e.s.Claim(e.ctx, "w3", state.Owner{Session: bad.Session, Incarnation: bad.Owner, Epoch: bad.Epoch}); !errors.Is(err, state.ErrFenced) {
			e.Errorf("Claim from %s: %v, want fenced", name, err)
		}
		if _, err := e.s.HandOver(e.ctx, bad, "w3"); !errors.Is(err, state.ErrFenced) {
			e.Errorf("HandOver by %s: %v, want fenced", name, err)
		}
	}
	e.same("value", e.value(p, state.KindStatus, ""), "mine")

	// The fence is looked at before the conditions, and after the bounds.
	g := e.claimed("a", "w2")
	e.fails(e.s.Commit(e.ctx, f, "", []state.Write{put(state.KindStatus, "", "x", when(state.Absent()))}), state.ErrFenced)
	e.ok(e.s.Release(e.ctx, g))
	e.fails(e.s.Commit(e.ctx, g, "", []state.Write{put(state.KindStatus, "", "x")}), state.ErrFenced)
	e.same("value", e.value(p, state.KindStatus, ""), "mine")
}

func testEmptyCommit(e *env) {
	f := e.owned("a")
	e.commit(f)
	e.claimed("a", "w2")
	e.fails(e.s.Commit(e.ctx, f, "", nil), state.ErrFenced)
}

func testUpdate(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	before, err := e.s.Owner(e.ctx, "a")
	e.ok(err)
	e.ok(e.s.Update(e.ctx, p, []state.Write{put(state.KindSpec, "", "one", rev(1), when(state.Absent())), put(state.KindCommand, "c", "x", index("cmd/w1"))}))
	e.ok(e.s.Update(e.ctx, p, []state.Write{put(state.KindSpec, "", "two", rev(2), when(state.AtRev(1)))}))
	e.fails(e.s.Update(e.ctx, p, []state.Write{put(state.KindSpec, "", "three", rev(2), when(state.AtRev(1))), put(state.KindCommand, "d", "x")}), state.ErrConflict)
	e.absent(p, state.KindCommand, "d")
	e.same("value", e.value(p, state.KindSpec, ""), "two")
	after, err := e.s.Owner(e.ctx, "a")
	e.ok(err)
	e.same("the owner", after, before)
	e.commit(f, put(state.KindStatus, "", "x"))

	for _, kind := range []state.Kind{state.KindSignal, state.KindDevice, state.KindPreKey, state.KindSenderKey, state.KindLID} {
		if err := e.s.Update(e.ctx, p, []state.Write{put(kind, "1", "x")}); err == nil {
			e.Errorf("Update wrote device state (%s)", kind)
		}
		if err := e.s.CreateSession(e.ctx, "other", []state.Write{put(kind, "1", "x")}); err == nil {
			e.Errorf("CreateSession wrote device state (%s)", kind)
		}
		e.absent(p, kind, "1")
	}
	e.fails(e.s.Update(e.ctx, state.OfSession("none"), []state.Write{put(state.KindSpec, "", "x")}), state.ErrNotFound)
	e.absent(state.OfSession("none"), state.KindSpec, "")
	if err := e.s.Update(e.ctx, "elsewhere", []state.Write{put(state.KindSpec, "", "x")}); err == nil {
		e.Error("Update wrote into a partition that is neither a session's nor the fleet's")
	}
}

func testFleet(e *env) {
	e.ok(e.s.Update(e.ctx, state.Fleet, []state.Write{put(state.KindFleet, "WAVERSION", "1.2", rev(1), when(state.Absent()))}))
	e.same("value", e.value(state.Fleet, state.KindFleet, "WAVERSION"), "1.2")
	e.fails(e.s.Update(e.ctx, state.Fleet, []state.Write{put(state.KindFleet, "WAVERSION", "1.3", when(state.Absent()))}), state.ErrConflict)
	e.ok(e.s.Update(e.ctx, state.Fleet, []state.Write{state.Del(state.KindFleet, "WAVERSION")}))
	e.absent(state.Fleet, state.KindFleet, "WAVERSION")
}

func testCreate(e *env) {
	p := state.OfSession("a")
	_, err := e.s.Owner(e.ctx, "a")
	e.fails(err, state.ErrNotFound)
	first := []state.Write{put(state.KindSpec, "", "spec", rev(1)), put(state.KindCommand, "1", "x", index(state.CommandIndex("")))}
	e.ok(e.s.CreateSession(e.ctx, "a", first))
	e.same("value", e.value(p, state.KindSpec, ""), "spec")
	o, err := e.s.Owner(e.ctx, "a")
	e.ok(err)
	e.same("owner", o.Incarnation, "")
	e.fails(e.s.CreateSession(e.ctx, "a", []state.Write{put(state.KindSpec, "", "other"), put(state.KindStatus, "", "x")}), state.ErrExists)
	e.same("value", e.value(p, state.KindSpec, ""), "spec")
	e.absent(p, state.KindStatus, "")
	for _, bad := range []string{"", "A", "4917612345678", "a/b", "../x", "a b", "-a"} {
		e.fails(e.s.CreateSession(e.ctx, bad, nil), state.ErrName)
	}
}

func testUnownedFence(e *env) {
	e.ok(e.s.CreateSession(e.ctx, "a", nil))
	o, err := e.s.Owner(e.ctx, "a")
	e.ok(err)
	// This is how credentials are destroyed while no worker is alive.
	e.commit(o.Fence(), put(state.KindMeta, "", "x"))
	e.claimed("a", "w1")
	e.fails(e.s.Commit(e.ctx, o.Fence(), "", []state.Write{put(state.KindMeta, "", "y")}), state.ErrFenced)
}

func testEpochs(e *env) {
	e.join("w1", "w2")
	var last uint64
	grown := func(what string) state.Owner {
		e.Helper()
		o, err := e.s.Owner(e.ctx, "a")
		e.ok(err)
		if o.Epoch <= last {
			e.Fatalf("after %s the epoch is %d; it was %d", what, o.Epoch, last)
		}
		last = o.Epoch
		return o
	}
	for range 3 {
		e.ok(e.s.CreateSession(e.ctx, "a", nil))
		o := grown("a creation")
		claimed := e.claim("w1", o)
		e.same("the claimed epoch", claimed.Epoch, o.Epoch+1)
		e.same("the owner after a claim", grown("a claim"), claimed)
		again := e.claim("w1", claimed)
		e.same("the owner after a claim by itself", grown("a claim by itself"), again)
		given, err := e.s.HandOver(e.ctx, again.Fence(), "w2")
		e.ok(err)
		e.same("the owner after a hand-over", grown("a hand-over"), given)
		if _, err := e.s.Claim(e.ctx, "", given); err == nil {
			e.Error("nobody claimed a session")
		}
		if _, err := e.s.HandOver(e.ctx, given.Fence(), ""); err == nil {
			e.Error("a session was handed over to nobody")
		}
		e.ok(e.s.Release(e.ctx, given.Fence()))
		released := grown("a release")
		e.same("the owner after a release", released.Incarnation, "")
		e.ok(e.s.RemoveSession(e.ctx, released.Fence()))
	}
}

func testRemove(e *env) {
	f := e.owned("a")
	other := e.owned("ab")
	p := state.OfSession("a")
	e.commit(f, put(state.KindSignal, "1", "x"), put(state.KindStatus, "", "x"), put(state.KindCommand, "1", "x", index("i")))
	e.commit(other, put(state.KindSignal, "1", "x"))
	e.ok(e.s.RemoveSession(e.ctx, f))
	_, err := e.s.Owner(e.ctx, "a")
	e.fails(err, state.ErrNotFound)
	e.absent(p, state.KindSignal, "1")
	e.absent(p, state.KindStatus, "")
	e.fails(e.s.Update(e.ctx, p, []state.Write{put(state.KindSpec, "", "x")}), state.ErrNotFound)
	tombstone := state.Fence{Session: "a", Epoch: f.Epoch + 1}
	for name, late := range map[string]state.Fence{"the last owner": f, "nobody": tombstone} {
		for how, err := range map[string]error{
			"Commit":        e.s.Commit(e.ctx, late, "", []state.Write{put(state.KindSignal, "1", "late")}),
			"Release":       e.s.Release(e.ctx, late),
			"RemoveSession": e.s.RemoveSession(e.ctx, late),
		} {
			if !errors.Is(err, state.ErrFenced) {
				e.Errorf("%s of a removed session by %s: %v, want fenced", how, name, err)
			}
		}
	}
	e.ok(e.s.CreateSession(e.ctx, "a", nil))
	e.fails(e.s.Commit(e.ctx, f, "", []state.Write{put(state.KindSignal, "1", "late")}), state.ErrFenced)
	e.same("records of the successor", e.all(p, state.Query{Kind: state.KindSignal}), []string{})
	g := e.claimed("a", "w1")
	if g.Epoch <= f.Epoch {
		e.Errorf("the successor's epoch is %d, that of the one before was %d", g.Epoch, f.Epoch)
	}
	e.fails(e.s.Commit(e.ctx, f, "", []state.Write{put(state.KindSignal, "1", "late")}), state.ErrFenced)
	e.same("the neighbour", e.value(state.OfSession("ab"), state.KindSignal, "1"), "x")
}

func testListing(e *env) {
	list := func(get func(after string, limit int) ([]state.Owner, error)) func() any {
		return func() any {
			e.Helper()
			out := []string{}
			after := ""
			for {
				page, err := get(after, 2)
				e.ok(err)
				if len(page) > 2 {
					e.Fatalf("%d owners, at most 2 were asked for", len(page))
				}
				for _, o := range page {
					out = append(out, o.Session+" "+o.Incarnation+" "+strconv.FormatUint(o.Epoch, 10))
				}
				if len(page) == 0 {
					return out
				}
				after = page[len(page)-1].Session
			}
		}
	}
	all := list(func(after string, limit int) ([]state.Owner, error) { return e.s.Sessions(e.ctx, after, limit) })
	by := func(incarnation string) func() any {
		return list(func(after string, limit int) ([]state.Owner, error) {
			return e.s.OwnedBy(e.ctx, incarnation, after, limit)
		})
	}
	e.same("sessions", all(), []string{})
	names := []string{"a", "a-1", "a1", "a_1", "b", "c"}
	for _, name := range slices.Backward(names) {
		e.ok(e.s.CreateSession(e.ctx, name, nil))
	}
	row := func(name string) string {
		e.Helper()
		o, err := e.s.Owner(e.ctx, name)
		e.ok(err)
		return o.Session + " " + o.Incarnation + " " + strconv.FormatUint(o.Epoch, 10)
	}
	rows := func(names ...string) []string {
		out := []string{}
		for _, name := range names {
			out = append(out, row(name))
		}
		return out
	}
	e.same("sessions", all(), rows(names...))
	e.soon("unowned", by(""), rows(names...))
	fa, fb := e.claimed("a", "w1"), e.claimed("b", "w1")
	e.claimed("c", "w2")
	e.soon("those of w1", by("w1"), rows("a", "b"))
	e.soon("those of w2", by("w2"), rows("c"))
	e.soon("unowned", by(""), rows("a-1", "a1", "a_1"))
	e.ok(e.s.Release(e.ctx, fa))
	e.ok(e.s.RemoveSession(e.ctx, fb))
	e.soon("those of w1", by("w1"), []string{})
	e.soon("unowned", by(""), rows("a", "a-1", "a1", "a_1"))
	e.same("sessions", all(), rows("a", "a-1", "a1", "a_1", "c"))
	got, err := e.s.Sessions(e.ctx, "", 0)
	e.ok(err)
	e.same("sessions without a limit", len(got), 5)
}

func testCancelled(e *env) {
	f := e.owned("a")
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	p := state.OfSession("a")
	_, getErr := e.s.Get(ctx, p, state.Key{Kind: state.KindSpec})
	_, queryErr := e.s.Query(ctx, p, state.Query{Kind: state.KindSpec})
	for how, err := range map[string]error{
		"Get":    getErr,
		"Query":  queryErr,
		"Commit": e.s.Commit(ctx, f, "", []state.Write{put(state.KindStatus, "", "x")}),
		"Update": e.s.Update(ctx, p, []state.Write{put(state.KindSpec, "", "x")}),
	} {
		if !errors.Is(err, context.Canceled) || !errors.Is(err, state.ErrUnavailable) {
			e.Errorf("%s: %v, want it to be both cancelled and unavailable", how, err)
		}
	}
	e.ok(e.s.Ping(e.ctx))
	e.commit(f, put(state.KindStatus, "", "y"))
}

func testClosed(e *env) {
	f := e.owned("a")
	e.ok(e.s.Close())
	_, err := e.s.Get(e.ctx, state.OfSession("a"), state.Key{Kind: state.KindSpec})
	e.fails(err, state.ErrUnavailable)
	e.fails(e.s.Commit(e.ctx, f, "", nil), state.ErrUnavailable)
	e.fails(e.s.Ping(e.ctx), state.ErrUnavailable)
	e.ok(e.s.Close())
}
