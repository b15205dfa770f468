package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// sealed makes an event's bytes, sealed for its place.
func (j *Journal) sealed(e state.Event) ([]byte, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding a %s event: %w", e.Type, err)
	}
	return j.cfg.Fleet.Seal(eventPlace(j.partition, state.EventID(e.Seq)), body)
}

// fresh makes the record of a new event. One that is too large for a record goes
// into the vault first.
func (j *Journal) fresh(ctx context.Context, e state.Event, at time.Time, expires bool) (state.Write, error) {
	sealed, err := j.sealed(e)
	if err != nil {
		return state.Write{}, err
	}
	if len(sealed) <= state.MaxEvent {
		return j.record(e, state.StoredEvent{At: at, Sealed: sealed}, expires)
	}
	large, err := j.putLarge(ctx, sealed)
	if err != nil {
		return state.Write{}, err
	}
	if sealed, err = j.sealed(WithoutData(e)); err != nil {
		return state.Write{}, err
	}
	return j.record(e, state.StoredEvent{At: at, Sealed: sealed, Large: large}, expires)
}

// record completes the record of an event.
// One that no sink waits for expires.
func (j *Journal) record(e state.Event, stored state.StoredEvent, expires bool) (state.Write, error) {
	id := state.EventID(e.Seq)
	stored.V, stored.ID, stored.Type = state.Format, e.ID, e.Type
	value, err := state.Encode(stored)
	if err != nil {
		return state.Write{}, err
	}
	w := state.Put(state.KindEvent, id, value)
	if expires {
		w.Expires = stored.At.Add(j.cfg.MaxAge)
	}
	return w, nil
}

func eventPlace(p state.Partition, id string) seal.Place {
	return seal.Place{Partition: p, Kind: state.KindEvent, ID: id}
}

// OpenEvent reads an event out of its record: of one that is too large for it,
// what is there beside the data. Errors wrap state.ErrCorrupt.
func OpenEvent(fleet *seal.Keyset, p state.Partition, r state.Record) (state.Event, error) {
	var stored state.StoredEvent
	if err := state.Decode(r.Value, &stored); err != nil {
		return state.Event{}, fmt.Errorf("%s: %w", r.Key, err)
	}
	body, err := fleet.Open(eventPlace(p, r.Key.ID), stored.Sealed)
	if err != nil {
		return state.Event{}, err
	}
	var e state.Event
	if err := json.Unmarshal(body, &e); err != nil {
		return state.Event{}, fmt.Errorf("%w: %s: not an event: %w", state.ErrCorrupt, r.Key, err)
	}
	return e, nil
}

// OpenEvent reads an event of this session out of its record.
func (j *Journal) OpenEvent(r state.Record) (state.Event, error) {
	return OpenEvent(j.cfg.Fleet, j.partition, r)
}

// dropContent is the default Trim.
func dropContent(e state.Event) state.Event {
	if e.Type == state.EventMessage {
		e.Data = json.RawMessage(`{"trimmed":true}`)
	}
	return e
}

// recentEvents remembers the last events committed, so that they can be trimmed
// without reading them. It is bounded in bytes; what has fallen out, and what the
// owner before has committed, is read for it (see owed).
type recentEvents struct {
	first uint64 // sequence number of the first
	kept  []state.Write
	bytes int
}

// maxRecent is how many bytes of events a journal remembers.
const maxRecent = 64 << 10

func (r *recentEvents) add(seq uint64, w state.Write) {
	if len(r.kept) == 0 {
		r.first = seq
	}
	r.kept = append(r.kept, w)
	r.bytes += len(w.Value)
	for r.bytes > maxRecent && len(r.kept) > 0 {
		r.drop()
	}
}

func (r *recentEvents) drop() {
	r.bytes -= len(r.kept[0].Value)
	r.kept[0] = state.Write{}
	r.kept = r.kept[1:]
	r.first++
	if len(r.kept) == 0 {
		r.kept = nil
	}
}

// take returns the event and forgets it and all before it.
func (r *recentEvents) take(seq uint64) (state.Write, bool) {
	for len(r.kept) > 0 && r.first < seq {
		r.drop()
	}
	if len(r.kept) == 0 || r.first != seq {
		return state.Write{}, false
	}
	w := r.kept[0]
	r.drop()
	return w, true
}

// delivered returns the sequence number that every sink is past. Called with mu
// held, or before the journal is shared.
func (j *Journal) delivered() uint64 {
	if len(j.cursor) == 0 {
		return j.seq
	}
	low := uint64(0)
	start := true
	for _, seq := range j.cursor {
		if start || seq < low {
			low, start = seq, false
		}
	}
	return low
}

// Cursor returns how far a sink has been served.
func (j *Journal) Cursor(sink string) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cursor[sink]
}

// Undelivered returns how many events some sink has not had yet.
func (j *Journal) Undelivered() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return int(j.seq - j.delivered())
}

// Full says that the queue of undelivered events is at its bound of number or
// age: the session must then stop acknowledging messages.
func (j *Journal) Full() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	waiting := j.seq - j.delivered()
	if waiting == 0 {
		return false
	}
	return waiting >= uint64(j.cfg.MaxEvents) ||
		!j.first.IsZero() && j.cfg.Now().Sub(j.first) >= j.cfg.MaxAge
}

// Delivered says that a sink has had all events up to seq. The cursor moves with
// the next commit; events that every sink has had lose their content with it.
// A cursor that would move back is ignored, and so is a sink that is none of
// Config.Sinks, where that names any.
func (j *Journal) Delivered(sink string, seq uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	old, known := j.cursor[sink]
	known = known || len(j.cfg.Sinks) == 0
	if !known || seq <= old || j.closed || j.broken.Load() != nil {
		return
	}
	seq = min(seq, j.seq)
	before := j.delivered()
	j.cursor[sink] = seq
	if value, err := state.Encode(state.Cursor{V: state.Format, Seq: seq}); err == nil {
		j.lazy.put(state.Put(state.KindCursor, sink, value))
	}
	after := j.delivered()
	for n := before + 1; n <= after; n++ {
		j.trim(n)
	}
	switch {
	case after == j.seq:
		j.first = time.Time{}
	case after > before:
		// The next one's age is not known without reading it; it is not older
		// than what was delivered just now, so the bound of age starts anew.
		j.first = j.cfg.Now()
		if len(j.recent.kept) > 0 && j.recent.first == after+1 {
			var e state.StoredEvent
			if state.Decode(j.recent.kept[0].Value, &e) == nil {
				j.first = e.At
			}
		}
	}
	j.arm()
}

// trim has the content taken out of a delivered event. Called with mu held.
func (j *Journal) trim(seq uint64) {
	w, ok := j.recent.take(seq)
	if ok && j.owed.none() {
		j.lazy.put(j.strip(w.Record))
		return
	}
	// Behind one that has to be read all are: trimmed are always the oldest, which
	// is how the next owner finds where to go on.
	if j.owed.none() {
		j.owed.from = seq
	}
	j.owed.to = seq
}

// owedTrims are delivered events that have to be read before they can be trimmed.
type owedTrims struct{ from, to uint64 } // by seq, both among them; to is 0 where there are none

func (o owedTrims) none() bool { return o.to == 0 }

const (
	owedAfter = 5 * time.Second // how long they wait
	owedPage  = 50              // that are read at a time
)

// payOwed reads and trims what is owed. What cannot be read now waits on. It runs
// on the timer's goroutine, in no commit's way.
func (j *Journal) payOwed(ctx context.Context) {
	for {
		j.mu.Lock()
		o := j.owed
		done := o.none() || j.closed || j.broken.Load() != nil
		j.mu.Unlock()
		if done {
			return
		}
		read, cancel := context.WithTimeout(ctx, j.cfg.Retry)
		page, err := j.cfg.Store.Query(read, j.partition, state.Query{Kind: state.KindEvent, After: state.EventID(o.from - 1), Limit: owedPage})
		cancel()
		if err != nil {
			return
		}
		j.mu.Lock()
		last := !page.More || len(page.Records) == 0
		next := o.from
		for _, r := range page.Records {
			seq, err := seqOf(r.Key)
			if err != nil || seq > o.to {
				last = true
				break
			}
			next = seq + 1
			var e state.StoredEvent
			if state.Decode(r.Value, &e) != nil || !e.Trimmed {
				j.lazy.put(j.strip(r))
			}
		}
		switch {
		case last && j.owed.to == o.to, next > j.owed.to:
			j.owed = owedTrims{}
		case last: // more was delivered meanwhile
			j.owed.from = o.to + 1
		default:
			j.owed.from = next
		}
		j.mu.Unlock()
		if j.Flush(ctx) != nil {
			return // it has broken the journal
		}
	}
}

// strip returns the write that takes the content out of an event, or the event
// away if that cannot be done.
func (j *Journal) strip(r state.Record) state.Write {
	gone := state.Del(r.Key.Kind, r.Key.ID)
	e, err := j.OpenEvent(r)
	if err != nil {
		return gone
	}
	var stored state.StoredEvent
	if err := state.Decode(r.Value, &stored); err != nil {
		return gone
	}
	if stored.Large != nil {
		if j.large == nil {
			j.large = make(map[string]state.LargeEvent)
		}
		j.large[r.Key.ID] = *stored.Large
	}
	e = j.cfg.Trim(e)
	sealed, err := j.sealed(e)
	if err != nil {
		return gone
	}
	trimmed, err := j.record(e, state.StoredEvent{At: stored.At, Trimmed: true, Sealed: sealed}, true)
	if err != nil {
		return gone
	}
	return trimmed
}

// trimLeftOver takes the content out of events up to seq whose cursors are
// stored while their own trimming is not: of many events it takes more than one
// commit, and the owner before may have ended in between. What it trimmed is
// older, so the search ends there. Called before the journal is shared.
func (j *Journal) trimLeftOver(ctx context.Context, seq uint64) error {
	if seq == 0 {
		return nil
	}
	q := state.Query{Kind: state.KindEvent, After: state.EventID(seq + 1), Descending: true, Limit: 1}
	for {
		page, err := j.cfg.Store.Query(ctx, j.partition, q)
		if err != nil {
			return err
		}
		for _, r := range page.Records {
			var e state.StoredEvent
			if state.Decode(r.Value, &e) == nil && e.Trimmed {
				return nil
			}
			j.mu.Lock() // the timer that this sets may run before the journal is shared
			j.lazy.put(j.strip(r))
			j.arm()
			j.mu.Unlock()
			q.After = r.Key.ID
		}
		if !page.More || len(page.Records) == 0 {
			return nil
		}
		q.Limit = 20
	}
}

// markHead keeps the highest sequence number lazily. Called with mu held, or
// before the journal is shared.
func (j *Journal) markHead(now time.Time) {
	value, err := state.Encode(state.Cursor{V: state.Format, Seq: j.seq})
	if err != nil {
		return
	}
	j.head = headMark{j.seq, now}
	j.lazy.put(state.Put(state.KindCursor, "", value))
	j.arm()
}

// Sinks returns the names of the sinks that events are kept for.
func (j *Journal) Sinks() []string { return slices.Clone(j.cfg.Sinks) }
