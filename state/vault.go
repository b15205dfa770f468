package state

import (
	"context"
	"fmt"
)

// Vault keeps credential objects, apart from the records, so that neither alone
// is worth stealing. Objects are sealed before they come here and are never
// changed: a new version is a new object, and the fenced Meta record says which
// one counts. A stale writer's object is therefore never referenced.
type Vault interface {
	// PutObject stores a new object and returns the vault's version id of it,
	// if it has such. ErrExists if the name is taken: names are used once.
	PutObject(ctx context.Context, session, name string, body []byte) (versionID string, err error)
	// GetObject reads an object; ErrNotFound if there is none. An empty
	// versionID means whatever is there.
	GetObject(ctx context.Context, session, name, versionID string) ([]byte, error)
	// DeleteObject removes an object for good; that it is absent is no error.
	DeleteObject(ctx context.Context, session, name, versionID string) error
	// ListObjects returns the names of a session's objects, in order.
	ListObjects(ctx context.Context, session string) ([]string, error)
	// Ping tells whether the vault answers and may be written.
	Ping(ctx context.Context) error
}

// CheckObject tells whether a name is one for an object in a vault: 1 to 128 of
// a-z, A-Z, 0-9, dot, - and _, beginning with a letter or a digit, so that it is
// the same in a directory, a bucket and a log line.
func CheckObject(name string) error {
	if name == "" || len(name) > 128 {
		return fmt.Errorf("%w %q: an object's has 1 to 128 characters", ErrName, name)
	}
	for i, r := range name {
		alphanumeric := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alphanumeric && (i == 0 || r != '.' && r != '-' && r != '_') {
			return fmt.Errorf("%w %q: an object's is of a-z, A-Z, 0-9, dot, - and _, and begins with a letter or a digit", ErrName, name)
		}
	}
	return nil
}
