package device

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-wa/holdfast/state"
)

// PoisonedError is what everything fails with once a store operation has failed.
// It wraps the cause, and context.Canceled, on which the library acknowledges
// nothing.
type PoisonedError struct{ Cause error }

func (e *PoisonedError) Error() string { return "device state is not usable: " + e.Cause.Error() }

// Unwrap makes errors.Is find both the cause and context.Canceled.
func (e *PoisonedError) Unwrap() []error { return []error{e.Cause, context.Canceled} }

// ErrRetired is what a Device fails with whose credentials are out of use, or
// which is closed. It wraps context.Canceled.
var ErrRetired = fmt.Errorf("the device is retired: %w", context.Canceled)

// ErrLockWait says that the ratchet lock was not to be had in time.
var ErrLockWait = errors.New("the ratchet lock was not released in time")

// ErrLockLost says that a goroutine wrote a ratchet after the lock had been
// taken from it, because it had kept it for too long.
var ErrLockLost = errors.New("a ratchet was written too late, the lock had been given to another")

// check says whether the Device may be used.
func (d *Device) check() error {
	if p := d.poisoned.Load(); p != nil {
		return p
	}
	if d.retired.Load() {
		return ErrRetired
	}
	if err := d.cfg.Journal.Err(); err != nil {
		return d.fail(err)
	}
	return nil
}

// fail poisons the Device, once, and returns the error for the library.
func (d *Device) fail(err error) error {
	p := &PoisonedError{Cause: err}
	if d.poisoned.CompareAndSwap(nil, p) {
		d.cfg.Poison(p)
		d.cache.clear()
		d.cfg.Log.Error("device state failed, the connection is cut", "session", d.cfg.Session,
			"epoch", d.cfg.Journal.Fence().Epoch, "err", err)
	}
	return d.poisoned.Load()
}

// cancelled is the error of a caller whose own ctx ended while it waited for the
// lock. Nothing is wrong with the store; nothing must be acknowledged either.
func cancelled(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: %w", err, context.Canceled)
}

// retryable says that a read may succeed when it is tried again.
func retryable(err error) bool {
	return errors.Is(err, state.ErrUnavailable)
}
