package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// scene is a store with one paired session and its credentials in a vault.
type scene struct {
	t     *testing.T
	store *statetest.FaultStore
	vault *memory.Vault
	fleet *seal.Keyset
	view  *View
	hand  *Offline
	n     int
}

const shop = "shop"

// meanwhile is a store beside which something happens once, right before a call.
type meanwhile struct {
	state.Store
	claim, declare, commit func()
}

func once(f *func()) {
	if do := *f; do != nil {
		*f = nil
		do()
	}
}

func (m *meanwhile) Claim(ctx context.Context, to string, from ...state.Owner) ([]state.Owner, error) {
	once(&m.claim)
	return m.Store.Claim(ctx, to, from...)
}

func (m *meanwhile) DeclareDead(ctx context.Context, id string, seen uint64) error {
	once(&m.declare)
	return m.Store.DeclareDead(ctx, id, seen)
}

func (m *meanwhile) Commit(ctx context.Context, f state.Fence, token string, writes []state.Write) error {
	once(&m.commit)
	return m.Store.Commit(ctx, f, token, writes)
}

func newScene(t *testing.T) *scene {
	t.Helper()
	keyset, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, store: statetest.Fault(memory.New(time.Now)), vault: memory.NewVault(), fleet: keyset}
	s.view = NewView(ViewConfig{Members: s.store})
	if s.hand, err = New(Config{Store: s.store, Vault: s.vault, Fleet: keyset, View: s.view, Info: state.MemberInfo{Host: "here"}}); err != nil {
		t.Fatal(err)
	}
	s.session(shop)
	return s
}

func (s *scene) do(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) encode(doc any) []byte {
	s.t.Helper()
	b, err := state.Encode(doc)
	s.do(err)
	return b
}

// session makes a paired session of nobody, with one set in quarantine, a shown
// QR and three events.
func (s *scene) session(name string) {
	s.t.Helper()
	ctx := s.t.Context()
	spec := state.Put(state.KindSpec, "", s.encode(state.Spec{V: 1, Name: name, Wanted: state.WantDisconnected, Generation: 7}))
	spec.Rev = 7
	for _, object := range []string{"credential-a", "credential-b"} {
		_, err := s.vault.PutObject(ctx, name, object, []byte("sealed"))
		s.do(err)
	}
	meta := state.Put(state.KindMeta, "", s.encode(state.Meta{V: 1, Keyset: []byte("wrapped"), KeysetID: "k", PreKeyHigh: 812,
		Credential:  &state.ObjectPointer{Version: 1, Name: "credential-a", KeysetID: "k"},
		Quarantined: []state.QuarantinedSet{{Keyset: []byte("older"), KeysetID: "j", Credential: state.ObjectPointer{Name: "credential-b"}}}}))
	meta.Rev = 3
	status := state.Put(state.KindStatus, "", s.encode(state.Status{V: 1, State: state.Online, Paired: true, Holding: true, ObservedGeneration: 6,
		Disconnects: map[state.Cause]int{state.CauseNetwork: 2}}))
	s.do(s.store.CreateSession(ctx, name, []state.Write{spec, meta, status, state.Put(state.KindQR, "", s.encode(state.QRShown{V: 1}))}))
	o, err := statetest.Take(ctx, s.store, name, "made-"+name)
	s.do(err)
	j, err := journal.Open(ctx, journal.Config{Store: s.store, Fence: o.Fence(), Fleet: s.fleet})
	s.do(err)
	defer j.Close()
	s.do(j.Commit(ctx, journal.Batch{Events: []journal.Draft{{Type: state.EventState}, {Type: state.EventQR}, {Type: state.EventState}},
		Writes: []state.Write{state.Put(state.KindSignal, "k.1", []byte("ratchet"))}}))
	s.do(s.store.Release(ctx, o.Fence()))
	s.do(s.store.DeclareStopped(ctx, "made-"+name))
	s.do(s.store.Forget(ctx, "made-"+name))
}

// order puts a command as the admin API does, and returns its id.
func (s *scene) order(name string, verb state.Verb) string {
	s.t.Helper()
	o, err := s.store.Owner(s.t.Context(), name)
	s.do(err)
	s.n++
	id := fmt.Sprintf("%04d", s.n)
	now := time.Now().UTC()
	w := state.Put(state.KindCommand, id, s.encode(state.Command{V: 1, ID: id, Session: name, Verb: verb, State: state.CommandPending, At: now,
		ExpiresAt: now.Add(10 * time.Minute), Args: map[string]string{"generation": "7"}}))
	w.Rev, w.Index = 1, state.CommandIndex(o.Incarnation)
	s.do(s.store.Update(s.t.Context(), state.OfSession(name), []state.Write{w}))
	time.Sleep(time.Millisecond)
	return id
}

func get[T any](s *scene, name string, kind state.Kind, id string) (doc T) {
	s.t.Helper()
	r, err := s.store.Get(context.Background(), state.OfSession(name), state.Key{Kind: kind, ID: id})
	s.do(err)
	s.do(state.Decode(r.Value, &doc))
	return doc
}

func (s *scene) command(name, id string) state.Command {
	s.t.Helper()
	return get[state.Command](s, name, state.KindCommand, id)
}

func (s *scene) try(want bool) {
	s.t.Helper()
	done, err := s.hand.Try(s.t.Context(), shop)
	if done != want || err != nil {
		s.t.Fatalf("done %t, %v; want %t", done, err, want)
	}
}

// rest checks that nothing of the tool is left over.
func (s *scene) rest(name string) {
	s.t.Helper()
	o, err := s.store.Owner(s.t.Context(), name)
	if err == nil && o.Incarnation != "" {
		s.t.Errorf("%s has it", o.Incarnation)
	}
	r, err := s.store.Roster(s.t.Context())
	s.do(err)
	for _, m := range r.Members {
		if m.Info.Tool {
			s.t.Errorf("the roster keeps %s", m.Incarnation)
		}
	}
}

func TestDisconnectWithoutAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.try(false) // nothing was asked for
		before := s.order(shop, state.VerbStart)
		reconcile := s.order(shop, state.VerbReconcile)
		id := s.order(shop, state.VerbDisconnect)
		after := s.order(shop, state.VerbStart)
		var told []string
		s.hand.cfg.Changed = func(name string) { told = append(told, name) }
		s.try(true)
		if len(told) != 1 || told[0] != shop {
			t.Errorf("told of %v", told)
		}
		m := get[state.Meta](s, shop, state.KindMeta, "")
		if m.Credential != nil || m.Keyset != nil || m.KeysetID != "" || m.Quarantined != nil || m.PreKeyHigh != 812 {
			t.Errorf("META %+v", m)
		}
		if left, err := s.vault.ListObjects(t.Context(), shop); err != nil || len(left) != 0 {
			t.Errorf("objects %v, %v", left, err)
		}
		st := get[state.Status](s, shop, state.KindStatus, "")
		if st.State != state.Disconnected || st.Cause != state.CauseDisconnected || st.Paired || st.Holding || st.ObservedGeneration != 7 ||
			st.Disconnects[state.CauseDisconnected] != 1 || st.Disconnects[state.CauseNetwork] != 2 || !st.Since.Equal(time.Now()) {
			t.Errorf("status %+v", st)
		}
		who, err := s.fleet.Open(seal.Place{Partition: state.OfSession(shop), Kind: state.KindStatus}, st.Sealed)
		var nobody state.Identity
		if err != nil || json.Unmarshal(who, &nobody) != nil || nobody != (state.Identity{}) {
			t.Errorf("identity %s, %v", who, err)
		}
		if _, err := s.store.Get(t.Context(), state.OfSession(shop), state.Key{Kind: state.KindQR}); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("the QR is still shown: %v", err)
		}
		for id, want := range map[string]state.CommandState{before: state.CommandFailed, reconcile: state.CommandDone, id: state.CommandDone, after: state.CommandPending} {
			if c := s.command(shop, id); c.State != want || want.Final() == c.EndedAt.IsZero() {
				t.Errorf("command %s is %+v, want %s", id, c, want)
			}
		}
		if c := s.command(shop, id); c.Result != Unlinked || c.Epoch == 0 {
			t.Errorf("the disconnect says %+v", c)
		}
		if c := s.command(shop, before); c.Code != "superseded" {
			t.Errorf("the start before it says %+v", c)
		}
		// Its events go on without a gap.
		page, err := s.store.Query(t.Context(), state.OfSession(shop), state.Query{Kind: state.KindEvent})
		s.do(err)
		kinds := map[state.EventType]int{}
		for i, r := range page.Records {
			ev, err := journal.OpenEvent(s.fleet, state.OfSession(shop), r)
			if err != nil || ev.Seq != uint64(i+1) {
				t.Errorf("event %s: %+v, %v", r.Key, ev, err)
			}
			kinds[ev.Type]++
		}
		if kinds[state.EventState] != 3 || kinds[state.EventCommandDone] != 3 {
			t.Errorf("events %v", kinds)
		}
		s.rest(shop)
		// Again there is nothing to do; what was asked for afterwards is not its.
		s.try(false)
		found, err := s.store.Indexed(t.Context(), state.CommandIndex(""), nil, 10)
		if err != nil || len(found) != 1 || found[0].Key.ID != after {
			t.Errorf("open: %v, %v", found, err)
		}
	})
}

func TestDeleteWithoutAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.order(shop, state.VerbDisconnect)
		s.order(shop, state.VerbDelete)
		s.try(true)
		if _, err := s.store.Owner(t.Context(), shop); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("it is still there: %v", err)
		}
		if left, err := s.vault.ListObjects(t.Context(), shop); err != nil || len(left) != 0 {
			t.Errorf("objects %v, %v", left, err)
		}
		s.rest(shop)
	})
}

// TestAWorkerThatMayLiveIsLeftAlone: only what is certain counts.
func TestAWorkerThatMayLiveIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		ctx := t.Context()
		join(t, s.store, "w-1", state.MemberInfo{})
		o, err := statetest.Take(ctx, s.store, shop, "w-1")
		s.do(err)
		beat(t, s.store, "w-1", time.Now().Add(-time.Hour)) // looks stale, which proves nothing
		id := s.order(shop, state.VerbDisconnect)
		s.try(false)
		time.Sleep(11 * time.Second)
		s.try(false)
		beat(t, s.store, "w-1", time.Now())
		time.Sleep(11 * time.Second)
		s.try(false)
		time.Sleep(11 * time.Second)
		s.try(false) // 22 s after its beat, but watched for 11 s only
		if c := s.command(shop, id); c.State != state.CommandPending {
			t.Errorf("command %+v", c)
		}
		time.Sleep(time.Second)
		s.try(true)
		if err := s.store.Commit(ctx, o.Fence(), "", []state.Write{state.Put(state.KindStatus, "", s.encode(state.Status{V: 1}))}); !errors.Is(err, state.ErrFenced) {
			t.Errorf("the worker that had it may still write: %v", err)
		}
		if err := s.store.Beat(ctx, "w-1", state.Load{}); !errors.Is(err, state.ErrDead) {
			t.Errorf("it may still beat: %v", err)
		}
		s.rest(shop)
	})
}

func TestOneLiveWorkerAmongTheDeadIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		ctx := t.Context()
		for _, id := range []string{"dead", "standing", "living"} {
			join(t, s.store, id, state.MemberInfo{})
		}
		s.do(s.store.DeclareStopped(ctx, "dead"))
		join(t, s.store, "import", state.MemberInfo{Tool: true}) // no worker, and not in the way
		s.order(shop, state.VerbDisconnect)
		for range 15 {
			beat(t, s.store, "living", time.Now())
			s.try(false)
			time.Sleep(2 * time.Second)
		}
		r, err := s.store.Roster(ctx)
		s.do(err)
		for _, m := range r.Members {
			if m.Dead != (m.Incarnation == "dead") {
				t.Errorf("%s is dead: %t", m.Incarnation, m.Dead)
			}
		}
		s.do(s.store.DeclareStopped(ctx, "living"))
		s.try(true)
	})
}

// TestABeatBeforeTheDeclarationCounts: between looking and declaring it came to.
func TestABeatBeforeTheDeclarationCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		join(t, s.store, "w-1", state.MemberInfo{})
		s.order(shop, state.VerbDisconnect)
		s.try(false)
		time.Sleep(time.Minute)
		m := &meanwhile{Store: s.store, declare: func() { beat(t, s.store, "w-1", time.Now()) }}
		s.hand.cfg.Store = m
		s.try(false)
		if m.declare != nil {
			t.Fatal("nobody was declared dead")
		}
		r, err := s.store.Roster(t.Context())
		if err != nil || r.Members[0].Dead {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestAToolThatHasTheSessionKeepsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		join(t, s.store, "export-1", state.MemberInfo{Tool: true})
		_, err := statetest.Take(t.Context(), s.store, shop, "export-1")
		s.do(err)
		s.order(shop, state.VerbDisconnect)
		s.try(false)
		time.Sleep(6 * time.Second)
		beat(t, s.store, "export-1", time.Now())
		s.try(false)
		time.Sleep(12 * time.Second)
		s.try(true)
	})
}

// TestAProcessThatIsKnownToHaveEnded is not waited for.
func TestAProcessThatIsKnownToHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		join(t, s.store, "w-1", state.MemberInfo{})
		_, err := statetest.Take(t.Context(), s.store, shop, "w-1")
		s.do(err)
		s.order(shop, state.VerbDisconnect)
		s.hand.cfg.Gone = func(m state.Member) bool { return m.Incarnation == "w-2" }
		s.try(false)
		s.hand.cfg.Gone = func(m state.Member) bool { return m.Incarnation == "w-1" }
		s.try(true)
		if st, _ := look(t, s.view, "w-1"); st != Dead {
			t.Errorf("w-1 is %s", st)
		}
	})
}

// TestSweepDoesWhatCouldNotBeDoneThen: it was asked for while the only worker
// still looked alive.
func TestSweepDoesWhatCouldNotBeDoneThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		for i := range 3 {
			s.session(fmt.Sprint("s-", i))
		}
		join(t, s.store, "w-1", state.MemberInfo{})
		_, err := statetest.Take(t.Context(), s.store, shop, "w-1")
		s.do(err)
		ids := map[string]string{shop: s.order(shop, state.VerbDisconnect), "s-0": s.order("s-0", state.VerbDisconnect)}
		start := s.order("s-1", state.VerbStart)
		s.try(false)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { s.hand.Run(ctx, 2*time.Second); close(ended) }()
		time.Sleep(11 * time.Second)
		for name, id := range ids {
			if c := s.command(name, id); c.State != state.CommandPending {
				t.Errorf("too early: %+v", c)
			}
		}
		time.Sleep(4 * time.Second)
		stop()
		<-ended
		for name, id := range ids {
			if c := s.command(name, id); c.State != state.CommandDone {
				t.Errorf("%s: %+v", name, c)
			}
			s.rest(name)
		}
		if c := s.command("s-1", start); c.State != state.CommandPending {
			t.Errorf("a start: %+v", c)
		}
		if m := get[state.Meta](s, "s-2", state.KindMeta, ""); m.Credential == nil {
			t.Error("one that nobody asked for was disconnected")
		}
	})
}

// TestItMayDieAnywhere: whichever store call fails, before or after it took
// effect, the wish is as it was or carried out, and the session is free for the
// next worker.
func TestItMayDieAnywhere(t *testing.T) {
	for _, after := range []bool{false, true} {
		for _, dies := range []bool{false, true} {
			for n := 1; ; n++ {
				failed := false
				synctest.Test(t, func(t *testing.T) { failed = dieAt(t, n, after, dies) })
				if !failed {
					if n < 15 {
						t.Errorf("only %d calls were tried", n)
					}
					break
				}
			}
		}
	}
}

// dieAt lets the nth call fail, and where it dies all that follow. It tells
// whether there was an nth call.
func dieAt(t *testing.T, n int, after, dies bool) (struck bool) {
	s := newScene(t)
	id := s.order(shop, state.VerbDisconnect)
	first := s.store.Calls()
	match := func(c statetest.Call) bool {
		hit := c.N == first+n || dies && c.N > first+n
		struck = struck || hit
		return hit
	}
	times := 1
	if dies {
		times = 1 << 20
	}
	if after {
		s.store.FailAfter(match, times, state.ErrUnavailable)
	} else {
		s.store.FailBefore(match, times, state.ErrUnavailable)
	}
	done, err := s.hand.Try(t.Context(), shop)
	if done && err != nil {
		t.Errorf("call %d: done, and %v", n, err)
	}
	s.store.Heal()

	c, m, st := s.command(shop, id), get[state.Meta](s, shop, state.KindMeta, ""), get[state.Status](s, shop, state.KindStatus, "")
	carried := m.Keyset == nil && m.Credential == nil && m.Quarantined == nil && st.State == state.Disconnected && c.State == state.CommandDone
	untouched := m.Keyset != nil && m.Credential != nil && m.Quarantined != nil && st.State == state.Online && c.State == state.CommandPending
	if carried == untouched || done && !carried {
		t.Errorf("call %d failed (after it %t, dies %t): done %t, META %+v, %s, command %s", n, after, dies, done, m, st.State, c.State)
	}
	// The next worker: it watches the roster and takes what dead ones have.
	ctx := t.Context()
	join(t, s.store, "w-9", state.MemberInfo{})
	r, err := s.store.Roster(ctx)
	s.do(err)
	for _, other := range r.Members {
		if other.Incarnation != "w-9" && !other.Dead {
			if !other.Info.Tool {
				t.Errorf("call %d: %s", n, other.Incarnation)
			}
			s.do(s.store.DeclareDead(ctx, other.Incarnation, other.Beats))
		}
	}
	o, err := s.store.Owner(ctx, shop)
	s.do(err)
	if r, err = s.store.Roster(ctx); err != nil {
		t.Fatal(err)
	}
	for _, other := range r.Members {
		if other.Incarnation == o.Incarnation && !other.Dead {
			t.Errorf("call %d: %s lives on with it", n, o.Incarnation)
		}
	}
	if _, err := s.store.Claim(ctx, "w-9", o); err != nil {
		t.Errorf("call %d: the next worker cannot claim it: %v", n, err)
	}
	return struck
}

// TestAnOwnerThatIsFasterWins: a worker joins and claims after the look.
func TestAnOwnerThatIsFasterWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		id := s.order(shop, state.VerbDisconnect)
		s.hand.cfg.Store = &meanwhile{Store: s.store, claim: func() {
			_, err := statetest.Take(t.Context(), s.store, shop, "w-1")
			s.do(err)
		}}
		s.try(false)
		if o, err := s.store.Owner(t.Context(), shop); err != nil || o.Incarnation != "w-1" {
			t.Errorf("%+v, %v", o, err)
		}
		if c := s.command(shop, id); c.State != state.CommandPending {
			t.Errorf("%+v", c)
		}
	})
}

// TestObjectsOfANewPairingStay: they were put by an owner after this one.
func TestObjectsOfANewPairingStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.order(shop, state.VerbDisconnect)
		s.hand.cfg.Store = &meanwhile{Store: s.store, commit: func() {
			_, err := s.vault.PutObject(t.Context(), shop, "credential-new", []byte("sealed"))
			s.do(err)
		}}
		s.try(true)
		if left, err := s.vault.ListObjects(t.Context(), shop); err != nil || len(left) != 1 || left[0] != "credential-new" {
			t.Errorf("objects %v, %v", left, err)
		}
	})
}

func TestWhatCannotBeReadIsNotOverwritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, kind := range []state.Kind{state.KindMeta, state.KindStatus} {
			s := newScene(t)
			s.do(s.store.Update(t.Context(), state.OfSession(shop), []state.Write{state.Put(kind, "", []byte(`{"v":99,"keyset":"AAAA"}`))}))
			id := s.order(shop, state.VerbDisconnect)
			if done, err := s.hand.Try(t.Context(), shop); done || !errors.Is(err, state.ErrCorrupt) {
				t.Errorf("%s of a release to come: done %t, %v", kind, done, err)
			}
			r, err := s.store.Get(t.Context(), state.OfSession(shop), state.Key{Kind: kind})
			if err != nil || string(r.Value) != `{"v":99,"keyset":"AAAA"}` {
				t.Errorf("%s is now %s, %v", kind, r.Value, err)
			}
			if c := s.command(shop, id); c.State != state.CommandPending {
				t.Errorf("command %+v", c)
			}
			s.rest(shop)
			// It can be deleted all the same.
			s.order(shop, state.VerbDelete)
			s.try(true)
		}
	})
}

// TestManyCommandsTakeSeveralCommits and each ends.
func TestManyCommandsTakeSeveralCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		var ids []string
		for range 130 {
			ids = append(ids, s.order(shop, state.VerbSend))
		}
		last := s.order(shop, state.VerbDisconnect)
		s.try(true)
		for _, id := range ids {
			if c := s.command(shop, id); c.State != state.CommandFailed || c.Code != "superseded" {
				t.Fatalf("%+v", c)
			}
		}
		if c := s.command(shop, last); c.State != state.CommandDone {
			t.Errorf("%+v", c)
		}
	})
}
