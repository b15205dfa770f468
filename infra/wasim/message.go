package wasim

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waAdv"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
)

// maxRetries is how often a contact asks for a message again.
const maxRetries = 4

// onMessage takes a device's message: acknowledges it at once, then hands each
// recipient its ciphertext.
func (c *conn) onMessage(n *waBinary.Node) {
	s := c.s
	id, to := text(n, "id"), jidOf(n, "to")
	s.mu.Lock()
	d := c.device
	if d == nil {
		s.mu.Unlock()
		return
	}
	now := s.opt.Now()
	ack := waBinary.Node{Tag: "ack", Attrs: waBinary.Attrs{"class": "message", "id": id, "from": to, "t": now.Unix()}}
	f := s.strike(stageSend, c)
	switch {
	case f != nil && f.Kind == SendError:
		ack.Attrs["error"] = f.Code
		c.send(ack)
		s.outgoing(d, id, to, to, "", "refused", fmt.Sprintf("ack error %d", f.Code))
	case f != nil && f.Kind == SendSilence:
		s.outgoing(d, id, to, to, "", "refused", "never acknowledged")
	case f != nil && f.Kind == SendLateAck: // taken, and the socket ends before the ack
	default:
		c.send(ack)
	}
	s.mu.Unlock()
	if f != nil && f.Kind != SendLateAck {
		return
	}
	for _, child := range n.GetChildren() {
		switch child.Tag {
		case "participants":
			for _, p := range child.GetChildrenByTag("to") {
				for _, enc := range p.GetChildrenByTag("enc") {
					s.route(d, n, jidOf(&p, "jid"), &enc, to)
				}
			}
		case "enc":
			if text(&child, "type") == "skmsg" {
				s.routeGroup(d, n, &child, to)
				continue
			}
			recipient := to
			if p := jidOf(n, "participant"); !p.IsEmpty() {
				recipient = p
			}
			s.route(d, n, recipient, &child, to)
		}
	}
	if f != nil {
		_ = c.drop(DropReset)
	}
}

// outgoing records the fate of one ciphertext; a copy under the same id counts
// on the record there is. The lock is held.
func (s *Server) outgoing(d *Device, id string, to, recipient types.JID, enc, outcome, reason string) *Outgoing {
	key := outKey{d.jid.String(), id, recipient.String()}
	if rec := s.truth.sent[key]; rec != nil {
		rec.Copies++
		if rec.Outcome == "rejected" && outcome == "decrypted" {
			rec.Healed = true
		}
		if rec.Outcome != "decrypted" {
			rec.Outcome, rec.Enc = outcome, enc
			if outcome != "decrypted" {
				rec.Reason = reason
			}
		}
		s.notify()
		return rec
	}
	rec := &Outgoing{ID: id, Device: key.device, To: to.String(), Recipient: key.recipient, Enc: enc,
		At: s.opt.Now(), Outcome: outcome, Reason: reason, Copies: 1}
	if s.truth.sent == nil || len(s.truth.sent) >= 2*s.opt.MaxRecords {
		s.truth.sent = map[outKey]*Outgoing{}
	}
	s.truth.sent[key] = rec
	keep(&s.truth, s.opt.MaxRecords, &s.truth.outgoing, rec)
	s.notify()
	return rec
}

// route hands one ciphertext to the phone or linked device it is for.
func (s *Server) route(from *Device, msg *waBinary.Node, recipient types.JID, enc *waBinary.Node, to types.JID) {
	id, kind, sealed := text(msg, "id"), text(enc, "type"), content(*enc)
	s.mu.Lock()
	u := s.find(recipient)
	target := s.device(recipient)
	switch {
	case u == nil || recipient.Device != 0 && target == nil:
		s.outgoing(from, id, to, recipient, kind, "undeliverable", "no such user or device")
		s.mu.Unlock()
		return
	case target != nil:
		s.outgoing(from, id, to, target.lid, kind, "forwarded", "")
		s.forward(from, target, msg, enc, to)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	u.peer.receive(from, msg, u.lidJID(0), kind, sealed, to)
}

// forward leaves a device's message in another device's mailbox, with the
// sender's encryption. The lock is held.
func (s *Server) forward(from, target *Device, msg, enc *waBinary.Node, to types.JID) {
	now := s.opt.Now()
	n := waBinary.Node{Tag: "message", Attrs: waBinary.Attrs{
		"id": text(msg, "id"), "t": now.Unix(), "type": text(msg, "type"), "notify": from.user.name, "from": from.lid}}
	switch {
	case to.Server == types.GroupServer:
		n.Attrs["from"], n.Attrs["participant"], n.Attrs["participant_pn"] = to, from.lid, from.jid
		n.Attrs["addressing_mode"] = "lid"
	case target.user == from.user:
		n.Attrs["recipient"] = to
	default:
		n.Attrs["sender_pn"] = from.jid
	}
	n.Content = []waBinary.Node{{Tag: "enc", Attrs: maps.Clone(enc.Attrs), Content: enc.Content}}
	rec := &Incoming{ID: text(msg, "id"), Device: target.jid.String(), From: from.jid.String(), Enc: text(enc, "type"), Queued: now}
	keep(&s.truth, s.opt.MaxRecords, &s.truth.incoming, rec)
	target.post(&item{node: n, rec: rec})
}

// receive is a phone reading one ciphertext: it decrypts, keeps the text,
// answers with receipts or asks again.
func (p *peer) receive(from *Device, msg *waBinary.Node, self types.JID, kind string, sealed []byte, to types.JID) {
	s, id := p.user.s, text(msg, "id")
	group := types.EmptyJID
	if to.Server == types.GroupServer {
		group = to
	}
	p.mu.Lock()
	plain, err := p.decrypt(from, kind, group, sealed)
	var m waE2E.Message
	if err == nil {
		err = proto.Unmarshal(plain, &m)
	}
	if err == nil && kind == "pkmsg" {
		err = p.checkIdentity(from, msg)
	}
	if err == nil {
		err = p.takeSenderKey(from, &m)
	}
	key, ask := from.jid.String()+" "+id, 0
	if err != nil && from.user != p.user && !s.opt.NoRetry {
		if p.asked == nil {
			p.asked = map[string]int{}
		}
		if p.asked[key]++; p.asked[key] <= maxRetries {
			ask = p.asked[key]
		}
	}
	if err == nil && ask == 0 {
		delete(p.asked, key)
	}
	p.mu.Unlock()

	s.mu.Lock()
	if err != nil {
		s.outgoing(from, id, to, self, kind, "rejected", err.Error())
		keep(&s.truth, s.opt.MaxRecords, &p.user.failed, Failed{ID: id, From: from.jid.String(), Enc: kind, At: s.opt.Now(), Reason: err.Error()})
		if ask > 0 {
			from.post(&item{node: p.askAgain(id, group, ask)})
		}
		s.mu.Unlock()
		return
	}
	body := m.GetDeviceSentMessage().GetMessage()
	if body == nil {
		body = &m
	}
	text, ok := textOf(body)
	if !ok && kind != "skmsg" && group != types.EmptyJID { // only a sender key
		s.mu.Unlock()
		return
	}
	s.outgoing(from, id, to, self, kind, "decrypted", "")
	r := Received{ID: id, From: from.jid.String(), Text: text, At: s.opt.Now(), Message: body}
	r.describe(body)
	if group != types.EmptyJID {
		r.Group = group.String()
	}
	own := from.user == p.user
	if own {
		r.To = to.String()
	}
	known := slices.ContainsFunc(last(p.user.received, 2000), func(o Received) bool { return o.ID == id && o.From == r.From })
	if ok && !known {
		keep(&s.truth, s.opt.MaxRecords, &p.user.received, r)
	}
	reply := p.user.reply
	if !own && ok {
		p.receipts(from, id, group)
	}
	s.notify()
	s.mu.Unlock()
	if ok && !known && !own && reply != nil {
		if answer := reply(r); answer != "" {
			c := &Contact{p.user}
			_, _ = c.send([]*Device{from}, group, &waE2E.Message{Conversation: proto.String(answer)}, "")
		}
	}
}

// last is the end of a list, n long at most.
func last[T any](list []T, n int) []T { return list[max(0, len(list)-n):] }

// textOf is the text of a message and whether it is one for a person.
func textOf(m *waE2E.Message) (string, bool) {
	switch {
	case m.GetConversation() != "":
		return m.GetConversation(), true
	case m.GetExtendedTextMessage() != nil:
		return m.GetExtendedTextMessage().GetText(), true
	case m.GetImageMessage() != nil:
		return m.GetImageMessage().GetCaption(), true
	case m.GetVideoMessage() != nil:
		return m.GetVideoMessage().GetCaption(), true
	case m.GetDocumentMessage() != nil:
		return m.GetDocumentMessage().GetCaption(), true
	case m.GetProtocolMessage() != nil, m.GetSenderKeyDistributionMessage() != nil:
		return "", false
	}
	return "", true
}

// checkIdentity verifies the account's statement that comes with a pkmsg: that
// this device is one of that account. The peer is locked.
func (p *peer) checkIdentity(from *Device, msg *waBinary.Node) error {
	var signed waAdv.ADVSignedDeviceIdentity
	raw := content(msg.GetChildByTag("device-identity"))
	if raw == nil {
		return fmt.Errorf("pkmsg without device-identity")
	}
	if err := proto.Unmarshal(raw, &signed); err != nil {
		return fmt.Errorf("device-identity: %w", err)
	}
	account := from.user.peer.store.IdentityKey.Pub[:]
	if string(signed.GetAccountSignatureKey()) != string(account) || !verifyDevice(account, &signed, from.identity) {
		return fmt.Errorf("device-identity: is not signed by account and device")
	}
	return nil
}

// receipts answers a message that was read. The lock is held.
func (p *peer) receipts(d *Device, id string, group types.JID) {
	s := p.user.s
	if s.opt.Receipts == ReceiptsNone {
		return
	}
	d.post(&item{node: p.receipt(id, "", group)})
	if s.opt.Receipts == ReceiptsRead {
		d.post(&item{node: p.receipt(id, "read", group)})
	}
}

// receipt makes one. The lock is held.
func (p *peer) receipt(id, kind string, group types.JID) waBinary.Node {
	n := waBinary.Node{Tag: "receipt", Attrs: waBinary.Attrs{"id": id, "from": p.user.lidJID(0), "t": p.user.s.opt.Now().Unix()}}
	if kind != "" {
		n.Attrs["type"] = kind
	}
	if !group.IsEmpty() {
		n.Attrs["from"], n.Attrs["participant"] = group, p.user.lidJID(0)
	}
	return n
}

// askAgain is a retry receipt with keys for a new session. The lock is held.
func (p *peer) askAgain(id string, group types.JID, count int) waBinary.Node {
	n := p.receipt(id, "retry", group)
	b := p.bundle()
	n.Content = []waBinary.Node{
		{Tag: "retry", Attrs: waBinary.Attrs{"count": count, "id": id, "t": p.user.s.opt.Now().Unix(), "v": 1}},
		{Tag: "registration", Content: binary.BigEndian.AppendUint32(nil, b.regID)},
		{Tag: "keys", Content: []waBinary.Node{
			{Tag: "type", Content: []byte{5}},
			{Tag: "identity", Content: b.identity[:]},
			keyNode(b.one.id, b.one.pub[:], nil),
			keyNode(b.skeyID, b.skey[:], b.skeySig[:]),
		}},
	}
	return n
}

// short is a text for a log: its length, not itself.
func short(s string) string { return fmt.Sprintf("%d characters", len(strings.TrimSpace(s))) }
