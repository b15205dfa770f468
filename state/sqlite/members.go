package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// memberRow is a member as the writer sees it.
type memberRow struct {
	beats uint64
	dead  bool
	drain bool
	there bool
}

func (w *writer) member(ctx context.Context, incarnation string) (memberRow, error) {
	var m memberRow
	err := w.st.member.QueryRowContext(ctx, incarnation).Scan((*unsigned)(&m.beats), &m.dead, &m.drain)
	if errors.Is(err, sql.ErrNoRows) {
		return memberRow{}, nil
	}
	m.there = err == nil
	return m, err
}

// lives refuses an incarnation that is dead or not remembered.
func (w *writer) lives(ctx context.Context, incarnation string) error {
	m, err := w.member(ctx, incarnation)
	if err != nil {
		return err
	}
	if !m.there || m.dead {
		return refusal{fmt.Errorf("worker %s: %w", incarnation, state.ErrDead)}
	}
	return nil
}

// changed executes a statement about a member and counts it as a change of the
// roster.
func (w *writer) changed(ctx context.Context, st *sql.Stmt, args ...any) error {
	if _, err := st.ExecContext(ctx, args...); err != nil {
		return err
	}
	_, err := w.st.revise.ExecContext(ctx)
	return err
}

// change does something to a member, which it is shown.
func (s *Store) change(ctx context.Context, doing, incarnation string, do func(context.Context, *writer, memberRow) error) error {
	return s.writer.submit(ctx, doing, func(ctx context.Context, w *writer) error {
		m, err := w.member(ctx, incarnation)
		if err != nil {
			return err
		}
		return do(ctx, w, m)
	})
}

// Join implements state.Members.
func (s *Store) Join(ctx context.Context, incarnation string, info state.MemberInfo) (state.Member, error) {
	if err := state.CheckIncarnation(incarnation); err != nil {
		return state.Member{}, err
	}
	said, err := json.Marshal(info)
	if err != nil {
		return state.Member{}, fmt.Errorf("worker %s: what it says of itself: %w", incarnation, err)
	}
	joined := state.Member{Incarnation: incarnation, Beats: 1, Info: info}
	err = s.change(ctx, "join", incarnation, func(ctx context.Context, w *writer, m memberRow) error {
		if m.there {
			return refusal{fmt.Errorf("worker %s: %w", incarnation, state.ErrExists)}
		}
		if err := w.st.number.QueryRowContext(ctx).Scan((*unsigned)(&joined.Joined)); err != nil {
			return err
		}
		_, err := w.st.join.ExecContext(ctx, incarnation, int64(joined.Joined), joined.Beats, said)
		return err
	})
	if err != nil {
		return state.Member{}, err
	}
	return joined, nil
}

// Beat implements state.Members.
func (s *Store) Beat(ctx context.Context, incarnation string, load state.Load) error {
	said, err := json.Marshal(load)
	if err != nil {
		return fmt.Errorf("worker %s: what it says of its load: %w", incarnation, err)
	}
	return s.writer.submit(ctx, "beat", func(ctx context.Context, w *writer) error {
		n, err := affected(w.st.beat.ExecContext(ctx, said, incarnation))
		if err == nil && n == 0 {
			return refusal{fmt.Errorf("worker %s: %w", incarnation, state.ErrDead)}
		}
		return err
	})
}

// DeclareDead implements state.Members.
func (s *Store) DeclareDead(ctx context.Context, incarnation string, seen uint64) error {
	return s.change(ctx, "declare dead", incarnation, func(ctx context.Context, w *writer, m memberRow) error {
		switch {
		case !m.there, m.dead:
			return nil
		case m.beats != seen:
			return refusal{fmt.Errorf("worker %s has beaten since: %w", incarnation, state.ErrConflict)}
		}
		return w.changed(ctx, w.st.die, incarnation)
	})
}

// DeclareStopped implements state.Members.
func (s *Store) DeclareStopped(ctx context.Context, incarnation string) error {
	return s.change(ctx, "declare stopped", incarnation, func(ctx context.Context, w *writer, m memberRow) error {
		switch {
		case !m.there:
			return refusal{fmt.Errorf("worker %s: %w", incarnation, state.ErrNotFound)}
		case m.dead:
			return nil
		}
		return w.changed(ctx, w.st.die, incarnation)
	})
}

// Drain implements state.Members.
func (s *Store) Drain(ctx context.Context, incarnation string, wanted bool) error {
	return s.change(ctx, "drain", incarnation, func(ctx context.Context, w *writer, m memberRow) error {
		switch {
		case !m.there:
			return refusal{fmt.Errorf("worker %s: %w", incarnation, state.ErrNotFound)}
		case m.dead:
			return refusal{fmt.Errorf("worker %s: %w", incarnation, state.ErrDead)}
		case m.drain == wanted:
			return nil
		}
		return w.changed(ctx, w.st.drain, wanted, incarnation)
	})
}

// Forget implements state.Members.
func (s *Store) Forget(ctx context.Context, incarnation string) error {
	return s.change(ctx, "forget", incarnation, func(ctx context.Context, w *writer, m memberRow) error {
		switch {
		case !m.there:
			return nil
		case !m.dead:
			return refusal{fmt.Errorf("worker %s is alive: %w", incarnation, state.ErrConflict)}
		}
		return w.changed(ctx, w.st.remove, incarnation)
	})
}

// Roster implements state.Members. Revision and members are of one moment.
func (s *Store) Roster(ctx context.Context) (state.Roster, error) {
	var r state.Roster
	err := s.members(ctx, s.read.roster, func(revision uint64, m state.Member) {
		r.Revision = revision
		if m.Incarnation != "" {
			r.Members = append(r.Members, m)
		}
	})
	if err != nil {
		return state.Roster{}, err
	}
	return r, nil
}

// Watch implements state.Members.
func (s *Store) Watch(ctx context.Context, incarnations []string) (state.Pulse, error) {
	asked, err := json.Marshal(append([]string{}, incarnations...))
	if err != nil {
		return state.Pulse{}, fmt.Errorf("worker ids: %w", err)
	}
	p := state.Pulse{Beats: make(map[string]state.Beats, len(incarnations))}
	err = s.members(ctx, s.read.watch, func(revision uint64, m state.Member) {
		p.Revision = revision
		if m.Incarnation != "" {
			p.Beats[m.Incarnation] = state.Beats{Count: m.Beats, Dead: m.Dead, Load: m.Load}
		}
	}, string(asked))
	if err != nil {
		return state.Pulse{}, err
	}
	return p, nil
}

// members reads the revision and the members that a statement finds: each row
// has both, and one without a member comes where there is none.
func (s *Store) members(ctx context.Context, st *sql.Stmt, each func(revision uint64, m state.Member), args ...any) error {
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return s.failure("read", err)
	}
	defer rows.Close()
	for rows.Next() {
		var revision uint64
		var m state.Member
		var info, load []byte
		if err := rows.Scan((*unsigned)(&revision), &m.Incarnation, (*unsigned)(&m.Joined), (*unsigned)(&m.Beats), &m.Dead, &m.Drain, &info, &load); err != nil {
			return s.failure("read", err)
		}
		if err := errors.Join(said(info, &m.Info), said(load, &m.Load)); err != nil {
			return fmt.Errorf("state file %s: worker %s: %w: %w", s.path, m.Incarnation, state.ErrCorrupt, err)
		}
		m.Info.Since, m.Load.At = inUTC(m.Info.Since), inUTC(m.Load.At)
		each(revision, m)
	}
	if err := rows.Err(); err != nil {
		return s.failure("read", err)
	}
	return nil
}

// said reads what a member said, which may be nothing.
func said(b []byte, into any) error {
	if len(b) == 0 {
		return nil
	}
	return json.Unmarshal(b, into)
}

func inUTC(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}
