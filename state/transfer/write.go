package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/media"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// openedKinds are the kinds of records with a part that the fleet keyset has sealed.
// They come along with all they are.
var openedKinds = []state.Kind{state.KindEvent, state.KindDead, state.KindOutbox, state.KindMedia}

// write reads everything and writes the file.
func (x *export) write(set state.QuarantinedSet, k *seal.Keyset, preKeyHigh uint32, mark state.MovedMark, st state.Status) error {
	host, _ := os.Hostname() // for people only
	h := head{V: fileFormat, Format: state.Format, ID: mark.ID, Session: x.Session, At: mark.At, From: host,
		KeysetID: set.KeysetID, Credential: set.Credential, PreKeyHigh: preKeyHigh}
	var err error
	if h.Keyset, err = k.Wrap(x.m.ctx, unwrapped{}, x.p); err != nil {
		return err
	}
	if err := x.documents(&h, st); err != nil {
		return err
	}
	w, err := newWriter(x.Path, mark.ID, x.Lock)
	if err != nil {
		return err
	}
	defer w.discard()
	if err := w.put(entry{Head: &h}); err != nil {
		return err
	}
	if err := x.putObject(w, set.Credential.Name, set.Credential.VersionID); err != nil {
		return err
	}
	for _, kind := range device.Kinds() {
		err := eachRecord(x.m.ctx, x.cfg.Store, x.p, kind, device.Prefix(set.KeysetID), func(r state.Record) error {
			return x.putDevice(w, r)
		})
		if err != nil {
			return err
		}
	}
	x.along = make(map[string]bool)
	for _, kind := range append([]state.Kind{state.KindCursor}, openedKinds...) {
		err := eachRecord(x.m.ctx, x.cfg.Store, x.p, kind, "", func(r state.Record) error { return x.putOpened(w, r) })
		if err != nil {
			return err
		}
	}
	x.report.Objects, x.report.Records = w.end.Objects, w.end.Records
	x.report.Size, err = w.publish(x.replace)
	return err
}

// documents reads spec and status into the head, with their sealed parts opened.
func (x *export) documents(h *head, st state.Status) error {
	rec, err := x.cfg.Store.Get(x.m.ctx, x.p, state.Key{Kind: state.KindSpec})
	switch {
	case errors.Is(err, state.ErrNotFound):
	case err != nil:
		return err
	default:
		var spec state.Spec
		if err := state.Decode(rec.Value, &spec); err != nil {
			return fmt.Errorf("SPEC: %w", err)
		}
		if len(spec.Settings) > 0 {
			if h.Settings, err = x.cfg.Fleet.Open(seal.Place{Partition: x.p, Kind: state.KindSpec}, spec.Settings); err != nil {
				return fmt.Errorf("SPEC: %w", err)
			}
			spec.Settings = nil
		}
		if h.Spec, err = state.Encode(spec); err != nil {
			return err
		}
	}
	if len(st.Sealed) > 0 {
		if h.Identity, err = x.cfg.Fleet.Open(seal.Place{Partition: x.p, Kind: state.KindStatus}, st.Sealed); err != nil {
			return fmt.Errorf("STATUS: %w", err)
		}
		st.Sealed = nil
	}
	st.V = state.Format
	h.Status, err = state.Encode(st)
	return err
}

// putObject writes an object of the vault as it is.
func (x *export) putObject(w *writer, name, version string) error {
	body, err := x.object(name, version)
	if err != nil {
		return fmt.Errorf("object %s in the vault: %w; look with `sessions verify`", name, err)
	}
	return w.put(entry{Object: &object{Name: name, Body: body}})
}

// putLarge writes the object of an event that is too large for its record, opened.
// What is wrong with the object wraps state.ErrCorrupt.
func (x *export) putLarge(w *writer, place seal.Place, at state.LargeEvent) error {
	body, err := x.object(at.Name, at.VersionID)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return fmt.Errorf("%w: its object in the vault is missing", state.ErrCorrupt)
	case err != nil:
		return err
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != at.SHA256 {
		return fmt.Errorf("%w: its object in the vault has been altered", state.ErrCorrupt)
	}
	if body, err = x.cfg.Fleet.Open(place, body); err != nil {
		return err
	}
	return w.put(entry{Object: &object{Name: at.Name, Body: body, Event: place.ID}})
}

// putUpload writes the file of an upload that messages still need, opened. Others
// stay, and so does one that cannot be opened: its message fails at the target as it
// would here.
func (x *export) putUpload(w *writer, r state.Record) (along bool, err error) {
	shelf := media.Shelf{Store: x.cfg.Store, Vault: x.cfg.Vault, Fleet: x.cfg.Fleet}
	m, err := shelf.Read(x.Session, r)
	if err == nil && len(m.Messages) == 0 {
		return false, nil
	}
	var data []byte
	if err == nil {
		data, err = retry(x.m, func(ctx context.Context) ([]byte, error) {
			_, data, err := shelf.Open(ctx, x.Session, r.Key.ID)
			return data, err
		})
	}
	switch {
	case errors.Is(err, state.ErrNotFound), errors.Is(err, state.ErrCorrupt):
		x.report.Unread++
		x.cfg.Log.Warn("an upload cannot be opened and stays", "session", x.Session, "record", r.Key.String(), "error", err)
		return false, nil
	case err != nil:
		return false, fmt.Errorf("%s: %w", r.Key, err)
	}
	return true, w.put(entry{Object: &object{Name: m.Object, Body: data, Media: r.Key.ID}})
}

// putDevice writes a record of device state as it is, its object first.
func (x *export) putDevice(w *writer, r state.Record) error {
	name, version, ok, err := device.ObjectOf(r)
	if err != nil {
		return err
	}
	if ok {
		if err := x.putObject(w, name, version); err != nil {
			return err
		}
	}
	return w.put(entry{Record: carried(r)})
}

func carried(r state.Record) *record {
	return &record{Kind: r.Key.Kind, ID: r.Key.ID, Value: r.Value, Rev: r.Rev, Expires: r.Expires, Index: r.Index}
}

// putOpened writes a record with its sealed part opened. One that does not open
// comes along without it, and is at the target what it is here: unreadable.
func (x *export) putOpened(w *writer, r state.Record) error {
	out := carried(r)
	if r.Key.Kind == state.KindCursor {
		return w.put(entry{Record: out})
	}
	if r.Key.Kind == state.KindMedia {
		if along, err := x.putUpload(w, r); !along || err != nil {
			return err
		}
	}
	doc, sealed, err := split(r.Value)
	if err == nil && len(sealed) > 0 {
		out.Opened, err = x.cfg.Fleet.Open(fleetPlace(x.p, r.Key, doc), sealed)
	}
	if err == nil && doc["large"] != nil {
		var at state.LargeEvent
		if err = json.Unmarshal(doc["large"], &at); err == nil {
			err = x.putLarge(w, fleetPlace(x.p, r.Key, doc), at)
		}
		if err != nil && !errors.Is(err, state.ErrCorrupt) {
			return fmt.Errorf("%s: %w", r.Key, err)
		} else if err != nil {
			delete(doc, "large")
		}
	}
	if err != nil {
		x.report.Unread++
		x.cfg.Log.Warn("a record cannot be opened and comes along without what it holds", "session", x.Session, "record", r.Key.String(), "error", err)
	}
	switch r.Key.Kind {
	case state.KindEvent:
		x.report.Events++
	case state.KindOutbox:
		var item state.Outbox
		if state.Decode(r.Value, &item) == nil && unsent(item) {
			x.report.Unsent++
			x.along[r.Key.ID] = true
			if item.Code == state.CodeMoved { // by a run of this export that was broken off
				delete(doc, "code")
				delete(doc, "problem")
				out.Index = state.OutboxDue(x.Session)
			}
		}
	}
	if doc != nil {
		if out.Value, err = json.Marshal(doc); err != nil {
			return err
		}
	}
	return w.put(entry{Record: out})
}

// raw is a document whose fields are left as they are, also those that this
// release does not know.
type raw map[string]json.RawMessage

// split takes the sealed part out of a document.
func split(value []byte) (raw, []byte, error) {
	var doc raw
	var any struct {
		V int `json:"v"`
	}
	if err := state.Decode(value, &any); err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal(value, &doc); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", state.ErrCorrupt, err)
	}
	var sealed []byte
	if part, ok := doc["sealed"]; ok {
		if err := json.Unmarshal(part, &sealed); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", state.ErrCorrupt, err)
		}
		delete(doc, "sealed")
	}
	return doc, sealed, nil
}

// fleetPlace is where the sealed part of a record belongs: a dead letter keeps
// what its event was sealed for.
func fleetPlace(p state.Partition, key state.Key, doc raw) seal.Place {
	place := seal.Place{Partition: p, Kind: key.Kind, ID: key.ID}
	if key.Kind == state.KindDead {
		var seq uint64
		_ = json.Unmarshal(doc["seq"], &seq) // another number, and it does not open
		place.Kind, place.ID = state.KindEvent, state.EventID(seq)
	}
	return place
}

// unwrapped is the master key of what lies in a file that is sealed as a whole.
type unwrapped struct{}

func (unwrapped) Wrap(_ context.Context, plain []byte, _ map[string]string) ([]byte, error) {
	return append([]byte(nil), plain...), nil
}

func (unwrapped) Unwrap(_ context.Context, wrapped []byte, _ map[string]string) ([]byte, error) {
	return wrapped, nil
}

func (unwrapped) ID() string { return "none" }
