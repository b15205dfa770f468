package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/vault"
)

// lazyVault is the bucket, opened when something is wanted of it. Nothing is
// until it has said that it is the fleet's: another fleet's credentials may have
// the same names.
type lazyVault struct {
	o *office

	mu    sync.Mutex
	vault *vault.S3
}

var _ state.Vault = (*lazyVault)(nil)

func (l *lazyVault) opened(ctx context.Context) (*vault.S3, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.vault != nil {
		return l.vault, nil
	}
	l.o.mu.Lock()
	identity := l.o.identity
	l.o.mu.Unlock()
	if identity == "" || !l.o.keyset.There() {
		return nil, fmt.Errorf("%w: whose vault it should be is not known yet", state.ErrUnavailable)
	}
	c := l.o.cfg
	v, err := vault.OpenS3(ctx, vault.S3Options{Bucket: c.bucket, Prefix: c.prefix, Endpoint: c.endpoints["s3"], KMSKeyID: c.master, Log: l.o.log})
	if err != nil {
		return nil, err
	}
	if err := v.Belong(ctx, vault.FleetMark(l.o.keyset.ID(), identity)); err != nil {
		return nil, err
	}
	l.vault = v
	return v, nil
}

// PutObject implements state.Vault.
func (l *lazyVault) PutObject(ctx context.Context, session, name string, body []byte) (string, error) {
	v, err := l.opened(ctx)
	if err != nil {
		return "", err
	}
	return v.PutObject(ctx, session, name, body)
}

// GetObject implements state.Vault.
func (l *lazyVault) GetObject(ctx context.Context, session, name, versionID string) ([]byte, error) {
	v, err := l.opened(ctx)
	if err != nil {
		return nil, err
	}
	return v.GetObject(ctx, session, name, versionID)
}

// DeleteObject implements state.Vault.
func (l *lazyVault) DeleteObject(ctx context.Context, session, name, versionID string) error {
	v, err := l.opened(ctx)
	if err != nil {
		return err
	}
	return v.DeleteObject(ctx, session, name, versionID)
}

// ListObjects implements state.Vault.
func (l *lazyVault) ListObjects(ctx context.Context, session string) ([]string, error) {
	v, err := l.opened(ctx)
	if err != nil {
		return nil, err
	}
	return v.ListObjects(ctx, session)
}

// Ping implements state.Vault.
func (l *lazyVault) Ping(ctx context.Context) error {
	v, err := l.opened(ctx)
	if err != nil {
		return err
	}
	return v.Ping(ctx)
}
