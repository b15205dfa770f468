package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/holdfast-wa/holdfast/state"
)

// Vault is a state.Vault in memory. It has no versions of its own.
type Vault struct {
	mu      sync.Mutex
	objects map[string]map[string][]byte // by session and name
}

var _ state.Vault = (*Vault)(nil)

// NewVault makes an empty vault.
func NewVault() *Vault { return &Vault{objects: map[string]map[string][]byte{}} }

// PutObject implements state.Vault.
func (v *Vault) PutObject(ctx context.Context, session, name string, body []byte) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.usable(ctx, session, name); err != nil {
		return "", err
	}
	if _, taken := v.objects[session][name]; taken {
		return "", fmt.Errorf("object %s of %s: %w", name, session, state.ErrExists)
	}
	if v.objects[session] == nil {
		v.objects[session] = map[string][]byte{}
	}
	v.objects[session][name] = bytes.Clone(body)
	return "", nil
}

// GetObject implements state.Vault.
func (v *Vault) GetObject(ctx context.Context, session, name, _ string) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.usable(ctx, session, name); err != nil {
		return nil, err
	}
	body, ok := v.objects[session][name]
	if !ok {
		return nil, fmt.Errorf("object %s of %s: %w", name, session, state.ErrNotFound)
	}
	return bytes.Clone(body), nil
}

// DeleteObject implements state.Vault.
func (v *Vault) DeleteObject(ctx context.Context, session, name, _ string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.usable(ctx, session, name); err != nil {
		return err
	}
	delete(v.objects[session], name)
	return nil
}

// ListObjects implements state.Vault.
func (v *Vault) ListObjects(ctx context.Context, session string) ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.usable(ctx, session, "any"); err != nil {
		return nil, err
	}
	var names []string
	for name := range v.objects[session] {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Ping implements state.Vault.
func (v *Vault) Ping(context.Context) error { return nil }

// usable checks the context and both names.
func (v *Vault) usable(ctx context.Context, session, name string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
	}
	if err := state.CheckName(session); err != nil {
		return err
	}
	return state.CheckObject(name)
}
