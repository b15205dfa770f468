package whatsapp

import (
	"encoding/binary"
	"encoding/hex"
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"

	"github.com/holdfast-wa/holdfast/worker/policy"
)

// How long the QR codes of one connection are shown, as WhatsApp Web does.
const (
	firstQRLasts = 60 * time.Second
	nextQRLasts  = 20 * time.Second
)

// pairingState is what is known of a pairing that goes on.
type pairingState struct {
	mu    sync.Mutex
	codes []string
	shown chan struct{} // closed with the first codes
}

// handle is the library's event handler. It returns false if what the event
// stands for must not be acknowledged. A panic that left it would count as
// success, so none does.
func (l *Line) handle(evt any) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			l.panicked(stanzaOf(evt), p, stackHere())
			ok = false
		}
	}()
	if sig, end := endSignal(evt); end {
		weight := weightEvent
		if _, plain := evt.(*events.Disconnected); plain {
			weight = weightClosed
		}
		l.judge(weight, sig, true)
		return true
	}
	switch e := evt.(type) {
	case *events.Message:
		return l.message(e)
	case *events.Receipt:
		return l.receipt(e)
	case *events.UndecryptableMessage:
		return l.undecryptable(e)
	default:
		l.notice(evt)
		return true
	}
}

func stanzaOf(evt any) string {
	switch evt.(type) {
	case *events.Message, *events.UndecryptableMessage:
		return "message"
	case *events.Receipt:
		return "receipt"
	}
	return "notification"
}

// notice translates the events that need no acknowledgement of ours.
func (l *Line) notice(evt any) {
	switch e := evt.(type) {
	case *events.QR:
		l.showQR(e.Codes)
	case *events.RotateADVSecret:
		l.rotateQR(e.OldSecret, e.NewSecret)
	case *events.PairSuccess:
		l.seen.own(e.ID, e.LID, "")
		l.post(Paired{l.on(), e.ID.String(), e.LID.String(), e.Platform, e.BusinessName})
	case *events.QRScannedWithoutMultidevice:
		l.post(Signalled{l.on(), policy.Signal{Kind: policy.SignalMultidevice, Code: 411}, false})
	case *events.PairPasskeyRequest:
		l.post(PasskeyRequested{l.on()})
		l.post(Signalled{l.on(), policy.Signal{Kind: policy.SignalPasskeyRequest}, false})
	case *events.PairPasskeyError:
		l.post(Signalled{l.on(), policy.Signal{Kind: policy.SignalPasskeyError, Err: orUnknown(e.Error)}, false})
	case *events.Connected:
		l.connected()
	case *events.OfflineSyncPreview:
		l.post(OfflinePreview{l.on(), e.Total, e.Messages, e.Notifications, e.Receipts})
	case *events.OfflineSyncCompleted:
		l.offlineDone(e.Count)
	case *events.IdentityChange:
		l.post(IdentityChanged{l.on(), peerToken(e.JID)})
	case *events.PushNameSetting:
		l.named(e.Action.GetName())
	case *events.NotifyAccountReachoutTimelock:
		l.restricted(e)
	case *events.HistorySync:
		if l.svc.cfg.HistorySync {
			l.post(HistorySync{l.on(), strings.ToLower(e.Data.GetSyncType().String()), len(e.Data.GetConversations())})
		}
	case *events.AppStateSyncError:
		l.log.Warn("app state could not be read", "collection", string(e.Name), "error", Redact(orUnknown(e.Error).Error()))
	}
}

func (l *Line) showQR(codes []string) {
	l.qr.mu.Lock()
	first := l.qr.codes == nil
	l.qr.codes = append([]string(nil), codes...)
	l.qr.mu.Unlock()
	if first {
		close(l.qr.shown)
	}
	l.post(QRCodes{On: l.on(), Codes: append([]string(nil), codes...), Lasts: qrLasts(len(codes))})
}

func (l *Line) rotateQR(before, after string) {
	l.qr.mu.Lock()
	for i, code := range l.qr.codes {
		l.qr.codes[i] = strings.Replace(code, before, after, 1)
	}
	codes := append([]string(nil), l.qr.codes...)
	l.qr.mu.Unlock()
	l.post(QRCodes{On: l.on(), Codes: codes, Lasts: qrLasts(len(codes)), Redone: true})
}

func qrLasts(n int) []time.Duration {
	lasts := make([]time.Duration, n)
	for i := range lasts {
		lasts[i] = nextQRLasts
	}
	if n > 0 {
		lasts[0] = firstQRLasts
	}
	return lasts
}

func (l *Line) connected() {
	now := l.svc.cfg.Now()
	l.seen.mu.Lock()
	e := Connected{On: l.on(), JID: l.seen.jid.String(), LID: l.seen.lidJID.String(), PushName: l.seen.name, At: now, ServerTime: l.seen.server}
	l.seen.mu.Unlock()
	l.post(e)
	l.markOnline()
}

func (l *Line) offlineDone(count int) {
	l.seen.mu.Lock()
	off := l.seen.offline
	l.seen.offline.done = true
	l.seen.mu.Unlock()
	l.post(OfflineDone{l.on(), count, off.messages, off.oldest, off.newest})
}

func (l *Line) named(name string) {
	if name == "" {
		return
	}
	l.seen.mu.Lock()
	l.seen.name = name
	l.seen.mu.Unlock()
	l.post(PushName{l.on(), name})
	l.markOnline()
}

func (l *Line) restricted(e *events.NotifyAccountReachoutTimelock) {
	until := e.TimeEnforcementEnds.Time
	if until.Unix() <= 0 {
		until = time.Time{}
	}
	l.post(ReachoutTimelock{l.on(), e.IsActive, until})
	if !e.IsActive {
		return
	}
	sig := policy.Signal{Kind: policy.SignalReachoutLock, Code: 463, Text: Redact(clip(e.EnforcementType))}
	if !until.IsZero() {
		sig.Expire = max(0, until.Sub(l.svc.cfg.Now()))
	}
	l.post(Signalled{l.on(), sig, false})
}

// peerSeed makes peer tokens useless outside of this process.
var peerSeed = maphash.MakeSeed()

// peerToken tells contacts apart without showing who they are.
func peerToken(jid types.JID) string {
	var h maphash.Hash
	h.SetSeed(peerSeed)
	h.WriteString(jid.User)
	h.WriteByte('@')
	h.WriteString(jid.Server)
	return hex.EncodeToString(binary.BigEndian.AppendUint64(nil, h.Sum64()))
}
