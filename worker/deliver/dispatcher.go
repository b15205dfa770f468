package deliver

import (
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// Records is what is read of the store: stored events, cursors, dead letters.
type Records interface {
	Get(ctx context.Context, p state.Partition, key state.Key) (state.Record, error)
	GetMany(ctx context.Context, p state.Partition, keys []state.Key) ([]state.Record, error)
	Query(ctx context.Context, p state.Partition, q state.Query) (state.Page, error)
}

// Keyset opens stored events and seals dead letters: the fleet's.
type Keyset interface {
	Seal(p seal.Place, plaintext []byte) ([]byte, error)
	Open(p seal.Place, sealed []byte) ([]byte, error)
}

// Outcome is one turn of a lane, for metrics.
type Outcome struct {
	Session  string
	Sink     string
	Result   string // delivered, refused, failed
	Events   int    // events that the sink took; for refused and failed those before the one in question
	Duration time.Duration
}

// The results of an Outcome.
const (
	ResultDelivered = "delivered"
	ResultRefused   = "refused"
	ResultFailed    = "failed"
)

// Config is what a Dispatcher needs. Records and Fleet must be set.
type Config struct {
	Records Records
	Fleet   Keyset
	Vault   Vault // where events are that do not fit into a record; nil: they are delivered without their data

	Places    int           // turns at a time for each sink name; default 64. Half of them are for lanes whose last turn did not fail
	PauseMin  time.Duration // after the first failure, doubling; default 2 s
	PauseMax  time.Duration // and at most; default 2 min
	TailBytes int           // of all tails in memory together; default 16 MiB
	Grace     time.Duration // how long Run waits for running turns when it ends; default 3 s

	Now     func() time.Time
	Jitter  func() float64 // [0,1)
	Log     *slog.Logger
	Observe func(Outcome) // after each turn; must not block
}

// The bounds of what is held in memory for one session.
const (
	batchEvents  = 100
	sessionBytes = 1 << 20
)

// Dispatcher gives the lanes of all sessions their turns.
type Dispatcher struct {
	cfg  Config
	wake chan struct{}

	mu        sync.Mutex
	queues    map[string]*Queue
	classes   map[string]*class
	paused    pauses
	tailBytes int
	chores    []func() // to be run by Run, off the callers' goroutines
	tasks     sync.WaitGroup
}

// class is the lanes with work of one sink name, in two lines: those whose
// receiver is well, and those whose receiver failed last time.
type class struct {
	well, ill             []*lane
	running, runningAsIll int
}

// New makes a Dispatcher; Run makes it work.
func New(c Config) *Dispatcher {
	if c.Places <= 0 {
		c.Places = 64
	}
	c.Places = max(c.Places, 2)
	if c.PauseMin <= 0 {
		c.PauseMin = 2 * time.Second
	}
	if c.PauseMax <= 0 {
		c.PauseMax = 2 * time.Minute
	}
	if c.TailBytes <= 0 {
		c.TailBytes = 16 << 20
	}
	if c.Grace <= 0 {
		c.Grace = 3 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Jitter == nil {
		c.Jitter = rand.Float64
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Observe == nil {
		c.Observe = func(Outcome) {}
	}
	return &Dispatcher{cfg: c, wake: make(chan struct{}, 1), queues: map[string]*Queue{}, classes: map[string]*class{}}
}

// ErrAttached is returned when a session is attached twice.
var ErrAttached = errors.New("session has a queue already")

// Run gives turns until ctx ends, then cancels the running ones and waits for
// them, at most Config.Grace. It returns nil.
func (d *Dispatcher) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(d.start(ctx))
		select {
		case <-ctx.Done():
		case <-d.wake:
		case <-timer.C:
		}
	}
	done := make(chan struct{})
	go func() {
		d.tasks.Wait()
		close(done)
	}()
	grace := time.NewTimer(d.cfg.Grace)
	defer grace.Stop()
	select {
	case <-done:
	case <-grace.C:
		// A turn that does not end is one that writes to a pipe nobody reads.
		d.cfg.Log.Warn("a delivery did not end in time; its events are delivered again")
	}
	return nil
}

// start begins as many turns as there are places for, and says when the next
// pause is over.
func (d *Dispatcher) start(ctx context.Context) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.cfg.Now()
	for len(d.paused) > 0 && !d.paused[0].due.After(now) {
		d.enqueue(heap.Pop(&d.paused).(*lane))
	}
	for _, chore := range d.chores {
		d.tasks.Go(chore)
	}
	d.chores = nil
	for _, c := range d.classes {
		for c.running < d.cfg.Places {
			var l *lane
			switch {
			case len(c.ill) > 0 && c.runningAsIll == 0, len(c.ill) > 0 && len(c.well) == 0 && c.runningAsIll < d.cfg.Places/2:
				l, c.ill = c.ill[0], c.ill[1:]
			case len(c.well) > 0:
				l, c.well = c.well[0], c.well[1:]
			}
			if l == nil {
				break
			}
			c.running++
			if l.asIll = l.failures > 0; l.asIll {
				c.runningAsIll++
			}
			l.phase = running
			l.q.turns++
			d.tasks.Go(func() { d.turn(ctx, c, l) })
		}
	}
	if len(d.paused) > 0 {
		return max(d.paused[0].due.Sub(now), time.Millisecond)
	}
	return time.Hour
}

// enqueue puts a lane at the end of its line. d.mu is held.
func (d *Dispatcher) enqueue(l *lane) {
	c := d.classes[l.sink.Name()]
	if c == nil {
		c = &class{}
		d.classes[l.sink.Name()] = c
	}
	l.phase = queued
	if l.failures > 0 {
		c.ill = append(c.ill, l)
	} else {
		c.well = append(c.well, l)
	}
}

func (d *Dispatcher) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// pause is how long a lane waits after so many failed turns in a row: doubling
// up to PauseMax, less 0 to 20 %.
func (d *Dispatcher) pause(failures int, err error) time.Duration {
	p := min(d.cfg.PauseMin<<min(failures-1, 16), d.cfg.PauseMax)
	p -= time.Duration(d.cfg.Jitter() * 0.2 * float64(p))
	if after := (*Later)(nil); errors.As(err, &after) {
		p = max(p, min(after.After, laterLimit))
	}
	return p
}

// pauses is a heap of the lanes that wait, by the end of their pause.
type pauses []*lane

func (p pauses) Len() int           { return len(p) }
func (p pauses) Less(i, j int) bool { return p[i].due.Before(p[j].due) }
func (p pauses) Swap(i, j int) {
	p[i], p[j] = p[j], p[i]
	p[i].place, p[j].place = i, j
}
func (p *pauses) Push(x any) {
	l := x.(*lane)
	l.place = len(*p)
	*p = append(*p, l)
}
func (p *pauses) Pop() any {
	old := *p
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*p = old[:len(old)-1]
	return l
}
