package wasim

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"go.mau.fi/whatsmeow/proto/waE2E"
)

// Attachment is what a message says of its file.
type Attachment struct {
	Kind     string `json:"kind"` // image, video, audio, document, sticker
	MIME     string `json:"mime"`
	FileName string `json:"fileName,omitempty"`
	Size     uint64 `json:"size"`
	Voice    bool   `json:"voice,omitempty"`
}

// Reacted is a reaction to a message; an empty Emoji takes it back.
type Reacted struct {
	To    string `json:"to"`
	Emoji string `json:"emoji"`
}

// sealedFile is what all messages with a file have.
type sealedFile interface {
	GetDirectPath() string
	GetMediaKey() []byte
	GetFileSHA256() []byte
	GetFileEncSHA256() []byte
	GetFileLength() uint64
	GetMimetype() string
}

// fileIn finds a message's file, and the word that its keys are derived with.
func fileIn(m *waE2E.Message) (f sealedFile, word string, about *Attachment) {
	switch {
	case m.GetImageMessage() != nil:
		f, word, about = m.GetImageMessage(), "Image", &Attachment{Kind: "image"}
	case m.GetVideoMessage() != nil:
		f, word, about = m.GetVideoMessage(), "Video", &Attachment{Kind: "video"}
	case m.GetAudioMessage() != nil:
		f, word, about = m.GetAudioMessage(), "Audio", &Attachment{Kind: "audio", Voice: m.GetAudioMessage().GetPTT()}
	case m.GetDocumentMessage() != nil:
		f, word, about = m.GetDocumentMessage(), "Document", &Attachment{Kind: "document", FileName: m.GetDocumentMessage().GetFileName()}
	case m.GetStickerMessage() != nil:
		f, word, about = m.GetStickerMessage(), "Image", &Attachment{Kind: "sticker"}
	default:
		return nil, "", nil
	}
	about.MIME, about.Size = f.GetMimetype(), f.GetFileLength()
	return f, word, about
}

// describe tells for the record what a message is beside its text.
func (r *Received) describe(m *waE2E.Message) {
	_, _, r.File = fileIn(m)
	if re := m.GetReactionMessage(); re != nil {
		r.Reaction = &Reacted{To: re.GetKey().GetID(), Emoji: re.GetText()}
	}
	for _, part := range []interface{ GetContextInfo() *waE2E.ContextInfo }{m.GetExtendedTextMessage(), m.GetImageMessage(),
		m.GetVideoMessage(), m.GetAudioMessage(), m.GetDocumentMessage(), m.GetStickerMessage()} {
		if id := part.GetContextInfo().GetStanzaID(); id != "" {
			r.Quotes = id
		}
	}
}

// Open fetches the file of a message that the contact has read, and opens it as a
// phone does: every hash and the MAC must be right.
func (c *Contact) Open(r Received) ([]byte, error) {
	f, word, _ := fileIn(r.Message)
	if f == nil {
		return nil, fmt.Errorf("%w: the message has no file", ErrInput)
	}
	path, _, _ := strings.Cut(strings.TrimPrefix(f.GetDirectPath(), "/"), "?")
	parts := strings.SplitN(path, "/", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("%w: direct path", ErrInput)
	}
	s := c.u.s
	s.mu.Lock()
	sealed, ok := s.media[parts[2]]
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("file: %w", ErrNotFound)
	}
	if sum := sha256.Sum256(sealed); !bytes.Equal(sum[:], f.GetFileEncSHA256()) {
		return nil, errors.New("file: is not what the message names")
	}
	keys, err := hkdf.Key(sha256.New, f.GetMediaKey(), nil, "WhatsApp "+word+" Keys", 112)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	const macLength = 10
	if len(sealed) < macLength+aes.BlockSize || (len(sealed)-macLength)%aes.BlockSize != 0 {
		return nil, fmt.Errorf("file: has %d bytes, which no sealed file has", len(sealed))
	}
	iv, body := keys[:16], sealed[:len(sealed)-macLength]
	mac := hmac.New(sha256.New, keys[48:80])
	mac.Write(iv)
	mac.Write(body)
	if !hmac.Equal(mac.Sum(nil)[:macLength], sealed[len(body):]) {
		return nil, errors.New("file: its MAC is wrong")
	}
	block, err := aes.NewCipher(keys[16:48])
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	plain := make([]byte, len(body))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, body)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > aes.BlockSize {
		return nil, errors.New("file: its padding is wrong")
	}
	plain = plain[:len(plain)-pad]
	if sum := sha256.Sum256(plain); !bytes.Equal(sum[:], f.GetFileSHA256()) || uint64(len(plain)) != f.GetFileLength() {
		return nil, errors.New("file: is not what was sealed")
	}
	return plain, nil
}

// Uploads is how many files the service has taken in, each once.
func (s *Server) Uploads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uploads
}
