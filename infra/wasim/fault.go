package wasim

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
)

// Kind is a kind of fault.
type Kind string

// The kinds. Those of one line strike at the stage named; where "or now" is
// said, Fault.Now strikes every live socket that matches at once instead.
const (
	// At connect, before anybody knows who it is: Fault.Device must be empty.
	Refuse             Kind = "refuse"              // the TCP connection is reset before the upgrade
	HTTPStatus         Kind = "http_status"         // the upgrade is answered with status Code
	HalfOpen           Kind = "half_open"           // accepted, the upgrade is never answered
	Unreachable        Kind = "unreachable"         // nobody listens until cleared, live sockets are reset
	HandshakeMute      Kind = "handshake_mute"      // upgraded, the hello is never answered
	HandshakeGarbage   Kind = "handshake_garbage"   // the hello is answered with random bytes
	CertificateExpired Kind = "certificate_expired" // out of date since yesterday
	CertificateFuture  Kind = "certificate_future"  // good from tomorrow on
	CertificateForged  Kind = "certificate_forged"  // of another root

	// At login or registration in place of success; failure is a refusal.
	Failure Kind = "failure" // Code, Text; for 402 Ban and ExpireSeconds

	// After success, or now.
	DropFault     Kind = "drop"           // the TCP connection closes
	ResetFault    Kind = "reset"          // the TCP connection is reset
	CloseFault    Kind = "close"          // websocket close 1000
	StreamEnd     Kind = "streamend"      // xmlstreamend
	StreamError   Kind = "stream_error"   // stream:error of Code
	Replaced      Kind = "replaced"       // stream:error with conflict replaced
	DeviceRemoved Kind = "device_removed" // stream:error 401 with conflict device_removed; the device stays linked here
	Downgrade     Kind = "downgrade"      // ib downgrade_webclient
	Timelock      Kind = "timelock"       // the reachout notification; ExpireSeconds
	LowPreKeys    Kind = "low_prekeys"    // the notification that no prekeys are left
	Node          Kind = "node"           // Stanza, whatever it is
	UnknownStanza Kind = "unknown_stanza" // a tag that no client knows
	GarbageFrame  Kind = "garbage_frame"  // random bytes that do not open; those after it do
	GarbageNode   Kind = "garbage_node"   // a frame that opens to no stanza
	LyingFrame    Kind = "lying_frame"    // a frame that announces more than it has
	Oversized     Kind = "oversized"      // a websocket message of 17 MiB, more than clients read
	OutOfOrder    Kind = "out_of_order"   // two frames with their nonces swapped: neither opens, later ones do

	// A state of the socket from login on, or from now on, until it closes or
	// the fault is cleared.
	Mute   Kind = "mute"    // answers nothing
	Zombie Kind = "zombie"  // answers pings and queries, delivers nothing
	NoPong Kind = "no_pong" // leaves pings unanswered
	Delay  Kind = "delay"   // every frame comes DelayMS late

	// On each message that the device sends.
	SendError   Kind = "send_error"    // the ack carries error Code (463: reachout timelock)
	SendSilence Kind = "send_silence"  // no ack, not delivered
	SendLateAck Kind = "send_then_cut" // delivered, no ack, the socket is reset

	// On each message to the device; Contact narrows it to one sender.
	CorruptMessage Kind = "corrupt" // the ciphertext does not open

	// While pairing.
	Passkey          Kind = "passkey"            // with the QR: a passkey is demanded
	PairBadHMAC      Kind = "pair_bad_hmac"      // pair-success that the client must refuse
	PairBadSignature Kind = "pair_bad_signature" // the same by the account's signature
	PairDropBefore   Kind = "pair_drop_before"   // the socket ends where pair-success was due
	PairDropAfter    Kind = "pair_drop_after"    // paired, the socket ends without 515
)

// stage is where a kind strikes.
type stage int

const (
	stageConnect stage = iota
	stageListen
	stageHello
	stageLogin
	stageWelcome
	stageMode
	stageSend
	stageDeliver
	stagePairing
	stageScan
	stagePaired
)

// stages says of each kind where it strikes; it is the list of kinds, too.
var stages = map[Kind]stage{
	Refuse: stageConnect, HTTPStatus: stageConnect, HalfOpen: stageConnect, Unreachable: stageListen,
	HandshakeMute: stageHello, HandshakeGarbage: stageHello,
	CertificateExpired: stageHello, CertificateFuture: stageHello, CertificateForged: stageHello,
	Failure:   stageLogin,
	DropFault: stageWelcome, ResetFault: stageWelcome, CloseFault: stageWelcome, StreamEnd: stageWelcome,
	StreamError: stageWelcome, Replaced: stageWelcome, DeviceRemoved: stageWelcome, Downgrade: stageWelcome,
	Timelock: stageWelcome, LowPreKeys: stageWelcome, Node: stageWelcome, UnknownStanza: stageWelcome,
	GarbageFrame: stageWelcome, GarbageNode: stageWelcome, LyingFrame: stageWelcome, Oversized: stageWelcome, OutOfOrder: stageWelcome,
	Mute: stageMode, Zombie: stageMode, NoPong: stageMode, Delay: stageMode,
	SendError: stageSend, SendSilence: stageSend, SendLateAck: stageSend,
	CorruptMessage: stageDeliver,
	Passkey:        stagePairing, PairBadHMAC: stageScan, PairBadSignature: stageScan, PairDropBefore: stageScan, PairDropAfter: stagePaired,
}

// Kinds lists every kind of fault, by name.
func Kinds() []Kind {
	out := make([]Kind, 0, len(stages))
	for k := range stages {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Unpaired aims at sockets that are being paired, where it stands in Fault.Device.
const Unpaired = "unpaired"

// Fault is one fault to inject.
type Fault struct {
	ID            string  `json:"id,omitempty"` // given by Inject
	Kind          Kind    `json:"kind"`
	Device        string  `json:"device,omitempty"`  // a JID, a number, a LID user, "unpaired"; empty: everybody
	Contact       string  `json:"contact,omitempty"` // number, for corrupt
	Now           bool    `json:"now,omitempty"`     // on live sockets, once, instead of at its stage
	Times         int     `json:"times,omitempty"`   // how often; 0 is once, -1 until cleared
	Code          int     `json:"code,omitempty"`
	Text          string  `json:"text,omitempty"`
	Ban           int     `json:"ban,omitempty"` // reason of a 402: 101 to 104, 106
	ExpireSeconds int     `json:"expireSeconds,omitempty"`
	DelayMS       int     `json:"delayMs,omitempty"`
	Node          *Stanza `json:"node,omitempty"`
}

// fault is an armed one. Guarded by Server.mu.
type fault struct {
	Fault
	left    int // -1: until cleared
	cleared bool
}

// check refuses a fault that could never strike or makes no sense.
func (f *Fault) check() error {
	st, ok := stages[f.Kind]
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w: fault %q: %s", ErrInput, f.Kind, fmt.Sprintf(format, a...))
	}
	switch {
	case !ok:
		return bad("is no kind; known are %v", Kinds())
	case f.Times < -1:
		return bad("times %d; use -1 (until cleared), 0 (once) or more", f.Times)
	case (st == stageConnect || st == stageHello || st == stageListen) && f.Device != "":
		return bad("cannot be aimed at one device, who connects is not known yet; leave device out")
	case f.Now && st != stageWelcome && st != stageMode:
		return bad("strikes at its own stage only; leave now out")
	case f.Kind == Failure && (f.Code < 400 || f.Code > 599), f.Kind == HTTPStatus && (f.Code < 400 || f.Code > 599):
		return bad("code %d; use 400 to 599", f.Code)
	case f.Kind == StreamError && f.Code <= 0, f.Kind == SendError && f.Code <= 0:
		return bad("needs a code")
	case f.Kind == Delay && (f.DelayMS <= 0 || f.DelayMS > 600_000):
		return bad("delayMs %d; use 1 to 600000", f.DelayMS)
	case f.Kind == Node && f.Node == nil:
		return bad("needs a node")
	case f.Contact != "" && f.Kind != CorruptMessage:
		return bad("takes no contact")
	}
	if f.Node != nil {
		if _, err := f.Node.Node(); err != nil {
			return bad("%v", err)
		}
	}
	return nil
}

// Inject arms a fault, or strikes with it now, and returns its id. Faults of
// the same stage strike in the order in which they came, one at a time. With
// Now, a fault that no live socket matches is an error (ErrOffline).
func (s *Server) Inject(f Fault) (id string, err error) {
	if err := f.check(); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.ID = fmt.Sprintf("f%d", s.next())
	armed := &fault{Fault: f, left: max(f.Times, 1)}
	if f.Times < 0 {
		armed.left = -1
	}
	st := stages[f.Kind]
	if st == stageListen {
		s.faults = append(s.faults, armed)
		s.unreachable()
		return f.ID, nil
	}
	if !f.Now {
		s.faults = append(s.faults, armed)
		return f.ID, nil
	}
	hit := false
	for c := range s.conns {
		if c.ended || c.rec.Device == "" && c.pairing == nil || !s.aimed(armed, c) {
			continue
		}
		hit = true
		s.record(armed, c)
		if st == stageMode {
			c.enter(armed)
		} else {
			s.now(c, &armed.Fault)
		}
	}
	if !hit {
		return "", fmt.Errorf("fault %q: %w: no live socket matches", f.Kind, ErrOffline)
	}
	if st == stageMode {
		armed.left = 0 // for nobody who logs in later; listed so that it can be cleared
		s.faults = append(s.faults, armed)
	}
	return f.ID, nil
}

// aimed tells whether a fault is meant for a socket. The lock is held.
func (s *Server) aimed(f *fault, c *conn) bool {
	switch {
	case f.Device == "":
		return true
	case c == nil:
		return false
	case f.Device == Unpaired:
		return c.device == nil
	case c.device != nil:
		return slices.Contains(s.match(f.Device), c.device)
	case c.pairing != nil && c.pairing.device != nil:
		return f.Device == c.pairing.device.user.number
	}
	return false
}

// strike takes the first fault of a stage that is meant for a socket and uses
// it up by one. The lock is held.
func (s *Server) strike(st stage, c *conn) *Fault {
	for _, f := range s.faults {
		at := stages[f.Kind]
		if at != st || f.left == 0 || f.Now || !s.aimed(f, c) || at == stageMode && slices.Contains(c.modes, f) {
			continue
		}
		return s.use(f, c)
	}
	return nil
}

// strikeDevice is strike for a message of a contact to a device, which may be
// offline. The lock is held.
func (s *Server) strikeDevice(st stage, d *Device, from *user) *Fault {
	for _, f := range s.faults {
		if stages[f.Kind] != st || f.left == 0 || f.Device != "" && !slices.Contains(s.match(f.Device), d) ||
			f.Contact != "" && f.Contact != from.number {
			continue
		}
		return s.use(f, nil)
	}
	return nil
}

// use counts one strike. The lock is held.
func (s *Server) use(f *fault, c *conn) *Fault {
	if f.left > 0 {
		f.left--
	}
	s.record(f, c)
	if stages[f.Kind] == stageMode {
		c.enter(f)
	} else if f.left == 0 {
		s.faults = slices.DeleteFunc(s.faults, func(o *fault) bool { return o == f })
	}
	return &f.Fault
}

func (s *Server) record(f *fault, c *conn) {
	st := Struck{Fault: f.ID, Kind: f.Kind, At: s.opt.Now()}
	if c != nil {
		st.Socket, st.Device = c.rec.N, c.rec.Device
	}
	keep(&s.truth, s.opt.MaxRecords, &s.truth.struck, st)
	s.notify()
}

// Faults lists what is armed, with Times being what is left of each (-1:
// until cleared; 0: in force on the sockets it struck).
func (s *Server) Faults() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Fault, 0, len(s.faults))
	for _, f := range s.faults {
		v := f.Fault
		v.Times = f.left
		out = append(out, v)
	}
	return out
}

// ClearFaults disarms all faults and lifts the states that they put sockets in.
func (s *Server) ClearFaults() { s.clear(func(*fault) bool { return true }) }

// ClearFault disarms one by its id.
func (s *Server) ClearFault(id string) error {
	if !s.clear(func(f *fault) bool { return f.ID == id }) {
		return fmt.Errorf("fault %s: %w; GET /faults lists them", id, ErrNotFound)
	}
	return nil
}

func (s *Server) clear(which func(*fault) bool) (any bool) {
	s.mu.Lock()
	listen := false
	s.faults = slices.DeleteFunc(s.faults, func(f *fault) bool {
		if !which(f) {
			return false
		}
		any, f.cleared = true, true
		listen = listen || stages[f.Kind] == stageListen
		return true
	})
	for c := range s.conns {
		was := len(c.modes)
		c.modes = slices.DeleteFunc(c.modes, func(f *fault) bool { return f.cleared })
		if len(c.modes) == was {
			continue
		}
		c.setLatency()
		if d := c.device; d != nil && d.conn == c { // deliver what was held back
			for e := d.box.order.Front(); e != nil; e = e.Next() {
				if it := e.Value.(*item); it.sent.Before(c.rec.Opened) {
					d.deliver(it, false)
				}
			}
		}
	}
	s.mu.Unlock()
	if listen {
		s.reachable()
	}
	return any
}

// enter puts a socket into a fault's state. The lock is held.
func (c *conn) enter(f *fault) {
	c.modes = append(c.modes, f)
	c.setLatency()
}

func (c *conn) setLatency() {
	c.qmu.Lock()
	defer c.qmu.Unlock()
	c.latency = 0
	for _, f := range c.modes {
		if f.Kind == Delay {
			c.latency = max(c.latency, time.Duration(f.DelayMS)*time.Millisecond)
		}
	}
}

// is tells whether a socket is in a fault's state. The lock is held.
func (c *conn) is(k Kind) bool {
	return slices.ContainsFunc(c.modes, func(f *fault) bool { return f.Kind == k })
}

// now carries out a fault on a live socket. The lock is held.
func (s *Server) now(c *conn, f *Fault) {
	how := "fault " + string(f.Kind)
	switch f.Kind {
	case DropFault, ResetFault, CloseFault:
		s.wg.Go(func() {
			_ = c.drop(map[Kind]How{DropFault: DropTCP, ResetFault: DropReset, CloseFault: DropClose}[f.Kind])
		})
	case StreamEnd:
		c.end(how, streamEnd())
	case StreamError:
		c.end(how, streamError(f.Code, ""))
	case Replaced:
		c.end(how, streamError(0, "replaced"))
	case DeviceRemoved:
		c.end(how, deviceRemoved())
	case Downgrade:
		c.send(waBinary.Node{Tag: "ib", Attrs: waBinary.Attrs{"from": types.ServerJID}, Content: []waBinary.Node{{Tag: "downgrade_webclient"}}})
	case Timelock:
		c.send(s.timelock(f.ExpireSeconds))
	case LowPreKeys:
		c.send(s.lowKeys(0))
	case Node:
		if n, err := f.Node.Node(); err == nil {
			c.send(n)
		}
	case UnknownStanza:
		c.send(waBinary.Node{Tag: "surprise", Attrs: waBinary.Attrs{"from": types.ServerJID, "id": s.iqID()}, Content: []waBinary.Node{{Tag: "novelty"}}})
	case GarbageFrame:
		c.push(frame{raw: joinFrame(junk(120)), skip: true})
	case GarbageNode:
		c.push(frame{plain: append([]byte{0, 0xfe}, junk(60)...)})
	case LyingFrame:
		c.push(frame{raw: append([]byte{0x00, 0x40, 0x00}, junk(100)...)})
	case Oversized:
		c.push(frame{raw: joinFrame(make([]byte, 17<<20))})
	case OutOfOrder:
		for _, shift := range []int{1, -1} {
			plain, err := waBinary.Marshal(waBinary.Node{Tag: "ib", Attrs: waBinary.Attrs{"from": types.ServerJID}})
			if err == nil {
				c.push(frame{plain: plain, shift: shift})
			}
		}
	}
}

// junk is random bytes.
func junk(n int) []byte {
	out := make([]byte, n)
	_, _ = rand.Read(out)
	return out
}

// timelock is the notification that an account may not write to new people
// for a while. The lock is held.
func (s *Server) timelock(seconds int) waBinary.Node {
	ends := s.opt.Now().Add(time.Duration(seconds) * time.Second).Unix()
	body, _ := json.Marshal(map[string]any{"data": map[string]any{"xwa2_notify_account_reachout_timelock": map[string]any{
		"is_active": seconds > 0, "enforcement_type": "BIZ_QUALITY", "time_enforcement_ends": fmt.Sprint(ends)}}})
	return waBinary.Node{Tag: "notification", Attrs: waBinary.Attrs{"from": types.ServerJID, "type": "mex", "id": s.iqID(), "t": s.opt.Now().Unix()},
		Content: []waBinary.Node{{Tag: "update", Attrs: waBinary.Attrs{"op_name": "NotificationUserReachoutTimelockUpdate"}, Content: body}}}
}

// passkeyRequest is what some pairings demand.
func passkeyRequest(id string, now time.Time) waBinary.Node {
	options := []byte(`{"challenge":"c2ltdWxhdGVk","rpId":"whatsapp.com","timeout":60000,"userVerification":"required","allowCredentials":[]}`)
	return waBinary.Node{Tag: "notification", Attrs: waBinary.Attrs{"from": types.ServerJID, "type": "passkey_prologue_request", "id": id, "t": now.Unix()},
		Content: []waBinary.Node{{Tag: "passkey_request_options", Content: options}}}
}
