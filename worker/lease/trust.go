package lease

import (
	"sync"
	"time"
)

// trust is how long an incarnation may believe that it is alive: F from the
// moment at which the last successful beat was sent. An observer that sees the
// counter of that beat has seen it later than it was sent, and waits for longer
// than F; so trust ends before anybody declares the death.
type trust struct {
	clock Clock
	span  time.Duration // F

	mu   sync.Mutex
	sent stamp
	over bool // for good
}

func newTrust(clock Clock, span time.Duration, sent stamp) *trust {
	return &trust{clock: clock, span: span, sent: sent}
}

// left is what is left by the clock that says less; 0 if trust is over.
func (t *trust) left() time.Duration {
	now := stampOf(t.clock)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return 0
	}
	return max(0, t.span-now.longestSince(t.sent))
}

// renew begins it anew from the moment at which a beat that succeeded was sent.
func (t *trust) renew(sent stamp) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if sent.mono.After(t.sent.mono) {
		t.sent = sent
	}
}

// end ends it for good.
func (t *trust) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
}
