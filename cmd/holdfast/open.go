package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/awsclient"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/sqlite"
	"github.com/holdfast-wa/holdfast/state/vault"
	"github.com/holdfast-wa/holdfast/worker"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// opened is what a process has opened; close undoes it in reverse.
//
// The keyset of a worker whose vault or master key did not answer at the start
// has no keys yet: ready fills it. Nothing may be claimed before that.
type opened struct {
	cfg    Config
	dir    *dataDir // nil: the command needs no folder
	store  state.Store
	tables state.Store // the store itself, where what others use looks after it
	vault  state.Vault
	master seal.Master
	keyset *seal.Keyset
	svc    *whatsapp.Service
	closed []func()

	failed   <-chan error // tells why a process that runs must end: the store was replaced
	wasReady atomic.Bool
}

func (o *opened) later(f func()) { o.closed = append(o.closed, f) }

func (o *opened) close() {
	for i := len(o.closed) - 1; i >= 0; i-- {
		o.closed[i]()
	}
}

const (
	// storeWithin is how long a worker asks a store that does not answer before
	// it ends, and the platform starts it anew; a command asks for less.
	storeWithin     = time.Minute
	storeWithinTool = 5 * time.Second
	// askWithin bounds one question to the store, and checkWithin the look at its
	// tables.
	askWithin   = 5 * time.Second
	checkWithin = 15 * time.Second
	// readyWithin bounds the first question to vault and master key.
	readyWithin = 12 * time.Second
	// askPause is the first pause before a store that did not answer is asked
	// again; it doubles up to askRarest.
	askPause  = 500 * time.Millisecond
	askRarest = 5 * time.Second
)

// openState opens the data folder, the store, the vault and the keys for a
// worker. Each error is one line about one of them, and final: a setting, a
// permission, a resource is missing or wrong, or the store did not answer for a
// minute. A vault or a master key that does not answer is no error: see ready.
func openState(ctx context.Context, cfg Config, log *slog.Logger) (*opened, error) {
	o, err := openPlaces(ctx, cfg, shared, storeWithin, log)
	if err != nil {
		return nil, err
	}
	first, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	switch err := o.ready(first); {
	case err == nil, ctx.Err() == nil && passing(err):
		return o, nil // what is asked again tells the log of it
	default:
		o.close()
		return nil, err
	}
}

// openTool opens the same for a command, which cannot wait: what does not answer
// is an error too. alone needs all workers on a SQLite file to be stopped; the
// workers on other stores know from the store itself whose a session is.
func openTool(ctx context.Context, cfg Config, how use) (*opened, error) {
	o, err := openPlaces(ctx, cfg, how, storeWithinTool, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	first, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if err := o.ready(first); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// openPlaces opens all of it and asks the store alone.
func openPlaces(ctx context.Context, cfg Config, how use, within time.Duration, log *slog.Logger) (o *opened, err error) {
	o = &opened{cfg: cfg, keyset: seal.Later()}
	defer func() {
		if err != nil {
			o.close()
			o = nil
		}
	}()
	if cfg.State.Scheme == "sqlite" || within == storeWithin {
		if o.dir, err = openDataDir(cfg, how); err != nil {
			return o, err
		}
		o.later(func() { _ = o.dir.close() })
	}
	made := false
	switch cfg.State.Scheme {
	case "dynamodb":
		if err = o.openDynamo(ctx, within, log); err != nil {
			return o, err
		}
		o.master, made, err = masterKey(ctx, cfg, func() (string, error) { return sealedInStore(ctx, cfg, o.store) })
	default:
		// The key first: opening a SQLite file makes one.
		if o.master, made, err = masterKey(ctx, cfg, func() (string, error) { return sealedAlready(cfg), nil }); err == nil {
			err = o.openSQLite()
		}
	}
	if err != nil {
		return o, err
	}
	if made {
		log.Info("master key made: keep a copy of it apart from the data, nothing can be read without it", "file", cfg.MasterKey.Path)
	}
	o.vault, err = openVault(ctx, cfg, log)
	return o, err
}

func (o *opened) openSQLite() error {
	store, err := sqlite.Open(o.cfg.State.Path, sqlite.Options{})
	if err != nil {
		return err
	}
	o.store, o.tables = store, store
	o.later(func() { _ = store.Close() })
	return nil
}

// openDynamo opens the tables, waits until DynamoDB answers, and looks whether
// they are as they should be.
func (o *opened) openDynamo(ctx context.Context, within time.Duration, log *slog.Logger) error {
	store, err := newDynamo(ctx, o.cfg)
	if err != nil {
		return err
	}
	looks, stop := context.WithCancel(context.WithoutCancel(ctx))
	failed := make(chan error, 1)
	o.tables, o.failed = store, failed
	o.store = newGuarded(looks, store, func(ctx context.Context) error {
		_, err := o.genuine(ctx)
		return err
	}, o.cfg.Trust, failed, log)
	o.later(func() {
		stop()
		_ = store.Close()
	})
	end := time.Now().Add(within)
	for pause := askPause; ; pause = min(2*pause, askRarest) {
		if err = askDynamo(ctx, store, o.cfg, min(askWithin, within)); err == nil || !passing(err) {
			return err
		}
		if left := time.Until(end); left < pause {
			return fmt.Errorf("%w (asked for %v)", err, within)
		}
		log.Warn("the store does not answer; trying again", "error", err, "retryIn", pause.String())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

func newDynamo(ctx context.Context, cfg Config) (*dynamo.Store, error) {
	return dynamo.Open(ctx, dynamo.Options{Prefix: cfg.State.Path, Endpoint: cfg.AWSEndpoints["dynamodb"], OnRetry: cfg.onRetry})
}

// askDynamo looks once at the tables. An error that may pass by itself wraps
// state.ErrUnavailable.
func askDynamo(ctx context.Context, store *dynamo.Store, cfg Config, within time.Duration) error {
	one, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := store.Reach(one); err != nil {
		return fmt.Errorf("state %s: %w", cfg.State, err)
	}
	all, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	if err := store.Check(all); err != nil {
		return fmt.Errorf("state %s: %w", cfg.State, err)
	}
	return nil
}

func openVault(ctx context.Context, cfg Config, log *slog.Logger) (state.Vault, error) {
	if cfg.Vault.Scheme == "dir" {
		return vault.OpenDir(cfg.Vault.Path)
	}
	return newS3(ctx, cfg, log)
}

func newS3(ctx context.Context, cfg Config, log *slog.Logger) (*vault.S3, error) {
	bucket, prefix, _ := strings.Cut(cfg.Vault.Path, "/")
	o := vault.S3Options{Bucket: bucket, Prefix: prefix, Endpoint: cfg.AWSEndpoints["s3"], Log: log}
	if cfg.MasterKey.Scheme == "awskms" {
		o.KMSKeyID = cfg.MasterKey.Path // once more, besides our own sealing
	}
	return vault.OpenS3(ctx, o)
}

// passing tells whether an error of a store, a vault or a master key may pass by
// itself.
func passing(err error) bool {
	return awsclient.Passing(err) || errors.Is(err, state.ErrUnavailable) && !finalFault(err)
}

// finalFault tells whether the service has given its answer: a fault of its own
// client that is not a passing one.
func finalFault(err error) bool {
	var fault *awsclient.Fault
	return errors.As(err, &fault) && !awsclient.Passing(fault)
}

// ready asks vault and master key whether they can be used, and reads what a
// worker needs of both: the fleet's keyset. Once it has returned nil it does so
// for good: live sessions need neither. An error for which passing is false is
// final. It may be called again and again, by one goroutine at a time.
func (o *opened) ready(ctx context.Context) error {
	if o.wasReady.Load() {
		return nil
	}
	identity, err := o.genuine(ctx)
	if err != nil {
		return err
	}
	keyset, err := o.unlock(ctx)
	if err != nil {
		return err
	}
	if v, marked := o.vault.(marked); marked {
		if err := v.Belong(ctx, vault.FleetMark(keyset.ID(), identity)); err != nil {
			return err
		}
	}
	o.keyset.Become(keyset)
	o.wasReady.Store(true)
	return nil
}

// unlock asks vault and master key and reads the fleet's keyset.
func (o *opened) unlock(ctx context.Context) (*seal.Keyset, error) {
	if err := o.vault.Ping(ctx); err != nil {
		return nil, err
	}
	if err := seal.Ping(ctx, o.master); err != nil {
		return nil, err
	}
	keyset, err := worker.OpenKeyset(ctx, o.store, o.master)
	var wrong *seal.WrongMasterError
	if errors.As(err, &wrong) {
		return nil, fmt.Errorf("state %s: belongs to a fleet with another master key: its keyset is wrapped with %q, and the key here is %q; "+
			"set master-key to that one, list it in master-key-old after a change of keys, or give this fleet a place of its own", o.cfg.State, wrong.Wanted, wrong.Had)
	}
	return keyset, err
}

// marked is a vault that others can reach as well, and so knows whose it is.
type marked interface {
	Belong(ctx context.Context, fleet string) error
	Seize(ctx context.Context, fleet string) error
}

// genuine sees that a store with an identity of its own is the one that it was at
// its first use, and returns that; empty: it has none.
func (o *opened) genuine(ctx context.Context) (string, error) {
	identity, known, err := identityOf(ctx, o.tables)
	if err != nil || !known {
		return "", err
	}
	err = worker.CheckIdentity(ctx, o.tables, identity)
	var restored *worker.RestoredError
	if errors.As(err, &restored) {
		err = fmt.Errorf("state %s: %w; stop all workers and run holdfast adopt --restored", o.cfg.State, restored)
	}
	return identity, err
}

// identityOf is what tells a store from a copy of it that was restored from a
// backup; a store in a file has nothing of the kind.
func identityOf(ctx context.Context, store state.Store) (identity string, known bool, err error) {
	s, ok := store.(interface {
		Identity(ctx context.Context) (string, error)
	})
	if !ok {
		return "", false, nil
	}
	if identity, err = s.Identity(ctx); err != nil {
		return "", true, fmt.Errorf("the identity of the tables: %w", err)
	}
	return identity, true, nil
}
