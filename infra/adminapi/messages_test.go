package adminapi

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

func TestSendStoresTheMessageFirst(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	const path = "/api/sessions/shop/messages"
	wantProblem(t, s.ask(Operator, "POST", path, `{"to":"4915123456789","text":"hi"}`), CodeNotPaired)
	s.online(o)
	for _, tc := range []struct{ body, to, text, message string }{
		{`{"to":"+49 151 23456789","text":"hello 👋"}`, "4915123456789@s.whatsapp.net", "hello 👋", ""},
		{`{"to":"120363025246125486@g.us","text":"x"}`, "120363025246125486@g.us", "x", ""},
		{`{"to":"4915123456789-1500000000@g.us","text":"x"}`, "4915123456789-1500000000@g.us", "x", ""},
		{`{"to":"123456789012345@lid","message":{"conversation":"x"}}`, "123456789012345@lid", "", `{"conversation":"x"}`},
	} {
		q := want[QueuedMessage](t, s.ask(Operator, "POST", path, tc.body), 202)
		if q.State != state.OutQueued || q.To != tc.to || q.Text != tc.text || len(q.MessageID) != 22 || q.MessageID[:4] != "3EB0" || q.Command == "" {
			t.Errorf("%s: %+v", tc.body, q)
		}
		r, err := s.store.Get(t.Context(), state.OfSession("shop"), state.Key{Kind: state.KindOutbox, ID: q.ID})
		if err != nil || r.Rev != 1 || r.Index != state.OutboxDue("shop") {
			t.Fatalf("record %+v, %v", r, err)
		}
		var item state.Outbox
		var content state.OutboxContent
		if err := state.Decode(r.Value, &item); err != nil {
			t.Fatal(err)
		}
		if err := s.api.openJSON(seal.Place{Partition: state.OfSession("shop"), Kind: state.KindOutbox, ID: q.ID}, item.Sealed, &content); err != nil || content.To != tc.to || string(content.Message) != tc.message {
			t.Errorf("the owner reads %+v, %v", content, err)
		}
		c := want[Command](t, s.ask(Viewer, "GET", "/api/commands/"+q.Command, ""), 200)
		if c.Verb != state.VerbSend || c.Args["message"] != q.ID {
			t.Errorf("command %+v", c)
		}
	}
}

func TestIdempotencyKeysOfMessages(t *testing.T) {
	s := newStage(t)
	s.online(s.session("shop"))
	const path = "/api/sessions/shop/messages"
	first := want[QueuedMessage](t, s.ask(Operator, "POST", path, `{"to":"4915123456789","text":"hi","idempotencyKey":"k"}`), 202)
	again := want[QueuedMessage](t, s.ask(Operator, "POST", path, `{"to":"4915123456789","text":"hi"}`, "Idempotency-Key", "k"), 202)
	if first.ID != again.ID || first.MessageID != again.MessageID || first.Command != again.Command {
		t.Errorf("%+v and %+v", first, again)
	}
	wantProblem(t, s.ask(Operator, "POST", path, `{"to":"4915123456789","text":"other","idempotencyKey":"k"}`), CodeIdempotencyMismatch)
	wantProblem(t, s.ask(Operator, "POST", path, `{"to":"4915123456789","text":"hi","idempotencyKey":"k"}`, "Idempotency-Key", "l"), CodeInvalid)
	if page := want[MessagePage](t, s.ask(Viewer, "GET", path, ""), 200); len(page.Messages) != 1 {
		t.Errorf("%d messages for one key", len(page.Messages))
	}
}

func TestMessagesAreListedCancelledAndWaitedFor(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.online(o)
	const path = "/api/sessions/shop/messages"
	at := s.now().Add(48 * time.Hour).Format(time.RFC3339)
	var ids []string
	for i := range 7 {
		s.pass(time.Second)
		q := want[QueuedMessage](t, s.ask(Operator, "POST", path, fmt.Sprintf(`{"to":"4915123456789","text":"n%d","sendAt":%q}`, i, at)), 202)
		if q.SendAt.Format(time.RFC3339) != at {
			t.Errorf("sendAt %v", q.SendAt)
		}
		c := want[Command](t, s.ask(Viewer, "GET", "/api/commands/"+q.Command, ""), 200)
		if !c.ExpiresAt.After(q.SendAt) {
			t.Errorf("the command of a later message expires at %v", c.ExpiresAt)
		}
		ids = append(ids, q.ID)
	}
	if m := want[Message](t, s.ask(Operator, "DELETE", path+"/"+ids[2], ""), 200); m.State != state.OutCancelled {
		t.Errorf("message %+v", m)
	}
	want[Message](t, s.ask(Operator, "DELETE", path+"/"+ids[2], ""), 200)
	if r, err := s.store.Get(t.Context(), state.OfSession("shop"), state.Key{Kind: state.KindOutbox, ID: ids[2]}); err != nil || r.Index != "" || r.Rev != 2 {
		t.Errorf("record %+v, %v", r, err)
	}
	// The owner sends one meanwhile.
	r, err := s.store.Get(t.Context(), state.OfSession("shop"), state.Key{Kind: state.KindOutbox, ID: ids[3]})
	if err != nil {
		t.Fatal(err)
	}
	var item state.Outbox
	if err := state.Decode(r.Value, &item); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan Message)
	go func() { waiting <- want[Message](t, s.ask(Viewer, "GET", path+"/"+ids[3]+"?wait=20s", ""), 200) }()
	item.State = state.OutSent
	w := state.Put(state.KindOutbox, ids[3], s.encode(item))
	w.Rev, w.If = 2, state.AtRev(1)
	s.commit(o, w)
	if m := <-waiting; m.State != state.OutSent || m.Text != "n3" {
		t.Errorf("message %+v", m)
	}
	wantProblem(t, s.ask(Operator, "DELETE", path+"/"+ids[3], ""), CodeNotCancellable)
	wantProblem(t, s.ask(Operator, "DELETE", path+"/none", ""), CodeNotFound)

	for _, tc := range []struct {
		query string
		limit int
		want  int
		first int
	}{{"", 3, 7, 6}, {"order=asc", 3, 7, 0}, {"state=queued", 2, 5, 6}, {"state=cancelled", 5, 1, 2}, {"", 7, 7, 6}} {
		var got []string
		cursor := ""
		for range 10 {
			page := want[MessagePage](t, s.ask(Viewer, "GET", fmt.Sprintf("%s?limit=%d&%s&cursor=%s", path, tc.limit, tc.query, cursor), ""), 200)
			for _, m := range page.Messages {
				got = append(got, m.ID)
			}
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		if len(got) != tc.want || got[0] != ids[tc.first] {
			t.Errorf("%q: %d messages, first %s; want %d, first %s", tc.query, len(got), got[0], tc.want, ids[tc.first])
		}
	}
}

func TestDeadLetters(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	for seq := range uint64(5) {
		s.commit(o, state.Put(state.KindDead, state.DeadID(seq+1, "webhook"), s.encode(state.DeadLetter{V: 1, Sink: "webhook", Seq: seq + 1, Status: 410, Reason: "gone", Tries: 1})))
	}
	const path = "/api/sessions/shop/dead-letters"
	page := want[DeadLetterPage](t, s.ask(Viewer, "GET", path+"?limit=3", ""), 200)
	if len(page.DeadLetters) != 3 || page.DeadLetters[0].Status != 410 || page.Next == "" {
		t.Errorf("page %+v", page)
	}
	rest := want[DeadLetterPage](t, s.ask(Viewer, "GET", path+"?cursor="+page.Next, ""), 200)
	if len(rest.DeadLetters) != 2 || rest.Next != "" || rest.DeadLetters[0].Seq != 4 {
		t.Errorf("page %+v", rest)
	}
	one := page.DeadLetters[1].ID
	if c := want[Command](t, s.ask(Operator, "POST", path+"/"+one+"/redrive", ""), 202); c.Verb != state.VerbRedrive || c.Args["deadLetter"] != one {
		t.Errorf("command %+v", c)
	}
	if c := want[Command](t, s.ask(Operator, "POST", path+"/redrive", ""), 202); c.Args["deadLetter"] != "" {
		t.Errorf("command %+v", c)
	}
	wantProblem(t, s.ask(Operator, "POST", path+"/none/redrive", ""), CodeNotFound)
}
