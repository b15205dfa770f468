package transfer

import (
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// TakeBack undoes an export whose file was lost before it was imported anywhere:
// the credentials come out of the quarantine and the mark goes. Whether there is
// another copy nobody can know here: two live ones throw each other out and break
// their keys. device.ErrNotMoved if the session was not exported,
// device.ErrNothingToRestore if the quarantine is over.
func TakeBack(ctx context.Context, cfg Config, session string) error {
	if err := cfg.fill(); err != nil {
		return err
	}
	p := state.OfSession(session)
	if _, err := cfg.Store.Owner(ctx, session); err != nil {
		return err
	}
	meta, _, err := readMeta(ctx, cfg.Store, p)
	if err != nil {
		return fmt.Errorf("session %s: %w", session, err)
	}
	if meta.Moved == nil {
		return fmt.Errorf("session %s: %w", session, device.ErrNotMoved)
	}
	m, err := join(ctx, cfg)
	if err != nil {
		return err
	}
	err = m.failure(m.takeBack(session, p))
	if left := m.leave(); err == nil && left != nil {
		cfg.Log.Warn("the session was taken back and not released; its next owner waits a moment", "session", session, "error", left)
	}
	return err
}

func (m *member) takeBack(session string, p state.Partition) error {
	if err := m.own(session); err != nil {
		return err
	}
	j, err := journal.Open(m.ctx, journal.Config{Store: m.cfg.Store, Fence: m.owned.Fence(), Fleet: m.cfg.Fleet, Now: m.cfg.Now, Retry: m.cfg.Trust / 2})
	if err != nil {
		return err
	}
	defer j.Close()
	meta, _, err := readMeta(m.ctx, m.cfg.Store, p)
	if err != nil {
		return err
	}
	if meta.Moved == nil {
		return fmt.Errorf("session %s: %w", session, device.ErrNotMoved)
	}
	rec, err := m.cfg.Store.Get(m.ctx, p, state.Key{Kind: state.KindStatus})
	if err != nil {
		return err
	}
	var st state.Status
	if err := state.Decode(rec.Value, &st); err != nil {
		return fmt.Errorf("STATUS: %w", err)
	}
	st.State, st.Cause, st.Code, st.Paired, st.Holding = meta.Moved.State, meta.Moved.Cause, meta.Moved.Code, true, false
	st.Since, st.Decision = m.cfg.Now().UTC(), "taken back"
	if st.Cause == state.CauseNone {
		st.State = state.Connecting
	}
	status, err := statusWrite(st)
	if err != nil {
		return err
	}
	audit, err := auditWrite(m.cfg, "take-back", "moved, export "+meta.Moved.ID, "paired")
	if err != nil {
		return err
	}
	if meta.Credential == nil && !slices.ContainsFunc(meta.Quarantined, func(q state.QuarantinedSet) bool {
		return q.Cause == state.CauseMoved && q.Until.After(m.cfg.Now())
	}) {
		return fmt.Errorf("session %s: %w", session, device.ErrNothingToRestore)
	}
	// Before the credentials: nothing is sent while the mark stands, and a run that
	// is broken off after it would not be let in again.
	err = eachUnsent(m.ctx, m.cfg.Store, j, p, func(item *state.Outbox, w *state.Write) bool {
		if item.Code != state.CodeMoved {
			return false
		}
		item.Code, item.Problem = "", ""
		w.Index = state.OutboxDue(session)
		return true
	})
	if err != nil {
		return err
	}
	c := device.Config{Journal: j, Store: m.cfg.Store, Vault: m.cfg.Vault, Master: m.cfg.Master, Session: session, Now: m.cfg.Now, Log: m.cfg.Log}
	if err := device.TakeBack(m.ctx, c, journal.Batch{Writes: []state.Write{status, audit}}); err != nil {
		return fmt.Errorf("session %s: %w", session, err)
	}
	return nil
}
