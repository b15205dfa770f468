package statetest

import (
	"context"
	"errors"

	"github.com/holdfast-wa/holdfast/state"
)

// Take makes an incarnation the owner of a session, whoever has it, for tests
// about something else. The incarnation joins first where it has not.
func Take(ctx context.Context, s state.Store, session, incarnation string) (state.Owner, error) {
	if _, err := s.Join(ctx, incarnation, state.MemberInfo{}); err != nil && !errors.Is(err, state.ErrExists) {
		return state.Owner{}, err
	}
	o, err := s.Owner(ctx, session)
	if err != nil {
		return state.Owner{}, err
	}
	got, err := s.Claim(ctx, incarnation, o)
	if err != nil {
		return state.Owner{}, err
	}
	return got[0], nil
}
