package wasim

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.mau.fi/libsignal/groups"
	"go.mau.fi/libsignal/protocol"
	"google.golang.org/protobuf/proto"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
)

// Group is a chat of several users, addressed by LID.
type Group struct {
	JID     types.JID `json:"jid"`
	Subject string    `json:"subject"`
	Members []string  `json:"members"` // phone numbers; the first is the admin
	created int64
}

// NewGroup makes a group of these numbers.
func (s *Server) NewGroup(subject string, members ...string) (Group, error) {
	if len(members) < 2 {
		return Group{}, fmt.Errorf("%w: group: has %d members; two are the least", ErrInput, len(members))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g := &Group{Subject: subject, created: s.opt.Now().Unix()}
	for _, m := range members {
		number, err := digits(m)
		if err != nil {
			return Group{}, err
		}
		s.user(number)
		if !slices.Contains(g.Members, number) {
			g.Members = append(g.Members, number)
		}
	}
	g.JID = types.NewJID(fmt.Sprintf("1203630000%08d", s.next()), types.GroupServer)
	s.groups[g.JID.User] = g
	return *g, nil
}

// Groups lists them.
func (s *Server) Groups() []Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Group{}
	for _, g := range s.groups {
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b Group) int { return strings.Compare(a.JID.User, b.JID.User) })
	return out
}

// onGroup answers queries about groups.
func (c *conn) onGroup(n *waBinary.Node, d *Device) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	to := jidOf(n, "to")
	g := s.groups[to.User]
	_, participating := n.GetOptionalChildByTag("participating")
	switch {
	case participating:
		var list []waBinary.Node
		for _, g := range s.groups {
			if slices.Contains(g.Members, d.user.number) {
				list = append(list, s.groupNode(g))
			}
		}
		c.result(n, waBinary.Node{Tag: "groups", Content: list})
	case g == nil || to.Server != types.GroupServer:
		c.fail(n, 404, "item-not-found")
	case !slices.Contains(g.Members, d.user.number):
		c.fail(n, 403, "forbidden")
	case text(n, "type") == "set":
		s.anomalyLocked(c, "iq", "w:g2 set")
		c.fail(n, 501, "feature-not-implemented")
	default:
		c.result(n, s.groupNode(g))
	}
}

// groupNode describes a group. The lock is held.
func (s *Server) groupNode(g *Group) waBinary.Node {
	n := waBinary.Node{Tag: "group", Attrs: waBinary.Attrs{
		"id": g.JID.User, "subject": g.Subject, "s_t": g.created, "creation": g.created,
		"creator": s.users[g.Members[0]].lidJID(0), "size": len(g.Members), "addressing_mode": "lid"}}
	var members []waBinary.Node
	for i, m := range g.Members {
		u := s.users[m]
		p := waBinary.Node{Tag: "participant", Attrs: waBinary.Attrs{"jid": u.lidJID(0), "phone_number": u.pn(0)}}
		if i == 0 {
			p.Attrs["type"] = "superadmin"
		}
		members = append(members, p)
	}
	n.Content = members
	return n
}

// SendGroup sends a text to a group that the contact is a member of.
func (c *Contact) SendGroup(ctx context.Context, group, text string, opts ...SendOption) (id string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	s := c.u.s
	s.mu.Lock()
	user, _, _ := strings.Cut(group, "@")
	g := s.groups[user]
	if g == nil || !slices.Contains(g.Members, c.u.number) {
		s.mu.Unlock()
		return "", fmt.Errorf("group %s: %w, or the contact is no member", group, ErrNotFound)
	}
	var targets []*Device
	for _, m := range g.Members {
		if m != c.u.number {
			found, _ := s.live(m)
			targets = append(targets, found...)
		}
	}
	s.mu.Unlock()
	if len(targets) == 0 {
		return "", fmt.Errorf("group %s: %w: no member has a linked device", group, ErrNotFound)
	}
	return c.send(targets, g.JID, &waE2E.Message{Conversation: proto.String(text)}, "", opts...)
}

// senderKey is this peer's distribution message for a group, made on first use.
// The peer is locked.
func (p *peer) senderKey(group types.JID) (*waE2E.SenderKeyDistributionMessage, error) {
	builder := groups.NewGroupSessionBuilder(p.store, serializer)
	name := protocol.NewSenderKeyName(group.String(), p.user.lidJID(0).SignalAddress())
	m, err := builder.Create(context.Background(), name)
	if err != nil {
		return nil, fmt.Errorf("sender key: %w", err)
	}
	return &waE2E.SenderKeyDistributionMessage{GroupID: proto.String(group.String()), AxolotlSenderKeyDistributionMessage: m.Serialize()}, nil
}

// withSenderKey adds the sender key to a message. The peer is locked.
func (p *peer) withSenderKey(group types.JID, plain []byte) ([]byte, error) {
	var m waE2E.Message
	if err := proto.Unmarshal(plain, &m); err != nil {
		return nil, err
	}
	key, err := p.senderKey(group)
	if err != nil {
		return nil, err
	}
	m.SenderKeyDistributionMessage = key
	return proto.Marshal(&m)
}

// sendGroup seals once with the sender key, and hands that key to those who
// lack it. The peer is locked.
func (p *peer) sendGroup(targets []*Device, id string, m *sentMessage) error {
	ctx := context.Background()
	key, err := p.senderKey(m.chat)
	if err != nil {
		return err
	}
	keyPlain, err := proto.Marshal(&waE2E.Message{SenderKeyDistributionMessage: key})
	if err != nil {
		return err
	}
	builder := groups.NewGroupSessionBuilder(p.store, serializer)
	name := protocol.NewSenderKeyName(m.chat.String(), p.user.lidJID(0).SignalAddress())
	msg, err := groups.NewGroupCipher(builder, name, p.store).Encrypt(ctx, pad(m.plain))
	if err != nil {
		return fmt.Errorf("encrypt for a group: %w", err)
	}
	if p.given == nil {
		p.given = map[string]bool{}
	}
	for _, d := range targets {
		var encs []encoded
		has := m.chat.User + "|" + d.jid.String()
		if !p.given[has] {
			kind, sealed, err := p.encrypt(d, keyPlain, nil)
			if err != nil {
				return err
			}
			encs = append(encs, encoded{kind, sealed})
			p.given[has] = true
		}
		p.post(d, id, m, append(encs, encoded{"skmsg", slices.Clone(msg.SignedSerialize())}), 0)
	}
	return nil
}

// takeSenderKey keeps the sender key that a message may carry. The peer is locked.
func (p *peer) takeSenderKey(from *Device, m *waE2E.Message) error {
	key := m.GetSenderKeyDistributionMessage()
	if key == nil {
		return nil
	}
	msg, err := protocol.NewSenderKeyDistributionMessageFromBytes(key.GetAxolotlSenderKeyDistributionMessage(), serializer.SenderKeyDistributionMessage)
	if err != nil {
		return fmt.Errorf("sender key: %w", err)
	}
	builder := groups.NewGroupSessionBuilder(p.store, serializer)
	return builder.Process(context.Background(), protocol.NewSenderKeyName(key.GetGroupID(), from.lid.SignalAddress()), msg)
}

// routeGroup hands a device's group message to the phones and the other
// devices of all members.
func (s *Server) routeGroup(from *Device, msg, enc *waBinary.Node, to types.JID) {
	id, kind, sealed := text(msg, "id"), text(enc, "type"), content(*enc)
	s.mu.Lock()
	g := s.groups[to.User]
	if g == nil || !slices.Contains(g.Members, from.user.number) {
		s.outgoing(from, id, to, to, kind, "undeliverable", "no such group, or not a member")
		s.mu.Unlock()
		return
	}
	var users []*user
	for _, m := range g.Members {
		u := s.users[m]
		users = append(users, u)
		others, _ := s.live(m)
		for _, d := range others {
			if d != from {
				s.outgoing(from, id, to, d.lid, kind, "forwarded", "")
				s.forward(from, d, msg, enc, to)
			}
		}
	}
	s.mu.Unlock()
	for _, u := range users {
		u.peer.receive(from, msg, u.lidJID(0), kind, slices.Clone(sealed), to)
	}
}
