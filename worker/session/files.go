package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/media"
	"github.com/holdfast-wa/holdfast/worker/fetch"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

const (
	// fileTries is how often a file is fetched and uploaded before its message
	// counts as failed: for a quarter of an hour, since the pauses grow.
	fileTries = 20
	// filesAtOnce is how many files of one session are under way: a slow URL does
	// not hold up messages to other chats.
	filesAtOnce = 2
	// releaseWithin bounds the removal of an upload that was sent; what is left is
	// found by the sweep.
	releaseWithin = 10 * time.Second
)

// The codes of messages whose file is the trouble, beside those of package fetch.
const (
	codeMediaGone    = "media_gone"    // the upload is not there any more
	codeMediaCorrupt = "media_corrupt" // it cannot be opened
	codeMediaUnfit   = "media_unfit"   // WhatsApp shows no such file, or refuses it
	codeMediaFailed  = "media_failed"  // it could not be read or uploaded; tried again
)

// files are the attachments that are being fetched and uploaded, beside the
// messages that can go at once. Nothing of it is stored before the message that it
// makes.
type files struct {
	mu sync.Mutex
	by map[string]*file // by item
}

type file struct {
	ready bool
	built []byte // the message, in protobuf JSON
	err   *fileError
}

// fileError is why a message has no file.
type fileError struct {
	code      string
	temporary bool
	err       error
}

func (e *fileError) Error() string { return e.err.Error() }

func unfit(code string, err error) *fileError { return &fileError{code: code, err: err} }

// take returns what became of an item's file; nil while it is under way. begun is
// false where it is to be begun.
func (f *files) take(item string) (got *file, begun bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	got, begun = f.by[item]
	if got == nil || !got.ready {
		return nil, begun
	}
	delete(f.by, item)
	return got, true
}

// begin makes room for an item's file; false where too many are under way.
func (f *files) begin(item string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	under := 0
	for _, other := range f.by {
		if !other.ready {
			under++
		}
	}
	if under >= filesAtOnce {
		return false
	}
	if f.by == nil {
		f.by = make(map[string]*file)
	}
	f.by[item] = &file{}
	return true
}

func (f *files) end(item string, built []byte, err *fileError) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.by[item] = &file{ready: true, built: built, err: err}
}

func (f *files) drop(item string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.by, item)
}

// keep forgets what was made for items that wait no more: they were cancelled.
func (f *files) keep(waiting map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for item, got := range f.by {
		if got.ready && !waiting[item] {
			delete(f.by, item)
		}
	}
}

// attach sees that a message with a file has what it needs to be sent. waits: not
// yet; again, where it is not zero, says when to look. A message that will never
// have its file is settled.
func (a *actor) attach(r sending, o *out) (again time.Time, waits bool, err error) {
	if o.content.Media == nil || len(o.content.Built) > 0 {
		return time.Time{}, false, nil
	}
	got, begun := a.outbox.files.take(o.ID)
	switch {
	case got == nil && !begun && a.outbox.files.begin(o.ID):
		a.prepare(r, *o)
		return time.Time{}, true, nil
	case got == nil:
		return time.Time{}, true, nil // its end, or that of another, wakes the outbox
	case got.err == nil:
		o.content.Built, o.fresh = got.built, true
		return time.Time{}, false, a.sealContent(o) // stored with the next write, before the first try
	}
	o.Attempts++
	if got.err.temporary && o.Attempts < fileTries {
		r.log.Warn("the file of a message could not be had for a passing reason", "message", o.MessageID, "attempt", o.Attempts, "code", got.err.code, "error", got.err)
		o.Code, o.Problem = got.err.code, got.err.Error()
		if err := a.saveItem(r.jrn, o, state.OutQueued, true); err != nil || o.rev == 0 {
			return time.Time{}, false, err
		}
		return retryAt(o.Outbox, r.set), true, nil
	}
	if a.cfg.Observe.Sent != nil {
		a.cfg.Observe.Sent(false)
	}
	return time.Time{}, false, a.settle(r, o, state.OutFailed, got.err.code, got.err.Error())
}

// prepare fetches and uploads a file beside the sending.
func (a *actor) prepare(r sending, o out) {
	a.outbox.wait.Add(1)
	go func() {
		defer a.outbox.wait.Done()
		built, err := a.build(r, o)
		if r.ctx.Err() != nil {
			a.outbox.files.drop(o.ID) // the line is gone: no fault of the file
			return
		}
		a.outbox.files.end(o.ID, built, err)
		a.box.post(outboxDue{})
	}()
}

func (a *actor) build(r sending, o out) ([]byte, *fileError) {
	if a.cfg.FileSlots != nil {
		select {
		case a.cfg.FileSlots <- struct{}{}:
			defer func() { <-a.cfg.FileSlots }()
		case <-r.ctx.Done():
			return nil, &fileError{codeMediaFailed, true, r.ctx.Err()}
		}
	}
	f, failed := a.fileOf(r.ctx, *o.content.Media)
	if failed != nil {
		return nil, failed
	}
	built, err := r.line.Attach(r.ctx, o.content, f)
	var refusal *whatsapp.SendError
	switch {
	case err == nil:
		return built, nil
	case errors.As(err, &refusal) && !refusal.Temporary:
		return nil, unfit(codeMediaUnfit, err)
	}
	return nil, &fileError{codeMediaFailed, true, err}
}

// fileOf reads a file from the vault, or fetches it.
func (a *actor) fileOf(ctx context.Context, m state.OutboxMedia) (whatsapp.File, *fileError) {
	if m.Upload != "" {
		got, data, err := a.shelf().Open(ctx, a.cfg.Name, m.Upload)
		switch {
		case errors.Is(err, state.ErrNotFound):
			return whatsapp.File{}, unfit(codeMediaGone, fmt.Errorf("upload %s is not there any more; upload the file again", m.Upload))
		case errors.Is(err, state.ErrCorrupt):
			return whatsapp.File{}, unfit(codeMediaCorrupt, err)
		case err != nil:
			return whatsapp.File{}, &fileError{codeMediaFailed, true, fmt.Errorf("reading upload %s: %w", m.Upload, err)}
		}
		return whatsapp.File{Data: data, MIME: got.Info.MIME, Name: got.Info.FileName}, nil
	}
	if a.cfg.Fetch == nil {
		return whatsapp.File{}, unfit(fetch.CodeRefused, errors.New("this worker fetches nothing; upload the file instead"))
	}
	got, err := a.cfg.Fetch(ctx, m.URL)
	var failed *fetch.Error
	switch {
	case err == nil:
		return whatsapp.File{Data: got.Data, MIME: got.MIME, Name: got.Name}, nil
	case errors.As(err, &failed):
		return whatsapp.File{}, &fileError{failed.Code, failed.Temporary, failed}
	}
	return whatsapp.File{}, &fileError{codeMediaFailed, true, err}
}

func (a *actor) shelf() media.Shelf {
	return media.Shelf{Store: a.cfg.Store, Vault: a.cfg.Vault, Fleet: a.cfg.Keyset}
}

// releaseUpload lets go of the upload of a message that has ended. Its failure is
// no trouble of the message: the sweep finds what is left.
func (a *actor) releaseUpload(r sending, o *out) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), releaseWithin)
	defer cancel()
	err := a.shelf().Release(ctx, a.cfg.Name, o.content.Media.Upload, o.ID, time.Now(), writer(r.jrn))
	if err != nil && r.jrn.Err() == nil {
		r.log.Warn("an upload that was sent is still there; it is removed later", "upload", o.content.Media.Upload, "error", err)
	}
}

func writer(jrn *journal.Journal) media.Write {
	return func(ctx context.Context, writes []state.Write) error {
		return jrn.Commit(ctx, journal.Batch{Writes: writes})
	}
}

// sweepUploads lets go of uploads whose messages have ended without saying so: the
// owner died in between.
func (a *actor) sweepUploads(ctx context.Context) error {
	q := state.Query{Kind: state.KindMedia}
	for {
		page, err := a.cfg.Store.Query(ctx, state.OfSession(a.cfg.Name), q)
		if err != nil {
			return err
		}
		for _, rec := range page.Records {
			q.After = rec.Key.ID
			var m state.Media
			if state.Decode(rec.Value, &m) != nil || len(m.Messages) == 0 {
				continue // expires by itself
			}
			var failed error
			err := a.shelf().Settle(ctx, a.cfg.Name, m.ID, time.Now(), writer(a.jrn), func(message string) bool {
				waits, err := a.unsent(ctx, message)
				failed = errors.Join(failed, err)
				return waits || err != nil
			})
			if err = errors.Join(err, failed); err != nil {
				return err
			}
		}
		if !page.More || len(page.Records) == 0 {
			return nil
		}
	}
}

// unsent tells whether a message of the outbox is still to be sent.
func (a *actor) unsent(ctx context.Context, id string) (bool, error) {
	rec, err := a.cfg.Store.Get(ctx, state.OfSession(a.cfg.Name), state.Key{Kind: state.KindOutbox, ID: id})
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var item state.Outbox
	if err := state.Decode(rec.Value, &item); err != nil {
		return false, nil //nolint:nilerr // what cannot be read cannot be sent
	}
	return item.State == state.OutQueued || item.State == state.OutSending, nil
}
