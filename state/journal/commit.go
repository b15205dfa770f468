package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// take waits for the turn to commit.
func (j *Journal) take(ctx context.Context) error {
	if err := j.Err(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-j.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := j.Err(); err != nil {
		j.pass()
		return err
	}
	return nil
}

func (j *Journal) pass() { j.turn <- struct{}{} }

// commit runs in the turn.
func (j *Journal) commit(ctx context.Context, b Batch) error {
	now := j.cfg.Now()
	events, stored, err := j.number(ctx, b.Events, now)
	if err != nil {
		return j.fail(err)
	}
	writes := make([]state.Write, 0, len(b.Writes)+len(stored)+4)
	writes = append(append(writes, b.Writes...), stored...)
	if err := state.Check(writes, true); err != nil {
		return j.fail(err)
	}
	conditional := false
	for i := range writes {
		conditional = conditional || !writes[i].If.Always()
	}
	writes, superseded := j.board(writes)

	if err := j.store(ctx, writes); err != nil {
		if errors.Is(err, state.ErrConflict) && conditional {
			j.unboard(superseded)
			return err
		}
		return j.fail(err)
	}
	j.mu.Lock()
	j.flying = nil
	gone := j.replaced(writes)
	if len(events) > 0 {
		j.seq = events[len(events)-1].Seq
		if j.first.IsZero() {
			j.first = now
		}
		if j.head.at.IsZero() || now.Sub(j.head.at) >= time.Hour || j.seq-j.head.seq >= 1000 {
			j.markHead(now)
		}
		for i, e := range events {
			j.recent.add(e.Seq, stored[i])
		}
	}
	j.mu.Unlock()
	if len(events) > 0 && j.cfg.Committed != nil {
		j.cfg.Committed(events)
	}
	j.removeLarge(gone)
	return nil
}

// number turns drafts into events and their records.
func (j *Journal) number(ctx context.Context, drafts []Draft, now time.Time) ([]state.Event, []state.Write, error) {
	if len(drafts) == 0 {
		return nil, nil, nil
	}
	j.mu.Lock()
	seq, unread := j.seq, len(j.cursor) == 0
	j.mu.Unlock()
	events := make([]state.Event, len(drafts))
	writes := make([]state.Write, len(drafts))
	for i, d := range drafts {
		seq++
		data, err := json.Marshal(d.Data)
		if err != nil {
			return nil, nil, fmt.Errorf("encoding the data of a %s event: %w", d.Type, err)
		}
		if d.Time.IsZero() {
			d.Time = now
		}
		if d.ID == "" {
			d.ID = newULID(now)
		}
		events[i] = state.Event{ID: d.ID, Type: d.Type, Time: d.Time, Session: j.cfg.Fence.Session,
			Epoch: j.cfg.Fence.Epoch, Seq: seq, Data: data}
		if writes[i], err = j.fresh(ctx, events[i], now, unread); err != nil {
			return nil, nil, err
		}
	}
	return events, writes, nil
}

// store commits until the outcome is known.
func (j *Journal) store(ctx context.Context, writes []state.Write) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), j.cfg.Retry)
	defer cancel()
	token := newToken()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		err := j.cfg.Store.Commit(ctx, j.cfg.Fence, token, writes)
		if err == nil || !passing(err) {
			return err
		}
		if ctx.Err() != nil || !sleep(ctx, wait/2+rand.N(wait/2+1)) {
			if !errors.Is(err, state.ErrUnavailable) {
				err = fmt.Errorf("%w: %w", state.ErrUnavailable, err)
			}
			return fmt.Errorf("no answer within %s: %w", j.cfg.Retry, err)
		}
	}
}

// passing says that the same commit may succeed when it is tried again.
func passing(err error) bool {
	return errors.Is(err, state.ErrUnavailable) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// sleep waits for d; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// fail breaks the journal, once, and returns the error that it broke with.
func (j *Journal) fail(err error) error {
	b := &brokenError{err}
	if j.broken.CompareAndSwap(nil, b) {
		j.mu.Lock()
		if j.timer != nil {
			j.timer.Stop()
		}
		j.mu.Unlock()
		if j.cfg.Broken != nil {
			j.cfg.Broken(b)
		}
	}
	return j.broken.Load()
}
