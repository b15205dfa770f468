package adminapi

import (
	"encoding/json"
	"mime"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/holdfast-wa/holdfast/state"
)

const (
	maxText  = 64 << 10 // bytes of a text
	maxEmoji = 64       // bytes of a reaction: one emoji can be of many parts
)

// SendMessage is the body of POST messages: text, media, reaction or message.
type SendMessage struct {
	To             string         `json:"to" minLength:"5" maxLength:"128" example:"4915123456789" doc:"phone number with its country code, or a JID"`
	Text           string         `json:"text,omitempty" maxLength:"65536" doc:"the text, or the caption of media"`
	ReplyTo        string         `json:"replyTo,omitempty" maxLength:"128" doc:"id of the message that this answers, as message.received or the outbox names it"`
	Reaction       *SendReaction  `json:"reaction,omitempty"`
	Media          *SendMedia     `json:"media,omitempty"`
	Sender         string         `json:"sender,omitempty" maxLength:"128" doc:"who wrote the message that replyTo or reaction names; wanted in groups only, where that is not among the last events"`
	Message        map[string]any `json:"message,omitempty" doc:"any other message, as protobuf JSON of WhatsApp's Message"`
	SendAt         time.Time      `json:"sendAt,omitzero" doc:"not before this; at most a year ahead"`
	IdempotencyKey string         `json:"idempotencyKey,omitempty" maxLength:"128" doc:"a request repeated with the same key sends once"`
}

// SendReaction is a reaction to a message.
type SendReaction struct {
	To    string `json:"to" minLength:"1" maxLength:"128" doc:"id of the message, as message.received or the outbox names it"`
	Emoji string `json:"emoji" maxLength:"64" example:"👍" doc:"empty takes the reaction back"`
}

// SendMedia is an attachment: a file that the worker fetches from a URL, or an
// upload. What is left out is found out from the file.
type SendMedia struct {
	Kind     string `json:"kind,omitempty" enum:"image,video,audio,document,sticker" doc:"what it is shown as; by itself what the file is, a document where phones cannot show it"`
	URL      string `json:"url,omitempty" maxLength:"2048" doc:"http or https; private addresses and redirects are refused unless the workers' settings allow them. Shown without its path to viewers"`
	ID       string `json:"id,omitempty" maxLength:"64" doc:"of an upload, instead of url"`
	MIME     string `json:"mime,omitempty" maxLength:"128" example:"image/jpeg"`
	FileName string `json:"fileName,omitempty" maxLength:"255" doc:"of a document"`
	Seconds  int    `json:"seconds,omitempty" minimum:"0" maximum:"86400" doc:"how long audio or video plays"`
	Voice    bool   `json:"voice,omitempty" doc:"audio as a voice message; it must be Ogg with Opus"`
}

// messageID is the shape of ids that WhatsApp's clients make, and of ours.
var messageID = regexp.MustCompile(`^[A-Za-z0-9._:=/+-]{1,128}$`)

// jid is the shape of addresses that can be written to: a user or group at a server.
var jid = regexp.MustCompile(`^([1-9][0-9]{6,14}@s\.whatsapp\.net|[0-9]{5,20}@lid|[0-9]{5,40}(-[0-9]{5,20})?@g\.us)$`)

// address reads a number or a JID.
func address(field, text string) (string, error) {
	text = strings.TrimSpace(text)
	if strings.Contains(text, "@") {
		if text = strings.Replace(text, "@c.us", "@s.whatsapp.net", 1); !jid.MatchString(text) {
			return "", invalid(field, "is no JID; use 4915123456789@s.whatsapp.net, or 120363…@g.us for a group")
		}
		return text, nil
	}
	number, err := digits(text)
	if err != nil {
		return "", invalid(field, "must be a number of 7 to 15 digits with its country code, or a JID")
	}
	return number + "@s.whatsapp.net", nil
}

// content checks a message and brings it into the form that is stored. What it
// answers or reacts to is only named yet: refer completes that.
func (m SendMessage) content() (state.OutboxContent, error) {
	c := state.OutboxContent{Text: m.Text}
	var err error
	if c.To, err = address("body.to", m.To); err != nil {
		return c, err
	}
	kinds := 0
	for _, given := range []bool{m.Text != "" || m.Media != nil, m.Reaction != nil, m.Message != nil} {
		if given {
			kinds++
		}
	}
	switch {
	case kinds == 0:
		return c, invalid("body.text", "is missing: give text, media, reaction or message")
	case kinds > 1:
		return c, invalid("body.text", "give one of text or media, reaction, and message")
	case len(m.Text) > maxText:
		return c, invalid("body.text", "has %d bytes; at most %d", len(m.Text), maxText)
	case m.ReplyTo != "" && (m.Reaction != nil || m.Message != nil):
		return c, invalid("body.replyTo", "goes with text or media; a message in protobuf JSON has a contextInfo of its own")
	case m.Sender != "" && m.ReplyTo == "" && m.Reaction == nil:
		return c, invalid("body.sender", "goes with replyTo or reaction")
	}
	if m.ReplyTo != "" {
		if !messageID.MatchString(m.ReplyTo) {
			return c, invalid("body.replyTo", "is no id of a message")
		}
		c.Quote = &state.Quote{ID: m.ReplyTo}
	}
	switch {
	case m.Reaction != nil:
		c.Reaction, err = m.Reaction.content()
	case m.Media != nil:
		c.Media, err = m.Media.content(m.Text)
	case m.Message != nil:
		c.Message, err = rawMessage(m.Message)
	}
	return c, err
}

func rawMessage(m map[string]any) (json.RawMessage, error) {
	if len(m) == 0 {
		return nil, invalid("body.message", "is empty")
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, invalid("body.message", "is not an object")
	}
	if len(raw) > 4*maxText {
		return nil, invalid("body.message", "has %d bytes; at most %d", len(raw), 4*maxText)
	}
	return raw, nil
}

func (r SendReaction) content() (*state.Reaction, error) {
	switch {
	case !messageID.MatchString(r.To):
		return nil, invalid("body.reaction.to", "is no id of a message")
	case len(r.Emoji) > maxEmoji || strings.ContainsFunc(r.Emoji, func(c rune) bool { return unicode.IsControl(c) || unicode.IsSpace(c) }):
		return nil, invalid("body.reaction.emoji", "must be one emoji, of at most %d bytes", maxEmoji)
	}
	return &state.Reaction{To: r.To, Emoji: r.Emoji}, nil
}

func (m SendMedia) content(caption string) (*state.OutboxMedia, error) {
	silent := m.Kind == state.MediaSticker || m.Kind == state.MediaAudio || m.Voice
	switch {
	case (m.URL == "") == (m.ID == ""):
		return nil, invalid("body.media", "give either url or id")
	case !isURL(m.URL, "http", "https"):
		return nil, invalid("body.media.url", "must be http://HOST/PATH or https://HOST/PATH")
	case m.ID != "" && !messageID.MatchString(m.ID):
		return nil, invalid("body.media.id", "is no id of an upload")
	case m.Voice && m.Kind != "" && m.Kind != state.MediaAudio:
		return nil, invalid("body.media.voice", "goes with the kind audio")
	case caption != "" && silent:
		return nil, invalid("body.text", "audio and stickers have no caption: send the text by itself")
	}
	if m.MIME != "" {
		if _, _, err := mime.ParseMediaType(m.MIME); err != nil || !strings.Contains(m.MIME, "/") {
			return nil, invalid("body.media.mime", "is no media type such as image/jpeg")
		}
	}
	if err := checkFileName("body.media.fileName", m.FileName); err != nil {
		return nil, err
	}
	return &state.OutboxMedia{Kind: m.Kind, URL: m.URL, Upload: m.ID, MIME: m.MIME, FileName: m.FileName, Seconds: uint32(m.Seconds), Voice: m.Voice}, nil
}

func checkFileName(field, name string) error {
	if strings.ContainsAny(name, `/\`) || strings.ContainsFunc(name, unicode.IsControl) || len(name) > 255 {
		return invalid(field, "must be a name of at most 255 bytes without / and \\")
	}
	return nil
}

// mediaView shows an attachment. URLs often hold secrets, so viewers see the host.
func mediaView(m state.OutboxMedia, role Role) *SendMedia {
	v := &SendMedia{Kind: m.Kind, URL: m.URL, ID: m.Upload, MIME: m.MIME, FileName: m.FileName, Seconds: int(m.Seconds), Voice: m.Voice}
	if u, err := url.Parse(m.URL); m.URL != "" && role < Operator {
		v.URL = ""
		if err == nil {
			v.URL = u.Scheme + "://" + u.Host + "/…"
		}
	}
	return v
}

// sameMessage tells whether two requests ask for the same message. What was found
// out beyond them may differ: the history moves on.
func sameMessage(a, b state.OutboxContent) bool {
	asked := func(c state.OutboxContent) state.OutboxContent {
		c.Built = nil
		if c.Quote != nil {
			c.Quote = &state.Quote{ID: c.Quote.ID}
		}
		if c.Reaction != nil {
			c.Reaction = &state.Reaction{To: c.Reaction.To, Emoji: c.Reaction.Emoji}
		}
		return c
	}
	return reflect.DeepEqual(asked(a), asked(b))
}
