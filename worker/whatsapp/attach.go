package whatsapp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	_ "image/gif"  // their sizes
	_ "image/jpeg" // are told
	_ "image/png"  // to phones
	"mime"
	"net/http"
	"net/url"
	"strings"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-wa/holdfast/state"
)

// File is what an attachment is made of. MIME and Name are what its source said;
// either may be empty.
type File struct {
	Data []byte
	MIME string
	Name string
}

// Attach uploads a file and returns the message that carries it, as protobuf JSON
// for Send: the same bytes can be sent again without another upload. What of the
// content is empty is found out from the file. Errors are *SendError, or wrap
// ErrMessage or ErrRecipient.
func (l *Line) Attach(ctx context.Context, c state.OutboxContent, f File) ([]byte, error) {
	at, err := describeFile(*c.Media, f)
	if err != nil {
		return nil, &SendError{Err: err}
	}
	var info *waE2E.ContextInfo
	if c.Quote != nil {
		if info, err = quoting(*c.Quote, c.To); err != nil {
			return nil, &SendError{Err: err}
		}
	}
	if !l.LoggedIn() {
		return nil, &SendError{Temporary: true, Err: whatsmeow.ErrNotConnected}
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Settings.QueryTimeout)
	defer cancel()
	up, err := l.cli.Upload(ctx, f.Data, uploadType[at.Kind])
	if err != nil {
		return nil, uploadError(err)
	}
	return encoded(attached(at, c.Text, info, up, f.Data))
}

// uploadError sorts what an upload fails with. The URL in a request's error holds
// a token. WhatsApp's refusals may be of the moment; who calls bounds the tries.
func uploadError(err error) *SendError {
	var at *url.Error
	if errors.As(err, &at) {
		err = fmt.Errorf("uploading the file: %w", at.Err)
	}
	e := sendError(err)
	e.Temporary = e.Temporary || e.Code == 0
	return e
}

var uploadType = map[string]whatsmeow.MediaType{
	state.MediaImage: whatsmeow.MediaImage, state.MediaSticker: whatsmeow.MediaImage, state.MediaVideo: whatsmeow.MediaVideo,
	state.MediaAudio: whatsmeow.MediaAudio, state.MediaDocument: whatsmeow.MediaDocument,
}

// voiceMIME is the only format that phones play as a voice message.
const voiceMIME = "audio/ogg; codecs=opus"

// describeFile completes what is said of an attachment, and sees that a phone can
// show it as what it is to be.
func describeFile(m state.OutboxMedia, f File) (state.OutboxMedia, error) {
	if len(f.Data) == 0 {
		return m, fmt.Errorf("%w: the file is empty", ErrMessage)
	}
	found, _, _ := strings.Cut(http.DetectContentType(f.Data), ";")
	for _, said := range []string{m.MIME, f.MIME, found} {
		if base, _, err := mime.ParseMediaType(said); err == nil && base != "application/octet-stream" && base != "binary/octet-stream" {
			m.MIME = said
			break
		}
		m.MIME = ""
	}
	if m.MIME == "" {
		m.MIME = "application/octet-stream"
	}
	base, _, _ := mime.ParseMediaType(m.MIME)
	if base == "application/ogg" {
		base, m.MIME = "audio/ogg", "audio/ogg"
	}
	if m.Kind == "" {
		m.Kind = kindOf(base)
		if m.Voice {
			m.Kind = state.MediaAudio
		}
	}
	if m.FileName == "" {
		m.FileName = f.Name
	}
	fits := true
	want := ""
	switch m.Kind {
	case state.MediaImage:
		fits, want = strings.HasPrefix(base, "image/"), "image/jpeg or image/png"
	case state.MediaVideo:
		fits, want = strings.HasPrefix(base, "video/"), "video/mp4"
	case state.MediaSticker:
		fits, want = base == "image/webp", "image/webp"
	case state.MediaAudio:
		fits, want = strings.HasPrefix(base, "audio/"), "audio/…"
		if m.Voice {
			fits, want = base == "audio/ogg", "audio/ogg with Opus in it"
			m.MIME = voiceMIME
		}
	case state.MediaDocument:
		if m.FileName == "" {
			m.FileName = "file"
		}
	default:
		return m, fmt.Errorf("%w: there is no kind %q of attachment", ErrMessage, m.Kind)
	}
	if !fits {
		return m, fmt.Errorf("%w: the file is %s, and the kind %s wants %s; say mime if it is that, or send it as a document", ErrMessage, base, m.Kind, want)
	}
	return m, nil
}

// kindOf is what a file is shown as where nothing is said: what phones cannot show
// is a document.
func kindOf(base string) string {
	switch base {
	case "image/jpeg", "image/png":
		return state.MediaImage
	case "video/mp4", "video/3gpp":
		return state.MediaVideo
	}
	if strings.HasPrefix(base, "audio/") {
		return state.MediaAudio
	}
	return state.MediaDocument
}

// attached is the message for a file that is uploaded.
func attached(at state.OutboxMedia, caption string, info *waE2E.ContextInfo, up whatsmeow.UploadResponse, data []byte) *waE2E.Message {
	text := func(s string) *string {
		if s == "" {
			return nil
		}
		return proto.String(s)
	}
	var seconds *uint32
	if at.Seconds > 0 {
		seconds = proto.Uint32(at.Seconds)
	}
	var width, height *uint32
	if at.Kind == state.MediaImage || at.Kind == state.MediaSticker {
		if size, _, err := image.DecodeConfig(bytes.NewReader(data)); err == nil {
			width, height = proto.Uint32(uint32(size.Width)), proto.Uint32(uint32(size.Height))
		}
	}
	switch at.Kind {
	case state.MediaImage:
		return &waE2E.Message{ImageMessage: &waE2E.ImageMessage{URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey,
			FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256, FileLength: &up.FileLength, Mimetype: &at.MIME,
			Caption: text(caption), Width: width, Height: height, ContextInfo: info}}
	case state.MediaVideo:
		return &waE2E.Message{VideoMessage: &waE2E.VideoMessage{URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey,
			FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256, FileLength: &up.FileLength, Mimetype: &at.MIME,
			Caption: text(caption), Seconds: seconds, ContextInfo: info}}
	case state.MediaAudio:
		return &waE2E.Message{AudioMessage: &waE2E.AudioMessage{URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey,
			FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256, FileLength: &up.FileLength, Mimetype: &at.MIME,
			Seconds: seconds, PTT: proto.Bool(at.Voice), ContextInfo: info}}
	case state.MediaSticker:
		return &waE2E.Message{StickerMessage: &waE2E.StickerMessage{URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey,
			FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256, FileLength: &up.FileLength, Mimetype: &at.MIME,
			Width: width, Height: height, ContextInfo: info}}
	}
	return &waE2E.Message{DocumentMessage: &waE2E.DocumentMessage{URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey,
		FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256, FileLength: &up.FileLength, Mimetype: &at.MIME,
		FileName: &at.FileName, Title: &at.FileName, Caption: text(caption), ContextInfo: info}}
}
