package deliver

import (
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// firstPage is how many stored events a lane reads at first; it grows to
// batchEvents where events are small.
const firstPage = 16

// batch is what a turn delivers, and how far the queue has been seen.
type batch struct {
	events []state.Event
	upTo   uint64        // all up to here are in events or need no delivery
	broken *state.Record // the record after events, which cannot be opened
}

// turn delivers one batch of a lane.
func (d *Dispatcher) turn(run context.Context, c *class, l *lane) {
	q := l.q
	ctx, cancel := context.WithCancel(run)
	defer cancel()
	defer context.AfterFunc(q.ctx, cancel)()

	d.mu.Lock()
	sink, probe := l.sink, l.failures > 0
	d.mu.Unlock()
	if probe {
		ctx = withProbe(ctx)
	}

	began := d.cfg.Now()
	moved, oldest, err := q.deliver(ctx, l, sink, probe)
	d.report(q.s.Name, sink.Name(), moved, err, d.cfg.Now().Sub(began), ctx.Err() != nil)

	d.mu.Lock()
	defer d.mu.Unlock()
	c.running--
	if l.asIll {
		c.runningAsIll--
		l.asIll = false
	}
	q.turns--
	l.phase = idle
	switch {
	case q.closed:
		if q.turns == 0 {
			close(q.quiet)
		}
	case !slices.Contains(q.lanes, l):
		// the sink was taken away meanwhile
	case ctx.Err() != nil:
		// the process ends
	case err != nil && l.sink == sink:
		q.pauseLane(l, err)
		if !oldest.IsZero() {
			q.checkFilling(d.cfg.Now().Sub(oldest))
		}
	default:
		if l.failures > 0 && moved > 0 {
			d.cfg.Log.Info("event receiver is back", "session", q.s.Name, "sink", sink.Name(),
				"away", d.cfg.Now().Sub(l.since).Round(time.Second).String(), "behind", q.last-min(l.cursor, q.last))
			l.failures = 0
		}
		q.checkFilling(0)
		q.rouse()
	}
	q.trimTail()
	d.signal()
}

// pauseLane sets a lane aside after a failed turn. d.mu is held.
func (q *Queue) pauseLane(l *lane, err error) {
	d := q.d
	if l.failures == 0 {
		l.since = d.cfg.Now()
	}
	l.failures++
	pause := d.pause(l.failures, err)
	l.due = d.cfg.Now().Add(pause)
	l.phase = waiting
	heap.Push(&d.paused, l)
	if l.failures == 1 || l.failures%10 == 0 {
		d.cfg.Log.Warn("events wait for their receiver", "session", q.s.Name, "sink", l.sink.Name(), "error", err,
			"failures", l.failures, "behind", q.last-min(l.cursor, q.last), "retryIn", pause.Round(time.Millisecond).String())
	}
}

func (d *Dispatcher) report(session, sink string, events int, err error, took time.Duration, ended bool) {
	o := Outcome{Session: session, Sink: sink, Result: ResultDelivered, Events: events, Duration: took}
	switch {
	case err != nil && ended, err == nil && events == 0:
		return
	case err != nil:
		o.Result = ResultFailed
	}
	d.cfg.Observe(o)
}

// deliver reads a batch, hands it to the sink and moves the cursor. It returns
// how many events left the queue, and the time of the one that did not.
func (q *Queue) deliver(ctx context.Context, l *lane, sink Sink, probe bool) (moved int, oldest time.Time, err error) {
	if err := q.load(ctx, l, sink.Name()); err != nil {
		return 0, time.Time{}, err
	}
	b, err := q.next(ctx, l, probe)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("reading the event queue: %w", err)
	}
	for rest := b.events; len(rest) > 0; {
		n, err := sink.Deliver(ctx, rest)
		n = min(max(n, 0), len(rest))
		if n > 0 {
			moved += n
			q.advance(l, sink.Name(), rest[n-1].Seq)
			rest = rest[n:]
		}
		var refused *Refused
		switch {
		case err == nil && n == 0:
			return moved, rest[0].Time, errors.New("sink took nothing and said nothing")
		case err == nil && len(rest) > 0:
			return moved, time.Time{}, nil // the rest in another turn
		case err == nil:
		case len(rest) > 0 && errors.As(err, &refused):
			if err := q.bury(ctx, sink.Name(), rest[0], refused); err != nil {
				return moved, rest[0].Time, err
			}
			moved++
			q.advance(l, sink.Name(), rest[0].Seq)
			rest = rest[1:]
		default:
			if len(rest) > 0 {
				oldest = rest[0].Time
			}
			return moved, oldest, err
		}
	}
	if b.broken != nil {
		if err := q.buryBroken(ctx, sink.Name(), *b.broken); err != nil {
			return moved, time.Time{}, err
		}
		moved++
	}
	q.advance(l, sink.Name(), b.upTo)
	return moved, time.Time{}, nil
}

// advance moves a lane's cursor, in memory and behind it.
func (q *Queue) advance(l *lane, sink string, seq uint64) {
	q.d.mu.Lock()
	move := seq > l.cursor && !q.closed
	if move {
		l.cursor = seq
	}
	q.d.mu.Unlock()
	if move && q.s.Delivered != nil {
		q.s.Delivered(sink, seq)
	}
}

// load reads a lane's cursor once. A sink without one is new to the session:
// it gets what no other sink has had yet.
func (q *Queue) load(ctx context.Context, l *lane, sink string) error {
	q.d.mu.Lock()
	loaded := l.loaded
	q.d.mu.Unlock()
	if loaded {
		return nil
	}
	r, err := q.d.cfg.Records.Get(ctx, state.OfSession(q.s.Name), state.Key{Kind: state.KindCursor, ID: sink})
	var c state.Cursor
	switch {
	case errors.Is(err, state.ErrNotFound):
	case err != nil:
		return fmt.Errorf("reading the cursor: %w", err)
	default:
		if err := state.Decode(r.Value, &c); err != nil {
			// At least once: a cursor that is lost costs repeats, not events.
			q.d.cfg.Log.Warn("cursor cannot be read; events are delivered again", "session", q.s.Name, "sink", sink, "error", err)
			c = state.Cursor{}
		}
	}
	q.d.mu.Lock()
	l.cursor, l.loaded = max(l.cursor, c.Seq), true
	q.d.mu.Unlock()
	return nil
}

// next takes the next batch from the tail where it reaches back far enough,
// else from the store.
func (q *Queue) next(ctx context.Context, l *lane, probe bool) (batch, error) {
	limit := batchEvents
	if probe {
		limit = 1 // enough to see whether the receiver is back
	}
	q.d.mu.Lock()
	cursor, last, page := l.cursor, q.last, min(l.page, limit)
	if len(q.tail) > 0 && q.tail[0].Seq <= cursor+1 {
		i, _ := slices.BinarySearchFunc(q.tail, cursor+1, func(e state.Event, seq uint64) int { return int(int64(e.Seq) - int64(seq)) })
		events := slices.Clone(q.tail[i:min(len(q.tail), i+limit)])
		q.d.mu.Unlock()
		if len(events) == 0 {
			return batch{upTo: cursor}, nil
		}
		return batch{events: events, upTo: events[len(events)-1].Seq}, nil
	}
	q.d.mu.Unlock()
	if cursor >= last {
		return batch{upTo: cursor}, nil
	}
	p := state.OfSession(q.s.Name)
	query := state.Query{Kind: state.KindEvent, Limit: page}
	if cursor > 0 {
		query.After = state.EventID(cursor)
	}
	got, err := q.d.cfg.Records.Query(ctx, p, query)
	if err != nil {
		return batch{}, err
	}
	if len(got.Records) == 0 {
		// Events older than the bounds of the queue are taken out of it.
		return batch{upTo: last}, nil
	}
	b, size, whole := batch{upTo: cursor}, 0, 0
	for _, r := range got.Records {
		size += len(r.Value)
		ev, trimmed, err := q.openEvent(ctx, r)
		if err != nil && !errors.Is(err, state.ErrCorrupt) {
			if len(b.events) > 0 {
				break // first what is there
			}
			return batch{}, err // the vault does not answer now
		}
		if err != nil {
			b.broken = &r
			b.upTo = max(b.upTo, seqOf(r))
			break
		}
		b.upTo = max(b.upTo, ev.Seq)
		if !trimmed { // each sink of its time has had a trimmed one
			b.events = append(b.events, ev)
			if whole += eventSize(ev); whole > sessionBytes {
				break // large ones, which are read from the vault: the rest in another turn
			}
		}
	}
	if !probe {
		q.d.mu.Lock()
		switch {
		case size > sessionBytes:
			l.page = max(1, l.page/2)
		case size < sessionBytes/4:
			l.page = min(batchEvents, l.page*2)
		}
		q.d.mu.Unlock()
	}
	return b, nil
}

// openEvent reads a record EV#seq, and of an event that does not fit into one
// what is in the vault. An error that does not wrap state.ErrCorrupt means that it
// could not be read now.
func (q *Queue) openEvent(ctx context.Context, r state.Record) (ev state.Event, trimmed bool, err error) {
	p := state.OfSession(q.s.Name)
	var s state.StoredEvent
	if err := state.Decode(r.Value, &s); err != nil {
		return ev, false, err
	}
	if s.Trimmed {
		return state.Event{ID: s.ID, Type: s.Type, Time: s.At, Seq: seqOf(r)}, true, nil
	}
	sealed := s.Sealed
	if s.Large != nil && q.d.cfg.Vault != nil {
		if sealed, err = q.large(ctx, *s.Large); errors.Is(err, state.ErrCorrupt) {
			q.d.cfg.Log.Error("a large event is not in the vault any more; it is delivered without its data", "session", q.s.Name, "event", s.ID, "error", err)
			sealed, err = s.Sealed, nil
		}
		if err != nil {
			return ev, false, err
		}
	}
	ev, err = q.unseal(p, r.Key.ID, sealed)
	return ev, false, err
}

func (q *Queue) unseal(p state.Partition, id string, sealed []byte) (ev state.Event, err error) {
	plain, err := q.d.cfg.Fleet.Open(seal.Place{Partition: p, Kind: state.KindEvent, ID: id}, sealed)
	if err != nil {
		return ev, err
	}
	if err := json.Unmarshal(plain, &ev); err != nil {
		return ev, fmt.Errorf("%w: event: %w", state.ErrCorrupt, err)
	}
	return ev, nil
}

func seqOf(r state.Record) uint64 {
	var seq uint64
	if _, err := fmt.Sscanf(r.Key.ID, "%d", &seq); err != nil {
		return 0
	}
	return seq
}
