package device

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// Finding is something that Verify found wrong.
type Finding struct {
	Where   string // the record's key, or the object's name
	Problem string
	Err     error
}

func (f Finding) String() string { return f.Where + ": " + f.Problem }

// Verify reads and opens every record and object of a session, also quarantined
// ones and the events of its queue, and tells what is wrong. An error means that
// it could not be found out.
func Verify(ctx context.Context, cfg Config) ([]Finding, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	p := state.OfSession(cfg.Session)
	var findings []Finding
	report := func(where string, err error) error {
		if stale := (*StaleError)(nil); !errors.As(err, &stale) && !errors.Is(err, state.ErrCorrupt) {
			return err
		}
		findings = append(findings, Finding{where, err.Error(), err})
		return nil
	}
	m, at, err := readMeta(ctx, cfg.Store, p)
	if err != nil {
		return findings, report(string(state.KindMeta), err)
	}
	keysets := make(map[string]*seal.Keyset)
	check := func(wrapped []byte, id string, at *state.ObjectPointer) error {
		if len(wrapped) == 0 && at == nil {
			return nil
		}
		k, err := seal.Unwrap(ctx, cfg.Master, p, wrapped)
		if err == nil && k.ID() != id {
			err = fmt.Errorf("%w: it is keyset %s, META says %s", state.ErrCorrupt, k.ID(), id)
		}
		if err != nil {
			return report("keyset "+id, err)
		}
		keysets[id] = k
		if at != nil {
			if _, err := loadCredential(ctx, cfg.Vault, p, k, *at); err != nil {
				return report(at.Name, err)
			}
		}
		return nil
	}
	if err := check(m.Keyset, m.KeysetID, m.Credential); err != nil {
		return nil, err
	}
	for _, q := range m.Quarantined {
		if err := check(q.Keyset, q.KeysetID, &q.Credential); err != nil {
			return nil, err
		}
	}
	err = eachRecord(ctx, cfg.Store, p, deviceKinds, func(r state.Record) error {
		generation, _, _ := strings.Cut(r.Key.ID, ".")
		k := keysets[generation]
		switch {
		case k == nil && at.found && m.KeysetID == "" && len(m.Quarantined) == 0:
			return nil // of credentials that were destroyed with their key: the next owner removes it
		case k == nil:
			return report(r.Key.String(), fmt.Errorf("%w: it is of keyset %s, which the session does not have (left over, or of another session)", state.ErrCorrupt, generation))
		}
		if _, err := opened(ctx, cfg.Vault, p, k, r); err != nil {
			return report(r.Key.String(), err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = eachRecord(ctx, cfg.Store, p, []state.Kind{state.KindEvent}, func(r state.Record) error {
		_, err := cfg.Journal.OpenEvent(r)
		var stored state.StoredEvent
		if err == nil && state.Decode(r.Value, &stored) == nil && stored.Large != nil {
			_, err = cfg.Journal.OpenLarge(ctx, cfg.Vault, r.Key.ID, *stored.Large)
		}
		if err != nil {
			return report(r.Key.String(), err)
		}
		return nil
	})
	return findings, err
}
