package session

import "sync"

// mailbox is an unbounded queue between the library's callbacks, which must
// never block, and the one goroutine that owns the session. What is posted is
// small and rare: stanzas do not come through here, only what changes a session.
type mailbox struct {
	mu     sync.Mutex
	items  []any
	signal chan struct{}
}

func newMailbox() *mailbox { return &mailbox{signal: make(chan struct{}, 1)} }

// post adds an item and never blocks.
func (m *mailbox) post(item any) {
	m.mu.Lock()
	m.items = append(m.items, item)
	m.mu.Unlock()
	select {
	case m.signal <- struct{}{}:
	default:
	}
}

// ready is signalled when there may be something to take.
func (m *mailbox) ready() <-chan struct{} { return m.signal }

// take returns the oldest item.
func (m *mailbox) take() (any, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.items) == 0 {
		return nil, false
	}
	item := m.items[0]
	m.items[0] = nil
	m.items = m.items[1:]
	if len(m.items) == 0 {
		m.items = nil // an idle session keeps no backing array
	} else {
		select { // more to take: keep the signal up
		case m.signal <- struct{}{}:
		default:
		}
	}
	return item, true
}
