package chaos

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin/crew"
	"github.com/holdfast-wa/holdfast/infra/wasim"
)

// Gap is a time in which a session had no live socket.
type Gap struct {
	Session string        `json:"session"`
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took"`
	Why     string        `json:"why"`
	Moved   bool          `json:"moved"` // to another run
}

// Report is what a run came to.
type Report struct {
	Seed     uint64
	Findings []Finding
	Steps    map[What]int
	Calls    map[string]int // of KMS
	Gaps     []Gap
	History  History
	repeated int
}

func (h *harness) report(history History) Report {
	r := Report{Seed: h.o.Seed, Findings: Check(history), Steps: h.count, Calls: h.stand.KMSCalls(), History: history, Gaps: gaps(history)}
	seen := map[string]bool{}
	for _, a := range history.Arrivals {
		if seen[a.Event] {
			r.repeated++
		}
		seen[a.Event] = true
	}
	return r
}

const frozen = "frozen"

// gaps finds the times without a socket, and why they were: what had been done
// to the run that lost it.
func gaps(h History) []Gap {
	session := map[string]string{}
	for _, a := range h.Sessions {
		session[a.Device] = a.Session
	}
	sockets := map[string][]wasim.Socket{}
	for _, s := range h.Truth.Sockets {
		if s.LoggedIn != nil && !s.Pairing && s.Device != "" {
			sockets[s.Device] = append(sockets[s.Device], s)
		}
	}
	var out []Gap
	for device, list := range sockets {
		slices.SortFunc(list, func(a, b wasim.Socket) int { return a.LoggedIn.Compare(*b.LoggedIn) })
		for i := 1; i < len(list); i++ {
			end := socketEnd(list[i-1])
			if end.IsZero() || end.Before(h.Began) {
				continue
			}
			before, _ := h.holder(list[i-1])
			after, _ := h.holder(list[i])
			g := Gap{Session: session[device], At: end, Took: max(0, list[i].LoggedIn.Sub(end)), Moved: before.Process != after.Process || before.N != after.N}
			g.Why = h.why(before, list[i-1], end, g.Moved)
			if h.bannedBetween(device, end, *list[i].LoggedIn) {
				g.Why = "ban"
			}
			for _, f := range before.Frozen {
				// Nobody was served from the moment on in which it was frozen.
				if g.Why == frozen && !f.From.After(end) && (f.To.IsZero() || end.Before(f.To.Add(thawed))) {
					g.At, g.Took = f.From, list[i].LoggedIn.Sub(f.From)
				}
			}
			out = append(out, g)
		}
	}
	slices.SortFunc(out, func(a, b Gap) int { return cmp.Or(cmp.Compare(a.Why, b.Why), cmp.Compare(a.Took, b.Took)) })
	return out
}

// why says what had been done to a run when it lost a socket.
func (h *History) why(r crew.Run, s wasim.Socket, end time.Time, moved bool) string {
	if strings.HasPrefix(s.How, "dropped") {
		return "line" // by the service, whatever came after
	}
	near := func(t time.Time) bool { return !t.IsZero() && end.After(t.Add(-time.Second)) }
	switch {
	case r.How == crew.Killed && near(r.Asked):
		return "kill -9"
	case slices.ContainsFunc(r.Frozen, func(s crew.Span) bool { return !s.From.After(end) && (s.To.IsZero() || end.Before(s.To.Add(thawed))) }):
		return frozen
	case r.How == crew.Terminated && !r.Asked.IsZero() && !end.Before(r.Asked):
		return "SIGTERM"
	}
	for _, l := range h.Lines {
		if l.Process == r.Process && !l.Span.From.After(end) && (l.Span.To.IsZero() || end.Before(l.Span.To.Add(h.Timing.Takeover))) {
			return "parted from " + string(l.Service)
		}
	}
	if moved {
		return "balance"
	}
	return "line"
}

// Write prints the report.
func (r Report) Write(w io.Writer) {
	h := r.History
	var kills, stops, freezes int
	for _, run := range h.Runs {
		switch run.How {
		case crew.Killed:
			kills++
		case crew.Terminated:
			stops++
		}
		freezes += len(run.Frozen)
	}
	var steps []string
	for _, x := range whats {
		if n := r.Steps[x.what]; n > 0 {
			steps = append(steps, fmt.Sprintf("%d %s", n, x.what))
		}
	}
	if steps == nil {
		steps = []string{"nothing was broken"}
	}
	fmt.Fprintf(w, "\nseed %d: %.0f s: %s\n", r.Seed, h.Healed.Sub(h.Began).Seconds(), strings.Join(steps, ", "))
	fmt.Fprintf(w, "runs of workers: %d; kill -9 %d, SIGTERM %d, frozen %d times, lines broken %d times\n", len(h.Runs)-1, kills, stops, freezes, len(h.Lines))
	read := 0
	for _, m := range h.Read {
		if strings.HasPrefix(m.Text, word) {
			read++
		}
	}
	fmt.Fprintf(w, "messages: %d to %d sessions, %d from them and %d read; %d events, %d of them repeated\n",
		len(h.Wrote), len(h.Sessions), len(h.Sent), read, len(h.Arrivals)-r.repeated, r.repeated)
	fmt.Fprintf(w, "sockets: %d, kicks %d; calls of KMS: %v\n", len(h.Truth.Sockets), len(h.Truth.Overlaps), r.Calls)
	fmt.Fprintf(w, "online again %s after the last fault, at rest after %s\n", since(h.Healed, h.Online), since(h.Healed, h.Rest))
	fmt.Fprintln(w, "\ntimes without a socket          n      p50      p99      max")
	for i := 0; i < len(r.Gaps); {
		j := i
		for j < len(r.Gaps) && r.Gaps[j].Why == r.Gaps[i].Why {
			j++
		}
		list := r.Gaps[i:j]
		quantile := func(q float64) float64 { return list[int(q*float64(len(list)-1))].Took.Seconds() }
		fmt.Fprintf(w, "  %-24s %6d %7.2fs %7.2fs %7.2fs\n", list[0].Why, len(list), quantile(0.5), quantile(0.99), quantile(1))
		i = j
	}
	byRule := map[string]int{}
	for _, f := range r.Findings {
		byRule[f.Rule]++
	}
	const shown = 8 // of each rule
	printed := map[string]int{}
	for _, f := range r.Findings {
		if printed[f.Rule]++; printed[f.Rule] == 1 {
			fmt.Fprintf(w, "\n%s: %d\n", f.Rule, byRule[f.Rule])
		}
		if printed[f.Rule] <= shown {
			fmt.Fprintf(w, "  %s\n", f.Text)
		}
	}
	if len(r.Findings) == 0 {
		fmt.Fprintln(w, "\nnothing lost, nothing twice, no socket that is not explained, nothing in the clear")
	}
}

func since(from, to time.Time) string {
	if to.IsZero() {
		return "never"
	}
	return fmt.Sprintf("%.1f s", to.Sub(from).Seconds())
}
