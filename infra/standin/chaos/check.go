package chaos

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin"
	"github.com/holdfast-wa/holdfast/infra/standin/crew"
	"github.com/holdfast-wa/holdfast/infra/wasim"
)

// The rules, by the names that findings have.
const (
	RuleKick     = "unexplained-kick" // two live sockets of a session, and the older one's worker was not frozen
	RuleFence    = "no-fence"         // a worker kept or opened a socket without trust
	RuleLost     = "message-lost"     // acknowledged, and not at the receiver
	RulePending  = "message-pending"  // never acknowledged
	RuleTwice    = "message-twice"    // under two event ids
	RuleForeign  = "message-foreign"  // at the receiver, and nobody wrote it so
	RuleGap      = "event-gap"        // a number of a session's events is missing, or taken twice
	RuleOrder    = "event-order"      // first arrivals out of order, or epochs that go back
	RuleSend     = "send-failed"      // accepted, and not sent in the end
	RuleRead     = "send-read"        // sent, and not read exactly once
	RuleCommand  = "command"          // accepted, and not done in the end, or not told of exactly once
	RuleCipher   = "undecryptable"    // a ciphertext that its receiver could not open
	RulePairing  = "pairing"          // more or less than one pairing of a session
	RuleOffline  = "offline"          // not online again within the bound
	RuleExit     = "exit"             // a process that ended by itself, or not with 0 on SIGTERM
	RuleAnomaly  = "anomaly"          // what a right client does not do
	RuleLeak     = "leak"             // in the clear where it ought to be sealed
	RuleRestless = "restless"         // something still waited at the end
	RuleParked   = "parked"           // a session waited for a person
	RuleEarly    = "early-ack"        // a message acknowledged while nothing could be stored
	RuleCut      = "cut"              // a socket that closed over what was to be sat out
	RuleCooldown = "cooldown"         // a login in a time in which the session was told to wait
	RuleRelease  = "release"          // what one release wrote and another could not read
)

// thawed is how long a process that was frozen may take to notice, on a machine
// that is busy with everything else here.
const thawed = 2 * time.Second

// Check says what of a history must not be. An empty answer is a proof only as
// far as the history goes.
func Check(h History) []Finding {
	c := &checker{History: h, device: map[string]string{}}
	for _, a := range h.Sessions {
		c.device[a.Device] = a.Session
	}
	c.kicks()
	c.fences()
	c.received()
	c.events()
	c.sent()
	c.commands()
	c.ciphers()
	c.pairings()
	c.rest()
	c.exits()
	c.parked()
	c.acknowledged()
	c.steady()
	c.cooldowns()
	for _, what := range h.Unreadable {
		c.find(RuleRelease, "%s", what)
	}
	for _, l := range h.Leaks {
		c.find(RuleLeak, "%s holds %s", l.Where, l.What)
	}
	return c.found
}

type checker struct {
	History
	device map[string]string // session by JID
	found  []Finding
}

func (c *checker) find(rule, format string, args ...any) {
	c.found = append(c.found, Finding{rule, fmt.Sprintf(format, args...)})
}

// holder is the run that a socket belongs to.
func (h *History) holder(s wasim.Socket) (crew.Run, bool) {
	best := -1
	for i, conn := range h.Conns {
		if conn.Remote == s.Remote && !conn.Opened.After(s.Opened) && (best < 0 || conn.Opened.After(h.Conns[best].Opened)) {
			best = i
		}
	}
	if best < 0 {
		return crew.Run{}, false
	}
	for _, r := range h.Runs {
		if r.Process == h.Conns[best].Process && r.N == h.Conns[best].Run {
			return r, true
		}
	}
	return crew.Run{}, false
}

// clock is a moment for people.
func (h *History) clock(t time.Time) string {
	return fmt.Sprintf("%+.1fs", t.Sub(h.Began).Seconds())
}

func runName(r crew.Run) string { return fmt.Sprintf("%s/%d", r.Process, r.N) }

// socketEnd is when a socket counted no more; zero: it lives.
func socketEnd(s wasim.Socket) time.Time {
	switch {
	case s.Ended != nil && (s.Closed == nil || s.Ended.Before(*s.Closed)):
		return *s.Ended
	case s.Closed != nil:
		return *s.Closed
	}
	return time.Time{}
}

// kicks: a session has one live socket. Where a login kicked an older one, the
// worker of that was frozen for so long that it was declared dead, and has not
// had the time to notice. Nothing else excuses it.
func (c *checker) kicks() {
	sockets := map[int64]wasim.Socket{}
	for _, s := range c.Truth.Sockets {
		sockets[s.N] = s
	}
	for _, o := range c.Truth.Overlaps {
		older, ok := c.holder(sockets[o.Older])
		if !ok {
			c.find(RuleKick, "%s: nobody knows whose the older socket %d was", c.device[o.Device], o.Older)
			continue
		}
		if frozenPast(older, o.At, c.Timing) {
			continue
		}
		newer, _ := c.holder(sockets[o.Newer])
		c.find(RuleKick, "%s at %s: %s logged in while %s, which was not frozen, had a live socket", c.device[o.Device], c.clock(o.At), runName(newer), runName(older))
	}
}

// frozenPast tells whether a run may have been declared dead at a moment for
// having been frozen, and not know it yet.
func frozenPast(r crew.Run, at time.Time, t Timing) bool {
	// Its last heartbeat may have been sent an interval before it was frozen.
	soonest := t.Takeover - 2*t.Heartbeat
	return slices.ContainsFunc(r.Frozen, func(s crew.Span) bool {
		return at.Sub(s.From) >= soonest && (s.To.IsZero() || at.Sub(s.To) <= thawed)
	})
}

// fences: who cannot reach the store closes its sockets when its trust ends, and
// opens none without.
func (c *checker) fences() {
	slack := c.Timing.Takeover - c.Timing.Trust
	for _, f := range c.Lines {
		if f.Service != standin.DynamoDB || f.Kind == standin.Late {
			continue
		}
		ends := f.Span.From.Add(c.Timing.Trust + slack)
		until := f.Span.To
		for _, s := range c.Truth.Sockets {
			if s.LoggedIn == nil {
				continue
			}
			run, ok := c.holder(s)
			if !ok || run.Process != f.Process {
				continue
			}
			from, to := *s.LoggedIn, socketEnd(s)
			if from.Before(ends) {
				from = ends
			}
			if to.IsZero() || !until.IsZero() && to.After(until) {
				to = until
			}
			// What is left is the time in which this socket lived without trust.
			if to.IsZero() || to.After(from) {
				if frozenIn(run, f.Span.From, to) {
					continue
				}
				c.find(RuleFence, "%s: a socket of %s lived at %s, the store was out of its reach (%s) since %s",
					c.device[s.Device], runName(run), c.clock(from), f.Kind, c.clock(f.Span.From))
			}
		}
	}
}

// frozenIn tells whether a run was frozen at some time between two moments.
func frozenIn(r crew.Run, from, to time.Time) bool {
	return slices.ContainsFunc(r.Frozen, func(s crew.Span) bool {
		return (to.IsZero() || s.From.Before(to)) && (s.To.IsZero() || s.To.Add(thawed).After(from))
	})
}

// received: what contacts wrote was acknowledged, and what was acknowledged is
// at the receiver, under one event id, as it was written.
func (c *checker) received() {
	acked := map[string]bool{}
	for _, in := range c.Truth.Incoming {
		session := c.device[in.Device]
		if in.Acked != nil && in.Error == "" {
			acked[session+" "+in.ID] = true
		}
		if in.Retries > 0 {
			c.find(RuleCipher, "%s could not open message %s from a contact and asked for it %d times", session, in.ID, in.Retries)
		}
	}
	ids := map[string]map[string]Arrival{} // session and message id → event id
	for _, a := range c.Arrivals {
		if a.Message == "" {
			continue
		}
		key := a.Session + " " + a.Message
		if ids[key] == nil {
			ids[key] = map[string]Arrival{}
		}
		if _, again := ids[key][a.Event]; !again { // a repetition may have lost its content
			ids[key][a.Event] = a
		}
	}
	for _, w := range c.Wrote {
		key := w.Session + " " + w.ID
		told := ids[key]
		delete(ids, key)
		switch {
		case len(told) == 0 && acked[key]:
			c.find(RuleLost, "%s: message %s, written at %s, was acknowledged and never arrived", w.Session, w.ID, c.clock(w.At))
		case !acked[key]:
			c.find(RulePending, "%s: message %s, written at %s, was never acknowledged", w.Session, w.ID, c.clock(w.At))
		case len(told) > 1:
			c.find(RuleTwice, "%s: message %s arrived as %d different events", w.Session, w.ID, len(told))
		}
		for _, a := range told {
			if a.Text != w.Text {
				c.find(RuleForeign, "%s: message %s arrived with another text", w.Session, w.ID)
			}
		}
	}
	for key := range ids {
		c.find(RuleForeign, "%s arrived and nobody wrote it", key)
	}
}

// events: a session's events are numbered without gaps, each number is one
// event, and they arrive first in that order, under epochs that do not go back.
func (c *checker) events() {
	type seen struct {
		ids    map[uint64]string
		epochs map[uint64]uint64
		last   uint64
	}
	sessions := map[string]*seen{}
	for _, a := range c.Arrivals {
		s := sessions[a.Session]
		if s == nil {
			s = &seen{ids: map[uint64]string{}, epochs: map[uint64]uint64{}}
			sessions[a.Session] = s
		}
		if known, again := s.ids[a.Seq]; again {
			if known != a.Event {
				c.find(RuleGap, "%s: two events have the number %d", a.Session, a.Seq)
			}
			continue
		}
		s.ids[a.Seq], s.epochs[a.Seq] = a.Event, a.Epoch
		if a.Seq < s.last {
			c.find(RuleOrder, "%s: event %d arrived at %s, after %d", a.Session, a.Seq, c.clock(a.At), s.last)
		}
		s.last = max(s.last, a.Seq)
	}
	for name, s := range sessions {
		var epoch uint64
		for n := uint64(1); n <= s.last; n++ {
			if _, ok := s.ids[n]; !ok {
				c.find(RuleGap, "%s: event %d of %d never arrived", name, n, s.last)
				continue
			}
			if s.epochs[n] < epoch {
				c.find(RuleOrder, "%s: event %d has epoch %d, one before it has %d", name, n, s.epochs[n], epoch)
			}
			epoch = max(epoch, s.epochs[n])
		}
	}
}

// sent: what the API accepted was sent, and read exactly once.
func (c *checker) sent() {
	type key struct{ by, text string }
	read := map[key][]Read{}
	for _, r := range c.Read {
		read[key{r.By, r.Text}] = append(read[key{r.By, r.Text}], r)
	}
	for _, s := range c.Sent {
		k := key{s.To, s.Text}
		got := read[k]
		delete(read, k)
		switch s.State {
		case "sent", "delivered", "read":
		default:
			c.find(RuleSend, "%s: message %s is %s in the end: %s", s.Session, s.ID, s.State, s.Problem)
			if len(got) == 0 {
				continue
			}
		}
		if len(got) != 1 {
			c.find(RuleRead, "%s: message %s was read %d times", s.Session, s.ID, len(got))
			continue
		}
		if got[0].ID != s.Message || c.device[got[0].From] != s.Session {
			c.find(RuleRead, "%s: message %s was read under another id or from another device", s.Session, s.ID)
		}
	}
	for _, rest := range read {
		c.find(RuleRead, "%s: a text was read that nobody sent, %d times", c.device[rest[0].From], len(rest))
	}
}

// ciphers: no contact got what it could not open, healed later or not.
func (c *checker) ciphers() {
	for _, u := range c.Unread {
		c.find(RuleCipher, "%s: message %s (%s) at %s: the contact could not open it: %s", c.device[u.From], u.ID, u.Enc, c.clock(u.At), u.Reason)
	}
	for _, o := range c.Truth.Outgoing {
		if o.Outcome == "rejected" || o.Outcome == "undeliverable" || o.Healed {
			c.find(RuleCipher, "%s: message %s at %s: %s %s", c.device[o.Device], o.ID, c.clock(o.At), o.Outcome, o.Reason)
		}
	}
	for _, a := range c.Arrivals {
		if a.Type == "message.undecryptable" {
			c.find(RuleCipher, "%s: an event says at %s that a message could not be opened", a.Session, c.clock(a.At))
		}
	}
}

// pairings: each session was paired once and is linked still.
func (c *checker) pairings() {
	n := map[string]int{}
	for _, p := range c.Truth.Pairings {
		if p.Error == "" {
			n[p.Account]++
		}
	}
	linked := map[string]bool{}
	for _, d := range c.Truth.Devices {
		linked[d.JID] = d.Unlinked == nil
	}
	for _, a := range c.Sessions {
		if n[a.Number] != 1 {
			c.find(RulePairing, "%s: %d pairings", a.Session, n[a.Number])
		}
		if !linked[a.Device] {
			c.find(RulePairing, "%s: its device is not linked any more", a.Session)
		}
	}
	for _, a := range c.Truth.Anomalies {
		c.find(RuleAnomaly, "%s at %s: %s: %s", c.device[a.Device], c.clock(a.At), a.What, a.Detail)
	}
}

// rest: after the faults all sessions are online within the bound, and then
// nothing waits.
func (c *checker) rest() {
	switch {
	case c.Online.IsZero():
		c.find(RuleOffline, "not all sessions came online again")
	case c.Online.Sub(c.Healed) > c.Bound:
		c.find(RuleOffline, "all sessions were online %s after the last fault was over; the bound is %s", c.Online.Sub(c.Healed).Round(time.Second), c.Bound)
	}
	state := map[string]crew.Session{}
	for _, s := range c.Final {
		state[s.Name] = s
	}
	for _, a := range c.Sessions {
		if s := state[a.Session]; s.State != "online" || !s.Paired {
			c.find(RuleOffline, "%s is %q in the end, cause %q, paired %v", a.Session, s.State, s.Cause, s.Paired)
		}
	}
	for _, what := range c.Restless {
		c.find(RuleRestless, "%s", what)
	}
}

// exits: a process ends when it is told to, and with 0 if it was asked.
func (c *checker) exits() {
	for _, r := range c.Runs {
		switch {
		case r.How == crew.ByItself:
			c.find(RuleExit, "%s ended by itself: %s", runName(r), r.Error)
		case r.How == crew.Terminated && r.Error != "":
			c.find(RuleExit, "%s was asked to end: %s", runName(r), r.Error)
		}
	}
}
