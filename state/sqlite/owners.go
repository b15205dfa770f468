package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/holdfast-wa/holdfast/state"
)

// ownerRow is an owner item as the writer sees it.
type ownerRow struct {
	incarnation string
	epoch       uint64 // also of a session that was removed
	there       bool   // false if it never was, or was removed
}

func (w *writer) owner(ctx context.Context, session string) (ownerRow, error) {
	var o ownerRow
	var removed bool
	err := w.st.owner.QueryRowContext(ctx, session).Scan(&o.incarnation, (*unsigned)(&o.epoch), &removed)
	if errors.Is(err, sql.ErrNoRows) {
		return ownerRow{}, nil
	}
	o.there = err == nil && !removed
	return o, err
}

func (w *writer) setOwner(ctx context.Context, o state.Owner, removed bool) error {
	_, err := w.st.setOwner.ExecContext(ctx, o.Session, o.Incarnation, int64(o.Epoch), removed)
	return err
}

// holds refuses a fence that is not the session's.
func (w *writer) holds(ctx context.Context, f state.Fence) error {
	o, err := w.owner(ctx, f.Session)
	if err != nil {
		return err
	}
	if !o.there || o.incarnation != f.Owner || o.epoch != f.Epoch {
		return refusal{fmt.Errorf("%s: %w", f, state.ErrFenced)}
	}
	return nil
}

// CreateSession implements state.Owners.
func (s *Store) CreateSession(ctx context.Context, name string, writes []state.Write) error {
	if err := state.CheckName(name); err != nil {
		return err
	}
	if err := state.Check(writes, false); err != nil {
		return err
	}
	return s.writer.submit(ctx, "create", func(ctx context.Context, w *writer) error {
		o, err := w.owner(ctx, name)
		if err != nil {
			return err
		}
		if o.there {
			return refusal{fmt.Errorf("session %s: %w", name, state.ErrExists)}
		}
		if err := w.apply(ctx, state.OfSession(name), writes, s.now()); err != nil {
			return err
		}
		return w.setOwner(ctx, state.Owner{Session: name, Epoch: o.epoch + 1}, false)
	})
}

// RemoveSession implements state.Owners.
func (s *Store) RemoveSession(ctx context.Context, f state.Fence) error {
	return s.writer.submit(ctx, "remove", func(ctx context.Context, w *writer) error {
		if err := w.holds(ctx, f); err != nil {
			return err
		}
		if _, err := w.st.clear.ExecContext(ctx, string(state.OfSession(f.Session))); err != nil {
			return err
		}
		return w.setOwner(ctx, state.Owner{Session: f.Session, Epoch: f.Epoch + 1}, true)
	})
}

// Claim implements state.Owners.
func (s *Store) Claim(ctx context.Context, to string, from ...state.Owner) ([]state.Owner, error) {
	if err := state.CheckClaims(from, to); err != nil {
		return nil, err
	}
	claimed := make([]state.Owner, len(from))
	err := s.writer.submit(ctx, "claim", func(ctx context.Context, w *writer) error {
		if err := w.lives(ctx, to); err != nil {
			return err
		}
		for _, o := range from {
			if err := w.holds(ctx, o.Fence()); err != nil {
				return err
			}
		}
		for i, o := range from {
			claimed[i] = state.Owner{Session: o.Session, Incarnation: to, Epoch: o.Epoch + 1}
			if err := w.setOwner(ctx, claimed[i], false); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

// HandOver implements state.Owners.
func (s *Store) HandOver(ctx context.Context, f state.Fence, to string) (state.Owner, error) {
	if err := state.CheckIncarnation(to); err != nil {
		return state.Owner{}, fmt.Errorf("hand-over: %w", err)
	}
	given := state.Owner{Session: f.Session, Incarnation: to, Epoch: f.Epoch + 1}
	err := s.writer.submit(ctx, "hand over", func(ctx context.Context, w *writer) error {
		if err := w.holds(ctx, f); err != nil {
			return err
		}
		if err := w.lives(ctx, to); err != nil {
			return err
		}
		return w.setOwner(ctx, given, false)
	})
	if err != nil {
		return state.Owner{}, err
	}
	return given, nil
}

// Release implements state.Owners.
func (s *Store) Release(ctx context.Context, f state.Fence) error {
	return s.writer.submit(ctx, "release", func(ctx context.Context, w *writer) error {
		if err := w.holds(ctx, f); err != nil {
			return err
		}
		return w.setOwner(ctx, state.Owner{Session: f.Session, Epoch: f.Epoch + 1}, false)
	})
}

// Owner implements state.Owners.
func (s *Store) Owner(ctx context.Context, session string) (state.Owner, error) {
	o := state.Owner{Session: session}
	switch err := s.read.owner.QueryRowContext(ctx, session).Scan(&o.Incarnation, (*unsigned)(&o.Epoch)); {
	case errors.Is(err, sql.ErrNoRows):
		return state.Owner{}, fmt.Errorf("session %s: %w", session, state.ErrNotFound)
	case err != nil:
		return state.Owner{}, s.failure("read", err)
	}
	return o, nil
}

// OwnedBy implements state.Owners.
func (s *Store) OwnedBy(ctx context.Context, incarnation, after string, limit int) ([]state.Owner, error) {
	return s.owners(s.read.ownedBy.QueryContext(ctx, incarnation, after, limited(limit)))
}

// Sessions implements state.Owners.
func (s *Store) Sessions(ctx context.Context, after string, limit int) ([]state.Owner, error) {
	return s.owners(s.read.sessions.QueryContext(ctx, after, limited(limit)))
}

func (s *Store) owners(rows *sql.Rows, err error) ([]state.Owner, error) {
	if err != nil {
		return nil, s.failure("read", err)
	}
	defer rows.Close()
	var out []state.Owner
	for rows.Next() {
		var o state.Owner
		if err := rows.Scan(&o.Session, &o.Incarnation, (*unsigned)(&o.Epoch)); err != nil {
			return nil, s.failure("read", err)
		}
		out = append(out, o)
	}
	if err := rows.Err(); err != nil {
		return nil, s.failure("read", err)
	}
	return out, nil
}
