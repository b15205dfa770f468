package lease

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newStore(t *testing.T) *statetest.FaultStore {
	t.Helper()
	s := statetest.Fault(memory.New(time.Now))
	if err := s.CreateSession(t.Context(), "shop", nil); err != nil {
		t.Fatal(err)
	}
	return s
}

func hold(t *testing.T, s state.Store, incarnation string) *Lease {
	t.Helper()
	o, err := statetest.Take(t.Context(), s, "shop", incarnation)
	if err != nil {
		t.Fatal(err)
	}
	return Hold(context.Background(), s, o)
}

func TestALeaseIsAContextThatEndsWithItsCause(t *testing.T) {
	s := newStore(t)
	l := hold(t, s, "w-1")
	if l.Context().Err() != nil || l.Fence().Owner != "w-1" || l.Session() != "shop" || !l.Trusted() {
		t.Fatalf("%v %v", l.Context().Err(), l.Fence())
	}
	cuts := 0
	l.OnLoss(func() {
		cuts++
		if l.Context().Err() != nil {
			t.Error("the context ended before the connection was cut")
		}
	})
	l.Lose(state.ErrFenced)
	l.Lose(state.ErrNotFound)
	if cause := context.Cause(l.Context()); !errors.Is(cause, ErrLost) || !errors.Is(cause, state.ErrFenced) {
		t.Errorf("cause %v", cause)
	}
	if cuts != 1 || l.Trusted() {
		t.Errorf("%d cuts, trusted %v", cuts, l.Trusted())
	}
	late := false
	l.OnLoss(func() { late = true })
	if !late {
		t.Error("a connection that comes after the loss is not cut")
	}
	// What is lost is not released: it may be somebody else's.
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o, _ := s.Owner(t.Context(), "shop"); o.Incarnation != "w-1" {
		t.Errorf("a lost lease was released: %+v", o)
	}
}

func TestReleaseMakesItClaimable(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault func(*statetest.FaultStore)
	}{
		{"at once", func(*statetest.FaultStore) {}},
		{"the store fails at first", func(s *statetest.FaultStore) { s.FailBefore(statetest.Of(statetest.Release), 3, nil) }},
		{"the answer is lost", func(s *statetest.FaultStore) { s.FailAfter(statetest.Of(statetest.Release), 1, nil) }},
		{"then the owner cannot be read", func(s *statetest.FaultStore) {
			s.FailAfter(statetest.Of(statetest.Release), 1, nil)
			s.FailBefore(statetest.Of(statetest.OwnerOf), 2, nil)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			l := hold(t, s, "w-1")
			tt.fault(s)
			if err := l.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !errors.Is(context.Cause(l.Context()), ErrReleased) || l.Trusted() {
				t.Errorf("cause %v", context.Cause(l.Context()))
			}
			s.Heal()
			if o, _ := s.Owner(t.Context(), "shop"); o.Incarnation != "" || o.Epoch != l.Fence().Epoch+1 {
				t.Errorf("%+v", o)
			}
			if err := l.Release(t.Context()); err != nil {
				t.Errorf("a second time: %v", err)
			}
			if err := l.Renew(t.Context()); !errors.Is(err, ErrReleased) {
				t.Errorf("renewed after its release: %v", err)
			}
		})
	}
}

// A renewal whose answer was lost does not keep the session from being released.
func TestReleaseAfterARenewalOfUnknownOutcome(t *testing.T) {
	s := newStore(t)
	l := hold(t, s, "w-1")
	s.FailAfter(statetest.Of(statetest.Claim), 1, nil)
	if err := l.Renew(t.Context()); !errors.Is(err, state.ErrUnavailable) {
		t.Fatal(err)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o, _ := s.Owner(t.Context(), "shop"); o.Incarnation != "" {
		t.Errorf("%+v", o)
	}
}

func TestReleaseSaysWhatTheStoreDidNotTake(t *testing.T) {
	s := newStore(t)
	l := hold(t, s, "w-1")
	s.FailBefore(statetest.Of(statetest.Release), -1, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := l.Release(ctx); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if l.Context().Err() == nil {
		t.Error("it lives on")
	}
}

func TestRenewRaisesTheEpochAlsoAfterAnUnknownOutcome(t *testing.T) {
	s := newStore(t)
	l := hold(t, s, "w-1")
	before := l.Fence()
	// The claim happens and its answer is lost.
	s.FailAfter(statetest.Of(statetest.Claim), 1, state.ErrUnavailable)
	if err := l.Renew(t.Context()); !errors.Is(err, state.ErrUnavailable) {
		t.Fatalf("%v", err)
	}
	if l.Context().Err() != nil {
		t.Fatal("an unknown outcome lost the lease")
	}
	// Whose it is cannot be read: that loses nothing either.
	s.FailBefore(statetest.Of(statetest.OwnerOf), 1, nil)
	if err := l.Renew(t.Context()); !errors.Is(err, state.ErrUnavailable) || l.Context().Err() != nil {
		t.Fatalf("%v", err)
	}
	if err := l.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.Fence().Epoch <= before.Epoch {
		t.Errorf("epoch %d after %d", l.Fence().Epoch, before.Epoch)
	}
	if err := s.Commit(t.Context(), before, "", nil); !errors.Is(err, state.ErrFenced) {
		t.Errorf("the old epoch may still write: %v", err)
	}
	if err := s.Commit(t.Context(), l.Fence(), "", nil); err != nil {
		t.Errorf("the new one may not: %v", err)
	}
}

func TestRenewLosesWhatIsSomebodyElses(t *testing.T) {
	s := newStore(t)
	l := hold(t, s, "w-1")
	if mine, err := l.Mine(t.Context()); !mine || err != nil {
		t.Errorf("%v %v", mine, err)
	}
	hold(t, s, "w-2")
	if mine, err := l.Mine(t.Context()); mine || err != nil {
		t.Errorf("%v %v", mine, err)
	}
	if err := l.Renew(t.Context()); !errors.Is(err, state.ErrFenced) {
		t.Fatalf("%v", err)
	}
	if !errors.Is(context.Cause(l.Context()), ErrLost) {
		t.Errorf("cause %v", context.Cause(l.Context()))
	}
}

func TestRenewOfTheDeadLoses(t *testing.T) {
	s := newStore(t)
	l := hold(t, s, "w-1")
	if err := s.DeclareStopped(t.Context(), "w-1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Renew(t.Context()); !errors.Is(err, state.ErrDead) || !errors.Is(context.Cause(l.Context()), ErrLost) {
		t.Errorf("%v, cause %v", err, context.Cause(l.Context()))
	}
}

func TestConfig(t *testing.T) {
	good := Config{Store: newStore(t), Start: func(*Lease) {}}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"no store":            func(c *Config) { c.Store = nil },
		"no start":            func(c *Config) { c.Start = nil },
		"F = T":               func(c *Config) { c.Trust, c.Takeover = 12*time.Second, 12*time.Second },
		"F close to T":        func(c *Config) { c.Trust, c.Takeover = 11*time.Second, 12*time.Second },
		"F of one beat":       func(c *Config) { c.Heartbeat, c.Trust = 5*time.Second, 8*time.Second },
		"a negative time":     func(c *Config) { c.Poll = -time.Second },
		"a negative capacity": func(c *Config) { c.Capacity = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			spoil(&cfg)
			if _, err := New(cfg); err == nil {
				t.Error("is taken")
			}
		})
	}
}
