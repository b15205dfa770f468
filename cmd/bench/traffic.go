package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
)

// sink is a receiver of events, of all sessions. It counts messages.
type sink struct {
	mu       sync.Mutex
	messages map[string]map[string]int // how often each came, by place and the event's id
	unread   int                       // that could not be decrypted
}

func newSink() *sink { return &sink{messages: map[string]map[string]int{}} }

// place names a message of a session.
func place(session, id string) string { return session + "/" + id }

// ServeHTTP takes an event.
func (k *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var e state.Event
	var message struct {
		ID string `json:"id"`
	}
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil || json.Unmarshal(e.Data, &message) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch e.Type {
	case state.EventMessage:
		at := place(e.Session, message.ID)
		if k.messages[at] == nil {
			k.messages[at] = map[string]int{}
		}
		k.messages[at][e.ID]++
	case state.EventUndecrypted:
		k.unread++
	}
	w.WriteHeader(http.StatusNoContent)
}

// Sink starts the receiver and tells its URL.
func (r *service) Sink(_ None, url *string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r.sink = newSink()
	server := &http.Server{Handler: r.sink, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }() // until the process ends
	*url = "http://" + l.Addr().String() + "/"
	return nil
}

// Traffic is messages to accounts in turn, each from a contact of its own.
type Traffic struct {
	Numbers   []string
	PerSecond float64
	Most      int // messages; 0: until the end
}

// traffic is what goes on.
type traffic struct {
	stop context.CancelFunc
	done chan error
	sent []string // places of what was written
}

// Begin begins to write, and forgets what was recorded before.
func (r *service) Begin(t Traffic, _ *None) error {
	r.s.ResetTruth()
	ctx, stop := context.WithCancel(context.Background())
	w := &traffic{stop: stop, done: make(chan error, 1)}
	if t.Most > 0 {
		w.stop = func() {} // it ends by itself
	}
	r.traffic = w
	go func() {
		defer stop()
		w.done <- r.write(ctx, t, w)
	}()
	return nil
}

func (r *service) write(ctx context.Context, t Traffic, w *traffic) error {
	tick := time.NewTicker(time.Duration(float64(time.Second) / t.PerSecond))
	defer tick.Stop()
	for i := 0; t.Most == 0 || i < t.Most; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		number := t.Numbers[i%len(t.Numbers)]
		c, err := r.contact(number)
		if err != nil {
			return err
		}
		id, err := c.SendText(context.WithoutCancel(ctx), number, fmt.Sprintf("message %d of a text of usual length, neither short nor long", i))
		if err != nil {
			return err
		}
		w.sent = append(w.sent, place(r.names[number], id))
	}
	return nil
}

// Toll is what became of a traffic.
type Toll struct {
	Sent    int
	Unacked int // at the service
	Lost    int // of what was acknowledged, never at the sink
	Doubled int // at the sink: two events of one message
	Posted  int // to the sink again: the same event, by whose id receivers tell
	Across  int // written before the login of the socket on which they were acknowledged
	Again   int // delivered by the service more than once, since the first was not acknowledged
	Unread  int // that could not be decrypted, with their retries
	Kicked  int // sockets that were live when a newer one of the same device logged in
	Slowest time.Duration
}

// arriveWithin is how long the last messages may take to the sink.
const arriveWithin = 30 * time.Second

// End stops writing, or waits until as much is written as was to be, waits until
// everything has arrived, and tells.
func (r *service) End(_ None, toll *Toll) error {
	w := r.traffic
	if w == nil {
		return errors.New("nothing is being written")
	}
	w.stop()
	if err := <-w.done; err != nil {
		return err
	}
	for deadline := time.Now().Add(arriveWithin); ; time.Sleep(100 * time.Millisecond) {
		*toll = r.toll(w)
		if toll.Unacked+toll.Lost == 0 || time.Now().After(deadline) {
			return nil
		}
	}
}

func (r *service) toll(w *traffic) Toll {
	truth := r.s.Truth()
	t := Toll{Sent: len(w.sent), Kicked: len(truth.Overlaps)}
	acked := map[string]bool{}
	name := map[string]string{} // of the session, by device
	for _, d := range truth.Devices {
		name[d.JID] = r.names[d.Account]
	}
	login := map[int64]time.Time{}
	for _, s := range truth.Sockets {
		if s.LoggedIn != nil {
			login[s.N] = *s.LoggedIn
		}
	}
	for _, m := range truth.Incoming {
		t.Unread += m.Retries
		if m.Acked == nil {
			continue
		}
		acked[place(name[m.Device], m.ID)] = true
		t.Slowest = max(t.Slowest, m.Acked.Sub(m.Queued))
		if m.Deliveries > 1 {
			t.Again++
		}
		if login[m.Socket].After(m.Queued) {
			t.Across++
		}
	}
	r.sink.mu.Lock()
	defer r.sink.mu.Unlock()
	t.Unread += r.sink.unread
	for _, m := range w.sent {
		events := r.sink.messages[m]
		switch {
		case !acked[m]:
			t.Unacked++
		case len(events) == 0:
			t.Lost++
		case len(events) > 1:
			t.Doubled++
		}
		for _, n := range events {
			t.Posted += n - 1
		}
	}
	return t
}

// Moved asks what became of devices after a moment.
type Moved struct {
	Numbers []string
	After   time.Time
}

// Move is one step of a device from a socket to the next.
type Move struct {
	Device string
	Closed time.Time // of the socket before; zero if it is not closed, or there was none
	Login  time.Time // of the next
}

// Gap is how long the device was not there. A socket that was kicked by its
// successor leaves none.
func (m Move) Gap() time.Duration {
	if m.Closed.IsZero() {
		return 0
	}
	return max(0, m.Login.Sub(m.Closed))
}

// moves finds the logins after a moment, of each device in their order, with the
// socket that each one follows.
func moves(sockets []wasim.Socket, after time.Time) []Move {
	var out []Move
	before := map[string]*wasim.Socket{} // the last one that was logged in
	sockets = slices.DeleteFunc(slices.Clone(sockets), func(s wasim.Socket) bool { return s.LoggedIn == nil })
	slices.SortFunc(sockets, func(a, b wasim.Socket) int { return a.LoggedIn.Compare(*b.LoggedIn) })
	for i, s := range sockets {
		if s.LoggedIn.After(after) {
			m := Move{Device: s.Device, Login: *s.LoggedIn}
			if was := before[s.Device]; was != nil && was.Closed != nil {
				m.Closed = *was.Closed
			}
			out = append(out, m)
		}
		before[s.Device] = &sockets[i]
	}
	return out
}

// Moves are the moves of some devices after a moment.
func (r *service) Moves(q Moved, reply *[]Move) error {
	*reply = moves(r.s.Truth(q.Numbers...).Sockets, q.After)
	return nil
}

// AwaitMoved blocks until each of some devices has logged in after a moment, and
// returns the moves.
func (r *service) AwaitMoved(q Moved, reply *[]Move) error {
	for deadline := time.Now().Add(awaitAtMost); ; time.Sleep(50 * time.Millisecond) {
		if err := r.Moves(q, reply); err != nil {
			return err
		}
		there := map[string]bool{}
		for _, m := range *reply {
			there[m.Device] = true
		}
		if len(there) == len(q.Numbers) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d devices have logged in within %s", len(there), len(q.Numbers), awaitAtMost)
		}
	}
}
