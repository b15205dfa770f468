package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/crash"
)

// verdictWithin bounds the look for how a worker ended. A session does not wait
// for long to learn that nobody can tell.
const verdictWithin = 2 * time.Second

// TellDeath makes known to the fleet how a worker ended, so that whoever takes
// its sessions over knows which of them to blame, and declares it dead at once.
// The caller knows that its process has ended. One that nobody remembers is left
// alone.
func TellDeath(ctx context.Context, store state.Store, before crash.Report) error {
	if state.CheckIncarnation(before.Incarnation) != nil {
		return nil
	}
	value, err := state.Encode(state.Death{V: state.Format, Panicked: before.Panicked, Session: before.Session})
	if err != nil {
		return err
	}
	key := state.DeathKey(before.Incarnation)
	w := state.Put(key.Kind, key.ID, value)
	w.Expires = store.Now().Add(state.DeathKept)
	// The note first: whoever sees the death may look for it.
	if err := store.Update(ctx, state.Fleet, []state.Write{w}); err != nil {
		return fmt.Errorf("telling how worker %s ended: %w", before.Incarnation, err)
	}
	if err := store.DeclareStopped(ctx, before.Incarnation); err != nil && !errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("declaring worker %s dead: %w", before.Incarnation, err)
	}
	return nil
}

// verdict tells whether a session is to blame for the end of the worker that had
// it, or known not to be; neither: nobody can tell.
func (w *Worker) verdict(ctx context.Context, from state.Owner) (blamed, innocent bool) {
	switch {
	case from.Incarnation == "":
		return false, false
	case w.wasMine(from.Incarnation):
		return false, true // this process lives
	}
	ctx, cancel := context.WithTimeout(ctx, verdictWithin)
	defer cancel()
	rec, err := w.cfg.Store.Get(ctx, state.Fleet, state.DeathKey(from.Incarnation))
	if err != nil {
		return false, false
	}
	var note state.Death
	if err := state.Decode(rec.Value, &note); err != nil {
		return false, false
	}
	return judged(note, from.Session)
}

func judged(note state.Death, session string) (blamed, innocent bool) {
	blamed = note.Panicked && note.Session == session
	innocent = !note.Panicked || note.Session != "" && note.Session != session
	return blamed, innocent
}

// wasMine tells whether an incarnation is or was this process.
func (w *Worker) wasMine(incarnation string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, mine := w.mine[incarnation]
	return mine
}
