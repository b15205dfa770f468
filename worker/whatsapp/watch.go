package whatsapp

import (
	"fmt"
	"strings"
	"sync"
	"time"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/worker/policy"
)

// sightings is what was seen on the wire, and when.
type sightings struct {
	mu       sync.Mutex
	user     string // the account's number
	lid      string // and LID user
	jid      types.JID
	lidJID   types.JID
	name     string
	pong     time.Time
	inbound  time.Time
	activity time.Time
	stanzas  uint64
	pings    map[string]struct{} // ids of pings without an answer yet
	server   time.Time           // the server's clock at login
	offline  offlineCount
	blocked  time.Time // since when a handler has held up the queue
}

// offlineCount counts what comes between login and the end of the time offline.
type offlineCount struct {
	done           bool
	messages       int
	oldest, newest time.Time
}

func (s *sightings) own(jid, lid types.JID, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jid, s.user, s.lidJID, s.lid = jid, jid.User, lid, lid.User
	if name != "" {
		s.name = name
	}
}

// phone says that a JID is the account's own phone.
func (s *sightings) phone(jid types.JID) bool {
	if jid.Device != 0 || jid.User == "" {
		return false
	}
	switch jid.Server {
	case types.DefaultUserServer:
		return jid.User == s.user
	case types.HiddenUserServer:
		return jid.User == s.lid
	}
	return false
}

// maxPings bounds how many unanswered pings are remembered.
const maxPings = 16

// received sees each node before the library handles it, on the goroutine that
// decodes frames. It must be quick and must not panic: nothing there recovers.
func (l *Line) received(n *waBinary.Node) {
	defer l.shield("received")
	// The handshake is complete, although Connect may not have noticed yet.
	l.open.Store(true)
	switch n.Tag {
	case "iq":
		l.answered(n)
	case "success":
		l.seen.mu.Lock()
		l.seen.server = moment(n, "t")
		server := l.seen.server
		l.seen.mu.Unlock()
		l.svc.noteClock(server)
		l.active(false)
	case "failure":
		l.active(false)
		l.judge(weightNode, failureSignal(n), false)
	case "stream:error":
		l.active(false)
		l.judge(weightNode, streamErrorSignal(n), false)
	case "xmlstreamend":
		l.judge(weightError, policy.Signal{Kind: policy.SignalStreamEnd}, false)
	case "ib":
		l.active(false)
	case "ack":
		l.active(false)
	default:
		l.active(true)
		l.stanza(n)
	}
}

// answered looks at answers to queries. They are no activity.
func (l *Line) answered(n *waBinary.Node) {
	now := l.svc.cfg.Now()
	l.seen.mu.Lock()
	if id := word(n, "id"); id != "" {
		if _, ours := l.seen.pings[id]; ours {
			clear(l.seen.pings)
			l.seen.pong = now
		}
	}
	l.seen.mu.Unlock()
	if word(n, "type") == "result" && patchesOfPhone(n) {
		l.post(PhoneSeen{l.on(), now})
	}
}

func (l *Line) active(inbound bool) {
	now := l.svc.cfg.Now()
	l.seen.mu.Lock()
	defer l.seen.mu.Unlock()
	l.seen.activity = now
	if inbound {
		l.seen.inbound = now
		l.seen.stanzas++
	}
}

// stanza looks at what the server delivers: messages, receipts, notifications.
func (l *Line) stanza(n *waBinary.Node) {
	at := moment(n, "t")
	l.seen.mu.Lock()
	if off := &l.seen.offline; !off.done && n.Tag == "message" {
		off.messages++
		if !at.IsZero() && (off.oldest.IsZero() || at.Before(off.oldest)) {
			off.oldest = at
		}
		if at.After(off.newest) {
			off.newest = at
		}
	}
	fromPhone := (n.Tag == "message" || n.Tag == "receipt") && l.seen.phone(author(n))
	l.seen.mu.Unlock()
	if fromPhone {
		if now := l.svc.cfg.Now(); at.IsZero() || at.After(now) {
			at = now
		}
		l.post(PhoneSeen{l.on(), at})
	}
}

// leaving sees each node before its frame is made, on the goroutine that sends
// it. If what it stands for cannot be made durable, the line is cut, and the
// frame goes nowhere.
func (l *Line) leaving(n *waBinary.Node) {
	defer l.shield("leaving")
	if n.Tag == "iq" && word(n, "xmlns") == "w:p" {
		l.seen.mu.Lock()
		if l.seen.pings == nil || len(l.seen.pings) >= maxPings {
			l.seen.pings = make(map[string]struct{}, 1)
		}
		l.seen.pings[word(n, "id")] = struct{}{}
		l.seen.mu.Unlock()
	}
	if err := l.store.BeforeSend(n.Tag); err != nil {
		l.fail(policy.Signal{Kind: policy.SignalStoreFailed, Err: err})
		return
	}
	if n.Tag == "message" {
		l.active(false)
	}
}

// shield keeps a panic of ours out of the library's goroutines.
func (l *Line) shield(where string) {
	if p := recover(); p != nil {
		l.panicked(where, p, "")
	}
}

// handlerSlow notes that the stanza handled now has held up the queue so long.
// The library tells every 30 s.
func (l *Line) handlerSlow(held time.Duration) {
	l.seen.mu.Lock()
	l.seen.blocked = l.svc.cfg.Now().Add(-held)
	l.seen.mu.Unlock()
}

func (l *Line) handlerFree() {
	l.seen.mu.Lock()
	l.seen.blocked = time.Time{}
	l.seen.mu.Unlock()
}

// libraryPanicked is told of panics that the library recovered from, before it
// goes on. After a panic while decrypting it would acknowledge the message.
func (l *Line) libraryPanicked(format string, args []any) {
	stanza := "unknown"
	switch {
	case strings.HasPrefix(format, formatDecryptName):
		stanza = "message"
	case strings.HasPrefix(format, "Retry receipt"):
		stanza = "receipt"
	case strings.HasPrefix(format, "History sync"):
		stanza = "history"
	case strings.HasPrefix(format, "Event handler") && len(args) > 0:
		stanza = fmt.Sprintf("%T", args[0])
	}
	var value any
	stack := ""
	if n := len(args); n >= 2 {
		value = args[n-2]
		if b, ok := args[n-1].([]byte); ok {
			stack = string(b)
		}
	}
	l.panicked(stanza, value, stack)
}

// panicked drops what is staged and cuts the line, so that what was being
// handled is not acknowledged and comes again.
func (l *Line) panicked(stanza string, value any, stack string) {
	what := Redact(clip(fmt.Sprint(value)))
	l.log.Error("a handler panicked; the line is cut", "stanza", stanza, "panic", what, "stack", stack)
	l.fail(policy.Signal{Kind: policy.SignalHandlerPanic, Text: stanza, Err: fmt.Errorf("handling a %s panicked: %s", stanza, what)})
	l.store.Drop()
	l.post(Panicked{l.on(), stanza})
}

// LastPong is when a ping was last answered; zero if none was.
func (l *Line) LastPong() time.Time {
	l.seen.mu.Lock()
	defer l.seen.mu.Unlock()
	return l.seen.pong
}

// LastInbound is when the server last delivered something: a message, receipt,
// notification or the like. Zero if nothing came.
func (l *Line) LastInbound() time.Time {
	l.seen.mu.Lock()
	defer l.seen.mu.Unlock()
	return l.seen.inbound
}

// LastActivity is when anything but pings and answers to queries last came, or
// a message left.
func (l *Line) LastActivity() time.Time {
	l.seen.mu.Lock()
	defer l.seen.mu.Unlock()
	return l.seen.activity
}

// Inbound counts what LastInbound is the time of.
func (l *Line) Inbound() uint64 {
	l.seen.mu.Lock()
	defer l.seen.mu.Unlock()
	return l.seen.stanzas
}

// HandlerBlockedFor is how long the stanza handled now has held up those behind
// it. It is 0 for the first 30 s of one.
func (l *Line) HandlerBlockedFor() time.Duration {
	l.seen.mu.Lock()
	defer l.seen.mu.Unlock()
	if l.seen.blocked.IsZero() {
		return 0
	}
	return l.svc.cfg.Now().Sub(l.seen.blocked)
}

func (l *Line) on() On { return On{l.cfg.N} }

func (l *Line) post(e Event) { l.cfg.Post(e) }
