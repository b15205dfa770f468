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
)

// outbox sends, one message after the other, in a goroutine that lives only
// while something is due.
type outbox struct {
	running bool
	again   bool // something came while it ran
	timer   *time.Timer
	wait    sync.WaitGroup

	// ctx ends with the login: what waits for the pace or for a file must not
	// outlive its line. nil: none has begun.
	ctx    context.Context
	cancel context.CancelFunc

	pace  pace
	files files
	sent  sentIDs
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
	if a.outbox.ctx == nil {
		a.outbox.ctx, a.outbox.cancel = context.WithCancel(ctx)
	}
	run := sending{ctx: a.outbox.ctx, line: a.line, jrn: a.jrn, set: a.set, log: a.log}
	a.setLive(func(l *Live) { l.Job = "sending" })
	a.outbox.wait.Add(1)
	go func() {
		defer a.outbox.wait.Done()
		next, err := a.drain(run)
		if run.ctx.Err() != nil {
			err = nil // its line is gone, and the next login looks again
		}
		a.box.post(sendEnded{next, err})
	}()
}

// sending is what one pass over the outbox works with.
type sending struct {
	ctx  context.Context
	line Line
	jrn  *journal.Journal
	set  policy.Settings
	log  *slog.Logger
}

// stopOutbox ends what waits for the line that is lost.
func (a *actor) stopOutbox() {
	if a.outbox.cancel != nil {
		a.outbox.cancel()
	}
	a.outbox.ctx, a.outbox.cancel = nil, nil
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
func (a *actor) drain(r sending) (time.Time, error) {
	var next time.Time
	var after *state.Indexed
	held := make(map[string]bool)    // chats with a message that must wait
	waiting := make(map[string]bool) // items with a file
	scheduled := 0
	until := time.Now().Add(passAtMost)
	defer a.setLive(func(l *Live) { l.Job = "" })
	for {
		page, err := a.cfg.Store.Indexed(r.ctx, state.OutboxDue(a.cfg.Name), after, outboxPage)
		if err != nil {
			return time.Time{}, fmt.Errorf("reading the outbox: %w", err)
		}
		for i := range page {
			after = &page[i]
			rec := page[i].Record
			var item state.Outbox
			if err := state.Decode(rec.Value, &item); err != nil {
				r.log.Error("an outbox item cannot be read", "item", rec.Key.ID, "error", err)
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
			o := out{Outbox: item, rev: rec.Rev}
			if o.content, err = a.openContent(item); err != nil {
				if err := a.settle(r, &o, state.OutFailed, "corrupt", err.Error()); err != nil {
					return time.Time{}, err
				}
				continue
			}
			if o.content.Media != nil {
				waiting[o.ID] = true
			}
			if held[o.content.To] {
				continue // behind one to the same chat: their order is kept
			}
			due := latest(retryAt(item, r.set), a.outbox.pace.chat(o.content.To, r.set))
			if due.After(time.Now()) {
				held[o.content.To] = true
				next = earliest(next, due)
				continue
			}
			if !r.line.LoggedIn() || r.ctx.Err() != nil {
				return time.Time{}, nil // it goes on with the next login
			}
			again, waits, err := a.attach(r, &o)
			if err != nil {
				return time.Time{}, err
			}
			if waits {
				held[o.content.To] = true
				if !again.IsZero() {
					next = earliest(next, again)
				}
				continue
			}
			if o.rev == 0 || o.State == state.OutFailed {
				continue
			}
			if !a.outbox.pace.wait(r.ctx, r.set, until) {
				if o.fresh {
					a.outbox.files.end(o.ID, o.content.Built, nil) // it serves the next time
				}
				// From the start, when the pace allows it.
				return earliest(next, a.outbox.pace.next), nil
			}
			if again, err = a.sendOne(r, &o); err != nil {
				return time.Time{}, err
			}
			if !again.IsZero() {
				held[o.content.To] = true
				next = earliest(next, again)
			}
		}
		if len(page) < outboxPage {
			a.outbox.files.keep(waiting)
			a.setLive(func(l *Live) { l.Scheduled = scheduled })
			return next, nil
		}
	}
}

// out is an item of the outbox in hand. rev is 0 once somebody else has changed it.
type out struct {
	state.Outbox
	rev     uint64
	content state.OutboxContent
	fresh   bool // content.Built was made just now and is not stored yet
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
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
	if item.Attempts == 0 {
		return time.Time{}
	}
	return item.ChangedAt.Add(min(set.QueryPause<<min(item.Attempts-1, 10), longestRetry))
}

// sendOne sends one message. again says when to try it again, where it failed
// for a passing reason.
func (a *actor) sendOne(r sending, o *out) (again time.Time, err error) {
	o.Attempts++
	o.Code, o.Problem = "", ""
	// From here on the ratchets may have moved under this message id.
	if err := a.saveItem(r.jrn, o, state.OutSending, true); err != nil || o.rev == 0 {
		return time.Time{}, err // rev 0: cancelled meanwhile
	}
	failure := a.transmit(r, o)
	a.outbox.pace.sent(o.content.To, r.set, time.Now())
	var refusal *whatsapp.SendError
	known := errors.As(failure, &refusal)
	if failure != nil && (known && refusal.Temporary || r.ctx.Err() != nil || !r.line.LoggedIn()) && o.Attempts < sendTries {
		r.log.Warn("sending failed for a passing reason", "message", o.MessageID, "attempt", o.Attempts, "error", failure)
		return retryAt(o.Outbox, r.set), nil
	}
	if a.cfg.Observe.Sent != nil {
		a.cfg.Observe.Sent(failure == nil)
	}
	if failure == nil {
		a.outbox.sent.add(o.MessageID, o.ID)
		return time.Time{}, a.settle(r, o, state.OutSent, "", "")
	}
	code := "send_refused"
	switch {
	case known && refusal.Code == whatsapp.CodeReachout:
		code = string(state.CauseReachoutRestricted)
	case known && refusal.Temporary:
		code = "gave_up"
	}
	return time.Time{}, a.settle(r, o, state.OutFailed, code, failure.Error())
}

// transmit hands a message to the line. What it is made of is stored, so a second
// try after a crash sends the same.
func (a *actor) transmit(r sending, o *out) error {
	ctx, cancel := context.WithTimeout(r.ctx, r.set.QueryTimeout)
	defer cancel()
	c := o.content
	message := []byte(c.Message)
	switch {
	case len(c.Built) > 0:
		message = c.Built
	case c.Reaction != nil, c.Quote != nil:
		var err error
		if message, err = whatsapp.Compose(c, o.At); err != nil {
			return &whatsapp.SendError{Err: err}
		}
	}
	var err error
	if len(message) > 0 {
		_, err = r.line.Send(ctx, o.MessageID, c.To, message)
	} else {
		_, err = r.line.SendText(ctx, o.MessageID, c.To, c.Text)
	}
	return err
}

func (a *actor) outboxPlace(id string) seal.Place {
	return seal.Place{Partition: state.OfSession(a.cfg.Name), Kind: state.KindOutbox, ID: id}
}

func (a *actor) openContent(item state.Outbox) (state.OutboxContent, error) {
	var content state.OutboxContent
	body, err := a.cfg.Keyset.Open(a.outboxPlace(item.ID), item.Sealed)
	if err != nil {
		return content, err
	}
	if err := json.Unmarshal(body, &content); err != nil {
		return content, fmt.Errorf("%w: outbox item: %w", state.ErrCorrupt, err)
	}
	return content, nil
}

// sealContent stores what is sent with the item's next write.
func (a *actor) sealContent(o *out) error {
	body, err := json.Marshal(o.content)
	if err != nil {
		return fmt.Errorf("encoding outbox item %s: %w", o.ID, err)
	}
	o.Sealed, err = a.cfg.Keyset.Seal(a.outboxPlace(o.ID), body)
	return err
}

// settle stores the end of a send together with the event that tells of it, and
// lets go of the upload that it was made of.
func (a *actor) settle(r sending, o *out, end state.OutboxState, code, problem string) error {
	o.Code, o.Problem = code, problem
	if len(o.content.Built) > 0 {
		o.content.Built = nil // the keys of the file have served
		if err := a.sealContent(o); err != nil {
			return err
		}
	}
	if err := a.saveItem(r.jrn, o, end, false); err != nil {
		return err
	}
	if o.rev > 0 && o.content.Media != nil && o.content.Media.Upload != "" {
		a.releaseUpload(r, o)
	}
	return nil
}

// saveItem writes an item. Its rev is set to the new revision, 0 if somebody else
// has changed it.
func (a *actor) saveItem(jrn *journal.Journal, o *out, to state.OutboxState, due bool) error {
	now := time.Now()
	o.State, o.ChangedAt = to, now
	value, err := state.Encode(o.Outbox)
	if err != nil {
		return err
	}
	w := state.Put(state.KindOutbox, o.ID, value)
	w.If, w.Rev = state.AtRev(o.rev), o.rev+1
	if due {
		w.Index = state.OutboxDue(a.cfg.Name)
	} else {
		w.Expires = now.Add(outboxKept)
	}
	batch := journal.Batch{Writes: []state.Write{w}}
	if !due {
		data := map[string]any{"id": o.ID, "messageId": o.MessageID, "status": to}
		if o.Problem != "" {
			data["code"], data["problem"] = o.Code, o.Problem
		}
		batch.Events = []journal.Draft{{Type: state.EventMessageState, Data: data}}
	}
	err = jrn.Commit(context.Background(), batch)
	if errors.Is(err, state.ErrConflict) {
		o.rev = 0
		return nil
	}
	o.rev++
	return err
}
