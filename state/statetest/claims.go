package statetest

import (
	"errors"
	"fmt"

	"github.com/holdfast-wa/holdfast/state"
)

// sessions makes sessions and returns their owners.
func (e *env) sessions(n int) []state.Owner {
	e.Helper()
	var out []state.Owner
	for i := range n {
		name := fmt.Sprintf("s%02d", i)
		e.ok(e.s.CreateSession(e.ctx, name, nil))
		out = append(out, e.owner(name))
	}
	return out
}

// owners reads the owners of the same sessions.
func (e *env) owners(of []state.Owner) []state.Owner {
	e.Helper()
	out := make([]state.Owner, len(of))
	for i, o := range of {
		out[i] = e.owner(o.Session)
	}
	return out
}

// taken is what a claim of these gives.
func taken(from []state.Owner, to string) []state.Owner {
	out := make([]state.Owner, len(from))
	for i, o := range from {
		out[i] = state.Owner{Session: o.Session, Incarnation: to, Epoch: o.Epoch + 1}
	}
	return out
}

// testClaims claims several sessions at once: all of them or none.
func testClaims(e *env) {
	e.join("w1", "w2", "w3")
	free := e.sessions(state.MaxClaims + 1)
	// As many as may be, in the order in which they were named.
	most := free[:state.MaxClaims]
	got, err := e.s.Claim(e.ctx, "w1", most...)
	e.ok(err)
	e.same("what is claimed", got, taken(most, "w1"))
	e.same("the owners", e.owners(most), got)
	for _, o := range got {
		e.commit(o.Fence(), put(state.KindStatus, "", "w1"))
	}
	e.fails(e.s.Commit(e.ctx, free[0].Fence(), "", []state.Write{put(state.KindStatus, "", "nobody")}), state.ErrFenced)

	// One that is another's spoils all.
	last := free[state.MaxClaims]
	stale := []state.Owner{got[0], got[1], last}
	stale[1].Epoch--
	for name, bad := range map[string][]state.Owner{
		"an old epoch":         stale,
		"another owner":        {got[0], {Session: got[1].Session, Incarnation: "w3", Epoch: got[1].Epoch}},
		"no owner":             {got[0], {Session: got[1].Session, Epoch: got[1].Epoch}},
		"an epoch to come":     {{Session: got[1].Session, Incarnation: "w1", Epoch: got[1].Epoch + 1}, got[0]},
		"a session never been": {last, {Session: "none"}},
		"the old owners":       most,
	} {
		if _, err := e.s.Claim(e.ctx, "w2", bad...); !errors.Is(err, state.ErrFenced) {
			e.Errorf("with %s: %v, want fenced", name, err)
		}
	}
	e.same("the owners after refused claims", e.owners(free), append(append([]state.Owner{}, got...), last))

	// What was removed cannot be claimed, by its last owner or by nobody's name.
	e.ok(e.s.RemoveSession(e.ctx, last.Fence()))
	for _, o := range []state.Owner{last, {Session: last.Session, Epoch: last.Epoch + 1}} {
		_, err := e.s.Claim(e.ctx, "w2", got[0], o)
		e.fails(err, state.ErrFenced)
	}

	// From several owners at once, itself included.
	three := []state.Owner{e.claim("w2", got[2]), got[0], e.claim("w3", got[1])}
	now, err := e.s.Claim(e.ctx, "w3", three...)
	e.ok(err)
	e.same("from several owners", e.owners(three), now)
	e.same("the epochs", now, taken(three, "w3"))
}

// testClaimBounds: what is malformed is refused, and nothing is written.
func testClaimBounds(e *env) {
	e.join("w1")
	free := e.sessions(state.MaxClaims + 1)
	for name, err := range map[string]error{
		"too many":      claimError(e, "w1", free...),
		"none":          claimError(e, "w1"),
		"twice named":   claimError(e, "w1", free[0], free[1], free[0]),
		"nobody claims": claimError(e, "", free[0]),
		"a bad id":      claimError(e, "w 1", free[0]),
	} {
		if err == nil {
			e.Errorf("%s: it was granted", name)
		}
		if errors.Is(err, state.ErrFenced) || errors.Is(err, state.ErrUnavailable) {
			e.Errorf("%s: %v, which says that trying again may help", name, err)
		}
	}
	again := free[0]
	again.Epoch++
	if err := claimError(e, "w1", free[0], again); err == nil {
		e.Error("a session was claimed twice in one claim")
	}
	e.same("the owners", e.owners(free), free)
}

func claimError(e *env, to string, from ...state.Owner) error {
	_, err := e.s.Claim(e.ctx, to, from...)
	return err
}

// testClaimByTheDead: who may not own is told so before it is told of others.
func testClaimByTheDead(e *env) {
	e.join("w1", "w2")
	free := e.sessions(2)
	e.ok(e.s.DeclareStopped(e.ctx, "w2"))
	wrong := free[1]
	wrong.Epoch += 5
	for _, dead := range []string{"w2", "nobody"} {
		e.fails(claimError(e, dead, free[0]), state.ErrDead)
		e.fails(claimError(e, dead, free...), state.ErrDead)
		e.fails(claimError(e, dead, free[0], wrong), state.ErrDead)
	}
	e.same("the owners", e.owners(free), free)
	e.claim("w1", free[0])
}

// testHandOver is the owner's claim for somebody else.
func testHandOver(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	e.join("w2", "w3")
	e.commit(f, put(state.KindStatus, "", "one"))
	given, err := e.s.HandOver(e.ctx, f, "w2")
	e.ok(err)
	e.same("what is given", given, state.Owner{Session: "a", Incarnation: "w2", Epoch: f.Epoch + 1})
	e.same("the owner", e.owner("a"), given)
	// The giver has nothing left, the new owner has all.
	e.fails(e.s.Commit(e.ctx, f, "", []state.Write{put(state.KindStatus, "", "late")}), state.ErrFenced)
	e.fails(e.s.Release(e.ctx, f), state.ErrFenced)
	for _, to := range []string{"w1", "w2", "w3"} {
		_, err := e.s.HandOver(e.ctx, f, to)
		e.fails(err, state.ErrFenced)
	}
	e.commit(given.Fence(), put(state.KindStatus, "", "two"))
	e.same("value", e.value(p, state.KindStatus, ""), "two")
	e.soon("what w2 has", func() any {
		owned, err := e.s.OwnedBy(e.ctx, "w2", "", 0)
		e.ok(err)
		return owned
	}, []state.Owner{given})

	// To the dead and to strangers nothing is given.
	e.ok(e.s.DeclareStopped(e.ctx, "w3"))
	for _, to := range []string{"w3", "nobody"} {
		_, err := e.s.HandOver(e.ctx, given.Fence(), to)
		e.fails(err, state.ErrDead)
		// Who has lost the session hears of that first.
		_, err = e.s.HandOver(e.ctx, f, to)
		e.fails(err, state.ErrFenced)
	}
	for _, to := range []string{"", "w 1"} {
		if _, err := e.s.HandOver(e.ctx, given.Fence(), to); err == nil || errors.Is(err, state.ErrFenced) || errors.Is(err, state.ErrDead) {
			e.Errorf("handed over to %q: %v", to, err)
		}
	}
	e.same("the owner", e.owner("a"), given)
	// To itself it is a higher epoch; the dead may still give away.
	own, err := e.s.HandOver(e.ctx, given.Fence(), "w2")
	e.ok(err)
	e.same("to itself", own, state.Owner{Session: "a", Incarnation: "w2", Epoch: given.Epoch + 1})
	e.ok(e.s.DeclareStopped(e.ctx, "w2"))
	back, err := e.s.HandOver(e.ctx, own.Fence(), "w1")
	e.ok(err)
	e.same("the owner", e.owner("a"), back)
	// An unowned session is handed over by the fence that holds for it.
	e.ok(e.s.Release(e.ctx, back.Fence()))
	if _, err = e.s.HandOver(e.ctx, e.owner("a").Fence(), "w1"); err != nil {
		e.Errorf("of an unowned session: %v", err)
	}
}
