package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin/crew"
)

// word is in every text, so that texts can be looked for where they must not be.
const word = "chaosword"

// senders is how many requests of the API wait at a time, at most.
const senders = 6

// perSession is how many contacts a session has to do with.
const perSession = 2

// traffic has contacts write to sessions and sessions to contacts, until it is
// stopped. What was accepted is recorded.
type traffic struct {
	h    *harness
	stop chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex
	wrote   []Wrote
	sent    []Sent
	ordered []Ordered
	fault   error
}

func (h *harness) startTraffic(ctx context.Context) *traffic {
	t := &traffic{h: h, stop: make(chan struct{})}
	t.wg.Go(func() { t.in(ctx, rand.New(rand.NewPCG(h.o.Seed, 1))) })
	t.wg.Go(func() { t.commands(ctx, rand.New(rand.NewPCG(h.o.Seed, 3))) })
	orders := make(chan Sent)
	t.wg.Go(func() { t.orders(ctx, rand.New(rand.NewPCG(h.o.Seed, 2)), orders) })
	for range senders {
		t.wg.Go(func() {
			for s := range orders {
				t.send(ctx, s)
			}
		})
	}
	return t
}

// end stops it and waits until what is under way has been accepted.
func (t *traffic) end() error {
	close(t.stop)
	t.wg.Wait()
	return t.fault
}

// each calls do at a rate until the traffic is stopped.
func (t *traffic) each(ctx context.Context, perSecond float64, do func(n int) bool) {
	if perSecond <= 0 {
		return
	}
	tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-t.stop:
			return
		case <-ctx.Done():
			return
		}
		if !do(n) {
			return
		}
	}
}

// contact is the number of one of a session's contacts.
func (h *harness) contact(session, i int) string {
	return contactNumber((session + i*7) % h.contacts())
}

func (t *traffic) fail(err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fault = errors.Join(t.fault, err)
	return false
}

func (t *traffic) in(ctx context.Context, r *rand.Rand) {
	t.each(ctx, t.h.o.In, func(n int) bool {
		return t.write(ctx, r.IntN(len(t.h.accounts)), r.IntN(perSession), fmt.Sprintf("%s in %d", word, n))
	})
}

// write has a contact of a session write to it.
func (t *traffic) write(ctx context.Context, session, contact int, text string) bool {
	a := t.h.accounts[session]
	id, err := t.h.sim.Contact(t.h.contact(session, contact)).SendText(ctx, a.Number, text)
	if err != nil {
		return t.fail(fmt.Errorf("a contact could not write to %s: %w", a.Session, err))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wrote = append(t.wrote, Wrote{id, a.Session, text, time.Now()})
	return true
}

// flood has the contacts of some sessions write to each at once.
func (t *traffic) flood(ctx context.Context, sessions []int, seed uint64) error {
	for _, i := range sessions {
		for n := range perSession {
			if !t.write(ctx, i, n, fmt.Sprintf("%s flood %x %d %d", word, seed, i, n)) {
				return errors.New("a message could not be written")
			}
		}
	}
	return nil
}

func (t *traffic) orders(ctx context.Context, r *rand.Rand, orders chan<- Sent) {
	defer close(orders)
	t.each(ctx, t.h.o.Out, func(n int) bool {
		i := r.IntN(len(t.h.accounts))
		s := Sent{Session: t.h.accounts[i].Session, To: t.h.contact(i, r.IntN(perSession)), Text: fmt.Sprintf("%s out %d", word, n)}
		select {
		case orders <- s:
		case <-t.stop:
			return false
		case <-ctx.Done():
			return false
		}
		return true
	})
}

// send has the API accept a text, however often that takes: with the same key.
func (t *traffic) send(ctx context.Context, s Sent) {
	for {
		m, err := t.h.crew.API.Send(ctx, s.Session, s.To, s.Text, "key "+s.Text)
		if err == nil {
			s.ID, s.Message, s.State = m.ID, m.MessageID, m.State
			t.mu.Lock()
			t.sent = append(t.sent, s)
			t.mu.Unlock()
			return
		}
		var refused *crew.Refused
		if errors.As(err, &refused) && refused.Status < 500 && refused.Status != 409 && refused.Status != 429 || ctx.Err() != nil {
			t.fail(fmt.Errorf("a text of %s was never accepted: %w", s.Session, err))
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// open are the texts that are not known to be in an end state yet; their states
// are read anew.
func (t *traffic) open(ctx context.Context) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for i := range t.sent {
		s := &t.sent[i]
		switch s.State {
		case "delivered", "read", "failed", "cancelled":
			continue
		}
		m, err := t.h.crew.API.Message(ctx, s.Session, s.ID)
		if err == nil {
			s.State, s.Problem = m.State, m.Problem
		}
		if s.State != "sent" && s.State != "delivered" && s.State != "read" && s.State != "failed" && s.State != "cancelled" {
			n++
		}
	}
	return n
}
