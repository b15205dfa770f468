package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
)

// picture is a PNG of about so many bytes, which no compression makes smaller.
func picture(t *testing.T, side int) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	seed := uint32(1)
	for y := range side {
		for x := range side {
			seed = seed*1664525 + 1013904223
			img.Set(x, y, color.RGBA{byte(seed >> 24), byte(seed >> 16), byte(seed >> 8), 255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readBy waits until a contact has read a message that fits.
func readBy(ctx context.Context, t *testing.T, c *wasim.Contact, what string, fits func(wasim.Received) bool) wasim.Received {
	t.Helper()
	for {
		for _, r := range c.Received() {
			if fits(r) {
				return r
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("%s never came; read: %+v", what, c.Received())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestAnswersReactionsAndFiles are read by the contact as they were sent: the files
// open, from a URL and from an upload, by the API and by the command.
func TestAnswersReactionsAndFiles(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	sim := startSim(t, wasim.Options{})
	p := newProcess(t, sim, append([]string{"--send-pace", "0", "--send-pace-chat", "0"}, quickly...)...)
	p.start()
	p.pair(ctx, sim)
	ada := sim.Contact("491700000002")
	const messages = "/api/sessions/default/messages?wait=20s"
	send := func(body map[string]any) adminapi.Message {
		t.Helper()
		body["to"] = "491700000002"
		var m adminapi.Message
		if status, err := p.ask(ctx, "POST", messages, body, &m); err != nil || status != http.StatusAccepted {
			t.Fatalf("%v: HTTP %d %v", body, status, err)
		}
		if m.State == state.OutFailed || m.State == state.OutQueued {
			t.Fatalf("%v is %s: %s %s", body, m.State, m.Code, m.Problem)
		}
		return m
	}

	// An answer quotes what came in; a reaction names it; an empty one takes it back.
	asked, err := ada.SendText(ctx, "491700000001", "are you there?")
	if err != nil {
		t.Fatal(err)
	}
	p.received(ctx, t, "are you there?")
	send(map[string]any{"text": "I am", "replyTo": asked})
	answer := readBy(ctx, t, ada, "the answer", func(r wasim.Received) bool { return r.Text == "I am" })
	quoted := answer.Message.GetExtendedTextMessage().GetContextInfo()
	if answer.Quotes != asked || quoted.GetQuotedMessage().GetConversation() != "are you there?" || quoted.GetParticipant() != ada.LID().String() {
		t.Errorf("the answer quotes %q of %s: %v", answer.Quotes, quoted.GetParticipant(), quoted.GetQuotedMessage())
	}
	send(map[string]any{"reaction": map[string]string{"to": asked, "emoji": "👍"}})
	send(map[string]any{"reaction": map[string]string{"to": asked, "emoji": ""}})
	for _, emoji := range []string{"👍", ""} {
		r := readBy(ctx, t, ada, "the reaction", func(r wasim.Received) bool { return r.Reaction != nil && r.Reaction.Emoji == emoji })
		if key := r.Message.GetReactionMessage().GetKey(); r.Reaction.To != asked || key.GetFromMe() {
			t.Errorf("reaction %+v, key %v", r.Reaction, key)
		}
	}
	own := send(map[string]any{"text": "mine"})
	send(map[string]any{"reaction": map[string]string{"to": own.ID, "emoji": "🎉"}})
	mine := readBy(ctx, t, ada, "the reaction to our own", func(r wasim.Received) bool { return r.Reaction != nil && r.Reaction.Emoji == "🎉" })
	if key := mine.Message.GetReactionMessage().GetKey(); key.GetID() != own.MessageID || !key.GetFromMe() {
		t.Errorf("key %v, want our own %s", key, own.MessageID)
	}

	// A file from a URL; one that is away for a moment is tried again.
	photo := picture(t, 64)
	var away atomic.Int32
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/slow.png" && away.Add(1) <= 2:
			http.Error(w, "later", http.StatusServiceUnavailable)
		case r.URL.Path == "/away":
			http.Redirect(w, r, "/cat.png", http.StatusFound)
		default:
			w.Header().Set("Content-Type", "image/png")
			_, _ = w.Write(photo)
		}
	}))
	defer files.Close()
	send(map[string]any{"text": "a cat", "media": map[string]any{"url": files.URL + "/cat.png"}, "replyTo": asked})
	opens := func(r wasim.Received, want []byte) {
		t.Helper()
		got, err := ada.Open(r)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %d open: %v", r.File.Kind, len(got), len(want), err)
		}
	}
	cat := readBy(ctx, t, ada, "the cat", func(r wasim.Received) bool { return r.Text == "a cat" })
	if cat.File == nil || cat.File.Kind != "image" || cat.File.MIME != "image/png" || cat.Message.GetImageMessage().GetWidth() != 64 || cat.Quotes != asked {
		t.Fatalf("the cat is %+v", cat.File)
	}
	opens(cat, photo)
	send(map[string]any{"text": "slow cat", "media": map[string]any{"url": files.URL + "/slow.png", "kind": "document", "fileName": "cat.png"}})
	slow := readBy(ctx, t, ada, "the slow cat", func(r wasim.Received) bool { return r.Text == "slow cat" })
	if slow.File.Kind != "document" || slow.File.FileName != "cat.png" {
		t.Errorf("the slow cat is %+v", slow.File)
	}
	opens(slow, photo)

	// What is refused for good fails, and says why without the URL's path.
	var refused adminapi.Message
	if _, err := p.ask(ctx, "POST", messages, map[string]any{"to": "491700000002", "media": map[string]any{"url": files.URL + "/away"}}, &refused); err != nil {
		t.Fatal(err)
	}
	if refused.State != state.OutFailed || refused.Code != "media_refused" || !strings.Contains(refused.Problem, "redirect") || strings.Contains(refused.Problem, "/away") {
		t.Errorf("a redirect: %s %s: %s", refused.State, refused.Code, refused.Problem)
	}
	if status, _ := p.ask(ctx, "POST", messages, map[string]any{"to": "491700000002", "media": map[string]any{"url": "http://169.254.169.254/latest/meta-data"}}, nil); status != http.StatusUnprocessableEntity {
		t.Errorf("a metadata service: HTTP %d", status)
	}

	// A file by the command: uploaded, sent, and gone from the vault.
	big := picture(t, 600) // over 1 MB
	path := filepath.Join(t.TempDir(), "big.png")
	if err := os.WriteFile(path, big, 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"HOLDFAST_DATA_DIR=" + p.dir, "HOLDFAST_URL=http://" + p.listen}
	if r := drive(t, environ, "send", "default", "491700000002", "a big one", "--file", path, "--wait", "20s"); r.code != exitDone || !strings.Contains(r.out, "sent") && !strings.Contains(r.out, "delivered") {
		t.Fatalf("send --file: %d %s %s", r.code, r.out, r.err)
	}
	opens(readBy(ctx, t, ada, "the big one", func(r wasim.Received) bool { return r.Text == "a big one" }), big)
	if r := drive(t, environ, "send", "default", "491700000002", "--react", "🐈", "--reply-to", asked); r.code != exitDone {
		t.Errorf("send --react: %d %s", r.code, r.err)
	}
	readBy(ctx, t, ada, "the cat's face", func(r wasim.Received) bool { return r.Reaction != nil && r.Reaction.Emoji == "🐈" })
	for {
		left, err := filepath.Glob(filepath.Join(p.dir, "vault", "default", state.MediaPrefix+"*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("left in the vault: %v", left)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, a := range sim.Truth().Anomalies {
		t.Errorf("the server saw: %+v", a)
	}
	for _, f := range ada.Undecryptable() {
		t.Errorf("could not be read: %+v", f)
	}
}

// TestAFileIsSentOnceAcrossAKill: the process dies while a message with a file is
// under way; the contact reads it once, under the id that it was given.
func TestAFileIsSentOnceAcrossAKill(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	sim := startSim(t, wasim.Options{})
	p := newProcess(t, sim, append([]string{"--send-pace", "0", "--send-pace-chat", "0"}, quickly...)...)
	p.start()
	dev := p.pair(ctx, sim)
	if err := dev.WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}
	ada := sim.Contact("491700000002")
	photo := picture(t, 64)
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		_, _ = w.Write(photo)
	}))
	defer files.Close()
	want := map[string]bool{}
	for round := range 4 {
		if round%2 == 0 {
			// The service takes the message and the line ends before its answer.
			if _, err := sim.Inject(wasim.Fault{Kind: wasim.SendLateAck, Device: "491700000001"}); err != nil {
				t.Fatal(err)
			}
		}
		var m adminapi.Message
		for status := 0; status != http.StatusAccepted; { // it is on its way up
			var err error
			status, err = p.ask(ctx, "POST", "/api/sessions/default/messages", map[string]any{"to": "491700000002", "text": fmt.Sprintf("photo %d", round),
				"media": map[string]any{"url": files.URL + "/p.png"}, "idempotencyKey": fmt.Sprint("k", round)}, &m)
			if ctx.Err() != nil {
				t.Fatalf("HTTP %d %v", status, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
		want[m.MessageID] = true
		time.Sleep(time.Duration(round) * 40 * time.Millisecond)
		p.kill()
		p.start()
		if err := dev.WaitOnline(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 4 {
		r := readBy(ctx, t, ada, fmt.Sprint("photo ", round), func(r wasim.Received) bool { return r.Text == fmt.Sprint("photo ", round) })
		if got, err := ada.Open(r); err != nil || !bytes.Equal(got, photo) {
			t.Errorf("photo %d does not open: %v", round, err)
		}
		if !want[r.ID] {
			t.Errorf("photo %d came under the id %s, which it was not given", round, r.ID)
		}
	}
	seen := map[string]int{}
	for _, r := range ada.Received() {
		seen[r.Text]++
	}
	for text, n := range seen {
		if n != 1 {
			t.Errorf("%q was read %d times", text, n)
		}
	}
	for _, f := range ada.Undecryptable() {
		t.Errorf("could not be read: %+v", f)
	}
	for _, o := range sim.Truth().Outgoing {
		if o.Outcome == "rejected" {
			t.Errorf("was rejected: %+v", o)
		}
	}
	// Its state gets to read, though the process that sent it is gone.
	for _, r := range ada.Received() {
		if err := ada.Read("491700000001", r.ID); err != nil {
			t.Error(err)
		}
	}
	// What a receipt changes rides on the next commit.
	ride := func(text string) {
		if _, err := ada.SendText(ctx, "491700000001", text); err != nil {
			t.Error(err)
		}
	}
	for n := 0; ; n++ {
		ride(fmt.Sprint("and ", n))
		var page adminapi.MessagePage
		if _, err := p.ask(ctx, "GET", "/api/sessions/default/messages", nil, &page); err != nil {
			t.Fatal(err)
		}
		unread := 0
		for _, m := range page.Messages {
			if m.State != state.OutRead {
				unread++
			}
		}
		if unread == 0 && len(page.Messages) == 4 {
			break
		}
		if ctx.Err() != nil {
			b, _ := json.Marshal(page)
			t.Fatalf("not all are read: %s", b)
		}
		time.Sleep(300 * time.Millisecond)
	}
}
