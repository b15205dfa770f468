package wasim

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
)

// Contact is a person with a phone, who writes to devices and reads what they
// send.
type Contact struct{ u *user }

// Received is one message that a contact (or an account's own phone) has read.
type Received struct {
	ID      string         `json:"id"`
	From    string         `json:"from"`            // the sending device's JID
	To      string         `json:"to,omitempty"`    // on the sender's own phone: whom it went to
	Group   string         `json:"group,omitempty"` // in which group
	Text    string         `json:"text"`
	At      time.Time      `json:"at"`
	Quotes  string         `json:"quotes,omitempty"` // id of the message that it answers
	Message *waE2E.Message `json:"-"`

	Reaction *Reacted    `json:"reaction,omitempty"`
	File     *Attachment `json:"file,omitempty"`
}

// Failed is one ciphertext that a contact could not read.
type Failed struct {
	ID     string    `json:"id"`
	From   string    `json:"from"`
	Enc    string    `json:"enc"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// Contact returns the contact of a number, made on first use. What Phone says
// of numbers holds here.
func (s *Server) Contact(number string) *Contact {
	p, err := s.phone(number)
	if err != nil {
		panic(err)
	}
	return &Contact{p.u}
}

// Number is the contact's phone number.
func (c *Contact) Number() string { return c.u.number }

// PN and LID are the contact's two addresses.
func (c *Contact) PN() types.JID { return c.u.pn(0) }

// LID is the address that the library rewrites PN to when it sends.
func (c *Contact) LID() types.JID { return c.u.lidJID(0) }

// SetName sets the push name that its messages carry.
func (c *Contact) SetName(name string) {
	c.u.s.mu.Lock()
	defer c.u.s.mu.Unlock()
	c.u.name = name
}

// Reply sets what the contact answers to each text; nil or an empty answer is
// silence. It runs on the sending device's socket and must not block.
func (c *Contact) Reply(answer func(Received) string) {
	c.u.s.mu.Lock()
	defer c.u.s.mu.Unlock()
	c.u.reply = answer
}

// SendOption changes how a message is sent.
type SendOption func(*sending)

type sending struct{ by, id string }

// ByPN addresses the sender by phone number, with the LID beside it; without
// it, it is the other way round, as the real service does now.
func ByPN() SendOption { return func(s *sending) { s.by = "pn" } }

// WithID sends under this id.
func WithID(id string) SendOption { return func(s *sending) { s.id = id } }

// messageID is a fresh one.
func messageID() string {
	var r [10]byte
	_, _ = rand.Read(r[:])
	return "3A" + strings.ToUpper(hex.EncodeToString(r[:]))
}

// SendText sends a text to a device (by JID) or to all devices of an account
// (by number or LID user). It returns once the message waits in their
// mailboxes, whether they are online or not.
func (c *Contact) SendText(ctx context.Context, to, text string, opts ...SendOption) (id string, err error) {
	return c.Send(ctx, to, &waE2E.Message{Conversation: proto.String(text)}, opts...)
}

// Send is SendText of any message.
func (c *Contact) Send(ctx context.Context, to string, m *waE2E.Message, opts ...SendOption) (id string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	s := c.u.s
	s.mu.Lock()
	targets, err := s.live(to)
	s.mu.Unlock()
	if err != nil {
		return "", fmt.Errorf("send to %s: %w", maskNumber(to), err)
	}
	return c.send(targets, types.EmptyJID, m, "", opts...)
}

// maskNumber shortens a number for an error: no full ones in errors.
func maskNumber(to string) string {
	user, _, _ := strings.Cut(to, "@")
	if len(user) <= 4 {
		return "…"
	}
	return "…" + user[len(user)-4:]
}

// send encrypts for each target and leaves it in the mailboxes.
func (c *Contact) send(targets []*Device, group types.JID, m *waE2E.Message, id string, opts ...SendOption) (string, error) {
	o := sending{id: id}
	for _, opt := range opts {
		opt(&o)
	}
	def(&o.id, messageID())
	plain, err := proto.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("message: %w", err)
	}
	p := c.u.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	sent := &sentMessage{plain: plain, chat: group, by: o.by}
	p.remember(o.id, sent)
	if !group.IsEmpty() {
		return o.id, p.sendGroup(targets, o.id, sent)
	}
	for _, d := range targets {
		kind, sealed, err := p.encrypt(d, plain, nil)
		if err != nil {
			return "", err
		}
		p.post(d, o.id, sent, []encoded{{kind, sealed}}, 0)
	}
	return o.id, nil
}

// Read sends a read receipt for messages of a device.
func (c *Contact) Read(device string, ids ...string) error {
	s := c.u.s
	s.mu.Lock()
	defer s.mu.Unlock()
	targets, err := s.live(device)
	if err != nil {
		return err
	}
	for _, d := range targets {
		for _, id := range ids {
			d.post(&item{node: c.u.peer.receipt(id, "read", types.EmptyJID)})
		}
	}
	return nil
}

// Received is everything the contact has read, each id of a sender once.
func (c *Contact) Received() []Received {
	c.u.s.mu.Lock()
	defer c.u.s.mu.Unlock()
	return slices.Clone(c.u.received)
}

// Undecryptable is every ciphertext that the contact could not read.
func (c *Contact) Undecryptable() []Failed {
	c.u.s.mu.Lock()
	defer c.u.s.mu.Unlock()
	return slices.Clone(c.u.failed)
}

// WaitText blocks until the contact has read a message of that text.
func (c *Contact) WaitText(ctx context.Context, text string) (r Received, err error) {
	err = c.u.s.wait(ctx, func() bool {
		i := slices.IndexFunc(c.u.received, func(r Received) bool { return r.Text == text })
		if i >= 0 {
			r = c.u.received[i]
		}
		return i >= 0
	})
	if err != nil {
		return r, fmt.Errorf("wait for a text of %s: %w", short(text), err)
	}
	return r, nil
}

// WaitCount blocks until the contact has read n messages.
func (c *Contact) WaitCount(ctx context.Context, n int) error {
	return c.u.s.wait(ctx, func() bool { return len(c.u.received) >= n })
}
