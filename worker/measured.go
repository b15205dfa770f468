package worker

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Measured counts and times what a store does.
func Measured(s state.Store, m *Metrics) state.Store { return measured{s, m} }

type measured struct {
	state.Store
	m *Metrics
}

// answers are errors with which a store says how things are. Any other one is its
// failure.
var answers = []error{state.ErrNotFound, state.ErrFenced, state.ErrConflict, state.ErrExists, state.ErrTooLarge, state.ErrDead}

// note counts an operation that failed. One that its caller has given up counts
// for nothing: a worker that ends leaves many.
func (s measured) note(ctx context.Context, operation string, err error) {
	if err == nil || errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	for _, a := range answers {
		if errors.Is(err, a) {
			return
		}
	}
	s.m.storeError(operation)
}

func (s measured) Commit(ctx context.Context, f state.Fence, token string, writes []state.Write) error {
	begun := time.Now()
	err := s.Store.Commit(ctx, f, token, writes)
	s.m.commitTime.Observe(time.Since(begun).Seconds())
	result := "ok"
	switch {
	case err == nil:
	case errors.Is(err, state.ErrConflict):
		result = "conflict"
	case errors.Is(err, state.ErrFenced):
		result = "fenced"
		s.m.fencedWrites.Inc()
	default:
		result = "failed"
		s.note(ctx, "commit", err)
	}
	s.m.commits.WithLabelValues(result).Inc()
	return err
}

func (s measured) Get(ctx context.Context, p state.Partition, key state.Key) (state.Record, error) {
	r, err := s.Store.Get(ctx, p, key)
	s.note(ctx, "get", err)
	return r, err
}

func (s measured) GetMany(ctx context.Context, p state.Partition, keys []state.Key) ([]state.Record, error) {
	r, err := s.Store.GetMany(ctx, p, keys)
	s.note(ctx, "get", err)
	return r, err
}

func (s measured) Query(ctx context.Context, p state.Partition, q state.Query) (state.Page, error) {
	page, err := s.Store.Query(ctx, p, q)
	s.note(ctx, "query", err)
	return page, err
}

func (s measured) Indexed(ctx context.Context, index string, after *state.Indexed, limit int) ([]state.Indexed, error) {
	list, err := s.Store.Indexed(ctx, index, after, limit)
	s.note(ctx, "indexed", err)
	return list, err
}

func (s measured) Update(ctx context.Context, p state.Partition, writes []state.Write) error {
	err := s.Store.Update(ctx, p, writes)
	s.note(ctx, "update", err)
	return err
}

func (s measured) OwnedBy(ctx context.Context, incarnation, after string, limit int) ([]state.Owner, error) {
	list, err := s.Store.OwnedBy(ctx, incarnation, after, limit)
	s.note(ctx, "owned_by", err)
	return list, err
}

func (s measured) Claim(ctx context.Context, to string, from ...state.Owner) ([]state.Owner, error) {
	list, err := s.Store.Claim(ctx, to, from...)
	s.note(ctx, "claim", err)
	return list, err
}

func (s measured) HandOver(ctx context.Context, f state.Fence, to string) (state.Owner, error) {
	o, err := s.Store.HandOver(ctx, f, to)
	s.note(ctx, "hand_over", err)
	return o, err
}

func (s measured) Release(ctx context.Context, f state.Fence) error {
	err := s.Store.Release(ctx, f)
	s.note(ctx, "release", err)
	return err
}

func (s measured) Beat(ctx context.Context, incarnation string, load state.Load) error {
	err := s.Store.Beat(ctx, incarnation, load)
	s.note(ctx, "beat", err)
	return err
}

func (s measured) Roster(ctx context.Context) (state.Roster, error) {
	r, err := s.Store.Roster(ctx)
	s.note(ctx, "roster", err)
	return r, err
}

func (s measured) Watch(ctx context.Context, incarnations []string) (state.Pulse, error) {
	p, err := s.Store.Watch(ctx, incarnations)
	s.note(ctx, "watch", err)
	return p, err
}

func (s measured) Owner(ctx context.Context, session string) (state.Owner, error) {
	o, err := s.Store.Owner(ctx, session)
	s.note(ctx, "owner", err)
	return o, err
}

func (s measured) Sessions(ctx context.Context, after string, limit int) ([]state.Owner, error) {
	list, err := s.Store.Sessions(ctx, after, limit)
	s.note(ctx, "sessions", err)
	return list, err
}

func (s measured) RemoveSession(ctx context.Context, f state.Fence) error {
	err := s.Store.RemoveSession(ctx, f)
	s.note(ctx, "remove_session", err)
	return err
}

func (s measured) Join(ctx context.Context, incarnation string, info state.MemberInfo) (state.Member, error) {
	m, err := s.Store.Join(ctx, incarnation, info)
	s.note(ctx, "join", err)
	return m, err
}

func (s measured) DeclareDead(ctx context.Context, incarnation string, seen uint64) error {
	err := s.Store.DeclareDead(ctx, incarnation, seen)
	s.note(ctx, "declare_dead", err)
	return err
}

func (s measured) DeclareStopped(ctx context.Context, incarnation string) error {
	err := s.Store.DeclareStopped(ctx, incarnation)
	s.note(ctx, "declare_stopped", err)
	return err
}
