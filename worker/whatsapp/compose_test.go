package whatsapp

import (
	"bytes"
	"errors"
	"image"
	"image/png"
	"strings"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/proto/waE2E"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
)

func composed(t *testing.T, c state.OutboxContent) *waE2E.Message {
	t.Helper()
	b, err := Compose(c, time.UnixMilli(1_700_000_000_123))
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestAnAnswerQuotesWhatItAnswers, without what that quoted itself.
func TestAnAnswerQuotesWhatItAnswers(t *testing.T) {
	const to = "491700000002@s.whatsapp.net"
	nested := `{"extendedTextMessage":{"text":"second","contextInfo":{"stanzaID":"A","participant":"1@lid","quotedMessage":{"conversation":"first"}}},"messageContextInfo":{"deviceListMetadataVersion":2},"futureField":1}`
	for _, tt := range []struct {
		name, to  string
		quote     state.Quote
		from, has string
	}{
		{"a message", to, state.Quote{ID: "X1", Sender: "987654321@lid", Message: []byte(nested)}, "987654321@lid", "second"},
		{"a text", to, state.Quote{ID: "X1", Sender: "987654321@lid", Text: "hi"}, "987654321@lid", "hi"},
		{"nothing known", to, state.Quote{ID: "X1"}, to, ""},
		{"garbage", to, state.Quote{ID: "X1", Text: "hi", Message: []byte(`{"conversation":1}`)}, to, "hi"},
		{"in a group", "120363000000000001@g.us", state.Quote{ID: "X1", Sender: "987654321@lid", Text: "hi"}, "987654321@lid", "hi"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := composed(t, state.OutboxContent{To: tt.to, Text: "answer", Quote: &tt.quote})
			ext := m.GetExtendedTextMessage()
			info := ext.GetContextInfo()
			_, text, _ := content(info.GetQuotedMessage())
			if ext.GetText() != "answer" || info.GetStanzaID() != "X1" || info.GetParticipant() != tt.from || text != tt.has {
				t.Errorf("%v", m)
			}
			if inner := contextOf(info.GetQuotedMessage()); inner.GetQuotedMessage() != nil || inner.GetStanzaID() != "" {
				t.Errorf("quotes within: %v", inner)
			}
		})
	}
	if _, err := Compose(state.OutboxContent{To: to, Text: "x", Quote: &state.Quote{ID: "X", Sender: "nobody"}}, time.Now()); !errors.Is(err, ErrRecipient) {
		t.Errorf("a sender that is none: %v", err)
	}
}

func TestAReactionNamesItsMessage(t *testing.T) {
	const to, group = "491700000002@s.whatsapp.net", "120363000000000001@g.us"
	for _, tt := range []struct {
		name              string
		c                 state.OutboxContent
		chat, participant string
		fromMe            bool
		emoji             string
		wrong             error
	}{
		{name: "theirs", c: state.OutboxContent{To: to, Reaction: &state.Reaction{To: "X", Emoji: "👍"}}, chat: to, emoji: "👍"},
		{name: "their chat as it was named", c: state.OutboxContent{To: to, Reaction: &state.Reaction{To: "X", Emoji: "👍", Chat: "987654321@lid"}}, chat: "987654321@lid", emoji: "👍"},
		{name: "taken back", c: state.OutboxContent{To: to, Reaction: &state.Reaction{To: "X"}}, chat: to},
		{name: "ours", c: state.OutboxContent{To: group, Reaction: &state.Reaction{To: "X", Emoji: "👍", FromMe: true}}, chat: group, fromMe: true, emoji: "👍"},
		{name: "in a group", c: state.OutboxContent{To: group, Reaction: &state.Reaction{To: "X", Emoji: "👍", Sender: "987654321@lid"}}, chat: group, participant: "987654321@lid", emoji: "👍"},
		{name: "of nobody", c: state.OutboxContent{To: group, Reaction: &state.Reaction{To: "X", Emoji: "👍"}}, wrong: ErrRecipient},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.wrong != nil {
				if _, err := Compose(tt.c, time.Now()); !errors.Is(err, tt.wrong) {
					t.Errorf("%v", err)
				}
				return
			}
			r := composed(t, tt.c).GetReactionMessage()
			key := r.GetKey()
			if key.GetID() != "X" || key.GetRemoteJID() != tt.chat || key.GetParticipant() != tt.participant || key.GetFromMe() != tt.fromMe ||
				r.Text == nil || r.GetText() != tt.emoji || r.GetSenderTimestampMS() != 1_700_000_000_123 {
				t.Errorf("%v", r)
			}
		})
	}
}

// TestAFileIsShownAsWhatItIs, or refused where phones could not show it so.
func TestAFileIsShownAsWhatItIs(t *testing.T) {
	var buf bytes.Buffer
	if err := png.Encode(&buf, image.NewGray(image.Rect(0, 0, 3, 2))); err != nil {
		t.Fatal(err)
	}
	picture := buf.Bytes()
	ogg := append([]byte("OggS\x00"), make([]byte, 40)...)
	text := []byte("just words")
	for _, tt := range []struct {
		name             string
		m                state.OutboxMedia
		f                File
		kind, mime, file string // kind empty: refused
	}{
		{"by its bytes", state.OutboxMedia{}, File{Data: picture}, "image", "image/png", ""},
		{"by its server", state.OutboxMedia{}, File{Data: text, MIME: "video/mp4"}, "video", "video/mp4", ""},
		{"by its sender", state.OutboxMedia{MIME: "audio/mpeg"}, File{Data: text, MIME: "text/html"}, "audio", "audio/mpeg", ""},
		{"a server that says nothing", state.OutboxMedia{}, File{Data: picture, MIME: "application/octet-stream", Name: "a.png"}, "image", "image/png", "a.png"},
		{"what no phone shows", state.OutboxMedia{}, File{Data: text, Name: "a.txt"}, "document", "text/plain", "a.txt"},
		{"a document without a name", state.OutboxMedia{Kind: "document"}, File{Data: picture}, "document", "image/png", "file"},
		{"its own name", state.OutboxMedia{FileName: "b.pdf"}, File{Data: text, MIME: "application/pdf", Name: "a.pdf"}, "document", "application/pdf", "b.pdf"},
		{"a voice", state.OutboxMedia{Voice: true}, File{Data: ogg}, "audio", voiceMIME, ""},
		{"a sticker", state.OutboxMedia{Kind: "sticker"}, File{Data: text, MIME: "image/webp"}, "sticker", "image/webp", ""},
		{"a picture as a sticker", state.OutboxMedia{Kind: "sticker"}, File{Data: picture}, "", "", ""},
		{"words as a picture", state.OutboxMedia{Kind: "image"}, File{Data: text}, "", "", ""},
		{"music as a voice", state.OutboxMedia{Voice: true}, File{Data: text, MIME: "audio/mpeg"}, "", "", ""},
		{"nothing", state.OutboxMedia{}, File{}, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := describeFile(tt.m, tt.f)
			if tt.kind == "" {
				if !errors.Is(err, ErrMessage) {
					t.Errorf("%+v %v", got, err)
				}
				return
			}
			base, _, _ := strings.Cut(got.MIME, "; charset")
			if err != nil || got.Kind != tt.kind || base != tt.mime || got.FileName != tt.file {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
}

// TestFilesReachTheContact as every kind, over a live line; the same message sent
// again is the same file.
func TestFilesReachTheContact(t *testing.T) {
	w := newWorld(t, true)
	l, _ := w.online()
	ada := w.sim.Contact("491700000002")
	var pic bytes.Buffer
	if err := png.Encode(&pic, image.NewGray(image.Rect(0, 0, 3, 2))); err != nil {
		t.Fatal(err)
	}
	for i, kind := range []string{"image", "video", "audio", "document", "sticker"} {
		f := map[string]File{
			"image": {Data: pic.Bytes()}, "video": {Data: []byte("v"), MIME: "video/mp4"}, "audio": {Data: []byte("OggS\x00aaaa"), MIME: "audio/ogg"},
			"document": {Data: bytes.Repeat([]byte("d"), 100_000), Name: "d.pdf", MIME: "application/pdf"}, "sticker": {Data: []byte("RIFFaaaaWEBP"), MIME: "image/webp"},
		}[kind]
		built, err := l.Attach(w.ctx, state.OutboxContent{To: "491700000002", Media: &state.OutboxMedia{Kind: kind, Voice: kind == "audio"}, Quote: &state.Quote{ID: "Q" + kind}}, f)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		id := NewMessageID()
		for range 2 { // as after a crash
			if _, err := l.Send(w.ctx, id, "491700000002", built); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
		}
		if err := ada.WaitCount(w.ctx, i+1); err != nil {
			t.Fatal(err)
		}
		got := ada.Received()
		r := got[len(got)-1]
		if len(got) != i+1 || r.ID != id || r.File == nil || r.File.Kind != kind || r.Quotes != "Q"+kind || r.File.Voice != (kind == "audio") {
			t.Fatalf("%s: read %d, %+v %+v", kind, len(got), r, r.File)
		}
		if data, err := ada.Open(r); err != nil || !bytes.Equal(data, f.Data) {
			t.Errorf("%s: %d bytes, %v", kind, len(data), err)
		}
	}
	if n := w.sim.Uploads(); n != 5 {
		t.Errorf("%d uploads", n)
	}
	if _, err := ada.Open(wasim.Received{}); err == nil {
		t.Error("a message without a file was opened")
	}
	l.Cut()
	_, err := l.Attach(w.ctx, state.OutboxContent{Media: &state.OutboxMedia{}}, File{Data: []byte("x")})
	var failed *SendError
	if !errors.As(err, &failed) || !failed.Temporary || strings.Contains(err.Error(), "auth=") {
		t.Errorf("without a line: %v", err)
	}
}
