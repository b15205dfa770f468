package statetest

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"

	"github.com/holdfast-wa/holdfast/state"
)

func testClaimRace(e *env) {
	e.ok(e.s.CreateSession(e.ctx, "a", nil))
	for i := range 8 {
		e.join(fmt.Sprintf("w%d", i))
	}
	for range 20 {
		from, err := e.s.Owner(e.ctx, "a")
		e.ok(err)
		var mu sync.Mutex
		var won []state.Owner
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				o, err := e.s.Claim(e.ctx, fmt.Sprintf("w%d", i), from)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, o...)
				} else if !errors.Is(err, state.ErrFenced) {
					e.Errorf("a lost claim: %v", err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			e.Fatalf("%d claims were granted: %v", len(won), won)
		}
		now, err := e.s.Owner(e.ctx, "a")
		e.ok(err)
		e.same("the owner", now, won[0])
	}
}

// testCommitRace has several goroutines commit under one fence while the
// session is claimed away. Each commit is one of a pair of records; what was
// granted must be there, what was not must not, and nothing is granted after
// the claim.
func testCommitRace(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	for round := range 5 {
		var mu sync.Mutex
		granted := map[string]bool{}
		var wg sync.WaitGroup
		started := make(chan struct{}, 4)
		for g := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					id := fmt.Sprintf("%d-%d-%d", round, g, i)
					err := e.s.Commit(e.ctx, f, "", []state.Write{put(state.KindSignal, id, "x"), put(state.KindSenderKey, id, "x")})
					if i == 3 {
						started <- struct{}{}
					}
					if errors.Is(err, state.ErrFenced) {
						return
					}
					if err != nil {
						e.Errorf("a commit: %v", err)
						return
					}
					mu.Lock()
					granted[id] = true
					mu.Unlock()
					runtime.Gosched() // a store in memory is too fast for the claim otherwise
				}
			})
		}
		for range 4 {
			<-started
		}
		next := fmt.Sprint("next-", round)
		e.join(next)
		o := e.claim(next, state.Owner{Session: "a", Incarnation: f.Owner, Epoch: f.Epoch})
		page := func() []string {
			const most = 100_000 // at once, where the store can: the pages are not what is tested here
			return slices.Concat(e.all(p, state.Query{Kind: state.KindSignal, Limit: most}), e.all(p, state.Query{Kind: state.KindSenderKey, Limit: most}))
		}
		atClaim := page()
		wg.Wait()
		stored := page()
		e.same("records after the claim", len(stored), len(atClaim))
		here := 0
		count := map[string]int{}
		for _, id := range stored {
			if count[id]++; count[id] == 1 && granted[id] {
				here++
			}
		}
		e.same("granted commits that are there", here, len(granted))
		for id, n := range count {
			if n != 2 {
				e.Fatalf("half of commit %s is there", id)
			}
		}
		for _, id := range stored {
			if granted[id] {
				continue
			}
			if n := fmt.Sprintf("%d-", round); len(id) > len(n) && id[:len(n)] == n {
				e.Fatalf("commit %s was refused and is there", id)
			}
		}
		f = o.Fence()
	}
}

func testCounterRace(e *env) {
	e.owned("a")
	p := state.OfSession("a")
	key := state.Key{Kind: state.KindSpec}
	e.ok(e.s.Update(e.ctx, p, []state.Write{put(state.KindSpec, "", "0", rev(0))}))
	const writers, each = 4, 10
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				r, err := e.s.Get(e.ctx, p, key)
				if err != nil {
					e.Errorf("reading: %v", err)
					return
				}
				n, err := strconv.Atoi(string(r.Value))
				if err != nil {
					e.Errorf("value %q", r.Value)
					return
				}
				err = e.s.Update(e.ctx, p, []state.Write{put(state.KindSpec, "", strconv.Itoa(n+1), rev(r.Rev+1), when(state.AtRev(r.Rev)))})
				if err == nil {
					done++
				} else if !errors.Is(err, state.ErrConflict) {
					e.Errorf("writing: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	e.same("the counter", e.value(p, state.KindSpec, ""), strconv.Itoa(writers*each))
}

// testSnapshot reads while commits of two records with one number go on.
func testSnapshot(e *env) {
	f := e.owned("a")
	p := state.OfSession("a")
	both := func(n int) []state.Write {
		return []state.Write{put(state.KindSignal, "1", strconv.Itoa(n)), put(state.KindSignal, "2", strconv.Itoa(n))}
	}
	e.commit(f, both(0)...)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			default:
				if err := e.s.Commit(e.ctx, f, "", both(n)); err != nil {
					e.Errorf("a commit: %v", err)
					return
				}
			}
		}
	})
	last := 0
	for range 100 {
		page, err := e.s.Query(e.ctx, p, state.Query{Kind: state.KindSignal})
		if err != nil {
			e.Errorf("a query: %v", err)
			break
		}
		one, two := string(page.Records[0].Value), string(page.Records[1].Value)
		n, _ := strconv.Atoi(one)
		if one != two || n < last {
			e.Errorf("read %s and %s, and before that %d", one, two, last)
			break
		}
		last = n
	}
	close(stop)
	wg.Wait()
}
