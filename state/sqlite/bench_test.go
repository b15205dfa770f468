package sqlite_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// BenchmarkCommit commits what a received message does, three records of 2 KB,
// each durable, by one session and by many.
func BenchmarkCommit(b *testing.B) {
	for _, sessions := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			ctx := context.Background()
			s := open(b, filepath.Join(b.TempDir(), "state.db"))
			fences := make([]state.Fence, sessions)
			for i := range fences {
				name := fmt.Sprintf("s%d", i)
				if err := s.CreateSession(ctx, name, nil); err != nil {
					b.Fatal(err)
				}
				o, err := statetest.Take(ctx, s, name, "w")
				if err != nil {
					b.Fatal(err)
				}
				fences[i] = o.Fence()
			}
			value := make([]byte, 2048)
			b.ResetTimer()
			start := time.Now()
			var wg sync.WaitGroup
			for i, f := range fences {
				n := b.N / sessions
				if i < b.N%sessions {
					n++
				}
				wg.Go(func() {
					for c := range n {
						err := s.Commit(ctx, f, fmt.Sprintf("%012d-%d", c, i), []state.Write{
							state.Put(state.KindSignal, fmt.Sprint(c%20), value),
							state.Put(state.KindEventHash, fmt.Sprint(c%500), value),
							state.Put(state.KindEvent, state.EventID(uint64(c)), value),
						})
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "commits/s")
		})
	}
}

func BenchmarkGet2KB(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "state.db"))
	if err := s.Update(b.Context(), state.Fleet, []state.Write{state.Put(state.KindFleet, "x", make([]byte, 2048))}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Get(b.Context(), state.Fleet, state.Key{Kind: state.KindFleet, ID: "x"}); err != nil {
			b.Fatal(err)
		}
	}
}
