package statetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// member is a member as the roster has it; it must be there.
func (e *env) member(incarnation string) state.Member {
	e.Helper()
	r, err := e.s.Roster(e.ctx)
	e.ok(err)
	for _, m := range r.Members {
		if m.Incarnation == incarnation {
			return m
		}
	}
	e.Fatalf("%s is not in the roster", incarnation)
	return state.Member{}
}

// revision is the roster's.
func (e *env) revision() uint64 {
	e.Helper()
	r, err := e.s.Roster(e.ctx)
	e.ok(err)
	return r.Revision
}

// pulse is what a look finds, in words.
func (e *env) pulse(incarnations ...string) func() any {
	return func() any {
		e.Helper()
		p, err := e.s.Watch(e.ctx, incarnations)
		e.ok(err)
		out := []string{fmt.Sprint("revision ", p.Revision)}
		for _, id := range incarnations {
			if b, ok := p.Beats[id]; ok {
				out = append(out, fmt.Sprintf("%s %d %v %+v", id, b.Count, b.Dead, b.Load))
			}
		}
		if len(p.Beats) != len(out)-1 {
			e.Fatalf("%d were asked for and found, the answer has %d", len(out)-1, len(p.Beats))
		}
		return out
	}
}

func (e *env) owner(session string) state.Owner {
	e.Helper()
	o, err := e.s.Owner(e.ctx, session)
	e.ok(err)
	return o
}

// never tries all that the dead can never do again.
func (e *env) never(dead string, free state.Owner, owned state.Fence) {
	e.Helper()
	_, claimErr := e.s.Claim(e.ctx, dead, free)
	_, giveErr := e.s.HandOver(e.ctx, owned, dead)
	for how, err := range map[string]error{
		"beats":                  e.s.Beat(e.ctx, dead, state.Load{}),
		"claims":                 claimErr,
		"is handed something":    giveErr,
		"raises its own epoch":   e.raise(dead),
		"claims with one it has": e.both(dead, free),
	} {
		if !errors.Is(err, state.ErrDead) {
			e.Errorf("%s, which is dead, %s: %v", dead, how, err)
		}
	}
	e.same("the free session's owner", e.owner(free.Session), free)
	e.same("the owned session's owner", e.owner(owned.Session).Fence(), owned)
}

// raise has an incarnation claim what it owns, if it owns something.
func (e *env) raise(incarnation string) error {
	e.Helper()
	var own []state.Owner
	all, err := e.s.Sessions(e.ctx, "", 0)
	e.ok(err)
	for _, o := range all {
		if o.Incarnation == incarnation {
			own = append(own, o)
		}
	}
	if len(own) == 0 {
		return state.ErrDead
	}
	_, err = e.s.Claim(e.ctx, incarnation, own...)
	return err
}

// both claims a session together with one that does not exist.
func (e *env) both(incarnation string, o state.Owner) error {
	_, err := e.s.Claim(e.ctx, incarnation, o, state.Owner{Session: "none", Epoch: 7})
	return err
}

// testJoin is about what is remembered of members.
func testJoin(e *env) {
	r, err := e.s.Roster(e.ctx)
	e.ok(err)
	e.same("the first members", len(r.Members), 0)
	info := state.MemberInfo{Deployment: "d-2", Task: "arn:aws:ecs:eu-central-1:1:task/c/ä", Host: "h1", Version: "v1.2.3", Format: 3, Capacity: 500,
		Since: time.Date(2026, 7, 1, 10, 20, 30, 456_000_000, time.UTC), Tool: true}
	got, err := e.s.Join(e.ctx, "w-1", info)
	e.ok(err)
	e.same("who joins", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", state.Member{Incarnation: "w-1", Joined: got.Joined, Beats: 1, Info: info}))
	if got.Joined == 0 {
		e.Error("the first is number 0")
	}
	e.same("the member", fmt.Sprintf("%+v", e.member("w-1")), fmt.Sprintf("%+v", got))
	_, err = e.s.Join(e.ctx, "w-1", state.MemberInfo{})
	e.fails(err, state.ErrExists)
	e.same("the member after another join of its name", fmt.Sprintf("%+v", e.member("w-1")), fmt.Sprintf("%+v", got))

	load := state.Load{Sessions: 3, Online: 2, Draining: true, Giving: true, Trust: 7*time.Second + 5*time.Millisecond,
		At: time.Date(2026, 7, 1, 10, 20, 33, 1_000_000, time.UTC)}
	e.ok(e.s.Beat(e.ctx, "w-1", state.Load{Sessions: 1}))
	e.ok(e.s.Beat(e.ctx, "w-1", load))
	got.Beats, got.Load = 3, load
	e.same("the member after beats", fmt.Sprintf("%+v", e.member("w-1")), fmt.Sprintf("%+v", got))
	e.soon("a look", e.pulse("w-1"), []string{fmt.Sprint("revision ", e.revision()), fmt.Sprintf("w-1 3 false %+v", load)})

	longest := strings.Repeat("x", state.MaxIncarnation)
	e.join(longest)
	e.ok(e.s.Beat(e.ctx, longest, state.Load{}))
	before := e.revision()
	for _, bad := range []string{"", longest + "x", "a b", "a/b", "ä", "w#1", "w\x00"} {
		if _, err := e.s.Join(e.ctx, bad, info); err == nil {
			e.Errorf("%q joined", bad)
		}
	}
	e.fails(e.s.Beat(e.ctx, "nobody", load), state.ErrDead)
	e.same("the revision after refused joins", e.revision(), before)
}

// testRoster is about the list's order and its revision.
func testRoster(e *env) {
	list := func() string {
		e.Helper()
		r, err := e.s.Roster(e.ctx)
		e.ok(err)
		var out []string
		var last uint64
		for _, m := range r.Members {
			if m.Joined <= last {
				e.Fatalf("%s is number %d, the one before it %d", m.Incarnation, m.Joined, last)
			}
			last = m.Joined
			out = append(out, fmt.Sprintf("%s %v %v", m.Incarnation, m.Dead, m.Drain))
		}
		return strings.Join(out, ", ")
	}
	e.join("c", "a", "b")
	e.same("members", list(), "c false false, a false false, b false false")
	at := e.revision()
	for _, step := range []struct {
		what  string
		do    func() error
		after string
	}{
		{"a death", func() error { return e.s.DeclareDead(e.ctx, "a", 1) }, "c false false, a true false, b false false"},
		{"a wish to drain", func() error { return e.s.Drain(e.ctx, "c", true) }, "c false true, a true false, b false false"},
		{"its withdrawal", func() error { return e.s.Drain(e.ctx, "c", false) }, "c false false, a true false, b false false"},
		{"a hint", func() error { return e.s.DeclareStopped(e.ctx, "b") }, "c false false, a true false, b true false"},
		{"a removal", func() error { return e.s.Forget(e.ctx, "a") }, "c false false, b true false"},
		{"a join", func() error { _, err := e.s.Join(e.ctx, "0", state.MemberInfo{}); return err }, "c false false, b true false, 0 false false"},
	} {
		e.ok(step.do())
		e.same("members after "+step.what, list(), step.after)
		now := e.revision()
		if now <= at {
			e.Fatalf("%s left the revision at %d; it was %d", step.what, now, at)
		}
		at = now
		for range 3 {
			e.ok(e.s.Beat(e.ctx, "c", state.Load{Sessions: 1}))
		}
		e.same("the revision after heartbeats", e.revision(), at)
		e.soon("the revision in a look", func() any {
			p, err := e.s.Watch(e.ctx, nil)
			e.ok(err)
			return fmt.Sprint(p.Revision, len(p.Beats))
		}, fmt.Sprint(at, 0))
	}
}

// testWatch looks at some of the members.
func testWatch(e *env) {
	e.join("a", "b", "c")
	e.ok(e.s.Beat(e.ctx, "b", state.Load{Sessions: 2}))
	e.ok(e.s.DeclareStopped(e.ctx, "c"))
	none, loaded := state.Load{}, state.Load{Sessions: 2}
	e.soon("a look at all", e.pulse("a", "b", "c", "nobody"), []string{
		fmt.Sprint("revision ", e.revision()),
		fmt.Sprintf("a 1 false %+v", none), fmt.Sprintf("b 2 false %+v", loaded), fmt.Sprintf("c 1 true %+v", none),
	})
	e.soon("a look at one", e.pulse("b"), []string{fmt.Sprint("revision ", e.revision()), fmt.Sprintf("b 2 false %+v", loaded)})
	e.soon("a look at nobody", e.pulse(), []string{fmt.Sprint("revision ", e.revision())})
	e.ok(e.s.Forget(e.ctx, "c"))
	e.soon("a look at one that was forgotten", e.pulse("a", "c"), []string{fmt.Sprint("revision ", e.revision()), fmt.Sprintf("a 1 false %+v", none)})
	// More than fit into one request of a store that has such a bound.
	var many []string
	for i := range 120 {
		many = append(many, fmt.Sprintf("none-%d", i))
	}
	e.soon("a look at many", func() any {
		p, err := e.s.Watch(e.ctx, append(many, "b"))
		e.ok(err)
		return fmt.Sprint(len(p.Beats), p.Beats["b"].Count)
	}, "1 2")
}

// testDeclareDead is about the counter that the observer has seen.
func testDeclareDead(e *env) {
	f := e.owned("a")
	e.join("w2")
	e.ok(e.s.CreateSession(e.ctx, "free", nil))
	e.ok(e.s.Beat(e.ctx, "w1", state.Load{}))
	for _, seen := range []uint64{0, 1, 3, 1 << 40} {
		e.fails(e.s.DeclareDead(e.ctx, "w1", seen), state.ErrConflict)
	}
	e.same("dead", e.member("w1").Dead, false)
	e.ok(e.s.Beat(e.ctx, "w1", state.Load{}))
	e.fails(e.s.DeclareDead(e.ctx, "w1", 2), state.ErrConflict)
	e.commit(f, put(state.KindStatus, "", "alive"))
	e.ok(e.s.DeclareDead(e.ctx, "w1", 3))
	dead := e.member("w1")
	e.same("dead, beats", fmt.Sprint(dead.Dead, dead.Beats), "true 3")
	g := e.claimedBy("w2", "b")
	e.never("w1", e.owner("free"), g)
	// A death that is known already, whatever was seen, and one of nobody.
	at := e.revision()
	e.ok(e.s.DeclareDead(e.ctx, "w1", 3))
	e.ok(e.s.DeclareDead(e.ctx, "w1", 9))
	e.ok(e.s.DeclareDead(e.ctx, "nobody", 1))
	e.ok(e.s.DeclareStopped(e.ctx, "w1"))
	e.same("the revision", e.revision(), at)
	e.fails(e.s.Drain(e.ctx, "w1", true), state.ErrDead)
	_, err := e.s.Join(e.ctx, "w1", state.MemberInfo{})
	e.fails(err, state.ErrExists)

	// Death alone takes nothing away: the fence holds until somebody claims.
	e.same("the owner", e.owner("a").Fence(), f)
	e.commit(f, put(state.KindStatus, "", "late"))
	e.claim("w2", e.owner("a"))
	e.fails(e.s.Commit(e.ctx, f, "", []state.Write{put(state.KindStatus, "", "too late")}), state.ErrFenced)
	e.fails(e.s.Release(e.ctx, f), state.ErrFenced)
	e.same("the value", e.value(state.OfSession("a"), state.KindStatus, ""), "late")
}

// claimedBy makes a session that an incarnation which has joined owns.
func (e *env) claimedBy(incarnation, session string) state.Fence {
	e.Helper()
	e.ok(e.s.CreateSession(e.ctx, session, nil))
	return e.claim(incarnation, e.owner(session)).Fence()
}

func testDeclareStopped(e *env) {
	f := e.owned("a")
	e.join("w2")
	e.ok(e.s.CreateSession(e.ctx, "free", nil))
	e.fails(e.s.DeclareStopped(e.ctx, "nobody"), state.ErrNotFound)
	e.ok(e.s.Beat(e.ctx, "w1", state.Load{}))
	e.ok(e.s.DeclareStopped(e.ctx, "w1"))
	e.same("dead", e.member("w1").Dead, true)
	e.never("w1", e.owner("free"), e.claimedBy("w2", "b"))
	e.ok(e.s.DeclareStopped(e.ctx, "w1"))
	// What it may still do is give up what it has.
	e.ok(e.s.Release(e.ctx, f))
	e.same("w2 is alive", e.member("w2").Dead, false)
}

func testDrain(e *env) {
	e.join("w1", "w2")
	e.fails(e.s.Drain(e.ctx, "nobody", true), state.ErrNotFound)
	e.ok(e.s.Drain(e.ctx, "w1", true))
	e.ok(e.s.Drain(e.ctx, "w1", true))
	e.ok(e.s.Beat(e.ctx, "w1", state.Load{}))
	e.same("the wishes", fmt.Sprint(e.member("w1").Drain, e.member("w2").Drain), "true false")
	// It is a wish, and forbids nothing.
	e.claimedBy("w1", "a")
	e.ok(e.s.Drain(e.ctx, "w1", false))
	e.ok(e.s.Drain(e.ctx, "w2", false))
	e.same("the wishes", fmt.Sprint(e.member("w1").Drain, e.member("w2").Drain), "false false")
	e.ok(e.s.DeclareStopped(e.ctx, "w2"))
	e.fails(e.s.Drain(e.ctx, "w2", true), state.ErrDead)
	e.ok(e.s.Forget(e.ctx, "w2"))
	e.fails(e.s.Drain(e.ctx, "w2", true), state.ErrNotFound)
}

func testForget(e *env) {
	e.owned("a")
	e.join("w2")
	e.ok(e.s.CreateSession(e.ctx, "free", nil))
	e.fails(e.s.Forget(e.ctx, "w1"), state.ErrConflict)
	e.ok(e.s.Beat(e.ctx, "w1", state.Load{}))
	e.ok(e.s.Forget(e.ctx, "nobody"))
	was := e.owner("a")
	e.ok(e.s.DeclareDead(e.ctx, "w1", 2))
	e.ok(e.s.Forget(e.ctx, "w1"))
	e.ok(e.s.Forget(e.ctx, "w1"))
	r, err := e.s.Roster(e.ctx)
	e.ok(err)
	e.same("those who are remembered", len(r.Members), 1)
	// Whom nobody remembers is as dead as before, and its sessions are where they were.
	e.never("w1", e.owner("free"), e.claimedBy("w2", "b"))
	e.ok(e.s.DeclareDead(e.ctx, "w1", 2))
	e.fails(e.s.DeclareStopped(e.ctx, "w1"), state.ErrNotFound)
	e.same("the owner", e.owner("a"), was)
	e.soon("what it owned", func() any {
		owned, err := e.s.OwnedBy(e.ctx, "w1", "", 0)
		e.ok(err)
		return owned
	}, []state.Owner{was})
	e.claim("w2", was)
	// Those who join later get a higher number all the same.
	e.join("w3")
	e.ok(e.s.DeclareStopped(e.ctx, "w3"))
	last := e.member("w3").Joined
	e.ok(e.s.Forget(e.ctx, "w3"))
	e.join("w4")
	if got := e.member("w4").Joined; got <= last {
		e.Errorf("the next one is number %d; %d was there before it", got, last)
	}
}

// testMembersCancelled: a caller that gave up is told that it did.
func testMembersCancelled(e *env) {
	e.owned("a")
	o := e.owner("a")
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	_, joinErr := e.s.Join(ctx, "w2", state.MemberInfo{})
	_, rosterErr := e.s.Roster(ctx)
	_, watchErr := e.s.Watch(ctx, []string{"w1"})
	_, claimErr := e.s.Claim(ctx, "w1", o)
	_, giveErr := e.s.HandOver(ctx, o.Fence(), "w1")
	for how, err := range map[string]error{
		"Join": joinErr, "Roster": rosterErr, "Watch": watchErr, "Claim": claimErr, "HandOver": giveErr,
		"Beat":           e.s.Beat(ctx, "w1", state.Load{}),
		"DeclareDead":    e.s.DeclareDead(ctx, "w1", 1),
		"DeclareStopped": e.s.DeclareStopped(ctx, "w1"),
		"Drain":          e.s.Drain(ctx, "w1", true),
	} {
		if !errors.Is(err, context.Canceled) || !errors.Is(err, state.ErrUnavailable) {
			e.Errorf("%s: %v, want it to be both cancelled and unavailable", how, err)
		}
	}
	m := e.member("w1")
	e.same("the member", fmt.Sprint(m.Beats, m.Dead, m.Drain), "1 false false")
	e.same("the owner", e.owner("a"), o)

	e.ok(e.s.Close())
	_, rosterErr = e.s.Roster(e.ctx)
	_, watchErr = e.s.Watch(e.ctx, []string{"w1"})
	e.fails(rosterErr, state.ErrUnavailable)
	e.fails(watchErr, state.ErrUnavailable)
	e.fails(e.s.Beat(e.ctx, "w1", state.Load{}), state.ErrUnavailable)
}
