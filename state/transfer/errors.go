package transfer

import (
	"errors"
	"fmt"
)

// Errors of Export, Import and TakeBack. Callers branch on them with errors.Is.
var (
	// ErrNotPaired: there are no credentials to move.
	ErrNotPaired = errors.New("the session has no credentials, so there is nothing to move")
	// ErrMoved: an export of the session has ended already.
	ErrMoved = errors.New("the session was exported already")
	// ErrPaired: the target has credentials of its own.
	ErrPaired = errors.New("the session has credentials here")
	// ErrImported: this very export was imported here before.
	ErrImported = errors.New("this file was imported here already")
	// ErrOwnFile: the file comes from this store, and the session was moved with it.
	ErrOwnFile = errors.New("this file was exported from here")
	// ErrBusy: the session's worker lives and did not give it up.
	ErrBusy = errors.New("a worker has the session and did not give it up")
	// ErrNotOne: the file is no export.
	ErrNotOne = errors.New("is no file of `holdfast export`")
	// ErrNewer: the file is of a newer format.
	ErrNewer = errors.New("was written by a newer release")
	// ErrKey: the passphrase or identity does not open the file.
	ErrKey = errors.New("does not open")
	// ErrDamaged: the file was cut short or altered.
	ErrDamaged = errors.New("is cut short or altered")
	// ErrThere: there is a file of the name already.
	ErrThere = errors.New("is there already")
)

// fileError is an error about a file.
func fileError(path string, err error, advice string) error {
	return fmt.Errorf("file %s: %w; %s", path, err, advice)
}
