package worker

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/state/statetest/libtest"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// backup is a store as it was at a backup: paired sessions, and a worker that was
// alive then.
type backup struct {
	t      *testing.T
	store  *memory.Store
	vault  state.Vault
	master seal.Master
	keyset *seal.Keyset
}

func newBackup(t *testing.T, sessions ...string) *backup {
	t.Helper()
	b := &backup{t: t, store: memory.New(time.Now), vault: memory.NewVault()}
	var err error
	if b.master, err = seal.CreateFile(filepath.Join(t.TempDir(), "key")); err != nil {
		t.Fatal(err)
	}
	if b.keyset, err = OpenKeyset(t.Context(), b.store, b.master); err != nil {
		t.Fatal(err)
	}
	for _, name := range sessions {
		value, err := state.Encode(state.Spec{V: state.Format, Name: name, Wanted: state.WantRunning, Generation: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.store.CreateSession(t.Context(), name, []state.Write{state.Put(state.KindSpec, "", value)}); err != nil {
			t.Fatal(err)
		}
		b.pair(name, "w-old")
	}
	return b
}

// pair gives a session credentials, under an owner that keeps it.
func (b *backup) pair(name, owner string) {
	b.t.Helper()
	ctx := b.t.Context()
	o, err := statetest.Take(ctx, b.store, name, owner)
	if err != nil {
		b.t.Fatal(err)
	}
	jrn, err := journal.Open(ctx, journal.Config{Store: b.store, Fence: o.Fence(), Fleet: b.keyset})
	if err != nil {
		b.t.Fatal(err)
	}
	defer jrn.Close()
	d, err := device.Open(ctx, device.Config{Journal: jrn, Store: b.store, Vault: b.vault, Master: b.master, Session: name})
	if err != nil {
		b.t.Fatal(err)
	}
	defer d.Close()
	libtest.Pair(b.t, d.Library())
	b.commit(jrn, state.KindStatus, "", state.Status{V: state.Format, State: state.Online, Paired: true, Holding: true, Since: time.Now()})
	for id, item := range map[string]state.Outbox{
		"01SENT":   {State: state.OutSent},
		"02QUEUED": {State: state.OutQueued},
		"03LATER":  {State: state.OutQueued, SendAt: time.Now().Add(24 * time.Hour)},
	} {
		item.V, item.ID, item.MessageID = state.Format, id, "M"+id
		b.commit(jrn, state.KindOutbox, id, item)
	}
}

func (b *backup) commit(jrn *journal.Journal, kind state.Kind, id string, doc any) {
	b.t.Helper()
	value, err := state.Encode(doc)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := jrn.Commit(b.t.Context(), journal.Batch{Writes: []state.Write{state.Put(kind, id, value)}}); err != nil {
		b.t.Fatal(err)
	}
}

// config joins as a tool does.
func (b *backup) config(store state.Store, identity, incarnation string) AdoptConfig {
	b.t.Helper()
	if _, err := b.store.Join(b.t.Context(), incarnation, state.MemberInfo{Tool: true}); err != nil {
		b.t.Fatal(err)
	}
	return AdoptConfig{Store: store, Vault: b.vault, Master: b.master, Keyset: b.keyset, Identity: identity,
		Incarnation: incarnation, Takeover: 12 * time.Second, Quarantine: time.Hour}
}

func read[T any](t *testing.T, store state.Store, session string, kind state.Kind, id string) (doc T) {
	t.Helper()
	rec, err := store.Get(t.Context(), state.OfSession(session), state.Key{Kind: kind, ID: id})
	if err == nil {
		err = state.Decode(rec.Value, &doc)
	}
	if err != nil {
		t.Fatalf("%s %s of %s: %v", kind, id, session, err)
	}
	return doc
}

// demandsPairing checks a session of an adopted store.
func (b *backup) demandsPairing(name string) {
	b.t.Helper()
	st := read[state.Status](b.t, b.store, name, state.KindStatus, "")
	if st.State != state.Unpaired || st.Cause != state.CauseStaleCredentials || st.Paired || st.Holding || !strings.Contains(st.Decision, "restored from a backup") {
		b.t.Errorf("%s: its status is %+v", name, st)
	}
	// Whoever takes it next neither connects nor counts a death.
	r := policy.Resume(policy.Stored{Paired: st.Paired, State: st.State, Cause: st.Cause, CooldownUntil: st.CooldownUntil, NextAttemptAt: st.NextAttemptAt}, time.Now())
	if !r.Parked || r.Poisoned {
		b.t.Errorf("%s: its next owner does not leave it alone: %+v", name, r)
	}
	if m := read[state.Meta](b.t, b.store, name, state.KindMeta, ""); m.Credential != nil || len(m.Keyset) > 0 {
		b.t.Errorf("%s still has credentials", name)
	}
	for id, want := range map[string]state.OutboxState{"01SENT": state.OutSent, "02QUEUED": state.OutFailed, "03LATER": state.OutQueued} {
		if item := read[state.Outbox](b.t, b.store, name, state.KindOutbox, id); item.State != want {
			b.t.Errorf("%s: message %s is %s, want %s", name, id, item.State, want)
		}
	}
	if o, err := b.store.Owner(b.t.Context(), name); err != nil || o.Incarnation != "" {
		b.t.Errorf("%s is owned by %q, %v", name, o.Incarnation, err)
	}
}

func TestIdentityOfAStore(t *testing.T) {
	store := memory.New(time.Now)
	if _, _, err := StoredIdentity(t.Context(), store); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("before its first use: %v", err)
	}
	for range 2 {
		if err := CheckIdentity(t.Context(), store, "a"); err != nil {
			t.Fatal(err)
		}
	}
	var restored *RestoredError
	if err := CheckIdentity(t.Context(), store, "b"); !errors.As(err, &restored) || strings.Contains(err.Error(), "\n") {
		t.Errorf("another identity: %v", err)
	}
	if identity, since, err := StoredIdentity(t.Context(), store); identity != "a" || since.IsZero() || err != nil {
		t.Errorf("it has %q since %v, %v", identity, since, err)
	}
}

func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackup(t, "shop-1", "shop-2")
		ctx := t.Context()
		if err := b.store.CreateSession(ctx, "never-paired", nil); err != nil {
			t.Fatal(err)
		}
		if err := CheckIdentity(ctx, b.store, "original"); err != nil {
			t.Fatal(err)
		}
		if _, err := Adopt(ctx, b.config(b.store, "original", "tool-0")); !errors.Is(err, ErrNotRestored) {
			t.Errorf("a store that is the original: %v", err)
		}
		if err := b.store.DeclareStopped(ctx, "tool-0"); err != nil {
			t.Fatal(err)
		}

		seized := 0
		c := b.config(b.store, "copy", "tool-1")
		c.Seize = func(context.Context) error {
			seized++
			if err := CheckIdentity(ctx, b.store, "copy"); err == nil {
				t.Error("it counts as adopted before it is")
			}
			return nil
		}
		began := time.Now()
		done, err := Adopt(ctx, c)
		if err != nil || done != (Adopted{Sessions: 3, Unpaired: 2, Messages: 2}) || seized != 1 {
			t.Fatalf("%+v, %v, seized %d times", done, err, seized)
		}
		if took := time.Since(began); took < 12*time.Second || took > 14*time.Second {
			t.Errorf("it took %v; the worker of the backup must have stood still for 12 s", took)
		}
		b.demandsPairing("shop-1")
		b.demandsPairing("shop-2")
		if err := CheckIdentity(ctx, b.store, "copy"); err != nil {
			t.Errorf("adopted: %v", err)
		}
		if _, err := Adopt(ctx, b.config(b.store, "copy", "tool-2")); !errors.Is(err, ErrNotRestored) {
			t.Errorf("a second time: %v", err)
		}
	})
}

func TestAdoptRefusesWhileAWorkerLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackup(t, "shop-1")
		if _, err := b.store.Join(t.Context(), "w-new", state.MemberInfo{}); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() {
			beat := time.NewTicker(2 * time.Second)
			defer beat.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-beat.C:
					_ = b.store.Beat(ctx, "w-new", state.Load{}) // it ends with the test
				}
			}
		}()
		done, err := Adopt(ctx, b.config(b.store, "", "tool-1"))
		if err == nil || err.Error() != "a worker is alive on this store: w-new; stop all workers first" || done.Sessions != 0 {
			t.Errorf("%+v, %v", done, err)
		}
		if st := read[state.Status](t, b.store, "shop-1", state.KindStatus, ""); !st.Paired {
			t.Error("a session was unpaired all the same")
		}
	})
}

// Adopt may die anywhere, before a write or after it: what comes after it makes
// nothing of that.
func TestAdoptIsBrokenOff(t *testing.T) {
	for _, after := range []bool{false, true} {
		for broken := 1; ; broken++ {
			ended := false
			synctest.Test(t, func(t *testing.T) { ended = brokenOff(t, broken, after) })
			if ended {
				if broken < 20 {
					t.Errorf("it was broken off at %d places only", broken-1)
				}
				break
			}
		}
	}
}

// brokenOff has Adopt die with its n-th call of the store; true if it ended
// before.
func brokenOff(t *testing.T, n int, after bool) bool {
	b := newBackup(t, "shop-1", "shop-2", "shop-3")
	ctx := t.Context()
	if err := CheckIdentity(ctx, b.store, "original"); err != nil {
		t.Fatal(err)
	}
	dying := statetest.Fault(b.store)
	calls := 0
	fail := dying.FailBefore
	if after {
		fail = dying.FailAfter
	}
	fail(func(statetest.Call) bool {
		calls++
		return calls >= n
	}, -1, state.ErrUnavailable)
	_, err := Adopt(ctx, b.config(dying, "copy", "tool-1"))
	if err == nil {
		return true
	}
	// The last write may have happened although its answer was lost.
	var restored *RestoredError
	if err := CheckIdentity(ctx, b.store, "copy"); errors.As(err, &restored) {
		if _, err := Adopt(ctx, b.config(b.store, "copy", "tool-2")); err != nil {
			t.Fatalf("after it was broken off at call %d: %v", n, err)
		}
	} else if err != nil || !after {
		t.Fatalf("broken off at call %d it counts as adopted: %v", n, err)
	}
	for _, name := range []string{"shop-1", "shop-2", "shop-3"} {
		b.demandsPairing(name)
	}
	return false
}

// A record that cannot be read keeps nobody from the others.
func TestAdoptWithADamagedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackup(t, "shop-1", "shop-2")
		o, err := b.store.Owner(t.Context(), "shop-1")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.store.Commit(t.Context(), o.Fence(), "", []state.Write{state.Put(state.KindMeta, "", []byte("garbage"))}); err != nil {
			t.Fatal(err)
		}
		done, err := Adopt(t.Context(), b.config(b.store, "", "tool-1"))
		if err != nil || done.Unpaired != 1 || done.Unreadable != 1 || done.Sessions != 2 {
			t.Errorf("%+v, %v", done, err)
		}
		b.demandsPairing("shop-2")
	})
}

func TestTheFleetsKeyset(t *testing.T) {
	ctx := t.Context()
	store := memory.New(time.Now)
	var keys []seal.Master
	for _, name := range []string{"one", "two"} {
		m, err := seal.CreateFile(filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, m)
	}
	if _, err := KeysetMaster(ctx, store); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("before the first use: %v", err)
	}
	running, err := OpenKeyset(ctx, store, keys[0])
	if err != nil {
		t.Fatal(err)
	}
	place := seal.Place{Partition: state.Fleet, Kind: state.KindFleet, ID: "X"}
	old, err := running.Seal(place, []byte("old"))
	if err != nil {
		t.Fatal(err)
	}

	var wrong *seal.WrongMasterError
	if _, err := OpenKeyset(ctx, store, keys[1]); !errors.As(err, &wrong) {
		t.Errorf("with another master key: %v", err)
	}
	if _, err := RewrapKeyset(ctx, store, keys[1]); !errors.As(err, &wrong) {
		t.Errorf("rewrapped without the old key: %v", err)
	}
	both := seal.WithFormer(keys[1], keys[0])
	for i, want := range []bool{true, false} {
		if changed, err := RewrapKeyset(ctx, store, both); changed != want || err != nil {
			t.Errorf("rewrapped, time %d: %v, %v", i+1, changed, err)
		}
	}
	if id, err := KeysetMaster(ctx, store); id != keys[1].ID() || err != nil {
		t.Errorf("it is wrapped with %s, %v", id, err)
	}

	// A rotation elsewhere: a process that runs opens what is sealed with the new key.
	running, err = OpenKeyset(ctx, store, keys[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := RotateKeyset(ctx, store, keys[1]); err != nil {
		t.Fatal(err)
	}
	elsewhere, err := OpenKeyset(ctx, store, keys[1])
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := elsewhere.Seal(place, []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*seal.Keyset{running, elsewhere} {
		for want, sealed := range map[string][]byte{"old": old, "new": fresh} {
			if got, err := k.Open(place, sealed); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", want, got, err)
			}
		}
	}
	if elsewhere.ID() != running.ID() || elsewhere.Keys() != 2 {
		t.Errorf("keysets %s and %s, %d keys", running.ID(), elsewhere.ID(), elsewhere.Keys())
	}
}
