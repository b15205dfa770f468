package dynamo_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamotest"
)

// items are all there are in a table, each as a line of its attributes.
func items(t *testing.T, client *dynamodb.Client, table string) []string {
	t.Helper()
	out, err := client.Scan(context.Background(), &dynamodb.ScanInput{TableName: &table})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, it := range out.Items {
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(it)) {
			switch v := it[name].(type) {
			case *types.AttributeValueMemberS:
				parts = append(parts, fmt.Sprintf("%s=%s", name, v.Value))
			case *types.AttributeValueMemberN:
				parts = append(parts, fmt.Sprintf("%s=%s", name, v.Value))
			case *types.AttributeValueMemberB:
				parts = append(parts, fmt.Sprintf("%s=%q", name, v.Value))
			case *types.AttributeValueMemberBOOL:
				parts = append(parts, fmt.Sprintf("%s=%v", name, v.Value))
			}
		}
		lines = append(lines, strings.Join(parts, " "))
	}
	slices.Sort(lines)
	return lines
}

// The items are what the package's documentation says: other releases read them.
func TestFormat(t *testing.T) {
	ctx := context.Background()
	o := dynamotest.Options(t)
	s := dynamotest.Reopen(t, o)
	if err := s.Create(ctx); err != nil {
		t.Fatal(err)
	}
	f := owned(t, s, "shop")
	if err := s.CreateSession(ctx, "idle", nil); err != nil {
		t.Fatal(err)
	}
	for range 2 { // created again and again, the epoch goes on
		if err := s.CreateSession(ctx, "gone", nil); err != nil {
			t.Fatal(err)
		}
		gone, err := s.Owner(ctx, "gone")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RemoveSession(ctx, gone.Fence()); err != nil {
			t.Fatal(err)
		}
	}
	command := put(state.KindCommand, "01J", "c", expires(time.Unix(4_000_000_000, 1)))
	command.Index, command.Rev = state.CommandIndex("w1"), 7
	if err := s.Commit(ctx, f, "", []state.Write{command, put(state.KindStatus, "", "s"), put(state.KindSignal, "x", "r")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(ctx, state.Fleet, []state.Write{put(state.KindFleet, "KEYSET", "k")}); err != nil {
		t.Fatal(err)
	}
	for table, want := range map[string][]string{
		"test-fleet": {
			"epoch=1 ix=unowned#3 ord=idle owner= pk=S#idle shard=all#3 sk=OWNER",
			"epoch=2 ix=o/w1 ord=shop owner=w1 pk=S#shop shard=all#1 sk=OWNER",
			"epoch=4 pk=S#gone removed=true sk=OWNER",
			`ix=i/cmd/w1 ord=S#shop CMD#01J pk=S#shop rev=7 sk=CMD#01J ttl=4000000001 v="c" xp=4000000000001`,
			`pk=FLEET rev=0 sk=F#KEYSET v="k"`,
			`pk=S#idle sk=SESSION`,
			`pk=S#shop rev=0 sk=STATUS v="s"`,
			`pk=S#shop sk=SESSION`,
		},
		"test-signal": {`pk=S#shop rev=0 sk=SESS#x v="r"`},
	} {
		if got := items(t, raw(o), table); !slices.Equal(got, want) {
			t.Errorf("%s holds\n%s\nwant\n%s", table, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// What calls cost, in units. DynamoDB Local does not count as DynamoDB does, so
// that this is the price list, and that no call makes a request too many.
func TestCapacity(t *testing.T) {
	ctx := context.Background()
	var m dynamo.Meter
	s := dynamotest.Open(t, func(o *dynamo.Options) { o.OnCapacity = m.Add })
	f := owned(t, s, "shop")
	p := state.OfSession("shop")
	kb := strings.Repeat("x", 950) // with its key and attributes less than 1 KiB
	key := func(id string) state.Key { return state.Key{Kind: state.KindSignal, ID: id} }
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
			dynamo.Usage{Requests: 2, Read: 1}},
		{"an update of a record", "Update", func() error { return s.Update(ctx, p, []state.Write{put(state.KindSpec, "", kb)}) },
			dynamo.Usage{Requests: 1, Write: 4}},
		{"the owner", "Owner", func() error { _, err := s.Owner(ctx, "shop"); return err }, dynamo.Usage{Requests: 1, Read: 1}},
		{"the unowned sessions", "OwnedBy", func() error { _, err := s.OwnedBy(ctx, "", "", 100); return err }, dynamo.Usage{Requests: 4, Read: 2}},
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
