package journal

import (
	"context"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// lazyWrites are writes that wait for a commit, in the order in which they
// came. The latest per key wins.
type lazyWrites struct {
	at     map[state.Key]int
	writes []state.Write // a zero Key marks one that was taken out
	live   int
}

func (l *lazyWrites) put(w state.Write) {
	w.If = state.Condition{}
	if i, ok := l.at[w.Key]; ok {
		l.writes[i] = w
		return
	}
	if l.at == nil {
		l.at = make(map[state.Key]int)
	}
	if len(l.writes) > 2*l.live+64 {
		l.compact()
	}
	l.at[w.Key] = len(l.writes)
	l.writes = append(l.writes, w)
	l.live++
}

// putOlder puts back what was taken out, unless it has been written since.
func (l *lazyWrites) putOlder(w state.Write) {
	if _, ok := l.at[w.Key]; !ok {
		l.put(w)
	}
}

func (l *lazyWrites) get(key state.Key) (state.Write, bool) {
	i, ok := l.at[key]
	if !ok {
		return state.Write{}, false
	}
	return l.writes[i], true
}

func (l *lazyWrites) remove(key state.Key) (state.Write, bool) {
	i, ok := l.at[key]
	if !ok {
		return state.Write{}, false
	}
	w := l.writes[i]
	delete(l.at, key)
	l.writes[i] = state.Write{}
	if l.live--; l.live == 0 {
		l.clear()
	}
	return w, true
}

// compact drops the places of writes that were taken out.
func (l *lazyWrites) compact() {
	kept := make([]state.Write, 0, l.live+1)
	for _, w := range l.writes {
		if w.Key != (state.Key{}) {
			l.at[w.Key] = len(kept)
			kept = append(kept, w)
		}
	}
	l.writes = kept
}

func (l *lazyWrites) clear() { *l = lazyWrites{} }

// Lazy adds writes that may wait: they ride on the next commit, and are written
// by themselves within a minute. The latest write per key wins, and a write of
// the same key in a Commit replaces it. Conditions are ignored. Until they are
// durable, a crash forgets them.
func (j *Journal) Lazy(writes ...state.Write) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.broken.Load() != nil {
		return
	}
	for _, w := range writes {
		j.lazy.put(w)
	}
	j.arm()
}

// arm sets the timer that writes what no commit has taken, and reads what is owed.
// Called with mu held.
func (j *Journal) arm() {
	if j.lazy.live == 0 && j.owed.none() || j.timer != nil || j.closed || j.broken.Load() != nil {
		return
	}
	after := j.cfg.LazyAfter
	if !j.owed.none() {
		after = min(after, owedAfter)
	}
	j.timer = time.AfterFunc(after, func() {
		j.payOwed(context.Background())
		_ = j.Flush(context.Background()) // an error has broken the journal, which has been told
		j.mu.Lock()
		j.timer = nil
		j.arm() // what came meanwhile, or could not be read
		j.mu.Unlock()
	})
}

// Pending returns the lazy write of a key that is not durable yet.
func (j *Journal) Pending(key state.Key) (state.Write, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if w, ok := j.lazy.get(key); ok {
		return w, true
	}
	for _, w := range j.flying {
		if w.Key == key {
			return w, true
		}
	}
	return state.Write{}, false
}

// Flush writes all lazy writes. It costs nothing if there are none.
func (j *Journal) Flush(ctx context.Context) error {
	for {
		j.mu.Lock()
		idle := j.lazy.live == 0 && len(j.flying) == 0
		j.mu.Unlock()
		if idle {
			return j.Err()
		}
		if err := j.take(ctx); err != nil {
			return err
		}
		j.mu.Lock()
		left := j.lazy.live
		j.mu.Unlock()
		var err error
		if left > 0 {
			err = j.commit(ctx, Batch{})
		}
		j.pass()
		if err != nil {
			return err
		}
	}
}

// board adds as many lazy writes as fit to the writes of a commit. Lazy writes
// of keys that the commit itself writes are superseded by it; they are returned
// for the case that the commit does not happen.
func (j *Journal) board(writes []state.Write) (all, superseded []state.Write) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lazy.live == 0 {
		return writes, nil
	}
	size := 0
	for _, w := range writes {
		size += len(w.Key.String()) + len(w.Value)
		if old, ok := j.lazy.remove(w.Key); ok {
			superseded = append(superseded, old)
		}
	}
	own := len(writes)
	for _, w := range j.lazy.writes {
		if w.Key == (state.Key{}) {
			continue
		}
		n := len(w.Key.String()) + len(w.Value)
		if len(writes) >= state.MaxItems || size+n > state.MaxBytes {
			break
		}
		size += n
		writes = append(writes, w)
	}
	j.flying = writes[own:len(writes):len(writes)]
	for _, w := range j.flying {
		j.lazy.remove(w.Key)
	}
	return writes, superseded
}

// unboard takes the lazy writes of a commit that did not happen back.
func (j *Journal) unboard(superseded []state.Write) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, w := range j.flying {
		j.lazy.putOlder(w)
	}
	for _, w := range superseded {
		j.lazy.putOlder(w)
	}
	j.flying = nil
	j.arm()
}
