package device_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// story is what happens between a session and one contact: messages both ways,
// and prekeys given out. It can be told again after a crash: what was answered
// is not repeated, what was not is.
type story struct {
	t        *testing.T
	w        *world
	c        *contact
	inbox    []envelope // at the server, until answered
	answered map[string]bool
	sent     map[string]bool
	preKeys  map[uint32][32]byte // public keys that were handed out, by id
}

// tell goes through the story until it ends, or the connection is cut. It
// returns false if it was cut.
func (s *story) tell(d *device.Device) bool {
	cl := newClient(s.w, d)
	ctx := context.Background()
	for i := range 4 {
		id := fmt.Sprint("out", i)
		if i > 0 && !s.sent[id] {
			if err := send(cl, s.c, id, id); err != nil {
				return false
			}
			s.sent[id] = true
		}
		for _, e := range s.inbox[i : i+1] {
			if s.answered[e.id] {
				continue
			}
			if answer := cl.receive(s.c.jid, e); answer == "" {
				return false
			} else if answer != "receipt" {
				s.t.Errorf("%s: answered %q", e.id, answer)
			}
			s.answered[e.id] = true
		}
		keys, err := d.Library().PreKeys.GetOrGenPreKeys(ctx, uint32(2*i+1))
		if err != nil {
			return false
		}
		one, err := d.Library().PreKeys.GenOnePreKey(ctx)
		if err != nil {
			return false
		}
		if _, twice := s.preKeys[one.KeyID]; twice {
			s.t.Errorf("prekey id %d was given out twice", one.KeyID)
		}
		keys = append(keys, one)
		for _, k := range keys {
			if other, again := s.preKeys[k.KeyID]; again && other != *k.Pub {
				s.t.Errorf("prekey id %d was used for two keys", k.KeyID)
			}
			s.preKeys[k.KeyID] = *k.Pub
		}
		if err := d.Library().PreKeys.MarkPreKeysAsUploaded(ctx, keys[len(keys)-2].KeyID); err != nil {
			return false
		}
	}
	return true
}

// TestCrashAnywhere kills the owner at each call of the store, before the call
// took effect and after, and has the next owner go on: every message becomes one
// event, the contact can read everything, and no prekey id is used twice.
func TestCrashAnywhere(t *testing.T) {
	calls := 0
	for n := 1; n == 1 || n <= calls; n++ {
		for _, after := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) { calls = crashAt(t, n, after) })
			if t.Failed() {
				t.Fatalf("crash at call %d of %d, after its effect: %v", n, calls, after)
			}
		}
	}
	t.Logf("%d store calls, each failed before and after its effect", calls)
	if calls < 20 {
		t.Fatalf("the story has %d store calls only", calls)
	}
}

func crashAt(t *testing.T, n int, after bool) (calls int) {
	fault := statetest.Fault(memory.New(time.Now))
	w := newWorld(t, fault)
	d := w.paired()
	s := &story{t: t, w: w, c: newContact(t), answered: make(map[string]bool), sent: make(map[string]bool), preKeys: make(map[uint32][32]byte)}
	for i := range 4 {
		id := fmt.Sprint("in", i)
		s.inbox = append(s.inbox, s.c.write(ours, d.Library(), id, id))
	}
	begun := fault.Calls()
	dead := false
	match := func(c statetest.Call) bool {
		dead = dead || c.N == begun+n
		return dead
	}
	if after {
		fault.FailAfter(func(c statetest.Call) bool { return c.N == begun+n }, 1, nil)
		fault.FailBefore(func(c statetest.Call) bool { return c.N > begun+n }, -1, nil)
	} else {
		fault.FailBefore(match, -1, nil)
	}
	if s.tell(d) {
		calls = fault.Calls() - begun // the crash came too late for anything
		if calls > n {
			t.Errorf("the story ended although the store had gone at call %d of %d", n, calls)
		}
	} else {
		if len(w.poisoned()) == 0 {
			t.Error("the connection was not cut")
		}
		calls = n + 1
	}
	d.Close()
	fault.Heal()
	w.poison = nil
	if !s.tell(w.open()) {
		t.Fatalf("the next owner fails: %v", w.poisoned())
	}
	page, err := fault.Query(context.Background(), state.OfSession(session), state.Query{Kind: state.KindEvent})
	must(t, err)
	seen := make(map[string]int)
	for i, r := range page.Records {
		var e state.StoredEvent
		must(t, state.Decode(r.Value, &e))
		if seen[e.ID]++; seen[e.ID] > 1 {
			t.Errorf("%s became two events", e.ID)
		}
		if r.Key.ID != state.EventID(uint64(i+1)) {
			t.Errorf("event %d has sequence number %s", i+1, r.Key.ID)
		}
	}
	if len(seen) != 4 {
		t.Errorf("%d of 4 messages became events: %v", len(seen), seen)
	}
	if len(s.c.rejected) > 0 {
		t.Errorf("the contact could not read: %v", s.c.rejected)
	}
	for i := 1; i < 4; i++ {
		if s.c.got[fmt.Sprint("out", i)] == 0 {
			t.Errorf("text %d was lost", i)
		}
	}
	return calls
}

// TestPoison: whatever operation fails, also those whose errors the library only
// logs, the connection is cut before it returns, once, and nothing works after.
func TestPoison(t *testing.T) {
	ctx := context.Background()
	a := types.JID{User: "1", Server: types.DefaultUserServer}
	l := types.JID{User: "101", Server: types.HiddenUserServer}
	for name, operation := range map[string]func(d *device.Device) error{
		"GetLIDForPN":   func(d *device.Device) error { _, err := d.Library().LIDs.GetLIDForPN(ctx, a); return err },
		"PutLIDMapping": func(d *device.Device) error { return d.Library().LIDs.PutLIDMapping(ctx, l, a) },
		"PutSenderKey": func(d *device.Device) error {
			return d.Library().SenderKeys.PutSenderKey(ctx, "g@g.us", "1:0", []byte("x"))
		},
		"GetSenderKey": func(d *device.Device) error {
			_, err := d.Library().SenderKeys.GetSenderKey(ctx, "g@g.us", "1:0")
			return err
		},
		"PutMessageSecret": func(d *device.Device) error {
			return d.Library().MsgSecrets.PutMessageSecret(ctx, a, a, "M", []byte("x"))
		},
		"PutPushName": func(d *device.Device) error { _, _, err := d.Library().Contacts.PutPushName(ctx, a, "x"); return err },
		"GetSession":  func(d *device.Device) error { _, err := d.Library().Sessions.GetSession(ctx, "1:0"); return err },
		"GetBufferedEvent": func(d *device.Device) error {
			_, err := d.Library().EventBuffer.GetBufferedEvent(ctx, [32]byte{1})
			return err
		},
		"GetOrGenPreKeys": func(d *device.Device) error { _, err := d.Library().PreKeys.GetOrGenPreKeys(ctx, 5); return err },
		"GetAllContacts":  func(d *device.Device) error { _, err := d.Library().Contacts.GetAllContacts(ctx); return err },
		"MigratePNToLID":  func(d *device.Device) error { return d.Library().Sessions.MigratePNToLID(ctx, a, l) },
		"Save":            func(d *device.Device) error { return d.Library().Save(ctx) },
		"Stage": func(d *device.Device) error {
			return d.Stage(journal.Batch{Events: []journal.Draft{{Type: state.EventMessage}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fault := statetest.Fault(memory.New(time.Now))
				w := newWorld(t, fault)
				d := w.paired()
				cut := 0
				fault.FailBefore(nil, -1, nil)
				err := operation(d)
				cut = len(w.poisoned())
				wantErr(t, err, context.Canceled, state.ErrUnavailable)
				if cut != 1 {
					t.Fatalf("cut %d times before the operation returned", cut)
				}
				fault.Heal()
				for range 2 {
					wantErr(t, operation(d), context.Canceled)
				}
				has, err := d.Library().Sessions.HasSession(ctx, "9:0")
				wantErr(t, err, context.Canceled)
				if has || len(w.poisoned()) != 1 {
					t.Fatal("poisoned once, for good")
				}
				wantErr(t, d.BeforeSend("ack"), context.Canceled)
			})
		})
	}
}

// TestPassingFault: a store that answers again in time is no failure.
func TestPassingFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := statetest.Fault(memory.New(time.Now))
		w := newWorld(t, fault)
		d := w.paired()
		cl, c := newClient(w, d), newContact(t)
		for i := range 6 {
			id := fmt.Sprint("m", i)
			e := c.write(ours, cl.dev, id, id)
			if i%2 == 0 {
				fault.FailBefore(nil, 2, nil)
			} else {
				fault.FailAfter(statetest.Of(statetest.Commit), 2, nil)
			}
			if answer := cl.receive(c.jid, e); answer != "receipt" {
				t.Fatalf("%s: answered %q, %v", id, answer, w.poisoned())
			}
		}
		if n := len(w.committed()); n != 6 {
			t.Fatalf("%d events", n)
		}
	})
}

// TestFenced: an owner that another has followed writes nothing, and answers
// nothing.
func TestFenced(t *testing.T) {
	w := newWorld(t, memory.New(time.Now))
	cl, c := newClient(w, w.paired()), newContact(t)
	cl.receive(c.jid, c.write(ours, cl.dev, "m0", "m0"))
	e := c.write(ours, cl.dev, "m1", "m1")
	next := w.open()
	if answer := cl.receive(c.jid, e); answer != "" {
		t.Fatalf("the old owner answered %q", answer)
	}
	wantErr(t, cl.d.Err(), state.ErrFenced)
	if len(w.broken) != 1 {
		t.Fatalf("the journal broke %d times", len(w.broken))
	}
	w.poison = nil
	cl = newClient(w, next)
	if answer := cl.receive(c.jid, e); answer != "receipt" {
		t.Fatalf("answered %q", answer)
	}
	if n := len(w.committed()); n != 2 {
		t.Fatalf("%d events", n)
	}
}

// TestAppStateCrash: between the three calls that store a patch, and between the
// commits of a large one, a crash leaves the old state or none, never a mixture.
func TestAppStateCrash(t *testing.T) {
	ctx := context.Background()
	for _, size := range []int{3, 3000} {
		for n := 1; ; n++ {
			fault := statetest.Fault(memory.New(time.Now))
			w := newWorld(t, fault)
			w.paired() // patient: a loaded machine is slow
			w.tune = func(c *device.Config) { c.ReadWait = 20 * time.Millisecond }
			d := w.open()
			w.tune = nil
			put := func(d *device.Device, version uint64, from int) error {
				return putAppState(d.Library().AppState, version, from, size)
			}
			must(t, put(d, 1, 0))
			begun := fault.Calls()
			crash := errors.New("crash")
			fault.FailBefore(func(c statetest.Call) bool { return c.N >= begun+n }, -1, crash)
			err := put(d, 2, 10_000)
			fault.Heal()
			d = w.open()
			version, _, verr := d.Library().AppState.GetAppStateVersion(ctx, "regular")
			must(t, verr)
			have := func(i int) bool {
				mac, err := d.Library().AppState.GetAppStateMutationMAC(ctx, "regular", index(i))
				must(t, err)
				return mac != nil
			}
			switch {
			case version == 1 && (!have(0) || have(10_000) || have(10_000+size-1)),
				version == 2 && (have(0) || !have(10_000) || !have(10_000+size-1)),
				err == nil && version != 2:
				t.Fatalf("%d MACs, crash at call %d: version %d with the MACs of another", size, n, version)
			}
			if err == nil {
				break
			}
		}
	}
}
