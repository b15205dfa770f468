package device_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/state/statetest/libtest"
)

const session = "shop-1"

// world is a store and a vault with one session, and whoever owns it.
type world struct {
	t      testing.TB
	store  state.Store
	vault  state.Vault
	master seal.Master
	fleet  *seal.Keyset
	now    func() time.Time
	sinks  []string

	mu     sync.Mutex
	events []state.Event // committed, over all owners
	poison []error
	broken []error
	tune   func(*device.Config)
}

func newWorld(t testing.TB, store state.Store) *world {
	t.Helper()
	w := &world{t: t, store: store, vault: memory.NewVault(), now: time.Now, sinks: []string{"test"}}
	var err error
	if w.master, err = seal.CreateFile(filepath.Join(t.TempDir(), "master.key")); err != nil {
		t.Fatal(err)
	}
	if w.fleet, err = seal.NewKeyset(); err != nil {
		t.Fatal(err)
	}
	if err := store.CreateSession(context.Background(), session, nil); err != nil {
		t.Fatal(err)
	}
	return w
}

// claim makes a new owner, whose journal it returns; the one before is fenced.
func (w *world) claim() *journal.Journal {
	w.t.Helper()
	ctx := context.Background()
	owner, err := statetest.Take(ctx, w.store, session, fmt.Sprint("w-", time.Now().UnixNano()))
	if err != nil {
		w.t.Fatal(err)
	}
	j, err := journal.Open(ctx, journal.Config{Store: w.store, Fence: owner.Fence(), Fleet: w.fleet, Vault: w.vault, Now: w.now,
		Retry: 200 * time.Millisecond, Sinks: w.sinks,
		Committed: func(events []state.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, events...)
		},
		Broken: func(err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.broken = append(w.broken, err)
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(j.Close)
	return j
}

func (w *world) config(j *journal.Journal) device.Config {
	c := device.Config{Journal: j, Store: w.store, Vault: w.vault, Master: w.master, Session: session, Now: w.now,
		Quarantine: time.Hour, ReadWait: 200 * time.Millisecond, LockWait: 5 * time.Second,
		Poison: func(err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.poison = append(w.poison, err)
		}}
	if w.tune != nil {
		w.tune(&c)
	}
	return c
}

// open opens the session's device under a new owner.
func (w *world) open() *device.Device {
	w.t.Helper()
	d, err := device.Open(context.Background(), w.config(w.claim()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(d.Close)
	return d
}

// paired opens the device and pairs it.
func (w *world) paired() *device.Device {
	w.t.Helper()
	d := w.open()
	libtest.Pair(w.t, d.Library())
	if _, err := d.Library().PreKeys.UploadedPreKeyCount(context.Background()); err != nil { // as after a login
		w.t.Fatal(err)
	}
	return d
}

func (w *world) poisoned() []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]error{}, w.poison...)
}

func (w *world) committed() []state.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]state.Event{}, w.events...)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Fatalf("got %v, want %v", err, target)
		}
	}
}
