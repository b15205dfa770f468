package lease

import (
	"errors"
	"sync"

	"github.com/holdfast-wa/holdfast/state"
)

// server is the other side: it sees the sockets. A second one of a session kicks
// the first, as WhatsApp does.
type server struct {
	w *world

	mu   sync.Mutex
	live map[string]*socket
	sent map[string]uint64 // the highest counter that a session has shown
}

type socket struct {
	session string
	n       *node
	fence   state.Fence
	closed  chan struct{}

	mu      sync.Mutex
	over    bool
	byOther bool
}

func (s *socket) gone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

func (s *socket) kicked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byOther
}

func (s *socket) shut(byOther bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.over, s.byOther = true, byOther
		close(s.closed)
	}
}

func (s *server) connect(session string, n *node, fence state.Fence) *socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	sock := &socket{session: session, n: n, fence: fence, closed: make(chan struct{})}
	// Whoever trusts that it is alive is, and then nobody else owns what it owns.
	o, err := s.w.audit.base.Owner(n.ctx, session)
	if err == nil && o.Incarnation != fence.Owner {
		s.w.violate("I1", "%s connects %s, which %s owns", fence, session, o.Incarnation)
	}
	if err != nil && !errors.Is(err, state.ErrUnavailable) {
		s.w.violate("I1", "%s connects: %v", fence, err)
	}
	if was := s.live[session]; was != nil {
		if was.n.excused() {
			s.w.count("kicks of frozen holders")
		} else {
			s.w.violate("I1", "%s (%s) kicks %s (%s), which runs", fence, n.name, was.fence, was.n.name)
		}
		was.shut(true)
	}
	s.live[session] = sock
	s.w.count("connections")
	return sock
}

func (s *server) close(sock *socket) {
	if sock == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sock.shut(false)
	if s.live[sock.session] == sock {
		delete(s.live, sock.session)
	}
}

func (s *server) closeAll(n *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, sock := range s.live {
		if sock.n == n {
			sock.shut(false)
			delete(s.live, name)
		}
	}
}

// send shows a counter to the server. What was committed and not sent is a gap;
// what comes twice or goes back is a ratchet that was used twice.
func (s *server) send(sock *socket, counter uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sock.gone() {
		return
	}
	if counter <= s.sent[sock.session] {
		s.w.violate("I4", "%s sends %d after %d", sock.fence, counter, s.sent[sock.session])
	}
	s.sent[sock.session] = counter
	s.w.count("messages")
}

// holder is who is connected.
func (s *server) holder(session string) *socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[session]
}
