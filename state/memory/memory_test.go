package memory_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

func TestStore(t *testing.T) {
	statetest.Store(t, func(*testing.T) state.Store { return memory.New(nil) })
}

func TestVault(t *testing.T) {
	statetest.Vault(t, func(*testing.T) state.Vault { return memory.NewVault() })
}

// Time passes by the clock that New was given: here by a synctest bubble's.
func TestTimePasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := memory.New(time.Now)
		if err := s.CreateSession(ctx, "a", nil); err != nil {
			t.Fatal(err)
		}
		o, err := s.Owner(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		key := state.Key{Kind: state.KindEventHash, ID: "1"}
		write := []state.Write{{Record: state.Record{Key: key, Expires: time.Now().Add(9 * time.Minute)}, If: state.Absent()}}
		commit := func() error { return s.Commit(ctx, o.Fence(), "token", write) }
		if err := commit(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9*time.Minute - 1)
		if _, err := s.Get(ctx, state.OfSession("a"), key); err != nil {
			t.Errorf("a nanosecond before it expires: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := s.Get(ctx, state.OfSession("a"), key); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("when it expires: %v", err)
		}
		if err := commit(); err != nil {
			t.Errorf("the same commit within 10 minutes: %v", err)
		}
		if _, err := s.Get(ctx, state.OfSession("a"), key); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("the same commit had an effect once more: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if err := commit(); err != nil {
			t.Errorf("when the token is forgotten: %v", err)
		}
		if _, err := s.Get(ctx, state.OfSession("a"), key); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("the record was written with a deadline gone by: %v", err)
		}
		if now := s.Now(); !now.Equal(time.Now()) {
			t.Errorf("the store's clock says %v", now)
		}
	})
}
