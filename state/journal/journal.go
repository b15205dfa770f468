// Package journal is the one commit queue of a session: everything that the
// session's owner writes under its epoch goes through one Journal, one commit
// after another.
//
// A commit is a batch of writes and events. Its events get their sequence
// numbers in the commit itself, so the numbers of a session have no gaps even
// when a batch fails, and an event is stored together with what it tells of.
// Writes that may wait (Lazy) ride on the next commit.
//
// A journal that cannot tell what the store holds is of no further use: it
// breaks, says so once, and fails from then on. A new one is opened under a new
// epoch, or after the owner has found that its epoch still holds.
//
//	Commit ──┐            ┌─ nil ───────────── Committed(events)
//	Lazy ────┤─ one queue ┤─ ErrConflict ───── the caller's own condition
//	Delivered┘            └─ anything else ─── Broken, for good
package journal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// Defaults of a Config.
const (
	DefaultRetry     = 3 * time.Second
	DefaultMaxEvents = 10_000
	DefaultMaxAge    = 7 * 24 * time.Hour
	DefaultLazy      = 45 * time.Second
)

// ErrClosed is what a closed journal fails with.
var ErrClosed = errors.New("the journal is closed")

// Config is what a journal needs. Store, Fence and Fleet are required.
type Config struct {
	Store state.Store
	Fence state.Fence
	Fleet *seal.Keyset // seals events, so that the admin side can read them
	// Vault takes events that are too large for a record; nil: their data is
	// dropped.
	Vault Vault
	Now   func() time.Time

	// Retry is how long an unavailable store is asked again, with the same
	// token, before the journal breaks. It must stay below the time that the
	// owner trusts its lease. Default 3 s.
	Retry time.Duration
	// LazyAfter is how long a lazy write waits for a commit to ride on.
	// Default 45 s.
	LazyAfter time.Duration

	// Committed is called after each commit that had events, in order of Seq.
	// It must not block, and must not call the journal.
	Committed func(events []state.Event)
	// Broken is called once, synchronously, when the journal breaks. It must
	// not call the journal's Commit, Flush or Close.
	Broken func(error)

	// MaxEvents and MaxAge bound the queue of undelivered events; see Full.
	// Defaults 10,000 and 7 days. Delivered events stay readable, without the
	// content of messages, until they are MaxAge old.
	MaxEvents int
	MaxAge    time.Duration
	// Sinks are those that must have had an event before its content is
	// removed. Empty: those that have ever called Delivered. While there are
	// none at all, events expire with MaxAge and the queue is never full.
	Sinks []string
	// Trim removes from a delivered event what need not be kept. The default
	// drops the data of received messages.
	Trim func(state.Event) state.Event
}

// Draft is an event before its commit. An empty ID is filled with a new ULID, a
// zero Time with now.
type Draft struct {
	Type state.EventType
	Time time.Time
	Data any
	ID   string
}

// Batch is what one commit writes: all of it or nothing.
type Batch struct {
	Writes []state.Write
	Events []Draft
}

// Empty says that there is nothing to commit.
func (b Batch) Empty() bool { return len(b.Writes) == 0 && len(b.Events) == 0 }

// Journal is the commit queue of one session under one epoch. It is safe for
// concurrent use.
type Journal struct {
	cfg       Config
	partition state.Partition

	turn chan struct{} // holds one token: who has it may commit

	mu     sync.Mutex
	seq    uint64            // of the last event committed
	first  time.Time         // when the oldest undelivered event was committed; zero: none
	cursor map[string]uint64 // per sink
	head   headMark
	lazy   lazyWrites
	flying []state.Write // lazy writes in a commit that is under way
	recent recentEvents
	owed   owedTrims
	large  map[string]state.LargeEvent // objects of events that a lazy write trims, by record id
	timer  *time.Timer
	closed bool

	broken atomic.Pointer[brokenError]
}

// headMark is the record CUR without an id: the highest sequence number, kept
// apart so that numbers go on when all events have expired.
type headMark struct {
	seq uint64
	at  time.Time
}

// brokenError is why a journal broke.
type brokenError struct{ cause error }

func (e *brokenError) Error() string { return "journal broken: " + e.cause.Error() }
func (e *brokenError) Unwrap() error { return e.cause }

// Open reads where the session's events stand and returns a journal that goes
// on from there. Errors are the store's.
func Open(ctx context.Context, cfg Config) (*Journal, error) {
	if cfg.Store == nil || cfg.Fleet == nil || cfg.Fence.Session == "" {
		return nil, errors.New("journal: store, fence and fleet keyset are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Retry <= 0 {
		cfg.Retry = DefaultRetry
	}
	if cfg.LazyAfter <= 0 {
		cfg.LazyAfter = DefaultLazy
	}
	if cfg.MaxEvents <= 0 {
		cfg.MaxEvents = DefaultMaxEvents
	}
	if cfg.MaxAge <= 0 {
		cfg.MaxAge = DefaultMaxAge
	}
	if cfg.Trim == nil {
		cfg.Trim = dropContent
	}
	j := &Journal{
		cfg:       cfg,
		partition: state.OfSession(cfg.Fence.Session),
		turn:      make(chan struct{}, 1),
		cursor:    make(map[string]uint64, len(cfg.Sinks)),
	}
	j.turn <- struct{}{}
	for _, sink := range cfg.Sinks {
		j.cursor[sink] = 0
	}
	if err := j.load(ctx); err != nil {
		return nil, fmt.Errorf("opening the journal of %s: %w", cfg.Fence.Session, err)
	}
	return j, nil
}

// load finds the last sequence number, the sinks' cursors and the age of the
// oldest undelivered event.
func (j *Journal) load(ctx context.Context) error {
	cursors, err := j.cfg.Store.Query(ctx, j.partition, state.Query{Kind: state.KindCursor})
	if err != nil {
		return err
	}
	past := uint64(math.MaxUint64) // what every sink has had that there ever was
	for _, r := range cursors.Records {
		var c state.Cursor
		if err := state.Decode(r.Value, &c); err != nil {
			return fmt.Errorf("%s: %w", r.Key, err)
		}
		j.seq = max(j.seq, c.Seq)
		if r.Key.ID == "" {
			j.head.seq = c.Seq
			continue
		}
		past = min(past, c.Seq)
		if _, known := j.cursor[r.Key.ID]; known || len(j.cfg.Sinks) == 0 {
			j.cursor[r.Key.ID] = c.Seq
		}
	}
	last, err := j.cfg.Store.Query(ctx, j.partition, state.Query{Kind: state.KindEvent, Descending: true, Limit: 1})
	if err != nil {
		return err
	}
	for _, r := range last.Records {
		seq, err := seqOf(r.Key)
		if err != nil {
			return err
		}
		j.seq = max(j.seq, seq)
	}
	if low := j.delivered(); low < j.seq {
		next, err := j.cfg.Store.Query(ctx, j.partition, state.Query{Kind: state.KindEvent, After: state.EventID(low), Limit: 1})
		if err != nil {
			return err
		}
		for _, r := range next.Records {
			var e state.StoredEvent
			if err := state.Decode(r.Value, &e); err != nil {
				return fmt.Errorf("%s: %w", r.Key, err)
			}
			j.first = e.At
		}
	}
	if len(j.cursor) > 0 {
		if err := j.trimLeftOver(ctx, min(past, j.delivered())); err != nil {
			return err
		}
	}
	if j.head.seq < j.seq {
		j.mu.Lock() // the timer that this sets may run before the journal is shared
		j.markHead(j.cfg.Now())
		j.mu.Unlock()
	}
	return nil
}

// Session returns the name of the session.
func (j *Journal) Session() string { return j.cfg.Fence.Session }

// Fence returns the right under which the journal writes.
func (j *Journal) Fence() state.Fence { return j.cfg.Fence }

// Seq returns the number of the last event committed.
func (j *Journal) Seq() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seq
}

// Err returns why the journal broke, nil while it works. After Close it is
// ErrClosed.
func (j *Journal) Err() error {
	if b := j.broken.Load(); b != nil {
		return b
	}
	return nil
}

// Commit stores a batch together with lazy writes that fit beside it. When it
// returns nil all of the batch is durable.
//
// A ctx that ends while the commit waits for its turn ends the wait, and
// nothing is written. Once begun, the commit goes on to a known outcome whatever
// becomes of ctx.
//
// ErrConflict means that a condition of the batch's own did not hold; nothing
// was written and the journal goes on. Any other failure breaks the journal:
// the error then wraps the store's (ErrFenced, ErrUnavailable, ErrTooLarge).
func (j *Journal) Commit(ctx context.Context, b Batch) error {
	if b.Empty() {
		return j.Err()
	}
	if err := j.take(ctx); err != nil {
		return err
	}
	defer j.pass()
	return j.commit(ctx, b)
}

// Close ends the journal: what is under way ends first, lazy writes that were
// not flushed are forgotten. It does not call Broken.
func (j *Journal) Close() {
	<-j.turn
	defer j.pass()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	if j.timer != nil {
		j.timer.Stop()
	}
	j.lazy.clear()
	j.broken.CompareAndSwap(nil, &brokenError{ErrClosed})
}

// newToken returns a random idempotency token.
func newToken() string {
	return fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64())
}

// newULID returns a new event id; ids sort by time.
func newULID(now time.Time) string {
	return ulid.MustNew(ulid.Timestamp(now), ulid.DefaultEntropy()).String()
}

// seqOf reads the sequence number out of an event's key.
func seqOf(key state.Key) (uint64, error) {
	var seq uint64
	if _, err := fmt.Sscanf(strings.TrimLeft(key.ID, "0"), "%d", &seq); err != nil && strings.Trim(key.ID, "0") != "" {
		return 0, fmt.Errorf("%w: %s is not the id of an event", state.ErrCorrupt, key)
	}
	return seq, nil
}
