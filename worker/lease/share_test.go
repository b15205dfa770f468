package lease

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

func ids(workers []worker) []string {
	var all []string
	for _, w := range workers {
		all = append(all, w.id)
	}
	return all
}

func TestReceivers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		alive []worker
		want  []string
	}{
		{"nobody", nil, nil},
		{"one deployment", []worker{{id: "a", joined: 1}, {id: "b", joined: 2}}, []string{"a", "b"}},
		{"the newest", []worker{{id: "a", joined: 1, deployment: "r1"}, {id: "b", joined: 2, deployment: "r2"}, {id: "c", joined: 3, deployment: "r2"}}, []string{"b", "c"}},
		{"a rollback", []worker{{id: "a", joined: 1, deployment: "r1"}, {id: "b", joined: 2, deployment: "r2"}, {id: "c", joined: 3, deployment: "r1"}}, []string{"a", "c"}},
		{"not who drains", []worker{{id: "a", joined: 1}, {id: "b", joined: 2, closed: true}}, []string{"a"}},
		{"the newest counts though it drains", []worker{{id: "a", joined: 1, deployment: "r2"}, {id: "b", joined: 2, deployment: "r1"},
			{id: "c", joined: 3, deployment: "r2", closed: true}}, []string{"a"}},
		{"all of the newest drain", []worker{{id: "a", joined: 1, deployment: "r1"}, {id: "b", joined: 2, deployment: "r2", closed: true}}, []string{"a"}},
		{"all of the newest are full", []worker{{id: "a", joined: 1, deployment: "r1"}, {id: "b", joined: 2, deployment: "r2", capacity: 3, sessions: 3}}, []string{"a", "b"}},
		{"tools are nobody", []worker{{id: "a", joined: 1, deployment: "r1"}, {id: "t", joined: 2, deployment: "r2", tool: true}}, []string{"a"}},
		{"only tools", []worker{{id: "t", joined: 2, tool: true}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := ids(receivers(tt.alive)); !slices.Equal(got, tt.want) {
				t.Errorf("%v, not %v", got, tt.want)
			}
		})
	}
}

func TestFairShare(t *testing.T) {
	for _, tt := range []struct {
		name  string
		among []worker
		free  int
		want  int
	}{
		{"nobody", nil, 5, 0},
		{"alone", []worker{{}}, 5, 5},
		{"divided, rounded up", []worker{{}, {}, {}}, 10, 4},
		{"what they have counts", []worker{{sessions: 10}, {}, {}}, 2, 4},
		{"nothing to divide", []worker{{}, {}}, 0, 0},
		{"a small one leaves more to the others", []worker{{capacity: 2}, {}, {}}, 12, 5},
		{"two small ones", []worker{{capacity: 1}, {capacity: 3}, {}}, 20, 16},
		{"capacities that are far off", []worker{{capacity: 100}, {capacity: 100}}, 10, 5},
		{"more sessions than places", []worker{{capacity: 2}, {capacity: 3}}, 10, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := fairShare(tt.among, tt.free); got != tt.want {
				t.Errorf("%d, not %d", got, tt.want)
			}
			// All of them have a place, if there are places.
			places := 0
			for _, w := range tt.among {
				if w.capacity > 0 {
					places += min(w.capacity, tt.want)
				} else {
					places += tt.want
				}
			}
			if tt.name != "more sessions than places" && tt.among != nil && places < tt.free {
				t.Errorf("%d places for %d", places, tt.free)
			}
		})
	}
}

// nearest is where a session goes that is the only one free.
func nearest(session string, among []worker, share int) string {
	return parts([]free{{session: session}}, among, share)[session]
}

func TestNearestSharesByRoom(t *testing.T) {
	among := []worker{{id: "a"}, {id: "b", sessions: 50}, {id: "c", sessions: 100}}
	got := make(map[string]int)
	for i := range 3000 {
		got[nearest(fmt.Sprintf("s-%d", i), among, 100)]++
	}
	// Room of 100, 50 and none.
	if math.Abs(float64(got["a"])-2000) > 120 || math.Abs(float64(got["b"])-1000) > 120 || got["c"] != 0 {
		t.Errorf("%v", got)
	}
	if who := nearest("s", []worker{{id: "a", sessions: 4, capacity: 4}}, 10); who != "" {
		t.Errorf("%s has no room", who)
	}
	// When one leaves, only its sessions go elsewhere.
	three := []worker{{id: "a"}, {id: "b"}, {id: "c"}}
	for i := range 300 {
		s := fmt.Sprintf("s-%d", i)
		if who := nearest(s, three, 100); who != "c" && nearest(s, three[:2], 100) != who {
			t.Fatalf("%s moves though its worker stays", s)
		}
	}
}

func frees(n int, age time.Duration, looked bool) []free {
	var all []free
	for i := range n {
		all = append(all, free{fmt.Sprintf("s-%d", i), age, looked})
	}
	return all
}

func TestChoose(t *testing.T) {
	const poll = 2 * time.Second
	two := []worker{{id: "a", joined: 1}, {id: "b", joined: 2}}
	for _, tt := range []struct {
		name       string
		me         string
		alive      []worker
		frees      []free
		least, max int
	}{
		{"alone takes all", "a", two[:1], frees(100, 0, false), 100, 100},
		{"alone takes what fits", "a", []worker{{id: "a", sessions: 5, capacity: 12}}, frees(100, 0, false), 7, 7},
		{"at first its part", "a", two, frees(100, 0, false), 50, 50},
		{"pointed to, up to the share", "a", two, frees(100, 0, true), 50, 50},
		{"after a poll, up to the share", "a", two, frees(100, poll+1, false), 50, 50},
		{"after three, all", "a", two, frees(100, 3*poll+1, false), 100, 100},
		{"after three, what fits", "a", []worker{{id: "a", joined: 1, capacity: 20}, {id: "b", joined: 2}}, frees(100, 3*poll+1, false), 20, 20},
		{"above the share nothing", "a", []worker{{id: "a", joined: 1, sessions: 60}, {id: "b", joined: 2}}, frees(10, poll+1, false), 0, 0},
		{"who is no receiver, nothing", "a", []worker{{id: "a", joined: 1, deployment: "r1"}, {id: "b", joined: 2, deployment: "r2"}}, frees(10, time.Hour, false), 0, 0},
		{"who drains, nothing", "a", []worker{{id: "a", joined: 1, closed: true}}, frees(10, time.Hour, false), 0, 0},
		{"nobody free", "a", two, nil, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := choose(tt.me, tt.alive, tt.frees, poll)
			if len(got) < tt.least || len(got) > tt.max {
				t.Errorf("%d of %d, not %d to %d", len(got), len(tt.frees), tt.least, tt.max)
			}
			slices.Sort(got)
			if len(slices.Compact(got)) != len(got) {
				t.Error("one is chosen twice")
			}
		})
	}
}

// In the first round no two workers want the same session.
func TestChooseDoesNotCollide(t *testing.T) {
	alive := []worker{{id: "a", joined: 1, sessions: 7}, {id: "b", joined: 2, capacity: 30}, {id: "c", joined: 3}}
	seen := make(map[string]string)
	for _, w := range alive {
		for _, s := range choose(w.id, alive, frees(200, 0, false), time.Second) {
			if other, twice := seen[s]; twice {
				t.Errorf("%s is wanted by %s and %s", s, other, w.id)
			}
			seen[s] = w.id
		}
	}
	if len(seen) != 200 {
		t.Errorf("only %d of 200 are taken in the first round", len(seen))
	}
}

func TestReceiver(t *testing.T) {
	all := func(worker) bool { return true }
	for _, tt := range []struct {
		name  string
		among []worker
		want  string
	}{
		{"nobody", nil, ""},
		{"the fewest", []worker{{id: "a", sessions: 3}, {id: "b", sessions: 2}}, "b"},
		{"by parts of capacities", []worker{{id: "a", sessions: 30, capacity: 100}, {id: "b", sessions: 20, capacity: 40}}, "a"},
		{"not a full one", []worker{{id: "a", sessions: 30}, {id: "b", sessions: 2, capacity: 2}}, "a"},
		{"all full", []worker{{id: "b", sessions: 2, capacity: 2}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := receiver(tt.among, all); got != tt.want {
				t.Errorf("%q, not %q", got, tt.want)
			}
		})
	}
}

func TestSurplus(t *testing.T) {
	for _, tt := range []struct {
		sessions, share int
		begun, want     bool
	}{
		{10, 10, false, false}, {12, 10, false, false}, {13, 10, false, true}, {12, 10, true, true}, {10, 10, true, false},
		{1, 0, false, false}, {2, 0, false, true}, {2, 1, false, false}, {111, 100, false, false}, {112, 100, false, true},
	} {
		if got := surplus(tt.sessions, tt.share, tt.begun); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// What another has taken of a dead worker is not in its load yet; its part is not
// taken for this one's then.
func TestWhatOthersHaveTakenCounts(t *testing.T) {
	k, l := fenceOf(t, 200, func(*Lease) {})
	defer l.cancel(nil)
	now := k.clock.Now()
	member := func(id string, joined uint64, sessions int) state.Member {
		return state.Member{Incarnation: id, Joined: joined, Load: state.Load{Sessions: sessions}}
	}
	roster := state.Roster{Revision: 1, Members: []state.Member{member("w-1", 1, 200), member("w-2", 2, 200), member("w-3", 3, 200)}}
	k.view.merge(roster, now)
	roster.Revision, roster.Members[2].Dead = 2, true
	k.view.merge(roster, now)
	// 100 of its sessions are left, the second worker has claimed the others.
	k.mu.Lock()
	k.taken("w-1", 200-100)
	alive := k.alive("w-1", 200)
	k.mu.Unlock()
	if got := choose("w-1", alive, frees(100, 0, false), k.cfg.Poll); len(got) != 100 {
		t.Errorf("%d of 100 are chosen", len(got))
	}
	// With its next heartbeat the other's load tells by itself.
	k.mu.Lock()
	k.view.peers["w-2"].beaten(9, state.Load{Sessions: 300}, now)
	alive = k.alive("w-1", 300)
	k.mu.Unlock()
	if i := slices.IndexFunc(alive, func(w worker) bool { return w.id == "w-2" }); alive[i].sessions != 300 {
		t.Errorf("its load is %d", alive[i].sessions)
	}
}
