package main

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/holdfast-wa/holdfast/infra/units"
)

// With round counts and few assumptions the lines are what one computes by hand.
func TestBill(t *testing.T) {
	a := assumptions{received: 100, perWorker: 1500, headroom: 0.15, storedMB: 2, logMB: 1.8, egressMB: 16, resumes: 25}
	c := units.Counts{
		ReceivedAlone: units.Use{Write: 10, Read: 2}, Resume: units.Use{Write: 6, Read: 12, Keys: 1, Fetched: 1},
		WorkerHour: units.Use{Write: 1800, Read: 3600},
	}
	want := map[string][]float64{ // of 1, 100, 10,000 and 100,000 sessions
		"Fargate":                   {7.21, 14.42, 272.26, 2620.51},
		"public IPv4":               {3.65, 7.30, 29.20, 281.05},
		"DynamoDB: received":        {0.02, 1.95, 195.00, 1950.00},
		"DynamoDB: moves, pairings": {0.00, 0.01, 1.31, 13.13},
		"DynamoDB: storage":         {0, 0, 0, 42.58},
		"KMS":                       {1.00, 1.01, 1.75, 8.50},
		"S3":                        {0, 0, 0.10, 1.00},
		"logs":                      {0, 0.09, 8.79, 87.89},
		"egress":                    {0, 0, 5.40, 135.00},
	}
	for i, n := range []int{1, 100, 10_000, 100_000} {
		for _, it := range a.bill(n, c) {
			if w, ok := want[it.name]; ok && math.Abs(it.dollars-w[i]) > 0.006 {
				t.Errorf("%d sessions, %s: %.3f, want %.2f", n, it.name, it.dollars, w[i])
			}
		}
	}
	// 1,800 × 730 × $0.625e-6 + 3,600 × 730 × $0.125e-6, the listings of no session
	// taken away.
	workers := a.bill(1, c)[2]
	if workers.name != "DynamoDB: workers" || math.Abs(workers.dollars-1.15) > 0.01 {
		t.Errorf("%s: %.3f, want 1.15", workers.name, workers.dollars)
	}
}

// Gateways come in the place of public addresses.
func TestNAT(t *testing.T) {
	a := usual
	a.nat = 2
	if it := a.bill(1000, units.Counted)[1]; it.name != "NAT" || math.Abs(it.dollars-(2*730*0.045+16*0.045)) > 0.001 {
		t.Errorf("%s: %.3f", it.name, it.dollars)
	}
}

// A larger fleet costs more in all and less a session, and each line is the sum
// of what it is made of.
func TestScale(t *testing.T) {
	before, each := 0.0, math.Inf(1)
	for _, n := range []int{1, 100, 10_000, 100_000} {
		items := usual.bill(n, units.Counted)
		for _, it := range items {
			sum := 0.0
			for _, p := range it.from {
				if p.quantity < 0 || p.price <= 0 {
					t.Errorf("%d sessions, %s: %g %s at %g", n, it.name, p.quantity, p.what, p.price)
				}
				sum += p.quantity * p.price
			}
			if math.Abs(sum-it.dollars) > 1e-9 {
				t.Errorf("%s: %g, made of %g", it.name, it.dollars, sum)
			}
		}
		all := total(items)
		if all <= before || all/float64(n) > each*1.05 {
			t.Errorf("%d sessions cost %.2f", n, all)
		}
		before, each = all, all/float64(n)
	}
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want string // in what is printed
	}{
		{"", 0, "100000"},
		{"-sessions 7 -explain", 0, "vCPU-hours"},
		{"-received 0 -sent 0", 0, "total"},
		{"-sessions 0", 2, `-sessions "0": is no number`},
		{"-received -1", 2, "-received -1: must be"},
		{"-sent NaN", 2, "-sent NaN: must be"},
		{"-per-worker 0", 2, "-per-worker must be"},
		{"more", 2, "more: is no flag"},
		{"-nothing", 2, "nothing"},
	} {
		var out bytes.Buffer
		if code := run(strings.Fields(c.args), &out, &out); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("cost %s: status %d, %s", c.args, code, &out)
		}
	}
}
