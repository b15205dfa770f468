package worker

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
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/worker/crash"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// party is several workers over one store, each stopped by the test or at its end.
type party struct {
	t      *testing.T
	store  state.Store
	vault  state.Vault
	master seal.Master
	keyset *seal.Keyset
}

func newParty(t *testing.T, store state.Store) *party {
	t.Helper()
	master, err := seal.CreateFile(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	keyset, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	return &party{t: t, store: store, vault: memory.NewVault(), master: master, keyset: keyset}
}

// join runs a worker; stop ends it in order.
func (p *party) join(change func(*Config)) (w *Worker, stop func()) {
	p.t.Helper()
	svc, err := whatsapp.NewService(whatsapp.ServiceConfig{Endpoint: "ws://127.0.0.1:1"})
	if err != nil {
		p.t.Fatal(err)
	}
	settings := policy.Guide()
	settings.ReachabilityInterval = 0
	cfg := Config{Store: p.store, Vault: p.vault, Master: p.master, Keyset: p.keyset, Service: svc, Settings: settings, Drain: time.Minute}
	if change != nil {
		change(&cfg)
	}
	if w, err = New(cfg); err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	var done bool
	stop = func() {
		if done {
			return
		}
		done = true
		cancel()
		if err := <-ended; err != nil {
			p.t.Error(err)
		}
	}
	p.t.Cleanup(stop)
	return w, stop
}

func (p *party) owner(session string) string {
	p.t.Helper()
	o, err := p.store.Owner(context.Background(), session)
	if err != nil {
		p.t.Fatal(err)
	}
	return o.Incarnation
}

// put puts a command as the admin side does, under the owner last read.
func (p *party) put(session, id, under string) {
	p.t.Helper()
	c := state.Command{V: state.Format, ID: id, Session: session, Verb: state.VerbDebug, State: state.CommandPending,
		At: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
	value, err := state.Encode(c)
	if err != nil {
		p.t.Fatal(err)
	}
	w := state.Put(state.KindCommand, id, value)
	w.Rev, w.If, w.Index = 1, state.Absent(), state.CommandIndex(under)
	if err := p.store.Update(context.Background(), state.OfSession(session), []state.Write{w}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *party) command(session, id string) state.Command {
	p.t.Helper()
	rec, err := p.store.Get(context.Background(), state.OfSession(session), state.Key{Kind: state.KindCommand, ID: id})
	if err != nil {
		p.t.Fatal(err)
	}
	var c state.Command
	if err := state.Decode(rec.Value, &c); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// TestAWorkerThatEndsHandsItsSessionsOver, and says that it is gone.
func TestAWorkerThatEndsHandsItsSessionsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, memory.New(time.Now))
		left(t, p.store, "w-dead", 20)
		first, stop := p.join(nil)
		time.Sleep(time.Minute)
		if n := len(first.Sessions()); n != 20 {
			t.Fatalf("%d of 20 sessions run", n)
		}
		second, _ := p.join(nil)
		time.Sleep(5 * time.Second)
		id := first.Incarnation()
		begun := time.Now()
		stop()
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("the drain took %v", took)
		}
		synctest.Wait()
		for i := range 20 {
			if name := fmt.Sprintf("shop-%d", i); p.owner(name) != second.Incarnation() {
				t.Errorf("%s is owned by %q, not by the other worker", name, p.owner(name))
			}
		}
		time.Sleep(time.Second)
		if n := len(second.Sessions()); n != 20 {
			t.Errorf("%d of 20 run at the other worker", n)
		}
		roster, err := p.store.Roster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range roster.Members {
			if m.Incarnation == id && !m.Dead {
				t.Error("the worker that ended is taken for alive")
			}
		}
	})
}

// TestCommandsFollowTheirSession: put under an owner that has just given the
// session away, or under one that is dead, they run once at the present one.
func TestCommandsFollowTheirSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, memory.New(time.Now))
		left(t, p.store, "w-dead", 2)
		first, _ := p.join(nil)
		second, _ := p.join(nil)
		time.Sleep(2 * time.Minute)
		a, b := first, second
		if p.owner("shop-0") != a.Incarnation() {
			a, b = b, a
		}
		p.put("shop-0", "C1", b.Incarnation())
		p.put("shop-0", "C2", "w-dead")
		p.put("shop-0", "C3", "")
		time.Sleep(5 * time.Second)
		if c := p.command("shop-0", "C1"); !c.State.Final() {
			t.Errorf("put under another worker: %s after 5 s", c.State)
		}
		time.Sleep(time.Minute)
		for _, id := range []string{"C2", "C3"} {
			if c := p.command("shop-0", id); !c.State.Final() {
				t.Errorf("%s: %s after a sweep", id, c.State)
			}
		}
	})
}

// TestNothingIsClaimedBeforeTheVaultAnswers.
func TestNothingIsClaimedBeforeTheVaultAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, memory.New(time.Now))
		left(t, p.store, "w-dead", 2)
		var up atomic.Bool
		w, _ := p.join(func(cfg *Config) {
			cfg.Probe = func(context.Context) error {
				if !up.Load() {
					return errors.New("vault: no answer")
				}
				return nil
			}
		})
		time.Sleep(time.Minute)
		if got := w.NotReady(); got != "vault: no answer" || p.owner("shop-0") != "w-dead" {
			t.Errorf("not ready: %q, owner %s", got, p.owner("shop-0"))
		}
		up.Store(true)
		time.Sleep(time.Minute)
		if got := w.NotReady(); got != "" || p.owner("shop-0") != w.Incarnation() {
			t.Errorf("not ready: %q, owner %s", got, p.owner("shop-0"))
		}
	})
}

// TestVerdicts: a death that somebody told of is no mystery for the next owner.
func TestVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, memory.New(time.Now))
		for _, id := range []string{"w-panic", "w-kill", "w-unknown", "w-elsewhere"} {
			if _, err := p.store.Join(t.Context(), id, state.MemberInfo{}); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range []crash.Report{
			{Incarnation: "w-panic", Panicked: true, Session: "bad"}, {Incarnation: "w-kill"},
			{Incarnation: "w-elsewhere", Panicked: true}, {Incarnation: "w-forgotten"}, {},
		} {
			if err := TellDeath(t.Context(), p.store, r); err != nil {
				t.Fatal(err)
			}
		}
		w, _ := p.join(nil)
		time.Sleep(time.Second)
		for _, c := range []struct {
			from, session    string
			blamed, innocent bool
		}{
			{"w-panic", "bad", true, false}, {"w-panic", "good", false, true}, {"w-kill", "bad", false, true},
			{"w-elsewhere", "bad", false, false}, {"w-unknown", "bad", false, false}, {"", "bad", false, false},
		} {
			blamed, innocent := w.verdict(t.Context(), state.Owner{Session: c.session, Incarnation: c.from})
			if blamed != c.blamed || innocent != c.innocent {
				t.Errorf("%s of %q: blamed %v, innocent %v", c.session, c.from, blamed, innocent)
			}
		}
		roster, err := p.store.Roster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range roster.Members {
			if told := m.Incarnation != "w-unknown" && m.Incarnation != w.Incarnation(); m.Dead != told {
				t.Errorf("%s: dead %v", m.Incarnation, m.Dead)
			}
		}
	})
}
