package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
)

// The times of the protocol where a Config names none.
const (
	DefaultHeartbeat = 2 * time.Second
	DefaultTrust     = 8 * time.Second
	DefaultTakeover  = 12 * time.Second
	DefaultPoll      = 2 * time.Second
	DefaultSettle    = 30 * time.Second
)

// Store is what a Keeper needs of a store.
type Store interface {
	state.Owners
	state.Members
	state.Records
}

// Config is what a Keeper is made of. Store and Start are required. None of the
// functions is called with a lock held; those that say so must not block.
type Config struct {
	Store Store
	Info  state.MemberInfo // Since and Capacity are filled in at each join
	Log   *slog.Logger

	// Heartbeat, Trust and Takeover are h, F and T. Trust must be at least two
	// heartbeats, and Takeover at least a fifth longer than Trust: that distance
	// is what clocks may drift and a fence may take.
	Heartbeat, Trust, Takeover time.Duration
	// Poll is how often heartbeats and unowned sessions are looked at.
	Poll time.Duration
	// Settle is how long nothing is rebalanced after a change of the roster.
	Settle time.Duration
	// Capacity is how many sessions this worker runs at most; 0: no bound.
	Capacity int
	Clock    Clock // nil: the host's

	// Prepare loads what a session needs before it is claimed. An error: it is
	// not claimed now, and tried again after a growing pause. Up to 16 run at a
	// time. nil: there is nothing to load.
	Prepare func(ctx context.Context, session string) (any, error)
	// Turn asks for a session's turn to log in: 0 now, and the turn is kept for
	// it; else how long to wait before asking again. nil: always now.
	Turn func(session string) time.Duration
	// Start runs a session; it must not block. The session lives in l.Context().
	// When all of it has ended, whatever the reason, l.Release is called once.
	Start func(l *Lease)
	// Gone tells of an incarnation whose process is known to have ended. nil:
	// nothing is known.
	Gone func(m state.Member) bool
	// Joined is told each id before this worker joins under it: another one after
	// an incarnation was declared dead. nil: nobody is told.
	Joined func(incarnation string)
	// Online is how many of the sessions are connected, for the load. nil: 0.
	Online func() int

	Observe Observer
}

// Observer is told what happens, for metrics. Any of its functions may be nil;
// none may block.
type Observer struct {
	// Died: this worker declared another incarnation dead.
	Died func(incarnation string)
	// Taken: a session was claimed from a dead incarnation (dead is true) or from
	// nobody; after is the time since it was first seen to be claimable here.
	Taken func(session string, dead bool, after time.Duration)
	// Given: a session was handed over to another worker, or released to nobody
	// where to is empty.
	Given func(session, to string)
	// Fenced: trust was over, and that many sessions were cut.
	Fenced func(sessions int)
	// Trust is what was left when a heartbeat was sent.
	Trust func(left time.Duration)
	// Alive is how many members are alive, this one included.
	Alive func(members int)
}

// pace holds the lesser times of a Keeper.
type pace struct {
	suspend    time.Duration // between looks at the clock that counts suspended time
	notes      time.Duration // between looks at notes of hand-overs, while there are any
	closing    time.Duration // between looks at the owners of sessions that are being handed over
	offer      time.Duration // for a target to get ready
	give       time.Duration // between two sessions given to balance
	own        time.Duration // between looks for own sessions that do not run
	roster     time.Duration // between readings of the roster that nothing asked for
	fresh      time.Duration // for which a death is fresh, and its sessions listed at each poll
	stale      time.Duration // between listings of a dead one's sessions afterwards
	full       time.Duration // between listings of all sessions
	forget     time.Duration // after which a dead member is forgotten
	prepare    time.Duration // for one Prepare
	retry      time.Duration // after a first failed Prepare, doubled each time
	retryMost  time.Duration
	cut        time.Duration // for all cuts of a fence together
	ending     time.Duration // for the leases of an incarnation to end
	call       time.Duration // for one call of the store, other than a heartbeat
	noteLife   time.Duration // of the notes in the store
	lastOrders time.Duration // before a drain's deadline, at which the rest is released to nobody
}

func defaultPace(cfg Config) pace {
	return pace{
		suspend: 250 * time.Millisecond, notes: 150 * time.Millisecond, closing: 50 * time.Millisecond,
		offer: 10 * time.Second, give: time.Second, own: 5 * time.Second, roster: 30 * time.Second,
		fresh: time.Minute, stale: 30 * time.Second, full: time.Hour, forget: time.Hour,
		prepare: 30 * time.Second, retry: time.Second, retryMost: time.Minute,
		cut: 100 * time.Millisecond, ending: 30 * time.Second, call: cfg.Trust / 2,
		noteLife: 2 * time.Minute, lastOrders: 10 * time.Second,
	}
}

const (
	preparesAtOnce = 16
	offersAtOnce   = 64 // a target
	closingAtOnce  = 16 // a target
	watchAll       = 8  // other members; of more, only some are watched
	watchSome      = 5
	listPage       = 500
	listMost       = 10_000 // sessions in one listing of candidates
)

// NewIncarnation makes the id of one run of a worker. Ids are never used again.
func NewIncarnation() string {
	return "w-" + ulid.MustNew(ulid.Now(), rand.Reader).String()
}

// filled checks a configuration and fills in what it leaves out.
func (cfg Config) filled() (Config, error) {
	if cfg.Store == nil || cfg.Start == nil {
		return cfg, errors.New("lease: Store and Start are required")
	}
	for _, d := range []struct {
		value *time.Duration
		usual time.Duration
	}{
		{&cfg.Heartbeat, DefaultHeartbeat}, {&cfg.Trust, DefaultTrust}, {&cfg.Takeover, DefaultTakeover},
		{&cfg.Poll, DefaultPoll}, {&cfg.Settle, DefaultSettle},
	} {
		if *d.value == 0 {
			*d.value = d.usual
		}
		if *d.value < 0 {
			return cfg, fmt.Errorf("lease: a time of %s: must be positive", *d.value)
		}
	}
	if cfg.Trust < 2*cfg.Heartbeat {
		return cfg, fmt.Errorf("lease: trust of %s: must be at least two heartbeats of %s", cfg.Trust, cfg.Heartbeat)
	}
	if cfg.Takeover < cfg.Trust+cfg.Trust/5 {
		return cfg, fmt.Errorf("lease: takeover after %s: must be at least a fifth longer than the trust of %s, or two workers could hold a session", cfg.Takeover, cfg.Trust)
	}
	if cfg.Poll >= cfg.Takeover/2 {
		// Who looks more seldom cannot tell a worker that stands still from one that it
		// did not look at.
		return cfg, fmt.Errorf("lease: poll of %s: must be less than half of the takeover time of %s", cfg.Poll, cfg.Takeover)
	}
	if cfg.Capacity < 0 {
		return cfg, fmt.Errorf("lease: capacity of %d: is 0 (no bound) or more", cfg.Capacity)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = hostClock{}
	}
	if cfg.Prepare == nil {
		cfg.Prepare = func(context.Context, string) (any, error) { return nil, nil }
	}
	if cfg.Turn == nil {
		cfg.Turn = func(string) time.Duration { return 0 }
	}
	if cfg.Gone == nil {
		cfg.Gone = func(state.Member) bool { return false }
	}
	if cfg.Joined == nil {
		cfg.Joined = func(string) {}
	}
	if cfg.Online == nil {
		cfg.Online = func() int { return 0 }
	}
	cfg.Observe = cfg.Observe.filled()
	return cfg, nil
}

func (o Observer) filled() Observer {
	if o.Died == nil {
		o.Died = func(string) {}
	}
	if o.Taken == nil {
		o.Taken = func(string, bool, time.Duration) {}
	}
	if o.Given == nil {
		o.Given = func(string, string) {}
	}
	if o.Fenced == nil {
		o.Fenced = func(int) {}
	}
	if o.Trust == nil {
		o.Trust = func(time.Duration) {}
	}
	if o.Alive == nil {
		o.Alive = func(int) {}
	}
	return o
}
