package transfer

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// The work factors of passphrases: what is written, and the most that is read,
// because reading takes 128 bytes × 8 × 2^factor of memory.
const (
	workFactor    = 18 // about a second, 256 MB
	maxWorkFactor = 20
)

// minPassphrase is the fewest characters that a passphrase may have: the file
// may lie about for long.
const minPassphrase = 12

// Lock is what a file is sealed for.
type Lock struct{ recipients []age.Recipient }

// Key opens a file.
type Key struct{ identities []age.Identity }

// LockWithPassphrase seals for whoever knows the passphrase.
func LockWithPassphrase(passphrase string) (Lock, error) { return lockWith(passphrase, workFactor) }

func lockWith(passphrase string, factor int) (Lock, error) {
	if n := len([]rune(passphrase)); n < minPassphrase {
		return Lock{}, fmt.Errorf("passphrase: has %d characters; the file is an account, use at least %d", n, minPassphrase)
	}
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return Lock{}, fmt.Errorf("passphrase: %w", err)
	}
	r.SetWorkFactor(factor)
	return Lock{[]age.Recipient{r}}, nil
}

// LockFor seals for the holders of age identities, named by their recipients
// (age1…).
func LockFor(recipients ...string) (Lock, error) {
	var l Lock
	for _, text := range recipients {
		parsed, err := age.ParseRecipients(strings.NewReader(strings.TrimSpace(text)))
		if err != nil {
			return Lock{}, fmt.Errorf("recipient %q: is none; it begins with age1, as `age-keygen` shows it", text)
		}
		l.recipients = append(l.recipients, parsed...)
	}
	if len(l.recipients) == 0 {
		return Lock{}, errors.New("recipient: none is given")
	}
	return l, nil
}

// KeyFromPassphrase opens what was sealed with the passphrase.
func KeyFromPassphrase(passphrase string) (Key, error) {
	i, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return Key{}, fmt.Errorf("passphrase: %w", err)
	}
	i.SetMaxWorkFactor(maxWorkFactor)
	return Key{[]age.Identity{i}}, nil
}

// KeyFromIdentities opens what was sealed for one of the identities in a file of
// `age-keygen`.
func KeyFromIdentities(r io.Reader) (Key, error) {
	ids, err := age.ParseIdentities(r)
	if err != nil {
		return Key{}, fmt.Errorf("identity file: is none of `age-keygen`: %w", err)
	}
	return Key{ids}, nil
}
