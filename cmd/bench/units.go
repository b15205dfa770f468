package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/holdfast-wa/holdfast/infra/units"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamolocal"
)

// units counts what workers and sessions ask of DynamoDB.
func (b *bench) units() error {
	if b.plan.count.sessions == 0 {
		b.progress("the small form counts no requests: a test of this package does")
		return nil
	}
	p, err := dynamolocal.Start(context.Background(), dynamolocal.Options{Fetch: os.Getenv("HOLDFAST_REQUIRE_ALL") == "1"})
	if err != nil {
		fmt.Fprintf(b.out, "\nDynamoDB: nothing is counted: %v\n", err)
		return nil
	}
	dir, err := os.MkdirTemp(b.dir, "units-")
	if err != nil {
		return err
	}
	c, err := count(p.URL, dir, b.plan.count, b.progress)
	err = errors.Join(err, p.Stop())
	if err != nil {
		return err
	}
	t := table{title: fmt.Sprintf("DynamoDB: what one of each costs, by the consumed capacity that the SDK tells (DynamoDB Local; %d sessions, %d messages each way a session)",
		c.size.sessions, c.size.messages),
		head: []string{"", "requests", "read units", "write units", "KMS", "S3 GET", "S3 PUT", "by method: requests, their read (r) and write (w) units"}}
	by := map[string]byMethod{}
	for _, d := range c.detail {
		by[d.name] = d.byMethod
	}
	for _, n := range c.counts.List() {
		t.row(n.Name, f2(n.Requests), f2(n.Read), f2(n.Write), f2(n.Keys), f2(n.Fetched), f2(n.Stored), by[n.Name].String())
	}
	t.print(b.out)
	off := units.Drift(c.counts, units.Counted)
	for _, what := range off {
		fmt.Fprintln(b.out, "  off:", what)
	}
	b.bound("DynamoDB: counts that are off by more than a tenth of what the bill is computed with", fmt.Sprint(len(off)), "0", len(off) == 0)
	return nil
}
