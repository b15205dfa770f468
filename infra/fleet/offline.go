package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

const (
	// within bounds one session's offline work from the tool's joining on. It is
	// below the shortest time after which a worker may declare the tool dead.
	within = 8 * time.Second
	// undoWithin bounds the giving back afterwards.
	undoWithin = 3 * time.Second
	// page is how many commands are looked at together.
	page = 200
)

// Config is what Offline stands on. Store, Vault, Fleet and View must be set.
type Config struct {
	Store state.Store
	Vault state.Vault
	Fleet *seal.Keyset
	View  *View // over the same store

	Info state.MemberInfo // what is said of the tool; Tool and Since are set here
	// Gone tells of an incarnation whose process is known to have ended; nil: of
	// none.
	Gone func(state.Member) bool
	Now  func() time.Time
	Log  *slog.Logger
	// Changed is told of a session that was changed; nil: nobody is.
	Changed func(session string)
}

// Offline disconnects and deletes sessions while no worker is alive.
type Offline struct{ cfg Config }

// New makes an Offline.
func New(c Config) (*Offline, error) {
	if c.Store == nil || c.Vault == nil || c.Fleet == nil || c.View == nil {
		return nil, errors.New("offline: store, vault, fleet keyset and view are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Gone == nil {
		c.Gone = func(state.Member) bool { return false }
	}
	if c.Changed == nil {
		c.Changed = func(string) {}
	}
	return &Offline{c}, nil
}

// Try carries out the open disconnect or delete of a session, if no worker is
// alive and nobody alive owns the session. Done is true if it did. It is false
// without an error where a worker will do it, or there is nothing to do.
func (h *Offline) Try(ctx context.Context, session string) (done bool, err error) {
	open, err := h.asked(ctx, session)
	if err != nil || len(open) == 0 {
		return false, err
	}
	owner, sight, err := h.owner(ctx, session)
	if err != nil {
		return false, err
	}
	free, err := h.free(ctx, sight, owner.Incarnation)
	if err != nil || !free {
		return false, err
	}
	tool, leave, err := h.join(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	got, err := h.cfg.Store.Claim(ctx, tool, owner)
	switch {
	case errors.Is(err, state.ErrFenced), errors.Is(err, state.ErrNotFound):
		return false, nil // somebody was faster
	case err != nil:
		return false, fmt.Errorf("claiming %s to disconnect it: %w", session, err)
	}
	fence := got[0].Fence()
	gone, err := h.carryOut(ctx, fence)
	if gone {
		h.cfg.Changed(session)
		return true, err
	}
	back, end := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
	defer end()
	if rel := h.cfg.Store.Release(back, fence); rel != nil {
		// Dead tools lose what they own to the next worker.
		h.cfg.Log.Warn("a session was not given back; the next worker takes it from the dead tool", "session", session, "error", rel)
	}
	h.cfg.Changed(session)
	return err == nil, err
}

// owner reads the owner, and the roster after it: an owner that a later roster
// does not have is remembered by nobody.
func (h *Offline) owner(ctx context.Context, session string) (state.Owner, Sight, error) {
	o, err := h.cfg.Store.Owner(ctx, session)
	if err != nil {
		return o, Sight{}, err
	}
	s, err := h.cfg.View.Fresh(ctx)
	return o, s, err
}

// free says that no worker is alive and the owner is dead or nobody. Heartbeats
// that were watched standing still for long enough are declared dead: that is
// what any observer may do, and the store refuses it if they have moved.
func (h *Offline) free(ctx context.Context, s Sight, owner string) (bool, error) {
	var ended []state.Member
	for _, m := range s.Members {
		switch {
		case m.Dead || m.Info.Tool && m.Incarnation != owner:
		case h.over(s, m):
			ended = append(ended, m)
		default:
			return false, nil
		}
	}
	for _, m := range ended {
		err := h.cfg.Store.DeclareDead(ctx, m.Incarnation, m.Beats)
		switch {
		case errors.Is(err, state.ErrConflict):
			return false, nil // it has beaten since
		case err != nil:
			return false, fmt.Errorf("declaring worker %s dead: %w", m.Incarnation, err)
		}
		h.cfg.Log.Warn("a worker has ended or its heartbeat stands still, and no other worker is there: it is declared dead", "worker", m.Incarnation)
	}
	return true, nil
}

// over says that a member's process has ended, or that it may be declared dead.
func (h *Offline) over(s Sight, m state.Member) bool { return s.StoodStill(m) || h.cfg.Gone(m) }

// join makes this process a tool that may own sessions; leave ends that.
func (h *Offline) join(ctx context.Context) (id string, leave func(), err error) {
	id = "tool-" + strings.ToLower(ulid.MustNew(ulid.Timestamp(h.cfg.Now()), rand.Reader).String())
	info := h.cfg.Info
	info.Tool, info.Since, info.Format = true, h.cfg.Now().UTC(), state.Format
	if _, err := h.cfg.Store.Join(ctx, id, info); err != nil {
		return "", nil, fmt.Errorf("joining the fleet as a tool: %w", err)
	}
	return id, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
		defer cancel()
		err := h.cfg.Store.DeclareStopped(ctx, id)
		if err == nil {
			err = h.cfg.Store.Forget(ctx, id)
		}
		if err != nil {
			h.cfg.Log.Warn("the tool's entry in the roster stays; workers declare it dead", "tool", id, "error", err)
		}
		_, _ = h.cfg.View.Fresh(ctx) // what is shown next knows who died; if not, a moment later
	}, nil
}

// opened is a command that has not ended, with its record's revision.
type opened struct {
	state.Command
	rev uint64
}

// about says that a command is one that is carried out here.
func about(v state.Verb) bool { return v == state.VerbDisconnect || v == state.VerbDelete }

// asked lists the open commands of a session, if what is carried out here is
// among them; else none.
func (h *Offline) asked(ctx context.Context, session string) ([]opened, error) {
	var open []opened
	ours := false
	for after := ""; ; {
		got, err := h.cfg.Store.Query(ctx, state.OfSession(session), state.Query{Kind: state.KindCommand, After: after, Limit: page})
		if err != nil {
			return nil, err
		}
		for _, r := range got.Records {
			after = r.Key.ID
			var c state.Command
			if err := state.Decode(r.Value, &c); err != nil || c.State.Final() {
				continue // one that cannot be read is told of by whoever runs the session
			}
			open = append(open, opened{c, r.Rev})
			ours = ours || about(c.Verb)
		}
		if !got.More || len(got.Records) == 0 {
			break
		}
	}
	if !ours {
		return nil, nil
	}
	return open, nil
}

// Sweep tries every session that has an open command under nobody or under an
// incarnation that is not alive. It returns how many it carried out.
func (h *Offline) Sweep(ctx context.Context) (int, error) {
	s, err := h.cfg.View.Fresh(ctx)
	if err != nil {
		return 0, err
	}
	indexes := []string{""}
	for _, m := range s.Members {
		// A worker that may be alive does what there is to do.
		switch {
		case m.Dead || m.Info.Tool || h.over(s, m):
			indexes = append(indexes, m.Incarnation)
		default:
			return 0, nil
		}
	}
	names := map[string]struct{}{}
	for _, id := range indexes {
		if err := h.listed(ctx, state.CommandIndex(id), names); err != nil {
			return 0, err
		}
	}
	n := 0
	var failed []error
	for name := range names {
		done, err := h.Try(ctx, name)
		if done {
			n++
		}
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			failed = append(failed, fmt.Errorf("session %s: %w", name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return n, errors.Join(failed...)
}

// listed adds the sessions of an index that have a command for here.
func (h *Offline) listed(ctx context.Context, index string, names map[string]struct{}) error {
	var after *state.Indexed
	for {
		got, err := h.cfg.Store.Indexed(ctx, index, after, page)
		if err != nil {
			return err
		}
		for i := range got {
			after = &got[i]
			var c state.Command
			if name, ok := got[i].Partition.Session(); ok && state.Decode(got[i].Value, &c) == nil && about(c.Verb) {
				names[name] = struct{}{}
			}
		}
		if len(got) == 0 {
			return nil
		}
	}
}

// Run sweeps until ctx ends: what was asked for while a worker still looked
// alive is done once it is known to be dead.
func (h *Offline) Run(ctx context.Context, every time.Duration) {
	look := time.NewTicker(every)
	defer look.Stop()
	for {
		if _, err := h.Sweep(ctx); err != nil && ctx.Err() == nil {
			h.cfg.Log.Warn("looking for what no worker is there to do; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}
