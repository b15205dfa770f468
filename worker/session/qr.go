package session

import (
	"context"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// qrRun goes through the codes that the server sent.
type qrRun struct {
	codes []string
	lasts []time.Duration
	at    int       // of the code shown now
	next  time.Time // when it ends
}

// refill takes new codes. Where only their secret changed, the one shown now
// keeps its time.
func (q *qrRun) refill(e whatsapp.QRCodes) {
	if e.Redone && q.codes != nil && len(e.Codes) == len(q.codes) {
		q.codes = e.Codes
		q.at--
		return
	}
	*q = qrRun{codes: e.Codes, lasts: e.Lasts, at: -1}
}

func (q *qrRun) left() bool { return q.at+1 < len(q.codes) }

// showNextQR shows the next code, or the same one again with a new secret.
func (a *actor) showNextQR(q *qrRun) phase {
	if !q.left() {
		return nil
	}
	same := !q.next.IsZero() && q.next.After(time.Now())
	q.at++
	if !same {
		last := 20 * time.Second
		if q.at < len(q.lasts) {
			last = q.lasts[q.at]
		}
		q.next = time.Now().Add(last)
	}
	code := q.codes[q.at]
	sealed, err := a.cfg.Keyset.Seal(seal.Place{Partition: state.OfSession(a.cfg.Name), Kind: state.KindQR}, []byte(code))
	if err != nil {
		return a.strand(err)
	}
	value, err := state.Encode(state.QRShown{V: state.Format, ExpiresAt: q.next, Sealed: sealed})
	if err != nil {
		return a.strand(err)
	}
	w := state.Put(state.KindQR, "", value)
	w.Expires = q.next
	// The event says that there is a code and where; the code itself is a secret.
	if err := a.jrn.Commit(context.Background(), journal.Batch{Writes: []state.Write{w}, Events: []journal.Draft{{
		Type: state.EventQR, Data: map[string]any{"expiresAt": q.next.UTC(), "path": "/api/sessions/" + a.cfg.Name + "/qr"}}}}); err != nil {
		return a.strand(err)
	}
	a.codesShown = true
	if a.cfg.ShowQR != nil {
		a.cfg.ShowQR(a.cfg.Name, code, q.next)
	}
	if o := a.codeFor; o != nil {
		a.box.post(*o)
	}
	return nil
}

// hideQR takes the code away.
func (a *actor) hideQR() {
	if !a.codesShown {
		return
	}
	a.codesShown = false
	if a.jrn != nil && a.jrn.Err() == nil {
		// It expires within a minute anyway, so a failure here shows elsewhere.
		_ = a.jrn.Commit(context.Background(), journal.Batch{Writes: []state.Write{state.Del(state.KindQR, "")}})
	}
	if a.cfg.ShowQR != nil {
		a.cfg.ShowQR(a.cfg.Name, "", time.Time{})
	}
}
