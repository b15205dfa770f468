package device_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

func newMaster(t *testing.T) seal.Master {
	t.Helper()
	m, err := seal.CreateFile(filepath.Join(t.TempDir(), "master.key"))
	must(t, err)
	return m
}

// twoKeys wraps with one key and unwraps with an older one as well.
type twoKeys struct {
	seal.Master
	old seal.Master
}

func (k twoKeys) Unwrap(ctx context.Context, wrapped []byte, bound map[string]string) ([]byte, error) {
	id, _, err := seal.WrappedWith(wrapped)
	if err != nil {
		return nil, err
	}
	if id == k.old.ID() {
		return k.old.Unwrap(ctx, wrapped, bound)
	}
	return k.Master.Unwrap(ctx, wrapped, bound)
}

// TestRewrap: the keysets are wrapped with another master key, the quarantined
// one as well; the Device goes on, and the next owner needs the new key.
func TestRewrap(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, memory.New(time.Now))
	first := w.paired()
	must(t, first.Quarantine(ctx, state.CauseLoggedOut, journal.Batch{}))
	d := w.paired()
	fill(t, d.Library())
	to := newMaster(t)
	must(t, d.RewrapTo(ctx, to))
	m := w.meta()
	for _, wrapped := range [][]byte{m.Keyset, m.Quarantined[0].Keyset} {
		if id, _, err := seal.WrappedWith(wrapped); err != nil || id != to.ID() {
			t.Errorf("wrapped with %s, %v", id, err)
		}
	}
	must(t, d.Library().Sessions.PutSession(ctx, "1:0", []byte("after")))
	d.Library().PushName = "after"
	must(t, d.Library().Save(ctx))
	w.master = to
	next := w.open()
	same(t, next.Library(), d.Library())
	if got, err := next.Library().Sessions.GetSession(ctx, "1:0"); err != nil || string(got) != "after" {
		t.Errorf("a record reads %q, %v", got, err)
	}
	findings, err := device.Verify(ctx, w.config(w.claim()))
	must(t, err)
	if len(findings) > 0 {
		t.Error(findings)
	}
	// Without a Device, and to a key that cannot be used.
	again := newMaster(t)
	cfg := w.config(w.claim())
	must(t, device.Rewrap(ctx, cfg, again))
	broken := &watched{master: newMaster(t), key: fmt.Errorf("%w: injected", state.ErrUnavailable)}
	cfg.Master = again
	wantErr(t, device.Rewrap(ctx, cfg, watchedKey{broken}), state.ErrUnavailable)
	w.master = again
	w.open()
}

// TestRewrapWhilePairing: a keyset that is not stored yet is stored with the new
// key.
func TestRewrapWhilePairing(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, memory.New(time.Now))
	d := w.open()
	to := newMaster(t)
	must(t, d.RewrapTo(ctx, to))
	must(t, d.Rotate(ctx))
	must(t, d.Library().Sessions.PutSession(ctx, "1:0", []byte("x")))
	if id, _, _ := seal.WrappedWith(w.meta().Keyset); id != to.ID() {
		t.Errorf("wrapped with %s", id)
	}
}

// TestLazyRewrap: an Open that finds an old master key's wrapping changes it, and
// one that cannot goes on all the same.
func TestLazyRewrap(t *testing.T) {
	w := newWorld(t, memory.New(time.Now))
	old := w.paired()
	failing := &watched{master: newMaster(t)}
	failing.key = fmt.Errorf("%w: injected", state.ErrUnavailable)
	w.master = twoKeys{watchedKey{failing}, w.master}
	same(t, w.open().Library(), old.Library())
	failing.key = nil
	same(t, w.open().Library(), old.Library())
	if id, _, _ := seal.WrappedWith(w.meta().Keyset); id != failing.master.ID() {
		t.Fatalf("wrapped with %s", id)
	}
	n := failing.opens.Load()
	same(t, w.open().Library(), old.Library())
	if failing.opens.Load() != n+1 {
		t.Errorf("%d unwrappings once it is done", failing.opens.Load()-n)
	}
}

// TestRotate: after a rotation what is written is sealed with a new key, and
// what was written before stays readable, for this owner and the next.
func TestRotate(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, memory.New(time.Now))
	d := w.paired()
	fill(t, d.Library())
	sealedWith := func() string { // the id of the key that a record was sealed with
		t.Helper()
		page, err := w.store.Query(ctx, state.OfSession(session), state.Query{Kind: state.KindSignal})
		must(t, err)
		return fmt.Sprintf("%x", page.Records[0].Value[3:7])
	}
	before := sealedWith()
	wrapped := w.meta().Keyset
	must(t, d.Rotate(ctx))
	if string(w.meta().Keyset) == string(wrapped) {
		t.Fatal("META has the old keyset")
	}
	if sealedWith() != before {
		t.Fatal("a record was rewritten by the rotation itself")
	}
	if got, err := d.Library().Sessions.GetSession(ctx, "1:0"); err != nil || string(got) != "ratchet" {
		t.Fatalf("an old record reads %q, %v", got, err)
	}
	must(t, d.Library().Sessions.PutSession(ctx, "1:0", []byte("newer")))
	if sealedWith() == before {
		t.Error("written with the old key")
	}
	must(t, d.Rotate(ctx))
	must(t, d.Library().Save(ctx))
	next := w.open()
	same(t, next.Library(), d.Library())
	if trusted, err := next.Library().Identities.IsTrustedIdentity(ctx, "1:0", [32]byte{2}); err != nil || trusted {
		t.Errorf("an old identity: %v, %v", trusted, err)
	}
	if got, err := next.Library().Sessions.GetSession(ctx, "1:0"); err != nil || string(got) != "newer" {
		t.Errorf("a record reads %q, %v", got, err)
	}
	findings, err := device.Verify(ctx, w.config(w.claim()))
	must(t, err)
	if len(findings) > 0 {
		t.Error(findings)
	}
}

// TestRekeyCrash: a rewrap or rotation whose commit fails, or whose answer is
// lost, leaves credentials that open.
func TestRekeyCrash(t *testing.T) {
	ctx := context.Background()
	for _, rotate := range []bool{false, true} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("rotate %v, answer lost %v", rotate, after), func(t *testing.T) {
				fault := statetest.Fault(memory.New(time.Now))
				w := newWorld(t, fault)
				d := w.paired()
				fill(t, d.Library())
				old, to := w.master, newMaster(t)
				if after {
					fault.FailAfter(statetest.Of(statetest.Commit), -1, nil)
				} else {
					fault.FailBefore(statetest.Of(statetest.Commit), -1, nil)
				}
				var err error
				if rotate {
					err = d.Rotate(ctx)
				} else {
					err = d.RewrapTo(ctx, to)
				}
				wantErr(t, err, state.ErrUnavailable)
				if d.Err() == nil {
					t.Error("not poisoned by a commit of unknown outcome")
				}
				fault.Heal()
				if id, _, err := seal.WrappedWith(w.meta().Keyset); err != nil {
					t.Fatal(err)
				} else if id == to.ID() {
					w.master = to
				} else {
					w.master = old
				}
				same(t, w.open().Library(), d.Library())
			})
		}
	}
}
