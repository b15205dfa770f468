package worker

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// supervise runs a worker over a store until the test ends.
func supervise(t *testing.T, store state.Store) *Worker {
	t.Helper()
	master, err := seal.CreateFile(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	keyset, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	svc, err := whatsapp.NewService(whatsapp.ServiceConfig{Endpoint: "ws://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	settings := policy.Guide()
	settings.ReachabilityInterval = 0
	w, err := New(Config{Store: store, Vault: memory.NewVault(), Master: master, Keyset: keyset, Service: svc, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return w
}

// left makes sessions, wanted stopped, that a dead incarnation owns.
func left(t *testing.T, store state.Store, owner string, n int) {
	t.Helper()
	for i := range n {
		name := fmt.Sprintf("shop-%d", i)
		value, err := state.Encode(state.Spec{V: state.Format, Name: name, Wanted: state.WantStopped, Generation: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.CreateSession(t.Context(), name, []state.Write{state.Put(state.KindSpec, "", value)}); err != nil {
			t.Fatal(err)
		}
		if _, err := statetest.Take(t.Context(), store, name, owner); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWhatADeadWorkerLeftIsTakenOver although the store fails at the first try,
// whatever it is asked first.
func TestWhatADeadWorkerLeftIsTakenOver(t *testing.T) {
	for _, tt := range []struct {
		name  string
		owner string
		fail  statetest.Method
	}{{"list", "w-dead", statetest.Sessions}, {"claim", "w-dead", statetest.Claim}, {"dead", "w-dead", statetest.DeclareDead}, {"roster", "w-dead", statetest.Roster}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := statetest.Fault(memory.New(time.Now))
				left(t, store, tt.owner, 3)
				store.FailBefore(statetest.Of(tt.fail), 1, state.ErrUnavailable)
				w := supervise(t, store)
				time.Sleep(time.Minute)
				synctest.Wait()
				if n := len(w.Sessions()); n != 3 {
					t.Errorf("%d of 3 sessions were taken over", n)
				}
			})
		})
	}
}
