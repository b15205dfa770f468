package dynamo_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamotest"
)

// What calls cost, in units. DynamoDB Local does not count as DynamoDB does, so
// that this is the price list, and that no call makes a request too many.
func TestCapacity(t *testing.T) {
	ctx := context.Background()
	var m dynamo.Meter
	s := dynamotest.Open(t, func(o *dynamo.Options) { o.OnCapacity = m.Add })
	f := owned(t, s, "shop")
	join(t, s, "w2", "w3")
	p := state.OfSession("shop")
	kb := strings.Repeat("x", 950) // with its key and attributes less than 1 KiB
	key := func(id string) state.Key { return state.Key{Kind: state.KindSignal, ID: id} }
	var names []string
	for i := range state.MaxClaims {
		names = append(names, fmt.Sprint("c", i))
	}
	from := unownedOnes(t, s, names...)
	m.Take()
	for _, c := range []struct {
		what, method string
		do           func() error
		want         dynamo.Usage
	}{
		{"a commit of 3 items of 1 KiB", "Commit", func() error {
			return s.Commit(ctx, f, "t", []state.Write{put(state.KindSignal, "1", kb), put(state.KindEvent, "1", kb), put(state.KindStatus, "", kb)})
		}, dynamo.Usage{Requests: 1, Write: 8}},
		{"a commit of 3 items of 2 KiB", "Commit", func() error {
			return s.Commit(ctx, f, "u", []state.Write{put(state.KindSignal, "1", kb+kb), put(state.KindEvent, "1", kb+kb), put(state.KindStatus, "", kb+kb)})
		}, dynamo.Usage{Requests: 1, Write: 14}},
		{"a record", "Get", func() error { _, err := s.Get(ctx, p, key("1")); return err }, dynamo.Usage{Requests: 1, Read: 1}},
		{"two records", "GetMany", func() error {
			_, err := s.GetMany(ctx, p, []state.Key{key("1"), {Kind: state.KindStatus}})
			return err
		}, dynamo.Usage{Requests: 1, Read: 2}},
		{"a query", "Query", func() error { _, err := s.Query(ctx, p, state.Query{Kind: state.KindEvent}); return err },
			dynamo.Usage{Requests: 1, Read: 1}},
		{"the commands of nobody", "Indexed", func() error { _, err := s.Indexed(ctx, "cmd/w1", nil, 100); return err },
			dynamo.Usage{Requests: 1, Read: 0.5}},
		{"an update of a record", "Update", func() error { return s.Update(ctx, p, []state.Write{put(state.KindSpec, "", kb)}) },
			dynamo.Usage{Requests: 1, Write: 4}},
		{"the owner", "Owner", func() error { _, err := s.Owner(ctx, "shop"); return err }, dynamo.Usage{Requests: 1, Read: 1}},
		{"the unowned sessions", "OwnedBy", func() error { _, err := s.OwnedBy(ctx, "", "", 100); return err }, dynamo.Usage{Requests: 4, Read: 2}},

		// The check costs 2, an owner 8: of its index entries one is deleted and two
		// are put.
		{"a claim", "Claim", func() error { _, err := s.Claim(ctx, "w2", from[0]); return err }, dynamo.Usage{Requests: 1, Write: 10}},
		{"a claim of 24 more", "Claim", func() error { _, err := s.Claim(ctx, "w2", from[1:]...); return err }, dynamo.Usage{Requests: 1, Write: 2 + 24*8}},
		{"a raised epoch", "Claim", func() error {
			from[0].Incarnation, from[0].Epoch = "w2", 2
			_, err := s.Claim(ctx, "w2", from[0])
			return err
		},
			dynamo.Usage{Requests: 1, Write: 8}},
		{"a hand-over", "HandOver", func() error { from[0].Epoch = 3; _, err := s.HandOver(ctx, from[0].Fence(), "w3"); return err },
			dynamo.Usage{Requests: 1, Write: 10}},
		{"a release", "Release", func() error { from[0].Incarnation, from[0].Epoch = "w3", 4; return s.Release(ctx, from[0].Fence()) },
			dynamo.Usage{Requests: 1, Write: 8}},
		{"a heartbeat", "Beat", func() error { return s.Beat(ctx, "w2", state.Load{Sessions: 200, Online: 200}) }, dynamo.Usage{Requests: 1, Write: 1}},
		{"a look at 3 members", "Watch", func() error { _, err := s.Watch(ctx, []string{"w1", "w2", "w3"}); return err },
			dynamo.Usage{Requests: 1, Read: 2}},
		{"the roster of 3", "Roster", func() error { _, err := s.Roster(ctx); return err }, dynamo.Usage{Requests: 2, Read: 7}},
		{"a join", "Join", func() error { _, err := s.Join(ctx, "w4", state.MemberInfo{}); return err }, dynamo.Usage{Requests: 2, Write: 9}},
		{"a death", "DeclareDead", func() error { return s.DeclareDead(ctx, "w4", 1) }, dynamo.Usage{Requests: 1, Write: 6}},
		{"a removal", "Forget", func() error { return s.Forget(ctx, "w4") }, dynamo.Usage{Requests: 1, Write: 8}},
	} {
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		got := m.Take()
		if got[c.method] != c.want || len(got) != 1 {
			t.Errorf("%s cost %+v, want %+v", c.what, got, c.want)
		}
	}
}

// What a session and a worker cost: bounds that the bill is computed with. The
// messages are real ones, with a ratchet, an event, a secret and a hash.
func TestCosts(t *testing.T) {
	ctx := context.Background()
	var m dynamo.Meter
	s := dynamotest.Open(t, func(o *dynamo.Options) { o.OnCapacity = m.Add })
	sh := newShop(t, s)
	join(t, s, "w2", "w3")
	from := sh.contact()
	for i := range 5 { // the session is established, and what is lazy has been written
		sh.receive(from, fmt.Sprint("warm-in", i), "hello")
		sh.send(fmt.Sprint("warm-out", i), "hello")
	}
	sh.must(sh.journal.Flush(ctx))
	const n = 20
	text := strings.Repeat("some words of a message, ", 6) // 150 bytes
	m.Take()
	for _, c := range []struct {
		what  string
		times float64 // that do is done, for the average
		do    func()
		most  dynamo.Usage // of one
	}{
		{"a received message", n, func() {
			for i := range n {
				sh.receive(from, fmt.Sprint("in", i), text)
			}
			sh.must(sh.journal.Flush(ctx))
		}, dynamo.Usage{Requests: 1, Write: 12}},
		{"a sent message, in the device store", n, func() {
			for i := range n {
				sh.send(fmt.Sprint("out", i), text)
			}
			sh.must(sh.journal.Flush(ctx))
		}, dynamo.Usage{Requests: 1, Write: 10}},
		// Every second: commands. Every other one: a heartbeat, the others', what is unowned.
		{"a second of an idle worker among three", 60, func() {
			for second := range 60 {
				_, err := s.Indexed(ctx, state.CommandIndex("w1"), nil, 100)
				sh.must(err)
				if second%2 > 0 {
					continue
				}
				sh.must(s.Beat(ctx, "w1", state.Load{Sessions: 1}))
				_, err = s.Watch(ctx, []string{"w1", "w2", "w3"})
				sh.must(err)
				_, err = s.OwnedBy(ctx, "", "", 100)
				sh.must(err)
			}
		}, dynamo.Usage{Requests: 4, Read: 2.5, Write: 0.5}},
		{"a resume by another worker: prepare, claim, journal, device", 1, func() {
			o, err := s.Owner(ctx, "shop")
			sh.must(err)
			for _, kind := range []state.Kind{state.KindMeta, state.KindSpec, state.KindStatus} {
				_, err := s.GetMany(ctx, state.OfSession("shop"), []state.Key{{Kind: kind}})
				sh.must(err)
			}
			got, err := s.Claim(ctx, "w2", o)
			sh.must(err)
			sh.open(got[0])
		}, dynamo.Usage{Requests: 14, Read: 14, Write: 10}},
		{"the first message after it", 1, func() { sh.receive(from, "after", text) }, dynamo.Usage{Requests: 9, Read: 8, Write: 16}},
	} {
		c.do()
		var all dynamo.Usage
		by := m.Take()
		for _, u := range by {
			all.Requests += u.Requests
			all.Read += u.Read
			all.Write += u.Write
		}
		requests, read, write := float64(all.Requests)/c.times, all.Read/c.times, all.Write/c.times
		t.Logf("%s: %.2f requests, %.2f read units, %.2f write units (%+v)", c.what, requests, read, write, by)
		if requests > float64(c.most.Requests)+0.2 || read > c.most.Read+0.2 || write > c.most.Write {
			t.Errorf("%s: %.2f requests, %.2f read units, %.2f write units; at most %+v", c.what, requests, read, write, c.most)
		}
	}
}
