package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// ImportConfig says what to import. Path and Key are required.
type ImportConfig struct {
	Path string
	Key  Key
	// TakeBack allows a file that was exported from this very store, and imported
	// nowhere else.
	TakeBack bool
}

// Import takes a session in from a file of Export. The file is read whole before
// anything is written. An import that was broken off is run again in the same way;
// until it ends nobody connects.
//
// A session of the name that is not paired here is filled, one that was moved
// away is replaced. ErrPaired if it has credentials, ErrImported if this export was
// imported here before, ErrOwnFile if it comes from here (see
// ImportConfig.TakeBack), ErrBusy if its worker does not give it up.
func Import(ctx context.Context, cfg Config, im ImportConfig) (Report, error) {
	if err := cfg.fill(); err != nil {
		return Report{}, err
	}
	x := &importing{ImportConfig: im, cfg: cfg, versions: make(map[string]string), large: make(map[string]state.LargeEvent)}
	if err := x.inspect(ctx); err != nil {
		return Report{}, err
	}
	m, _, err := readMeta(ctx, cfg.Store, x.p)
	if err != nil {
		return Report{}, fmt.Errorf("session %s: %w", x.head.Session, err)
	}
	if err := x.check(m); err != nil {
		return Report{}, err
	}
	if err := x.unused(ctx); err != nil {
		return Report{}, err
	}
	x.m, err = join(ctx, cfg)
	if err != nil {
		return Report{}, err
	}
	err = x.run()
	if left := x.m.leave(); err == nil && left != nil {
		cfg.Log.Warn("the session was imported and not released; a worker takes it in a moment", "session", x.head.Session, "error", left)
	}
	return x.report, err
}

// importing is one run of Import.
type importing struct {
	ImportConfig
	cfg      Config
	p        state.Partition
	head     head
	spec     state.Spec
	st       state.Status
	keyset   *seal.Keyset
	m        *member
	versions map[string]string           // of the objects, in this vault
	large    map[string]state.LargeEvent // the objects of events as they are in this vault, by name
	batch    []state.Write
	size     int
	report   Report
}

// inspect reads the file to its end and sees that it holds what it must.
func (x *importing) inspect(ctx context.Context) error {
	credential := false
	kinds := append(append(device.Kinds(), openedKinds...), state.KindCursor)
	damaged := func(what string, err error) error {
		return fileError(x.Path, fmt.Errorf("%w: %s: %w", ErrDamaged, what, err), "export the session once more")
	}
	err := readFile(x.Path, x.Key, func(e entry) error {
		switch {
		case e.Head != nil:
			x.head = *e.Head
			if err := state.CheckName(x.head.Session); err != nil {
				return damaged("its session", err)
			}
			x.p = state.OfSession(x.head.Session)
			var err error
			if x.keyset, err = seal.Unwrap(ctx, unwrapped{}, x.p, x.head.Keyset); err != nil {
				return damaged("the keyset", err)
			}
			if err := x.parse(); err != nil {
				return damaged("its documents", err)
			}
		case e.Object != nil:
			if err := state.CheckObject(e.Object.Name); err != nil {
				return damaged("an object", err)
			}
			if e.Object.Name == x.head.Credential.Name {
				if err := device.CheckCredential(x.head.Session, x.keyset, x.head.Credential, e.Object.Body); err != nil {
					return damaged("the credentials", err)
				}
				credential = true
			}
		case e.Record != nil:
			w, err := x.sealed(*e.Record)
			if err == nil {
				err = state.Check([]state.Write{w}, true)
			}
			if err == nil && !slices.Contains(kinds, w.Key.Kind) {
				err = fmt.Errorf("a %s record", w.Key.Kind)
			}
			if err != nil {
				return damaged("a record", err)
			}
		}
		return nil
	})
	if err == nil && !credential {
		return damaged("the credentials", state.ErrNotFound)
	}
	return err
}

// parse reads the documents of the head.
func (x *importing) parse() error {
	if x.keyset.ID() != x.head.KeysetID || x.head.Credential.KeysetID != x.head.KeysetID {
		return fmt.Errorf("%w: the keyset is another than the head says", state.ErrCorrupt)
	}
	if len(x.head.Spec) > 0 {
		if err := state.Decode(x.head.Spec, &x.spec); err != nil {
			return err
		}
	} else {
		now := x.cfg.Now().UTC()
		x.spec = state.Spec{Wanted: state.WantRunning, Generation: 1, CreatedAt: now, ChangedAt: now}
	}
	return state.Decode(x.head.Status, &x.st)
}

// check tells whether the session of the file may be put here.
func (x *importing) check(m state.Meta) error {
	name := x.head.Session
	switch {
	case m.Imported != nil && m.Imported.ID == x.head.ID && m.Imported.Done:
		return x.again()
	case m.Credential != nil && m.Moved == nil:
		return fmt.Errorf("session %s: %w, and two devices cannot have one name; a session keeps its name, so move it to a store where the name is free, or `disconnect` and delete the one here", name, ErrPaired)
	case m.Moved != nil && m.Moved.ID == x.head.ID && !x.TakeBack:
		return fmt.Errorf("session %s: %w on %s; import it where it goes, or, if it was imported nowhere, use --take-back", name, ErrOwnFile, m.Moved.At.UTC().Format(time.DateTime))
	case m.Moved != nil && !m.Moved.Done && m.Moved.ID != x.head.ID:
		return fmt.Errorf("session %s: an export of it was begun here and did not end; run `holdfast export` again first", name)
	}
	return nil
}

func (x *importing) again() error {
	return fmt.Errorf("session %s: %w; a copy of it lives or lived here, and what is in the file is older", x.head.Session, ErrImported)
}

// seen is the fleet's record of an export that was imported. It outlives the
// session, because an old file must never come back to life.
type seen struct {
	V       int       `json:"v"`
	Session string    `json:"session"`
	At      time.Time `json:"at"`
	Done    bool      `json:"done"`
}

func (x *importing) seenKey() state.Key {
	return state.Key{Kind: state.KindFleet, ID: "IMPORT#" + x.head.ID}
}

// unused refuses a file that was imported before.
func (x *importing) unused(ctx context.Context) error {
	r, err := x.cfg.Store.Get(ctx, state.Fleet, x.seenKey())
	if errors.Is(err, state.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	var s seen
	if err := state.Decode(r.Value, &s); err != nil {
		return fmt.Errorf("%s: %w", r.Key, err)
	}
	if s.Done || s.Session != x.head.Session {
		return x.again()
	}
	return nil
}

// remember notes that the file is being, or was, imported.
func (x *importing) remember(done bool) error {
	_, err := retry(x.m, func(ctx context.Context) (any, error) {
		value, err := state.Encode(seen{V: state.Format, Session: x.head.Session, At: x.cfg.Now().UTC(), Done: done})
		if err != nil {
			return nil, err
		}
		w := state.Put(state.KindFleet, x.seenKey().ID, value)
		if !done {
			w.If = state.Absent()
		}
		err = x.cfg.Store.Update(ctx, state.Fleet, []state.Write{w})
		if errors.Is(err, state.ErrConflict) {
			return nil, x.unused(ctx) // by a run that was broken off, or by another
		}
		return nil, err
	})
	return err
}

func (x *importing) run() error {
	if err := x.take(); err != nil {
		return err
	}
	err := x.fill()
	if err != nil {
		return x.m.failure(err)
	}
	if err := x.remember(true); err != nil {
		// META says the same for as long as the session is there.
		x.cfg.Log.Warn("the import has ended; that could not be noted for the fleet", "session", x.head.Session, "error", err)
	}
	return nil
}

// take makes the session if it is not there, unpaired and stopped, and owns it.
func (x *importing) take() error {
	name := x.head.Session
	now := x.cfg.Now().UTC()
	spec := state.Spec{V: state.Format, Name: name, Wanted: state.WantStopped, Generation: 1, CreatedAt: now, ChangedAt: now}
	w, err := specWrite(spec)
	if err != nil {
		return err
	}
	_, err = retry(x.m, func(ctx context.Context) (any, error) {
		if _, err := x.cfg.Store.Owner(ctx, name); !errors.Is(err, state.ErrNotFound) {
			return nil, err
		}
		err := x.cfg.Store.CreateSession(ctx, name, []state.Write{w})
		if errors.Is(err, state.ErrExists) {
			err = nil
		}
		return nil, err
	})
	if err != nil {
		return fmt.Errorf("session %s: %w", name, err)
	}
	return x.m.own(name)
}

func specWrite(spec state.Spec) (state.Write, error) {
	value, err := state.Encode(spec)
	w := state.Put(state.KindSpec, "", value)
	w.Rev = spec.Generation
	return w, err
}

// fill puts everything into the session, credentials last.
func (x *importing) fill() error {
	if err := x.begin(); err != nil {
		return err
	}
	if err := x.remember(false); err != nil {
		return err
	}
	if err := x.clearOut(); err != nil {
		return fmt.Errorf("removing what was here: %w", err)
	}
	x.report = Report{Session: x.head.Session, ID: x.head.ID, At: x.head.At}
	err := readFile(x.Path, x.Key, func(e entry) error {
		switch {
		case e.Object != nil:
			return x.putObject(*e.Object)
		case e.Record != nil:
			return x.putRecord(*e.Record)
		case e.Head != nil && e.Head.ID != x.head.ID:
			return fileError(x.Path, ErrDamaged, "it was replaced while it was read")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := x.flush(); err != nil {
		return err
	}
	return x.finish()
}

// begin marks META, so that nobody opens or pairs the session before the end, and
// forgets what an earlier life of the same device has left there: what the file
// holds is newer.
func (x *importing) begin() error {
	return x.updateMeta(func(m *state.Meta) ([]state.Write, error) {
		if err := x.check(*m); err != nil {
			return nil, err
		}
		m.Imported = &state.ImportMark{ID: x.head.ID, At: x.cfg.Now().UTC()}
		m.Credential, m.Keyset, m.KeysetID = nil, nil, ""
		m.Quarantined = slices.DeleteFunc(m.Quarantined, func(q state.QuarantinedSet) bool { return q.KeysetID == x.head.KeysetID })
		return nil, nil
	})
}

// updateMeta changes META, with other writes, in one fenced commit.
func (x *importing) updateMeta(change func(*state.Meta) ([]state.Write, error)) error {
	for n := 1; ; n++ {
		m, r, err := readMeta(x.m.ctx, x.cfg.Store, x.p)
		if err != nil {
			return err
		}
		writes, err := change(&m)
		if err != nil {
			return err
		}
		w, err := metaWrite(m, r)
		if err != nil {
			return err
		}
		if err := x.m.commit(append(writes, w)...); !errors.Is(err, state.ErrConflict) || n == tries {
			return err
		}
	}
}

// finish makes it a session: META with the credentials, SPEC, STATUS and the
// audit in one commit.
func (x *importing) finish() error {
	wrapped, err := retry(x.m, func(ctx context.Context) ([]byte, error) { return x.keyset.Wrap(ctx, x.cfg.Master, x.p) })
	if err != nil {
		return err
	}
	return x.updateMeta(func(m *state.Meta) ([]state.Write, error) {
		if m.Imported == nil || m.Imported.ID != x.head.ID {
			return nil, fmt.Errorf("%w: the mark of this import is gone", state.ErrConflict)
		}
		m.Imported.Done = true
		m.Moved = nil
		at := x.head.Credential
		at.VersionID = x.versions[at.Name]
		m.Keyset, m.KeysetID, m.Credential = wrapped, x.head.KeysetID, &at
		m.PreKeyHigh = max(m.PreKeyHigh, x.head.PreKeyHigh)
		spec, st, err := x.documents()
		if err != nil {
			return nil, err
		}
		audit, err := auditWrite(x.cfg, "import", "", "paired, export "+x.head.ID)
		return []state.Write{spec, st, audit}, err
	})
}

// documents are SPEC and STATUS for this store. Their counters go on from the
// higher of both sides', so that what was observed is never ahead of what is wanted.
func (x *importing) documents() (specW, stW state.Write, err error) {
	var here state.Spec
	r, err := x.cfg.Store.Get(x.m.ctx, x.p, state.Key{Kind: state.KindSpec})
	cond := state.AtRev(r.Rev)
	switch {
	case errors.Is(err, state.ErrNotFound):
		cond = state.Absent()
	case err != nil:
		return specW, stW, err
	default:
		if err := state.Decode(r.Value, &here); err != nil {
			return specW, stW, fmt.Errorf("SPEC: %w", err)
		}
	}
	spec, st := x.spec, x.st
	repair := spec.RepairGeneration > st.RepairObserved // asked for and not done
	spec.V, spec.Name = state.Format, x.head.Session
	spec.Generation = max(spec.Generation, here.Generation) + 1
	spec.RepairGeneration = max(spec.RepairGeneration, here.RepairGeneration)
	st.RepairObserved = spec.RepairGeneration
	if repair {
		spec.RepairGeneration++
	}
	spec.ChangedAt = x.cfg.Now().UTC()
	if len(x.head.Settings) > 0 {
		if spec.Settings, err = x.cfg.Fleet.Seal(seal.Place{Partition: x.p, Kind: state.KindSpec}, x.head.Settings); err != nil {
			return specW, stW, err
		}
	}
	if specW, err = specWrite(spec); err != nil {
		return specW, stW, err
	}
	specW.If = cond
	st.ObservedGeneration = min(st.ObservedGeneration, spec.Generation)
	st.Paired, st.Holding, st.Phase = true, false, ""
	if st.Cause == state.CauseNone || st.Cause == state.CauseMoved {
		st.State, st.Cause, st.Code = state.Connecting, state.CauseNone, 0
	}
	switch st.State {
	case state.Online, state.Pairing, state.Reconnecting, state.Restarting, state.Unowned:
		st.State = state.Connecting
	}
	if len(x.head.Identity) > 0 {
		if st.Sealed, err = x.cfg.Fleet.Seal(seal.Place{Partition: x.p, Kind: state.KindStatus}, x.head.Identity); err != nil {
			return specW, stW, err
		}
	}
	stW, err = statusWrite(st)
	return specW, stW, err
}

// sealed makes the write of a record of the file, its part of the fleet sealed for
// this store.
func (x *importing) sealed(r record) (state.Write, error) {
	w := state.Write{Record: state.Record{Key: state.Key{Kind: r.Kind, ID: r.ID}, Value: r.Value, Rev: r.Rev, Expires: r.Expires, Index: r.Index}}
	if len(r.Opened) == 0 {
		return w, nil
	}
	doc, _, err := split(r.Value)
	if err != nil {
		return w, err
	}
	if doc["large"] != nil {
		var at state.LargeEvent
		if err := json.Unmarshal(doc["large"], &at); err != nil {
			return w, err
		}
		if at, ok := x.large[at.Name]; ok {
			if doc["large"], err = json.Marshal(at); err != nil {
				return w, err
			}
		}
	}
	sealed, err := x.cfg.Fleet.Seal(fleetPlace(x.p, w.Key, doc), r.Opened)
	if err != nil {
		return w, err
	}
	if doc["sealed"], err = json.Marshal(sealed); err != nil {
		return w, err
	}
	w.Value, err = json.Marshal(doc)
	return w, err
}
