package main

import (
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
)

// shortWaits are settings under which causes come soon and are waited for
// briefly. Of rate_limited the contract fixes the wait: a minute. Two ticks of the
// monitor are longer than a line takes to say why it ended, or "the socket is not
// open" would be all that is known of a reset.
var shortWaits = map[string]string{
	"backoff": "2s,3s", "network-delay": "1s-2s", "restart-delay": "2s",
	"keepalive-interval": "400ms", "keepalive-deadline": "400ms",
	"monitor-tick": "700ms", "pong-timeout": "1200ms", "inbound-stall": "20s",
}

// trial is one cause: what makes it, in a session of its own. Fewer than five
// sessions fail for a cause on the server's side, so that no outage is seen in
// them, which would delay them on purpose.
type trial struct {
	cause  state.Cause
	faults []wasim.Fault // those without Now come first
	slow   bool          // takes over half a minute
}

var trials = []trial{
	{cause: state.CauseConnectionLost, faults: []wasim.Fault{{Kind: wasim.CloseFault, Now: true}}},
	{cause: state.CauseNetwork, faults: []wasim.Fault{{Kind: wasim.ResetFault, Now: true}}},
	{cause: state.CauseServerError, faults: []wasim.Fault{{Kind: wasim.StreamError, Code: 500, Now: true}}},
	{cause: state.CauseUnavailable, faults: []wasim.Fault{{Kind: wasim.StreamError, Code: 503, Now: true}}},
	{cause: state.CauseTimedOut, faults: []wasim.Fault{{Kind: wasim.Mute, Now: true}}},
	{cause: state.CauseClientOutdated, faults: []wasim.Fault{{Kind: wasim.Failure, Code: 405}, {Kind: wasim.CloseFault, Now: true}}},
	{cause: state.CauseTemporaryBan, faults: []wasim.Fault{{Kind: wasim.Failure, Code: 402, Ban: 101, ExpireSeconds: 2}, {Kind: wasim.CloseFault, Now: true}}},
	{cause: state.CauseRateLimited, faults: []wasim.Fault{{Kind: wasim.Failure, Code: 429}, {Kind: wasim.CloseFault, Now: true}}, slow: true},
	{cause: state.CauseInboundStalled, slow: true},
	{cause: state.CauseStoreUnavailable},
	{cause: state.CauseRestartRequired},
}

const newcomer = "newcomer" // the session that is paired
const newcomersNumber = "491760000001"

// delays compares, for each cause that a session recovers from by itself, the
// delay that was logged with the one until the next dial at the service.
func (b *bench) delays() error {
	svc, where, err := b.service()
	if err != nil {
		return err
	}
	defer svc.kill()
	tried := slices.DeleteFunc(slices.Clone(trials), func(t trial) bool { return t.slow && !b.plan.slow })
	accounts, err := call[[]Account](svc, "Enrol", len(tried))
	if err != nil {
		return err
	}
	dir, err := b.folder("delays", holdfast, Fleet{Accounts: accounts, Unpaired: []string{newcomer}})
	if err != nil {
		return err
	}
	p, _, err := b.launch(where, holdfast, accounts, dir, options{settings: shortWaits, pairNew: true})
	if err != nil {
		return err
	}
	defer p.kill()
	if _, err := call[time.Time](svc, "AwaitOnline", numbersOf(accounts)); err != nil {
		return err
	}
	jids := map[string]string{} // by session
	for i, t := range tried {
		jids[accounts[i].Name] = accounts[i].JID
		b.progress("making %s happen", t.cause)
		switch t.cause {
		case state.CauseRestartRequired:
			err = b.pairNewcomer(svc, p, jids)
		case state.CauseStoreUnavailable:
			err = breakStore(svc, p, accounts[i])
		}
		if err != nil {
			return err
		}
		for _, f := range t.faults {
			f.Device = accounts[i].JID
			if err := do(svc, "Inject", f); err != nil {
				return err
			}
		}
	}
	return b.delayTable(svc, p, tried, jids)
}

// pairNewcomer pairs a session by its QR text.
func (b *bench) pairNewcomer(svc, p *process, jids map[string]string) error {
	code, err := call[string](p, "QR", newcomer)
	if err != nil {
		return err
	}
	jids[newcomer], err = call[string](svc, "Scan", Scan{code, newcomersNumber})
	return err
}

// breakStore lets a message meet a store that does not answer.
func breakStore(svc, p *process, a Account) error {
	if err := do(p, "Break", a.Name); err != nil {
		return err
	}
	if err := do(svc, "Write", a.Number); err != nil {
		return err
	}
	return do(p, "Mend", a.Name)
}

// waited is a decision with what followed it.
type waited struct {
	Decision
	dial time.Time // the next socket at the service
}

// delayTable waits until each cause was seen and its wait is over.
func (b *bench) delayTable(svc, p *process, tried []trial, jids map[string]string) error {
	var seen map[state.Cause]waited
	var all []Decision
	for deadline := time.Now().Add(100 * time.Second); ; time.Sleep(500 * time.Millisecond) {
		decisions, err := call[[]Decision](p, "Seen", None{})
		if err != nil {
			return err
		}
		sockets, err := call[[]wasim.Socket](svc, "Sockets", None{})
		if err != nil {
			return err
		}
		seen, all = followed(decisions, sockets, jids), decisions
		missing := slices.ContainsFunc(tried, func(t trial) bool { _, ok := seen[t.cause]; return !ok })
		if !missing || time.Now().After(deadline) {
			break
		}
	}
	t := table{title: "The delay that was logged and stored, and the one until the next dial at the service",
		head: []string{"cause", "logged", "waited", "difference", "dial − NextAttemptAt"}}
	var worst time.Duration
	for _, trial := range tried {
		w, ok := seen[trial.cause]
		if !ok {
			b.bound("delays: "+string(trial.cause), "no dial was seen", "one", false)
			for _, d := range all {
				b.progress("decided: %+v", d)
			}
			continue
		}
		took := w.dial.Sub(w.At)
		stored := "not stored"
		if !w.Next.IsZero() {
			stored = w.dial.Sub(w.Next).Round(time.Millisecond).String()
			worst = max(worst, w.dial.Sub(w.Next).Abs())
		}
		t.row(string(trial.cause), w.Delay.String(), took.Round(time.Millisecond).String(), (took - w.Delay).Round(time.Millisecond).String(), stored)
		worst = max(worst, (took - w.Delay).Abs())
	}
	t.print(b.out)
	b.bound("delays: the most that logged and waited differ", worst.Round(time.Millisecond).String(), "at most "+b.plan.late.String(), worst <= b.plan.late)
	return nil
}

// followed finds, for each cause, the first decision that a dial has followed.
func followed(decisions []Decision, sockets []wasim.Socket, jids map[string]string) map[state.Cause]waited {
	out := map[state.Cause]waited{}
	for _, d := range decisions {
		if _, have := out[d.Cause]; have {
			continue
		}
		for _, s := range sockets {
			if s.Device == jids[d.Session] && s.Opened.After(d.At) {
				out[d.Cause] = waited{d, s.Opened}
				break
			}
		}
	}
	return out
}
