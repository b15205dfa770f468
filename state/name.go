package state

import (
	"errors"
	"fmt"
	"strings"
)

// ErrName is returned for a session name that is not one.
var ErrName = errors.New("session name")

// CheckName tells whether a session name is valid: 1 to 63 of a-z, 0-9, - and
// _, beginning with a letter or a digit, and not digits alone, because a phone
// number would then stand in the clear in keys, logs and URLs.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: is empty; use 1 to 63 of a-z, 0-9, - and _", ErrName)
	case len(name) > 63:
		return fmt.Errorf("%w: has %d characters; at most 63", ErrName, len(name))
	case name[0] == '-' || name[0] == '_':
		return fmt.Errorf("%w %q: must begin with a letter or a digit", ErrName, name)
	}
	for _, r := range name {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_", r) {
			return fmt.Errorf("%w %q: has %q; use a-z, 0-9, - and _", ErrName, name, r)
		}
	}
	if strings.Trim(name, "0123456789-_") == "" {
		return fmt.Errorf("%w %q: is digits only; a phone number must not be a name, put a letter in", ErrName, name)
	}
	return nil
}
