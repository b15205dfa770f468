package lease

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

func newStore(t *testing.T) *statetest.FaultStore {
	t.Helper()
	s := statetest.Fault(memory.New(time.Now))
	if err := s.CreateSession(t.Context(), "shop", nil); err != nil {
		t.Fatal(err)
	}
	return s
}

func claim(t *testing.T, k *Keeper, s state.Store) *Lease {
	t.Helper()
	o, err := s.Owner(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	l, err := k.Claim(t.Context(), context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestALeaseIsAContextThatEndsWithItsCause(t *testing.T) {
	s := newStore(t)
	k := NewKeeper(s, "w-1")
	l := claim(t, k, s)
	if l.Context().Err() != nil || l.Fence().Owner != "w-1" {
		t.Fatalf("%v %v", l.Context().Err(), l.Fence())
	}
	l.Lose(state.ErrFenced)
	if cause := context.Cause(l.Context()); !errors.Is(cause, ErrLost) || !errors.Is(cause, state.ErrFenced) {
		t.Errorf("cause %v", cause)
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
	s := newStore(t)
	first := claim(t, NewKeeper(s, "w-1"), s)
	epoch := first.Fence().Epoch
	if err := first.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(context.Cause(first.Context()), ErrReleased) {
		t.Errorf("cause %v", context.Cause(first.Context()))
	}
	k := NewKeeper(s, "w-2")
	free, next, err := k.Claimable(t.Context(), "", 10)
	if err != nil || len(free) != 1 || next != "" {
		t.Fatalf("%v %q %v", free, next, err)
	}
	second := claim(t, k, s)
	if second.Fence().Epoch <= epoch {
		t.Errorf("epoch %d after %d", second.Fence().Epoch, epoch)
	}
	if free, _, _ := k.Claimable(t.Context(), "", 10); len(free) != 0 {
		t.Errorf("its own session is claimable: %v", free)
	}
}

func TestRenewRaisesTheEpochAlsoAfterAnUnknownOutcome(t *testing.T) {
	s := newStore(t)
	l := claim(t, NewKeeper(s, "w-1"), s)
	before := l.Fence()
	// The claim happens and its answer is lost.
	s.FailAfter(statetest.Of(statetest.Claim), 1, state.ErrUnavailable)
	if err := l.Renew(t.Context()); !errors.Is(err, state.ErrUnavailable) {
		t.Fatalf("%v", err)
	}
	if l.Context().Err() != nil {
		t.Fatal("an unknown outcome lost the lease")
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
	l := claim(t, NewKeeper(s, "w-1"), s)
	claim(t, NewKeeper(s, "w-2"), s)
	if err := l.Renew(t.Context()); !errors.Is(err, state.ErrFenced) {
		t.Fatalf("%v", err)
	}
	if !errors.Is(context.Cause(l.Context()), ErrLost) {
		t.Errorf("cause %v", context.Cause(l.Context()))
	}
}
