package whatsapp

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// The bounds of an event's data: what a receiver can be expected to take. What
// does not fit into a record goes to the vault by the journal's hand.
const (
	maxWhole = 4 << 20  // of the whole message as JSON
	maxData  = 5 << 20  // of all of it
	maxText  = 32 << 10 // what is left of a text that does not fit
)

// MessageData is the data of message.received. Addresses are JIDs: a phone
// number is …@s.whatsapp.net, a hidden one …@lid, a group …@g.us.
type MessageData struct {
	ID        string    `json:"id"`
	Chat      string    `json:"chat"`
	Sender    string    `json:"sender"`
	SenderAlt string    `json:"senderAlt,omitempty"` // the sender's other address: number for a LID, LID for a number
	FromMe    bool      `json:"fromMe"`              // sent by another device of this account
	IsGroup   bool      `json:"isGroup"`
	PushName  string    `json:"pushName,omitempty"`
	Timestamp time.Time `json:"timestamp"` // by the server's clock
	Type      string    `json:"type"`      // text, image, … reaction, edit, revoke, other
	Text      string    `json:"text,omitempty"`
	TextCut   bool      `json:"textCut,omitempty"` // Text was too long

	QuotedID string        `json:"quotedId,omitempty"`
	Reaction *ReactionData `json:"reaction,omitempty"`
	EditOf   string        `json:"editOf,omitempty"`  // id of the message that this replaces
	Revokes  string        `json:"revokes,omitempty"` // id of the message that this deletes
	Media    *MediaData    `json:"media,omitempty"`
	ViewOnce bool          `json:"viewOnce,omitempty"`

	// Message is the whole message in protobuf JSON. MessageDropped says why it
	// is absent.
	Message        json.RawMessage `json:"message,omitempty"`
	MessageDropped string          `json:"messageDropped,omitempty"`
}

// ReactionData is a reaction; an empty Emoji takes it back.
type ReactionData struct {
	To    string `json:"to"` // message id
	Emoji string `json:"emoji"`
}

// MediaData describes an attachment. The keys to fetch it are in the message.
type MediaData struct {
	Kind     string `json:"kind"` // image, video, audio, document, sticker
	MIME     string `json:"mime,omitempty"`
	Size     uint64 `json:"size,omitempty"` // bytes
	FileName string `json:"fileName,omitempty"`
	Seconds  uint32 `json:"seconds,omitempty"`
	Voice    bool   `json:"voice,omitempty"`
}

// UndecryptableData is the data of message.undecryptable.
type UndecryptableData struct {
	ID        string    `json:"id"`
	Chat      string    `json:"chat"`
	Sender    string    `json:"sender"`
	SenderAlt string    `json:"senderAlt,omitempty"`
	IsGroup   bool      `json:"isGroup"`
	Timestamp time.Time `json:"timestamp"`
	Reason    string    `json:"reason"` // decryption, unavailable, view_once
}

// message stages message.received. It returns false if the message must not be
// acknowledged, with nothing of it staged any more.
func (l *Line) message(e *events.Message) bool {
	if !worthTelling(e.Message) {
		return true
	}
	if l.cfg.Full() {
		l.store.Drop()
		l.post(QueueFull{l.on()})
		if e.UnavailableRequestID != "" {
			// The library acknowledges a message that the phone has sent again
			// whatever its handler says.
			l.fail(policy.Signal{Kind: policy.SignalClosed, Err: errQueueFull})
		}
		return false
	}
	data, err := encodeMessage(e)
	if err != nil {
		return l.refuse(err)
	}
	return l.stage(journal.Draft{Type: state.EventMessage, Time: l.svc.cfg.Now(), Data: data})
}

var errQueueFull = fmt.Errorf("the queue of events out is full")

// stage hands drafts to the store: with the ratchet of the message handled on
// this goroutine, or as a commit of their own.
func (l *Line) stage(drafts ...journal.Draft) bool {
	if err := l.store.Stage(journal.Batch{Events: drafts}); err != nil {
		return l.refuse(err)
	}
	return true
}

// refuse drops what is staged and cuts the line: there are paths on which the
// library acknowledges although a handler has failed.
func (l *Line) refuse(err error) bool {
	l.fail(policy.Signal{Kind: policy.SignalStoreFailed, Err: err})
	l.store.Drop()
	return false
}

// undecryptable tells of a message that could not be read. The library has
// asked for it again, and has acknowledged it.
func (l *Line) undecryptable(e *events.UndecryptableMessage) bool {
	reason := "decryption"
	switch {
	case e.UnavailableType == events.UnavailableTypeViewOnce:
		reason = "view_once"
	case e.IsUnavailable:
		reason = "unavailable"
	default:
		l.post(Undecryptable{l.on(), peerToken(e.Info.Sender), e.Info.ID})
		l.post(Signalled{l.on(), policy.Signal{Kind: policy.SignalUndecryptable}, false})
	}
	if l.cfg.Full() {
		return true
	}
	return l.stage(journal.Draft{Type: state.EventUndecrypted, Time: l.svc.cfg.Now(), Data: UndecryptableData{
		ID: e.Info.ID, Chat: e.Info.Chat.String(), Sender: e.Info.Sender.String(), SenderAlt: e.Info.SenderAlt.String(),
		IsGroup: e.Info.IsGroup, Timestamp: e.Info.Timestamp.UTC(), Reason: reason,
	}})
}

// worthTelling says whether there is anything in a message for people or bots:
// not in what devices send each other to work.
func worthTelling(m *waE2E.Message) bool {
	if m == nil {
		return false
	}
	content := false
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		switch f.Name() {
		case "messageContextInfo", "senderKeyDistributionMessage", "fastRatchetKeySenderKeyDistributionMessage",
			"groupRootKeyShare", "rootSecretDistributeMessage", "stickerSyncRmrMessage":
			return true
		case "protocolMessage":
			switch m.GetProtocolMessage().GetType() {
			case waE2E.ProtocolMessage_REVOKE, waE2E.ProtocolMessage_MESSAGE_EDIT, waE2E.ProtocolMessage_EPHEMERAL_SETTING,
				waE2E.ProtocolMessage_SHARE_PHONE_NUMBER, waE2E.ProtocolMessage_GROUP_MEMBER_LABEL_CHANGE:
				content = m.GetProtocolMessage().Type != nil || m.GetProtocolMessage().GetKey() != nil
			}
			return !content
		}
		content = true
		return false
	})
	return content || len(m.ProtoReflect().GetUnknown()) > 0
}

func encodeMessage(e *events.Message) (json.RawMessage, error) {
	d := describe(e)
	d.Message, d.MessageDropped = whole(e.Message)
	data, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encoding a message: %w", err)
	}
	if len(data) <= maxData {
		return data, nil
	}
	d.Message, d.MessageDropped = nil, "too large"
	if len(d.Text) > maxText {
		d.Text, d.TextCut = strings.ToValidUTF8(d.Text[:maxText], ""), true
	}
	if data, err = json.Marshal(d); err != nil {
		return nil, fmt.Errorf("encoding a message: %w", err)
	}
	return data, nil
}

// whole is the message as protobuf JSON, or why it is left out.
func whole(m *waE2E.Message) (json.RawMessage, string) {
	if proto.Size(m) > maxWhole {
		return nil, "too large"
	}
	data, err := protojson.Marshal(m)
	if err != nil {
		return nil, "not representable"
	}
	if len(data) > maxWhole {
		return nil, "too large"
	}
	return data, ""
}

// describe fills everything but the whole message.
func describe(e *events.Message) MessageData {
	m := e.Message
	d := MessageData{
		ID: e.Info.ID, Chat: e.Info.Chat.String(), Sender: e.Info.Sender.ToNonAD().String(),
		FromMe: e.Info.IsFromMe, IsGroup: e.Info.IsGroup, PushName: short(e.Info.PushName), Timestamp: e.Info.Timestamp.UTC(),
		ViewOnce: e.IsViewOnce,
	}
	if alt := e.Info.SenderAlt; !alt.IsEmpty() {
		d.SenderAlt = alt.ToNonAD().String()
	}
	if pm := m.GetProtocolMessage(); pm != nil && m.ProtocolMessage != nil {
		switch pm.GetType() {
		case waE2E.ProtocolMessage_REVOKE:
			d.Type, d.Revokes = "revoke", pm.GetKey().GetID()
			return d
		case waE2E.ProtocolMessage_MESSAGE_EDIT:
			d.Type, d.EditOf = "edit", pm.GetKey().GetID()
			_, d.Text, d.Media = content(pm.GetEditedMessage())
			return d
		}
	}
	if r := m.GetReactionMessage(); r != nil {
		d.Type, d.Reaction = "reaction", &ReactionData{To: r.GetKey().GetID(), Emoji: short(r.GetText())}
		return d
	}
	d.Type, d.Text, d.Media = content(m)
	d.QuotedID = contextOf(m).GetStanzaID()
	if meta := e.NewsletterMeta; meta != nil && !meta.EditTS.IsZero() && meta.EditTS.Unix() > 0 {
		d.EditOf = e.Info.ID
	}
	return d
}

func short(s string) string {
	const most = 1 << 10
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "")
}

// content finds a message's type, its text or caption, and its attachment.
func content(m *waE2E.Message) (kind, text string, media *MediaData) {
	switch {
	case m == nil:
		return "other", "", nil
	case m.Conversation != nil:
		return "text", m.GetConversation(), nil
	case m.ExtendedTextMessage != nil:
		return "text", m.GetExtendedTextMessage().GetText(), nil
	case m.ImageMessage != nil:
		i := m.GetImageMessage()
		return "image", i.GetCaption(), &MediaData{Kind: "image", MIME: short(i.GetMimetype()), Size: i.GetFileLength()}
	case m.VideoMessage != nil, m.PtvMessage != nil:
		v := m.GetVideoMessage()
		if v == nil {
			v = m.GetPtvMessage()
		}
		return "video", v.GetCaption(), &MediaData{Kind: "video", MIME: short(v.GetMimetype()), Size: v.GetFileLength(), Seconds: v.GetSeconds()}
	case m.AudioMessage != nil:
		a := m.GetAudioMessage()
		return "audio", "", &MediaData{Kind: "audio", MIME: short(a.GetMimetype()), Size: a.GetFileLength(), Seconds: a.GetSeconds(), Voice: a.GetPTT()}
	case m.DocumentMessage != nil:
		f := m.GetDocumentMessage()
		return "document", f.GetCaption(), &MediaData{Kind: "document", MIME: short(f.GetMimetype()), Size: f.GetFileLength(), FileName: short(f.GetFileName())}
	case m.StickerMessage != nil:
		s := m.GetStickerMessage()
		return "sticker", "", &MediaData{Kind: "sticker", MIME: short(s.GetMimetype()), Size: s.GetFileLength()}
	case m.LocationMessage != nil:
		return "location", m.GetLocationMessage().GetName(), nil
	case m.LiveLocationMessage != nil:
		return "location", m.GetLiveLocationMessage().GetCaption(), nil
	case m.ContactMessage != nil:
		return "contact", m.GetContactMessage().GetDisplayName(), nil
	case m.ContactsArrayMessage != nil:
		return "contact", m.GetContactsArrayMessage().GetDisplayName(), nil
	case m.PollCreationMessage != nil:
		return "poll", m.GetPollCreationMessage().GetName(), nil
	case m.PollCreationMessageV2 != nil:
		return "poll", m.GetPollCreationMessageV2().GetName(), nil
	case m.PollCreationMessageV3 != nil:
		return "poll", m.GetPollCreationMessageV3().GetName(), nil
	case m.ButtonsResponseMessage != nil:
		return "text", m.GetButtonsResponseMessage().GetSelectedDisplayText(), nil
	case m.TemplateButtonReplyMessage != nil:
		return "text", m.GetTemplateButtonReplyMessage().GetSelectedDisplayText(), nil
	case m.ListResponseMessage != nil:
		return "text", m.GetListResponseMessage().GetTitle(), nil
	case m.GroupInviteMessage != nil:
		return "invite", m.GetGroupInviteMessage().GetCaption(), nil
	}
	return "other", "", nil
}

// contextOf is what a message says of the message that it answers.
func contextOf(m *waE2E.Message) *waE2E.ContextInfo {
	type contexted interface{ GetContextInfo() *waE2E.ContextInfo }
	for _, part := range []contexted{
		m.GetExtendedTextMessage(), m.GetImageMessage(), m.GetVideoMessage(), m.GetPtvMessage(), m.GetAudioMessage(),
		m.GetDocumentMessage(), m.GetStickerMessage(), m.GetLocationMessage(), m.GetLiveLocationMessage(),
		m.GetContactMessage(), m.GetContactsArrayMessage(), m.GetButtonsResponseMessage(), m.GetTemplateButtonReplyMessage(),
		m.GetListResponseMessage(), m.GetPollCreationMessage(),
	} {
		if info := part.GetContextInfo(); info != nil {
			return info
		}
	}
	return nil
}

// StatusData is the data of message.status: what became of a message sent.
type StatusData struct {
	MessageID string    `json:"messageId"`
	Status    string    `json:"status"` // sent, delivered, read, failed
	Chat      string    `json:"chat,omitempty"`
	By        string    `json:"by,omitempty"` // who has it or read it; differs from Chat in groups
	Timestamp time.Time `json:"timestamp"`
}

// receiptsAtOnce bounds the events of one commit; a receipt may name hundreds
// of messages.
const receiptsAtOnce = 40

// receipt commits message.status for each message that a receipt names.
func (l *Line) receipt(e *events.Receipt) bool {
	status := ""
	switch e.Type {
	case types.ReceiptTypeDelivered, types.ReceiptTypeInactive:
		status = "delivered"
	case types.ReceiptTypeRead, types.ReceiptTypePlayed:
		status = "read"
	}
	if status == "" || e.IsFromMe || len(e.MessageIDs) == 0 {
		return true // of our own devices, or a matter between libraries
	}
	if l.cfg.Full() {
		l.post(QueueFull{l.on()})
		return false
	}
	now := l.svc.cfg.Now()
	drafts := make([]journal.Draft, 0, min(len(e.MessageIDs), receiptsAtOnce))
	for i, id := range e.MessageIDs {
		by := e.Sender.ToNonAD().String()
		drafts = append(drafts, journal.Draft{Type: state.EventMessageState, Time: now, ID: receiptID(e.Timestamp, id, status, e.Chat.String(), by), Data: StatusData{
			MessageID: id, Status: status, Chat: e.Chat.String(), By: by, Timestamp: e.Timestamp.UTC(),
		}})
		if len(drafts) == receiptsAtOnce || i == len(e.MessageIDs)-1 {
			if !l.stage(drafts...) {
				return false
			}
			drafts = nil
		}
	}
	l.post(Receipt{l.on(), append([]string(nil), e.MessageIDs...), status, e.Timestamp})
	return true
}

// receiptID is the id of what a receipt tells. It is made of the receipt, because
// one that comes again after a crash between commit and acknowledgement leaves no
// other trace by which it would be known: receivers deduplicate by it.
func receiptID(at time.Time, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	var id ulid.ULID
	copy(id[6:], sum[:])
	if at.UnixMilli() > 0 {
		_ = id.SetTime(uint64(at.UnixMilli())) // fails for years that no server sends
	}
	return id.String()
}

func stackHere() string { return string(debug.Stack()) }
