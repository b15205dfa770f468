package dynamo_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
)

// What passes by itself is waited for; the commit happens once, under one token.
func TestPassingFaults(t *testing.T) {
	for name, f := range map[string]fault{
		"a conflict of the check":          cancel("TransactionConflict", "None", "None"),
		"a conflict of a write":            cancel("None", "None", "TransactionConflict"),
		"a conflict beside a condition":    cancel("TransactionConflict", "ConditionalCheckFailed", "None"),
		"throttling of an item":            cancel("None", "ThrottlingError", "None"),
		"provisioned throughput of a key":  cancel("None", "ProvisionedThroughputExceeded", "None"),
		"throttling":                       refuse(400, "ThrottlingException"),
		"provisioned throughput":           refuse(400, "ProvisionedThroughputExceededException"),
		"the account's limit":              refuse(400, "RequestLimitExceeded"),
		"the same transaction in progress": refuse(400, "TransactionInProgressException"),
		"an error of the service":          refuse(500, "InternalServerError"),
		"no service":                       refuse(503, "ServiceUnavailable"),
		"an error of what is in between":   refuse(502, "UnknownError"),
		"no connection":                    unsent,
		"a lost answer":                    lost,
		"a lost request":                   swallowed,
		"a late answer":                    late,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, w := wired(t, retryFor(9*time.Second))
			f, fault := owned(t, s, "a"), f
			w.set(first(2, fault))
			writes := []state.Write{put(state.KindSignal, "1", "new", when(state.Absent())), put(state.KindStatus, "", "new")}
			if name == "a late answer" || name == "a lost request" {
				w.set(first(1, fault)) // each takes a third of the time
			}
			if err := s.Commit(context.Background(), f, "token", writes); err != nil {
				t.Fatalf("the commit failed: %v", err)
			}
			seen := w.requests()
			if len(seen) < 2 || len(seen) > 3 {
				t.Errorf("%d requests were made", len(seen))
			}
			for _, r := range seen {
				if r.Token == "" || r.Token != seen[0].Token || r.Body != seen[0].Body {
					t.Errorf("the requests differ: %s and %s", seen[0].Body, r.Body)
				}
			}
			if got := value(t, s, "a", state.KindSignal, "1") + value(t, s, "a", state.KindStatus, ""); got != "newnew" {
				t.Errorf("the records hold %q", got)
			}
		})
	}
}

// What does not pass is told at once.
func TestFinalAnswers(t *testing.T) {
	s, w := wired(t)
	f := owned(t, s, "a")
	for name, c := range map[string]struct {
		fault fault
		want  error // nil: another one than those of the contract
	}{
		"the fence":                          {cancel("ConditionalCheckFailed", "None", "None"), state.ErrFenced},
		"the fence and a condition":          {cancel("ConditionalCheckFailed", "ConditionalCheckFailed", "None"), state.ErrFenced},
		"the fence and a conflict":           {cancel("ConditionalCheckFailed", "TransactionConflict", "None"), state.ErrFenced},
		"a condition":                        {cancel("None", "None", "ConditionalCheckFailed"), state.ErrConflict},
		"an item that is not as it should":   {cancel("None", "ValidationError", "None"), nil},
		"a request that is not as it should": {refuse(400, "ValidationException"), nil},
		"no permission":                      {refuse(400, "AccessDeniedException"), state.ErrUnavailable},
		"no table":                           {refuse(400, "ResourceNotFoundException"), state.ErrUnavailable},
		"credentials that have expired":      {refuse(400, "ExpiredTokenException"), state.ErrUnavailable},
		"a key that is not known":            {refuse(400, "UnrecognizedClientException"), state.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			w.set(always(c.fault))
			err := s.Commit(context.Background(), f, "token", []state.Write{put(state.KindSignal, "1", "x"), put(state.KindStatus, "", "x")})
			if n := len(w.requests()); n != 1 {
				t.Errorf("%d requests were made", n)
			}
			if err == nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("the error is %v", err)
			}
			for _, class := range []error{state.ErrFenced, state.ErrConflict, state.ErrUnavailable} {
				if errors.Is(err, class) != errors.Is(c.want, class) {
					t.Errorf("the error is %v, want %v", err, c.want)
				}
			}
			if errors.Is(c.want, state.ErrConflict) && !strings.Contains(err.Error(), "STATUS") {
				t.Errorf("the error does not say which record: %v", err)
			}
		})
	}
}

// A store that is busy for good is given up in time, and the caller's own
// deadline comes first.
func TestGivingUp(t *testing.T) {
	for name, f := range map[string]fault{
		"conflicts":    cancel("None", "TransactionConflict"),
		"throttling":   refuse(400, "ThrottlingException"),
		"lost request": swallowed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			quiet, s, w := another(t, retryFor(600*time.Millisecond))
			fence := owned(t, quiet, "a")
			w.set(always(f))
			writes := []state.Write{put(state.KindSignal, "1", "x")}
			started := time.Now()
			err := s.Commit(context.Background(), fence, "token", writes)
			if !errors.Is(err, state.ErrUnavailable) || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is %v", err)
			}
			if took := time.Since(started); took < 500*time.Millisecond || took > 5*time.Second {
				t.Errorf("it was given up after %s", took)
			}
			if n := len(w.requests()); n < 2 {
				t.Errorf("%d requests were made", n)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if err := s.Commit(ctx, fence, "token", writes); !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with a deadline the error is %v", err)
			}
			if got := value(t, quiet, "a", state.KindSignal, "1"); got != "" {
				t.Errorf("the record holds %q", got)
			}
		})
	}
}

// A commit whose answers were all lost is repeated later with its token, when the
// clock has gone on and the record has been written since: nothing happens twice.
func TestLostForGood(t *testing.T) {
	now := time.Now()
	quiet, s, w := another(t, func(o *dynamo.Options) {
		o.RetryFor = 500 * time.Millisecond
		o.Now = func() time.Time { return now }
	})
	ctx := context.Background()
	f := owned(t, quiet, "a")
	for name, with := range map[string]func(*state.Write){
		"1": func(*state.Write) {},
		"2": when(state.Absent()),
	} {
		w.set(always(lost))
		writes := []state.Write{put(state.KindSignal, name, "first", with)}
		if err := s.Commit(ctx, f, "token"+name, writes); !errors.Is(err, state.ErrUnavailable) {
			t.Fatalf("without an answer: %v", err)
		}
		if got := value(t, quiet, "a", state.KindSignal, name); got != "first" {
			t.Fatalf("the record holds %q", got)
		}
		if err := quiet.Commit(ctx, f, "", []state.Write{put(state.KindSignal, name, "second")}); err != nil {
			t.Fatal(err)
		}
		request := w.requests()[0].Body
		w.set(nil)
		now = now.Add(3 * time.Second)
		if err := s.Commit(ctx, f, "token"+name, writes); err != nil {
			t.Errorf("the commit that did happen: %v", err)
		}
		if again := w.requests()[0].Body; again != request {
			t.Errorf("the requests differ: %s and %s", request, again)
		}
		if got := value(t, quiet, "a", state.KindSignal, name); got != "second" {
			t.Errorf("the record holds %q", got)
		}
	}
}

// A commit that was refused is another one when it is tried again: at another
// time, and not mistaken for the first.
func TestTokenAfterARefusal(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond) // items expire by the millisecond
	s, w := wired(t, func(o *dynamo.Options) { o.Now = func() time.Time { return now } })
	ctx := context.Background()
	f := owned(t, s, "a")
	if err := s.Commit(ctx, f, "", []state.Write{put(state.KindSignal, "1", "old", expires(now.Add(time.Minute)))}); err != nil {
		t.Fatal(err)
	}
	w.set(nil)
	writes := []state.Write{put(state.KindSignal, "1", "new", when(state.Absent()))}
	for range 2 {
		if err := s.Commit(ctx, f, "token", writes); !errors.Is(err, state.ErrConflict) {
			t.Fatalf("before the record expires: %v", err)
		}
	}
	now = now.Add(time.Minute)
	for range 2 {
		if err := s.Commit(ctx, f, "token", writes); err != nil {
			t.Fatalf("when it has expired: %v", err)
		}
	}
	seen := w.requests()
	if seen[0].Token == seen[1].Token || seen[1].Token == seen[2].Token || seen[2].Token != seen[3].Token {
		t.Errorf("the tokens are %s, %s, %s, %s", seen[0].Token, seen[1].Token, seen[2].Token, seen[3].Token)
	}
	if got := value(t, s, "a", state.KindSignal, "1"); got != "new" {
		t.Errorf("the record holds %q", got)
	}
}

// All that changes owners or is no commit survives a lost answer, too: a
// condition that the first request has made false must not refuse the second.
func TestLostAnswers(t *testing.T) {
	s, w := wired(t)
	ctx := context.Background()
	lose := func(what string, do func() error) {
		t.Helper()
		w.set(func(r request) fault {
			if r.Op == "TransactWriteItems" && r.N <= 2 {
				return lost
			}
			return nil
		})
		defer w.set(nil)
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if n := len(w.requests()); n < 2 {
			t.Fatalf("%s: %d requests were made", what, n)
		}
	}
	p := state.OfSession("a")
	lose("create", func() error { return s.CreateSession(ctx, "a", []state.Write{put(state.KindSpec, "", "0")}) })
	o, err := s.Owner(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	lose("join", func() error { _, err := s.Join(ctx, "w1", state.MemberInfo{}); return err })
	lose("claim", func() error { got, err := s.Claim(ctx, "w1", o); o = got[0]; return err })
	for i := range 3 {
		lose("update", func() error {
			w := put(state.KindSpec, "", strconv.Itoa(i+1), when(state.AtRev(uint64(i))))
			w.Rev = uint64(i + 1)
			return s.Update(ctx, p, []state.Write{w})
		})
	}
	if got := value(t, s, "a", state.KindSpec, ""); got != "3" {
		t.Errorf("the record holds %q", got)
	}
	lose("release", func() error { return s.Release(ctx, o.Fence()) })
	if o, err = s.Owner(ctx, "a"); err != nil || o.Epoch != 3 || o.Incarnation != "" {
		t.Fatalf("the owner is %+v, %v", o, err)
	}
	lose("remove", func() error { return s.RemoveSession(ctx, o.Fence()) })
	lose("create again", func() error { return s.CreateSession(ctx, "a", nil) })
	if o, err = s.Owner(ctx, "a"); err != nil || o.Epoch != 5 {
		t.Fatalf("the owner is %+v, %v", o, err)
	}
}
