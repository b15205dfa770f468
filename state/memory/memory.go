// Package memory keeps state in memory: a whole state.Store and a state.Vault
// without a goroutine, a file or a clock of their own, so that tests can run
// them in virtual time. It means exactly what the durable stores mean; what it
// lacks is that it survives the process.
package memory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

const (
	pageSize   = 1000             // of listings where the caller sets no limit
	tokenLife  = 10 * time.Minute // the contract's
	sweepEvery = time.Minute      // by the store's clock, within commits
)

// Store is a state.Store in memory.
type Store struct {
	now func() time.Time

	mu     sync.RWMutex
	closed bool
	parts  map[state.Partition]partition
	owners map[string]*owner
	tokens map[token]struct{}
	spent  []spentToken // in order of time, for forgetting
	swept  time.Time

	members map[string]*state.Member
	roster  uint64 // revision
	joins   uint64
}

type partition map[state.Kind]map[string]state.Record

// owner is an owner item. Removed sessions keep theirs for the epoch's sake.
type owner struct {
	incarnation string
	epoch       uint64
	removed     bool
}

// token belongs to the fence that it was used with.
type token struct {
	fence state.Fence
	name  string
}

type spentToken struct {
	token
	at time.Time
}

var _ state.Store = (*Store)(nil)

// New makes an empty store whose records expire by the given clock; nil means
// time.Now.
func New(now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{
		now:    now,
		parts:  map[state.Partition]partition{},
		owners: map[string]*owner{},
		tokens: map[token]struct{}{},

		members: map[string]*state.Member{},
	}
}

// Now is the clock that New was given.
func (s *Store) Now() time.Time { return s.now() }

// Ping fails after Close only.
func (s *Store) Ping(ctx context.Context) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.usable(ctx)
}

// Close makes all later calls fail with state.ErrUnavailable.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// usable is asked under the lock at the beginning of every call.
func (s *Store) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
	}
	if s.closed {
		return fmt.Errorf("%w: closed", state.ErrUnavailable)
	}
	return nil
}

// Get implements state.Records.
func (s *Store) Get(ctx context.Context, p state.Partition, key state.Key) (state.Record, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return state.Record{}, err
	}
	r, ok := s.find(p, key, s.now())
	if !ok {
		return state.Record{}, fmt.Errorf("%s of %s: %w", key, p, state.ErrNotFound)
	}
	return copied(r), nil
}

// GetMany implements state.Records.
func (s *Store) GetMany(ctx context.Context, p state.Partition, keys []state.Key) ([]state.Record, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	now := s.now()
	var out []state.Record
	seen := make(map[state.Key]struct{}, len(keys))
	for _, key := range keys {
		if _, twice := seen[key]; twice {
			continue
		}
		seen[key] = struct{}{}
		if r, ok := s.find(p, key, now); ok {
			out = append(out, copied(r))
		}
	}
	return out, nil
}

// Query implements state.Records.
func (s *Store) Query(ctx context.Context, p state.Partition, q state.Query) (state.Page, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return state.Page{}, err
	}
	now := s.now()
	var found []state.Record
	for id, r := range s.parts[p][q.Kind] {
		if expired(r, now) || !strings.HasPrefix(id, q.Prefix) {
			continue
		}
		if q.After != "" && (q.Descending && id >= q.After || !q.Descending && id <= q.After) {
			continue
		}
		found = append(found, r)
	}
	slices.SortFunc(found, func(a, b state.Record) int {
		if q.Descending {
			a, b = b, a
		}
		return strings.Compare(a.Key.ID, b.Key.ID)
	})
	limit := limited(q.Limit)
	page := state.Page{More: len(found) > limit}
	for _, r := range found[:min(limit, len(found))] {
		page.Records = append(page.Records, copied(r))
	}
	return page, nil
}

// Indexed implements state.Records.
func (s *Store) Indexed(ctx context.Context, index string, after *state.Indexed, limit int) ([]state.Indexed, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if index == "" {
		return nil, nil
	}
	now := s.now()
	var found []state.Indexed
	for p, kinds := range s.parts {
		for _, records := range kinds {
			for _, r := range records {
				if r.Index != index || expired(r, now) {
					continue
				}
				if after != nil && compareIndexed(p, r.Key, after.Partition, after.Key) <= 0 {
					continue
				}
				found = append(found, state.Indexed{Partition: p, Record: r})
			}
		}
	}
	slices.SortFunc(found, func(a, b state.Indexed) int {
		return compareIndexed(a.Partition, a.Key, b.Partition, b.Key)
	})
	found = found[:min(limited(limit), len(found))]
	for i := range found {
		found[i].Record = copied(found[i].Record)
	}
	return found, nil
}

func compareIndexed(p state.Partition, k state.Key, q state.Partition, l state.Key) int {
	return cmp.Or(cmp.Compare(p, q), cmp.Compare(k.Kind, l.Kind), cmp.Compare(k.ID, l.ID))
}

// Commit implements state.Records.
func (s *Store) Commit(ctx context.Context, f state.Fence, tok string, writes []state.Write) error {
	if err := state.Check(writes, true); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	now := s.now()
	s.tidy(now)
	t := token{f, tok}
	if tok != "" {
		if _, done := s.tokens[t]; done {
			return nil
		}
	}
	if err := s.holds(f); err != nil {
		return err
	}
	if err := s.apply(state.OfSession(f.Session), writes, now); err != nil {
		return err
	}
	if tok != "" {
		s.tokens[t] = struct{}{}
		s.spent = append(s.spent, spentToken{t, now})
	}
	return nil
}

// Update implements state.Records.
func (s *Store) Update(ctx context.Context, p state.Partition, writes []state.Write) error {
	if err := state.Check(writes, false); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	if name, ok := p.Session(); ok {
		if o := s.owners[name]; o == nil || o.removed {
			return fmt.Errorf("session %s: %w", name, state.ErrNotFound)
		}
	} else if p != state.Fleet {
		return fmt.Errorf("partition %q: is neither a session's nor the fleet's", p)
	}
	now := s.now()
	s.tidy(now)
	return s.apply(p, writes, now)
}

// apply does all writes if all conditions hold.
func (s *Store) apply(p state.Partition, writes []state.Write, now time.Time) error {
	for _, w := range writes {
		r, found := s.find(p, w.Key, now)
		if !w.If.Holds(found, r.Rev) {
			return fmt.Errorf("%s of %s: %w", w.Key, p, state.ErrConflict)
		}
	}
	for _, w := range writes {
		part := s.parts[p]
		if w.Delete {
			delete(part[w.Key.Kind], w.Key.ID)
			continue
		}
		if part == nil {
			part = partition{}
			s.parts[p] = part
		}
		if part[w.Key.Kind] == nil {
			part[w.Key.Kind] = map[string]state.Record{}
		}
		r := copied(w.Record)
		r.Expires = r.Expires.Round(0).UTC()
		part[w.Key.Kind][w.Key.ID] = r
	}
	return nil
}

func (s *Store) find(p state.Partition, key state.Key, now time.Time) (state.Record, bool) {
	r, ok := s.parts[p][key.Kind][key.ID]
	if !ok || expired(r, now) {
		return state.Record{}, false
	}
	return r, true
}

// tidy forgets old tokens and, now and then, removes expired records.
func (s *Store) tidy(now time.Time) {
	n := 0
	for n < len(s.spent) && now.Sub(s.spent[n].at) > tokenLife {
		delete(s.tokens, s.spent[n].token)
		n++
	}
	s.spent = s.spent[n:]
	if now.Sub(s.swept) < sweepEvery {
		return
	}
	s.swept = now
	for _, kinds := range s.parts {
		for _, records := range kinds {
			for id, r := range records {
				if expired(r, now) {
					delete(records, id)
				}
			}
		}
	}
}

func expired(r state.Record, now time.Time) bool {
	return !r.Expires.IsZero() && !now.Before(r.Expires)
}

// copied shares no bytes with the caller's record or the stored one.
func copied(r state.Record) state.Record {
	r.Value = bytes.Clone(r.Value)
	return r
}

func limited(limit int) int {
	if limit <= 0 {
		return pageSize
	}
	return limit
}
