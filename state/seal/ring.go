package seal

import (
	"context"
	"errors"
)

// ring is a master key together with those that came before it.
type ring struct {
	Master
	former []Master
}

// WithFormer returns a Master that wraps with the present key and unwraps with
// the one that a keyset was wrapped with, be that the present key or a former
// one. It is what a change of master keys takes: everything can be read from the
// first moment, and Rewrap moves it over. Its ID is the present key's. Without
// former keys it is the present one itself.
func WithFormer(present Master, former ...Master) Master {
	if len(former) == 0 {
		return present
	}
	return &ring{present, former}
}

// Unwrap implements Master. The key is chosen by the id that the wrapped keyset
// names; no other one is asked. If none is the right one the error is that of the
// present key.
func (r *ring) Unwrap(ctx context.Context, wrapped []byte, context map[string]string) ([]byte, error) {
	plain, err := r.Master.Unwrap(ctx, wrapped, context)
	var wrong *WrongMasterError
	if !errors.As(err, &wrong) {
		return plain, err
	}
	for _, m := range r.former {
		plain, formerErr := m.Unwrap(ctx, wrapped, context)
		if !errors.As(formerErr, &wrong) {
			return plain, formerErr
		}
	}
	return nil, err
}

// Ping asks the present key, as far as it can be asked. The former ones are only
// needed by what they have wrapped.
func (r *ring) Ping(ctx context.Context) error { return Ping(ctx, r.Master) }

// Ping tells whether a master key can be used now. One that lies on this machine
// always can.
func Ping(ctx context.Context, m Master) error {
	if p, ok := m.(interface{ Ping(context.Context) error }); ok {
		return p.Ping(ctx)
	}
	return nil
}
