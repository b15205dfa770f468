package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
)

// toolBeat is how often a command that holds sessions says that it lives, and
// the longest that it waits to leave.
const toolBeat = 2 * time.Second

// tool is a command that is a member of the fleet while it runs: it owns what it
// works on, and workers give it nothing. If it is killed, the workers see its
// counter stand still and take what it held.
type tool struct {
	store       state.Store
	incarnation string
	takeover    time.Duration // how long a counter must have stood still for claim
	stop        context.CancelFunc
	beating     sync.WaitGroup
}

func joinAsTool(ctx context.Context, store state.Store, takeover time.Duration) (*tool, error) {
	t := &tool{store: store, takeover: takeover, incarnation: "tool-" + ulid.MustNew(ulid.Now(), rand.Reader).String()}
	host, _ := os.Hostname() // for people only
	_, err := store.Join(ctx, t.incarnation, state.MemberInfo{Host: host, Format: state.Format, Since: time.Now().UTC(), Tool: true})
	if err != nil {
		return nil, err
	}
	ctx, t.stop = context.WithCancel(context.WithoutCancel(ctx))
	t.beating.Go(func() {
		tick := time.NewTicker(toolBeat)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				// If it stays without an answer others may take over, and the fence
				// refuses what is written here after that.
				_ = t.store.Beat(ctx, t.incarnation, state.Load{At: time.Now().UTC()})
			}
		}
	})
	return t, nil
}

// claim takes a session that no living worker owns. Of an owner that was not
// declared dead it sees for the time of a takeover whether it beats.
func (t *tool) claim(ctx context.Context, session string) (state.Owner, error) {
	o, err := t.store.Owner(ctx, session)
	if err != nil {
		return o, err
	}
	if o.Incarnation != "" && o.Incarnation != t.incarnation {
		if err := t.outlive(ctx, o.Incarnation); err != nil {
			return o, err
		}
	}
	claimed, err := t.store.Claim(ctx, t.incarnation, o)
	if err != nil {
		return o, err
	}
	return claimed[0], nil
}

// outlive returns nil when an incarnation is dead, which it declares if its
// counter has stood still for long enough.
func (t *tool) outlive(ctx context.Context, incarnation string) error {
	var seen uint64
	for began := time.Now(); ; {
		r, err := t.store.Roster(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(r.Members, func(m state.Member) bool { return m.Incarnation == incarnation })
		if i < 0 || r.Members[i].Dead {
			return nil
		}
		switch beats := r.Members[i].Beats; {
		case seen == 0:
			seen = beats
		case beats != seen:
			return fmt.Errorf("worker %s has it; stop that one first", incarnation)
		case time.Since(began) >= t.takeover:
			err := t.store.DeclareDead(ctx, incarnation, seen)
			if errors.Is(err, state.ErrConflict) {
				return fmt.Errorf("worker %s has it; stop that one first", incarnation)
			}
			return err
		}
		select {
		case <-time.After(toolBeat / 2):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leave ends the membership at once, so that nobody waits for its counter.
func (t *tool) leave() error {
	t.stop()
	t.beating.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), toolBeat)
	defer cancel()
	if err := t.store.DeclareStopped(ctx, t.incarnation); err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	return t.store.Forget(ctx, t.incarnation)
}
