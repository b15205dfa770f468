package fleet

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/holdfast-wa/holdfast/state"
)

// Defaults of a ViewConfig.
const (
	DefaultMaxAge   = time.Second
	DefaultTakeover = 12 * time.Second
	// DefaultSkew is how far the clocks of two hosts may differ before a beat
	// that has just been sent looks stale.
	DefaultSkew = 10 * time.Second
)

// readWithin bounds a read of the roster that several callers share.
const readWithin = 5 * time.Second

// Standing is what an owner is to a session.
type Standing string

// The standings. Stale is shown only; the others are certain.
const (
	Alive   Standing = "alive"
	Stale   Standing = "stale"   // its heartbeat has not been seen to move for the takeover time
	Dead    Standing = "dead"    // declared so, for good
	Unknown Standing = "unknown" // not remembered, which counts as dead
	Nobody  Standing = "nobody"
)

// ViewConfig is what a View stands on. Members must be set.
type ViewConfig struct {
	Members state.Members
	// Takeover is the T of the ownership protocol; it must be the workers'.
	Takeover time.Duration
	Skew     time.Duration
	// MaxAge is how old what is shown may be. Negative: every look reads.
	MaxAge time.Duration
	// Now is the clock that the times of heartbeats are compared with. What is
	// watched goes by the monotonic clock of this process.
	Now func() time.Time
}

// View is the fleet as this process sees it. It is safe for concurrent use.
type View struct {
	cfg    ViewConfig
	flight singleflight.Group

	mu   sync.Mutex
	last Sight
	seen map[string]sighting
	gone map[string]struct{} // found not to be remembered; ids are never used again
}

// maxGone bounds what is kept of incarnations that nobody remembers.
const maxGone = 1000

// sighting is a heartbeat counter as it was watched from here.
type sighting struct {
	count uint64
	since time.Time // when this count was seen first
	last  time.Time // and when last
	moved bool      // it was seen to move, at `since`
}

// NewView makes a View.
func NewView(c ViewConfig) *View {
	if c.Takeover <= 0 {
		c.Takeover = DefaultTakeover
	}
	if c.Skew <= 0 {
		c.Skew = DefaultSkew
	}
	if c.MaxAge == 0 {
		c.MaxAge = DefaultMaxAge
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &View{cfg: c, seen: map[string]sighting{}, gone: map[string]struct{}{}}
}

// Sight is the roster as it was read at one moment, with what the View knew of
// the heartbeats then.
type Sight struct {
	state.Roster
	at   time.Time
	view *View
	seen map[string]sighting
}

// Read returns the roster, at most MaxAge old.
func (v *View) Read(ctx context.Context) (Sight, error) {
	v.mu.Lock()
	last := v.last
	v.mu.Unlock()
	// A process that was frozen may have a monotonic clock that stood still.
	if age := max(time.Since(last.at), time.Now().Round(0).Sub(last.at.Round(0))); last.view != nil && age < v.cfg.MaxAge {
		return last, nil
	}
	done := v.flight.DoChan("", func() (any, error) {
		// Others wait for this read too: it does not end with its first caller.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readWithin)
		defer cancel()
		return v.Fresh(ctx)
	})
	select {
	case r := <-done:
		s, _ := r.Val.(Sight)
		return s, r.Err
	case <-ctx.Done():
		return Sight{}, ctx.Err()
	}
}

// Fresh reads the roster now. Who has read an owner before it called Fresh may
// conclude from what it does not find: an owner has joined before it owned.
func (v *View) Fresh(ctx context.Context) (Sight, error) {
	began := time.Now()
	r, err := v.cfg.Members.Roster(ctx)
	if err != nil {
		return Sight{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	seen := make(map[string]sighting, len(r.Members))
	for _, m := range r.Members {
		s, known := v.seen[m.Incarnation]
		switch {
		case !known:
			s = sighting{count: m.Beats, since: time.Now(), last: began}
		case m.Beats > s.count:
			s = sighting{count: m.Beats, since: time.Now(), last: began, moved: true}
		case m.Beats == s.count && began.After(s.last): // less is an older answer that was overtaken
			s.last = began
		}
		seen[m.Incarnation] = s
	}
	v.seen = seen
	s := Sight{Roster: r, at: began, view: v, seen: seen}
	if v.last.view == nil || began.After(v.last.at) {
		v.last = s
	}
	return s, nil
}

// Find returns a member of the roster.
func (s Sight) Find(incarnation string) (state.Member, bool) {
	for _, m := range s.Members {
		if m.Incarnation == incarnation {
			return m, true
		}
	}
	return state.Member{}, false
}

// Standing tells what an incarnation is; empty is nobody.
func (s Sight) Standing(incarnation string) Standing {
	if incarnation == "" {
		return Nobody
	}
	m, found := s.Find(incarnation)
	switch {
	case !found:
		return Unknown
	case m.Dead:
		return Dead
	case s.looksStale(m):
		return Stale
	}
	return Alive
}

// looksStale judges a heartbeat by how long this process has watched it stand
// still, or by the time that came with it where it was not watched for long.
func (s Sight) looksStale(m state.Member) bool {
	if s.StoodStill(m) {
		return true
	}
	if s.seen[m.Incarnation].moved {
		return false
	}
	said := m.Load.At
	if said.IsZero() {
		said = m.Info.Since
	}
	return !said.IsZero() && s.view.cfg.Now().Sub(said) > s.view.cfg.Takeover+s.view.cfg.Skew
}

// StoodStill says that this process has seen the member's counter at the same
// count for the takeover time, by its own clock: whoever has may declare it dead
// at that count.
func (s Sight) StoodStill(m state.Member) bool {
	seen, known := s.seen[m.Incarnation]
	return known && seen.count == m.Beats && seen.last.Sub(seen.since) >= s.view.cfg.Takeover
}

// Standing tells what the owner that was just read is, by a roster that is at
// most MaxAge old, or newer where that does not know the owner yet.
func (v *View) Standing(ctx context.Context, incarnation string) (Standing, error) {
	if incarnation == "" {
		return Nobody, nil
	}
	s, err := v.Read(ctx)
	if err != nil {
		return "", err
	}
	if st := s.Standing(incarnation); st != Unknown {
		return st, nil
	}
	v.mu.Lock()
	_, gone := v.gone[incarnation]
	v.mu.Unlock()
	if gone {
		return Unknown, nil
	}
	if s, err = v.Fresh(ctx); err != nil {
		return "", err
	}
	st := s.Standing(incarnation)
	if st == Unknown {
		v.mu.Lock()
		if len(v.gone) >= maxGone {
			clear(v.gone)
		}
		v.gone[incarnation] = struct{}{}
		v.mu.Unlock()
	}
	return st, nil
}
