package wasim

import (
	"net"
	"time"
)

// unreachable closes the listener and resets every socket: connections are
// refused until the fault is cleared. The lock is held.
func (s *Server) unreachable() {
	if s.listener == nil {
		return
	}
	_ = s.listener.Close()
	s.listener = nil
	for c := range s.conns {
		s.wg.Go(func() { _ = c.drop(DropReset) })
	}
}

// reachable listens again on the same address.
func (s *Server) reachable() {
	s.mu.Lock()
	down := s.listener == nil && !s.closed && s.http != nil
	s.mu.Unlock()
	if !down {
		return
	}
	for range 50 { // somebody may have taken the port for a moment
		l, err := net.Listen("tcp", s.address)
		if err == nil {
			s.serveOn(l)
			return
		}
		s.opt.Log.Warn("wasim: the service's port is taken", "error", err)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-s.ctx.Done():
			return
		}
	}
}
