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
			case *types.AttributeValueMemberSS:
				parts = append(parts, fmt.Sprintf("%s=%v", name, slices.Sorted(slices.Values(v.Value))))
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
	if _, err := s.Join(ctx, "w2", state.MemberInfo{Task: "t", Version: "v1", Format: 1, Capacity: 5}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"a beat":        s.Beat(ctx, "w1", state.Load{Sessions: 1}),
		"a drain":       s.Drain(ctx, "w1", true),
		"a declaration": s.DeclareDead(ctx, "w2", 1),
	} {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for table, want := range map[string][]string{
		"test-fleet": {
			"dead=true hb=1 pk=W#w2 sk=HB",
			"epoch=1 ix=unowned#3 ord=idle owner= pk=S#idle shard=all#3 sk=OWNER",
			"epoch=2 ix=o/w1 ord=shop owner=w1 pk=S#shop shard=all#1 sk=OWNER",
			"epoch=4 pk=S#gone removed=true sk=OWNER",
			`drain=true info={"format":0,"capacity":0} joined=1 pk=W#w1 sk=REG`,
			`hb=2 load={"sessions":1,"online":0,"trust":0} pk=W#w1 sk=HB`,
			"ids=[w1 w2] joins=2 pk=FLEET rev=4 sk=ROSTER",
			`info={"task":"t","version":"v1","format":1,"capacity":5} joined=2 pk=W#w2 sk=REG`,
			`ix=i/cmd/w1 ord=S#shop CMD#01J pk=S#shop rev=7 sk=CMD#01J ttl=4000000001 v="c" xp=4000000000001`,
			"life=alive pk=W#w1 sk=LIFE",
			"life=dead pk=W#w2 sk=LIFE",
			`pk=FLEET rev=0 sk=F#KEYSET v="k"`,
			`pk=S#idle sk=SESSION`,
			`pk=S#shop rev=0 sk=STATUS v="s"`,
			`pk=S#shop sk=SESSION`,
		},
		"test-signal": {`pk=S#shop rev=0 sk=SESS#x v="r"`},
	} {
		slices.Sort(want)
		if got := items(t, raw(o), table); !slices.Equal(got, want) {
			t.Errorf("%s holds\n%s\nwant\n%s", table, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}
