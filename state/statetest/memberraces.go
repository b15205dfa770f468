package statetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/holdfast-wa/holdfast/state"
)

// testDeathRace has several observers declare a worker dead while it beats.
// Each says the counter that it read; the worker stops after a while. There is
// one outcome: it is dead at a counter that was its own, and no beat that began
// after any observer heard of the death is granted.
func testDeathRace(e *env) {
	for round := range 5 {
		victim := fmt.Sprint("w", round)
		e.join(victim)
		var dead atomic.Bool
		var granted atomic.Uint64
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 40 {
				late := dead.Load()
				err := e.s.Beat(e.ctx, victim, state.Load{})
				switch {
				case errors.Is(err, state.ErrDead):
					return
				case err != nil:
					e.Errorf("a beat: %v", err)
					return
				case late:
					e.Error("a beat was granted after the death")
					return
				}
				granted.Add(1)
			}
		})
		for range 4 {
			wg.Go(func() {
				for {
					p, err := e.s.Watch(e.ctx, []string{victim})
					if err != nil {
						e.Errorf("a look: %v", err)
						return
					}
					err = e.s.DeclareDead(e.ctx, victim, p.Beats[victim].Count)
					if err == nil {
						dead.Store(true)
						return
					}
					if !errors.Is(err, state.ErrConflict) {
						e.Errorf("a declaration: %v", err)
						return
					}
				}
			})
		}
		wg.Wait()
		m := e.member(victim)
		e.same("dead, and its beats", fmt.Sprint(m.Dead, m.Beats), fmt.Sprint(true, 1+granted.Load()))
		e.fails(e.s.Beat(e.ctx, victim, state.Load{}), state.ErrDead)
	}
}

// testJoinRace: each who joins has a number of its own, and a name joins once.
func testJoinRace(e *env) {
	const workers = 8
	numbers := make([]uint64, workers)
	var same atomic.Int32
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			m, err := e.s.Join(e.ctx, fmt.Sprint("w", i), state.MemberInfo{})
			if err != nil {
				e.Errorf("a join: %v", err)
				return
			}
			numbers[i] = m.Joined
			switch _, err = e.s.Join(e.ctx, "same", state.MemberInfo{}); {
			case err == nil:
				same.Add(1)
			case !errors.Is(err, state.ErrExists):
				e.Errorf("a join by the same name: %v", err)
			}
		})
	}
	wg.Wait()
	e.same("joins by one name", same.Load(), 1)
	seen := map[uint64]bool{}
	for i, n := range numbers {
		if seen[n] {
			e.Errorf("number %d was given twice", n)
		}
		seen[n] = true
		e.same("its number in the roster", e.member(fmt.Sprint("w", i)).Joined, n)
	}
}

// testTakeoverRace has several workers take what a dead one leaves, in batches
// that overlap: each session is granted once, and no claim is granted in part.
func testTakeoverRace(e *env) {
	const sessions, workers = 40, 4
	e.join("w0")
	left := e.sessions(sessions)
	for i, o := range left {
		left[i] = e.claim("w0", o)
	}
	e.ok(e.s.DeclareStopped(e.ctx, "w0"))
	var mu sync.Mutex
	granted := map[string]state.Owner{}
	var wg sync.WaitGroup
	for i := range workers {
		self := fmt.Sprint("w", i+1)
		e.join(self)
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 0)) // the order matters to the schedule only
			want := make([]state.Owner, 0, sessions)
			for _, n := range random.Perm(sessions) {
				want = append(want, left[n])
			}
			size := 2 + random.IntN(6)
			for len(want) > 0 {
				batch := want[:min(size, len(want))]
				got, err := e.s.Claim(e.ctx, self, batch...)
				switch {
				case err == nil:
					mu.Lock()
					for k, o := range got {
						if other, twice := granted[o.Session]; twice {
							e.Errorf("%s was granted to %s and to %s", o.Session, other.Incarnation, self)
						}
						if o != taken(batch, self)[k] {
							e.Errorf("granted %v of %v", o, batch[k])
						}
						granted[o.Session] = o
					}
					mu.Unlock()
				case !errors.Is(err, state.ErrFenced):
					e.Errorf("a claim: %v", err)
					return
				case len(batch) > 1:
					size = 1 // singly, as somebody else has one of them
					continue
				}
				want = want[len(batch):]
				size = 2 + random.IntN(6)
			}
		})
	}
	wg.Wait()
	for _, o := range left {
		e.same("the owner of "+o.Session, e.owner(o.Session), granted[o.Session])
	}
}

// testHandOverRace: of a hand-over, a release and claims from one owner, one
// happens.
func testHandOverRace(e *env) {
	f := e.owned("a")
	e.join("w2", "w3", "w4")
	for range 15 {
		from := state.Owner{Session: "a", Incarnation: f.Owner, Epoch: f.Epoch}
		var mu sync.Mutex
		var won []state.Owner
		answer := func(o state.Owner, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won = append(won, o)
			} else if !errors.Is(err, state.ErrFenced) {
				e.Errorf("one that lost: %v", err)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { answer(e.s.HandOver(e.ctx, f, "w2")) })
		for _, to := range []string{"w3", "w4"} {
			wg.Go(func() {
				got, err := e.s.Claim(e.ctx, to, from)
				if err != nil {
					got = []state.Owner{{}}
				}
				answer(got[0], err)
			})
		}
		wg.Go(func() {
			answer(state.Owner{Session: "a", Epoch: f.Epoch + 1}, e.s.Release(e.ctx, f))
		})
		wg.Wait()
		if len(won) != 1 {
			e.Fatalf("%d of them happened: %v", len(won), won)
		}
		e.same("the owner", e.owner("a"), won[0])
		f = e.claim("w2", won[0]).Fence()
	}
}

// testClaimDeathRace has a worker claim one session after the other, and be
// handed some, while it is declared dead: what was granted it owns, and nothing
// is granted after the declaration was.
func testClaimDeathRace(e *env) {
	const sessions = 12
	e.join("giver")
	free := e.sessions(2 * sessions)
	for i := range sessions {
		free[sessions+i] = e.claim("giver", free[sessions+i])
	}
	for round := range 4 {
		self := fmt.Sprint("w", round)
		e.join(self)
		var dead atomic.Bool
		var wg sync.WaitGroup
		next := append([]state.Owner{}, free...)
		begun := make(chan struct{}, 2*sessions)
		for half := range 2 {
			wg.Go(func() {
				for i := half * sessions; i < (half+1)*sessions; i++ {
					late := dead.Load()
					begun <- struct{}{}
					var o state.Owner
					var err error
					if half == 0 {
						var got []state.Owner
						if got, err = e.s.Claim(e.ctx, self, free[i]); err == nil {
							o = got[0]
						}
					} else {
						o, err = e.s.HandOver(e.ctx, free[i].Fence(), self)
					}
					switch {
					case err == nil && late:
						e.Errorf("%s was granted after the death", o.Session)
					case err == nil:
						next[i] = o
					case !errors.Is(err, state.ErrDead):
						e.Errorf("a claim or hand-over: %v", err)
					}
				}
			})
		}
		for range round * sessions / 3 {
			<-begun
		}
		e.ok(e.s.DeclareStopped(e.ctx, self))
		dead.Store(true)
		wg.Wait()
		e.same("the owners", e.owners(free), next)
		for i, o := range next {
			if i < sessions {
				free[i] = o
			} else {
				free[i] = e.claim("giver", o)
			}
		}
	}
}
