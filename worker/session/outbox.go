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
	// sendTries is how often a message is tried on one connection before it
	// waits for the next one.
	sendTries = 3
	// outboxPage is how many due messages are read at a time.
	outboxPage = 50
	// outboxKept is how long a finished message can be looked up.
	outboxKept = 7 * 24 * time.Hour
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
				if next.IsZero() || item.SendAt.Before(next) {
					next = item.SendAt
				}
				continue
			}
			if !line.LoggedIn() || ctx.Err() != nil {
				return time.Time{}, nil // it goes on with the next login
			}
			again, err := a.sendOne(ctx, line, jrn, set, log, item, rec.Rev)
			if err != nil {
				return time.Time{}, err
			}
			if again {
				return time.Now().Add(set.QueryPause), nil
			}
		}
		if len(page) < outboxPage {
			return next, nil
		}
	}
}

// sendOne sends one message. again says that it failed for a passing reason.
func (a *actor) sendOne(ctx context.Context, line Line, jrn *journal.Journal, set policy.Settings, log *slog.Logger, item state.Outbox, rev uint64) (again bool, err error) {
	content, err := a.openContent(item)
	if err != nil {
		return false, a.settle(jrn, item, rev, state.OutFailed, "corrupt", err.Error())
	}
	item.Attempts++
	if item.State == state.OutQueued {
		// From here on the ratchets may have moved under this message id.
		if err := a.saveItem(jrn, &item, &rev, state.OutSending, true); err != nil {
			return false, err
		}
		if rev == 0 {
			return false, nil // cancelled meanwhile
		}
	}
	var failure error
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(ctx, set.QueryTimeout)
		if len(content.Message) > 0 {
			_, failure = line.Send(ctx, item.MessageID, content.To, content.Message)
		} else {
			_, failure = line.SendText(ctx, item.MessageID, content.To, content.Text)
		}
		cancel()
		var sent *whatsapp.SendError
		passing := errors.As(failure, &sent) && sent.Temporary
		if failure == nil || !passing {
			break
		}
		log.Warn("sending failed for a passing reason", "message", item.MessageID, "try", try, "error", failure)
		if try >= sendTries || !line.LoggedIn() {
			return true, nil
		}
		if !pause(ctx, set.QueryPause) {
			return true, nil
		}
	}
	if a.cfg.Observe.Sent != nil {
		a.cfg.Observe.Sent(failure == nil)
	}
	if failure != nil {
		if ctx.Err() != nil || !line.LoggedIn() {
			return true, nil
		}
		code := "send_refused"
		var sent *whatsapp.SendError
		if errors.As(failure, &sent) && sent.Code == whatsapp.CodeReachout {
			code = string(state.CauseReachoutRestricted)
		}
		return false, a.settle(jrn, item, rev, state.OutFailed, code, failure.Error())
	}
	a.remember(item.MessageID, item.ID)
	return false, a.settle(jrn, item, rev, state.OutSent, "", "")
}

// pause waits, and returns false if ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
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

// receipt notes in the outbox what became of a message. The event of it is
// stored already.
func (a *actor) receipt(ctx context.Context, e whatsapp.Receipt) phase {
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
		rec, err := a.cfg.Store.Get(ctx, state.OfSession(a.cfg.Name), state.Key{Kind: state.KindOutbox, ID: id})
		if err != nil {
			continue
		}
		var item state.Outbox
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
