package lease

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/holdfast-wa/holdfast/state"
)

// survey lists all sessions, at the beginning and once an hour: only so are
// those found whose owner nobody remembers.
func (k *Keeper) survey(l *life) {
	if k.cfg.Info.Tool {
		return
	}
	for {
		wait := k.pace.full + rand.N(k.pace.full/4)
		if err := k.surveyAll(l); err != nil {
			if l.ctx.Err() != nil {
				return
			}
			k.log.Warn("sessions could not be listed; trying again", "incarnation", l.id, "error", err)
			wait = k.cfg.Poll
		}
		if k.clock.Wait(l.ctx, wait, nil) != nil {
			return
		}
	}
}

func (k *Keeper) surveyAll(l *life) error {
	after := ""
	for {
		var page []state.Owner
		err := k.bounded(l.ctx, func(ctx context.Context) (err error) {
			page, err = k.cfg.Store.Sessions(ctx, after, listPage)
			return err
		})
		if err != nil {
			return err
		}
		if err := k.consider(l, page, false); err != nil {
			return err
		}
		k.claimNow.ring()
		if len(page) < listPage {
			return nil
		}
		after = page[len(page)-1].Session
	}
}

// releaseLeftovers gives up what this incarnation owns and does not run, when
// nothing is to be taken any more. done says that nothing was left.
func (k *Keeper) releaseLeftovers(ctx context.Context) (done bool, err error) {
	k.mu.Lock()
	l := k.life
	may := l != nil && k.emptying()
	k.mu.Unlock()
	if l == nil {
		return true, nil
	}
	if !may {
		return false, nil
	}
	var owned []state.Owner
	err = k.bounded(ctx, func(ctx context.Context) (err error) {
		owned, err = k.cfg.Store.OwnedBy(ctx, l.id, "", listPage)
		return err
	})
	if err != nil {
		return false, err
	}
	k.mu.Lock()
	idle := k.notRunning(owned)
	k.mu.Unlock()
	for _, o := range idle {
		if !k.reserve(o.Session) {
			continue // it is being started after all
		}
		err := k.bounded(ctx, func(ctx context.Context) error { return k.cfg.Store.Release(ctx, o.Fence()) })
		k.unreserve(o.Session)
		if err != nil && !errors.Is(err, state.ErrFenced) {
			return false, err
		}
	}
	return len(owned) == 0, nil
}

// tidy forgets members that have been dead for long and own nothing.
func (k *Keeper) tidy(l *life) {
	now := k.clock.Now()
	k.mu.Lock()
	var old []string
	for id, p := range k.view.peers {
		if p.Dead && p.empty && now.Sub(p.died) >= k.pace.forget {
			old = append(old, id)
		}
	}
	for name, f := range k.hunt.fails {
		if now.Sub(f.until) > 2*k.pace.retryMost {
			delete(k.hunt.fails, name)
		}
	}
	k.mu.Unlock()
	for _, id := range old {
		err := k.bounded(l.ctx, func(ctx context.Context) error { return k.cfg.Store.Forget(ctx, id) })
		if err != nil {
			k.log.Warn("a dead worker could not be forgotten; trying again", "worker", id, "error", err)
			return
		}
		k.mu.Lock()
		delete(k.view.peers, id)
		k.mu.Unlock()
	}
}
