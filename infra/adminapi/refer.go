package adminapi

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/holdfast-wa/holdfast/state"
)

const (
	// lookBack is how many of the last messages received, and of those sent, are
	// looked through for the one that an answer or a reaction names.
	lookBack = 1000
	// maxQuoted is the most that is kept of a quoted message, bytes; of a larger one
	// the text is quoted.
	maxQuoted = 64 << 10
)

// referred is a message that another one answers or reacts to.
type referred struct {
	id      string // WhatsApp's
	chat    string
	sender  string
	fromMe  bool
	text    string
	message json.RawMessage
}

// refer completes what a message answers or reacts to: who wrote it, and what it
// says. It is looked for among the last messages of the session. One that is not
// there is taken to be the contact's; in a group nobody can tell.
func (a *API) refer(ctx context.Context, session string, c *state.OutboxContent, sender string) error {
	field, id := "body.replyTo", ""
	switch {
	case c.Quote != nil:
		id = c.Quote.ID
	case c.Reaction != nil:
		field, id = "body.reaction.to", c.Reaction.To
	default:
		return nil
	}
	found, ok, err := a.messageByID(ctx, session, id)
	if err != nil {
		return err
	}
	if !ok {
		found = referred{id: id, chat: c.To, sender: c.To}
		if strings.HasSuffix(c.To, "@g.us") {
			found.sender = ""
		}
	}
	if sender != "" {
		s, err := a.read(ctx, session)
		if err != nil {
			return err
		}
		if found.sender, err = address("body.sender", sender); err != nil {
			return err
		}
		found.fromMe = found.sender == withoutDevice(s.identity.JID) || found.sender == withoutDevice(s.identity.LID)
	}
	if found.sender == "" && !found.fromMe {
		return invalid(field, "is not among the last %d messages of the session: say in sender who wrote it", lookBack)
	}
	if c.Reaction != nil {
		c.Reaction.To, c.Reaction.Chat, c.Reaction.FromMe = found.id, found.chat, found.fromMe
		if strings.HasSuffix(found.chat, "@g.us") && !found.fromMe {
			c.Reaction.Sender = found.sender
		}
		return nil
	}
	if found.fromMe && found.sender == "" {
		s, err := a.read(ctx, session)
		if err != nil {
			return err
		}
		found.sender = withoutDevice(s.identity.JID)
	}
	*c.Quote = state.Quote{ID: found.id, Sender: found.sender, Text: cut(found.text, maxQuoted)}
	if len(found.message) <= maxQuoted {
		c.Quote.Message = found.message
	}
	return nil
}

// cut shortens a text to so many bytes.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

// withoutDevice is the address of a user, of one of its devices.
func withoutDevice(address string) string {
	user, server, ok := strings.Cut(address, "@")
	if !ok {
		return address
	}
	user, _, _ = strings.Cut(user, ":")
	return user + "@" + server
}

// messageByID finds a message by WhatsApp's id of it, or by ours.
func (a *API) messageByID(ctx context.Context, session, id string) (referred, bool, error) {
	p := state.OfSession(session)
	var found referred
	sent := func(r state.Record) bool {
		var o state.Outbox
		if state.Decode(r.Value, &o) != nil || o.MessageID != id && o.ID != id {
			return false
		}
		found = referred{id: o.MessageID, fromMe: true}
		if c, err := a.openContent(session, o); err == nil {
			found.chat, found.text, found.message = c.To, c.Text, c.Message
		}
		return true
	}
	ok, err := a.lookThrough(ctx, p, state.KindOutbox, sent)
	if ok || err != nil {
		return found, ok, err
	}
	ok, err = a.lookThrough(ctx, p, state.KindEvent, func(r state.Record) bool {
		var s state.StoredEvent
		if state.Decode(r.Value, &s) != nil || s.Type != state.EventMessage {
			return false
		}
		data, isData := a.openEvent(Admin, p, r).Data.(json.RawMessage)
		var m struct {
			ID, Chat, Sender, Text string
			FromMe                 bool
			Message                json.RawMessage
		}
		if !isData || json.Unmarshal(data, &m) != nil || m.ID != id {
			return false
		}
		found = referred{id: m.ID, chat: m.Chat, sender: m.Sender, fromMe: m.FromMe, text: m.Text, message: m.Message}
		return true
	})
	return found, ok, err
}

// lookThrough shows the newest records of a kind until one is the right one.
func (a *API) lookThrough(ctx context.Context, p state.Partition, kind state.Kind, is func(state.Record) bool) (bool, error) {
	q := state.Query{Kind: kind, Limit: 100, Descending: true}
	for looked := 0; looked < lookBack; {
		got, err := a.cfg.Store.Query(ctx, p, q)
		if err != nil {
			return false, err
		}
		for _, r := range got.Records {
			if is(r) {
				return true, nil
			}
			q.After = r.Key.ID
			looked++
		}
		if !got.More || len(got.Records) == 0 {
			break
		}
	}
	return false, nil
}
