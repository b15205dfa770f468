package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// ExportConfig says what to export, and whither. Session, Path and Lock are
// required.
type ExportConfig struct {
	Session string
	Path    string // of the file
	Lock    Lock
	To      string // whither it goes, in the operator's words
	Again   bool   // also if the export has ended before: the file was lost
}

// Report says what an export or an import has moved.
type Report struct {
	Session string    `json:"session"`
	ID      string    `json:"id"` // of the export
	At      time.Time `json:"at"` // of the export
	Records int       `json:"records"`
	Objects int       `json:"objects"`
	Events  int       `json:"events"`   // history included
	Unsent  int       `json:"unsent"`   // messages to send
	Left    int       `json:"left"`     // messages that came too late for the file, and stay
	Unread  int       `json:"unread"`   // events and messages that could not be opened, and came along as such
	Size    int64     `json:"fileSize"` // bytes
}

// Export writes a session into a sealed file and marks it as moved: from then on
// nobody here connects with its credentials. An export that was broken off is run
// again in the same way, and has the same id.
//
// ErrNotPaired if there is nothing to move, ErrMoved if that was done before
// (see ExportConfig.Again), ErrBusy if its worker does not give it up, ErrThere
// if another file has the name.
func Export(ctx context.Context, cfg Config, ex ExportConfig) (Report, error) {
	if err := cfg.fill(); err != nil {
		return Report{}, err
	}
	if len(ex.Lock.recipients) == 0 || ex.Path == "" || ex.Session == "" {
		return Report{}, errors.New("transfer: session, file and what to seal it for are required")
	}
	x := &export{ExportConfig: ex, cfg: cfg, p: state.OfSession(ex.Session)}
	m, _, err := readMeta(ctx, cfg.Store, x.p)
	if err != nil {
		return Report{}, fmt.Errorf("session %s: %w", ex.Session, err)
	}
	if _, err := cfg.Store.Owner(ctx, ex.Session); err != nil {
		return Report{}, err
	}
	if err := x.check(m); err != nil { // before anybody is disturbed
		return Report{}, err
	}
	if err := x.nameFree(m); err != nil {
		return Report{}, err
	}
	x.m, err = join(ctx, cfg)
	if err != nil {
		return Report{}, err
	}
	err = x.run()
	if left := x.m.leave(); err == nil && left != nil {
		cfg.Log.Warn("the session was exported and not released; its next owner waits a moment", "session", ex.Session, "error", left)
	}
	return x.report, err
}

// export is one run of Export.
type export struct {
	ExportConfig
	cfg    Config
	p      state.Partition
	m      *member
	along  map[string]bool // ids of the messages to send that are in the file
	report Report

	replace bool // the file that is there is of this export
}

// check tells whether the session can be exported.
func (x *export) check(m state.Meta) error {
	_, _, err := x.source(m)
	return err
}

// source is what holds the credentials: META itself, or, where they have been
// retired by this export already, a quarantined set.
func (x *export) source(m state.Meta) (state.QuarantinedSet, bool, error) {
	switch {
	case m.Imported != nil && !m.Imported.Done:
		return state.QuarantinedSet{}, false, fmt.Errorf("session %s: an import of it was begun and did not end; end that first", x.Session)
	case m.Credential != nil:
		return state.QuarantinedSet{Credential: *m.Credential, Keyset: m.Keyset, KeysetID: m.KeysetID}, false, nil
	case m.Moved == nil:
		return state.QuarantinedSet{}, false, fmt.Errorf("session %s: %w", x.Session, ErrNotPaired)
	case !x.Again:
		return state.QuarantinedSet{}, true, fmt.Errorf("session %s: %w at %s; with --again the same file is written once more, if the first one was lost",
			x.Session, ErrMoved, m.Moved.At.UTC().Format(time.RFC3339))
	}
	i := slices.IndexFunc(m.Quarantined, func(q state.QuarantinedSet) bool {
		return q.Cause == state.CauseMoved && q.Until.After(x.cfg.Now())
	})
	if i < 0 {
		return state.QuarantinedSet{}, true, fmt.Errorf("session %s: %w at %s, and its credentials are not kept here any more; pair it anew with `repair`",
			x.Session, ErrMoved, m.Moved.At.UTC().Format(time.RFC3339))
	}
	return m.Quarantined[i], true, nil
}

// nameFree refuses a file that is there, unless it is of this very export.
func (x *export) nameFree(m state.Meta) error {
	id, err := fileID(x.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && m.Moved != nil && m.Moved.ID == id:
		x.replace = true
		return nil
	}
	return fileError(x.Path, ErrThere, "name another")
}

func (x *export) run() error {
	if err := x.m.own(x.Session); err != nil {
		return err
	}
	j, err := journal.Open(x.m.ctx, journal.Config{Store: x.cfg.Store, Fence: x.m.owned.Fence(), Fleet: x.cfg.Fleet, Now: x.cfg.Now, Retry: x.cfg.Trust / 2})
	if err != nil {
		return x.m.failure(err)
	}
	defer j.Close()
	meta, _, err := readMeta(x.m.ctx, x.cfg.Store, x.p)
	if err != nil {
		return x.m.failure(err)
	}
	set, retired, err := x.source(meta)
	if err != nil {
		return err
	}
	keys, err := x.keys(set)
	if err != nil {
		return x.m.failure(err)
	}
	status, err := x.status()
	if err != nil {
		return x.m.failure(err)
	}
	mark, err := x.mark(j, &status)
	if err != nil {
		return x.m.failure(fmt.Errorf("marking the session as moved: %w", err))
	}
	x.report = Report{Session: x.Session, ID: mark.ID, At: mark.At}
	if err := j.Flush(x.m.ctx); err != nil { // what was waiting belongs into the file
		return x.m.failure(err)
	}
	if err := x.write(set, keys, meta.PreKeyHigh, mark, status); err != nil {
		return fmt.Errorf("%w (the session is marked as moved and nobody connects: run it again, or take it back with --take-back)", x.m.failure(err))
	}
	if retired {
		return nil
	}
	if err := x.retire(j, status); err != nil {
		return fmt.Errorf("the file is written, and the credentials here are not retired yet: %w; run it again", x.m.failure(err))
	}
	if x.report.Left, err = x.leftOver(); err != nil {
		x.cfg.Log.Warn("messages that came too late for the file were not counted", "session", x.Session, "error", err)
	}
	return nil
}

// keys unwraps the keyset and sees that the credentials are whole: what cannot be
// used is not worth a move.
func (x *export) keys(set state.QuarantinedSet) (*seal.Keyset, error) {
	k, err := retry(x.m, func(ctx context.Context) (*seal.Keyset, error) {
		return seal.Unwrap(ctx, x.cfg.Master, x.p, set.Keyset)
	})
	if err != nil {
		return nil, err
	}
	body, err := x.object(set.Credential.Name, set.Credential.VersionID)
	if err != nil {
		return nil, fmt.Errorf("session %s: its credentials cannot be read: %w; look with `sessions verify`", x.Session, err)
	}
	return k, device.CheckCredential(x.Session, k, set.Credential, body)
}

func (x *export) object(name, version string) ([]byte, error) {
	return retry(x.m, func(ctx context.Context) ([]byte, error) {
		return x.cfg.Vault.GetObject(ctx, x.Session, name, version)
	})
}

// status reads the session's status; an empty one if there is none.
func (x *export) status() (state.Status, error) {
	r, err := x.cfg.Store.Get(x.m.ctx, x.p, state.Key{Kind: state.KindStatus})
	if errors.Is(err, state.ErrNotFound) {
		return state.Status{V: state.Format}, nil
	} else if err != nil {
		return state.Status{}, err
	}
	var st state.Status
	return st, state.Decode(r.Value, &st)
}

// mark puts the mark, with the event that tells of it, before anything is read:
// from here on no owner opens the credentials. A mark that is there is gone on
// with.
func (x *export) mark(j *journal.Journal, st *state.Status) (state.MovedMark, error) {
	now := x.cfg.Now().UTC()
	mark := state.MovedMark{ID: newID(), At: now, To: x.To, State: st.State, Cause: st.Cause, Code: st.Code}
	there := false
	err := updateMeta(x.m.ctx, x.cfg.Store, j, x.p, func(m *state.Meta) (journal.Batch, error) {
		if m.Moved != nil {
			mark, there = *m.Moved, true
			return journal.Batch{}, nil
		}
		m.Moved = &mark
		shown := *st
		shown.State, shown.Cause, shown.Code, shown.Since, shown.Holding = state.Stopped, state.CauseMoved, 0, now, false
		shown.Decision = "park: cause moved; an export took the session to another store"
		w, err := statusWrite(shown)
		return journal.Batch{Writes: []state.Write{w}, Events: []journal.Draft{{Type: state.EventState, Data: map[string]any{
			"state": shown.State, "previous": st.State, "cause": shown.Cause, "code": 0, "since": now, "attempt": st.Attempt, "paired": st.Paired}}}}, err
	})
	if err != nil || !there {
		return mark, err
	}
	// The status is the one that the mark came with.
	st.State, st.Cause, st.Code = mark.State, mark.Cause, mark.Code
	return mark, nil
}

// retire takes the credentials out of use at the source, in the commit that says
// that the export has ended.
func (x *export) retire(j *journal.Journal, st state.Status) error {
	if err := x.detach(j); err != nil {
		return err
	}
	now := x.cfg.Now()
	return updateMeta(x.m.ctx, x.cfg.Store, j, x.p, func(m *state.Meta) (journal.Batch, error) {
		if m.Moved == nil {
			return journal.Batch{}, fmt.Errorf("%w: the mark is gone", state.ErrConflict)
		}
		m.Moved.Done = true
		if m.Credential != nil && x.cfg.Quarantine > 0 {
			m.Quarantined = append(m.Quarantined, state.QuarantinedSet{Credential: *m.Credential, Keyset: m.Keyset,
				KeysetID: m.KeysetID, Cause: state.CauseMoved, At: now, Until: now.Add(x.cfg.Quarantine)})
		}
		m.Credential, m.Keyset, m.KeysetID = nil, nil, ""
		shown := st
		shown.State, shown.Cause, shown.Code, shown.Since = state.Stopped, state.CauseMoved, 0, m.Moved.At
		shown.Holding, shown.Paired = false, false
		shown.Decision = "park: cause moved; an export took the session to another store"
		w, err := statusWrite(shown)
		if err != nil {
			return journal.Batch{}, err
		}
		audit, err := auditWrite(x.cfg, "export", "paired", "moved, export "+m.Moved.ID)
		return journal.Batch{Writes: []state.Write{w, audit}}, err
	})
}

// detach takes the messages that went along out of the index of what is to be
// sent, so that they are not sent from here as well.
func (x *export) detach(j *journal.Journal) error {
	return eachUnsent(x.m.ctx, x.cfg.Store, j, x.p, func(item *state.Outbox, w *state.Write) bool {
		if item.Code == state.CodeMoved || !x.along[w.Key.ID] {
			return false
		}
		item.Code, item.Problem = state.CodeMoved, "the session was moved to another store, and this message with it"
		w.Index = ""
		return true
	})
}

// leftOver counts the messages that were queued after the file had been written.
func (x *export) leftOver() (int, error) {
	n := 0
	err := eachRecord(x.m.ctx, x.cfg.Store, x.p, state.KindOutbox, "", func(r state.Record) error {
		var item state.Outbox
		if err := state.Decode(r.Value, &item); err == nil && unsent(item) && item.Code != state.CodeMoved {
			n++
		}
		return nil
	})
	return n, err
}

func statusWrite(st state.Status) (state.Write, error) {
	st.V = state.Format
	value, err := state.Encode(st)
	return state.Put(state.KindStatus, "", value), err
}

func auditWrite(cfg Config, action, before, after string) (state.Write, error) {
	now := cfg.Now().UTC()
	value, err := state.Encode(state.Audit{V: state.Format, At: now, By: cfg.By, Role: "admin", Action: action, Before: before, After: after})
	return state.Put(state.KindAudit, now.Format("2006-01-02T15:04:05.000Z")+"#"+newID(), value), err
}
