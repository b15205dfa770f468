package whatsapp

import (
	"fmt"
	"time"

	"go.mau.fi/whatsmeow/proto/waCommon"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-wa/holdfast/state"
)

// Compose makes what is sent for an answer or a reaction, as protobuf JSON for
// Send. at is the time that a reaction says it was made at: that of the request,
// so that a second try says the same. Errors wrap ErrMessage or ErrRecipient.
func Compose(c state.OutboxContent, at time.Time) ([]byte, error) {
	if c.Reaction != nil {
		return composeReaction(c, at)
	}
	if c.Text == "" {
		return nil, fmt.Errorf("%w: the text is empty", ErrMessage)
	}
	m := &waE2E.Message{ExtendedTextMessage: &waE2E.ExtendedTextMessage{Text: proto.String(c.Text)}}
	if c.Quote != nil {
		info, err := quoting(*c.Quote, c.To)
		if err != nil {
			return nil, err
		}
		m.ExtendedTextMessage.ContextInfo = info
	}
	return encoded(m)
}

func composeReaction(c state.OutboxContent, at time.Time) ([]byte, error) {
	r := c.Reaction
	chat := r.Chat
	if chat == "" {
		chat = c.To
	}
	jid, err := parseRecipient(chat)
	if err != nil {
		return nil, err
	}
	key := &waCommon.MessageKey{RemoteJID: proto.String(jid.String()), FromMe: proto.Bool(r.FromMe), ID: proto.String(r.To)}
	if jid.Server == types.GroupServer && !r.FromMe {
		sender, err := parseRecipient(r.Sender)
		if err != nil {
			return nil, fmt.Errorf("whose message it reacts to: %w", err)
		}
		key.Participant = proto.String(sender.String())
	}
	return encoded(&waE2E.Message{ReactionMessage: &waE2E.ReactionMessage{
		Key: key, Text: proto.String(r.Emoji), SenderTimestampMS: proto.Int64(at.UnixMilli()),
	}})
}

// quoting says which message is answered. Phones show what is in it, so without
// its content they show an empty quotation.
func quoting(q state.Quote, to string) (*waE2E.ContextInfo, error) {
	sender := q.Sender
	if sender == "" {
		sender = to
	}
	jid, err := parseRecipient(sender)
	if err != nil {
		return nil, fmt.Errorf("whose message it answers: %w", err)
	}
	quoted := &waE2E.Message{}
	if len(q.Message) > 0 {
		// Of another release it may hold what this one does not know.
		if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(q.Message, quoted) != nil {
			quoted = &waE2E.Message{}
		}
		unnest(quoted)
	}
	if proto.Size(quoted) == 0 {
		quoted.Conversation = proto.String(q.Text)
	}
	return &waE2E.ContextInfo{StanzaID: proto.String(q.ID), Participant: proto.String(jid.String()), QuotedMessage: quoted}, nil
}

// unnest takes out of a quoted message what it quoted itself, and what is between
// devices only.
func unnest(m *waE2E.Message) {
	m.MessageContextInfo = nil
	m.SenderKeyDistributionMessage = nil
	if info := contextOf(m); info != nil {
		info.QuotedMessage, info.StanzaID, info.Participant = nil, nil, nil
	}
}

func encoded(m *waE2E.Message) ([]byte, error) {
	b, err := protojson.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot be written: %w", ErrMessage, err)
	}
	return b, nil
}
