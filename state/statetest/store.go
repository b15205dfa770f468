// Package statetest is what the contracts of package state mean in detail: the
// suite that every store and every vault passes, and stores to test others
// with, that are late (Delay), fail (Fault) or count (Counting).
package statetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Store runs the suite for stores. open makes an empty store that is closed
// when its test ends; it is called once for each test.
func Store(t *testing.T, open func(t *testing.T) state.Store) {
	for name, test := range map[string]func(*env){
		"a record is read as it was written":                testRoundTrip,
		"values are not shared with the caller":             testNoAliasing,
		"a write replaces the whole record":                 testReplace,
		"ids may hold any character":                        testOddIDs,
		"kinds and partitions are apart":                    testApart,
		"many records are read at once":                     testGetMany,
		"conditions":                                        testConditions,
		"a batch applies whole or not at all":               testAtomic,
		"bounds are kept":                                   testBounds,
		"malformed batches are refused":                     testMalformed,
		"an expired record is absent":                       testExpiry,
		"queries page upwards":                              testQueryAscending,
		"queries page downwards":                            testQueryDescending,
		"queries by prefix":                                 testQueryPrefix,
		"a query has a bound of its own":                    testQueryDefaultLimit,
		"an index follows its records":                      testIndex,
		"an index is paged in order":                        testIndexPaging,
		"a token makes a commit idempotent":                 testTokens,
		"a token of a failed commit is not used up":         testTokenOfFailure,
		"a fence holds for its owner and epoch alone":       testFence,
		"an empty commit tells whether the fence holds":     testEmptyCommit,
		"updates leave the owner alone":                     testUpdate,
		"fleet records":                                     testFleet,
		"sessions are created once":                         testCreate,
		"an unowned session is written under its own fence": testUnownedFence,
		"epochs grow and are never reset":                   testEpochs,
		"a removed session leaves nothing behind":           testRemove,
		"owners are listed":                                 testListing,
		"members join and beat":                             testJoin,
		"the roster is in order and has a revision":         testRoster,
		"a look at heartbeats":                              testWatch,
		"who stands still is declared dead":                 testDeclareDead,
		"who was stopped is declared dead":                  testDeclareStopped,
		"a wish to drain":                                   testDrain,
		"the dead are forgotten":                            testForget,
		"members and a caller that gave up":                 testMembersCancelled,
		"several sessions are claimed or none":              testClaims,
		"malformed claims are refused":                      testClaimBounds,
		"the dead claim nothing":                            testClaimByTheDead,
		"an owner hands over":                               testHandOver,
		"deaths race heartbeats":                            testDeathRace,
		"joins race":                                        testJoinRace,
		"several take over from one":                        testTakeoverRace,
		"a hand-over races claims":                          testHandOverRace,
		"claims race a death":                               testClaimDeathRace,
		"a session has one claimant":                        testClaimRace,
		"commits race a claim":                              testCommitRace,
		"conditional updates lose nothing":                  testCounterRace,
		"reads see whole commits":                           testSnapshot,
		"a cancelled context is an error":                   testCancelled,
		"a closed store says so":                            testClosed,
	} {
		t.Run(name, func(t *testing.T) {
			test(&env{t, t.Context(), open(t)})
		})
	}
}

// env is one test's.
type env struct {
	*testing.T
	ctx context.Context
	s   state.Store
}

// owned makes a session that w1 owns.
func (e *env) owned(name string) state.Fence {
	e.Helper()
	e.ok(e.s.CreateSession(e.ctx, name, nil))
	return e.claimed(name, "w1")
}

func (e *env) claimed(name, by string) state.Fence {
	e.Helper()
	o, err := Take(e.ctx, e.s, name, by)
	e.ok(err)
	return o.Fence()
}

// join makes incarnations known.
func (e *env) join(incarnations ...string) {
	e.Helper()
	for _, id := range incarnations {
		_, err := e.s.Join(e.ctx, id, state.MemberInfo{})
		e.ok(err)
	}
}

// claim claims one session, which must be granted.
func (e *env) claim(to string, from state.Owner) state.Owner {
	e.Helper()
	got, err := e.s.Claim(e.ctx, to, from)
	e.ok(err)
	if len(got) != 1 {
		e.Fatalf("one session was claimed, %d owners were returned", len(got))
	}
	return got[0]
}

func (e *env) commit(f state.Fence, writes ...state.Write) {
	e.Helper()
	e.ok(e.s.Commit(e.ctx, f, "", writes))
}

func (e *env) ok(err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("failed: %v", err)
	}
}

func (e *env) fails(err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Fatalf("error is %v, want one that is %q", err, want)
	}
}

// value is a record's value; it must be there.
func (e *env) value(p state.Partition, kind state.Kind, id string) string {
	e.Helper()
	r, err := e.s.Get(e.ctx, p, state.Key{Kind: kind, ID: id})
	e.ok(err)
	return string(r.Value)
}

func (e *env) absent(p state.Partition, kind state.Kind, id string) {
	e.Helper()
	_, err := e.s.Get(e.ctx, p, state.Key{Kind: kind, ID: id})
	e.fails(err, state.ErrNotFound)
}

func (e *env) same(what string, got, want any) {
	e.Helper()
	if g, w := fmt.Sprintf("%v", got), fmt.Sprintf("%v", want); g != w {
		e.Fatalf("%s: %s, want %s", what, g, w)
	}
}

// all reads a query to its end, page by page.
func (e *env) all(p state.Partition, q state.Query) []string {
	e.Helper()
	ids := []string{}
	for {
		page, err := e.s.Query(e.ctx, p, q)
		e.ok(err)
		for _, r := range page.Records {
			ids = append(ids, r.Key.ID)
		}
		if !page.More {
			return ids
		}
		if len(page.Records) == 0 {
			e.Fatal("an empty page says that there is more")
		}
		q.After = page.Records[len(page.Records)-1].Key.ID
	}
}

// soon waits for what may lag behind by a second.
func (e *env) soon(what string, got func() any, want any) {
	e.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	w := fmt.Sprintf("%v", want)
	var g string
	for range 100 {
		if g = fmt.Sprintf("%v", got()); g == w {
			return
		}
		<-tick.C
	}
	e.Fatalf("%s: %s, want %s", what, g, w)
}

// put is a write with everything that a record can have.
func put(kind state.Kind, id, value string, with ...func(*state.Write)) state.Write {
	w := state.Put(kind, id, []byte(value))
	for _, f := range with {
		f(&w)
	}
	return w
}

func rev(n uint64) func(*state.Write)         { return func(w *state.Write) { w.Rev = n } }
func index(name string) func(*state.Write)    { return func(w *state.Write) { w.Index = name } }
func expires(at time.Time) func(*state.Write) { return func(w *state.Write) { w.Expires = at } }
func when(c state.Condition) func(*state.Write) {
	return func(w *state.Write) { w.If = c }
}

func keys(records []state.Record) []string {
	out := []string{}
	for _, r := range records {
		out = append(out, r.Key.String())
	}
	slices.Sort(out)
	return out
}
