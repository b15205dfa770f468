package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/seal/kms"
	"github.com/holdfast-wa/holdfast/worker"
)

// masterKey opens the master key and the former ones. A missing file is made only
// where nothing has been sealed yet: with a new key the old data would be lost,
// so then the old key is asked for instead. Of KMS nothing is asked here.
//
// used names what was sealed already, or nothing; it is asked only where a file
// is missing.
func masterKey(ctx context.Context, cfg Config, used func() (string, error)) (m seal.Master, made bool, err error) {
	if m, err = openKey(ctx, cfg, cfg.MasterKey); errors.Is(err, fs.ErrNotExist) {
		if m, err = newMasterKey(cfg.MasterKey.Path, used); err == nil {
			made = true
		}
	}
	if err != nil {
		return nil, false, err
	}
	var former []seal.Master
	for _, p := range cfg.MasterKeysOld {
		old, err := openKey(ctx, cfg, p)
		if err != nil {
			return nil, made, fmt.Errorf("master-key-old: %w", err)
		}
		former = append(former, old)
	}
	return seal.WithFormer(m, former...), made, nil
}

// openKey opens one master key. The error of a missing file wraps fs.ErrNotExist.
func openKey(ctx context.Context, cfg Config, p Place) (seal.Master, error) {
	if p.Scheme == "awskms" {
		return kms.Open(ctx, kms.Options{KeyARN: p.Path, Endpoint: cfg.AWSEndpoints["kms"]})
	}
	return seal.OpenFile(p.Path)
}

func newMasterKey(path string, used func() (string, error)) (seal.Master, error) {
	switch what, err := used(); {
	case err != nil:
		return nil, err
	case what != "":
		return nil, fmt.Errorf("master key %s: is missing, but %s was sealed with one; put the file back from your backup", path, what)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, writeFault("master key "+path, "cannot be made", err)
	}
	m, err := seal.CreateFile(path)
	if errors.Is(err, fs.ErrExist) {
		return seal.OpenFile(path) // another process that started at the same moment
	}
	return m, err
}

// sealedAlready names the SQLite file, if there is one: only the old master key
// opens what is in it.
func sealedAlready(cfg Config) string {
	if cfg.State.Scheme != "sqlite" {
		return ""
	}
	if info, err := os.Stat(cfg.State.Path); err == nil && info.Size() > 0 {
		return cfg.State.Path
	}
	return ""
}

// sealedInStore is sealedAlready for a store that is no file.
func sealedInStore(ctx context.Context, cfg Config, store state.Records) (string, error) {
	_, err := worker.KeysetMaster(ctx, store)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return "", nil
	case err != nil && !errors.Is(err, state.ErrCorrupt):
		return "", err
	}
	return cfg.State.String(), nil
}
