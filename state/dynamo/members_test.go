package dynamo_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
)

func join(t *testing.T, s state.Members, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, err := s.Join(context.Background(), id, state.MemberInfo{Task: "task of " + id}); err != nil {
			t.Fatal(err)
		}
	}
}

// member is one of the roster's; nil if it is not remembered.
func member(t *testing.T, s state.Members, id string) *state.Member {
	t.Helper()
	r, err := s.Roster(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range r.Members {
		if m.Incarnation == id {
			return &m
		}
	}
	return nil
}

// unownedOnes makes sessions and returns their owners.
func unownedOnes(t *testing.T, s state.Owners, names ...string) []state.Owner {
	t.Helper()
	ctx := context.Background()
	var all []state.Owner
	for _, name := range names {
		if err := s.CreateSession(ctx, name, nil); err != nil {
			t.Fatal(err)
		}
		o, err := s.Owner(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

// busy is what DynamoDB answers while others are at the same items, and what a
// network does. DynamoDB Local knows none of it.
var busy = map[string]fault{
	"a conflict of the first item":     cancel("TransactionConflict", "None", "None", "None"),
	"a conflict of the second":         cancel("None", "TransactionConflict", "None", "None"),
	"a conflict beside a condition":    cancel("TransactionConflict", "ConditionalCheckFailed", "None", "None"),
	"throttling of an item":            cancel("None", "ThrottlingError", "None", "None"),
	"provisioned throughput":           refuse(400, "ProvisionedThroughputExceededException"),
	"a conflict of a single write":     refuse(400, "TransactionConflictException"),
	"the same transaction in progress": refuse(400, "TransactionInProgressException"),
	"an error of the service":          refuse(500, "InternalServerError"),
	"no connection":                    unsent,
	"a lost answer":                    lost,
	"no service":                       refuse(503, "ServiceUnavailable"),
}

// Every change of members and owners survives what passes by itself, happens
// once, and brings the same token whenever it is asked for again.
func TestMembersPassingFaults(t *testing.T) {
	for name, f := range busy {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			quiet, s, w := another(t, retryFor(9*time.Second))
			from := unownedOnes(t, quiet, "a", "b", "c")
			join(t, quiet, "other", "late")
			during := func(what string, do func() error) {
				t.Helper()
				seen := map[string]int{}
				var mu sync.Mutex
				w.set(func(r request) fault {
					mu.Lock()
					defer mu.Unlock()
					if seen[r.Op]++; seen[r.Op] <= 2 {
						return f
					}
					return nil
				})
				defer w.set(nil)
				if err := do(); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				tokens := map[string]bool{}
				for _, r := range w.requests() {
					if r.Op == "TransactWriteItems" {
						tokens[r.Token] = true
					}
				}
				if len(tokens) != 1 || tokens[""] {
					t.Errorf("%s: the tokens are %v", what, tokens)
				}
			}
			during("a join", func() error { _, err := s.Join(ctx, "me", state.MemberInfo{}); return err })
			var got []state.Owner
			during("a claim", func() (err error) { got, err = s.Claim(ctx, "me", from...); return err })
			during("a hand-over", func() error { _, err := s.HandOver(ctx, got[0].Fence(), "other"); return err })
			during("a wish to drain", func() error { return s.Drain(ctx, "me", true) })
			during("a death", func() error { return s.DeclareDead(ctx, "other", 1) })
			during("a hint", func() error { return s.DeclareStopped(ctx, "late") })
			during("a removal", func() error { return s.Forget(ctx, "late") })
			for session, want := range map[string]string{"a": "other 3", "b": "me 2", "c": "me 2"} {
				o, err := quiet.Owner(ctx, session)
				if is := fmt.Sprint(o.Incarnation, " ", o.Epoch); err != nil || is != want {
					t.Errorf("the owner of %s is %s, want %s; %v", session, is, want, err)
				}
			}
			r, err := quiet.Roster(ctx)
			if err != nil || r.Revision != 7 || len(r.Members) != 2 {
				t.Fatalf("the roster is %+v, %v", r, err)
			}
			if m := r.Members[0]; m.Incarnation != "other" || !m.Dead || m.Beats != 1 {
				t.Errorf("%+v", m)
			}
			if m := r.Members[1]; m.Incarnation != "me" || m.Dead || !m.Drain || m.Joined < 3 {
				t.Errorf("%+v", m)
			}
		})
	}
}

// Many give to one at a time, as when workers are drained: their checks of its
// LIFE refuse each other, and all come through.
func TestHandOversThatMeet(t *testing.T) {
	quiet, s, w := another(t, retryFor(20*time.Second))
	ctx := context.Background()
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprint("s", i))
	}
	from := unownedOnes(t, quiet, names...)
	join(t, quiet, "target", "me")
	owners, err := quiet.Claim(ctx, "me", from...)
	if err != nil {
		t.Fatal(err)
	}
	w.set(func(r request) fault {
		if r.N%3 > 0 {
			return cancel("None", "TransactionConflict")
		}
		return nil
	})
	errs := make(chan error, len(owners))
	for _, o := range owners {
		go func() { _, err := s.HandOver(ctx, o.Fence(), "target"); errs <- err }()
	}
	for range owners {
		if err := <-errs; err != nil {
			t.Errorf("a hand-over: %v", err)
		}
	}
	if n := len(w.requests()); n > 3*len(owners) {
		t.Errorf("%d requests for %d hand-overs", n, len(owners))
	}
	got, err := quiet.OwnedBy(ctx, "target", "", 0)
	if err != nil || len(got) != len(owners) {
		t.Errorf("%d sessions were given, %v", len(got), err)
	}
	for _, o := range got {
		if o.Epoch != 3 {
			t.Errorf("%+v", o)
		}
	}
}

// A claim that was never answered is unavailable, whether or not it happened, and
// has not happened by halves.
func TestClaimOfUnknownOutcome(t *testing.T) {
	for name, c := range map[string]struct {
		fault    fault
		happened bool
	}{"lost on the way": {swallowed, false}, "lost on the way back": {lost, true}, "refused for ever": {cancel("TransactionConflict"), false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			quiet, s, w := another(t, retryFor(500*time.Millisecond))
			from := unownedOnes(t, quiet, "a", "b")
			join(t, quiet, "me")
			w.set(always(c.fault))
			got, err := s.Claim(ctx, "me", from...)
			if !errors.Is(err, state.ErrUnavailable) || got != nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("the claim: %v, %v", got, err)
			}
			if n := len(w.requests()); n < 2 {
				t.Errorf("%d requests were made", n)
			}
			owned := 0
			for _, f := range from {
				o, err := quiet.Owner(ctx, f.Session)
				if err != nil {
					t.Fatal(err)
				}
				if o.Incarnation == "me" && o.Epoch == f.Epoch+1 {
					owned++
				}
			}
			if c.happened && owned != len(from) || !c.happened && owned != 0 {
				t.Errorf("%d sessions are owned", owned)
			}
			// Whoever does not know raises the epoch, from what is there now.
			w.set(nil)
			o, err := s.Owner(ctx, "a")
			if err != nil {
				t.Fatal(err)
			}
			if again, err := s.Claim(ctx, "me", o); err != nil || again[0].Epoch != o.Epoch+1 {
				t.Errorf("the claim, again: %v, %v", again, err)
			}
			// The caller's own deadline comes first.
			w.set(always(swallowed))
			short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
			defer cancel()
			if _, err := s.HandOver(short, o.Fence(), "me"); !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with a deadline: %v", err)
			}
		})
	}
}

// What a transaction says of its items becomes the contract's errors, whatever
// else it says.
func TestClaimRefusals(t *testing.T) {
	s, w := wired(t)
	ctx := context.Background()
	from := unownedOnes(t, s, "a", "b")
	join(t, s, "me")
	for name, c := range map[string]struct {
		reasons       []string
		claim, handed error // of the two calls, whose items are in another order
	}{
		"the first":              {[]string{"ConditionalCheckFailed", "None", "None"}, state.ErrDead, state.ErrFenced},
		"the second":             {[]string{"None", "ConditionalCheckFailed", "None"}, state.ErrFenced, state.ErrDead},
		"both":                   {[]string{"ConditionalCheckFailed", "ConditionalCheckFailed", "None"}, state.ErrDead, state.ErrFenced},
		"the first and conflict": {[]string{"ConditionalCheckFailed", "TransactionConflict", "None"}, state.ErrDead, state.ErrFenced},
		"an item that is wrong":  {[]string{"None", "ValidationError", "None"}, nil, nil},
	} {
		w.set(always(cancel(c.reasons...)))
		_, claim := s.Claim(ctx, "me", from...)
		_, handed := s.HandOver(ctx, from[0].Fence(), "me")
		if n := len(w.requests()); n != 2 {
			t.Errorf("%s: %d requests were made", name, n)
		}
		for what, e := range map[string][2]error{"a claim": {claim, c.claim}, "a hand-over": {handed, c.handed}} {
			got, want := e[0], e[1]
			if got == nil || want != nil && !errors.Is(got, want) || strings.Contains(got.Error(), "\n") {
				t.Errorf("%s: %s is refused with %v, want %v", name, what, got, want)
			}
			for _, class := range []error{state.ErrDead, state.ErrFenced, state.ErrUnavailable, state.ErrConflict} {
				if errors.Is(got, class) != errors.Is(want, class) {
					t.Errorf("%s: %s is refused with %v, want %v", name, what, got, want)
				}
			}
		}
	}
}

// A beat is one request, ended by its deadline to the moment: trust runs from
// when it was sent, and a store that repeats it would lie about that.
func TestBeatIsNotRepeated(t *testing.T) {
	quiet, s, w := another(t, retryFor(9*time.Second))
	ctx := context.Background()
	join(t, quiet, "me")
	for name, f := range busy {
		w.set(always(f))
		err := s.Beat(ctx, "me", state.Load{})
		if !errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrDead) {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(w.requests()); n != 1 {
			t.Errorf("%s: %d requests were made", name, n)
		}
	}
	for name, f := range map[string]fault{"a lost request": swallowed, "a late answer": late} {
		w.set(always(f))
		short, cancel := context.WithTimeout(ctx, 150*time.Millisecond)
		started := time.Now()
		err := s.Beat(short, "me", state.Load{})
		took := time.Since(started)
		cancel()
		if !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || took > time.Second {
			t.Errorf("%s: %v after %s", name, err, took)
		}
	}
	before := member(t, quiet, "me").Beats
	w.set(nil)
	if err := s.Beat(ctx, "me", state.Load{Sessions: 3}); err != nil {
		t.Fatal(err)
	}
	if m := member(t, quiet, "me"); m.Beats != before+1 || m.Load.Sessions != 3 {
		t.Errorf("%+v", m)
	}
	if err := quiet.DeclareStopped(ctx, "me"); err != nil {
		t.Fatal(err)
	}
	w.set(nil)
	for _, id := range []string{"me", "never", ""} {
		if err := s.Beat(ctx, id, state.Load{}); !errors.Is(err, state.ErrDead) {
			t.Errorf("a beat of %q: %v", id, err)
		}
	}
}

// A declaration compares the counter that is stored, whatever a replica said.
func TestDeathAgainstABeat(t *testing.T) {
	quiet, s, w := another(t, nil)
	ctx := context.Background()
	join(t, quiet, "me")
	pulse, err := s.Watch(ctx, []string{"me", "me", "never", "no id!"})
	if err != nil || len(pulse.Beats) != 1 || pulse.Beats["me"].Count != 1 || pulse.Revision != 1 {
		t.Fatalf("%+v, %v", pulse, err)
	}
	// It beats between the look and the declaration.
	w.set(first(1, func(w *wire, r *http.Request) (*http.Response, error) {
		if err := quiet.Beat(ctx, "me", state.Load{}); err != nil {
			t.Error(err)
		}
		return w.next.Do(r)
	}))
	if err := s.DeclareDead(ctx, "me", 1); !errors.Is(err, state.ErrConflict) {
		t.Errorf("the declaration: %v", err)
	}
	// It dies in between: that is as good.
	w.set(first(1, func(w *wire, r *http.Request) (*http.Response, error) {
		if err := quiet.DeclareStopped(ctx, "me"); err != nil {
			t.Error(err)
		}
		return w.next.Do(r)
	}))
	if err := s.DeclareDead(ctx, "me", 2); err != nil {
		t.Errorf("the declaration: %v", err)
	}
	if r, err := s.Roster(ctx); err != nil || r.Revision != 2 {
		t.Errorf("a second death counts: %+v, %v", r, err)
	}
	w.set(nil)
	// It is forgotten between the list and the look at its items.
	w.set(func(r request) fault {
		if r.Op != "BatchGetItem" {
			return nil
		}
		return func(w *wire, r *http.Request) (*http.Response, error) {
			if err := quiet.Forget(ctx, "me"); err != nil {
				t.Error(err)
			}
			return w.next.Do(r)
		}
	})
	if r, err := s.Roster(ctx); err != nil || len(r.Members) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Many join at once, as in a deployment: each has a number of its own.
func TestJoinsAtOnce(t *testing.T) {
	s, _ := wired(t)
	ctx := context.Background()
	const n = 20
	numbers := make(chan uint64, n)
	for i := range n {
		go func() {
			m, err := s.Join(ctx, fmt.Sprintf("w-%d", i), state.MemberInfo{})
			if err != nil {
				t.Error(err)
			}
			numbers <- m.Joined
		}()
	}
	seen := map[uint64]bool{}
	for range n {
		seen[<-numbers] = true
	}
	r, err := s.Roster(ctx)
	if err != nil || len(seen) != n || len(r.Members) != n || r.Revision != n {
		t.Errorf("%d numbers, %d members, revision %d, %v", len(seen), len(r.Members), r.Revision, err)
	}
	if _, err := s.Join(ctx, "w-3", state.MemberInfo{}); !errors.Is(err, state.ErrExists) {
		t.Errorf("an id that is in use: %v", err)
	}
}

// A fleet larger than one request is read in parts, and again where DynamoDB left
// some out or a replica does not have one yet. A load that another release wrote
// otherwise is no reason to be blind.
func TestRosterInParts(t *testing.T) {
	var o dynamo.Options
	s, w := wired(t, func(x *dynamo.Options) { o = *x })
	ctx := context.Background()
	const n = 130
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("w-%03d", i))
		join(t, s, ids[i])
	}
	overwrite(t, raw(o), "W#w-007", "HB", "load", "[no load]")
	overwrite(t, raw(o), "W#w-008", "REG", "info", "{")
	w.set(func(r request) fault {
		if r.Op == "BatchGetItem" && r.N == 3 {
			return unprocessed
		}
		return nil
	})
	r, err := s.Roster(ctx)
	if err != nil || len(r.Members) != n || r.Revision != n {
		t.Fatalf("%d members, revision %d, %v", len(r.Members), r.Revision, err)
	}
	for i, m := range r.Members {
		if m.Incarnation != ids[i] || m.Joined != uint64(i+1) || m.Info.Task == "" != (i == 8) {
			t.Errorf("%+v at %d", m, i)
		}
	}
	if got, want := w.ops(), "GetItem BatchGetItem BatchGetItem BatchGetItem BatchGetItem"; got != want {
		t.Errorf("the requests are %s", got)
	}
	for _, r := range w.requests() {
		if !strings.Contains(r.Body, `"ConsistentRead":true`) {
			t.Errorf("not consistent: %s", r.Body)
		}
	}
	w.set(func(r request) fault {
		if r.N == 2 {
			return nothingThere
		}
		return nil
	})
	p, err := s.Watch(ctx, ids)
	if err != nil || len(p.Beats) != n || p.Revision != n {
		t.Fatalf("%d beats, revision %d, %v", len(p.Beats), p.Revision, err)
	}
	for i, r := range w.requests() {
		if again := strings.Contains(r.Body, `"ConsistentRead":true`); again != (i == 2) || r.Op != "BatchGetItem" {
			t.Errorf("request %d is %s", i+1, r.Body)
		}
	}
}

// unprocessed is an answer that leaves all out.
func unprocessed(_ *wire, r *http.Request) (*http.Response, error) {
	return partly(r, func(asked string) string { return fmt.Sprintf(`{"Responses":{},"UnprocessedKeys":%s}`, asked) })
}

// nothingThere is an answer of a replica that has nothing yet.
func nothingThere(_ *wire, r *http.Request) (*http.Response, error) {
	return partly(r, func(string) string { return `{"Responses":{},"UnprocessedKeys":{}}` })
}

func partly(r *http.Request, body func(asked string) string) (*http.Response, error) {
	var in struct{ RequestItems json.RawMessage }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, err
	}
	return answer(r, http.StatusOK, body(string(in.RequestItems)))
}

// overwrite sets a text attribute of an item of the fleet's table.
func overwrite(t *testing.T, client *dynamodb.Client, pk, sk, attribute, value string) {
	t.Helper()
	s := func(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }
	if _, err := client.UpdateItem(context.Background(), &dynamodb.UpdateItemInput{
		TableName: aws.String("test-fleet"), Key: map[string]types.AttributeValue{"pk": s(pk), "sk": s(sk)},
		UpdateExpression: aws.String("SET #a = :v"), ExpressionAttributeNames: map[string]string{"#a": attribute},
		ExpressionAttributeValues: map[string]types.AttributeValue{":v": s(value)},
	}); err != nil {
		t.Fatal(err)
	}
}
