package dynamo_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// fill gives a session records in both tables, more than one step of a removal
// deletes, and its wrapped keyset.
func fill(t *testing.T, s state.Store, f state.Fence) {
	t.Helper()
	writes := []state.Write{put(state.KindMeta, "", "keyset")}
	for i := range 40 {
		writes = append(writes, put(state.KindEvent, state.EventID(uint64(i)), "x"), put(state.KindSignal, fmt.Sprint(i), "x"))
	}
	if err := s.Commit(context.Background(), f, "", writes); err != nil {
		t.Fatal(err)
	}
}

// left counts the records of a session that a raw look at both tables finds.
func left(t *testing.T, s state.Store, session string) int {
	t.Helper()
	n := 0
	for _, kind := range []state.Kind{state.KindMeta, state.KindEvent, state.KindSignal} {
		page, err := s.Query(context.Background(), state.OfSession(session), state.Query{Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		n += len(page.Records)
	}
	return n
}

// A removal that breaks off has fenced everybody and destroyed the keyset. It is
// finished by the same call, by a sweep, or by the creation of a session of the
// same name.
func TestRemovalBrokenOff(t *testing.T) {
	for _, by := range []string{"the same call", "a creation", "a sweep"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			quiet, s, w := another(t, retryFor(1500*time.Millisecond))
			f := owned(t, quiet, "a")
			fill(t, quiet, f)
			step := "" // the token of the first that deletes records
			w.set(func(r request) fault {
				if r.Op != "TransactWriteItems" || !strings.Contains(r.Body, `"EV#`) {
					return nil
				}
				if step == "" {
					step = r.Token
				}
				if r.Token != step {
					return unsent
				}
				return nil
			})
			if err := s.RemoveSession(ctx, f); !errors.Is(err, state.ErrUnavailable) {
				t.Fatalf("the removal: %v", err)
			}
			if n := left(t, quiet, "a"); n == 0 || n >= 80 {
				t.Fatalf("%d records are left: the removal did not break off half-way", n)
			}
			if got := value(t, quiet, "a", state.KindMeta, ""); got != "" {
				t.Error("the keyset is there")
			}
			if _, err := quiet.Owner(ctx, "a"); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("the owner of what is half removed: %v", err)
			}
			if err := quiet.Commit(ctx, f, "", []state.Write{put(state.KindSignal, "late", "x")}); !errors.Is(err, state.ErrFenced) {
				t.Errorf("a late commit: %v", err)
			}
			if err := quiet.Update(ctx, state.OfSession("a"), []state.Write{put(state.KindSpec, "", "x")}); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("a late update: %v", err)
			}
			w.set(nil)
			switch by {
			case "the same call":
				for _, other := range []state.Fence{{Session: "a", Owner: "w1", Epoch: f.Epoch + 1}, {Session: "a", Epoch: f.Epoch + 1}} {
					if err := s.RemoveSession(ctx, other); !errors.Is(err, state.ErrFenced) {
						t.Errorf("a removal by %s: %v", other, err)
					}
				}
				if err := s.RemoveSession(ctx, f); err != nil {
					t.Fatalf("the removal, again: %v", err)
				}
				if err := s.RemoveSession(ctx, f); !errors.Is(err, state.ErrFenced) {
					t.Errorf("the removal, done: %v", err)
				}
			case "a sweep":
				for range 2 {
					if err := s.Sweep(ctx); err != nil {
						t.Fatal(err)
					}
				}
				if ops := w.ops(); !strings.HasSuffix(ops, "TransactWriteItems Query") {
					t.Errorf("a sweep with nothing to do has done something: %s", ops)
				}
				if err := s.RemoveSession(ctx, f); !errors.Is(err, state.ErrFenced) {
					t.Errorf("the removal, done: %v", err)
				}
			case "a creation":
				if err := s.CreateSession(ctx, "a", nil); err != nil {
					t.Fatal(err)
				}
				if o, err := s.Owner(ctx, "a"); err != nil || o.Epoch != f.Epoch+2 {
					t.Errorf("the new session's owner is %+v, %v", o, err)
				}
			}
			if n := left(t, quiet, "a"); n != 0 {
				t.Errorf("%d records are left", n)
			}
			if all, err := quiet.OwnedBy(ctx, "", "", 0); err != nil || len(all) > 1 {
				t.Errorf("unowned are %v, %v", all, err)
			}
		})
	}
}

// A removal that goes on when others have finished it and made a new session of
// the name leaves that alone.
func TestSlowRemoval(t *testing.T) {
	ctx := context.Background()
	quiet, s, w := another(t, retryFor(30*time.Second))
	f := owned(t, quiet, "a")
	fill(t, quiet, f)
	held, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	hold := func(w *wire, r *http.Request) (*http.Response, error) {
		once.Do(func() { close(held) })
		<-goOn
		return w.next.Do(r)
	}
	w.set(func(r request) fault {
		if strings.Contains(r.Body, "EV#") && r.Op == "TransactWriteItems" {
			return hold
		}
		return nil
	})
	removed := make(chan error)
	go func() { removed <- s.RemoveSession(ctx, f) }()
	<-held
	next := func() state.Fence {
		if err := quiet.CreateSession(ctx, "a", nil); err != nil {
			t.Error(err)
		}
		o, err := quiet.Owner(ctx, "a")
		if err != nil {
			t.Error(err)
		}
		return o.Fence()
	}()
	fill(t, quiet, next)
	close(goOn)
	if err := <-removed; err != nil {
		t.Errorf("the slow removal: %v", err)
	}
	if n := left(t, quiet, "a"); n != 81 {
		t.Errorf("%d records of the new session are there, of 81", n)
	}
}

// An update that is on its way while the session is removed puts nothing into it,
// nor into the next one of the name.
func TestUpdateOfWhatIsRemoved(t *testing.T) {
	ctx := context.Background()
	quiet, s, w := another(t, nil)
	f := owned(t, quiet, "a")
	w.set(always(func(w *wire, r *http.Request) (*http.Response, error) {
		if err := quiet.RemoveSession(ctx, f); err != nil {
			t.Error(err)
		}
		return w.next.Do(r)
	}))
	if err := s.Update(ctx, state.OfSession("a"), []state.Write{put(state.KindCommand, "1", "x")}); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("the update: %v", err)
	}
	if err := quiet.CreateSession(ctx, "a", nil); err != nil {
		t.Fatal(err)
	}
	if got := value(t, quiet, "a", state.KindCommand, "1"); got != "" {
		t.Error("the new session has the command")
	}
}

// Neither commits nor updates name the item that the other checks, nor write the
// one that they check themselves.
func TestItemsThatMeet(t *testing.T) {
	ctx := context.Background()
	s, w := wired(t)
	f := owned(t, s, "a")
	w.set(nil)
	if err := s.Commit(ctx, f, "", []state.Write{put(state.KindStatus, "", "x")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(ctx, state.OfSession("a"), []state.Write{put(state.KindSpec, "", "x")}); err != nil {
		t.Fatal(err)
	}
	seen := w.requests()
	if len(seen) != 2 {
		t.Fatalf("the requests are %s", w.ops())
	}
	for i, c := range []struct{ checks, other string }{{`"OWNER"`, `"SESSION"`}, {`"SESSION"`, `"OWNER"`}} {
		if strings.Count(seen[i].Body, c.checks) != 1 || strings.Contains(seen[i].Body, c.other) {
			t.Errorf("the request is %s", seen[i].Body)
		}
	}
}

// One of those who create a session at the same time does.
func TestCreationRace(t *testing.T) {
	ctx := context.Background()
	s, _ := wired(t)
	for round := range 3 {
		const n = 5
		errs := make(chan error, n)
		for i := range n {
			go func() { errs <- s.CreateSession(ctx, "a", []state.Write{put(state.KindSpec, "", fmt.Sprint(i))}) }()
		}
		made := 0
		for range n {
			switch err := <-errs; {
			case err == nil:
				made++
			case !errors.Is(err, state.ErrExists):
				t.Errorf("the error is %v", err)
			}
		}
		o, err := s.Owner(ctx, "a")
		if made != 1 || err != nil || o.Epoch != uint64(2*round+1) {
			t.Fatalf("%d sessions were made; the owner is %+v, %v", made, o, err)
		}
		if err := s.RemoveSession(ctx, o.Fence()); err != nil {
			t.Fatal(err)
		}
	}
}
