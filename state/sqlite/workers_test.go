package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/hostlock"
	"github.com/holdfast-wa/holdfast/state/sqlite"
)

// The timing of the small workers.
const (
	workSessions = 8
	workBeat     = 20 * time.Millisecond
	workTakeover = 400 * time.Millisecond
)

// small is a small worker: it beats, declares others dead, claims, commits and
// hands over as a real one does, and says what it was told is durable.
type small struct {
	s    state.Store
	dir  string
	id   string
	mu   sync.Mutex
	runs map[string]bool
	fail chan error
}

func workForever(path string) error {
	s, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		return err
	}
	w := &small{s: s, dir: filepath.Dir(path), id: fmt.Sprintf("w-%d-%d", os.Getpid(), time.Now().UnixNano()),
		runs: map[string]bool{}, fail: make(chan error)}
	if _, err := hostlock.Hold(w.dir, w.id); err != nil {
		return err
	}
	for {
		if _, err := s.Join(context.Background(), w.id, state.MemberInfo{}); err == nil || errors.Is(err, state.ErrExists) {
			break
		} else if !errors.Is(err, state.ErrUnavailable) {
			return err
		}
	}
	fmt.Println("beat", w.id, 1)
	for _, loop := range []func(context.Context) error{w.beats, w.watches, w.claims} {
		go func() { w.fail <- loop(context.Background()) }()
	}
	err = <-w.fail
	if errors.Is(err, state.ErrDead) {
		return nil // as it should be when it was declared dead
	}
	return err
}

// every does something again and again. That the store does not answer is no
// reason to end.
func every(d time.Duration, do func() error) error {
	for range time.Tick(d) {
		if err := do(); err != nil && !errors.Is(err, state.ErrUnavailable) {
			return err
		}
	}
	return nil
}

func (w *small) beats(ctx context.Context) error {
	n := 1
	return every(workBeat, func() error {
		err := w.s.Beat(ctx, w.id, state.Load{Sessions: n})
		if err == nil {
			n++
			fmt.Println("beat", w.id, n)
		}
		return err
	})
}

func (w *small) watches(ctx context.Context) error {
	type seen struct {
		beats uint64
		since time.Time
	}
	last := map[string]seen{}
	return every(workBeat, func() error {
		r, err := w.s.Roster(ctx)
		if err != nil {
			return err
		}
		var remembered []string
		for _, m := range r.Members {
			remembered = append(remembered, m.Incarnation)
			switch l := last[m.Incarnation]; {
			case m.Incarnation == w.id && m.Dead:
				return state.ErrDead
			case m.Incarnation == w.id:
			case m.Dead:
				left, err := w.s.OwnedBy(ctx, m.Incarnation, "", 1)
				if err == nil && len(left) == 0 && rand.IntN(20) == 0 {
					err = w.s.Forget(ctx, m.Incarnation)
				}
				if err != nil {
					return err
				}
			case hostlock.Gone(w.dir, m.Incarnation):
				if err := w.s.DeclareStopped(ctx, m.Incarnation); err != nil && !errors.Is(err, state.ErrNotFound) {
					return err
				}
				fmt.Println("gone", m.Incarnation, 0)
			case l.beats != m.Beats:
				last[m.Incarnation] = seen{m.Beats, time.Now()}
			case time.Since(l.since) > workTakeover:
				err := w.s.DeclareDead(ctx, m.Incarnation, m.Beats)
				if err != nil && !errors.Is(err, state.ErrConflict) {
					return err
				}
				fmt.Println("declared", m.Incarnation, 0)
			}
		}
		return hostlock.Sweep(w.dir, remembered)
	})
}

// claims takes up what nobody or a dead worker has, and what it was given.
func (w *small) claims(ctx context.Context) error {
	return every(workBeat, func() error {
		r, err := w.s.Roster(ctx)
		if err != nil {
			return err
		}
		alive := map[string]bool{}
		for _, m := range r.Members {
			alive[m.Incarnation] = !m.Dead && m.Incarnation != w.id
		}
		all, err := w.s.Sessions(ctx, "", 0)
		if err != nil {
			return err
		}
		var from []state.Owner
		for _, o := range all {
			w.mu.Lock()
			if !alive[o.Incarnation] && !w.runs[o.Session] && len(from) < 3 {
				from = append(from, o)
			}
			w.mu.Unlock()
		}
		if len(from) == 0 {
			return nil
		}
		got, err := w.s.Claim(ctx, w.id, from...)
		if errors.Is(err, state.ErrFenced) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, o := range got {
			fmt.Println("claim", o.Session, o.Epoch)
			w.mu.Lock()
			w.runs[o.Session] = true
			w.mu.Unlock()
			go func() {
				err := w.session(ctx, o)
				w.mu.Lock()
				delete(w.runs, o.Session)
				w.mu.Unlock()
				if err != nil {
					w.fail <- err
				}
			}()
		}
		return nil
	})
}

// session commits for a while and then gives the session away.
func (w *small) session(ctx context.Context, o state.Owner) error {
	last, err := lastEvent(ctx, w.s, o.Session)
	for errors.Is(err, state.ErrUnavailable) {
		last, err = lastEvent(ctx, w.s, o.Session)
	}
	if err != nil {
		return err
	}
	for n := last + 1; n < last+200; {
		err := w.s.Commit(ctx, o.Fence(), strconv.FormatUint(n, 10), batch(n, eventOf(o, n)))
		switch {
		case errors.Is(err, state.ErrFenced):
			return nil
		case errors.Is(err, state.ErrUnavailable):
			continue
		case err != nil:
			return err
		}
		fmt.Println("commit", o.Session+"/"+o.Incarnation+"/"+strconv.FormatUint(o.Epoch, 10), n)
		n++
		if rand.IntN(100) == 0 {
			// As after a commit whose outcome stayed unknown.
			got, err := w.s.Claim(ctx, w.id, o)
			if errors.Is(err, state.ErrFenced) || errors.Is(err, state.ErrUnavailable) {
				return nil
			}
			if err != nil {
				return err
			}
			o = got[0]
		}
	}
	r, err := w.s.Roster(ctx)
	if err == nil && rand.IntN(3) > 0 {
		to := r.Members[rand.IntN(len(r.Members))].Incarnation
		_, err = w.s.HandOver(ctx, o.Fence(), to)
	} else if err == nil {
		err = w.s.Release(ctx, o.Fence())
	}
	// To one of the dead nothing is handed: it is taken up again.
	if errors.Is(err, state.ErrFenced) || errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrDead) {
		return nil
	}
	return err
}

// eventOf is the content of event n of an owner.
func eventOf(o state.Owner, n uint64) string {
	return strings.Repeat(fmt.Sprintf("%d %s %d;", n, o.Incarnation, o.Epoch), 40)
}

// batch is what commit n of a session writes.
func batch(n uint64, value string) []state.Write {
	writes := []state.Write{state.Put(state.KindSignal, "a", []byte(value)), state.Put(state.KindSignal, "b", []byte(value)),
		state.Put(state.KindEvent, state.EventID(n), []byte(value))}
	if n > killKept {
		writes = append(writes, state.Del(state.KindEvent, state.EventID(n-killKept)))
	}
	return writes
}
