package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/infra/emf"
	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
)

const (
	// lookEvery is how often the status of every session is read. Between, only
	// those are that were pairing: a read of each session each minute would cost
	// more than the alarm is worth.
	lookEvery = 10 * time.Minute
	// kept is how many sessions are remembered of each kind: the record has a bound
	// of 300 KB. Of more it is not known since when.
	kept = 1500
	// logged is how many of them have a line of their own in the log.
	logged = 20
	// sessionsPage is how many sessions are listed together, and atATime how many
	// are read side by side.
	sessionsPage = 500
	atATime      = 16
)

// Swept is what a sweep has found.
type Swept struct {
	Event    string `json:"event"` // sweep
	Sessions int    `json:"sessions"`
	// Wanted are those that should run, as of the last look at all of them; Owned
	// those that a living worker has, and Online as many of these as are connected.
	Wanted int `json:"wanted"`
	Owned  int `json:"owned"`
	Online int `json:"online"`
	// Workers are alive; of them Draining give away what they have. Stale are those
	// whose heartbeat is old and who are not declared dead.
	Workers  int `json:"workers"`
	Draining int `json:"draining"`
	Stale    int `json:"stale"`
	// Capacity is that of the living workers that do not drain; 0: one of them has
	// no bound, or there is none.
	Capacity int `json:"capacity"`
	// Ownerless are all that should run and have no live owner now, Unowned those
	// that have had none for longer than the bound, and Oldest for how long the
	// first of them.
	Ownerless int           `json:"ownerless"`
	Unowned   int           `json:"unowned"`
	Oldest    time.Duration `json:"-"`
	Pairing   int           `json:"pairing"`      // for longer than its bound
	Done      int           `json:"disconnected"` // in place of a worker
}

// sweepNote is the fleet's record SWEEP: what the next sweep has to know.
type sweepNote struct {
	V        int                  `json:"v"`
	LookedAt time.Time            `json:"lookedAt"`          // at the status of every session
	Wanted   int                  `json:"wanted,omitempty"`  // how many should run, then
	Unowned  map[string]time.Time `json:"unowned,omitempty"` // since when they were seen so
	Pairing  map[string]time.Time `json:"pairing,omitempty"` // since when they are, by their status
}

var sweepKey = state.Key{Kind: state.KindFleet, ID: "SWEEP"}

// Sweep looks for what is wrong and raises it. It changes no owner, but for what
// Config.Offline does.
func (g *Gateway) Sweep(ctx context.Context) (Swept, error) {
	began := time.Now()
	s := Swept{Event: "sweep", Done: g.withoutWorkers(ctx)}
	before, rev, same, err := g.lastSweep(ctx)
	if err != nil {
		return s, err
	}
	all, err := g.owners(ctx)
	if err != nil {
		return s, err
	}
	// After the owners: one that a later roster does not have is forgotten.
	sight, err := g.cfg.View.Fresh(ctx)
	if err != nil {
		return s, fmt.Errorf("reading the roster: %w", err)
	}
	s.count(all, sight)
	now := g.cfg.Now().UTC().Truncate(time.Second)
	next := sweepNote{V: state.Format, LookedAt: before.LookedAt, Wanted: before.Wanted, Unowned: map[string]time.Time{}, Pairing: map[string]time.Time{}}
	whole := now.Sub(before.LookedAt) >= lookEvery || before.LookedAt.After(now)
	if whole {
		next.LookedAt, next.Wanted = now, 0
	}
	if err := g.look(ctx, all, sight, before, &next, now, whole); err != nil {
		return s, err
	}
	s.Ownerless, s.Wanted = len(next.Unowned), next.Wanted
	overdue := g.raise(&s, next, sight, all, now)
	next.Unowned, next.Pairing = oldest(next.Unowned), oldest(next.Pairing)
	if err := g.keep(ctx, before, next, rev+1, same); err != nil {
		return s, err
	}
	g.emit(s.metrics(time.Since(began))...)
	if overdue > logged {
		g.cfg.Log.Warn("more sessions have no live owner, or pair without end, than have a line here", "more", overdue-logged)
	}
	return s, nil
}

// count counts workers and who has sessions.
func (s *Swept) count(all []state.Owner, sight fleet.Sight) {
	s.Sessions = len(all)
	alive := map[string]bool{}
	bounded := true
	for _, m := range sight.Members {
		switch st := sight.Standing(m.Incarnation); {
		case m.Info.Tool:
		case st == fleet.Stale:
			s.Stale++
		case st != fleet.Alive:
		default:
			s.Workers++
			alive[m.Incarnation] = true
			s.Online += m.Load.Online
			if m.Drain || m.Load.Draining {
				s.Draining++
				continue
			}
			bounded = bounded && m.Info.Capacity > 0
			s.Capacity += m.Info.Capacity
		}
	}
	if !bounded {
		s.Capacity = 0
	}
	for _, o := range all {
		if alive[o.Incarnation] {
			s.Owned++
		}
	}
}

// metrics are what the sweep tells CloudWatch: gauges of the whole fleet, once a
// minute, so that their Maximum or Minimum is the figure. None of their names is one
// of the workers' (see package emf).
func (s *Swept) metrics(took time.Duration) []emf.Metric {
	// What each worker would have if they shared all that should be had: what has to
	// be scaled by. Those that drain will not be there.
	load := s.Owned + s.Ownerless
	staying := s.Workers - s.Draining
	all := []emf.Metric{
		emf.One("Sessions", float64(s.Sessions), "Count"),
		emf.One("SessionsWanted", float64(s.Wanted), "Count"),
		emf.One("SessionsOwned", float64(s.Owned), "Count"),
		emf.One("SessionsOnline", float64(s.Online), "Count"),
		emf.One("SessionsOwnerless", float64(s.Ownerless), "Count"),
		emf.One("SessionsUnowned", float64(s.Unowned), "Count"),
		emf.One("SessionsPerWorker", float64(load)/float64(max(1, staying)), "Count"),
		emf.One("UnownedOldest", s.Oldest.Seconds(), "Seconds"),
		emf.One("PairingsStale", float64(s.Pairing), "Count"),
		emf.One("WorkersAlive", float64(s.Workers), "Count"),
		emf.One("WorkersDraining", float64(s.Draining), "Count"),
		emf.One("WorkersStale", float64(s.Stale), "Count"),
		emf.One("SweepDuration", float64(took.Milliseconds()), "Milliseconds"),
	}
	if s.Capacity > 0 {
		all = append(all, emf.One("CapacityUsed", 100*float64(load)/float64(s.Capacity), "Percent"))
	}
	return all
}

// withoutWorkers carries out what must not wait, where it can.
func (g *Gateway) withoutWorkers(ctx context.Context) int {
	if g.cfg.Offline == nil {
		return 0
	}
	err := g.cfg.Open(ctx)
	n := 0
	if err == nil {
		n, err = g.cfg.Offline.Sweep(ctx)
	}
	if err != nil {
		g.cfg.Log.Warn("looking for what no worker is there to do; the next sweep tries again", "error", err)
	}
	return n
}

// owners lists all sessions.
func (g *Gateway) owners(ctx context.Context) ([]state.Owner, error) {
	var all []state.Owner
	for after := ""; ; {
		page, err := g.cfg.Store.Sessions(ctx, after, sessionsPage)
		if err != nil {
			return nil, fmt.Errorf("listing the sessions: %w", err)
		}
		if len(page) == 0 {
			return all, nil
		}
		all = append(all, page...)
		after = page[len(page)-1].Session
	}
}

// look reads what has to be read of the sessions, and notes since when each is
// without an owner or pairing.
func (g *Gateway) look(ctx context.Context, all []state.Owner, sight fleet.Sight, before sweepNote, next *sweepNote, now time.Time, whole bool) error {
	var mu sync.Mutex
	var failed []error
	places := make(chan struct{}, atATime)
	var readers sync.WaitGroup
	for _, o := range all {
		owned := sight.Standing(o.Incarnation) == fleet.Alive
		_, paired := before.Pairing[o.Session]
		keys := []state.Key{{Kind: state.KindSpec}}
		if owned {
			if !whole && !paired {
				continue
			}
			keys = append(keys, state.Key{Kind: state.KindStatus})
		}
		places <- struct{}{}
		readers.Go(func() {
			defer func() { <-places }()
			records, err := g.cfg.Store.GetMany(ctx, state.OfSession(o.Session), keys)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, err)
				return
			}
			var spec state.Spec
			var status state.Status
			for _, r := range records {
				switch r.Key.Kind {
				case state.KindSpec:
					if state.Decode(r.Value, &spec) != nil {
						spec.Wanted = state.WantRunning // what it should be is lost; that nobody has it counts
					}
				case state.KindStatus:
					_ = state.Decode(r.Value, &status) // the API tells of one that cannot be read
				}
			}
			if whole && spec.Wanted == state.WantRunning {
				next.Wanted++
			}
			switch {
			case spec.Wanted != state.WantRunning: // or it is gone
			case !owned:
				next.Unowned[o.Session] = now
				if since, known := before.Unowned[o.Session]; known && since.Before(now) {
					next.Unowned[o.Session] = since
				}
			case status.State == state.Pairing:
				next.Pairing[o.Session] = status.Since.UTC().Truncate(time.Second)
			}
		})
	}
	readers.Wait()
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("reading sessions: %w", err)
	}
	return nil
}

// raise counts and logs what has gone on for too long, and returns how many lines
// there would be.
func (g *Gateway) raise(s *Swept, n sweepNote, sight fleet.Sight, all []state.Owner, now time.Time) int {
	owners := make(map[string]string, len(n.Unowned))
	for _, o := range all {
		if _, raised := n.Unowned[o.Session]; raised {
			owners[o.Session] = o.Incarnation
		}
	}
	lines := 0
	for _, name := range slices.Sorted(maps.Keys(n.Unowned)) {
		since := n.Unowned[name]
		age := now.Sub(since)
		if age < g.cfg.UnownedAfter {
			continue
		}
		s.Unowned++
		s.Oldest = max(s.Oldest, age)
		if lines++; lines <= logged {
			g.cfg.Log.Error("a session that should run has no live owner", "session", name, "state", state.Unowned,
				"since", since.Format(time.RFC3339), "worker", owners[name], "ownerIs", sight.Standing(owners[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.Pairing)) {
		if now.Sub(n.Pairing[name]) < g.cfg.PairingAfter {
			continue
		}
		s.Pairing++
		if lines++; lines <= logged {
			g.cfg.Log.Warn("a session pairs without end: scan its QR, or stop it", "session", name, "state", state.Pairing,
				"since", n.Pairing[name].Format(time.RFC3339))
		}
	}
	return lines
}

// oldest are as many as are kept, those of the longest time first.
func oldest(m map[string]time.Time) map[string]time.Time {
	if len(m) <= kept {
		return m
	}
	names := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(m[a].Compare(m[b]), cmp.Compare(a, b))
	})
	short := make(map[string]time.Time, kept)
	for _, name := range names[:kept] {
		short[name] = m[name]
	}
	return short
}

// lastSweep reads what the last sweep has noted, with the revision of that and the
// condition that it is still so.
func (g *Gateway) lastSweep(ctx context.Context) (sweepNote, uint64, state.Condition, error) {
	var n sweepNote
	r, err := g.cfg.Store.Get(ctx, state.Fleet, sweepKey)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return n, 0, state.Absent(), nil
	case err != nil:
		return n, 0, state.Condition{}, fmt.Errorf("reading what the last sweep found: %w", err)
	}
	if err := state.Decode(r.Value, &n); err != nil {
		// Since when is lost; what is so now is found again.
		g.cfg.Log.Warn("what the last sweep found cannot be read; it is written anew", "error", err)
		return sweepNote{}, r.Rev, state.AtRev(r.Rev), nil
	}
	return n, r.Rev, state.AtRev(r.Rev), nil
}

// keep stores what the next sweep has to know, where it has changed. Of two
// sweeps at a time one does.
func (g *Gateway) keep(ctx context.Context, before, next sweepNote, rev uint64, only state.Condition) error {
	same := func(a, b map[string]time.Time) bool { return maps.EqualFunc(a, b, time.Time.Equal) }
	if next.LookedAt.Equal(before.LookedAt) && same(before.Unowned, next.Unowned) && same(before.Pairing, next.Pairing) {
		return nil
	}
	value, err := state.Encode(next)
	if err != nil {
		return err
	}
	w := state.Put(sweepKey.Kind, sweepKey.ID, value)
	w.Rev, w.If = rev, only
	if err := g.cfg.Store.Update(ctx, state.Fleet, []state.Write{w}); err != nil && !errors.Is(err, state.ErrConflict) {
		return fmt.Errorf("noting what the sweep found: %w", err)
	}
	return nil
}
