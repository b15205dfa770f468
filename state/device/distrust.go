package device

import (
	"context"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// Distrust takes all credentials of a session out of use because the store that
// names them is older than what phone and contacts know: those in use, those in
// quarantine, and what an export has left. They are kept sealed for
// Config.Quarantine like others, but with the cause stale_credentials, with which
// neither Restore nor TakeBack brings them back. It is one fenced commit with
// extra, and needs neither the vault nor the master key.
//
// It reports whether there was anything to take; extra is committed only then. It
// may be called again.
func Distrust(ctx context.Context, cfg Config, extra journal.Batch) (bool, error) {
	if err := cfg.fill(); err != nil {
		return false, err
	}
	m, _, err := readMeta(ctx, cfg.Store, state.OfSession(cfg.Session))
	if err != nil || !distrust(cfg, &m) {
		return false, err
	}
	return true, updateMeta(ctx, cfg, &extra, func(m *state.Meta) error {
		distrust(cfg, m)
		return nil
	})
}

// distrust changes META and tells whether there was anything to change.
func distrust(cfg Config, m *state.Meta) (changed bool) {
	now := cfg.Now()
	if m.Credential != nil {
		m.Quarantined = append(m.Quarantined, state.QuarantinedSet{Credential: *m.Credential, Keyset: m.Keyset,
			KeysetID: m.KeysetID, At: now, Until: now.Add(cfg.Quarantine)})
		m.Credential, m.Keyset, m.KeysetID = nil, nil, ""
	}
	for i := range m.Quarantined {
		if q := &m.Quarantined[i]; q.Cause != state.CauseStaleCredentials {
			q.Cause, changed = state.CauseStaleCredentials, true
		}
	}
	return changed
}
