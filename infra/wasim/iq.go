package wasim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
)

// handle takes one stanza of a client. A panic, which would be a fault of
// ours, costs that stanza and is recorded.
func (c *conn) handle(n *waBinary.Node) {
	s := c.s
	defer func() {
		if r := recover(); r != nil {
			s.opt.Log.Error("wasim: panic", "tag", n.Tag, "panic", r)
			s.anomaly(c, "panic", fmt.Sprint(r))
		}
	}()
	s.mu.Lock()
	deaf := c.ended || c.is(Mute)
	s.mu.Unlock()
	if deaf {
		return
	}
	switch n.Tag {
	case "iq":
		switch text(n, "type") {
		case "get", "set":
			c.onIQ(n)
		default:
			c.pairAnswer(n)
		}
	case "ack":
		c.onAck(n)
	case "receipt":
		c.onReceipt(n)
	case "message":
		c.onMessage(n)
	case "ib", "presence", "chatstate", "call":
	default:
		s.anomaly(c, "tag", n.Tag)
	}
}

// onIQ answers a query. Until the login only what belongs to pairing is.
func (c *conn) onIQ(n *waBinary.Node) {
	space := text(n, "xmlns")
	s := c.s
	s.mu.Lock()
	quiet := space == "w:p" && c.is(NoPong)
	device := c.device
	s.mu.Unlock()
	if quiet {
		return
	}
	switch {
	case space == "w:p":
		s.mu.Lock()
		c.rec.Pings++
		s.mu.Unlock()
		c.send(waBinary.Node{Tag: "iq", Attrs: waBinary.Attrs{"from": types.ServerJID, "type": "result", "id": n.Attrs["id"], "t": s.opt.Now().Unix()}})
		return
	case space == "md":
		c.onCompanion(n)
		return
	case device == nil:
		c.fail(n, 401, "not-authorized")
		return
	}
	set := text(n, "type") == "set"
	switch space {
	case "encrypt":
		c.onEncrypt(n, device, set)
	case "passive":
		s.mu.Lock()
		_, active := n.GetOptionalChildByTag("active")
		device.active = active && device.conn == c
		s.notify()
		s.mu.Unlock()
		c.result(n)
	case "usync":
		c.onUsync(n)
	case "w:g2":
		c.onGroup(n, device)
	case "w:m":
		c.send(s.mediaConn(n))
	case "w:sync:app:state":
		c.onAppState(n)
	case "privacy":
		if set {
			c.result(n)
			return
		}
		var categories []waBinary.Node
		for _, name := range []string{"readreceipts", "profile", "status", "last", "groupadd", "online", "calladd", "messages", "defense", "stickers"} {
			value := "all"
			if name == "defense" {
				value = "off"
			}
			categories = append(categories, waBinary.Node{Tag: "category", Attrs: waBinary.Attrs{"name": name, "value": value}})
		}
		c.result(n, waBinary.Node{Tag: "privacy", Content: categories})
	case "blocklist":
		c.result(n, waBinary.Node{Tag: "list", Attrs: waBinary.Attrs{"dhash": "0"}, Content: []waBinary.Node{}})
	case "status":
		c.result(n, waBinary.Node{Tag: "privacy", Content: []waBinary.Node{{Tag: "list", Attrs: waBinary.Attrs{"type": "contacts", "default": "true"}}}})
	case "w:profile:picture":
		c.fail(n, 404, "item-not-found")
	case "w:biz":
		c.result(n, waBinary.Node{Tag: "business_profile", Content: []waBinary.Node{}})
	case "w", "abt":
		c.result(n, waBinary.Node{Tag: "props", Attrs: waBinary.Attrs{"hash": "", "protocol": "1"}, Content: []waBinary.Node{}})
	case "tos", "disappearing_mode", "urn:xmpp:whatsapp:push", "urn:xmpp:whatsapp:dirty", "urn:xmpp:whatsapp:account", "w:stats":
		c.result(n)
	default:
		s.anomaly(c, "iq", space+" "+text(n, "type"))
		c.fail(n, 501, "feature-not-implemented")
	}
}

// onEncrypt serves prekeys: count, upload, and bundles of others.
func (c *conn) onEncrypt(n *waBinary.Node, d *Device, set bool) {
	s := c.s
	if set {
		if err := c.upload(n, d); err != nil {
			s.anomaly(c, "prekey", err.Error())
			c.fail(n, 406, "not-acceptable")
			return
		}
		c.result(n)
		return
	}
	if key, ok := n.GetOptionalChildByTag("key"); ok {
		var list []waBinary.Node
		for _, u := range key.GetChildrenByTag("user") {
			list = append(list, s.bundleNode(jidOf(&u, "jid")))
		}
		c.result(n, waBinary.Node{Tag: "list", Content: list})
		return
	}
	if _, ok := n.GetOptionalChildByTag("count"); ok {
		s.mu.Lock()
		left := d.left
		s.mu.Unlock()
		c.result(n, waBinary.Node{Tag: "count", Attrs: waBinary.Attrs{"value": left}})
		return
	}
	s.anomaly(c, "iq", "encrypt get")
	c.fail(n, 501, "feature-not-implemented")
}

// upload stores a device's prekeys. An id that comes twice must come with the
// same key.
func (c *conn) upload(n *waBinary.Node, d *Device) error {
	if id := content(n.GetChildByTag("identity")); string(id) != string(d.identity[:]) {
		return fmt.Errorf("identity key is not the one of the pairing")
	}
	if reg := content(n.GetChildByTag("registration")); len(reg) != 4 || binary.BigEndian.Uint32(reg) != d.regID {
		return fmt.Errorf("registration id is not the one of the pairing")
	}
	list := n.GetChildByTag("list")
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.prekeys == nil {
		d.prekeys = make([]preKey, 0, len(list.GetChildren()))
	}
	for _, k := range list.GetChildren() {
		id, value := content(k.GetChildByTag("id")), content(k.GetChildByTag("value"))
		if len(id) != 3 || len(value) != 32 {
			return fmt.Errorf("a prekey is malformed")
		}
		key := preKey{id: uint32(id[0])<<16 | uint32(id[1])<<8 | uint32(id[2]), pub: [32]byte(value)}
		at, found := slices.BinarySearchFunc(d.prekeys, key.id, func(p preKey, id uint32) int { return int(p.id) - int(id) })
		switch {
		case !found:
			d.prekeys = slices.Insert(d.prekeys, at, key)
			d.left++
		case d.prekeys[at].pub != key.pub:
			s.anomalyLocked(c, "prekey", fmt.Sprintf("id %d was uploaded before with another key", key.id))
			if d.prekeys[at].used {
				d.left++
			}
			d.prekeys[at] = key
		}
	}
	s.notify()
	return nil
}

// takePreKey hands out one of a device's prekeys, if one is left, and tells
// the device when they run low, as the real service does. The lock is held.
func (d *Device) takePreKey() (preKey, bool) {
	for i := range d.prekeys {
		if k := &d.prekeys[i]; !k.used {
			k.used = true
			d.left--
			if d.left == 4 {
				d.post(&item{node: d.s.lowKeys(d.left)})
			}
			return *k, true
		}
	}
	return preKey{}, false
}

// lowKeys is the notification that few prekeys are left. The lock is held.
func (s *Server) lowKeys(left int) waBinary.Node {
	return waBinary.Node{
		Tag: "notification", Attrs: waBinary.Attrs{"from": types.ServerJID, "type": "encrypt", "id": s.iqID(), "t": s.opt.Now().Unix()},
		Content: []waBinary.Node{{Tag: "count", Attrs: waBinary.Attrs{"value": left}}},
	}
}

// keyNode is a prekey in a stanza; with a signature it is a signed one.
func keyNode(id uint32, pub, signature []byte) waBinary.Node {
	n := waBinary.Node{Tag: "key", Content: []waBinary.Node{
		{Tag: "id", Content: []byte{byte(id >> 16), byte(id >> 8), byte(id)}},
		{Tag: "value", Content: pub},
	}}
	if signature != nil {
		n.Tag = "skey"
		n.Content = append(n.GetChildren(), waBinary.Node{Tag: "signature", Content: signature})
	}
	return n
}

// bundleNode answers a query for the keys of one device or phone.
func (s *Server) bundleNode(jid types.JID) waBinary.Node {
	n := waBinary.Node{Tag: "user", Attrs: waBinary.Attrs{"jid": jid}}
	b, ok := s.bundle(jid)
	if !ok {
		n.Content = []waBinary.Node{{Tag: "error", Attrs: waBinary.Attrs{"code": 404, "text": "item-not-found"}}}
		return n
	}
	children := []waBinary.Node{
		{Tag: "registration", Content: binary.BigEndian.AppendUint32(nil, b.regID)},
		{Tag: "type", Content: []byte{5}},
		{Tag: "identity", Content: b.identity[:]},
	}
	if b.one != nil {
		children = append(children, keyNode(b.one.id, b.one.pub[:], nil))
	}
	n.Content = append(children, keyNode(b.skeyID, b.skey[:], b.skeySig[:]))
	return n
}

// onUsync tells who is on the service, their LIDs and their devices. Every
// number of 5 to 15 digits that does not begin with 0 is somebody.
func (c *conn) onUsync(n *waBinary.Node) {
	s := c.s
	usync := n.GetChildByTag("usync")
	query := usync.GetChildByTag("query")
	list := usync.GetChildByTag("list")
	var out []waBinary.Node
	s.mu.Lock()
	for _, asked := range list.GetChildrenByTag("user") {
		out = append(out, s.usyncUser(&asked, &query))
	}
	s.mu.Unlock()
	c.result(n, waBinary.Node{Tag: "usync", Attrs: usync.Attrs, Content: []waBinary.Node{
		{Tag: "result", Content: []waBinary.Node{}}, {Tag: "list", Content: out}}})
}

// usyncUser answers for one user. The lock is held.
func (s *Server) usyncUser(asked, query *waBinary.Node) waBinary.Node {
	jid := jidOf(asked, "jid")
	phone := string(content(asked.GetChildByTag("contact")))
	answer := waBinary.Node{Tag: "user", Attrs: waBinary.Attrs{}}
	number := jid.User
	if phone != "" {
		number, _, _ = strings.Cut(strings.TrimPrefix(phone, "+"), "@")
		number = strings.TrimPrefix(number, "+")
	}
	var u *user
	switch {
	case jid.Server == types.HiddenUserServer:
		u = s.lids[jid.User]
	case !strings.HasPrefix(number, "0"):
		if d, err := digits(number); err == nil && d == number {
			u = s.user(number)
		}
	}
	if phone != "" {
		if u != nil {
			answer.Attrs["jid"], answer.Attrs["pn_jid"] = u.lidJID(0), u.pn(0)
		} else {
			answer.Attrs["jid"] = types.NewJID(number, types.DefaultUserServer)
		}
	} else {
		answer.Attrs["jid"] = jid
	}
	var children []waBinary.Node
	for _, q := range query.GetChildren() {
		switch q.Tag {
		case "contact":
			kind := "out"
			if u != nil {
				kind = "in"
			}
			children = append(children, waBinary.Node{Tag: "contact", Attrs: waBinary.Attrs{"type": kind}, Content: []byte(phone)})
		case "devices":
			if u == nil {
				continue
			}
			ids := []waBinary.Node{{Tag: "device", Attrs: waBinary.Attrs{"id": 0}}}
			for _, d := range s.match(u.number) {
				if d.unlinked == nil {
					ids = append(ids, waBinary.Node{Tag: "device", Attrs: waBinary.Attrs{"id": int(d.jid.Device), "key-index": int(d.jid.Device)}})
				}
			}
			children = append(children, waBinary.Node{Tag: "devices", Content: []waBinary.Node{{Tag: "device-list", Content: ids}}})
		case "lid":
			if u != nil {
				children = append(children, waBinary.Node{Tag: "lid", Attrs: waBinary.Attrs{"val": u.lidJID(0)}})
			}
		case "status":
			children = append(children, waBinary.Node{Tag: "status", Content: []byte("simulated")})
		}
	}
	answer.Content = children
	return answer
}

// onCompanion serves the md namespace: logout and pairing by code.
func (c *conn) onCompanion(n *waBinary.Node) {
	s := c.s
	if child, ok := n.GetOptionalChildByTag("remove-companion-device"); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		d := s.device(jidOf(&child, "jid"))
		if d == nil || c.device == nil || d.user != c.device.user {
			c.fail(n, 404, "item-not-found")
			return
		}
		c.result(n)
		if d.conn == c { // its own logout needs no notice
			c.retire("logged out")
		}
		d.unlink("logged out by " + c.rec.Device)
		return
	}
	if child, ok := n.GetOptionalChildByTag("link_code_companion_reg"); ok {
		c.onLinkCode(n, &child)
		return
	}
	s.anomaly(c, "iq", "md "+text(n, "type"))
	c.fail(n, 501, "feature-not-implemented")
}
