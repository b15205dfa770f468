package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// tries is how often a change is made again when another writer was faster.
const tries = 5

// readMeta reads META and the condition that it has not changed since; an empty
// one if there is none.
func readMeta(ctx context.Context, store state.Records, p state.Partition) (state.Meta, state.Record, error) {
	r, err := store.Get(ctx, p, state.Key{Kind: state.KindMeta})
	if errors.Is(err, state.ErrNotFound) {
		return state.Meta{V: state.Format}, state.Record{}, nil
	} else if err != nil {
		return state.Meta{}, r, err
	}
	var m state.Meta
	if err := state.Decode(r.Value, &m); err != nil {
		return m, r, fmt.Errorf("META: %w", err)
	}
	return m, r, nil
}

// metaWrite is the write of a META that was read as r.
func metaWrite(m state.Meta, r state.Record) (state.Write, error) {
	m.V = state.Format
	value, err := state.Encode(m)
	w := state.Put(state.KindMeta, "", value)
	w.Rev, w.If = r.Rev+1, state.AtRev(r.Rev)
	if r.Key.Kind == "" {
		w.If = state.Absent()
	}
	return w, err
}

// updateMeta changes META, together with what change returns, in one fenced
// commit, if nobody has changed it meanwhile; else it starts over.
func updateMeta(ctx context.Context, store state.Records, j *journal.Journal, p state.Partition, change func(*state.Meta) (journal.Batch, error)) error {
	for n := 1; ; n++ {
		m, r, err := readMeta(ctx, store, p)
		if err != nil {
			return err
		}
		b, err := change(&m)
		if err != nil {
			return err
		}
		w, err := metaWrite(m, r)
		if err != nil {
			return err
		}
		b.Writes = append(b.Writes, w)
		if err := j.Commit(ctx, b); !errors.Is(err, state.ErrConflict) || n == tries {
			return err
		}
	}
}

// eachRecord reads all records of a kind whose id begins with prefix.
func eachRecord(ctx context.Context, store state.Records, p state.Partition, kind state.Kind, prefix string, do func(state.Record) error) error {
	q := state.Query{Kind: kind, Prefix: prefix}
	for {
		page, err := store.Query(ctx, p, q)
		if err != nil {
			return err
		}
		for _, r := range page.Records {
			if err := do(r); err != nil {
				return err
			}
			q.After = r.Key.ID
		}
		if !page.More || len(page.Records) == 0 {
			return nil
		}
	}
}

func unsent(item state.Outbox) bool {
	return item.State == state.OutQueued || item.State == state.OutSending
}

// eachUnsent changes messages that are to be sent, in commits of at most
// state.MaxItems. change says which; it alters the item and the write's index. What
// somebody changes meanwhile is read again.
func eachUnsent(ctx context.Context, store state.Records, j *journal.Journal, p state.Partition, change func(*state.Outbox, *state.Write) bool) error {
	for n := 1; ; n++ {
		err := unsentOnce(ctx, store, j, p, change)
		if !errors.Is(err, state.ErrConflict) || n == tries {
			return err
		}
	}
}

func unsentOnce(ctx context.Context, store state.Records, j *journal.Journal, p state.Partition, change func(*state.Outbox, *state.Write) bool) error {
	var batch []state.Write
	size := 0
	commit := func() error {
		b := journal.Batch{Writes: batch}
		batch, size = nil, 0
		if b.Empty() {
			return nil
		}
		return j.Commit(ctx, b)
	}
	err := eachRecord(ctx, store, p, state.KindOutbox, "", func(r state.Record) error {
		var item state.Outbox
		if state.Decode(r.Value, &item) != nil || !unsent(item) {
			return nil
		}
		w := state.Write{Record: r, If: state.AtRev(r.Rev)}
		if !change(&item, &w) {
			return nil
		}
		var err error
		if w.Value, err = state.Encode(item); err != nil {
			return err
		}
		w.Rev = r.Rev + 1
		if n := weight(w); len(batch) == state.MaxItems || size+n > maxBatch {
			if err := commit(); err != nil {
				return err
			}
		}
		batch = append(batch, w)
		size += weight(w)
		return nil
	})
	if err != nil {
		return err
	}
	return commit()
}

// maxBatch is how many bytes go into one commit.
const maxBatch = state.MaxBytes / 4 * 3

func weight(w state.Write) int { return len(w.Key.String()) + len(w.Value) }
