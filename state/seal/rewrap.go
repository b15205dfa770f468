package seal

import (
	"bytes"
	"context"
	"fmt"

	"github.com/holdfast-wa/holdfast/state"
)

// What every Master returns has the same head: a format byte and the key's id
// with its length, in the clear, so that a wrong key can be named. What follows
// is the master's own.
const (
	wrappedFormat = 1
	// MaxMasterID is how long the id of a master key may be, in bytes.
	MaxMasterID = 255
)

// WrapHead puts the head of a wrapped keyset before what a master made of it.
// The id has at most MaxMasterID bytes.
func WrapHead(id string, sealed []byte) []byte {
	if len(id) > MaxMasterID {
		panic("seal: the id of a master key is too long")
	}
	b := append([]byte{wrappedFormat, byte(len(id))}, id...)
	return append(b, sealed...)
}

// WrappedWith returns the id of the master key that a keyset is wrapped with,
// and what follows the head. Errors wrap state.ErrCorrupt.
func WrappedWith(wrapped []byte) (id string, sealed []byte, err error) {
	switch {
	case len(wrapped) < 2 || len(wrapped) < 2+int(wrapped[1]):
		return "", nil, fmt.Errorf("%w: the wrapped keyset is cut short", state.ErrCorrupt)
	case wrapped[0] != wrappedFormat:
		return "", nil, fmt.Errorf("%w: the keyset is wrapped in format %d, this release reads %d", state.ErrCorrupt, wrapped[0], wrappedFormat)
	}
	n := 2 + int(wrapped[1])
	return string(wrapped[2:n]), wrapped[n:], nil
}

// WrongMasterError is the error of a master that is asked to unwrap what another
// key has wrapped. It wraps state.ErrCorrupt.
type WrongMasterError struct{ Wanted, Had string } // ids of keys

func (e *WrongMasterError) Error() string {
	return fmt.Sprintf("%v: wrong master key: it is wrapped with key %q, and the key here is %q; put the right key in place", state.ErrCorrupt, e.Wanted, e.Had)
}

func (e *WrongMasterError) Unwrap() error { return state.ErrCorrupt }

// WrongMaster makes a WrongMasterError.
func WrongMaster(wanted, had string) error { return &WrongMasterError{wanted, had} }

// Rewrap wraps the keyset of the partition p for another master key, or once
// more for the same one, whose provider may have rotated what is behind it. The
// keyset stays, so nothing that it sealed is touched. The result is unwrapped
// with the new key before it is returned, since it replaces the only copy: a key
// that may encrypt and not decrypt would make all unreadable.
//
// What is wrapped with the new key already comes back as it is, so that a run
// through many sessions that was broken off can be begun again.
func Rewrap(ctx context.Context, from, to Master, p state.Partition, wrapped []byte) ([]byte, error) {
	if id, _, err := WrappedWith(wrapped); err == nil && id == to.ID() && id != from.ID() {
		return wrapped, nil
	}
	k, err := Unwrap(ctx, from, p, wrapped)
	if err != nil {
		return nil, err
	}
	next, err := k.Wrap(ctx, to, p)
	if err != nil {
		return nil, err
	}
	again, err := Unwrap(ctx, to, p, next)
	if err != nil {
		return nil, fmt.Errorf("checking master key %q before it is relied on: %w", to.ID(), err)
	}
	if !bytes.Equal(again.now.Load().plain, k.now.Load().plain) {
		return nil, fmt.Errorf("checking master key %q before it is relied on: %w: another keyset came back", to.ID(), state.ErrCorrupt)
	}
	return next, nil
}
