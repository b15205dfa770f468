package session

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

const (
	// receiptLooks is how often a receipt is looked at whose message is still on
	// its way to being sent, and receiptAgain when.
	receiptLooks = 20
	receiptAgain = 250 * time.Millisecond
	// sentKept bounds the memory of which message id is which item: the last so many,
	// and as many before them.
	sentKept = 500
)

// sentIDs knows which item of the outbox a message id is, of what was sent lately,
// also by the owners before this one.
type sentIDs struct {
	mu     sync.Mutex
	young  map[string]string
	old    map[string]string
	loaded bool // those of former owners
}

func (s *sentIDs) add(messageID, item string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.young) >= sentKept {
		s.old, s.young = s.young, nil
	}
	if s.young == nil {
		s.young = make(map[string]string)
	}
	s.young[messageID] = item
}

func (s *sentIDs) find(messageID string) (item string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if item, ok = s.young[messageID]; !ok {
		item, ok = s.old[messageID]
	}
	return item, ok
}

// once says whether what former owners have sent is still to be read.
func (s *sentIDs) once() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.loaded
	s.loaded = true
	return first
}

// itemOf finds the item of the outbox that a receipt is about. Receipts come hours
// after their messages, and then often to another owner.
func (a *actor) itemOf(ctx context.Context, messageID string) (string, bool) {
	sent := &a.outbox.sent
	if id, ok := sent.find(messageID); ok || !sent.once() {
		return id, ok
	}
	q := state.Query{Kind: state.KindOutbox, Limit: sentKept, Descending: true}
	page, err := a.cfg.Store.Query(ctx, state.OfSession(a.cfg.Name), q)
	if err != nil {
		a.log.Warn("what was sent before could not be read; its receipts are told, and not noted in the outbox", "error", err)
		return "", false
	}
	for _, r := range page.Records {
		var item state.Outbox
		if state.Decode(r.Value, &item) == nil && (item.State == state.OutSent || item.State == state.OutDelivered) {
			sent.add(item.MessageID, item.ID)
		}
	}
	return sent.find(messageID)
}

// earlyReceipt is a receipt that was looked at before.
type earlyReceipt struct {
	whatsapp.Receipt
	looks int
}

// receipt notes in the outbox what became of a message. The event of it is
// stored already.
func (a *actor) receipt(ctx context.Context, e whatsapp.Receipt, looks int) phase {
	to := state.OutDelivered
	if e.Status == string(state.OutRead) {
		to = state.OutRead
	}
	for _, messageID := range e.IDs {
		id, ok := a.itemOf(ctx, messageID)
		if !ok {
			continue // sent by another device of the account, or long ago
		}
		key := state.Key{Kind: state.KindOutbox, ID: id}
		var rec state.Record
		if w, waiting := a.jrn.Pending(key); waiting { // of a receipt before this one
			rec = w.Record
		} else if stored, err := a.cfg.Store.Get(ctx, state.OfSession(a.cfg.Name), key); err == nil {
			rec = stored
		} else {
			continue
		}
		var item state.Outbox
		if state.Decode(rec.Value, &item) == nil && item.State == state.OutSending && looks < receiptLooks {
			// Quicker than the commit that says that it was sent.
			one := e
			one.IDs = []string{messageID}
			time.AfterFunc(receiptAgain, func() { a.box.post(earlyReceipt{one, looks + 1}) })
			continue
		}
		if state.Decode(rec.Value, &item) != nil || item.State != state.OutSent && item.State != state.OutDelivered || item.State == to {
			continue
		}
		item.State, item.ChangedAt = to, e.At
		value, err := state.Encode(item)
		if err != nil {
			continue
		}
		w := state.Put(state.KindOutbox, id, value)
		w.Rev, w.Expires = rec.Rev+1, time.Now().Add(outboxKept)
		a.jrn.Lazy(w)
	}
	return nil
}
