package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// Defaults of a Config: those of the workers' protocol, and how long a living
// owner has to give a session up.
const (
	DefaultHeartbeat = 2 * time.Second
	DefaultTrust     = 8 * time.Second
	DefaultTakeover  = 12 * time.Second
	DefaultPatience  = 60 * time.Second
)

// Config is what Export, Import and TakeBack work on. The first four are
// required.
type Config struct {
	Store  state.Store
	Vault  state.Vault
	Master seal.Master
	Fleet  *seal.Keyset
	Now    func() time.Time
	Log    *slog.Logger

	By      string // who asks, for the audit; default "local"
	Version string // of Holdfast, for people

	// Quarantine is how long the credentials stay at the source, sealed; 0 or less:
	// not at all.
	Quarantine time.Duration

	// Heartbeat, Trust and Takeover as the workers have them; Patience is how long
	// a living worker has to give the session up.
	Heartbeat, Trust, Takeover, Patience time.Duration
}

func (c *Config) fill() error {
	if c.Store == nil || c.Vault == nil || c.Master == nil || c.Fleet == nil {
		return errors.New("transfer: store, vault, master key and fleet keyset are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.By == "" {
		c.By = "local"
	}
	for _, d := range []struct {
		have *time.Duration
		dflt time.Duration
	}{{&c.Heartbeat, DefaultHeartbeat}, {&c.Trust, DefaultTrust}, {&c.Takeover, DefaultTakeover}, {&c.Patience, DefaultPatience}} {
		if *d.have <= 0 {
			*d.have = d.dflt
		}
	}
	return nil
}

// member is this command as a member of the fleet: it owns the session that it
// works on, and workers give it nothing else.
type member struct {
	cfg         Config
	incarnation string
	ctx         context.Context // ends with the trust
	stop        context.CancelCauseFunc
	beating     sync.WaitGroup
	owned       state.Owner // zero: nothing
}

// errTrust: no heartbeat was answered for so long that others may take over.
var errTrust = fmt.Errorf("%w for too long; run it again", state.ErrUnavailable)

// join makes this command a member. The returned one's ctx is to be worked in.
func join(ctx context.Context, cfg Config) (*member, error) {
	m := &member{cfg: cfg, incarnation: "tool-" + newID()}
	host, _ := os.Hostname() // for people only
	sent := time.Now()
	_, err := cfg.Store.Join(ctx, m.incarnation, state.MemberInfo{Host: host, Version: cfg.Version, Format: state.Format,
		Since: cfg.Now().UTC(), Tool: true})
	if err != nil {
		return nil, fmt.Errorf("joining the fleet: %w", err)
	}
	m.ctx, m.stop = context.WithCancelCause(ctx)
	m.beating.Go(func() { m.beat(sent) })
	return m, nil
}

// beat says that this command lives, until its ctx ends; and ends that when the
// trust is over, which runs from the moment that the last answered beat was sent.
func (m *member) beat(answered time.Time) {
	tick := time.NewTicker(m.cfg.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-tick.C:
		}
		sent := time.Now()
		try, cancel := context.WithTimeout(m.ctx, m.cfg.Heartbeat)
		err := m.cfg.Store.Beat(try, m.incarnation, state.Load{At: m.cfg.Now().UTC()})
		cancel()
		switch {
		case err == nil:
			answered = sent
		case errors.Is(err, state.ErrDead):
			m.stop(err)
			return
		case time.Since(answered) >= m.cfg.Trust:
			m.stop(errTrust)
			return
		}
	}
}

// leave gives the session up and ends the membership, so that nobody has to wait
// for a counter that stands still.
func (m *member) leave() error {
	m.stop(context.Canceled)
	m.beating.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ctx), m.cfg.Trust)
	defer cancel()
	var err error
	if m.owned.Session != "" {
		if err = m.cfg.Store.Release(ctx, m.owned.Fence()); errors.Is(err, state.ErrFenced) || errors.Is(err, state.ErrNotFound) {
			err = nil // somebody has it already
		}
	}
	if stopped := m.cfg.Store.DeclareStopped(ctx, m.incarnation); stopped == nil {
		_ = m.cfg.Store.Forget(ctx, m.incarnation) // workers forget the dead as well
	}
	return err
}

// failure is err, or what ended the work before.
func (m *member) failure(err error) error {
	if cause := context.Cause(m.ctx); err != nil && cause != nil && m.ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}

// commit writes under the fence until the outcome is known or the trust is over.
func (m *member) commit(writes ...state.Write) error {
	token := newID()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := m.cfg.Store.Commit(m.ctx, m.owned.Fence(), token, writes)
		if err == nil || !errors.Is(err, state.ErrUnavailable) {
			return err
		}
		if !m.pause(wait) {
			return m.failure(err)
		}
	}
}

// retries is how often a call is tried that has no fence and no token.
const retries = 5

// retry does what may be done again without harm until it is not told that the
// store or the vault is away, a few times.
func retry[T any](m *member, do func(ctx context.Context) (T, error)) (T, error) {
	wait := 20 * time.Millisecond
	for n := 1; ; n++ {
		v, err := do(m.ctx)
		if err == nil || !errors.Is(err, state.ErrUnavailable) || n == retries || !m.pause(wait) {
			return v, m.failure(err)
		}
		wait *= 4
	}
}

// pause waits; false if the work has ended meanwhile.
func (m *member) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.ctx.Done():
		return false
	}
}

func newID() string { return ulid.MustNew(ulid.Now(), rand.Reader).String() }
