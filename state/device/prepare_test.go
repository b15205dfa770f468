package device_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// watched is a vault and a master key that count, and fail where told so.
type watched struct {
	state.Vault
	master seal.Master
	reads  atomic.Int64
	opens  atomic.Int64 // of keysets
	wraps  atomic.Int64
	vault  error
	key    error
}

func (v *watched) GetObject(ctx context.Context, session, name, version string) ([]byte, error) {
	v.reads.Add(1)
	if v.vault != nil {
		return nil, v.vault
	}
	return v.Vault.GetObject(ctx, session, name, version)
}

// key is the master of a watched.
type watchedKey struct{ *watched }

func (k watchedKey) ID() string { return k.master.ID() }

func (k watchedKey) Wrap(ctx context.Context, plain []byte, bound map[string]string) ([]byte, error) {
	k.wraps.Add(1)
	return k.master.Wrap(ctx, plain, bound)
}

func (k watchedKey) Unwrap(ctx context.Context, wrapped []byte, bound map[string]string) ([]byte, error) {
	k.opens.Add(1)
	if k.key != nil {
		return nil, k.key
	}
	return k.master.Unwrap(ctx, wrapped, bound)
}

// watch puts a watched in front of a world's vault and master key.
func (w *world) watch() *watched {
	v := &watched{Vault: w.vault, master: w.master}
	w.vault, w.master = v, watchedKey{v}
	return v
}

func (w *world) prepare() (*device.Prepared, error) {
	return device.Prepare(context.Background(), device.PrepareConfig{Store: w.store, Vault: w.vault, Master: w.master, Session: session})
}

// TestPrepared: an Open after a Prepare reads META once and asks neither the
// vault nor the master key.
func TestPrepared(t *testing.T) {
	ctx := context.Background()
	count := statetest.Counting(memory.New(time.Now))
	w := newWorld(t, count)
	before := w.paired()
	fill(t, before.Library())
	v := w.watch()
	p, err := w.prepare()
	must(t, err)
	if v.reads.Load() != 1 || v.opens.Load() != 1 {
		t.Fatalf("preparing took %d objects and %d unwrappings", v.reads.Load(), v.opens.Load())
	}
	j := w.claim()
	count.Reset()
	cfg := w.config(j)
	cfg.Prepared = p
	d, err := device.Open(ctx, cfg)
	must(t, err)
	if n := count.Count(); n != 1 || v.reads.Load() != 1 || v.opens.Load() != 1 || v.wraps.Load() != 0 {
		t.Errorf("opening took %d calls of the store, %d objects, %d unwrappings", n, v.reads.Load()-1, v.opens.Load()-1)
	}
	same(t, d.Library(), before.Library())
	if got, err := d.Library().Sessions.GetSession(ctx, "1:0"); err != nil || string(got) != "ratchet" {
		t.Errorf("a record reads %q, %v", got, err)
	}
	d.Close()
	// It serves once.
	d, err = device.Open(ctx, cfg)
	must(t, err)
	same(t, d.Library(), before.Library())
	if v.reads.Load() != 2 || v.opens.Load() != 2 {
		t.Errorf("the second time took %d objects, %d unwrappings", v.reads.Load()-1, v.opens.Load()-1)
	}
	d.Close()
}

// TestPreparedIsOutOfDate: what has changed since it was prepared is loaded anew.
func TestPreparedIsOutOfDate(t *testing.T) {
	ctx := context.Background()
	for name, change := range map[string]func(*testing.T, *world, *device.Device){
		"credentials were saved": func(t *testing.T, _ *world, d *device.Device) {
			d.Library().PushName = "another"
			must(t, d.Library().Save(ctx))
		},
		"the keyset has a new key": func(t *testing.T, _ *world, d *device.Device) {
			must(t, d.Rotate(ctx))
			must(t, d.Library().Sessions.PutSession(ctx, "1:0", []byte("rotated")))
		},
		"the keyset is wrapped anew": func(t *testing.T, _ *world, d *device.Device) { must(t, d.Rewrap(ctx)) },
		"it is of another session": func(t *testing.T, w *world, _ *device.Device) {
			must(t, w.store.CreateSession(ctx, "other", nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, memory.New(time.Now))
			before := w.paired()
			fill(t, before.Library())
			v := w.watch()
			p, err := w.prepare()
			must(t, err)
			change(t, w, before)
			if name == "it is of another session" {
				p, err = device.Prepare(ctx, device.PrepareConfig{Store: w.store, Vault: w.vault, Master: w.master, Session: "other"})
				must(t, err)
			}
			cfg := w.config(w.claim())
			cfg.Prepared = p
			d, err := device.Open(ctx, cfg)
			must(t, err)
			same(t, d.Library(), before.Library())
			want, err := before.Library().Sessions.GetSession(ctx, "1:0")
			if got, err2 := d.Library().Sessions.GetSession(ctx, "1:0"); err2 != nil || string(got) != string(want) && err == nil {
				t.Errorf("a record reads %q, %v", got, err2)
			}
			if v.reads.Load() != 2 {
				t.Errorf("%d objects were read", v.reads.Load())
			}
			d.Close()
		})
	}
}

// TestPreparedAges: what was prepared long ago is not used.
func TestPreparedAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memory.New(time.Now))
		w.paired()
		v := w.watch()
		for wait, reads := range map[time.Duration]int64{device.DefaultPreparedFor - time.Second: 1, device.DefaultPreparedFor: 2} {
			v.reads.Store(0)
			p, err := w.prepare()
			must(t, err)
			cfg := w.config(w.claim())
			time.Sleep(wait)
			cfg.Prepared = p
			d, err := device.Open(context.Background(), cfg)
			must(t, err)
			d.Close()
			if v.reads.Load() != reads {
				t.Errorf("after %s: %d objects read, want %d", wait, v.reads.Load(), reads)
			}
		}
	})
}

// TestPrepareFails: what cannot be loaded now is an error; what is missing or
// damaged for good is none, and Open says it.
func TestPrepareFails(t *testing.T) {
	ctx := context.Background()
	down := fmt.Errorf("%w: injected", state.ErrUnavailable)
	t.Run("the vault is down", func(t *testing.T) {
		w := newWorld(t, memory.New(time.Now))
		w.paired()
		w.watch().vault = down
		_, err := w.prepare()
		wantErr(t, err, state.ErrUnavailable)
	})
	t.Run("the master key does not answer", func(t *testing.T) {
		w := newWorld(t, memory.New(time.Now))
		w.paired()
		w.watch().key = down
		_, err := w.prepare()
		wantErr(t, err, state.ErrUnavailable)
	})
	t.Run("the store does not answer", func(t *testing.T) {
		fault := statetest.Fault(memory.New(time.Now))
		w := newWorld(t, fault)
		w.paired()
		fault.FailBefore(statetest.Of(statetest.Get), 1, nil)
		_, err := w.prepare()
		wantErr(t, err, state.ErrUnavailable)
	})
	stale := func(name string, spoil func(*testing.T, *world)) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, memory.New(time.Now))
			w.paired()
			spoil(t, w)
			p, err := w.prepare()
			must(t, err)
			cfg := w.config(w.claim())
			cfg.Prepared = p
			d, err := device.Open(ctx, cfg)
			if as := (*device.StaleError)(nil); !errors.As(err, &as) || d == nil {
				t.Fatalf("got %v", err)
			}
			d.Close()
		})
	}
	stale("the object is missing", func(t *testing.T, w *world) {
		must(t, w.vault.DeleteObject(ctx, session, w.objects()[0], ""))
	})
	stale("the object was swapped with another session's", func(t *testing.T, w *world) {
		w.swapObject(ctx)
	})
	stale("another master key", func(t *testing.T, w *world) {
		var err error
		w.master, err = seal.CreateFile(filepath.Join(t.TempDir(), "master.key"))
		must(t, err)
	})
	stale("META is garbage", func(t *testing.T, w *world) {
		j := w.claim()
		must(t, w.store.Commit(ctx, j.Fence(), "", []state.Write{state.Put(state.KindMeta, "", []byte("garbage"))}))
	})
	t.Run("a session without credentials", func(t *testing.T) {
		w := newWorld(t, memory.New(time.Now))
		p, err := w.prepare()
		must(t, err)
		cfg := w.config(w.claim())
		cfg.Prepared = p
		d, err := device.Open(ctx, cfg)
		must(t, err)
		if d.Paired() {
			t.Error("paired")
		}
		d.Close()
		p.Discard()
	})
	if _, err := device.Prepare(ctx, device.PrepareConfig{}); err == nil {
		t.Error("prepared nothing")
	}
}

// swapObject puts the credential object of another session, of the same master
// key, in the place of this one's.
func (w *world) swapObject(ctx context.Context) {
	w.t.Helper()
	other := newWorld(w.t, memory.New(time.Now))
	other.master = w.master
	other.paired()
	body, err := other.vault.GetObject(ctx, session, other.objects()[0], "")
	must(w.t, err)
	name := w.objects()[0]
	must(w.t, w.vault.DeleteObject(ctx, session, name, ""))
	_, err = w.vault.PutObject(ctx, session, name, body)
	must(w.t, err)
}

// TestDiscarded: what was discarded is not used.
func TestDiscarded(t *testing.T) {
	w := newWorld(t, memory.New(time.Now))
	before := w.paired()
	v := w.watch()
	p, err := w.prepare()
	must(t, err)
	p.Discard()
	cfg := w.config(w.claim())
	cfg.Prepared = p
	d, err := device.Open(context.Background(), cfg)
	must(t, err)
	same(t, d.Library(), before.Library())
	if v.reads.Load() != 2 {
		t.Errorf("%d objects read", v.reads.Load())
	}
	// What a Device has taken is not touched.
	if p, err = w.prepare(); err != nil {
		t.Fatal(err)
	}
	cfg = w.config(w.claim())
	cfg.Prepared = p
	d, err = device.Open(context.Background(), cfg)
	must(t, err)
	p.Discard()
	same(t, d.Library(), before.Library())
	(*device.Prepared)(nil).Discard()
}
