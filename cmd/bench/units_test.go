package main

import (
	"testing"

	"github.com/holdfast-wa/holdfast/infra/units"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamotest"
)

// What messages and moves cost is what the bill is computed with. What workers do
// by the hour is not counted here: that takes minutes of waiting, in `bin/bench
// -only units`.
func TestCounts(t *testing.T) {
	c, err := count(dynamotest.Endpoint(t), t.TempDir(), countingSize{sessions: 8, messages: 4}, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range c.detail {
		t.Logf("%s: %s", d.name, d.byMethod)
	}
	for _, n := range []units.Use{c.counts.Received, c.counts.Sent, c.counts.FirstLogin, c.counts.Release, c.counts.Resume, c.counts.HandOver, c.counts.Takeover} {
		if n.Requests < 1 {
			t.Errorf("nothing was counted of one of %+v", c.counts.List())
		}
	}
	for _, off := range units.Drift(c.counts, units.Counted) {
		t.Error(off)
	}
}
