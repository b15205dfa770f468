package memory

import (
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-wa/holdfast/state"
)

// CreateSession implements state.Owners.
func (s *Store) CreateSession(ctx context.Context, name string, writes []state.Write) error {
	if err := state.CheckName(name); err != nil {
		return err
	}
	if err := state.Check(writes, false); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	o := s.owners[name]
	if o != nil && !o.removed {
		return fmt.Errorf("session %s: %w", name, state.ErrExists)
	}
	if err := s.apply(state.OfSession(name), writes, s.now()); err != nil {
		return err
	}
	if o == nil {
		o = &owner{}
		s.owners[name] = o
	}
	o.epoch++
	o.removed = false
	return nil
}

// RemoveSession implements state.Owners.
func (s *Store) RemoveSession(ctx context.Context, f state.Fence) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	if err := s.holds(f); err != nil {
		return err
	}
	delete(s.parts, state.OfSession(f.Session))
	*s.owners[f.Session] = owner{epoch: f.Epoch + 1, removed: true}
	return nil
}

// Owner implements state.Owners.
func (s *Store) Owner(ctx context.Context, session string) (state.Owner, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return state.Owner{}, err
	}
	o := s.owners[session]
	if o == nil || o.removed {
		return state.Owner{}, fmt.Errorf("session %s: %w", session, state.ErrNotFound)
	}
	return state.Owner{Session: session, Incarnation: o.incarnation, Epoch: o.epoch}, nil
}

// OwnedBy implements state.Owners.
func (s *Store) OwnedBy(ctx context.Context, incarnation, after string, limit int) ([]state.Owner, error) {
	return s.list(ctx, after, limit, func(o *owner) bool { return o.incarnation == incarnation })
}

// Sessions implements state.Owners.
func (s *Store) Sessions(ctx context.Context, after string, limit int) ([]state.Owner, error) {
	return s.list(ctx, after, limit, func(*owner) bool { return true })
}

func (s *Store) list(ctx context.Context, after string, limit int, match func(*owner) bool) ([]state.Owner, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	var names []string
	for name, o := range s.owners {
		if !o.removed && name > after && match(o) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []state.Owner
	for _, name := range names[:min(limited(limit), len(names))] {
		o := s.owners[name]
		out = append(out, state.Owner{Session: name, Incarnation: o.incarnation, Epoch: o.epoch})
	}
	return out, nil
}

// Claim implements state.Owners.
func (s *Store) Claim(ctx context.Context, to string, from ...state.Owner) ([]state.Owner, error) {
	if err := state.CheckClaims(from, to); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if err := s.living(to); err != nil {
		return nil, err
	}
	for _, o := range from {
		if err := s.holds(o.Fence()); err != nil {
			return nil, err
		}
	}
	claimed := make([]state.Owner, 0, len(from))
	for _, o := range from {
		claimed = append(claimed, s.give(o.Session, to))
	}
	return claimed, nil
}

// HandOver implements state.Owners.
func (s *Store) HandOver(ctx context.Context, f state.Fence, to string) (state.Owner, error) {
	if err := state.CheckIncarnation(to); err != nil {
		return state.Owner{}, fmt.Errorf("hand-over: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return state.Owner{}, err
	}
	if err := s.holds(f); err != nil {
		return state.Owner{}, err
	}
	if err := s.living(to); err != nil {
		return state.Owner{}, err
	}
	return s.give(f.Session, to), nil
}

// Release implements state.Owners.
func (s *Store) Release(ctx context.Context, f state.Fence) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	if err := s.holds(f); err != nil {
		return err
	}
	s.give(f.Session, "")
	return nil
}

// give makes an incarnation the owner at the next epoch.
func (s *Store) give(session, to string) state.Owner {
	o := s.owners[session]
	o.incarnation = to
	o.epoch++
	return state.Owner{Session: session, Incarnation: to, Epoch: o.epoch}
}

// holds tells whether the session's owner and epoch are the fence's.
func (s *Store) holds(f state.Fence) error {
	o := s.owners[f.Session]
	if o == nil || o.removed || o.incarnation != f.Owner || o.epoch != f.Epoch {
		return fmt.Errorf("%s: %w", f, state.ErrFenced)
	}
	return nil
}
