package state

import (
	"encoding/json"
	"time"
)

// OutboxContent is the personal part of an outbox item: what is sent to whom. It
// holds a text, a message in protobuf JSON, a reaction, or an attachment with a
// text as its caption.
type OutboxContent struct {
	To       string          `json:"to"`
	Text     string          `json:"text,omitempty"`
	Message  json.RawMessage `json:"message,omitempty"` // protobuf JSON of any other message
	Quote    *Quote          `json:"quote,omitempty"`   // the message that a text or an attachment answers
	Reaction *Reaction       `json:"reaction,omitempty"`
	Media    *OutboxMedia    `json:"media,omitempty"`

	// Built is what the owner has made of Media, in protobuf JSON, stored before the
	// first try: a second one after a crash sends the same file under the same key,
	// and fetches and uploads nothing again.
	Built json.RawMessage `json:"built,omitempty"`
}

// Quote is the message that another one answers, as far as it is known.
type Quote struct {
	ID      string          `json:"id"`
	Sender  string          `json:"sender,omitempty"`  // JID without a device
	Text    string          `json:"text,omitempty"`    // of it, where Message is not known
	Message json.RawMessage `json:"message,omitempty"` // protobuf JSON
}

// Reaction is a reaction to a message; an empty Emoji takes it back.
type Reaction struct {
	To     string `json:"to"` // id of the message
	Emoji  string `json:"emoji"`
	Chat   string `json:"chat,omitempty"`   // of that message, as its event named it; empty: the recipient
	Sender string `json:"sender,omitempty"` // of that message, where it is a group's
	FromMe bool   `json:"fromMe,omitempty"` // this account wrote it
}

// The kinds of attachments.
const (
	MediaImage    = "image"
	MediaVideo    = "video"
	MediaAudio    = "audio"
	MediaDocument = "document"
	MediaSticker  = "sticker"
)

// OutboxMedia is an attachment: where it is taken from, and what is said of it.
// What is empty is found out from the file.
type OutboxMedia struct {
	Kind     string `json:"kind,omitempty"`
	URL      string `json:"url,omitempty"` // or Upload
	Upload   string `json:"upload,omitempty"`
	MIME     string `json:"mime,omitempty"`
	FileName string `json:"fileName,omitempty"`
	Seconds  uint32 `json:"seconds,omitempty"` // of audio and video
	Voice    bool   `json:"voice,omitempty"`   // audio as a voice message
}

// Media is a record MED#id: an upload. Its bytes lie in the vault, sealed with the
// fleet keyset, until the messages that name it are sent. While Messages is empty
// the record expires; who changes it makes the write conditional on Rev.
type Media struct {
	V         int       `json:"v"`
	ID        string    `json:"id"` // ULID
	Object    string    `json:"object"`
	VersionID string    `json:"versionId,omitempty"`
	Size      int64     `json:"size"` // bytes
	At        time.Time `json:"at"`
	KeepUntil time.Time `json:"keepUntil,omitzero"` // not removed before this, also when it was sent
	Messages  []string  `json:"messages,omitempty"` // outbox items that still need it
	Sealed    []byte    `json:"sealed"`             // MediaInfo
}

// MediaInfo is the personal part of an upload.
type MediaInfo struct {
	MIME     string `json:"mime"`
	FileName string `json:"fileName,omitempty"`
	SHA256   string `json:"sha256"` // hex, of the bytes
}

// MediaPrefix begins the names of objects that hold uploads; a ULID follows.
const MediaPrefix = "media-"

// MaxMediaMessages is how many messages one upload may wait for.
const MaxMediaMessages = 200
