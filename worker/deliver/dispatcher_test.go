package deliver

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

func TestDeliversInOrderFromTailAndStore(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		r := newReceiver(alwaysOK)
		p := NewPoster(PosterConfig{Transport: r})
		d, stop := s.run(Config{})
		var out bytes.Buffer
		q := s.attach(d, "shop", nil, hook(t, p, "http://a/"), NewNDJSON(&out, nil))
		s.commit(q, "shop", 3)
		synctest.Wait()
		s.commit(q, "shop", 400) // more than a tail holds
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		inOrder(t, "webhook", r.seqs("a"), 403)
		stop()
		if n := strings.Count(out.String(), "\n"); n != 403 {
			t.Errorf("%d lines, want 403", n)
		}
		if s.cursor("shop", SinkWebhook) != 403 || s.cursor("shop", SinkNDJSON) != 403 {
			t.Errorf("cursors %d and %d, want 403", s.cursor("shop", SinkWebhook), s.cursor("shop", SinkNDJSON))
		}
		d.mu.Lock()
		if d.tailBytes != 0 || q.tail != nil {
			t.Errorf("%d bytes of events kept in memory with nothing to deliver", d.tailBytes)
		}
		d.mu.Unlock()
	})
}

func TestReceiverDownForAnHour(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		began := time.Now()
		back := began.Add(time.Hour)
		r := newReceiver(func(host string, _ state.Event, _ int) (int, http.Header) {
			if host == "down" && time.Now().Before(back) {
				return 500, nil
			}
			return 200, nil
		})
		p := NewPoster(PosterConfig{Transport: r})
		d, stop := s.run(Config{})
		down := s.attach(d, "down", nil, hook(t, p, "http://down/"))
		well := s.attach(d, "well", nil, hook(t, p, "http://well/"))
		for range 60 {
			s.commit(down, "down", 5)
			s.commit(well, "well", 5)
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		inOrder(t, "the other session", r.seqs("well"), 300)
		if n := r.tries("down"); n < 25 || n > 60 {
			t.Errorf("%d requests in an hour to a receiver that is down", n)
		}
		if len(r.seqs("down")) != 0 || down.Depth() != 300 {
			t.Errorf("delivered %d, behind %d", len(r.seqs("down")), down.Depth())
		}
		d.mu.Lock()
		if down.tail != nil {
			t.Error("events of a session whose receiver is down are held in memory")
		}
		d.mu.Unlock()
		time.Sleep(3 * time.Minute) // the longest pause is two
		synctest.Wait()
		inOrder(t, "after the hour", r.seqs("down"), 300)
		if down.Depth() != 0 {
			t.Errorf("behind %d", down.Depth())
		}
		stop()
		if s.outcomes["webhook failed"] == 0 || s.outcomes["webhook delivered"] == 0 {
			t.Errorf("outcomes %v", s.outcomes)
		}
	})
}

func TestPauseGrowsAndObeysRetryAfter(t *testing.T) {
	for _, tc := range []struct {
		name   string
		header http.Header
		least  time.Duration
	}{
		{"none", nil, 90 * time.Second},
		{"seconds", http.Header{"Retry-After": {"1800"}}, 30 * time.Minute},
		{"absurd", http.Header{"Retry-After": {"999999999"}}, time.Hour},
		{"nonsense", http.Header{"Retry-After": {"soon"}}, 90 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *stage) {
				r := newReceiver(func(string, state.Event, int) (int, http.Header) { return 503, tc.header })
				d, stop := s.run(Config{})
				q := s.attach(d, "shop", nil, hook(t, NewPoster(PosterConfig{Transport: r}), "http://a/"))
				s.commit(q, "shop", 1)
				time.Sleep(5 * time.Hour)
				synctest.Wait()
				gap := r.at[len(r.at)-1].Sub(r.at[len(r.at)-2])
				if gap < tc.least || gap > max(tc.least, 2*time.Minute)+time.Minute {
					t.Errorf("pause %v, want about %v", gap, tc.least)
				}
				stop()
			})
		})
	}
}

func TestRefusedEventBecomesDeadLetterAndTheNextIsDelivered(t *testing.T) {
	for _, status := range []int{400, 404, 410, 422} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *stage) {
				refuse := true
				r := newReceiver(func(_ string, ev state.Event, _ int) (int, http.Header) {
					if ev.Seq == 2 && refuse {
						return status, nil
					}
					return 200, nil
				})
				d, stop := s.run(Config{})
				q := s.attach(d, "shop", nil, hook(t, NewPoster(PosterConfig{Transport: r}), "http://a/"))
				s.commit(q, "shop", 3)
				synctest.Wait()
				if got := fmt.Sprint(r.seqs("a")); got != "[1 3]" {
					t.Fatalf("delivered %s, want 1 and 3", got)
				}
				letters, _, err := Dead(t.Context(), s.store, "shop", "", 10)
				if err != nil || len(letters) != 1 {
					t.Fatalf("dead letters %v, %v", letters, err)
				}
				if dl := letters[0]; dl.Seq != 2 || dl.Status != status || dl.Sink != SinkWebhook || dl.Tries != 1 {
					t.Errorf("dead letter %+v", dl)
				}
				if s.cursor("shop", SinkWebhook) != 3 {
					t.Errorf("cursor %d", s.cursor("shop", SinkWebhook))
				}
				id := state.DeadID(2, SinkWebhook)
				if err := q.Redrive(t.Context(), id); err == nil {
					t.Error("a redrive that is refused again succeeded")
				}
				if letters, _, _ := Dead(t.Context(), s.store, "shop", "", 10); len(letters) != 1 || letters[0].Tries != 2 {
					t.Errorf("after a refused redrive: %+v", letters)
				}
				r.change(func() { refuse = false })
				if n, err := q.RedriveAll(t.Context()); n != 1 || err != nil {
					t.Errorf("RedriveAll: %d, %v", n, err)
				}
				if got := fmt.Sprint(r.seqs("a")); got != "[1 3 2]" {
					t.Errorf("after the redrive %s", got)
				}
				if letters, _, _ := Dead(t.Context(), s.store, "shop", "", 10); len(letters) != 0 {
					t.Errorf("dead letters left: %v", letters)
				}
				stop()
			})
		})
	}
}

func TestPassingStatusesAreNotDeadLetters(t *testing.T) {
	for _, status := range []int{302, 307, 408, 425, 429, 500, 502, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *stage) {
				r := newReceiver(func(_ string, _ state.Event, n int) (int, http.Header) {
					if n <= 5 {
						return status, http.Header{"Location": {"http://169.254.169.254/"}}
					}
					return 204, nil
				})
				d, stop := s.run(Config{})
				q := s.attach(d, "shop", nil, hook(t, NewPoster(PosterConfig{Transport: r}), "http://a/"))
				s.commit(q, "shop", 2)
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				inOrder(t, "webhook", r.seqs("a"), 2)
				if r.tries("169.254.169.254") != 0 {
					t.Error("a redirect was followed")
				}
				if letters, _, _ := Dead(t.Context(), s.store, "shop", "", 10); len(letters) != 0 {
					t.Errorf("dead letters %v", letters)
				}
				stop()
			})
		})
	}
}

func TestRestartRepeatsAtMostWhatWasNotRecorded(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		r := newReceiver(func(_ string, _ state.Event, n int) (int, http.Header) {
			if n == 40 { // the process dies while this one is answered
				return 0, nil
			}
			return 200, nil
		})
		p := NewPoster(PosterConfig{Transport: r})
		d, stop := s.run(Config{})
		q := s.attach(d, "shop", nil, hook(t, p, "http://a/"))
		s.commit(q, "shop", 100)
		synctest.Wait()
		stop()
		if n := len(r.seqs("a")); n != 39 {
			t.Fatalf("delivered %d before the end, want 39", n)
		}
		s.commit(nil, "shop", 20) // by a worker that died before it delivered

		d, stop = s.run(Config{})
		s.attach(d, "shop", nil, hook(t, p, "http://a/"))
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		seen := map[uint64]int{}
		highest := uint64(0)
		for _, seq := range r.seqs("a") {
			if seq > highest+1 {
				t.Fatalf("%d came after %d", seq, highest)
			}
			highest = max(highest, seq)
			seen[seq]++
		}
		if highest != 120 || len(seen) != 120 {
			t.Errorf("delivered %d events up to %d, want 120", len(seen), highest)
		}
		if len(r.ids) != 120 {
			t.Errorf("%d ids for 120 events", len(r.ids))
		}
		stop()
	})
}

func TestHangingReceiversLeaveRoomForOthers(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		r := newReceiver(func(host string, _ state.Event, _ int) (int, http.Header) {
			if strings.HasPrefix(host, "hang") {
				return 0, nil
			}
			return 200, nil
		})
		p := NewPoster(PosterConfig{Transport: r})
		d, stop := s.run(Config{Places: 8})
		for i := range 100 {
			name := fmt.Sprintf("hang-%d", i)
			s.commit(s.attach(d, name, nil, hook(t, p, "http://"+name+"/")), name, 1)
		}
		time.Sleep(3 * time.Minute) // all have failed once
		well := s.attach(d, "well", nil, hook(t, p, "http://well/"))
		synctest.Wait()
		for i := range 20 {
			s.commit(well, "well", 1)
			time.Sleep(time.Second)
			synctest.Wait()
			inOrder(t, "the well session", r.seqs("well"), i+1)
		}
		stop()
	})
}

func TestIdleSessionsCostNoGoroutine(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		r := newReceiver(alwaysOK)
		p := NewPoster(PosterConfig{Transport: r})
		d, stop := s.run(Config{})
		before := runtime.NumGoroutine()
		for i := range 1000 {
			name := fmt.Sprintf("s-%d", i)
			s.commit(s.attach(d, name, nil, hook(t, p, "http://"+name+"/")), name, 1)
		}
		synctest.Wait()
		if after := runtime.NumGoroutine(); after > before+2 {
			t.Errorf("%d goroutines more for 1,000 idle sessions", after-before)
		}
		d.mu.Lock()
		if d.tailBytes != 0 {
			t.Errorf("%d bytes kept", d.tailBytes)
		}
		d.mu.Unlock()
		for i := range 1000 {
			inOrder(t, "session", r.seqs(fmt.Sprintf("s-%d", i)), 1)
		}
		stop()
	})
}

func TestTailsAreBoundedTogether(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		r := newReceiver(func(string, state.Event, int) (int, http.Header) { return 0, nil })
		p := NewPoster(PosterConfig{Transport: r})
		const bound = 64 << 10
		d, stop := s.run(Config{TailBytes: bound})
		for i := range 50 {
			name := fmt.Sprintf("s-%d", i)
			s.commit(s.attach(d, name, nil, hook(t, p, "http://"+name+"/")), name, 60)
			d.mu.Lock()
			if d.tailBytes > bound {
				t.Errorf("%d bytes in memory, bound %d", d.tailBytes, bound)
			}
			d.mu.Unlock()
		}
		stop()
	})
}

func TestWarnsOnceWhenTheQueueFills(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		down := true
		r := newReceiver(func(string, state.Event, int) (int, http.Header) {
			if down {
				return 500, nil
			}
			return 200, nil
		})
		d, stop := s.run(Config{})
		q := s.attach(d, "shop", func(c *Session) { c.MaxEvents = 100 }, hook(t, NewPoster(PosterConfig{Transport: r}), "http://a/"))
		s.commit(q, "shop", 1)
		synctest.Wait()
		s.commit(q, "shop", 88)
		synctest.Wait()
		if len(s.warnings()) != 0 {
			t.Fatalf("warned at %v", s.warnings())
		}
		s.commit(q, "shop", 11)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(s.warnings()) != 1 || s.warnings()[0] != 90 {
			t.Fatalf("warnings at %v, want one at 90", s.warnings())
		}
		r.change(func() { down = false })
		time.Sleep(time.Hour)
		synctest.Wait()
		inOrder(t, "webhook", r.seqs("a"), 100)
		r.change(func() { down = true })
		s.commit(q, "shop", 1)
		synctest.Wait()
		s.commit(q, "shop", 98)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(s.warnings()) != 2 {
			t.Errorf("warnings at %v, want a second one", s.warnings())
		}
		stop()
	})
}

func TestWarnsWhenTheQueueGrowsOld(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		r := newReceiver(func(string, state.Event, int) (int, http.Header) { return 500, nil })
		d, stop := s.run(Config{})
		q := s.attach(d, "shop", func(c *Session) { c.MaxAge = 24 * time.Hour }, hook(t, NewPoster(PosterConfig{Transport: r}), "http://a/"))
		s.commit(q, "shop", 1)
		time.Sleep(21 * time.Hour)
		synctest.Wait()
		if len(s.warnings()) != 0 {
			t.Errorf("warned before 90 %% of the age")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if len(s.warnings()) != 1 {
			t.Errorf("%d warnings after 23 of 24 h", len(s.warnings()))
		}
		stop()
	})
}

func TestDamagedEventIsPutAsideAsItIs(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		r := newReceiver(alwaysOK)
		d, stop := s.run(Config{})
		if err := s.store.CreateSession(t.Context(), "shop", nil); err != nil {
			t.Fatal(err)
		}
		s.commit(nil, "shop", 5)
		value, _ := state.Encode(state.StoredEvent{V: 1, ID: "01BROKEN", Type: state.EventMessage, At: time.Now(), Sealed: []byte("damaged")})
		if err := s.store.Update(t.Context(), state.OfSession("shop"), []state.Write{state.Put(state.KindEvent, state.EventID(3), value)}); err != nil {
			t.Fatal(err)
		}
		s.attach(d, "shop", nil, hook(t, NewPoster(PosterConfig{Transport: r}), "http://a/"))
		synctest.Wait()
		if got := fmt.Sprint(r.seqs("a")); got != "[1 2 4 5]" {
			t.Errorf("delivered %s", got)
		}
		letters, _, _ := Dead(t.Context(), s.store, "shop", "", 10)
		if len(letters) != 1 || !letters[0].Corrupt || string(letters[0].Sealed) != "damaged" {
			t.Errorf("dead letters %+v", letters)
		}
		stop()
	})
}

func TestNewSinkSkipsWhatWasTrimmed(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		r := newReceiver(alwaysOK)
		d, stop := s.run(Config{})
		if err := s.store.CreateSession(t.Context(), "shop", nil); err != nil {
			t.Fatal(err)
		}
		s.commit(nil, "shop", 150)
		for seq := uint64(1); seq <= 140; seq++ {
			value, _ := state.Encode(state.StoredEvent{V: 1, ID: fmt.Sprint(seq), Type: state.EventMessage, At: time.Now(), Trimmed: true})
			if err := s.store.Update(t.Context(), state.OfSession("shop"), []state.Write{state.Put(state.KindEvent, state.EventID(seq), value)}); err != nil {
				t.Fatal(err)
			}
		}
		s.attach(d, "shop", nil, hook(t, NewPoster(PosterConfig{Transport: r}), "http://a/"))
		synctest.Wait()
		if got := r.seqs("a"); len(got) != 10 || got[0] != 141 {
			t.Errorf("delivered %v, want 141 to 150", got)
		}
		stop()
	})
}

func TestEventsThatWereNotHandedOnAreReadFromTheStore(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		r := newReceiver(alwaysOK)
		d, stop := s.run(Config{})
		q := s.attach(d, "shop", nil, hook(t, NewPoster(PosterConfig{Transport: r}), "http://a/"))
		s.commit(q, "shop", 2)
		s.commit(nil, "shop", 3)
		s.commit(q, "shop", 1) // a gap before it
		synctest.Wait()
		inOrder(t, "after a gap", r.seqs("a"), 6)
		s.commit(nil, "shop", 4)
		q.Seen(s.seq("shop"))
		synctest.Wait()
		inOrder(t, "after Seen", r.seqs("a"), 10)
		stop()
	})
}

func TestChangedReceiverIsTriedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		r := newReceiver(func(host string, _ state.Event, _ int) (int, http.Header) {
			if host == "wrong" {
				return 500, nil
			}
			return 200, nil
		})
		p := NewPoster(PosterConfig{Transport: r})
		d, stop := s.run(Config{})
		q := s.attach(d, "shop", nil, hook(t, p, "http://wrong/"))
		s.commit(q, "shop", 4)
		time.Sleep(30 * time.Minute)
		q.SetSinks([]Sink{hook(t, p, "http://right/")})
		synctest.Wait()
		inOrder(t, "the right receiver", r.seqs("right"), 4)
		stop()
	})
}

func TestCloseEndsTheSessionsDeliveries(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		r := newReceiver(func(string, state.Event, int) (int, http.Header) { return 0, nil })
		p := NewPoster(PosterConfig{Transport: r})
		d, stop := s.run(Config{})
		q := s.attach(d, "shop", nil, hook(t, p, "http://a/"))
		s.commit(q, "shop", 1)
		synctest.Wait() // the request hangs
		if _, err := d.Attach(Session{Name: "shop"}); err == nil {
			t.Error("a session was attached twice")
		}
		began := time.Now()
		if err := q.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("Close took %v", took)
		}
		s.commit(q, "shop", 1) // a late commit is not delivered by a closed queue
		time.Sleep(time.Hour)
		if n := r.tries("a"); n != 1 {
			t.Errorf("%d requests", n)
		}
		s.attach(d, "shop", nil, hook(t, p, "http://b/"))
		synctest.Wait()
		if r.tries("b") == 0 {
			t.Error("the next owner's queue delivers nothing")
		}
		stop()
	})
}
