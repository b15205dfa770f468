package wasim

// TakePreKey takes one of a device's prekeys, as somebody who wrote to it would.
func (s *Server) TakePreKey(d *Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.takePreKey()
}
