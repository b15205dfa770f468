// Package media keeps uploads that wait to be sent: the bytes sealed in the
// vault, and a record MED#id that says where, and which messages still need them.
//
//	Put ── object, then record ──► Named (a message needs it) ──► Released ── record, then object
//
// A process that dies between the two leaves an object that no record points to,
// which the session's owner sweeps up after an hour. The record is written by the
// admin side and by the owner, each conditionally on what it read.
package media

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// Unused is how long an upload is kept that no message names.
const Unused = 24 * time.Hour

// tries is how often a record is changed again when somebody else was faster.
const tries = 8

// Shelf is where uploads are kept. All fields are required.
type Shelf struct {
	Store state.Records
	Vault interface {
		PutObject(ctx context.Context, session, name string, body []byte) (versionID string, err error)
		GetObject(ctx context.Context, session, name, versionID string) ([]byte, error)
		DeleteObject(ctx context.Context, session, name, versionID string) error
	}
	Fleet interface {
		Seal(p seal.Place, plaintext []byte) ([]byte, error)
		Open(p seal.Place, sealed []byte) ([]byte, error)
	}
}

// Write is how the caller writes: the admin side by Store.Update, the owner by a
// fenced commit.
type Write func(ctx context.Context, writes []state.Write) error

// Stored is an upload as it is kept.
type Stored struct {
	state.Media
	Info state.MediaInfo
	Rev  uint64
}

// ObjectPlace is what the object of an upload is sealed for.
func ObjectPlace(session, id string) seal.Place {
	return seal.Place{Partition: state.OfSession(session), Kind: state.KindMedia, ID: "object/" + id}
}

func recordPlace(session, id string) seal.Place {
	return seal.Place{Partition: state.OfSession(session), Kind: state.KindMedia, ID: id}
}

// Put stores the bytes of an upload in the vault and returns it with the write of
// its record, which the caller makes: before that it does not exist. stamp is a
// new ULID, which the object is named by.
func (s Shelf) Put(ctx context.Context, session, id, stamp string, info state.MediaInfo, data []byte, now, keepUntil time.Time) (Stored, state.Write, error) {
	sum := sha256.Sum256(data)
	info.SHA256 = hex.EncodeToString(sum[:])
	m := Stored{Info: info, Rev: 1, Media: state.Media{V: state.Format, ID: id, Object: state.MediaPrefix + strings.ToLower(stamp),
		Size: int64(len(data)), At: now, KeepUntil: keepUntil}}
	plain, err := json.Marshal(info)
	if err != nil {
		return m, state.Write{}, err
	}
	if m.Sealed, err = s.Fleet.Seal(recordPlace(session, id), plain); err != nil {
		return m, state.Write{}, err
	}
	sealed, err := s.Fleet.Seal(ObjectPlace(session, id), data)
	if err != nil {
		return m, state.Write{}, err
	}
	if m.VersionID, err = s.Vault.PutObject(ctx, session, m.Object, sealed); err != nil {
		return m, state.Write{}, fmt.Errorf("storing the upload: %w", err)
	}
	w, err := m.write(0)
	w.If = state.Absent()
	return m, w, err
}

// Forget removes the object of an upload whose record was not written.
func (s Shelf) Forget(ctx context.Context, session string, m Stored) {
	_ = s.Vault.DeleteObject(ctx, session, m.Object, m.VersionID) // else the owner sweeps it up
}

// write makes the write of the record as it is now, conditional on the given
// revision. One that no message needs expires.
func (m Stored) write(rev uint64) (state.Write, error) {
	value, err := state.Encode(m.Media)
	if err != nil {
		return state.Write{}, err
	}
	w := state.Put(state.KindMedia, m.ID, value)
	w.Rev, w.If = rev+1, state.AtRev(rev)
	if len(m.Messages) == 0 {
		w.Expires = m.Expires()
	}
	return w, nil
}

// Expires is when an upload goes that no message needs.
func (m Stored) Expires() time.Time {
	if at := m.At.Add(Unused); m.KeepUntil.Before(at) {
		return at
	}
	return m.KeepUntil
}

// Get reads an upload without its bytes. ErrNotFound if there is none.
func (s Shelf) Get(ctx context.Context, session, id string) (Stored, error) {
	r, err := s.Store.Get(ctx, state.OfSession(session), state.Key{Kind: state.KindMedia, ID: id})
	if err != nil {
		if errors.Is(err, state.ErrNotFound) {
			return Stored{}, fmt.Errorf("upload %q of %q: %w", id, session, state.ErrNotFound)
		}
		return Stored{}, err
	}
	return s.Read(session, r)
}

// Read opens the record of an upload.
func (s Shelf) Read(session string, r state.Record) (Stored, error) {
	m := Stored{Rev: r.Rev}
	if err := state.Decode(r.Value, &m.Media); err != nil {
		return m, fmt.Errorf("upload %q of %q: %w", r.Key.ID, session, err)
	}
	plain, err := s.Fleet.Open(recordPlace(session, r.Key.ID), m.Sealed)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(plain, &m.Info); err != nil {
		return m, fmt.Errorf("%w: upload %q of %q", state.ErrCorrupt, r.Key.ID, session)
	}
	return m, nil
}

// Open reads the bytes of an upload. Errors wrap state.ErrNotFound where it is
// gone, state.ErrCorrupt where it was altered; any other may pass.
func (s Shelf) Open(ctx context.Context, session, id string) (Stored, []byte, error) {
	m, err := s.Get(ctx, session, id)
	if err != nil {
		return m, nil, err
	}
	sealed, err := s.Vault.GetObject(ctx, session, m.Object, m.VersionID)
	if err != nil {
		return m, nil, err
	}
	data, err := s.Fleet.Open(ObjectPlace(session, id), sealed)
	if err != nil {
		return m, nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != m.Info.SHA256 {
		return m, nil, fmt.Errorf("%w: upload %q of %q is not what was uploaded", state.ErrCorrupt, id, session)
	}
	return m, data, nil
}

// Name is the write by which a message says that it needs the upload. It goes
// with the message's own record, in one. ErrTooLarge: too many need it already.
func (m Stored) Name(message string) (state.Write, error) {
	if slices.Contains(m.Messages, message) {
		return m.write(m.Rev)
	}
	if len(m.Messages) >= state.MaxMediaMessages {
		return state.Write{}, fmt.Errorf("%w: upload %s is named by %d messages that are not sent yet", state.ErrTooLarge, m.ID, len(m.Messages))
	}
	m.Messages = append(slices.Clone(m.Messages), message)
	return m.write(m.Rev)
}

// Release says that a message needs the upload no more. When none does, and its
// time is over, the upload is removed. That it is gone already is no error.
func (s Shelf) Release(ctx context.Context, session, id, message string, now time.Time, write Write) error {
	return s.change(ctx, session, id, now, write, func(m *Stored) bool {
		before := len(m.Messages)
		m.Messages = slices.DeleteFunc(m.Messages, func(other string) bool { return other == message })
		return len(m.Messages) != before
	})
}

// Settle is Release for all messages of which needed says that they do not need
// the upload any more: after a process died before it could say so itself.
func (s Shelf) Settle(ctx context.Context, session, id string, now time.Time, write Write, needed func(message string) bool) error {
	return s.change(ctx, session, id, now, write, func(m *Stored) bool {
		before := len(m.Messages)
		m.Messages = slices.DeleteFunc(m.Messages, func(message string) bool { return !needed(message) })
		return len(m.Messages) != before
	})
}

// Remove removes an upload, whoever needs it.
func (s Shelf) Remove(ctx context.Context, session, id string, write Write) error {
	return s.change(ctx, session, id, time.Time{}, write, func(m *Stored) bool {
		m.Messages, m.KeepUntil = nil, time.Time{}
		return true
	})
}

// change changes the record, or removes record and object where nobody needs it
// any more. The zero now means that its time is over.
func (s Shelf) change(ctx context.Context, session, id string, now time.Time, write Write, apply func(*Stored) bool) error {
	var err error
	for range tries {
		m, getErr := s.Get(ctx, session, id)
		switch {
		case errors.Is(getErr, state.ErrNotFound):
			return nil
		case getErr != nil && !errors.Is(getErr, state.ErrCorrupt):
			return getErr
		}
		if !apply(&m) {
			return nil
		}
		gone := len(m.Messages) == 0 && !m.KeepUntil.After(now)
		w := state.Del(state.KindMedia, id)
		w.If = state.AtRev(m.Rev)
		if !gone {
			if w, err = m.write(m.Rev); err != nil {
				return err
			}
		}
		if err = write(ctx, []state.Write{w}); errors.Is(err, state.ErrConflict) {
			continue
		}
		if err == nil && gone && m.Object != "" {
			s.Forget(ctx, session, m)
		}
		return err
	}
	return fmt.Errorf("changing upload %s: %w", id, err)
}

// Sum is what MediaInfo.SHA256 holds of these bytes.
func Sum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
