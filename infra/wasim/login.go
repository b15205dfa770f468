package wasim

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waCompanionReg"
	"go.mau.fi/whatsmeow/types"
)

// Final stanzas.

func streamEnd() waBinary.Node { return waBinary.Node{Tag: "xmlstreamend"} }

func streamError(code int, conflict string) waBinary.Node {
	n := waBinary.Node{Tag: "stream:error", Attrs: waBinary.Attrs{}}
	if code != 0 {
		n.Attrs["code"] = code
	}
	if conflict != "" {
		n.Content = []waBinary.Node{{Tag: "conflict", Attrs: waBinary.Attrs{"type": conflict}}}
	}
	return n
}

func deviceRemoved() waBinary.Node { return streamError(401, "device_removed") }

// failure is what refuses a login. For 402, ban is the reason code (101 to
// 106) and expire how long it lasts, in seconds.
func failure(code int, message string, ban, expire int) waBinary.Node {
	n := waBinary.Node{Tag: "failure", Attrs: waBinary.Attrs{"reason": code, "location": "sim"}}
	if message != "" {
		n.Attrs["message"] = message
	}
	if code == 402 {
		n.Attrs["code"], n.Attrs["expire"] = ban, expire
	}
	return n
}

// begin takes the payload of a finished handshake: a login, or a registration.
func (c *conn) begin(static []byte, payload *clientPayload) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	v := payload.GetUserAgent().GetAppVersion()
	login := &Login{
		Socket: c.rec.N, At: s.opt.Now(), Passive: payload.GetPassive(), Pull: payload.GetPull(),
		Version: fmt.Sprintf("%d.%d.%d", v.GetPrimary(), v.GetSecondary(), v.GetTertiary()),
	}
	c.rec.Version = login.Version
	keep(&s.truth, s.opt.MaxRecords, &s.truth.logins, login)
	defer s.notify()
	refuse := func(code int, message string) {
		login.Outcome = fmt.Sprintf("failure %d", code)
		c.end(login.Outcome, failure(code, message, 0, 0))
	}
	reg := payload.GetDevicePairingData()
	if reg == nil {
		if !c.identify(static, payload) {
			s.anomalyLocked(c, "login", "no such device, or another noise key")
			refuse(401, "no such device")
			return
		}
		login.Device = c.rec.Device
	} else {
		var props waCompanionReg.DeviceProps
		if proto.Unmarshal(reg.GetDeviceProps(), &props) == nil {
			login.OS = props.GetOs()
		}
	}
	if s.minimum != 0 && v.GetTertiary() < s.minimum {
		refuse(405, "client too old")
		return
	}
	for s.strike(stageMode, c) != nil { // all states that are armed, together
	}
	if f := s.strike(stageLogin, c); f != nil {
		login.Outcome = string(f.Kind)
		c.end(fmt.Sprintf("failure %d", f.Code), failure(f.Code, f.Text, f.Ban, f.ExpireSeconds))
		return
	}
	if c.is(Mute) {
		login.Outcome = string(Mute)
		return
	}
	if reg != nil {
		login.Outcome = "pairing"
		if err := s.beginPairing(c, static, reg); err != nil {
			s.anomalyLocked(c, "login", err.Error())
			refuse(400, "bad registration")
			return
		}
		if f := s.strike(stagePairing, c); f != nil {
			c.send(passkeyRequest(s.iqID(), s.opt.Now()))
		}
		return
	}
	login.Outcome = "success"
	c.welcome()
	if f := s.strike(stageWelcome, c); f != nil {
		s.now(c, f)
	}
}

// identify finds the device that logs in; its noise key must be the one it
// was paired with. The lock is held.
func (c *conn) identify(static []byte, payload *clientPayload) bool {
	u := c.s.users[fmt.Sprint(payload.GetUsername())]
	if u == nil || payload.GetDevice() == 0 || payload.GetDevice() > 255 {
		return false
	}
	d := u.devices[uint16(payload.GetDevice())]
	if d == nil {
		return false
	}
	c.rec.Device = d.jid.String()
	if d.unlinked != nil || string(d.noise[:]) != string(static) {
		return false
	}
	c.device = d
	return true
}

// welcome logs a device in: it kicks an older socket, sends success and what
// waits, between offline_preview and offline. The lock is held.
func (c *conn) welcome() {
	s, d := c.s, c.device
	d.logins++
	if old := d.conn; old != nil && old != c {
		if alive(old.raw) {
			d.overlaps++
			d.kicks++
			keep(&s.truth, s.opt.MaxRecords, &s.truth.overlaps, &Overlap{
				Device: d.jid.String(), Older: old.rec.N, Newer: c.rec.N, At: s.opt.Now()})
		}
		old.end("replaced", streamError(0, "replaced"))
	}
	d.conn, d.active = c, false
	c.rec.LoggedIn = s.at()
	c.send(waBinary.Node{Tag: "success", Attrs: waBinary.Attrs{
		"t": s.opt.Now().Unix(), "lid": d.lid, "props": "2", "location": "sim",
	}})
	if c.is(Zombie) {
		return
	}
	d.deliverAll()
	if !d.greeted && !s.opt.QuietPhone {
		d.greeted = true
		s.wg.Go(func() { d.user.greet(d) })
	}
}

// deliverAll sends everything that waits, as the real service does after a
// login. The lock is held.
func (d *Device) deliverAll() {
	c := d.conn
	count := d.box.order.Len()
	kinds := map[string]int{}
	for e := d.box.order.Front(); e != nil; e = e.Next() {
		kinds[e.Value.(*item).node.Tag]++
	}
	ib := func(tag string, attrs waBinary.Attrs) {
		c.send(waBinary.Node{Tag: "ib", Attrs: waBinary.Attrs{"from": types.ServerJID}, Content: []waBinary.Node{{Tag: tag, Attrs: attrs}}})
	}
	if count > 0 {
		ib("offline_preview", waBinary.Attrs{"count": count, "message": kinds["message"],
			"notification": kinds["notification"], "receipt": kinds["receipt"], "appdata": 0})
		for e := d.box.order.Front(); e != nil; e = e.Next() {
			d.deliver(e.Value.(*item), true)
		}
	}
	ib("offline", waBinary.Attrs{"count": count})
}
