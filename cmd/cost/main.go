// Command cost tells what a fleet on AWS costs in a month. It multiplies what
// Holdfast was counted to ask of DynamoDB, KMS and S3 (package units) by how much
// it is used, which flags say, and by AWS's prices. `make cost` runs it.
//
// A request that DynamoDB refuses or does not answer costs too, and is not in it;
// nor are taxes, support, what receivers of events cost, and retries after faults.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/holdfast-wa/holdfast/infra/units"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, errs io.Writer) int {
	a := usual
	flags := flag.NewFlagSet("cost", flag.ContinueOnError)
	flags.SetOutput(errs)
	fleets := flags.String("sessions", "1,100,10000,100000", "sizes of fleets")
	explain := flags.Bool("explain", false, "show the quantities and prices behind each line")
	floats := map[string]float64{}
	number := func(p *float64, name, what string) {
		flags.Float64Var(p, name, *p, what)
		floats[name] = 0
	}
	number(&a.received, "received", "messages received, a session a day")
	number(&a.sent, "sent", "messages sent, a session a day")
	number(&a.commands, "commands", "other calls of the API, a session a day")
	number(&a.handovers, "handovers", "planned moves to another worker, a session a month")
	number(&a.takeovers, "takeovers", "moves from a dead worker, a session a month")
	number(&a.resumes, "resumes", "stops and starts, a session a month")
	number(&a.pairings, "pairings", "pairings, a session a month")
	number(&a.starts, "starts", "starts of each worker a month")
	number(&a.headroom, "headroom", "part of the places that is kept free")
	number(&a.storedMB, "stored", "MB in DynamoDB, a session")
	number(&a.logMB, "logs", "MB of logs, a session a month")
	number(&a.egressMB, "egress", "MB to the internet, a session a month")
	flags.IntVar(&a.perWorker, "per-worker", a.perWorker, "sessions of a worker of 1 vCPU and 4 GB")
	flags.IntVar(&a.nat, "nat", a.nat, "NAT gateways, instead of public addresses; 0: none")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	fault := func(format string, args ...any) int {
		fmt.Fprintf(errs, "cost: "+format+"\n", args...)
		return 2
	}
	if flags.NArg() > 0 {
		return fault("%s: is no flag; give all as -name value", flags.Arg(0))
	}
	for name := range floats {
		if v, err := strconv.ParseFloat(flags.Lookup(name).Value.String(), 64); err != nil || !(v >= 0 && v < 1e9) {
			return fault("-%s %s: must be a number of 0 or more", name, flags.Lookup(name).Value)
		}
	}
	if a.perWorker < 1 || a.nat < 0 {
		return fault("-per-worker must be 1 or more, -nat 0 or more")
	}
	var sizes []int
	for s := range strings.SplitSeq(*fleets, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 {
			return fault("-sessions %q: is no number of sessions; write such as 1,100,10000", s)
		}
		sizes = append(sizes, n)
	}
	show(out, a, sizes, units.Counted)
	if *explain {
		for _, n := range sizes {
			arithmetic(out, a, n, units.Counted)
		}
	}
	return 0
}

// show prints the table of bills.
func show(out io.Writer, a assumptions, sizes []int, c units.Counts) {
	fmt.Fprintf(out, "A month in US dollars, prices of %s.\n", pricesOf)
	fmt.Fprintf(out, "A session a day: %g messages received (%.1f write units each), %g sent (%.1f), %g commands. A month: %g hand-overs (%.1f), %g takeovers (%.1f), %g resumes (%.1f with the release), %g pairings.\n\n",
		a.received, c.ReceivedAlone.Write, a.sent, c.SentAlone.Write, a.commands, a.handovers, c.HandOver.Write, a.takeovers, c.Takeover.Write,
		a.resumes, c.Resume.Write+c.Release.Write, a.pairings)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	var bills [][]item
	fmt.Fprint(w, "sessions\t")
	for _, n := range sizes {
		bills = append(bills, a.bill(n, c))
		fmt.Fprintf(w, "%d\t", n)
	}
	fmt.Fprint(w, "\nworkers\t")
	for _, n := range sizes {
		count, t := a.workers(n)
		fmt.Fprintf(w, "%d × %g vCPU, %g GB\t", count, t.cpu, t.gb)
	}
	fmt.Fprintln(w)
	for i, it := range bills[0] {
		fmt.Fprintf(w, "%s\t", it.name)
		for _, b := range bills {
			fmt.Fprintf(w, "%.2f\t", b[i].dollars)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "total\t")
	for _, b := range bills {
		fmt.Fprintf(w, "%.2f\t", total(b))
	}
	fmt.Fprint(w, "\na session\t")
	for i, b := range bills {
		fmt.Fprintf(w, "%.4f\t", total(b)/float64(sizes[i]))
	}
	fmt.Fprintln(w)
	_ = w.Flush()
}

// arithmetic prints what the lines of a bill are made of.
func arithmetic(out io.Writer, a assumptions, sessions int, c units.Counts) {
	fmt.Fprintf(out, "\n%d sessions:\n", sessions)
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
	for _, it := range a.bill(sessions, c) {
		for _, p := range it.from {
			if p.quantity != 0 {
				fmt.Fprintf(w, "  %s\t%.0f %s\t× $%.4g\t= $%.2f\n", it.name, p.quantity, p.what, p.price, p.quantity*p.price)
			}
		}
	}
	_ = w.Flush()
}
