package deliver

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Session is one session's part in delivery, under one epoch of its owner.
type Session struct {
	Name  string
	Sinks []Sink
	Last  uint64 // the newest committed sequence number, 0 for none

	// Delivered moves a sink's cursor: everything up to seq was taken. Called
	// in order for each sink, from any goroutine.
	Delivered func(sink string, seq uint64)
	// Commit writes a dead letter durably, under the session's fence. The
	// cursor moves past the event only once it returned nil.
	Commit func(ctx context.Context, writes ...state.Write) error
	// Filling, where not nil, is called on a goroutine of its own when 90 % of
	// the queue's bounds is used, and again only after it fell to half. Depth
	// is in events, age that of the oldest undelivered one where known.
	Filling func(depth int, age time.Duration)

	MaxEvents int           // bound of the queue; default 10,000
	MaxAge    time.Duration // default 7 days
}

// Queue is a session attached to a Dispatcher.
type Queue struct {
	d      *Dispatcher
	s      Session
	ctx    context.Context
	cancel context.CancelFunc

	// All below is under d.mu.
	last     uint64
	tail     []state.Event // the newest events, without gaps, up to last; nil unless a lane is about to take them
	tailSize int
	lanes    []*lane
	warned   bool
	closed   bool
	turns    int           // running now
	quiet    chan struct{} // closed when turns is 0 after Close
}

type phase uint8

const (
	idle    phase = iota // nothing to deliver, as far as is known
	queued               // waits for a place
	running              // has one
	waiting              // paused after a failure
)

// lane is one sink of one session.
type lane struct {
	q        *Queue
	sink     Sink
	phase    phase
	loaded   bool // the cursor was read
	cursor   uint64
	page     int // events to read at a time
	failures int // turns in a row
	asIll    bool
	since    time.Time // of the first of those failures
	due      time.Time // end of the pause
	place    int       // in the heap of pauses
}

// Attach begins delivering a session's events, from its stored cursors on.
func (d *Dispatcher) Attach(s Session) (*Queue, error) {
	if s.MaxEvents <= 0 {
		s.MaxEvents = 10_000
	}
	if s.MaxAge <= 0 {
		s.MaxAge = 7 * 24 * time.Hour
	}
	ctx, cancel := context.WithCancel(context.Background())
	q := &Queue{d: d, s: s, ctx: ctx, cancel: cancel, last: s.Last, quiet: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.queues[s.Name] != nil {
		cancel()
		return nil, fmt.Errorf("delivering %s: %w", s.Name, ErrAttached)
	}
	d.queues[s.Name] = q
	q.setSinks(s.Sinks)
	d.signal()
	return q, nil
}

// SetSinks replaces the sinks. One of a name that was there goes on where that
// one was. A running delivery to an old sink ends first.
func (q *Queue) SetSinks(sinks []Sink) {
	q.d.mu.Lock()
	defer q.d.mu.Unlock()
	if q.closed {
		return
	}
	q.setSinks(sinks)
	q.d.signal()
}

func (q *Queue) setSinks(sinks []Sink) {
	old := q.lanes
	q.lanes = nil
	for _, s := range sinks {
		i := slices.IndexFunc(old, func(l *lane) bool { return l.sink.Name() == s.Name() })
		if i < 0 {
			q.lanes = append(q.lanes, &lane{q: q, sink: s, page: firstPage})
		} else {
			l := old[i]
			l.sink = s
			if l.phase == waiting { // another receiver: no reason to wait
				heap.Remove(&q.d.paused, l.place)
				l.phase, l.failures = idle, 0
			}
			q.lanes = append(q.lanes, l)
			old = slices.Delete(old, i, i+1)
		}
	}
	for _, l := range old {
		q.drop(l)
	}
	if q.last > 0 {
		q.rouse()
	}
}

// drop takes a lane out of every line. A running turn notices by itself.
func (q *Queue) drop(l *lane) {
	switch l.phase {
	case waiting:
		heap.Remove(&q.d.paused, l.place)
	case queued:
		if c := q.d.classes[l.sink.Name()]; c != nil {
			same := func(o *lane) bool { return o == l }
			c.well = slices.DeleteFunc(c.well, same)
			c.ill = slices.DeleteFunc(c.ill, same)
		}
	}
	if l.phase != running {
		l.phase = idle
	}
}

// rouse queues the idle lanes that have or may have something to deliver.
func (q *Queue) rouse() {
	for _, l := range q.lanes {
		if l.phase == idle && (!l.loaded || l.cursor < q.last) {
			q.d.enqueue(l)
		}
	}
}

// Committed tells of events that were just committed, in order of sequence
// number. It does not block.
func (q *Queue) Committed(events []state.Event) {
	if len(events) == 0 {
		return
	}
	q.d.mu.Lock()
	defer q.d.mu.Unlock()
	if q.closed {
		return
	}
	if len(q.lanes) > 0 && q.taker() {
		q.feed(events)
	} else {
		q.dropTail()
	}
	q.last = max(q.last, events[len(events)-1].Seq)
	q.checkFilling(0)
	q.rouse()
	q.d.signal()
}

// Seen says that everything up to seq is committed, for callers that could not
// hand on the events themselves. What is missing is read from the store.
func (q *Queue) Seen(seq uint64) {
	q.d.mu.Lock()
	defer q.d.mu.Unlock()
	if q.closed || seq <= q.last {
		return
	}
	q.last = seq
	q.dropTail()
	q.checkFilling(0)
	q.rouse()
	q.d.signal()
}

// taker says whether a lane will take new events soon: one that is not pausing
// and not far behind.
func (q *Queue) taker() bool {
	for _, l := range q.lanes {
		if l.phase != waiting && (!l.loaded || q.last-min(l.cursor, q.last) <= batchEvents) {
			return true
		}
	}
	return false
}

// feed puts new events at the end of the tail, within the bounds.
func (q *Queue) feed(events []state.Event) {
	for _, ev := range events {
		size := eventSize(ev)
		if len(q.tail) > 0 && q.tail[len(q.tail)-1].Seq+1 != ev.Seq || len(q.tail) >= batchEvents || q.tailSize+size > sessionBytes {
			q.dropTail()
		}
		if size > sessionBytes || q.d.tailBytes+size > q.d.cfg.TailBytes {
			q.dropTail()
			continue
		}
		q.tail = append(q.tail, ev)
		q.tailSize += size
		q.d.tailBytes += size
	}
}

func (q *Queue) dropTail() {
	q.d.tailBytes -= q.tailSize
	q.tail, q.tailSize = nil, 0
}

// trimTail forgets what no lane will take from memory any more.
func (q *Queue) trimTail() {
	if len(q.tail) == 0 {
		return
	}
	low, takers := q.last, false
	for _, l := range q.lanes {
		if l.phase != waiting {
			low, takers = min(low, l.cursor), true
		}
	}
	if !takers || low >= q.tail[len(q.tail)-1].Seq {
		q.dropTail()
		return
	}
	n := 0
	for n < len(q.tail) && q.tail[n].Seq <= low {
		size := eventSize(q.tail[n])
		q.tailSize -= size
		q.d.tailBytes -= size
		n++
	}
	q.tail = append([]state.Event(nil), q.tail[n:]...)
}

// eventSize is what an event costs in memory, about.
func eventSize(ev state.Event) int { return len(ev.Data) + len(ev.ID) + len(ev.Session) + 160 }

// Depth is how many events the slowest sink is behind, as far as is known.
func (q *Queue) Depth() int {
	q.d.mu.Lock()
	defer q.d.mu.Unlock()
	return q.depth()
}

func (q *Queue) depth() int {
	depth := uint64(0)
	for _, l := range q.lanes {
		if l.loaded && l.cursor < q.last {
			depth = max(depth, q.last-l.cursor)
		}
	}
	return int(depth)
}

// checkFilling warns once when 9/10 of a bound is used. Age is that of an
// undelivered event, 0 where not known. d.mu is held.
func (q *Queue) checkFilling(age time.Duration) {
	depth := q.depth()
	switch {
	case depth >= q.s.MaxEvents*9/10 || age >= q.s.MaxAge/10*9:
		if q.warned || q.s.Filling == nil {
			return
		}
		q.warned = true
		q.d.chores = append(q.d.chores, func() { q.s.Filling(depth, age) })
	case depth <= q.s.MaxEvents/2 && age == 0:
		q.warned = false
	}
}

// Close ends the session's deliveries and waits for the running ones, at most
// until ctx ends. What they had not delivered is delivered by the next owner.
func (q *Queue) Close(ctx context.Context) error {
	q.cancel()
	q.d.mu.Lock()
	if !q.closed {
		q.closed = true
		delete(q.d.queues, q.s.Name)
		for _, l := range q.lanes {
			q.drop(l)
		}
		q.lanes = nil
		q.dropTail()
		if q.turns == 0 {
			close(q.quiet)
		}
	}
	q.d.mu.Unlock()
	select {
	case <-q.quiet:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
