package chaos

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// rest waits until all sessions are online and then until nothing waits any
// more: no message for an acknowledgement, none in an outbox, none for the
// receiver.
func (h *harness) rest(ctx context.Context, t *traffic, to *History) {
	within, cancel := context.WithTimeout(ctx, to.Bound+patience)
	defer cancel()
	h.say("all faults are over")
	for to.Online.IsZero() {
		offline := 0
		for _, d := range h.devices {
			if s := d.Status(); !s.Online || !s.Active {
				offline++
			}
		}
		if offline == 0 {
			to.Online = time.Now()
			h.say("all sessions are online again, after %.1f s", to.Online.Sub(to.Healed).Seconds())
		} else if !sleep(within, 100*time.Millisecond) {
			break
		}
	}
	for {
		waits := h.waits(ctx, t)
		if len(waits) == 0 {
			to.Rest = time.Now()
			h.say("nothing waits any more, after %.1f s", to.Rest.Sub(to.Healed).Seconds())
			// What would come late, such as a second copy, has a moment to do so.
			sleep(ctx, to.Timing.Takeover)
			return
		}
		if !sleep(within, 500*time.Millisecond) {
			to.Restless = waits
			return
		}
	}
}

// waits lists what still waits.
func (h *harness) waits(ctx context.Context, t *traffic) []string {
	var out []string
	for i, d := range h.devices {
		if n := d.Pending(); n > 0 {
			out = append(out, fmt.Sprintf("%s: %d stanzas wait for its acknowledgement", h.accounts[i].Session, n))
		}
	}
	if n := t.open(ctx); n > 0 {
		out = append(out, fmt.Sprintf("%d texts wait to be sent", n))
	}
	if n := t.openCommands(ctx); n > 0 {
		out = append(out, fmt.Sprintf("%d commands have not ended", n))
	}
	t.mu.Lock()
	wrote := slices.Clone(t.wrote)
	t.mu.Unlock()
	missing := 0
	for _, w := range wrote {
		if !h.sink.has(w.Session, w.ID) {
			missing++
		}
	}
	if missing > 0 {
		out = append(out, fmt.Sprintf("%d messages have not arrived at the receiver", missing))
	}
	sessions, err := h.crew.API.Sessions(ctx)
	if err != nil {
		return append(out, "the API does not answer: "+err.Error())
	}
	mine := map[string]bool{}
	for _, a := range h.accounts {
		mine[a.Session] = true
	}
	for _, s := range sessions {
		if mine[s.Name] && s.State != "online" {
			out = append(out, fmt.Sprintf("%s is %s %s", s.Name, s.State, s.Cause))
		}
	}
	return out
}

// gather takes down what is to be judged, and looks for what lies open.
func (h *harness) gather(ctx context.Context, t *traffic, to *History) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var err error
	if to.Final, err = h.crew.API.Sessions(ctx); err != nil {
		return fmt.Errorf("the API at the end: %w", err)
	}
	stopped, stop := context.WithTimeout(ctx, endWithin)
	defer stop()
	if err := h.crew.Stop(stopped); err != nil {
		return err
	}
	h.say("all workers have ended")
	to.Truth = h.sim.Truth()
	arrivals, bad := h.sink.all()
	to.Arrivals = arrivals
	if bad > 0 {
		to.Restless = append(to.Restless, fmt.Sprintf("%d requests to the receiver were no events", bad))
	}
	t.mu.Lock()
	to.Wrote, to.Sent, to.Ordered = t.wrote, t.sent, t.ordered
	t.mu.Unlock()
	for i := range h.contacts() {
		c := h.sim.Contact(contactNumber(i))
		for _, r := range c.Received() {
			to.Read = append(to.Read, Read{c.Number(), r.From, r.ID, r.Text})
		}
		for _, f := range c.Undecryptable() {
			to.Unread = append(to.Unread, Unread{c.Number(), f.From, f.ID, f.Enc, f.Reason, f.At})
		}
	}
	for _, p := range h.crew.Workers {
		to.Runs = append(to.Runs, p.Runs()...)
		to.Conns = append(to.Conns, h.relays[p.Name].conns()...)
	}
	to.Runs = append(to.Runs, h.crew.Admin.Runs()...)
	h.mu.Lock()
	to.Lines, to.Bans = slices.Clone(h.lines), slices.Clone(h.bans)
	h.mu.Unlock()
	return h.scan(ctx, to)
}

// secrets is what must lie nowhere in the clear.
func (h *harness) secrets() []Secret {
	out := []Secret{{accountNumber(0)[:8], "the phone number of an account"}, {contactNumber(0)[:8], "the phone number of a contact"},
		{"zebrafish", "a push name"}, {word, "the text of a message"}}
	for _, a := range h.accounts {
		out = append(out, Secret{h.sim.Contact(a.Number).LID().User, "the LID of an account"})
	}
	for i := range h.contacts() {
		out = append(out, Secret{h.sim.Contact(contactNumber(i)).LID().User, "the LID of a contact"})
	}
	return out
}

// scan looks for secrets in the tables, the bucket, what KMS was told, and the
// workers' folders and logs.
func (h *harness) scan(ctx context.Context, to *History) error {
	env, err := h.stand.Environment("admin")
	if err != nil {
		return err
	}
	s := scanner{secrets: h.secrets()}
	if err := s.tables(ctx, env); err != nil {
		return fmt.Errorf("reading the tables: %w", err)
	}
	if err := s.objects(ctx, env); err != nil {
		return fmt.Errorf("reading the bucket: %w", err)
	}
	for _, c := range h.stand.Contexts() {
		s.look("an encryption context at KMS", []byte(c))
	}
	if err := s.files(filepath.Join(h.o.Dir, "workers")); err != nil {
		return fmt.Errorf("reading the workers' folders: %w", err)
	}
	to.Leaks = s.leaks
	h.say("%d items, objects and files of %.1f MB searched for what must be sealed", s.items, float64(s.bytes)/1e6)
	return nil
}
