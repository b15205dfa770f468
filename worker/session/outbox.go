package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

const (
	// sendTries is how often a message is tried before it counts as failed: for
	// hours, since the pauses between the tries grow.
	sendTries = 200
	// longestRetry is the longest of those pauses.
	longestRetry = time.Minute
	// outboxPage is how many due messages are read at a time.
	outboxPage = 50
	// outboxKept is how long a finished message can be looked up.
	outboxKept = 7 * 24 * time.Hour
	// receiptLooks is how often a receipt is looked at whose message is still on
	// its way to being sent, and receiptAgain when.
	receiptLooks = 20
	receiptAgain = 250 * time.Millisecond
	// receiptsKept bounds the memory of which message id is which item.
	receiptsKept = 500
)

// outbox sends, one message after the other, in a goroutine that lives only
// while something is due.
type outbox struct {
	running bool
	again   bool // something came while it ran
	timer   *time.Timer
	wait    sync.WaitGroup

	mu  sync.Mutex
	ids map[string]string // message id → item id, of what was sent lately
}

// sendEnded says that the outbox has nothing more to do for now.
type sendEnded struct {
	next time.Time // when something is due; zero: nothing is
	err  error     // of the store
}

// startOutbox sends what is due, if the session is online.
func (a *actor) startOutbox(ctx context.Context) {
	if a.online == nil {
		return
	}
	if a.outbox.running {
		a.outbox.again = true
		return
	}
	a.outbox.running, a.outbox.again = true, false
	line, jrn, set, log := a.line, a.jrn, a.set, a.log
	a.setLive(func(l *Live) { l.Job = "sending" })
	a.outbox.wait.Add(1)
	go func() {
		defer a.outbox.wait.Done()
		next, err := a.drain(ctx, line, jrn, set, log)
		a.box.post(sendEnded{next, err})
	}()
}

func (a *actor) sendEnded(ctx context.Context, e sendEnded) phase {
	a.outbox.running = false
	if e.err != nil && a.jrn.Err() != nil {
		return a.strand(a.jrn.Err())
	}
	if e.err != nil && ctx.Err() == nil {
		a.log.Warn("the outbox could not be worked off", "error", e.err)
		e.next = time.Now().Add(a.set.QueryPause * 5)
	}
	if a.online == nil {
		return nil // the next login looks again
	}
	if a.outbox.again {
		a.startOutbox(ctx)
		return nil
	}
	if !e.next.IsZero() {
		if a.outbox.timer != nil {
			a.outbox.timer.Stop()
		}
		a.outbox.timer = time.AfterFunc(time.Until(e.next), func() { a.box.post(outboxDue{}) })
	}
	return nil
}

// outboxDue says that a scheduled message is due.
type outboxDue struct{}

// waitOutbox waits for a send that is under way; its line is cut already.
func (a *actor) waitOutbox() {
	if a.outbox.timer != nil {
		a.outbox.timer.Stop()
	}
	a.outbox.wait.Wait()
}

// drain sends all that is due and returns when the next one is.
func (a *actor) drain(ctx context.Context, line Line, jrn *journal.Journal, set policy.Settings, log *slog.Logger) (time.Time, error) {
	var next time.Time
	var after *state.Indexed
	held := make(map[string]bool) // chats with a message that must wait
	scheduled := 0
	defer func() { a.setLive(func(l *Live) { l.Scheduled, l.Job = scheduled, "" }) }()
	for {
		page, err := a.cfg.Store.Indexed(ctx, state.OutboxDue(a.cfg.Name), after, outboxPage)
		if err != nil {
			return time.Time{}, fmt.Errorf("reading the outbox: %w", err)
		}
		for i := range page {
			after = &page[i]
			rec := page[i].Record
			var item state.Outbox
			if err := state.Decode(rec.Value, &item); err != nil {
				log.Error("an outbox item cannot be read", "item", rec.Key.ID, "error", err)
				continue
			}
			if item.State != state.OutQueued && item.State != state.OutSending {
				continue
			}
			if item.SendAt.After(time.Now()) {
				scheduled++
				next = earliest(next, item.SendAt)
				continue
			}
			content, err := a.openContent(item)
			if err != nil {
				if err := a.settle(jrn, item, rec.Rev, state.OutFailed, "corrupt", err.Error()); err != nil {
					return time.Time{}, err
				}
				continue
			}
			if held[content.To] {
				continue // behind one to the same chat: their order is kept
			}
			if due := retryAt(item, set); due.After(time.Now()) {
				held[content.To] = true
				next = earliest(next, due)
				continue
			}
			if !line.LoggedIn() || ctx.Err() != nil {
				return time.Time{}, nil // it goes on with the next login
			}
			again, err := a.sendOne(ctx, line, jrn, set, log, item, rec.Rev, content)
			if err != nil {
				return time.Time{}, err
			}
			if !again.IsZero() {
				held[content.To] = true
				next = earliest(next, again)
			}
		}
		if len(page) < outboxPage {
			return next, nil
		}
	}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// retryAt is when a message that was tried before may be tried again: after
// query-pause, and longer each time.
func retryAt(item state.Outbox, set policy.Settings) time.Time {
	if item.State != state.OutSending || item.Attempts == 0 {
		return time.Time{}
	}
	return item.ChangedAt.Add(min(set.QueryPause<<min(item.Attempts-1, 10), longestRetry))
}

// sendOne sends one message. again says when to try it again, where it failed
// for a passing reason.
func (a *actor) sendOne(ctx context.Context, line Line, jrn *journal.Journal, set policy.Settings, log *slog.Logger,
	item state.Outbox, rev uint64, content state.OutboxContent) (again time.Time, err error) {
	item.Attempts++
	// From here on the ratchets may have moved under this message id.
	if err := a.saveItem(jrn, &item, &rev, state.OutSending, true); err != nil || rev == 0 {
		return time.Time{}, err // rev 0: cancelled meanwhile
	}
	try, cancel := context.WithTimeout(ctx, set.QueryTimeout)
	defer cancel()
	var failure error
	if len(content.Message) > 0 {
		_, failure = line.Send(try, item.MessageID, content.To, content.Message)
	} else {
		_, failure = line.SendText(try, item.MessageID, content.To, content.Text)
	}
	var refusal *whatsapp.SendError
	known := errors.As(failure, &refusal)
	if failure != nil && (known && refusal.Temporary || ctx.Err() != nil || !line.LoggedIn()) && item.Attempts < sendTries {
		log.Warn("sending failed for a passing reason", "message", item.MessageID, "attempt", item.Attempts, "error", failure)
		return retryAt(item, set), nil
	}
	if a.cfg.Observe.Sent != nil {
		a.cfg.Observe.Sent(failure == nil)
	}
	if failure == nil {
		a.remember(item.MessageID, item.ID)
		return time.Time{}, a.settle(jrn, item, rev, state.OutSent, "", "")
	}
	code := "send_refused"
	switch {
	case known && refusal.Code == whatsapp.CodeReachout:
		code = string(state.CauseReachoutRestricted)
	case known && refusal.Temporary:
		code = "gave_up"
	}
	return time.Time{}, a.settle(jrn, item, rev, state.OutFailed, code, failure.Error())
}

func (a *actor) openContent(item state.Outbox) (state.OutboxContent, error) {
	var content state.OutboxContent
	body, err := a.cfg.Keyset.Open(seal.Place{Partition: state.OfSession(a.cfg.Name), Kind: state.KindOutbox, ID: item.ID}, item.Sealed)
	if err != nil {
		return content, err
	}
	if err := json.Unmarshal(body, &content); err != nil {
		return content, fmt.Errorf("%w: outbox item: %w", state.ErrCorrupt, err)
	}
	return content, nil
}

// settle stores the end of a send together with the event that tells of it.
func (a *actor) settle(jrn *journal.Journal, item state.Outbox, rev uint64, end state.OutboxState, code, problem string) error {
	item.Code, item.Problem = code, problem
	return a.saveItem(jrn, &item, &rev, end, false)
}

// saveItem writes an item. rev is set to the new revision, 0 if somebody else
// has changed the item.
func (a *actor) saveItem(jrn *journal.Journal, item *state.Outbox, rev *uint64, to state.OutboxState, due bool) error {
	now := time.Now()
	item.State, item.ChangedAt = to, now
	value, err := state.Encode(item)
	if err != nil {
		return err
	}
	w := state.Put(state.KindOutbox, item.ID, value)
	w.If, w.Rev = state.AtRev(*rev), *rev+1
	if due {
		w.Index = state.OutboxDue(a.cfg.Name)
	} else {
		w.Expires = now.Add(outboxKept)
	}
	batch := journal.Batch{Writes: []state.Write{w}}
	if to != state.OutSending {
		data := map[string]any{"id": item.ID, "messageId": item.MessageID, "status": to}
		if item.Problem != "" {
			data["code"], data["problem"] = item.Code, item.Problem
		}
		batch.Events = []journal.Draft{{Type: state.EventMessageState, Data: data}}
	}
	err = jrn.Commit(context.Background(), batch)
	if errors.Is(err, state.ErrConflict) {
		*rev = 0
		return nil
	}
	*rev++
	return err
}

func (a *actor) remember(messageID, item string) {
	o := &a.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ids == nil || len(o.ids) >= receiptsKept {
		o.ids = make(map[string]string)
	}
	o.ids[messageID] = item
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
		a.outbox.mu.Lock()
		id, ok := a.outbox.ids[messageID]
		a.outbox.mu.Unlock()
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
