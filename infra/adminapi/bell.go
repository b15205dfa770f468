package adminapi

import "sync"

// Bell tells waiting requests that something of a session may have changed, so
// that they look at once and not at their next poll. A worker in the same
// process rings it; without one, polls do. The zero value and nil are usable.
type Bell struct {
	mu        sync.Mutex
	listeners map[*listener]struct{}
}

// listener waits for one session, or for all where session is empty.
type listener struct {
	session string
	signal  chan struct{}
	rung    map[string]struct{} // under the bell's mu
}

// Ring says that something of the session was committed. It does not block.
func (b *Bell) Ring(session string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.listeners {
		if l.session != "" && l.session != session {
			continue
		}
		l.rung[session] = struct{}{}
		select {
		case l.signal <- struct{}{}:
		default:
		}
	}
}

// listen begins to hear; the func ends it.
func (b *Bell) listen(session string) (*listener, func()) {
	l := &listener{session: session, signal: make(chan struct{}, 1), rung: map[string]struct{}{}}
	if b == nil {
		return l, func() {}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listeners == nil {
		b.listeners = map[*listener]struct{}{}
	}
	b.listeners[l] = struct{}{}
	return l, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, l)
	}
}

// take returns the sessions that rang since the last call.
func (b *Bell) take(l *listener) []string {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for name := range l.rung {
		names = append(names, name)
	}
	clear(l.rung)
	return names
}
