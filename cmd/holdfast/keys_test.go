package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/state/statetest/libtest"
)

// keyOwner owns the sessions of a store and carries out what keys asks of them,
// as a worker's actors do.
type keyOwner struct {
	t   *testing.T
	o   *opened
	cfg map[string]device.Config
}

// pairedStore makes a store with sessions that have credentials.
func pairedStore(t *testing.T, cfg Config, sessions ...string) {
	t.Helper()
	w := ownAll(t, cfg, sessions...)
	defer w.o.close()
	for _, name := range sessions {
		d, err := device.Open(t.Context(), w.cfg[name])
		if err != nil {
			t.Fatal(err)
		}
		libtest.Pair(t, d.Library())
		d.Close()
	}
	w.release()
}

// ownAll opens a store as a worker does and claims sessions, which it makes where
// they are not there yet.
func ownAll(t *testing.T, cfg Config, sessions ...string) *keyOwner {
	t.Helper()
	o, err := openState(t.Context(), cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	w := &keyOwner{t: t, o: o, cfg: map[string]device.Config{}}
	for _, name := range sessions {
		_ = o.store.CreateSession(t.Context(), name, nil) // or it is there
		owner, err := statetest.Take(t.Context(), o.store, name, "w-keys")
		if err != nil {
			t.Fatal(err)
		}
		jrn, err := journal.Open(t.Context(), journal.Config{Store: o.store, Fence: owner.Fence(), Fleet: o.keyset})
		if err != nil {
			t.Fatal(err)
		}
		w.cfg[name] = device.Config{Journal: jrn, Store: o.store, Vault: o.vault, Master: o.master, Session: name}
	}
	return w
}

func (w *keyOwner) release() {
	for _, c := range w.cfg {
		c.Journal.Close()
	}
}

// run carries commands out until it is told to stop.
func (w *keyOwner) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			found, err := w.o.store.Indexed(ctx, state.CommandIndex("w-keys"), nil, 100)
			if err != nil {
				continue
			}
			for _, rec := range found {
				w.carryOut(rec)
			}
		}
	})
	return func() {
		cancel()
		ended.Wait()
		w.release()
		w.o.close()
	}
}

func (w *keyOwner) carryOut(rec state.Indexed) {
	name, _ := rec.Partition.Session()
	var c state.Command
	if err := state.Decode(rec.Value, &c); err != nil {
		w.t.Error(err)
		return
	}
	d, err := device.Open(context.Background(), w.cfg[name])
	if err == nil {
		change := d.Rotate
		if c.Verb == state.VerbRewrap {
			change = d.Rewrap
		}
		err = change(context.Background())
		d.Close()
	}
	c.State = state.CommandDone
	if err != nil {
		c.State, c.Problem = state.CommandFailed, err.Error()
	}
	value, err := state.Encode(c)
	if err != nil {
		w.t.Error(err)
		return
	}
	put := state.Put(state.KindCommand, c.ID, value)
	put.Rev = rec.Rev + 1
	if err := w.cfg[name].Journal.Commit(context.Background(), journal.Batch{Writes: []state.Write{put}}); err != nil {
		w.t.Error(err)
	}
}

// beside runs a command over a store that this process has open for a worker; a
// SQLite file is opened once in a process.
func beside(t *testing.T, do func(*app) error) ran {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{now: time.Now, io: IO{Out: &out, Err: &errs}}
	return ran{report(&errs, do(a)), out.String(), errs.String()}
}

// keysets counts the keys of sessions' keysets.
func keysets(t *testing.T, cfg Config, sessions ...string) map[string]int {
	t.Helper()
	o, err := openState(t.Context(), cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	count := map[string]int{}
	for _, name := range sessions {
		rec, err := o.store.Get(t.Context(), state.OfSession(name), state.Key{Kind: state.KindMeta})
		if err != nil {
			t.Fatal(err)
		}
		var m state.Meta
		if err := state.Decode(rec.Value, &m); err != nil {
			t.Fatal(err)
		}
		k, err := seal.Unwrap(t.Context(), o.master, state.OfSession(name), m.Keyset)
		if err != nil {
			t.Fatal(err)
		}
		count[name] = k.Keys()
	}
	return count
}

func TestAChangeOfMasterKeys(t *testing.T) {
	dir := t.TempDir()
	first := settingsOf(t, "HOLDFAST_DATA_DIR="+dir)
	pairedStore(t, first, "shop-1", "shop-2")
	next := writeKey(t)
	environ := []string{"HOLDFAST_DATA_DIR=" + dir, "HOLDFAST_MASTER_KEY=file:" + next, "HOLDFAST_MASTER_KEY_OLD=file:" + filepath.Join(dir, "master.key")}
	status := func() (s KeysStatus) {
		t.Helper()
		r := drive(t, environ, "keys", "status", "--json")
		if err := json.Unmarshal([]byte(r.out), &s); err != nil || r.code != exitDone {
			t.Fatalf("keys status: exit code %d, %v: %s%s", r.code, err, r.out, r.err)
		}
		return s
	}
	before := status()
	if before.Fleet.Present || len(before.Sessions) != 2 || before.Sessions[0].Present || len(before.Former) != 1 || before.Former[0] != before.Sessions[1].With[0] {
		t.Errorf("before: %+v", before)
	}
	r := drive(t, environ, "keys", "status")
	if r.code != exitDone || !strings.Contains(r.out, "0 of 2 sessions with the present master key "+before.MasterKey) ||
		!strings.Contains(r.out, "still needed: "+before.Former[0]) || !strings.Contains(r.out, "a former one") {
		t.Errorf("keys status: exit code %d, %s%s", r.code, r.out, r.err)
	}

	// Nobody owns the sessions: the fleet's keyset is done, they are open.
	r = drive(t, environ, "keys", "rewrap", "--wait", "100ms")
	if r.code != exitFailed || !strings.Contains(r.out, "rewrap: the fleet's keyset changed; 0 sessions done, 0 failed, 2 open") ||
		!strings.Contains(r.err, "keys rewrap: not done after 100ms: shop-1, shop-2; see with holdfast workers that a worker runs, and run it again") {
		t.Errorf("without a worker: exit code %d, %s%s", r.code, r.out, r.err)
	}
	if s := status(); !s.Fleet.Present || s.Sessions[0].Present {
		t.Errorf("without a worker: %+v", s)
	}

	cfg := settingsOf(t, environ...)
	w := ownAll(t, cfg, "shop-1", "shop-2")
	stop := w.run()
	r = beside(t, func(a *app) error { return a.rewrapKeys(t.Context(), w.o, rekeyWithin) })
	if r.code != exitDone || !strings.Contains(r.out, "left as it is; ") || strings.Contains(r.out, "failed: ") {
		t.Errorf("with one: exit code %d, %s%s", r.code, r.out, r.err)
	}
	stop()
	if s := status(); !s.Sessions[0].Present || !s.Sessions[1].Present || len(s.Former) != 0 {
		t.Errorf("with one: %+v", s)
	}

	// The old key is not needed any more.
	environ = environ[:2]
	if r := drive(t, environ, "sessions", "verify"); r.code != exitDone || r.out != "ok    shop-1\nok    shop-2\n" {
		t.Errorf("without the old key: exit code %d, %s%s", r.code, r.out, r.err)
	}
	if r := drive(t, environ, "keys", "rewrap"); r.code != exitDone || !strings.Contains(r.out, "0 sessions done") {
		t.Errorf("once more: exit code %d, %s%s", r.code, r.out, r.err)
	}
	refusedAtStart(t, first, "belongs to a fleet with another master key")
}

func TestANewKeyForEachKeyset(t *testing.T) {
	dir := t.TempDir()
	environ := []string{"HOLDFAST_DATA_DIR=" + dir}
	cfg := settingsOf(t, environ...)
	pairedStore(t, cfg, "shop-1", "shop-2")
	w := ownAll(t, cfg, "shop-1", "shop-2")
	stop := w.run()
	rotate := func(names ...string) ran {
		return beside(t, func(a *app) error { return a.rotateKeys(t.Context(), w.o, names, rekeyWithin) })
	}
	if r := rotate(); r.code != exitDone || !strings.Contains(r.out, "rotate: the fleet's keyset changed; 2 sessions done") {
		t.Errorf("all: exit code %d, %s%s", r.code, r.out, r.err)
	}
	if r := rotate("shop-1"); r.code != exitDone || !strings.Contains(r.out, "rotate: the fleet's keyset left as it is; 1 sessions done, 0 failed, 0 open") {
		t.Errorf("one: exit code %d, %s%s", r.code, r.out, r.err)
	}
	if r := rotate("nobody"); r.code != exitFailed || !strings.Contains(r.err, "session nobody: there is no such session") {
		t.Errorf("one that is not there: exit code %d, %s%s", r.code, r.out, r.err)
	}
	if r := drive(t, environ, "keys", "rotate", "4915112345"); r.code != exitUsage {
		t.Errorf("a name that is none: exit code %d, %s", r.code, r.err)
	}
	stop()
	if m := keysets(t, cfg, "shop-1", "shop-2"); m["shop-1"] != 3 || m["shop-2"] != 2 {
		t.Errorf("keys of the sessions: %v, want 3 and 2", m)
	}
	o, err := openState(t.Context(), cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if o.keyset.Keys() != 2 {
		t.Errorf("the fleet's keyset has %d keys, want 2", o.keyset.Keys())
	}
	o.close()
	if r := drive(t, environ, "sessions", "verify"); r.code != exitDone || r.out != "ok    shop-1\nok    shop-2\n" {
		t.Errorf("afterwards: exit code %d, %s%s", r.code, r.out, r.err)
	}
}

// A new master key is made once, and never over another one.
func TestANewMasterKeyInAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new.key")
	r := drive(t, nil, "keys", "new", file)
	if r.code != exitDone || !strings.HasPrefix(r.out, "file:") || !strings.Contains(r.out, "set master-key to file:"+file) {
		t.Fatalf("exit code %d, %s%s", r.code, r.out, r.err)
	}
	m, err := seal.OpenFile(file)
	if err != nil || !strings.HasPrefix(r.out, m.ID()+" is made") {
		t.Errorf("it says %s, %v", r.out, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if r := drive(t, nil, "keys", "new", file); r.code != exitFailed || r.err != "holdfast: keys: "+file+": is there already; name a file that is not\n" {
		t.Errorf("a second time: exit code %d, %s", r.code, r.err)
	}
	if r := drive(t, nil, "keys", "new", filepath.Join(file, "x")); r.code != exitFailed || strings.Count(r.err, "\n") != 1 {
		t.Errorf("where none can be: exit code %d, %s", r.code, r.err)
	}
}

func TestKeysWithoutAStore(t *testing.T) {
	dir := t.TempDir()
	for _, command := range []string{"status", "rewrap", "rotate"} {
		r := drive(t, []string{"HOLDFAST_DATA_DIR=" + dir}, "keys", command)
		if want := fmt.Sprintf("holdfast: keys: %s/holdfast.db is not there or is empty; check --data-dir and --state\n", dir); r.code != exitFailed || r.err != want {
			t.Errorf("%s: exit code %d, %s", command, r.code, r.err)
		}
	}
}

// An old copy of a SQLite file that was put back cannot be told from the original:
// the operator says so.
func TestAdoptOverSQLite(t *testing.T) {
	environ := []string{"HOLDFAST_DATA_DIR=" + t.TempDir(), "HOLDFAST_HEARTBEAT=100ms", "HOLDFAST_TRUST=300ms", "HOLDFAST_TAKEOVER=600ms"}
	cfg := settingsOf(t, environ...)
	pairedStore(t, cfg, "shop-1")
	running, err := openState(t.Context(), cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if r := drive(t, environ, "adopt", "--restored", "--yes"); r.code != exitFailed || !strings.Contains(r.err, "a holdfast is using it; stop that one first") {
		t.Errorf("beside a worker: exit code %d, %s", r.code, r.err)
	}
	running.close()
	r := drive(t, environ, "adopt", "--restored", "--yes")
	if want := "adopted " + cfg.State.String() + ": 1 sessions, 1 of them to be paired anew, 0 unreadable; 0 messages marked as failed\n"; r.code != exitDone || r.out != want {
		t.Errorf("exit code %d, %s%s", r.code, r.out, r.err)
	}
	r = drive(t, environ, "adopt", "--restored", "--yes")
	if r.code != exitDone || !strings.Contains(r.out, "1 sessions, 0 of them to be paired anew") {
		t.Errorf("a second time: exit code %d, %s%s", r.code, r.out, r.err)
	}
	if s := drive(t, environ, "keys", "status"); s.code != exitDone || !strings.Contains(s.out, "1 of 1 sessions") {
		t.Errorf("what is in quarantine: exit code %d, %s%s", s.code, s.out, s.err)
	}
}
