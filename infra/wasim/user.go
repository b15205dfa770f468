package wasim

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
)

// user is one phone number: the person's phone (a peer, device 0) and the
// devices linked to it. A Contact and a Phone are views of one.
type user struct {
	s        *Server
	number   string
	lid      string
	name     string
	peer     *peer
	devices  map[uint16]*Device // linked ones, the unlinked too
	nextID   uint16
	received []Received
	failed   []Failed
	reply    func(Received) string
	syncKey  []byte // app-state key id and data, made with the first pairing
}

// Device is one linked companion, as the server knows it.
type Device struct {
	s        *Server
	user     *user
	jid, lid types.JID
	noise    [32]byte
	identity [32]byte
	regID    uint32
	skeyID   uint32
	skey     [32]byte
	skeySig  [64]byte

	// guarded by Server.mu
	prekeys  []preKey // ascending by id
	left     int
	conn     *conn // the live, logged-in socket
	active   bool
	box      mailbox
	logins   int
	kicks    int
	overlaps int
	unlinked *time.Time
	greeted  bool // the phone has sent its keys
}

type preKey struct {
	id   uint32
	pub  [32]byte
	used bool
}

// digits takes a phone number down to its digits.
func digits(number string) (string, error) {
	out := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, number)
	if len(out) < 5 || len(out) > 15 {
		return "", fmt.Errorf("%w: number: has %d digits; 5 to 15 are needed", ErrInput, len(out))
	}
	return out, nil
}

// lidOf derives a number's LID user, always the same one: 15 digits.
func lidOf(number string) string {
	sum := sha256.Sum256([]byte("wasim lid " + number))
	n := binary.BigEndian.Uint64(sum[:8])%900_000_000_000_000 + 100_000_000_000_000
	return strconv.FormatUint(n, 10)
}

// user finds or makes one. The lock is held; number is digits.
func (s *Server) user(number string) *user {
	if u := s.users[number]; u != nil {
		return u
	}
	u := &user{s: s, number: number, lid: lidOf(number), devices: map[uint16]*Device{}, nextID: 1}
	u.name = "Contact " + number[len(number)-4:]
	u.peer = newPeer(u)
	s.users[number] = u
	s.lids[u.lid] = u
	return u
}

// pn and lidJID are the user's addresses, with a device number.
func (u *user) pn(device uint16) types.JID {
	return types.JID{User: u.number, Device: device, Server: types.DefaultUserServer}
}

func (u *user) lidJID(device uint16) types.JID {
	return types.JID{User: u.lid, Device: device, Server: types.HiddenUserServer}
}

// find is the user of a JID of either server, nil if there is none. The lock
// is held.
func (s *Server) find(jid types.JID) *user {
	switch jid.Server {
	case types.DefaultUserServer, types.LegacyUserServer:
		return s.users[jid.User]
	case types.HiddenUserServer:
		return s.lids[jid.User]
	}
	return nil
}

// device finds a linked device by a JID of either server. The lock is held.
func (s *Server) device(jid types.JID) *Device {
	u := s.find(jid)
	if u == nil || jid.Device == 0 {
		return nil
	}
	if d := u.devices[jid.Device]; d != nil && d.unlinked == nil {
		return d
	}
	return nil
}

// match finds devices by JID, phone number or LID user, the unlinked ones
// too. The lock is held.
func (s *Server) match(name string) []*Device {
	var out []*Device
	if strings.Contains(name, "@") {
		jid, err := types.ParseJID(name)
		if err != nil {
			return nil
		}
		if u := s.find(jid); u != nil {
			if jid.Device == 0 {
				return s.match(u.number)
			}
			if d := u.devices[jid.Device]; d != nil {
				out = append(out, d)
			}
		}
		return out
	}
	u := s.users[strings.TrimPrefix(name, "+")]
	if u == nil {
		u = s.lids[name]
	}
	if u == nil {
		return nil
	}
	for _, d := range u.devices {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b *Device) int { return int(a.jid.Device) - int(b.jid.Device) })
	return out
}

// live is match without unlinked devices; it is an error if none is left.
func (s *Server) live(name string) ([]*Device, error) {
	out := slices.DeleteFunc(s.match(name), func(d *Device) bool { return d.unlinked != nil })
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no linked device of that name; GET /devices lists them", ErrNotFound)
	}
	return out, nil
}

// allDevices is every device ever linked, by number. The lock is held.
func (s *Server) allDevices() []*Device {
	var out []*Device
	for _, u := range s.users {
		for _, d := range u.devices {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b *Device) int { return strings.Compare(a.jid.String(), b.jid.String()) })
	return out
}

// Devices is every device ever linked.
func (s *Server) Devices() []*Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.allDevices()
}

// Device finds a linked device by JID, or an account's only one by its number
// or LID user.
func (s *Server) Device(name string) (*Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.live(name)
	if err != nil {
		return nil, err
	}
	if len(found) > 1 {
		return nil, fmt.Errorf("%w: %d devices of that name; give a whole JID", ErrInput, len(found))
	}
	return found[0], nil
}

// JID is the device's address by phone number.
func (d *Device) JID() types.JID { return d.jid }

// LID is the device's address by LID.
func (d *Device) LID() types.JID { return d.lid }

// Status is the device now.
func (d *Device) Status() Status {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return d.status()
}

// status is Status with the lock held.
func (d *Device) status() Status {
	st := Status{
		JID: d.jid.String(), LID: d.lid.String(), Account: d.user.number,
		Online: d.conn != nil, Active: d.conn != nil && d.active, Pending: d.box.order.Len(),
		PreKeys: d.left, Uploaded: len(d.prekeys), Logins: d.logins, Kicks: d.kicks, Overlaps: d.overlaps, Unlinked: d.unlinked,
	}
	if d.conn != nil {
		st.Socket = d.conn.rec.N
	}
	return st
}

// Online tells whether the device has a live, logged-in socket.
func (d *Device) Online() bool {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return d.conn != nil
}

// WaitOnline blocks until the device is logged in and has said that it is
// active, which is when the client reports Connected.
func (d *Device) WaitOnline(ctx context.Context) error {
	return d.s.wait(ctx, func() bool { return d.conn != nil && d.active })
}

// WaitOffline blocks until the device has no live socket.
func (d *Device) WaitOffline(ctx context.Context) error {
	return d.s.wait(ctx, func() bool { return d.conn == nil })
}

// WaitDrained blocks until nothing waits for the device's acknowledgement.
func (d *Device) WaitDrained(ctx context.Context) error {
	return d.s.wait(ctx, func() bool { return d.box.order.Len() == 0 })
}

// Pending is how many stanzas wait for the device's acknowledgement.
func (d *Device) Pending() int { return d.Status().Pending }

// How is a way to end a socket.
type How string

// The ways of Drop.
const (
	DropTCP       How = "tcp"       // the TCP connection closes, no close frame
	DropReset     How = "reset"     // the client gets a connection reset
	DropClose     How = "close"     // websocket close 1000
	DropStreamEnd How = "streamend" // xmlstreamend, then TCP
)

// Drop ends the device's live socket now.
func (d *Device) Drop(how How) error {
	s := d.s
	s.mu.Lock()
	c := d.conn
	s.mu.Unlock()
	if c == nil {
		return fmt.Errorf("drop: %w", ErrOffline)
	}
	return c.drop(how)
}

// drop ends a socket in one of the ways, without the lock.
func (c *conn) drop(how How) error {
	s := c.s
	switch how {
	case DropTCP, DropReset:
		c.cut(how == DropReset, "dropped: "+string(how))
		s.mu.Lock()
		c.ended = true
		if d := c.device; d != nil && d.conn == c {
			d.conn = nil
		}
		s.mu.Unlock()
	case DropClose:
		s.mu.Lock()
		c.retire("dropped: close")
		s.mu.Unlock()
		s.wg.Go(func() { _ = c.ws.Close(1000, "") })
	case DropStreamEnd:
		s.mu.Lock()
		c.end("dropped: streamend", streamEnd())
		s.mu.Unlock()
	default:
		return fmt.Errorf("%w: how %q: use tcp, reset, close or streamend", ErrInput, how)
	}
	return nil
}

// Send puts any stanza on the device's live socket.
func (d *Device) Send(n waBinary.Node) error {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if d.conn == nil {
		return fmt.Errorf("send: %w", ErrOffline)
	}
	if _, err := marshal(n); err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	d.conn.send(n)
	return nil
}

// SendStanza is Send of a stanza in its JSON form.
func (d *Device) SendStanza(st Stanza) error {
	n, err := st.Node()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	return d.Send(n)
}

// Unlink removes the device on its phone: its credentials are worth nothing
// from now on, and a live socket is told so (401, device_removed).
func (d *Device) Unlink() {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.unlink("unlinked on the phone")
}

// unlink is Unlink with the lock held.
func (d *Device) unlink(how string) {
	if d.unlinked != nil {
		return
	}
	d.unlinked = d.s.at()
	d.box = mailbox{}
	if d.conn != nil {
		d.conn.end(how, deviceRemoved())
	}
	d.s.notify()
}
