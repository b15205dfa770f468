package deliver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// bury puts an event that its receiver refused aside.
func (q *Queue) bury(ctx context.Context, sink string, ev state.Event, why *Refused) error {
	plain, err := json.Marshal(ev)
	if err != nil {
		plain, err = json.Marshal(state.Event{ID: ev.ID, Type: ev.Type, Time: ev.Time, Session: ev.Session, Epoch: ev.Epoch, Seq: ev.Seq})
		if err != nil {
			return fmt.Errorf("dead letter: %w", err)
		}
	}
	place := seal.Place{Partition: state.OfSession(q.s.Name), Kind: state.KindEvent, ID: state.EventID(ev.Seq)}
	sealed, err := q.d.cfg.Fleet.Seal(place, plain)
	if err != nil {
		return fmt.Errorf("dead letter: %w", err)
	}
	dl := state.DeadLetter{Sink: sink, Seq: ev.Seq, EventID: ev.ID, Type: ev.Type, At: ev.Time,
		Status: why.Status, Reason: why.Error(), Sealed: sealed}
	if len(sealed) > state.MaxEvent {
		// An object of its own: the event's goes when every sink has had it.
		if dl.Large, err = q.putLarge(ctx, sealed); err != nil {
			return fmt.Errorf("dead letter: %w", err)
		}
		if plain, err = json.Marshal(withoutData(ev)); err == nil {
			dl.Sealed, err = q.d.cfg.Fleet.Seal(place, plain)
		}
		if err != nil {
			return fmt.Errorf("dead letter: %w", err)
		}
	}
	return q.putDead(ctx, dl)
}

// buryBroken puts a stored event aside that cannot be opened, as it is.
func (q *Queue) buryBroken(ctx context.Context, sink string, r state.Record) error {
	var s state.StoredEvent
	if err := state.Decode(r.Value, &s); err != nil {
		s = state.StoredEvent{Sealed: r.Value}
	}
	return q.putDead(ctx, state.DeadLetter{Sink: sink, Seq: seqOf(r), EventID: s.ID, Type: s.Type, At: s.At,
		Reason: "the stored event cannot be opened", Corrupt: true, Sealed: s.Sealed})
}

func (q *Queue) putDead(ctx context.Context, dl state.DeadLetter) error {
	dl.V, dl.Tries, dl.DiedAt = state.Format, 1, q.d.cfg.Now().UTC()
	value, err := state.Encode(dl)
	if err != nil {
		return fmt.Errorf("dead letter: %w", err)
	}
	if err := q.s.Commit(ctx, state.Put(state.KindDead, state.DeadID(dl.Seq, dl.Sink), value)); err != nil {
		return fmt.Errorf("writing a dead letter: %w", err)
	}
	q.d.cfg.Log.Warn("event refused for good; kept as a dead letter", "session", q.s.Name, "sink", dl.Sink,
		"event", dl.EventID, "type", dl.Type, "seq", dl.Seq, "status", dl.Status, "reason", dl.Reason)
	q.d.cfg.Observe(Outcome{Session: q.s.Name, Sink: dl.Sink, Result: ResultRefused})
	return nil
}

// Dead lists a session's dead letters in order of sequence number, beginning
// after the given record id, and says whether there may be more.
func Dead(ctx context.Context, records Records, session, after string, limit int) (letters []state.DeadLetter, more bool, err error) {
	page, err := records.Query(ctx, state.OfSession(session), state.Query{Kind: state.KindDead, After: after, Limit: limit})
	if err != nil {
		return nil, false, fmt.Errorf("reading dead letters: %w", err)
	}
	for _, r := range page.Records {
		var dl state.DeadLetter
		if err := state.Decode(r.Value, &dl); err != nil {
			return nil, false, fmt.Errorf("dead letter %s: %w", r.Key.ID, err)
		}
		letters = append(letters, dl)
	}
	return letters, page.More, nil
}

// ErrNoSink is returned for a dead letter whose sink the session has no more.
var ErrNoSink = errors.New("the session has no such sink any more")

// Redrive delivers one dead letter again, out of its order, and removes it when
// its receiver took it. ErrNotFound if there is none of that record id. A
// *Refused means that it stays, with one try more.
func (q *Queue) Redrive(ctx context.Context, id string) error {
	p := state.OfSession(q.s.Name)
	r, err := q.d.cfg.Records.Get(ctx, p, state.Key{Kind: state.KindDead, ID: id})
	if err != nil {
		return fmt.Errorf("dead letter %s: %w", id, err)
	}
	var dl state.DeadLetter
	if err := state.Decode(r.Value, &dl); err != nil {
		return fmt.Errorf("dead letter %s: %w", id, err)
	}
	sink := q.sink(dl.Sink)
	if sink == nil {
		return fmt.Errorf("dead letter %s: sink %s: %w", id, dl.Sink, ErrNoSink)
	}
	sealed := dl.Sealed
	if dl.Large != nil && q.d.cfg.Vault != nil {
		if sealed, err = q.large(ctx, *dl.Large); err != nil {
			return fmt.Errorf("dead letter %s: %w", id, err)
		}
	}
	ev, err := q.unseal(p, state.EventID(dl.Seq), sealed)
	if err != nil {
		return fmt.Errorf("dead letter %s: %w", id, err)
	}
	n, err := sink.Deliver(ctx, []state.Event{ev})
	var refused *Refused
	switch {
	case err == nil && n == 1:
		if err := q.s.Commit(ctx, state.Del(state.KindDead, id)); err != nil {
			return err
		}
		if dl.Large != nil && q.d.cfg.Vault != nil {
			_ = q.d.cfg.Vault.DeleteObject(ctx, q.s.Name, dl.Large.Name, dl.Large.VersionID) // or it is swept
		}
		return nil
	case errors.As(err, &refused):
		dl.Tries++
		dl.Status, dl.Reason, dl.DiedAt = refused.Status, refused.Error(), q.d.cfg.Now().UTC()
		if value, encErr := state.Encode(dl); encErr == nil {
			err = errors.Join(err, q.s.Commit(ctx, state.Put(state.KindDead, id, value)))
		}
	case err == nil:
		err = errors.New("sink took nothing and said nothing")
	}
	return fmt.Errorf("dead letter %s: %w", id, err)
}

// RedriveAll delivers a session's dead letters again, in order, until one meets
// a failure that is not a refusal. It returns how many were taken, and the last
// refusal if there was one.
func (q *Queue) RedriveAll(ctx context.Context) (taken int, err error) {
	var last error
	for after := ""; ; {
		letters, more, err := Dead(ctx, q.d.cfg.Records, q.s.Name, after, batchEvents)
		if err != nil {
			return taken, err
		}
		for _, dl := range letters {
			after = state.DeadID(dl.Seq, dl.Sink)
			err := q.Redrive(ctx, after)
			var refused *Refused
			switch {
			case err == nil:
				taken++
			case errors.As(err, &refused), errors.Is(err, ErrNoSink), errors.Is(err, state.ErrCorrupt), errors.Is(err, state.ErrNotFound):
				last = err
			default:
				return taken, err
			}
		}
		if !more || len(letters) == 0 {
			return taken, last
		}
	}
}

func (q *Queue) sink(name string) Sink {
	q.d.mu.Lock()
	defer q.d.mu.Unlock()
	for _, l := range q.lanes {
		if l.sink.Name() == name {
			return l.sink
		}
	}
	return nil
}
