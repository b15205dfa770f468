package seal

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// A keyset that many parts of a process hold is changed in place: one that could
// not be had at the start becomes the one that was read later, and one that
// another process has given a new key is read again.

// askAgain is the shortest time between two looks for a newer form of a keyset:
// each may cost a call of the master key's service, and a damaged value looks
// like one that was sealed with a newer key.
const askAgain = 10 * time.Second

// Later returns a keyset that has no keys until Become gives it some. Until then
// Seal and Open fail with an error that wraps state.ErrUnavailable, and Blind
// panics.
func Later() *Keyset { return new(Keyset) }

// Become gives a keyset the keys of another one, and its way to be read again.
func (k *Keyset) Become(other *Keyset) {
	k.source.Store(other.source.Load())
	k.now.Store(other.now.Load())
}

// There tells whether the keyset has keys.
func (k *Keyset) There() bool { return k.now.Load() != nil }

// covers tells whether a keyset opens all that another form of it does.
func (c *keys) covers(other *keys) bool {
	return c.id == other.id && !slices.ContainsFunc(other.keyIDs, func(id uint32) bool { return !slices.Contains(c.keyIDs, id) })
}

// Keys is how many sealing keys the keyset has: one, and one for each rotation.
func (k *Keyset) Keys() int {
	if c := k.now.Load(); c != nil {
		return len(c.keyIDs)
	}
	return 0
}

func (k *Keyset) keys() (*keys, error) {
	if c := k.now.Load(); c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("%w: the keyset has not been read yet", state.ErrUnavailable)
}

// source is where a newer form of a keyset is read.
type source struct {
	read func(context.Context) (*Keyset, error)

	mu     sync.Mutex
	looked time.Time
	failed error // of the last look
}

// reloadWithin bounds one look for a newer form: whoever opens a value waits for
// it.
const reloadWithin = 10 * time.Second

// ReadAgain says how the keyset is read, so that a value that another process
// has sealed with a key added since can be opened: Open then reads the keyset
// again, at most once in 10 seconds.
func (k *Keyset) ReadAgain(read func(context.Context) (*Keyset, error)) {
	k.source.Store(&source{read: read})
}

// newer returns the keyset's keys as they are stored now, if there is a way to
// know, and what it was given if not. An error means that it could not be found
// out: the value may be sound.
func (k *Keyset) newer(c *keys, wanted uint32) (*keys, error) {
	s := k.source.Load()
	if s == nil {
		return c, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := k.now.Load(); now != c {
		return now, nil // somebody else has just read it
	}
	if !s.looked.IsZero() && time.Since(s.looked) < askAgain {
		return c, s.failed
	}
	ctx, cancel := context.WithTimeout(context.Background(), reloadWithin)
	defer cancel()
	fresh, err := s.read(ctx)
	s.looked, s.failed = time.Now(), nil
	if err != nil {
		s.failed = fmt.Errorf("it was sealed with key %08x, and the keyset could not be read again: %w", wanted, err)
		return nil, s.failed
	}
	if stored := fresh.now.Load(); stored != nil && stored.covers(c) {
		k.now.Store(stored)
		return stored, nil
	}
	return c, nil // another keyset altogether, which is nothing to go over to
}
