package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/media"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// clearOut removes what the session has here of an earlier life and what the file
// brings anew: records of this keyset and of keysets that nobody holds, events,
// cursors and dead letters, and the messages that had gone along. Messages that
// were queued here since stay.
func (x *importing) clearOut() error {
	m, _, err := readMeta(x.m.ctx, x.cfg.Store, x.p)
	if err != nil {
		return err
	}
	kept := make(map[string]bool)
	for _, q := range m.Quarantined {
		kept[q.KeysetID] = true
	}
	for _, kind := range device.Kinds() {
		err := x.remove(kind, func(r state.Record) bool {
			keyset, _, _ := strings.Cut(r.Key.ID, ".")
			return !kept[keyset]
		})
		if err != nil {
			return err
		}
	}
	for _, kind := range []state.Kind{state.KindEvent, state.KindCursor, state.KindDead} {
		if err := x.remove(kind, func(state.Record) bool { return true }); err != nil {
			return err
		}
	}
	return x.remove(state.KindOutbox, func(r state.Record) bool {
		var item state.Outbox
		return state.Decode(r.Value, &item) == nil && item.Code == state.CodeMoved
	})
}

func (x *importing) remove(kind state.Kind, which func(state.Record) bool) error {
	err := eachRecord(x.m.ctx, x.cfg.Store, x.p, kind, "", func(r state.Record) error {
		if !which(r) {
			return nil
		}
		return x.add(state.Del(kind, r.Key.ID))
	})
	if err != nil {
		return err
	}
	return x.flush()
}

// add writes with others, in commits within the bounds.
func (x *importing) add(w state.Write) error {
	if len(x.batch) == state.MaxItems || x.size+weight(w) > maxBatch {
		if err := x.flush(); err != nil {
			return err
		}
	}
	x.batch = append(x.batch, w)
	x.size += weight(w)
	return nil
}

func (x *importing) flush() error {
	if len(x.batch) == 0 {
		return nil
	}
	err := x.m.commit(x.batch...)
	x.batch, x.size = nil, 0
	return err
}

// putObject puts an object into the vault. One that is there already, from a run
// that was broken off or from an earlier life here, is kept if it is the same.
func (x *importing) putObject(o object) error {
	x.report.Objects++
	if o.Event != "" {
		sealed, err := x.cfg.Fleet.Seal(seal.Place{Partition: x.p, Kind: state.KindEvent, ID: o.Event}, o.Body)
		if err != nil {
			return err
		}
		o.Body = sealed
	}
	if o.Media != "" {
		sealed, err := x.cfg.Fleet.Seal(media.ObjectPlace(x.head.Session, o.Media), o.Body)
		if err != nil {
			return err
		}
		o.Body = sealed
	}
	version, err := retry(x.m, func(ctx context.Context) (string, error) {
		version, err := x.cfg.Vault.PutObject(ctx, x.head.Session, o.Name, o.Body)
		if !errors.Is(err, state.ErrExists) {
			return version, err
		}
		there, err := x.cfg.Vault.GetObject(ctx, x.head.Session, o.Name, "")
		switch {
		case err == nil && bytes.Equal(there, o.Body):
			return "", nil
		case err != nil && !errors.Is(err, state.ErrNotFound) && !errors.Is(err, state.ErrCorrupt):
			return "", err
		}
		if err := x.cfg.Vault.DeleteObject(ctx, x.head.Session, o.Name, ""); err != nil {
			return "", err
		}
		return x.cfg.Vault.PutObject(ctx, x.head.Session, o.Name, o.Body)
	})
	if err != nil {
		return fmt.Errorf("putting an object into the vault: %w", err)
	}
	x.versions[o.Name] = version
	if o.Event != "" {
		sum := sha256.Sum256(o.Body)
		x.large[o.Name] = state.LargeEvent{Name: o.Name, VersionID: version, SHA256: hex.EncodeToString(sum[:])}
	}
	return nil
}

// repointed is the record of an upload with the version of its object in this vault.
func (x *importing) repointed(value []byte) ([]byte, error) {
	var m state.Media
	if err := state.Decode(value, &m); err != nil {
		return nil, err
	}
	m.VersionID = x.versions[m.Object]
	return state.Encode(m)
}

func (x *importing) putRecord(r record) error {
	w, err := x.sealed(r)
	if err != nil {
		return err
	}
	name, _, ok, err := device.ObjectOf(w.Record)
	if err != nil {
		return err
	}
	if w.Key.Kind.DeviceState() && ok {
		version, there := x.versions[name]
		if !there {
			return fileError(x.Path, fmt.Errorf("%w: the object of a record is missing", ErrDamaged), "export the session once more")
		}
		if w.Value, err = device.Repointed(w.Record, version); err != nil {
			return err
		}
	}
	if w.Key.Kind == state.KindMedia {
		if w.Value, err = x.repointed(w.Value); err != nil {
			return err
		}
	}
	x.report.Records++
	switch w.Key.Kind {
	case state.KindEvent:
		x.report.Events++
	case state.KindOutbox:
		var item state.Outbox
		if state.Decode(w.Value, &item) == nil && unsent(item) {
			x.report.Unsent++
		}
	}
	return x.add(w)
}
