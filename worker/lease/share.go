package lease

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"time"
)

// worker is what is known of a member where sessions are divided.
type worker struct {
	id         string
	joined     uint64
	deployment string
	sessions   int
	capacity   int  // 0: no bound
	closed     bool // it drains, or is to drain, or has not been heard of for long
	tool       bool
}

// room is how many sessions more it may have if it is to have at most limit.
func (w worker) room(limit int) int {
	if w.capacity > 0 {
		limit = min(limit, w.capacity)
	}
	return max(0, limit-w.sessions)
}

// full says that it can run no session more.
func (w worker) full() bool { return w.capacity > 0 && w.sessions >= w.capacity }

// receivers are the workers that get sessions: of the deployment that joined
// last, those that are open. If none of these has room, all that are open.
func receivers(alive []worker) []worker {
	var newest *worker
	for i, w := range alive {
		if !w.tool && (newest == nil || w.joined > newest.joined) {
			newest = &alive[i]
		}
	}
	var open, preferred []worker
	room := false
	for _, w := range alive {
		if w.tool || w.closed {
			continue
		}
		open = append(open, w)
		if w.deployment == newest.deployment {
			preferred = append(preferred, w)
			room = room || !w.full()
		}
	}
	if room {
		return preferred
	}
	return open
}

// fairShare is how many sessions each of the workers should have at most, so
// that all their sessions and the free ones have a place: the same for all, but
// where a capacity is less the others have more.
func fairShare(among []worker, free int) int {
	if len(among) == 0 {
		return 0
	}
	left := free
	bounds := make([]int, 0, len(among))
	for _, w := range among {
		left += w.sessions
		if w.capacity > 0 {
			bounds = append(bounds, w.capacity)
		} else {
			bounds = append(bounds, math.MaxInt)
		}
	}
	slices.Sort(bounds)
	for i, bound := range bounds {
		others := len(bounds) - i
		if share := (left + others - 1) / others; share <= bound {
			return share
		}
		left -= bound
	}
	return bounds[len(bounds)-1] // there are more sessions than places
}

// parts says to which worker each free session goes first: by weighted
// rendezvous hashing, one after the other in an order that is the same for
// everybody, to the nearest that still has room below the share. One that is not
// in it finds no room.
func parts(frees []free, among []worker, share int) map[string]string {
	names := make([]string, 0, len(frees))
	for _, f := range frees {
		names = append(names, f.session)
	}
	slices.Sort(names)
	left := make([]int, len(among))
	for i, w := range among {
		left[i] = w.room(share)
	}
	to := make(map[string]string, len(names))
	for _, name := range names {
		best, at := math.Inf(-1), -1
		for i, w := range among {
			if left[i] == 0 {
				continue
			}
			// The weight stays what it was: who sees only some of them should come to
			// the same.
			if s := score(name, w.id, float64(w.room(share))); s > best {
				best, at = s, i
			}
		}
		if at < 0 {
			break
		}
		left[at]--
		to[name] = among[at].id
	}
	return to
}

// score is higher the nearer a session is to a worker; of all sessions, a worker
// has the highest score for a part that is as large as its weight.
func score(session, worker string, weight float64) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(worker))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(session))
	u := (float64(mixed(h.Sum64())>>11) + 0.5) / (1 << 53) // in (0, 1)
	return -weight / math.Log(u)
}

// mixed spreads a hash over all its bits (the finish of splitmix64).
func mixed(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// free is a session that may be claimed, as it looks to choose.
type free struct {
	session string
	age     time.Duration // since it was first seen
	looked  bool          // somebody has pointed to it
}

// choose picks the sessions that me claims now. In the first round that is its
// part of them all; what is still there after a poll is taken by whoever is below
// its share, and after three by whoever can run it. A worker alone takes all that
// it has room for.
func choose(me string, alive []worker, frees []free, poll time.Duration) []string {
	among := receivers(alive)
	i := slices.IndexFunc(among, func(w worker) bool { return w.id == me })
	if i < 0 {
		return nil
	}
	share := fairShare(among, len(frees))
	inShare, inAll := among[i].room(share), among[i].room(math.MaxInt)
	if len(among) == 1 {
		inShare = inAll
	}
	// Each worker goes through them in an order of its own, so that two do not
	// claim the same ones at the same time.
	order := slices.Clone(frees)
	near := make(map[string]float64, len(order))
	for _, f := range order {
		near[f.session] = score(f.session, me, 1)
	}
	slices.SortFunc(order, func(a, b free) int {
		return cmp.Or(cmp.Compare(near[b.session], near[a.session]), cmp.Compare(a.session, b.session))
	})
	var mine []string
	take := func(f free) {
		mine = append(mine, f.session)
		inShare--
		inAll--
	}
	var later []free
	first := parts(frees, among, share)
	for _, f := range order {
		switch {
		case inAll <= 0:
			return mine
		case inShare > 0 && (len(among) == 1 || first[f.session] == me):
			take(f)
		default:
			later = append(later, f)
		}
	}
	for _, f := range later {
		if inAll <= 0 {
			break
		}
		if inShare > 0 && (f.looked || f.age > poll) || f.age > 3*poll {
			take(f)
		}
	}
	return mine
}

// receiver picks who is given a session next: the one with the lowest load for
// what it can run, by the loads that are handed in. Empty: there is none.
func receiver(among []worker, allowed func(worker) bool) string {
	var best *worker
	for i, w := range among {
		if w.full() || !allowed(w) {
			continue
		}
		if best == nil || lessLoaded(w, *best) {
			best = &among[i]
		}
	}
	if best == nil {
		return ""
	}
	return best.id
}

// lessLoaded compares what parts of their capacities two workers use, where both
// have one; else their sessions.
func lessLoaded(a, b worker) bool {
	if a.capacity > 0 && b.capacity > 0 && a.capacity != b.capacity {
		x, y := a.sessions*b.capacity, b.sessions*a.capacity
		if x != y {
			return x < y
		}
	}
	return a.sessions < b.sessions
}

// surplus says whether a worker has so many sessions more than its share that it
// gives some away: beyond a dead band when it has not begun to give, down to its
// share when it has.
func surplus(sessions, share int, begun bool) bool {
	if begun {
		return sessions > share
	}
	return float64(sessions) > float64(share)*1.1+1
}
