package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-wa/holdfast/state"
)

// living tells whether an incarnation may own sessions.
func (s *Store) living(incarnation string) error {
	if m := s.members[incarnation]; m == nil || m.Dead {
		return fmt.Errorf("worker %s: %w", incarnation, state.ErrDead)
	}
	return nil
}

// change does something to the members under the lock, and counts it as a change
// of the roster if it says so.
func (s *Store) change(ctx context.Context, do func() (changed bool, err error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	changed, err := do()
	if changed {
		s.roster++
	}
	return err
}

// Join implements state.Members.
func (s *Store) Join(ctx context.Context, incarnation string, info state.MemberInfo) (m state.Member, err error) {
	if err := state.CheckIncarnation(incarnation); err != nil {
		return m, err
	}
	err = s.change(ctx, func() (bool, error) {
		if s.members[incarnation] != nil {
			return false, fmt.Errorf("worker %s: %w", incarnation, state.ErrExists)
		}
		s.joins++
		m = state.Member{Incarnation: incarnation, Joined: s.joins, Beats: 1, Info: info}
		kept := m
		s.members[incarnation] = &kept
		return true, nil
	})
	return m, err
}

// Beat implements state.Members.
func (s *Store) Beat(ctx context.Context, incarnation string, load state.Load) error {
	return s.change(ctx, func() (bool, error) {
		if err := s.living(incarnation); err != nil {
			return false, err
		}
		m := s.members[incarnation]
		m.Beats++
		m.Load = load
		return false, nil
	})
}

// Roster implements state.Members.
func (s *Store) Roster(ctx context.Context) (state.Roster, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return state.Roster{}, err
	}
	r := state.Roster{Revision: s.roster}
	for _, m := range s.members {
		r.Members = append(r.Members, *m)
	}
	slices.SortFunc(r.Members, func(a, b state.Member) int { return cmp.Compare(a.Joined, b.Joined) })
	return r, nil
}

// Watch implements state.Members.
func (s *Store) Watch(ctx context.Context, incarnations []string) (state.Pulse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return state.Pulse{}, err
	}
	p := state.Pulse{Revision: s.roster, Beats: make(map[string]state.Beats, len(incarnations))}
	for _, id := range incarnations {
		if m := s.members[id]; m != nil {
			p.Beats[id] = state.Beats{Count: m.Beats, Dead: m.Dead, Load: m.Load}
		}
	}
	return p, nil
}

// DeclareDead implements state.Members.
func (s *Store) DeclareDead(ctx context.Context, incarnation string, seen uint64) error {
	return s.change(ctx, func() (bool, error) {
		m := s.members[incarnation]
		if m == nil || m.Dead {
			return false, nil
		}
		if m.Beats != seen {
			return false, fmt.Errorf("worker %s has beaten since: %w", incarnation, state.ErrConflict)
		}
		m.Dead = true
		return true, nil
	})
}

// DeclareStopped implements state.Members.
func (s *Store) DeclareStopped(ctx context.Context, incarnation string) error {
	return s.change(ctx, func() (bool, error) {
		m := s.members[incarnation]
		if m == nil {
			return false, fmt.Errorf("worker %s: %w", incarnation, state.ErrNotFound)
		}
		was := m.Dead
		m.Dead = true
		return !was, nil
	})
}

// Drain implements state.Members.
func (s *Store) Drain(ctx context.Context, incarnation string, wanted bool) error {
	return s.change(ctx, func() (bool, error) {
		m := s.members[incarnation]
		if m == nil {
			return false, fmt.Errorf("worker %s: %w", incarnation, state.ErrNotFound)
		}
		if m.Dead {
			return false, fmt.Errorf("worker %s: %w", incarnation, state.ErrDead)
		}
		was := m.Drain
		m.Drain = wanted
		return was != wanted, nil
	})
}

// Forget implements state.Members.
func (s *Store) Forget(ctx context.Context, incarnation string) error {
	return s.change(ctx, func() (bool, error) {
		m := s.members[incarnation]
		if m == nil {
			return false, nil
		}
		if !m.Dead {
			return false, fmt.Errorf("worker %s is alive: %w", incarnation, state.ErrConflict)
		}
		delete(s.members, incarnation)
		return true, nil
	})
}
