package statetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
)

// Model runs random histories against the store and against the one in memory,
// and compares every answer. open is called for each history; its store is
// closed at the history's end. The store must not lag behind.
func Model(t *testing.T, open func(t *testing.T) state.Store) {
	rapid.Check(t, func(r *rapid.T) {
		m := &machine{ctx: t.Context(), model: memory.New(nil), real: open(t), fences: []state.Fence{{Session: "a", Owner: "w1", Epoch: 1}}}
		defer m.real.Close()
		m.join(r)
		m.join(r)
		r.Repeat(map[string]func(*rapid.T){
			"create":  m.create,
			"remove":  m.remove,
			"claim":   m.claim,
			"give":    m.give,
			"release": m.release,
			"join":    m.join,
			"beat":    m.beat,
			"declare": m.declare,
			"stopped": m.stopped,
			"drain":   m.drain,
			"forget":  m.forget,
			"watch":   m.watch,
			"commit":  m.commit,
			"update":  m.update,
			"query":   m.query,
			"compare": m.compare,
		})
		m.compare(r)
	})
}

// machine holds both stores, and every fence that ever was, to be tried again.
type machine struct {
	ctx         context.Context
	model, real state.Store
	fences      []state.Fence
	tokens      int
	joined      int    // w1, w2 and so on: ids are never used again
	members     string // of the real store, as compared last, less what beats change
	revision    uint64
}

var (
	modelNames = []string{"a", "ab", "b"}
	modelKinds = []state.Kind{state.KindSignal, state.KindCommand, state.KindCommand + "X", state.KindMeta}
	modelIDs   = []string{"", "1", "10", "2", "A", "a", "a%", "é"}
	modelIndex = []string{"", "i", "j"}
)

// class is what of an error callers may branch on.
func class(err error) string {
	for _, e := range []error{state.ErrDead, state.ErrNotFound, state.ErrFenced, state.ErrConflict, state.ErrExists, state.ErrTooLarge, state.ErrUnavailable, state.ErrCorrupt} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	if err != nil {
		return "another error"
	}
	return "done"
}

// both does the same to both stores; the answers must be alike.
func (m *machine) both(t *rapid.T, what string, do func(s state.Store) (string, error)) {
	t.Helper()
	want, wantErr := do(m.model)
	got, gotErr := do(m.real)
	if class(gotErr) != class(wantErr) || got != want {
		t.Fatalf("%s: %s %v, want %s %v", what, got, gotErr, want, wantErr)
	}
}

func (m *machine) fence(t *rapid.T) state.Fence {
	// Mostly the newest, as it is the one that may hold.
	if rapid.IntRange(0, 3).Draw(t, "newest") > 0 {
		return m.fences[len(m.fences)-1]
	}
	return rapid.SampledFrom(m.fences).Draw(t, "fence")
}

// learn notes the owner of a session as a fence.
func (m *machine) learn(session string) {
	if o, err := m.model.Owner(m.ctx, session); err == nil && !slices.Contains(m.fences, o.Fence()) {
		m.fences = append(m.fences, o.Fence())
	}
}

func (m *machine) writes(t *rapid.T, fenced bool) []state.Write {
	kinds := modelKinds
	if !fenced {
		kinds = kinds[1:]
	}
	write := rapid.Custom(func(t *rapid.T) state.Write {
		id := rapid.SampledFrom(modelIDs).Draw(t, "id")
		w := put(rapid.SampledFrom(kinds).Draw(t, "kind"), id, rapid.StringN(0, 3, 6).Draw(t, "value"),
			rev(rapid.Uint64Range(0, 2).Draw(t, "rev")), index(rapid.SampledFrom(modelIndex).Draw(t, "index")),
			when(rapid.SampledFrom([]state.Condition{{}, {}, {}, state.Absent(), state.Exists(), state.AtRev(0), state.AtRev(1)}).Draw(t, "if")))
		if w.Key.Kind.DeviceState() {
			w.Index = ""
		}
		w.Delete = rapid.IntRange(0, 3).Draw(t, "delete") == 0
		return w
	})
	return rapid.SliceOfNDistinct(write, 0, 5, func(w state.Write) state.Key { return w.Key }).Draw(t, "writes")
}

func (m *machine) create(t *rapid.T) {
	name, writes := rapid.SampledFrom(modelNames).Draw(t, "name"), m.writes(t, false)
	m.both(t, "create", func(s state.Store) (string, error) { return "", s.CreateSession(m.ctx, name, writes) })
	m.learn(name)
}

func (m *machine) remove(t *rapid.T) {
	f := m.fence(t)
	m.both(t, "remove", func(s state.Store) (string, error) { return "", s.RemoveSession(m.ctx, f) })
}

// worker is one that has joined, mostly the newest, or one that will.
func (m *machine) worker(t *rapid.T) string {
	if rapid.Bool().Draw(t, "newest worker") {
		return fmt.Sprint("w", m.joined)
	}
	return fmt.Sprint("w", rapid.IntRange(1, m.joined+1).Draw(t, "worker"))
}

// claim takes one session, or several of those that had a fence.
func (m *machine) claim(t *rapid.T) {
	to := m.worker(t)
	var from []state.Owner
	for range rapid.IntRange(1, 3).Draw(t, "sessions") {
		f := m.fence(t)
		from = append(from, state.Owner{Session: f.Session, Incarnation: f.Owner, Epoch: f.Epoch})
	}
	m.both(t, fmt.Sprintf("claim of %v for %s", from, to), func(s state.Store) (string, error) {
		o, err := s.Claim(m.ctx, to, from...)
		return fmt.Sprint(o), err
	})
	for _, o := range from {
		m.learn(o.Session)
	}
}

func (m *machine) give(t *rapid.T) {
	f, to := m.fence(t), m.worker(t)
	m.both(t, fmt.Sprintf("hand-over by %s to %s", f, to), func(s state.Store) (string, error) {
		o, err := s.HandOver(m.ctx, f, to)
		return fmt.Sprint(o), err
	})
	m.learn(f.Session)
}

func (m *machine) release(t *rapid.T) {
	f := m.fence(t)
	m.both(t, "release", func(s state.Store) (string, error) { return "", s.Release(m.ctx, f) })
	m.learn(f.Session)
}

func (m *machine) commit(t *rapid.T) {
	f, writes := m.fence(t), m.writes(t, true)
	token := ""
	switch rapid.IntRange(0, 2).Draw(t, "token") {
	case 0:
		m.tokens++
		token = fmt.Sprint(m.tokens)
	case 1:
		token = fmt.Sprint(m.tokens) // the last one once more
	}
	m.both(t, "commit", func(s state.Store) (string, error) { return "", s.Commit(m.ctx, f, token, writes) })
}

func (m *machine) update(t *rapid.T) {
	p, writes := m.partition(t), m.writes(t, false)
	m.both(t, "update", func(s state.Store) (string, error) { return "", s.Update(m.ctx, p, writes) })
}

func (m *machine) partition(t *rapid.T) state.Partition {
	return rapid.SampledFrom([]state.Partition{state.Fleet, "S/a", "S/ab", "S/b"}).Draw(t, "partition")
}

func (m *machine) query(t *rapid.T) {
	p := m.partition(t)
	q := state.Query{
		Kind:       rapid.SampledFrom(modelKinds).Draw(t, "kind"),
		Prefix:     rapid.SampledFrom([]string{"", "", "1", "a", "é", "x"}).Draw(t, "prefix"),
		After:      rapid.SampledFrom(modelIDs).Draw(t, "after"),
		Limit:      rapid.IntRange(0, 3).Draw(t, "limit"),
		Descending: rapid.Bool().Draw(t, "descending"),
	}
	m.both(t, fmt.Sprintf("query %+v", q), func(s state.Store) (string, error) {
		page, err := s.Query(m.ctx, p, q)
		return fmt.Sprintf("%q more %v", describe(page.Records), page.More), err
	})
}

// compare reads everything of both.
func (m *machine) compare(t *rapid.T) {
	m.both(t, "sessions", func(s state.Store) (string, error) {
		all, err := s.Sessions(m.ctx, "", 0)
		return fmt.Sprint(all), err
	})
	for _, name := range append([]string{"FLEET"}, modelNames...) {
		p := state.OfSession(name)
		if name == "FLEET" {
			p = state.Fleet
		}
		var keys []state.Key
		for _, kind := range modelKinds {
			for _, id := range modelIDs {
				keys = append(keys, state.Key{Kind: kind, ID: id})
			}
		}
		m.both(t, "records of "+name, func(s state.Store) (string, error) {
			records, err := s.GetMany(m.ctx, p, keys)
			slices.SortFunc(records, func(a, b state.Record) int {
				return slices.Compare([]string{string(a.Key.Kind), a.Key.ID}, []string{string(b.Key.Kind), b.Key.ID})
			})
			return fmt.Sprintf("%q", describe(records)), err
		})
	}
	for _, index := range modelIndex {
		m.both(t, "index "+index, func(s state.Store) (string, error) {
			found, err := s.Indexed(m.ctx, index, nil, 0)
			out := ""
			for _, r := range found {
				out += fmt.Sprintf("%s %q ", r.Partition, describe([]state.Record{r.Record}))
			}
			return out, err
		})
	}
	m.compareMembers(t)
	for i := range m.joined + 1 {
		incarnation := ""
		if i > 0 {
			incarnation = fmt.Sprint("w", i)
		}
		m.both(t, "owned by "+incarnation, func(s state.Store) (string, error) {
			owned, err := s.OwnedBy(m.ctx, incarnation, "", 0)
			return fmt.Sprint(owned), err
		})
	}
}

func describe(records []state.Record) []string {
	var out []string
	for _, r := range records {
		out = append(out, fmt.Sprintf("%s=%s rev %d in %s", r.Key, r.Value, r.Rev, r.Index))
	}
	return out
}
