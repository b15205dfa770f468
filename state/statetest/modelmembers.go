package statetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-wa/holdfast/state"
)

func (m *machine) join(t *rapid.T) {
	// Now and then somebody who has joined before, if that is remembered.
	id := m.worker(t)
	if !m.remembered(id) {
		m.joined++
		id = fmt.Sprint("w", m.joined)
	}
	info := state.MemberInfo{Host: rapid.StringN(0, 3, 6).Draw(t, "host"), Capacity: m.joined, Since: time.Unix(int64(m.joined), 0).UTC()}
	m.both(t, "join of "+id, func(s state.Store) (string, error) {
		got, err := s.Join(m.ctx, id, info)
		got.Joined = 0 // compared by the order of the roster
		return fmt.Sprintf("%+v", got), err
	})
}

func (m *machine) remembered(incarnation string) bool {
	r, err := m.model.Roster(m.ctx)
	return err == nil && slices.ContainsFunc(r.Members, func(x state.Member) bool { return x.Incarnation == incarnation })
}

func (m *machine) beat(t *rapid.T) {
	id := m.worker(t)
	load := state.Load{Sessions: rapid.IntRange(0, 9).Draw(t, "load"), Trust: time.Second, At: time.Unix(1, 0).UTC()}
	m.both(t, "beat of "+id, func(s state.Store) (string, error) { return "", s.Beat(m.ctx, id, load) })
}

func (m *machine) declare(t *rapid.T) {
	id := m.worker(t)
	seen := rapid.Uint64Range(0, 4).Draw(t, "seen")
	m.both(t, fmt.Sprintf("death of %s seen at %d", id, seen), func(s state.Store) (string, error) {
		return "", s.DeclareDead(m.ctx, id, seen)
	})
}

func (m *machine) stopped(t *rapid.T) {
	id := m.worker(t)
	m.both(t, "stop of "+id, func(s state.Store) (string, error) { return "", s.DeclareStopped(m.ctx, id) })
}

func (m *machine) drain(t *rapid.T) {
	id, wanted := m.worker(t), rapid.Bool().Draw(t, "wanted")
	m.both(t, "drain of "+id, func(s state.Store) (string, error) { return "", s.Drain(m.ctx, id, wanted) })
}

func (m *machine) forget(t *rapid.T) {
	id := m.worker(t)
	m.both(t, "removal of "+id, func(s state.Store) (string, error) { return "", s.Forget(m.ctx, id) })
}

func (m *machine) watch(t *rapid.T) {
	ids := []string{m.worker(t), m.worker(t), "nobody"}
	m.both(t, fmt.Sprintf("look at %v", ids), func(s state.Store) (string, error) {
		p, err := s.Watch(m.ctx, ids)
		return fmt.Sprintf("%+v", p.Beats), err // maps are printed in order
	})
}

// compareMembers compares the rosters, all but the numbers that each store gives
// by itself, and sees that the real store's revision grows with each change.
func (m *machine) compareMembers(t *rapid.T) {
	m.both(t, "roster", func(s state.Store) (string, error) {
		r, err := s.Roster(m.ctx)
		var all, lasting []string
		for _, x := range r.Members {
			x.Joined = 0
			all = append(all, fmt.Sprintf("%+v", x))
			lasting = append(lasting, fmt.Sprint(x.Incarnation, x.Dead, x.Drain))
		}
		if s == m.real && err == nil {
			members := strings.Join(lasting, ", ")
			if r.Revision < m.revision || members != m.members && r.Revision == m.revision {
				t.Fatalf("the revision was %d with %s and is %d with %s", m.revision, m.members, r.Revision, members)
			}
			m.members, m.revision = members, r.Revision
		}
		return strings.Join(all, "\n"), err
	})
}
