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
		s.m.storeError("commit")
	}
	s.m.commits.WithLabelValues(result).Inc()
	return err
}
