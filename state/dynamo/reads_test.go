package dynamo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
)

// Many keys are asked for by the hundred, and again where DynamoDB left some out.
func TestGetManyInParts(t *testing.T) {
	ctx := context.Background()
	s, w := wired(t)
	f := owned(t, s, "a")
	var keys []state.Key
	var writes []state.Write
	for i := range 250 {
		keys = append(keys, state.Key{Kind: state.KindPreKey, ID: fmt.Sprint(i)})
		if i < 60 {
			writes = append(writes, put(state.KindPreKey, fmt.Sprint(i), "x"))
		}
	}
	if err := s.Commit(ctx, f, "", writes); err != nil {
		t.Fatal(err)
	}
	w.set(first(2, unprocessed))
	found, err := s.GetMany(ctx, state.OfSession("a"), keys)
	if err != nil || len(found) != 60 {
		t.Errorf("%d records, %v", len(found), err)
	}
	if got, want := w.ops(), strings.TrimSuffix(strings.Repeat("BatchGetItem ", 5), " "); got != want {
		t.Errorf("the requests are %s", got)
	}
	for _, r := range w.requests() {
		if !strings.Contains(r.Body, `"ConsistentRead":true`) {
			t.Errorf("not consistent: %s", r.Body)
		}
	}
	// For ever is too long.
	w.set(always(unprocessed))
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := s.GetMany(short, state.OfSession("a"), keys); !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
}

// A query goes on where DynamoDB stops: after a megabyte, and behind records that
// have expired and are still there.
func TestQueryInParts(t *testing.T) {
	ctx := context.Background()
	now := time.Now().Truncate(time.Millisecond)
	s, w := wired(t, func(o *dynamo.Options) { o.Now = func() time.Time { return now } })
	f := owned(t, s, "a")
	p := state.OfSession("a")
	big := strings.Repeat("x", state.MaxValue)
	for i := range 6 {
		if err := s.Commit(ctx, f, "", []state.Write{put(state.KindEvent, state.EventID(uint64(i)), big)}); err != nil {
			t.Fatal(err)
		}
	}
	w.set(nil)
	page, err := s.Query(ctx, p, state.Query{Kind: state.KindEvent})
	if err != nil || len(page.Records) != 6 || page.More {
		t.Errorf("%d records, more %v, %v", len(page.Records), page.More, err)
	}
	if n := len(w.requests()); n < 2 {
		t.Errorf("%d requests for 1.8 MB", n)
	}

	var writes []state.Write
	for i := range 60 {
		writes = append(writes, put(state.KindEventHash, fmt.Sprintf("%02d", i), "x", expires(now.Add(time.Duration(i+1)*time.Minute))))
	}
	if err := s.Commit(ctx, f, "", writes); err != nil {
		t.Fatal(err)
	}
	now = now.Add(50 * time.Minute) // the record 49 expires at this very moment
	page, err = s.Query(ctx, p, state.Query{Kind: state.KindEventHash, Limit: 2})
	if err != nil || len(page.Records) != 2 || !page.More || page.Records[0].Key.ID != "50" {
		t.Errorf("%+v, %v", page, err)
	}
	page, err = s.Query(ctx, p, state.Query{Kind: state.KindEventHash, Descending: true, After: "52", Limit: 5})
	if err != nil || len(page.Records) != 2 || page.More {
		t.Errorf("%+v, %v", page, err)
	}
}

// Sessions are listed in order whatever shards they are in, page by page, and
// without a scan.
func TestListingOverShards(t *testing.T) {
	ctx := context.Background()
	s, w := wired(t)
	var names []string
	for i := range 23 {
		names = append(names, fmt.Sprintf("s%02d", (i*7)%23))
		if err := s.CreateSession(ctx, names[i], nil); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(names)
	w.set(nil)
	for what, list := range map[string]func(after string, limit int) ([]state.Owner, error){
		"sessions": func(after string, limit int) ([]state.Owner, error) { return s.Sessions(ctx, after, limit) },
		"unowned":  func(after string, limit int) ([]state.Owner, error) { return s.OwnedBy(ctx, "", after, limit) },
	} {
		for _, limit := range []int{1, 5, 22, 23, 24, 0} {
			var got []string
			for after := ""; ; {
				page, err := list(after, limit)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					break
				}
				for _, o := range page {
					got = append(got, o.Session)
				}
				after = got[len(got)-1]
			}
			if !slices.Equal(got, names) {
				t.Errorf("%s by %d: %v", what, limit, got)
			}
		}
	}
	for _, r := range w.requests() {
		if r.Op != "Query" || !strings.Contains(r.Body, "IndexName") {
			t.Errorf("the request is a %s: %s", r.Op, r.Body)
		}
	}
}

// Keys that DynamoDB cannot hold, or that are the store's own, are refused
// before anything is sent, and never found.
func TestRefusedKeys(t *testing.T) {
	ctx := context.Background()
	s, w := wired(t)
	f := owned(t, s, "a")
	p := state.OfSession("a")
	w.set(nil)
	for name, write := range map[string]state.Write{
		"an id that is not UTF-8":     put(state.KindSignal, "\xff", "x"),
		"an index that is not UTF-8":  {Record: state.Record{Key: state.Key{Kind: state.KindCommand}, Index: "\xff"}},
		"an index with a long name":   {Record: state.Record{Key: state.Key{Kind: state.KindCommand}, Index: strings.Repeat("i", 1025)}},
		"the owner":                   put("OWNER", "", "x"),
		"a record beside the owner":   put("OWNER", "1", "x"),
		"the session":                 put("SESSION", "", "x"),
		"the deletion of the owner":   state.Del("OWNER", ""),
		"the deletion of the session": state.Del("SESSION", ""),
	} {
		if err := s.Commit(ctx, f, "", []state.Write{write}); err == nil || errors.Is(err, state.ErrFenced) {
			t.Errorf("%s: %v", name, err)
		}
		if write.Key.Kind.DeviceState() {
			continue
		}
		if err := s.Update(ctx, p, []state.Write{write}); err == nil {
			t.Errorf("%s: accepted by Update", name)
		}
	}
	if n := len(w.requests()); n != 0 {
		t.Errorf("%d requests were made", n)
	}
	for _, key := range []state.Key{{Kind: "OWNER"}, {Kind: "SESSION"}, {Kind: state.KindSignal, ID: "\xff"}} {
		if _, err := s.Get(ctx, p, key); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("%s: %v", key, err)
		}
		if found, err := s.GetMany(ctx, p, []state.Key{key}); err != nil || len(found) != 0 {
			t.Errorf("%s: %v, %v", key, found, err)
		}
	}
	for _, kind := range []state.Kind{"OWNER", "SESSION"} {
		if page, err := s.Query(ctx, p, state.Query{Kind: kind}); err != nil || len(page.Records) != 0 {
			t.Errorf("%s: %v, %v", kind, page, err)
		}
	}
	// Part of a character is a prefix like any other.
	if err := s.Commit(ctx, f, "", []state.Write{put(state.KindSignal, "é1", "x"), put(state.KindSignal, "z", "x")}); err != nil {
		t.Fatal(err)
	}
	if page, err := s.Query(ctx, p, state.Query{Kind: state.KindSignal, Prefix: "\xc3"}); err != nil || len(page.Records) != 1 {
		t.Errorf("%+v, %v", page, err)
	}
	if _, err := s.Query(ctx, p, state.Query{Kind: state.KindSignal, After: "\xc3"}); err == nil {
		t.Error("a query goes on after what is no id")
	}
}

// The store's clock is DynamoDB's: records expire by that, whatever the host
// takes the time to be.
func TestStoreClock(t *testing.T) {
	ctx := context.Background()
	s, w := wired(t)
	f := owned(t, s, "a")
	if got := time.Since(s.Now()); got < -2*time.Second || got > 2*time.Second {
		t.Errorf("the store's clock is off by %s", got)
	}
	until := s.Now().Add(30 * time.Minute)
	if err := s.Commit(ctx, f, "", []state.Write{put(state.KindEventHash, "1", "x", expires(until))}); err != nil {
		t.Fatal(err)
	}
	later := func(w *wire, r *http.Request) (*http.Response, error) {
		resp, err := w.next.Do(r)
		if err == nil {
			resp.Header.Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		}
		return resp, err
	}
	w.set(always(later))
	if err := s.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	if got := time.Until(s.Now()); got < 59*time.Minute || got > 61*time.Minute {
		t.Errorf("an hour later the store's clock is off by %s", got)
	}
	if _, err := s.Get(ctx, state.OfSession("a"), state.Key{Kind: state.KindEventHash, ID: "1"}); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a record that has expired: %v", err)
	}
	if err := s.Commit(ctx, f, "", []state.Write{put(state.KindEventHash, "1", "y", when(state.Absent()))}); err != nil {
		t.Errorf("a commit over a record that has expired: %v", err)
	}
}

// What a value holds is given back byte by byte, the largest one too.
func TestLargestRecord(t *testing.T) {
	ctx := context.Background()
	s, _ := wired(t)
	f := owned(t, s, "a")
	v := bytes.Repeat([]byte{0, 0xff, 'x'}, state.MaxValue/3)
	id := strings.Repeat("😀", state.MaxKeyID/4)
	w := state.Write{Record: state.Record{Key: state.Key{Kind: state.KindOutbox, ID: id}, Value: v, Index: strings.Repeat("i", 1024)}}
	if err := s.Commit(ctx, f, "", []state.Write{w}); err != nil {
		t.Fatal(err)
	}
	found, err := s.Indexed(ctx, w.Index, nil, 0)
	if err != nil || len(found) != 1 || !bytes.Equal(found[0].Value, v) || found[0].Key.ID != id {
		t.Errorf("%d records, %v", len(found), err)
	}
}
