package wasim

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Truth is what happened, as the server saw it. Times are the server's.
type Truth struct {
	Sockets   []Socket   `json:"sockets"`   // every connection, in order of opening
	Overlaps  []Overlap  `json:"overlaps"`  // two live sockets of one device: the older one was kicked
	Logins    []Login    `json:"logins"`    // every payload that the handshake brought
	Pairings  []Pairing  `json:"pairings"`  // every end of a pairing
	Incoming  []Incoming `json:"incoming"`  // to devices
	Outgoing  []Outgoing `json:"outgoing"`  // from devices
	Receipts  []Receipt  `json:"receipts"`  // receipts that devices sent, beyond those in Incoming
	Anomalies []Anomaly  `json:"anomalies"` // what a right client does not do, and what the server does not know
	Faults    []Struck   `json:"faults"`    // faults that took effect
	Devices   []Status   `json:"devices"`
	Dropped   int        `json:"dropped"` // records that MaxRecords let go
}

// Socket is one TCP connection to /ws/chat.
type Socket struct {
	N        int64      `json:"n"`
	Remote   string     `json:"remote"`
	Device   string     `json:"device,omitempty"` // JID, once known
	Pairing  bool       `json:"pairing,omitempty"`
	Version  string     `json:"version,omitempty"`
	Opened   time.Time  `json:"opened"`
	LoggedIn *time.Time `json:"loggedIn,omitempty"` // success was sent
	Ended    *time.Time `json:"ended,omitempty"`    // a final stanza was sent
	Closed   *time.Time `json:"closed,omitempty"`
	How      string     `json:"how,omitempty"`
	Pings    int        `json:"pings,omitempty"`
}

// Overlap is a login while an older socket of the same device was alive.
type Overlap struct {
	Device string     `json:"device"`
	Older  int64      `json:"older"`
	Newer  int64      `json:"newer"`
	At     time.Time  `json:"at"`
	Until  *time.Time `json:"until,omitempty"` // the older one closed
}

// Login is the payload of one handshake and what was answered.
type Login struct {
	Socket  int64     `json:"socket"`
	At      time.Time `json:"at"`
	Device  string    `json:"device,omitempty"` // empty: a registration
	Version string    `json:"version"`
	Passive bool      `json:"passive"`
	Pull    bool      `json:"pull"`
	OS      string    `json:"os,omitempty"`
	Outcome string    `json:"outcome"` // success, pairing, failure N, a fault's kind
}

// Pairing is the end of one pairing.
type Pairing struct {
	Account string    `json:"account"`
	Device  string    `json:"device,omitempty"`
	By      string    `json:"by"` // qr, code, enrol
	At      time.Time `json:"at"`
	Error   string    `json:"error,omitempty"`
}

// Incoming is the fate of one message to one device.
type Incoming struct {
	ID         string     `json:"id"`
	Device     string     `json:"device"`
	From       string     `json:"from"`
	Group      string     `json:"group,omitempty"`
	Enc        string     `json:"enc"` // pkmsg, msg, skmsg; several are joined with +
	Corrupt    bool       `json:"corrupt,omitempty"`
	Queued     time.Time  `json:"queued"`
	Deliveries int        `json:"deliveries"`
	Delivered  *time.Time `json:"delivered,omitempty"` // the first time
	Acked      *time.Time `json:"acked,omitempty"`
	By         string     `json:"by,omitempty"`      // receipt or ack
	Receipt    string     `json:"receipt,omitempty"` // its type; a plain delivery receipt is "delivery"
	Socket     int64      `json:"socket,omitempty"`  // on which it was acknowledged
	Error      string     `json:"error,omitempty"`   // of the ack
	Retries    int        `json:"retries,omitempty"` // retry receipts for it
	Retry      int        `json:"retry,omitempty"`   // this is the answer to that retry receipt
	Again      int        `json:"again,omitempty"`   // acknowledged once more after that
}

// Outgoing is the fate of one message of a device at one recipient.
type Outgoing struct {
	ID        string    `json:"id"`
	Device    string    `json:"device"`
	To        string    `json:"to"`        // the chat
	Recipient string    `json:"recipient"` // the one whose ciphertext it is
	Enc       string    `json:"enc"`
	At        time.Time `json:"at"`
	Outcome   string    `json:"outcome"` // decrypted, rejected, forwarded, refused, undeliverable
	Reason    string    `json:"reason,omitempty"`
	Copies    int       `json:"copies"`           // how many times it came, under this id
	Healed    bool      `json:"healed,omitempty"` // rejected first, read after a retry
}

// Receipt is one receipt from a device.
type Receipt struct {
	Device string    `json:"device"`
	To     string    `json:"to"`
	IDs    []string  `json:"ids"`
	Type   string    `json:"type"`
	At     time.Time `json:"at"`
}

// Anomaly is something to look at. What is one of: frame, stanza, iq (unknown),
// tag (unknown), prekey (an id uploaded twice with different keys), signature,
// ack (of nothing that is pending), login, panic.
type Anomaly struct {
	At     time.Time `json:"at"`
	Device string    `json:"device,omitempty"`
	Socket int64     `json:"socket,omitempty"`
	What   string    `json:"what"`
	Detail string    `json:"detail"`
}

// Struck is one effect of a fault.
type Struck struct {
	Fault  string    `json:"fault"`
	Kind   Kind      `json:"kind"`
	Device string    `json:"device,omitempty"`
	Socket int64     `json:"socket,omitempty"`
	At     time.Time `json:"at"`
}

// Status is a device now.
type Status struct {
	JID      string     `json:"jid"`
	LID      string     `json:"lid"`
	Account  string     `json:"account"`
	Online   bool       `json:"online"`
	Socket   int64      `json:"socket,omitempty"`
	Active   bool       `json:"active"`  // sent passive/active on this socket
	Pending  int        `json:"pending"` // not acknowledged
	PreKeys  int        `json:"prekeys"` // left on the server
	Uploaded int        `json:"uploaded"`
	Logins   int        `json:"logins"`
	Kicks    int        `json:"kicks"`
	Overlaps int        `json:"overlaps"`
	Unlinked *time.Time `json:"unlinked,omitempty"`
}

// truth is the growing form. Guarded by Server.mu.
type truth struct {
	sockets   []*Socket
	overlaps  []*Overlap
	logins    []*Login
	pairings  []Pairing
	incoming  []*Incoming
	outgoing  []*Outgoing
	receipts  []Receipt
	anomalies []Anomaly
	struck    []Struck
	sent      map[outKey]*Outgoing
	dropped   int
}

// outKey finds the earlier copies of an outgoing message.
type outKey struct{ device, id, recipient string }

// keep appends to a list of records and lets the oldest half go at the bound.
func keep[T any](t *truth, max int, list *[]T, v T) {
	if len(*list) >= max {
		n := max/2 + 1
		t.dropped += n
		*list = slices.Clone((*list)[n:])
	}
	*list = append(*list, v)
}

// at is the time now, for records that may lack one.
func (s *Server) at() *time.Time {
	now := s.opt.Now()
	return &now
}

// socket opens a record. The lock is held.
func (t *truth) socket(s *Server, remote string) *Socket {
	rec := &Socket{N: s.next(), Remote: remote, Opened: s.opt.Now()}
	keep(t, s.opt.MaxRecords, &t.sockets, rec)
	return rec
}

// end closes a socket's record, once. The lock is held.
func (r *Socket) end(s *Server, how string) {
	if r.Closed != nil {
		return
	}
	r.Closed, r.How = s.at(), how
	for _, o := range s.truth.overlaps {
		if o.Older == r.N && o.Until == nil {
			o.Until = r.Closed
		}
	}
	s.notify()
}

func (s *Server) closeRecord(r *Socket, how string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.end(s, how)
}

// anomaly records something odd.
func (s *Server) anomaly(c *conn, what, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.anomalyLocked(c, what, detail)
}

func (s *Server) anomalyLocked(c *conn, what, detail string) {
	a := Anomaly{At: s.opt.Now(), What: what, Detail: detail}
	if c != nil {
		a.Socket, a.Device = c.rec.N, c.rec.Device
	}
	keep(&s.truth, s.opt.MaxRecords, &s.truth.anomalies, a)
	s.opt.Log.Debug("wasim: anomaly", "what", what, "detail", detail, "socket", a.Socket)
	s.notify()
}

// Truth is a copy of all records. With devices given (JIDs, numbers or LID
// users), only what concerns them.
func (s *Server) Truth(devices ...string) Truth {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := func(string) bool { return true }
	if len(devices) > 0 {
		jids := map[string]bool{}
		for _, name := range devices {
			for _, d := range s.match(name) {
				jids[d.jid.String()] = true
			}
		}
		want = func(jid string) bool { return jids[jid] }
	}
	t := &s.truth
	out := Truth{
		Sockets:   copies(t.sockets, func(v *Socket) bool { return want(v.Device) }),
		Overlaps:  copies(t.overlaps, func(v *Overlap) bool { return want(v.Device) }),
		Logins:    copies(t.logins, func(v *Login) bool { return want(v.Device) }),
		Incoming:  copies(t.incoming, func(v *Incoming) bool { return want(v.Device) }),
		Outgoing:  copies(t.outgoing, func(v *Outgoing) bool { return want(v.Device) }),
		Pairings:  filter(t.pairings, func(v Pairing) bool { return want(v.Device) }),
		Receipts:  filter(t.receipts, func(v Receipt) bool { return want(v.Device) }),
		Anomalies: filter(t.anomalies, func(v Anomaly) bool { return want(v.Device) }),
		Faults:    filter(t.struck, func(v Struck) bool { return want(v.Device) }),
		Devices:   []Status{},
		Dropped:   t.dropped,
	}
	for _, d := range s.allDevices() {
		if want(d.jid.String()) {
			out.Devices = append(out.Devices, d.status())
		}
	}
	return out
}

func copies[T any](list []*T, ok func(*T) bool) []T {
	out := make([]T, 0, len(list))
	for _, v := range list {
		if ok(v) {
			out = append(out, *v)
		}
	}
	return out
}

func filter[T any](list []T, ok func(T) bool) []T {
	out := make([]T, 0, len(list))
	for _, v := range list {
		if ok(v) {
			out = append(out, v)
		}
	}
	return out
}

// ResetTruth forgets the records so far. Devices, messages that wait and live
// sockets stay as they are, live sockets with their records.
func (s *Server) ResetTruth() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.truth = truth{}
	for c := range s.conns {
		s.truth.sockets = append(s.truth.sockets, c.rec)
	}
	slices.SortFunc(s.truth.sockets, func(a, b *Socket) int { return int(a.N - b.N) })
	for _, d := range s.allDevices() {
		for e := d.box.order.Front(); e != nil; e = e.Next() {
			if rec := e.Value.(*item).rec; rec != nil {
				s.truth.incoming = append(s.truth.incoming, rec)
			}
		}
	}
}

// Wait blocks until done, called with a fresh Truth after each change, returns
// true. It copies everything each time: for tests, not for benches.
func (s *Server) Wait(ctx context.Context, done func(Truth) bool) error {
	for {
		s.mu.Lock()
		s.waiters++
		ch := s.changed
		closed := s.closed
		s.mu.Unlock()
		ok := done(s.Truth())
		if !ok && !closed {
			select {
			case <-ch:
			case <-ctx.Done():
			}
		}
		s.mu.Lock()
		s.waiters--
		s.mu.Unlock()
		switch {
		case ok:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("wait: %w", ctx.Err())
		case closed:
			return ErrClosed
		}
	}
}
