package device

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// orphanAge is how old an object must be that nothing points to, so that one
// whose pointer is about to be written is left alone.
const orphanAge = time.Hour

// Sweep destroys quarantined credentials that are past their time, and removes
// objects and records that nothing points to. It may run beside an open Device.
func Sweep(ctx context.Context, cfg Config) error {
	if err := cfg.fill(); err != nil {
		return err
	}
	p := state.OfSession(cfg.Session)
	now := cfg.Now()
	m, _, err := readMeta(ctx, cfg.Store, p)
	if err != nil {
		return err
	}
	expired := func(q state.QuarantinedSet) bool { return !q.Until.After(now) }
	if slices.ContainsFunc(m.Quarantined, expired) {
		err := updateMeta(ctx, cfg, nil, func(m *state.Meta) error {
			m.Quarantined = slices.DeleteFunc(m.Quarantined, expired)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := sweepObjects(ctx, cfg, now); err != nil {
		return err
	}
	return sweepRecords(ctx, cfg, 0)
}

// Purge removes all objects of a session that does not exist any more.
func Purge(ctx context.Context, vault state.Vault, session string) error {
	names, err := vault.ListObjects(ctx, session)
	for _, name := range names {
		if err == nil {
			err = vault.DeleteObject(ctx, session, name, "")
		}
	}
	return err
}

// sweepObjects removes objects that nothing points to.
func sweepObjects(ctx context.Context, cfg Config, now time.Time) error {
	p := state.OfSession(cfg.Session)
	names, err := cfg.Vault.ListObjects(ctx, cfg.Session)
	if err != nil {
		return err
	}
	var large, events, uploads bool
	var old []string
	for _, name := range names {
		_, stamp, _ := strings.Cut(name, "-")
		id, err := ulid.ParseStrict(strings.ToUpper(stamp))
		if err != nil || now.Sub(ulid.Time(id.Time())) < orphanAge {
			continue // not one of ours, or too new to judge
		}
		old = append(old, name)
		large = large || strings.HasPrefix(name, largePrefix)
		events = events || strings.HasPrefix(name, state.LargeEventPrefix)
		uploads = uploads || strings.HasPrefix(name, state.MediaPrefix)
	}
	if len(old) == 0 {
		return nil
	}
	used := make(map[string]bool)
	if large {
		if err := cfg.Journal.Flush(ctx); err != nil {
			return err
		}
		err := eachRecord(ctx, cfg.Store, p, deviceKinds, func(r state.Record) error {
			if len(r.Value) > 0 && r.Value[0] == bodyVault {
				pointer, err := decodePointer(r)
				used[pointer.Name] = true
				return err
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if events {
		err := eachRecord(ctx, cfg.Store, p, []state.Kind{state.KindEvent, state.KindDead}, func(r state.Record) error {
			var e struct {
				Large *state.LargeEvent `json:"large"`
			}
			if json.Unmarshal(r.Value, &e) == nil && e.Large != nil {
				used[e.Large.Name] = true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if uploads {
		err := eachRecord(ctx, cfg.Store, p, []state.Kind{state.KindMedia}, func(r state.Record) error {
			var m state.Media
			if state.Decode(r.Value, &m) == nil {
				used[m.Object] = true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	m, _, err := readMeta(ctx, cfg.Store, p) // after the listing: it names what was made meanwhile
	if err != nil {
		return err
	}
	if m.Credential != nil {
		used[m.Credential.Name] = true
	}
	for _, q := range m.Quarantined {
		used[q.Credential.Name] = true
	}
	for _, name := range old {
		if !used[name] {
			if err := cfg.Vault.DeleteObject(ctx, cfg.Session, name, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweepRecords deletes device records of keysets that META does not hold, in at
// most so many commits; 0: as many as it takes.
func sweepRecords(ctx context.Context, cfg Config, commits int) error {
	p := state.OfSession(cfg.Session)
	generations := make(map[state.Kind][]string)
	for _, kind := range deviceKinds {
		for after := ""; ; {
			page, err := cfg.Store.Query(ctx, p, state.Query{Kind: kind, After: after, Limit: 1})
			if err != nil {
				return err
			}
			if len(page.Records) == 0 {
				break
			}
			generation, _, _ := strings.Cut(page.Records[0].Key.ID, ".")
			generations[kind] = append(generations[kind], generation)
			after = generation + "/" // '/' follows '.': past all of this generation
		}
	}
	m, _, err := readMeta(ctx, cfg.Store, p) // after the listing: it names the keyset of what was written meanwhile
	if err != nil {
		return err
	}
	used := map[string]bool{m.KeysetID: m.KeysetID != ""}
	for _, q := range m.Quarantined {
		used[q.KeysetID] = true
	}
	for _, kind := range deviceKinds {
		for _, generation := range generations[kind] {
			if used[generation] {
				continue
			}
			for {
				page, err := cfg.Store.Query(ctx, p, state.Query{Kind: kind, Prefix: generation + ".", Limit: state.MaxItems})
				if err != nil {
					return err
				}
				if len(page.Records) == 0 {
					break
				}
				b := journal.Batch{}
				for _, r := range page.Records[:min(len(page.Records), state.MaxItems)] {
					b.Writes = append(b.Writes, state.Del(kind, r.Key.ID))
				}
				if err := cfg.Journal.Commit(ctx, b); err != nil {
					return err
				}
				if commits--; commits == 0 {
					return nil
				}
			}
		}
	}
	return nil
}

// eachRecord reads all records of some kinds.
func eachRecord(ctx context.Context, store state.Store, p state.Partition, kinds []state.Kind, do func(state.Record) error) error {
	for _, kind := range kinds {
		q := state.Query{Kind: kind}
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
				break
			}
		}
	}
	return nil
}
