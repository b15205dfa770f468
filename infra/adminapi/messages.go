package adminapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

const (
	maxAhead = 366 * 24 * time.Hour // of sendAt
	late     = 5 * time.Minute      // a sendAt so long ago is now: clocks differ
)

// Message is a message of the outbox.
type Message struct {
	ID        string            `json:"id"`
	MessageID string            `json:"messageId" doc:"WhatsApp's id, fixed before the first try"`
	Session   string            `json:"session"`
	State     state.OutboxState `json:"state" enum:"queued,sending,sent,delivered,read,failed,cancelled"`
	To        string            `json:"to,omitempty"`
	Text      string            `json:"text,omitempty"`
	ReplyTo   string            `json:"replyTo,omitempty" doc:"id of the message that this answers"`
	Reaction  *SendReaction     `json:"reaction,omitempty"`
	Media     *SendMedia        `json:"media,omitempty"`
	Message   any               `json:"message,omitempty"`
	At        time.Time         `json:"at"`
	SendAt    time.Time         `json:"sendAt,omitzero"`
	ChangedAt time.Time         `json:"changedAt,omitzero"`
	Attempts  int               `json:"attempts"`
	Code      string            `json:"code,omitempty" doc:"stable name of what went wrong"`
	Problem   string            `json:"problem,omitempty"`
}

// QueuedMessage is a message together with the command that a write left.
type QueuedMessage struct {
	Message
	Command string `json:"command,omitempty" doc:"id of the command that tells its owner"`
}

// MessagePage is a page of messages.
type MessagePage struct {
	Messages []Message `json:"messages" nullable:"false"`
	Next     string    `json:"next,omitempty" doc:"cursor of the next page; absent on the last one"`
}

type sendInput struct {
	VerbParams
	Body SendMessage
}

type queuedOutput struct {
	Status   int
	Location string `header:"Location"`
	Body     QueuedMessage
}

// MessagePath is the message that a route is about.
type MessagePath struct {
	SessionPath
	ID string `path:"id" maxLength:"64" doc:"as the write answered it"`
}

type messageWaitInput struct {
	MessagePath
	WaitParam
}

// PageParams ask for a page.
type PageParams struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"100"`
	Cursor string `query:"cursor" maxLength:"128" doc:"next of the page before"`
}

type messagesInput struct {
	SessionPath
	PageParams
	State string `query:"state" enum:"queued,sending,sent,delivered,read,failed,cancelled"`
	Order string `query:"order" enum:"asc,desc" default:"desc" doc:"by time"`
}

func (a *API) messageRoutes() {
	tags := []string{"Messages"}
	route(a, Operator, huma.Operation{OperationID: "send-message", Method: http.MethodPost, Path: "/api/sessions/{name}/messages", Tags: tags,
		Summary: "Send a message, now or later", DefaultStatus: http.StatusAccepted, Errors: []int{400, 404, 409, 412, 413, 415},
		Description: "A text, an answer to a message (replyTo), a reaction, an attachment (media), or any other message as protobuf JSON. " +
			"It is stored with its WhatsApp id before anything else, so that it is sent once also when a worker dies over it. With wait the answer is held back until it is sent or has failed."}, a.send)
	route(a, Viewer, huma.Operation{OperationID: "list-messages", Method: http.MethodGet, Path: "/api/sessions/{name}/messages", Tags: tags,
		Summary: "List messages to send and sent", Errors: []int{404}}, a.messages)
	route(a, Viewer, huma.Operation{OperationID: "get-message", Method: http.MethodGet, Path: "/api/sessions/{name}/messages/{id}", Tags: tags,
		Summary: "Show a message", Errors: []int{404}}, a.message)
	route(a, Operator, huma.Operation{OperationID: "cancel-message", Method: http.MethodDelete, Path: "/api/sessions/{name}/messages/{id}", Tags: tags,
		Summary: "Cancel a message that is not sent yet", Errors: []int{404, 409}}, a.cancel)
}

func (a *API) send(ctx context.Context, in *sendInput) (*queuedOutput, error) {
	wait, err := in.duration()
	if err != nil {
		return nil, err
	}
	content, err := in.Body.content()
	if err != nil {
		return nil, err
	}
	if content.Media != nil && content.Media.URL != "" && a.cfg.ValidateMediaURL != nil {
		if err := a.cfg.ValidateMediaURL(content.Media.URL); err != nil {
			return nil, invalid("body.media.url", "%s", err)
		}
	}
	now := a.cfg.Now().UTC()
	sendAt := in.Body.SendAt.UTC()
	switch {
	case in.Body.SendAt.IsZero():
		sendAt = time.Time{}
	case sendAt.After(now.Add(maxAhead)):
		return nil, invalid("body.sendAt", "is more than a year ahead")
	case sendAt.Before(now.Add(-late)):
		return nil, invalid("body.sendAt", "is in the past")
	}
	key := in.Body.IdempotencyKey
	if key == "" {
		key = in.Key
	} else if in.Key != "" && in.Key != key {
		return nil, invalid("body.idempotencyKey", "is not that of the header Idempotency-Key: give one of them")
	}
	if err := a.refer(ctx, in.Name, &content, in.Body.Sender); err != nil {
		return nil, err
	}
	p := state.OfSession(in.Name)
	id, messageID := a.newID(), newMessageID()
	item := state.Outbox{V: state.Format, ID: id, MessageID: messageID, State: state.OutQueued, At: now, SendAt: sendAt, ChangedAt: now}
	if item.Sealed, err = a.sealJSON(seal.Place{Partition: p, Kind: state.KindOutbox, ID: id}, content); err != nil {
		return nil, err
	}
	life := commandLife
	if !sendAt.IsZero() {
		life = max(life, sendAt.Sub(now)+commandLife)
	}
	o := order{verb: state.VerbSend, key: key, match: in.IfMatch, life: life, args: map[string]string{"message": id}}
	c, err := a.carry(ctx, in.Name, o, func(s *stored) ([]state.Write, string, string, error) {
		if !s.status.Paired {
			return nil, "", "", problem(CodeNotPaired, "%q is not paired: scan its QR first", in.Name)
		}
		value, err := state.Encode(item)
		if err != nil {
			return nil, "", "", err
		}
		w := state.Put(state.KindOutbox, id, value)
		w.Rev, w.If, w.Index = 1, state.Absent(), state.OutboxDue(in.Name)
		writes := []state.Write{w}
		if content.Media != nil && content.Media.Upload != "" {
			named, err := a.nameUpload(ctx, in.Name, content.Media.Upload, id)
			if err != nil {
				return nil, "", "", err
			}
			writes = append(writes, named)
		}
		return writes, "", "message " + id, nil
	})
	if err != nil {
		return nil, err
	}
	got, err := a.outbox(ctx, in.Name, c.Args["message"])
	if err != nil {
		return nil, err
	}
	if got.item.ID != id { // the key was used before
		before, err := a.openContent(in.Name, got.item)
		if err != nil || !sameMessage(before, content) || !got.item.SendAt.Equal(sendAt) {
			return nil, problem(CodeIdempotencyMismatch, "body.idempotencyKey: was used for another message: use a new key")
		}
	}
	err = a.await(ctx, in.Name, wait, func() (bool, error) {
		if wait > 0 {
			if got, err = a.outbox(ctx, in.Name, got.item.ID); err != nil {
				return false, err
			}
		}
		return got.item.State != state.OutQueued && got.item.State != state.OutSending, nil
	})
	if err != nil {
		return nil, err
	}
	return &queuedOutput{Status: http.StatusAccepted, Location: "/api/sessions/" + in.Name + "/messages/" + got.item.ID,
		Body: QueuedMessage{a.messageView(ctx, in.Name, got.item), state.CommandRef(in.Name, c.ID)}}, nil
}

// newMessageID makes an id as WhatsApp's own web clients make them.
func newMessageID() string {
	var b [9]byte
	rand.Read(b[:])
	return "3EB0" + strings.ToUpper(hex.EncodeToString(b[:]))
}

// outboxItem is a stored message with its revision.
type outboxItem struct {
	item state.Outbox
	rev  uint64
}

func (a *API) outbox(ctx context.Context, session, id string) (outboxItem, error) {
	r, err := a.cfg.Store.Get(ctx, state.OfSession(session), state.Key{Kind: state.KindOutbox, ID: id})
	if err != nil {
		if errors.Is(err, state.ErrNotFound) {
			return outboxItem{}, fmt.Errorf("message %q of %q: %w", id, session, state.ErrNotFound)
		}
		return outboxItem{}, err
	}
	got := outboxItem{rev: r.Rev}
	if err := state.Decode(r.Value, &got.item); err != nil {
		return got, fmt.Errorf("message %q of %q: %w", id, session, err)
	}
	return got, nil
}

// openContent opens the personal part of an item.
func (a *API) openContent(session string, o state.Outbox) (c state.OutboxContent, err error) {
	err = a.openJSON(seal.Place{Partition: state.OfSession(session), Kind: state.KindOutbox, ID: o.ID}, o.Sealed, &c)
	return c, err
}

func (a *API) messageView(ctx context.Context, session string, o state.Outbox) Message {
	m := Message{ID: o.ID, MessageID: o.MessageID, Session: session, State: o.State, At: o.At, SendAt: o.SendAt,
		ChangedAt: o.ChangedAt, Attempts: o.Attempts, Code: o.Code, Problem: o.Problem}
	c, err := a.openContent(session, o)
	if err != nil {
		m.Code, m.Problem = string(CodeCorrupt), "its content cannot be read"
		return m
	}
	m.To, m.Text = c.To, c.Text
	if len(c.Message) > 0 {
		m.Message = c.Message
	}
	if c.Quote != nil {
		m.ReplyTo = c.Quote.ID
	}
	if c.Reaction != nil {
		m.Reaction = &SendReaction{To: c.Reaction.To, Emoji: c.Reaction.Emoji}
	}
	if c.Media != nil {
		m.Media = mediaView(*c.Media, caller(ctx).role)
	}
	return m
}

func (a *API) messages(ctx context.Context, in *messagesInput) (*struct{ Body MessagePage }, error) {
	if _, err := a.cfg.Store.Owner(ctx, in.Name); err != nil {
		return nil, fmt.Errorf("session %q: %w", in.Name, err)
	}
	after, err := fromCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	page := MessagePage{Messages: []Message{}}
	q := state.Query{Kind: state.KindOutbox, After: after, Limit: in.Limit, Descending: in.Order == "desc"}
	for looked := 0; ; {
		got, err := a.cfg.Store.Query(ctx, state.OfSession(in.Name), q)
		if err != nil {
			return nil, err
		}
		for i, r := range got.Records {
			q.After = r.Key.ID
			looked++
			var o state.Outbox
			if err := state.Decode(r.Value, &o); err != nil {
				o = state.Outbox{ID: r.Key.ID} // shown as unreadable
			}
			if in.State == "" || o.State == state.OutboxState(in.State) {
				page.Messages = append(page.Messages, a.messageView(ctx, in.Name, o))
			}
			if len(page.Messages) == in.Limit {
				if got.More || i+1 < len(got.Records) {
					page.Next = toCursor(q.After)
				}
				return &struct{ Body MessagePage }{page}, nil
			}
		}
		if !got.More || len(got.Records) == 0 {
			return &struct{ Body MessagePage }{page}, nil
		}
		if looked >= scanned {
			page.Next = toCursor(q.After)
			return &struct{ Body MessagePage }{page}, nil
		}
	}
}

func (a *API) message(ctx context.Context, in *messageWaitInput) (*struct{ Body Message }, error) {
	wait, err := in.duration()
	if err != nil {
		return nil, err
	}
	var got outboxItem
	err = a.await(ctx, in.Name, wait, func() (bool, error) {
		got, err = a.outbox(ctx, in.Name, in.ID)
		return got.item.State != state.OutQueued && got.item.State != state.OutSending, err
	})
	if err != nil {
		return nil, err
	}
	return &struct{ Body Message }{a.messageView(ctx, in.Name, got.item)}, nil
}

func (a *API) cancel(ctx context.Context, in *MessagePath) (*struct{ Body Message }, error) {
	for range tries {
		got, err := a.outbox(ctx, in.Name, in.ID)
		if err != nil {
			return nil, err
		}
		switch got.item.State {
		case state.OutCancelled:
			return &struct{ Body Message }{a.messageView(ctx, in.Name, got.item)}, nil
		case state.OutQueued:
		default:
			return nil, problem(CodeNotCancellable, "message %s is %s: it cannot be taken back here", in.ID, got.item.State)
		}
		now := a.cfg.Now().UTC()
		got.item.State, got.item.ChangedAt = state.OutCancelled, now
		value, err := state.Encode(got.item)
		if err != nil {
			return nil, err
		}
		w := state.Put(state.KindOutbox, in.ID, value)
		w.Rev, w.If = got.rev+1, state.AtRev(got.rev)
		audit, err := a.audit(caller(ctx), now, "cancel-message", "queued", "message "+in.ID)
		if err != nil {
			return nil, err
		}
		switch err := a.cfg.Store.Update(ctx, state.OfSession(in.Name), []state.Write{w, audit}); {
		case errors.Is(err, state.ErrConflict):
			continue
		case err != nil:
			return nil, err
		}
		a.told(in.Name)
		a.releaseUpload(ctx, in.Name, got.item)
		return &struct{ Body Message }{a.messageView(ctx, in.Name, got.item)}, nil
	}
	return nil, fmt.Errorf("cancelling message %s: %w", in.ID, state.ErrConflict)
}
