package device

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// ErrMoved says that an export took the session to another store.
var ErrMoved = errors.New("it lives where its file was imported; `holdfast import` brings it back from there, " +
	"`holdfast export --take-back` if that file was imported nowhere, and `repair` pairs another device here")

// ErrHalfImported says that an import of the session was begun and not ended.
var ErrHalfImported = errors.New("run `holdfast import` with the same file again, or pair anew with `repair`")

// ErrNotMoved says that a session is not marked as moved.
var ErrNotMoved = errors.New("the session was not exported from this store")

// away tells whether META says that the credentials are not to be opened here.
func away(m state.Meta) *StaleError {
	switch {
	case m.Moved != nil:
		to := ""
		if m.Moved.To != "" {
			to = " (" + m.Moved.To + ")"
		}
		return &StaleError{fmt.Sprintf("moved to another store by an export at %s%s", m.Moved.At.UTC().Format(time.RFC3339), to), ErrMoved}
	case m.Imported != nil && !m.Imported.Done:
		return &StaleError{fmt.Sprintf("an import was begun at %s and did not end", m.Imported.At.UTC().Format(time.RFC3339)), ErrHalfImported}
	}
	return nil
}

// TakeBack makes the credentials that an export has retired the session's again
// and removes its mark. Whoever asks for it knows that the exported copy was
// imported nowhere: two live copies throw each other out and break their keys.
// ErrNotMoved if there is no mark, ErrNothingToRestore if the time to keep the
// credentials is over. extra is committed with it.
func TakeBack(ctx context.Context, cfg Config, extra journal.Batch) error {
	if err := cfg.fill(); err != nil {
		return err
	}
	return updateMeta(ctx, cfg, &extra, func(m *state.Meta) error {
		switch {
		case m.Moved == nil:
			return ErrNotMoved
		case m.Credential != nil: // the export had not retired them yet
			m.Moved = nil
			return nil
		}
		i := slices.IndexFunc(m.Quarantined, func(q state.QuarantinedSet) bool {
			return q.Cause == state.CauseMoved && q.Until.After(cfg.Now())
		})
		if i < 0 {
			return ErrNothingToRestore
		}
		q := m.Quarantined[i]
		m.Credential, m.Keyset, m.KeysetID, m.Moved = &q.Credential, q.Keyset, q.KeysetID, nil
		m.Quarantined = slices.Delete(m.Quarantined, i, i+1)
		return nil
	})
}

// GiveUp removes the mark of an export or of a half import, so that the session
// can be paired anew, and cancels the messages that went along. It does nothing where there is no mark, and
// leaves the mark beside credentials that an export has not retired yet: Destroy
// takes both.
func GiveUp(ctx context.Context, cfg Config) error {
	if err := cfg.fill(); err != nil {
		return err
	}
	m, _, err := readMeta(ctx, cfg.Store, state.OfSession(cfg.Session))
	switch {
	case errors.Is(err, state.ErrCorrupt):
		return nil // there is no telling, and Open says so
	case err != nil || away(m) == nil:
		return err
	}
	for attempt := 0; ; attempt++ {
		err := cancelOutbox(ctx, cfg)
		if err == nil {
			break
		}
		if !errors.Is(err, state.ErrConflict) || attempt == 3 {
			return fmt.Errorf("cancelling what is left to send: %w", err)
		}
	}
	return updateMeta(ctx, cfg, nil, func(m *state.Meta) error {
		if m.Moved != nil && m.Credential != nil {
			return nil
		}
		m.Moved = nil
		if m.Imported != nil && !m.Imported.Done {
			m.Imported, m.Credential, m.Keyset, m.KeysetID = nil, nil, nil, ""
		}
		return nil
	})
}

// cancelOutbox cancels the messages that the moved copy has to send.
func cancelOutbox(ctx context.Context, cfg Config) error {
	var due []state.Write
	commit := func() error {
		b := journal.Batch{Writes: due}
		due = nil
		return cfg.Journal.Commit(ctx, b)
	}
	err := eachRecord(ctx, cfg.Store, state.OfSession(cfg.Session), []state.Kind{state.KindOutbox}, func(r state.Record) error {
		var item state.Outbox
		if state.Decode(r.Value, &item) != nil || item.Code != state.CodeMoved || item.State != state.OutQueued && item.State != state.OutSending {
			return nil
		}
		item.State, item.ChangedAt = state.OutCancelled, cfg.Now().UTC()
		item.Problem = "the session was moved to another store, and this message with it"
		value, err := state.Encode(item)
		if err != nil {
			return err
		}
		w := state.Put(state.KindOutbox, r.Key.ID, value)
		w.Rev, w.If, w.Expires = r.Rev+1, state.AtRev(r.Rev), cfg.Now().Add(cancelledKept)
		if due = append(due, w); len(due) == state.MaxItems {
			return commit()
		}
		return nil
	})
	if err != nil || len(due) == 0 {
		return err
	}
	return commit()
}

// cancelledKept is how long a cancelled message can be looked up.
const cancelledKept = 7 * 24 * time.Hour
