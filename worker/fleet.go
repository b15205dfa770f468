package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

const (
	// versionEvery is the shortest time between two looks for a newer WhatsApp
	// version by the whole fleet.
	versionEvery = time.Minute
	// versionFresh is how long a change of the version counts as new for a
	// session that was refused.
	versionFresh = 5 * time.Minute
	// syncWithin is how long a session with a deadline waits for the service's
	// clock after a start.
	syncWithin = 3 * time.Second
	// reachWithin bounds one check of WhatsApp.
	reachWithin = 20 * time.Second
)

// upstream is what the fleet needs of the service.
type upstream interface {
	Version() string
	SetVersion(version string) error
	LatestVersion(ctx context.Context, via string) (string, error)
	Reachable(ctx context.Context, via string) error
	ClockOffset() time.Duration
}

// fleet is what the sessions of this process share: their turn to log in, the
// breaker, the WhatsApp version, and whether WhatsApp answers.
type fleet struct {
	store   state.Records
	svc     upstream
	breaker *policy.Breaker
	bucket  *rate.Limiter
	every   time.Duration // of the reachability check; 0: off
	log     *slog.Logger
	flight  singleflight.Group

	mu     sync.Mutex
	places map[string]time.Time // who may log in when
	reach  map[string]bool      // by proxy
	synced chan struct{}        // closed when the service's clock was first looked at
	change time.Time            // when the version last changed
	looked time.Time
}

func newFleet(store state.Records, svc upstream, perSecond float64, burst int, every time.Duration, log *slog.Logger) *fleet {
	return &fleet{
		store: store, svc: svc, breaker: policy.NewBreaker(), bucket: rate.NewLimiter(rate.Limit(perSecond), burst),
		every: every, log: log,
		places: make(map[string]time.Time), synced: make(chan struct{}), reach: map[string]bool{"": true},
	}
}

// Ask implements session.Fleet.
func (f *fleet) Ask(session string, now time.Time) time.Duration {
	if wait := f.breaker.Ask(session, now); wait > 0 {
		return wait
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	at, has := f.places[session]
	if !has {
		at = now.Add(f.bucket.ReserveN(now, 1).DelayFrom(now))
	}
	if wait := at.Sub(now); wait > 0 {
		f.places[session] = at
		return wait
	}
	delete(f.places, session)
	return 0
}

// Turn keeps a place in the queue of logins for a session that is about to be
// handed to this worker, and says how long it must still wait for it.
func (f *fleet) Turn(session string) time.Duration {
	now := time.Now()
	if outage, open := f.breaker.Open(now); open && outage.String() != "" {
		return 0 // it will wait here as well as there
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	at, has := f.places[session]
	if !has {
		at = now.Add(f.bucket.ReserveN(now, 1).DelayFrom(now))
		f.places[session] = at
	}
	return max(at.Sub(now), 0)
}

// Failed implements session.Fleet.
func (f *fleet) Failed(session string, cause state.Cause, now time.Time) (bool, string) {
	opened := f.breaker.Report(session, cause, now)
	outage, open := f.breaker.Open(now)
	if opened {
		return open, outage.String()
	}
	return open, ""
}

// Succeeded implements session.Fleet.
func (f *fleet) Succeeded(session string, now time.Time) {
	if f.breaker.Succeeded(session, now) {
		f.log.Warn("the outage is over; sessions return at a bounded rate")
	}
}

// forget drops what is known of a session that has gone.
func (f *fleet) forget(session string) {
	f.breaker.Forget(session)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.places, session)
}

// Clock implements session.Fleet.
func (f *fleet) Clock() time.Time { return time.Now().Add(f.svc.ClockOffset()) }

// Synced implements session.Fleet.
func (f *fleet) Synced(ctx context.Context) {
	late := time.NewTimer(syncWithin)
	defer late.Stop()
	select {
	case <-f.synced:
	case <-late.C:
	case <-ctx.Done():
	}
}

// Reachable implements session.Fleet. A way that was never checked counts as good.
func (f *fleet) Reachable(proxy string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	ok, known := f.reach[proxy]
	if !known {
		f.reach[proxy] = true // from now on it is checked
		return true
	}
	return ok
}

// watchReach checks WhatsApp, once a process and proxy. It never disconnects
// anything: the network may recover.
func (f *fleet) watchReach(ctx context.Context) {
	first := sync.OnceFunc(func() { close(f.synced) })
	defer first()
	if f.every <= 0 {
		return
	}
	ticker := time.NewTicker(f.every)
	defer ticker.Stop()
	for {
		f.checkReach(ctx)
		first()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (f *fleet) checkReach(ctx context.Context) {
	f.mu.Lock()
	ways := make([]string, 0, len(f.reach))
	for way := range f.reach {
		ways = append(ways, way)
	}
	f.mu.Unlock()
	for _, way := range ways {
		try, cancel := context.WithTimeout(ctx, reachWithin)
		err := f.svc.Reachable(try, way)
		cancel()
		if ctx.Err() != nil {
			return
		}
		f.mu.Lock()
		was := f.reach[way]
		f.reach[way] = err == nil
		f.mu.Unlock()
		if was != (err == nil) {
			if err != nil {
				f.log.Warn("WhatsApp is unreachable; connections are left as they are", "error", err)
			} else {
				f.log.Info("WhatsApp is reachable again")
			}
		}
	}
}

// waVersion is the fleet's record WAVERSION.
type waVersion struct {
	V       int       `json:"v"`
	Version string    `json:"version"`
	At      time.Time `json:"at"`
}

// loadVersion takes the version that the fleet found last.
func (f *fleet) loadVersion(ctx context.Context) error {
	known, err := f.storedVersion(ctx)
	if err != nil || known.Version == "" {
		return err
	}
	if newerVersion(known.Version, f.svc.Version()) {
		return f.svc.SetVersion(known.Version)
	}
	return nil
}

func (f *fleet) storedVersion(ctx context.Context) (waVersion, error) {
	var known waVersion
	rec, err := f.store.Get(ctx, state.Fleet, state.Key{Kind: state.KindFleet, ID: "WAVERSION"})
	if errors.Is(err, state.ErrNotFound) {
		return known, nil
	}
	if err != nil {
		return known, fmt.Errorf("reading the WhatsApp version: %w", err)
	}
	return known, state.Decode(rec.Value, &known)
}

// RefreshVersion implements session.Fleet: however many sessions were refused,
// one of them looks.
func (f *fleet) RefreshVersion(ctx context.Context) (bool, error) {
	_, err, _ := f.flight.Do("version", func() (any, error) {
		f.mu.Lock()
		recent := time.Since(f.looked) < versionEvery
		if !recent {
			f.looked = time.Now()
		}
		f.mu.Unlock()
		if recent {
			return nil, nil
		}
		return nil, f.lookUp(context.WithoutCancel(ctx))
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.change.IsZero() && time.Since(f.change) < versionFresh, err
}

func (f *fleet) lookUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	known, err := f.storedVersion(ctx)
	if err != nil {
		return err
	}
	newest := known.Version
	if time.Since(known.At) >= versionEvery {
		// Nobody of the fleet has looked lately.
		if newest, err = f.svc.LatestVersion(ctx, ""); err != nil {
			return err
		}
		value, err := state.Encode(waVersion{V: state.Format, Version: newest, At: time.Now()})
		if err != nil {
			return err
		}
		if err := f.store.Update(ctx, state.Fleet, []state.Write{state.Put(state.KindFleet, "WAVERSION", value)}); err != nil {
			return fmt.Errorf("storing the WhatsApp version: %w", err)
		}
	}
	old := f.svc.Version()
	if newest == old {
		f.log.Warn("WhatsApp refuses this version as outdated, and names no newer one", "version", old)
		return nil
	}
	if err := f.svc.SetVersion(newest); err != nil {
		return err
	}
	f.mu.Lock()
	f.change = time.Now()
	f.mu.Unlock()
	f.log.Info("WhatsApp version changed", "from", old, "to", newest)
	return nil
}

// newerVersion compares versions of three numbers.
func newerVersion(a, b string) bool {
	var x, y [3]int
	if _, err := fmt.Sscanf(a, "%d.%d.%d", &x[0], &x[1], &x[2]); err != nil {
		return false
	}
	if _, err := fmt.Sscanf(b, "%d.%d.%d", &y[0], &y[1], &y[2]); err != nil {
		return true
	}
	for i := range x {
		if x[i] != y[i] {
			return x[i] > y[i]
		}
	}
	return false
}
