package adminapi

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
)

const toMessages = "/api/sessions/shop/messages"

// sent sends and returns what the owner will read.
func (s *stage) sent(body string) state.OutboxContent {
	s.t.Helper()
	q := want[QueuedMessage](s.t, s.ask(Operator, "POST", toMessages, body), 202)
	got, err := s.api.outbox(s.t.Context(), "shop", q.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := s.api.openContent("shop", got.item)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// TestAnswersAndReactionsAreCompleted from the last messages, so that the owner
// knows whose message is meant.
func TestAnswersAndReactionsAreCompleted(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.status(o, state.Status{State: state.Online, Paired: true, Since: s.now()}, state.Identity{JID: "4915123456789:7@s.whatsapp.net", LID: "111222333:7@lid"})
	s.event(o, 1, state.EventMessage, `{"id":"3AIN","chat":"555666777@lid","sender":"555666777@lid","fromMe":false,"text":"question?","message":{"conversation":"question?"}}`)
	s.event(o, 2, state.EventMessage, `{"id":"3AGROUP","chat":"120363000000000001@g.us","sender":"555666777@lid","text":"to all"}`)
	s.event(o, 3, state.EventMessage, `{"id":"3AMINE","chat":"555666777@lid","sender":"111222333@lid","fromMe":true,"text":"from the phone"}`)
	s.event(o, 4, state.EventMessage, `{"id":"3ALONG","chat":"555666777@lid","sender":"555666777@lid","text":"`+strings.Repeat("ü", 50_000)+`","message":{"conversation":"`+strings.Repeat("x", 70_000)+`"}}`)
	own := want[QueuedMessage](t, s.ask(Operator, "POST", toMessages, `{"to":"4915999999999","text":"mine"}`), 202)

	const to = `"to":"4915999999999"`
	for _, tt := range []struct{ body, id, sender, text, message string }{
		{`{` + to + `,"text":"yes","replyTo":"3AIN"}`, "3AIN", "555666777@lid", "question?", `{"conversation":"question?"}`},
		{`{` + to + `,"text":"yes","replyTo":"3AMINE"}`, "3AMINE", "111222333@lid", "from the phone", ""},
		{`{` + to + `,"text":"yes","replyTo":"` + own.ID + `"}`, own.MessageID, "4915123456789@s.whatsapp.net", "mine", ""},
		{`{` + to + `,"text":"yes","replyTo":"` + own.MessageID + `"}`, own.MessageID, "4915123456789@s.whatsapp.net", "mine", ""},
		{`{` + to + `,"text":"yes","replyTo":"3AUNKNOWN"}`, "3AUNKNOWN", "4915999999999@s.whatsapp.net", "", ""},
		{`{` + to + `,"text":"yes","replyTo":"3AUNKNOWN","sender":"444555666@lid"}`, "3AUNKNOWN", "444555666@lid", "", ""},
		{`{"to":"120363000000000001@g.us","text":"yes","replyTo":"3AGROUP"}`, "3AGROUP", "555666777@lid", "to all", ""},
	} {
		q := s.sent(tt.body).Quote
		if q == nil || q.ID != tt.id || q.Sender != tt.sender || q.Text != tt.text || string(q.Message) != tt.message {
			t.Errorf("%s: quotes %+v", tt.body, q)
		}
	}
	if q := s.sent(`{` + to + `,"text":"yes","replyTo":"3ALONG"}`).Quote; len(q.Message) != 0 || len(q.Text) > maxQuoted || !strings.HasPrefix(q.Text, "üü") {
		t.Errorf("a long one: %d bytes of text, %d of message", len(q.Text), len(q.Message))
	}
	for _, tt := range []struct {
		body, id, chat, sender, emoji string
		fromMe                        bool
	}{
		{`{` + to + `,"reaction":{"to":"3AIN","emoji":"👍"}}`, "3AIN", "555666777@lid", "", "👍", false},
		{`{` + to + `,"reaction":{"to":"3AIN","emoji":""}}`, "3AIN", "555666777@lid", "", "", false},
		{`{` + to + `,"reaction":{"to":"3AMINE","emoji":"👍"}}`, "3AMINE", "555666777@lid", "", "👍", true},
		{`{` + to + `,"reaction":{"to":"` + own.ID + `","emoji":"👍"}}`, own.MessageID, "4915999999999@s.whatsapp.net", "", "👍", true},
		{`{"to":"120363000000000001@g.us","reaction":{"to":"3AGROUP","emoji":"👍"}}`, "3AGROUP", "120363000000000001@g.us", "555666777@lid", "👍", false},
		{`{"to":"120363000000000001@g.us","reaction":{"to":"3AOLD","emoji":"👍"},"sender":"444555666@lid"}`, "3AOLD", "120363000000000001@g.us", "444555666@lid", "👍", false},
		{`{"to":"120363000000000001@g.us","reaction":{"to":"3AOLD","emoji":"👍"},"sender":"111222333@lid"}`, "3AOLD", "120363000000000001@g.us", "", "👍", true},
	} {
		r := s.sent(tt.body).Reaction
		if r == nil || r.To != tt.id || r.Chat != tt.chat || r.Sender != tt.sender || r.Emoji != tt.emoji || r.FromMe != tt.fromMe {
			t.Errorf("%s: %+v", tt.body, r)
		}
	}
	// In a group nobody can tell whose message it was.
	for _, body := range []string{`{"to":"120363000000000001@g.us","text":"x","replyTo":"3AOLD"}`, `{"to":"120363000000000001@g.us","reaction":{"to":"3AOLD","emoji":"👍"}}`} {
		if p := wantProblem(t, s.ask(Operator, "POST", toMessages, body), CodeInvalid); !strings.Contains(p.Detail, "sender") {
			t.Errorf("%s: %s", body, p.Detail)
		}
	}
	// What the answer shows is what was asked for.
	m := want[QueuedMessage](t, s.ask(Operator, "POST", toMessages, `{`+to+`,"reaction":{"to":"3AIN","emoji":"👍"}}`), 202)
	if m.Reaction == nil || *m.Reaction != (SendReaction{To: "3AIN", Emoji: "👍"}) {
		t.Errorf("%+v", m)
	}
}

// TestWhatCannotBeSent is refused with the field named.
func TestWhatCannotBeSent(t *testing.T) {
	s := newStage(t)
	s.online(s.session("shop"))
	for body, field := range map[string]string{
		`{"text":""}`: "body.text",
		`{"text":"x","message":{"conversation":"y"}}`:    "body.text",
		`{"text":"x","reaction":{"to":"A","emoji":"👍"}}`: "body.text",
		`{"message":{}}`:                                              "body.message",
		`{"text":"x","replyTo":"a b"}`:                                "body.replyTo",
		`{"message":{"conversation":"x"},"replyTo":"A"}`:              "body.replyTo",
		`{"text":"x","sender":"1@lid"}`:                               "body.sender",
		`{"text":"x","replyTo":"A","sender":"nobody"}`:                "body.sender",
		`{"reaction":{"to":"","emoji":"👍"}}`:                          "body.reaction.to",
		`{"reaction":{"to":"A"}}`:                                     "body.reaction.emoji",
		`{"reaction":{"to":"A","emoji":"a b"}}`:                       "body.reaction.emoji",
		`{"media":{}}`:                                                "body.media",
		`{"media":{"url":"https://h/x","id":"01"}}`:                   "body.media",
		`{"media":{"url":"file:///etc/passwd"}}`:                      "body.media.url",
		`{"media":{"url":"https://h/x","mime":"nonsense"}}`:           "body.media.mime",
		`{"media":{"url":"https://h/x","kind":"picture"}}`:            "body.media.kind",
		`{"media":{"url":"https://h/x","fileName":"../x"}}`:           "body.media.fileName",
		`{"media":{"url":"https://h/x","seconds":-1}}`:                "body.media.seconds",
		`{"media":{"url":"https://h/x","kind":"image","voice":true}}`: "body.media.voice",
		`{"text":"x","media":{"url":"https://h/x","kind":"sticker"}}`: "body.text",
		`{"text":"x","media":{"url":"https://h/x","voice":true}}`:     "body.text",
		`{"media":{"id":"never"}}`:                                    "body.media.id",
	} {
		body := `{"to":"4915123456789",` + body[1:]
		p := wantProblem(t, s.ask(Operator, "POST", toMessages, body), CodeInvalid)
		if len(p.Errors) == 0 || p.Errors[0].Field != field {
			t.Errorf("%s: %+v, want %s", body, p.Errors, field)
		}
	}
	for _, to := range []string{"status@broadcast", "120363000000000001@newsletter", "4915123456789:3@s.whatsapp.net", "0151@s.whatsapp.net", "x@g.us", "-1@g.us"} {
		wantProblem(t, s.ask(Operator, "POST", toMessages, `{"to":"`+to+`","text":"x"}`), CodeInvalid)
	}
	s.api.cfg.ValidateMediaURL = func(u string) error {
		if strings.Contains(u, "10.0.0.1") {
			return errPrivate
		}
		return nil
	}
	if p := wantProblem(t, s.ask(Operator, "POST", toMessages, `{"to":"4915123456789","media":{"url":"http://10.0.0.1/hush"}}`), CodeInvalid); strings.Contains(p.Detail, "hush") {
		t.Errorf("%s", p.Detail)
	}
}

// TestURLsOfFilesAreForOperators: they often hold secrets.
func TestURLsOfFilesAreForOperators(t *testing.T) {
	s := newStage(t)
	s.online(s.session("shop"))
	m := want[QueuedMessage](t, s.ask(Operator, "POST", toMessages, `{"to":"4915123456789","text":"look","media":{"url":"https://files.test/a?token=hush","kind":"image","seconds":0}}`), 202)
	for role, shown := range map[Role]bool{Viewer: false, Operator: true, Admin: true} {
		for _, path := range []string{toMessages, toMessages + "/" + m.ID} {
			if got := string(s.ask(role, "GET", path, "").body); strings.Contains(got, "hush") != shown || !strings.Contains(got, "files.test") {
				t.Errorf("%s: %s", role, got)
			}
		}
	}
}

// TestIdempotencyOfEveryKind: another message under the same key is refused,
// whatever it differs in.
func TestIdempotencyOfEveryKind(t *testing.T) {
	s := newStage(t)
	s.online(s.session("shop"))
	base := map[string]any{"to": "4915123456789", "text": "look", "replyTo": "3AX", "media": map[string]any{"url": "https://h/x", "kind": "image"}, "idempotencyKey": "k"}
	body := func(change func(map[string]any)) string {
		m := map[string]any{}
		for k, v := range base {
			m[k] = v
		}
		change(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := want[QueuedMessage](t, s.ask(Operator, "POST", toMessages, body(func(map[string]any) {})), 202)
	// The history has moved on meanwhile, and knows more of what it answers.
	o, err := s.store.Owner(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	s.event(o, 1, state.EventMessage, `{"id":"3AX","chat":"4915123456789@s.whatsapp.net","sender":"4915123456789@s.whatsapp.net","text":"late"}`)
	if again := want[QueuedMessage](t, s.ask(Operator, "POST", toMessages, body(func(map[string]any) {})), 202); again.ID != first.ID {
		t.Errorf("%s and %s", first.ID, again.ID)
	}
	for what, change := range map[string]func(map[string]any){
		"text":    func(m map[string]any) { m["text"] = "other" },
		"replyTo": func(m map[string]any) { m["replyTo"] = "3AY" },
		"url":     func(m map[string]any) { m["media"] = map[string]any{"url": "https://h/y", "kind": "image"} },
		"kind":    func(m map[string]any) { m["media"] = map[string]any{"url": "https://h/x", "kind": "document"} },
		"to":      func(m map[string]any) { m["to"] = "4915123456788" },
		"sendAt":  func(m map[string]any) { m["sendAt"] = s.now() },
	} {
		t.Run(what, func(t *testing.T) {
			wantProblem(t, s.ask(Operator, "POST", toMessages, body(change)), CodeIdempotencyMismatch)
		})
	}
}
