package main

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// A command takes nothing from a worker that beats; one that stands still it
// outlives. When it leaves nobody has to wait for it.
func TestToolClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, s := t.Context(), memory.New(time.Now)
		for _, name := range []string{"free", "left", "used"} {
			if err := s.CreateSession(ctx, name, nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := statetest.Take(ctx, s, "left", "w-killed"); err != nil {
			t.Fatal(err)
		}
		used, err := statetest.Take(ctx, s, "used", "w-alive")
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var beating sync.WaitGroup
		beating.Go(func() {
			for tick := time.Tick(toolBeat); ; {
				select {
				case <-tick:
				case <-stop:
					return
				}
				if err := s.Beat(ctx, "w-alive", state.Load{}); err != nil {
					t.Errorf("the worker's heartbeat: %v", err)
				}
			}
		})
		defer beating.Wait()
		defer close(stop)
		tool, err := joinAsTool(ctx, s, 12*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for name, patience := range map[string]time.Duration{"free": 0, "left": 12 * time.Second} {
			began := time.Now()
			o, err := tool.claim(ctx, name)
			if err != nil || o.Incarnation != tool.incarnation {
				t.Errorf("%s: %v, %v", name, o, err)
			}
			if took := time.Since(began); took < patience || took > patience+toolBeat {
				t.Errorf("%s took %v, want %v", name, took, patience)
			}
		}
		if _, err := tool.claim(ctx, "used"); err == nil || !strings.Contains(err.Error(), "w-alive has it") {
			t.Errorf("used: %v", err)
		}
		if o, err := s.Owner(ctx, "used"); err != nil || o != used {
			t.Errorf("its owner is %v, %v; it was %v", o, err, used)
		}
		// It beats itself, so that nobody outlives it.
		r, err := s.Roster(ctx)
		if err != nil || len(r.Members) != 3 || r.Members[2].Beats < 6 || !r.Members[2].Info.Tool {
			t.Errorf("the roster: %+v, %v", r, err)
		}
		if err := tool.leave(); err != nil {
			t.Fatal(err)
		}
		if r, err = s.Roster(ctx); err != nil || len(r.Members) != 2 {
			t.Errorf("the roster after it left: %+v, %v", r, err)
		}
		if err := s.Beat(ctx, tool.incarnation, state.Load{}); !errors.Is(err, state.ErrDead) {
			t.Errorf("its heartbeat after it left: %v", err)
		}
	})
}
