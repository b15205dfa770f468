package wasim

import waBinary "go.mau.fi/whatsmeow/binary"

// TakePreKey takes one of a device's prekeys, as somebody who wrote to it would.
func (s *Server) TakePreKey(d *Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.takePreKey()
}

// Marshal is marshal.
func Marshal(n waBinary.Node) ([]byte, error) { return marshal(n) }
