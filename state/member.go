package state

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrDead says that the incarnation was declared dead, has been forgotten, or never
// joined. That is for good: it never beats, claims or is handed a session again.
var ErrDead = errors.New("the worker incarnation is dead")

// MaxIncarnation is the most bytes an incarnation's id may have.
const MaxIncarnation = 64

// MaxClaims is how many sessions one claim may take: what fits into one
// transaction of DynamoDB with room to spare.
const MaxClaims = 25

// Member is one worker incarnation as the store knows it: one run of one
// process, whose id is never used again.
type Member struct {
	Incarnation string
	// Joined numbers the incarnations in the order in which they joined, without
	// anybody's clock.
	Joined uint64
	// Beats is the heartbeat counter. It is 1 after Join and grows with each Beat.
	Beats uint64
	// Dead is permanent.
	Dead bool
	// Drain says that an operator wants this worker emptied.
	Drain bool
	Info  MemberInfo
	Load  Load
}

// MemberInfo is what an incarnation says of itself when it joins. Times are for
// people: nothing is decided by another host's clock.
type MemberInfo struct {
	Deployment string    `json:"deployment,omitempty"` // the revision that it was deployed with
	Task       string    `json:"task,omitempty"`       // what the platform calls the process: an ECS task's ARN
	Host       string    `json:"host,omitempty"`
	Version    string    `json:"version,omitempty"` // of Holdfast
	Format     int       `json:"format"`            // of the documents it writes, see Format
	Capacity   int       `json:"capacity"`          // sessions at most; 0: no bound
	Since      time.Time `json:"since,omitzero"`
	Tool       bool      `json:"tool,omitempty"` // not a worker: takes only what is handed to it by name
}

// Load is what an incarnation says with each heartbeat.
type Load struct {
	Sessions int           `json:"sessions"`
	Online   int           `json:"online"`
	Draining bool          `json:"draining,omitempty"` // it takes nothing more and gives what it has
	Giving   bool          `json:"giving,omitempty"`   // it has offers for others
	Trust    time.Duration `json:"trust"`              // what was left of its trust when it sent this
	At       time.Time     `json:"at,omitzero"`        // by its own clock, for people
}

// Roster is the list of all incarnations that are remembered, dead ones
// included, in the order in which they joined. Revision grows with each change
// of the list: a join, a death, a wish to drain, a removal; not with heartbeats.
type Roster struct {
	Revision uint64
	Members  []Member
}

// Pulse is what a look at some heartbeats finds.
type Pulse struct {
	Revision uint64           // of the roster
	Beats    map[string]Beats // of those asked for that are remembered
}

// Beats is one heartbeat counter and what was said with it.
type Beats struct {
	Count uint64
	Dead  bool
	Load  Load
}

// Members is the liveness half of a store: one heartbeat a worker, not one a
// session. An incarnation that nobody remembers counts as dead.
type Members interface {
	// Join makes an incarnation known and alive with Beats 1. ErrExists if its
	// id was used before and is remembered.
	Join(ctx context.Context, incarnation string, info MemberInfo) (Member, error)
	// Beat adds one to the incarnation's counter and stores what it says of its
	// load. ErrDead if it is not alive. It is not retried inside: its time counts.
	Beat(ctx context.Context, incarnation string, load Load) error
	// Roster lists all members as they are, not as they were a moment ago.
	Roster(ctx context.Context) (Roster, error)
	// Watch reads the roster's revision and the heartbeats of some members in
	// one round trip where the store has one. It may lag behind.
	Watch(ctx context.Context, incarnations []string) (Pulse, error)
	// DeclareDead marks an incarnation dead for good, if its counter is exactly
	// what the caller has seen standing still. ErrConflict if it has beaten
	// since; nil if it is dead already or not remembered.
	DeclareDead(ctx context.Context, incarnation string, seen uint64) error
	// DeclareStopped marks an incarnation dead for good whatever its counter is:
	// for a platform that knows its process has ended. nil if it is dead already;
	// ErrNotFound if it is not remembered.
	DeclareStopped(ctx context.Context, incarnation string) error
	// Drain asks an incarnation to give all its sessions away, or takes that
	// back. ErrNotFound if it is not remembered, ErrDead if it is dead.
	Drain(ctx context.Context, incarnation string, wanted bool) error
	// Forget removes a dead incarnation. ErrConflict if it is alive; nil if it
	// is not remembered. Its sessions are not touched.
	Forget(ctx context.Context, incarnation string) error
}

// CheckIncarnation tells whether an id can be an incarnation's: 1 to 64 letters,
// digits and dashes.
func CheckIncarnation(id string) error {
	if id == "" || len(id) > MaxIncarnation {
		return fmt.Errorf("worker id of %d bytes: has 1 to %d", len(id), MaxIncarnation)
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-':
		default:
			return fmt.Errorf("worker id %q: has letters, digits and dashes only", id)
		}
	}
	return nil
}

// CheckClaims tells whether sessions can be claimed together.
func CheckClaims(from []Owner, to string) error {
	if err := CheckIncarnation(to); err != nil {
		return fmt.Errorf("claim: %w; a session is given up with Release", err)
	}
	if len(from) == 0 || len(from) > MaxClaims {
		return fmt.Errorf("claim of %d sessions: 1 to %d at a time", len(from), MaxClaims)
	}
	seen := make(map[string]struct{}, len(from))
	for _, o := range from {
		if _, twice := seen[o.Session]; twice {
			return fmt.Errorf("claim: session %s is named twice", o.Session)
		}
		seen[o.Session] = struct{}{}
	}
	return nil
}
