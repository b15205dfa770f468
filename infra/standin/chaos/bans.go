package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin"
	"github.com/holdfast-wa/holdfast/infra/standin/crew"
	"github.com/holdfast-wa/holdfast/infra/wasim"
)

// Banned is a time in which the service answers each login of a device with a
// temporary ban.
type Banned struct {
	Device string
	Span   crew.Span
	Lasts  time.Duration // of a ban, from the answer on
}

// mayBeBanned tells whether bans come upon a session. Commands go to the others:
// one that starts a banned session is refused, and rightly so.
func mayBeBanned(session int) bool { return session%5 == 4 }

// ban has the service ban some sessions for a while, and waits until the last of
// the bans must be over.
func (h *harness) ban(ctx context.Context, s Step) error {
	var may []int
	for i := range h.accounts {
		if mayBeBanned(i) {
			may = append(may, i)
		}
	}
	r := rand.New(rand.NewPCG(s.Seed, 5))
	r.Shuffle(len(may), func(i, j int) { may[i], may[j] = may[j], may[i] })
	var faults []string
	for _, i := range may[:len(may)/2] {
		device := h.accounts[i].Device
		id, err := h.sim.Inject(wasim.Fault{Kind: wasim.Failure, Device: device, Times: -1, Code: 402, Ban: 101, ExpireSeconds: int(s.For / time.Second)})
		if err != nil {
			return err
		}
		faults = append(faults, id)
		h.mu.Lock()
		h.bans = append(h.bans, Banned{Device: device, Span: crew.Span{From: time.Now()}, Lasts: s.For})
		h.mu.Unlock()
		// One that is offline now comes to its ban by itself.
		_ = h.devices[i].Drop(wasim.DropReset)
	}
	sleep(ctx, s.For)
	var err error
	for _, id := range faults {
		err = errors.Join(err, h.sim.ClearFault(id))
	}
	// The last refusal may have been just now.
	sleep(ctx, s.For)
	return err
}

// refused tells whether a login was answered with a ban, and until when that holds.
func (h *History) refused(l wasim.Login) (until time.Time, is bool) {
	if l.Outcome != string(wasim.Failure) {
		return time.Time{}, false
	}
	for _, b := range h.Bans {
		if b.Device == l.Device && !l.At.Before(b.Span.From) {
			until, is = l.At.Add(b.Lasts), true // of several, the last one before
		}
	}
	return until, is
}

// cooldowns: who was told to wait does so, whoever owns the session by then. Only
// an owner that could not write down what it was told is excused.
func (c *checker) cooldowns() {
	sockets := map[int64]wasim.Socket{}
	for _, s := range c.Truth.Sockets {
		sockets[s.N] = s
	}
	last := map[string]wasim.Login{}
	for _, l := range c.Truth.Logins {
		before, ok := last[l.Device]
		last[l.Device] = l
		if !ok {
			continue
		}
		until, is := c.refused(before)
		// The service's answer takes a moment to be heard, not less than none.
		if !is || !l.At.Before(until) {
			continue
		}
		told, known := c.holder(sockets[before.Socket])
		if known && c.unable(told, before.At) {
			continue
		}
		now, _ := c.holder(sockets[l.Socket])
		c.find(RuleCooldown, "%s at %s: %s logged in, though %s was told at %s to wait until %s",
			c.device[l.Device], c.clock(l.At), runName(now), runName(told), c.clock(before.At), c.clock(until))
	}
}

// unable tells whether a run could not write at a moment, or died of it.
func (c *checker) unable(r crew.Run, at time.Time) bool {
	end := at.Add(underway)
	if r.How == crew.Killed && r.Asked.Before(end) || frozenIn(r, at, end) {
		return true
	}
	for _, l := range c.Lines {
		if l.Process == r.Process && l.Service == standin.DynamoDB && l.Span.From.Before(end) && (l.Span.To.IsZero() || l.Span.To.After(at)) {
			return true
		}
	}
	return false
}

// bannedBetween tells whether a device was refused with a ban in a time.
func (h *History) bannedBetween(device string, from, to time.Time) bool {
	for _, l := range h.Truth.Logins {
		if _, is := h.refused(l); is && l.Device == device && within(crew.Span{From: from, To: to}, l.At) {
			return true
		}
	}
	return false
}
