package whatsapp

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types/events"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

func failureNode(reason string, more waBinary.Attrs) *waBinary.Node {
	n := &waBinary.Node{Tag: "failure", Attrs: waBinary.Attrs{"reason": reason}}
	for k, v := range more {
		n.Attrs[k] = v
	}
	return n
}

func streamError(code, conflict string) *waBinary.Node {
	n := &waBinary.Node{Tag: "stream:error", Attrs: waBinary.Attrs{}}
	if code != "" {
		n.Attrs["code"] = code
	}
	if conflict != "" {
		n.Content = []waBinary.Node{{Tag: "conflict", Attrs: waBinary.Attrs{"type": conflict}}}
	}
	return n
}

// What reaches the line in which order, and the one signal that comes of it.
func TestVerdict(t *testing.T) {
	reset := syscall.ECONNRESET
	for _, c := range []struct {
		name  string
		do    func(*Line)
		kind  policy.SignalKind
		code  int
		cause state.Cause // for a paired session
		at    time.Duration
	}{
		{"a node, then the library's event, then the end", func(l *Line) {
			l.received(failureNode("401", nil))
			l.handle(&events.LoggedOut{OnConnect: true, Reason: 401})
			l.readEnded()
		}, policy.SignalFailure, 401, state.CauseLoggedOut, 0},
		{"the end before the node is handled", func(l *Line) {
			l.readFailed(io.EOF)
			l.readEnded()
			l.handle(&events.Disconnected{})
			time.Sleep(50 * time.Millisecond)
			l.received(streamError("503", ""))
		}, policy.SignalStreamError, 503, state.CauseUnavailable, settle},
		{"the end long before the node is handled: the host is busy", func(l *Line) {
			l.given.Store(3)
			l.taken.Store(1)
			l.readFailed(io.EOF)
			l.readEnded()
			time.Sleep(4*time.Second - time.Millisecond)
			(&libLog{line: l, part: partRecv}).Debugf("%s", failureNode("401", nil))
		}, policy.SignalFailure, 401, state.CauseLoggedOut, 4 * time.Second},
		{"a frame that nothing comes of", func(l *Line) {
			l.given.Store(3)
			l.taken.Store(1)
			l.readEnded()
		}, policy.SignalClosed, 0, state.CauseConnectionLost, settleAtMost},
		{"a frame that is no node", func(l *Line) {
			l.given.Store(3)
			l.taken.Store(1)
			(&libLog{line: l}).Warnf(formatNoNode+": %v", io.EOF)
			l.readEnded()
		}, policy.SignalClosed, 0, state.CauseConnectionLost, settle},
		{"an event without its node", func(l *Line) { l.handle(&events.StreamReplaced{}) },
			policy.SignalStreamReplaced, 0, state.CauseReplaced, 0},
		{"a node alone: the server leaves the connection open", func(l *Line) { l.received(failureNode("500", nil)) },
			policy.SignalFailure, 500, state.CauseServerError, settle},
		{"silent death", func(l *Line) { l.readEnded() },
			policy.SignalClosed, 0, state.CauseConnectionLost, settle},
		{"a reset", func(l *Line) {
			l.end.noteRead(reset)
			l.readFailed(errors.New("wrapped beyond recognition"))
			l.readEnded()
		}, policy.SignalClosed, 0, state.CauseNetwork, settle},
		{"a reset that the library names", func(l *Line) { l.readFailed(reset); l.readEnded() },
			policy.SignalClosed, 0, state.CauseNetwork, settle},
		{"a reset that a ping meets first: the read gets the end of the file", func(l *Line) {
			l.end.noteWrite(&net.OpError{Op: "write", Err: reset})
			l.end.noteRead(io.EOF)
			l.readFailed(io.EOF)
			l.readEnded()
		}, policy.SignalClosed, 0, state.CauseNetwork, settle},
		{"the same, and the ping's goroutine is late", func(l *Line) {
			l.readFailed(io.EOF)
			l.readEnded()
			l.end.noteWrite(&net.OpError{Op: "write", Err: reset})
		}, policy.SignalClosed, 0, state.CauseNetwork, settle},
		{"a server that closes, and a ping into the closed line", func(l *Line) {
			l.readFailed(io.EOF)
			l.readEnded()
			l.end.noteWrite(&net.OpError{Op: "write", Err: syscall.EPIPE})
			l.end.noteWrite(errCut)
			l.end.noteWrite(net.ErrClosed)
		}, policy.SignalClosed, 0, state.CauseConnectionLost, settle},
		{"end of stream, then the close", func(l *Line) {
			l.received(&waBinary.Node{Tag: "xmlstreamend"})
			l.readFailed(io.EOF)
			l.readEnded()
			l.handle(&events.Disconnected{})
		}, policy.SignalStreamEnd, 0, state.CauseConnectionLost, settle},
		{"a pairing that fails", func(l *Line) {
			l.pairFailed(errors.New("hmac"))
			l.readEnded()
			l.handle(&events.PairError{Error: errors.New("hmac")})
		}, policy.SignalPairError, 0, state.CausePairingFailed, 0},
		{"515", func(l *Line) { l.received(streamError("515", "")); l.handle(&events.ManualLoginReconnect{}) },
			policy.SignalStreamError, 515, state.CauseRestartRequired, 0},
		{"our own failure wins over the end that it makes", func(l *Line) {
			l.fail(policy.Signal{Kind: policy.SignalStoreFailed, Err: errStore})
			l.readEnded()
		}, policy.SignalStoreFailed, 0, state.CauseStoreUnavailable, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, m := loose(t, newFakeStore(), nil)
				begun := time.Now()
				c.do(l)
				for len(m.terminal()) == 0 && time.Since(begun) < time.Minute {
					time.Sleep(time.Millisecond)
				}
				if got := time.Since(begun).Truncate(10 * time.Millisecond); got != c.at {
					t.Errorf("told after %s, want %s", got, c.at)
				}
				time.Sleep(time.Minute)
				signals := m.terminal()
				if len(signals) != 1 {
					t.Fatalf("%d terminal signals: %+v", len(signals), signals)
				}
				sig := signals[0]
				if sig.Kind != c.kind || sig.Code != c.code {
					t.Errorf("got %s %d, want %s %d", sig.Kind, sig.Code, c.kind, c.code)
				}
				if got := policy.Classify(sig, true); got != c.cause {
					t.Errorf("cause %s, want %s", got, c.cause)
				}
			})
		})
	}
}

func TestOwnerWhoCutsIsToldNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := loose(t, newFakeStore(), nil)
		l.received(failureNode("401", nil))
		l.Cut()
		l.readEnded()
		l.handle(&events.LoggedOut{Reason: 401})
		time.Sleep(time.Minute)
		if got := m.terminal(); len(got) != 0 {
			t.Errorf("got %+v", got)
		}
		if l.Open() || l.LoggedIn() {
			t.Error("open after the cut")
		}
	})
}

// Every event after which the library gives up has a signal.
func TestPermanentDisconnectsAreTerminal(t *testing.T) {
	for _, evt := range []events.PermanentDisconnect{
		&events.LoggedOut{}, &events.StreamReplaced{}, &events.ClientOutdated{},
		&events.CATRefreshError{Error: errStore}, &events.TemporaryBan{}, &events.ConnectFailure{},
	} {
		if _, ok := endSignal(evt); !ok {
			t.Errorf("%T has no signal", evt)
		}
	}
}

func TestFailureNodes(t *testing.T) {
	sig := failureSignal(failureNode("402", waBinary.Attrs{"code": "101", "expire": "3600", "message": "slow down"}))
	if sig.Code != 402 || sig.Expire != time.Hour || sig.Text != "slow down (ban reason 101)" {
		t.Errorf("a ban: %+v", sig)
	}
	sig = failureSignal(failureNode("403", waBinary.Attrs{"logout_message_header": "Locked", "logout_message_subtext": "call +4915112345678"}))
	if sig.Code != 403 || sig.Text != "Locked call …78" {
		t.Errorf("a lock: %+v", sig)
	}
	sig = streamErrorSignal(streamError("", "replaced"))
	if sig.Conflict != "replaced" || sig.Code != 0 {
		t.Errorf("a conflict: %+v", sig)
	}
	sig = streamErrorSignal(&waBinary.Node{Tag: "stream:error", Content: []waBinary.Node{
		{Tag: "xml-not-well-formed"}, {Tag: "text", Content: []byte("bad \xff byte")}}})
	if sig.Text != "xml-not-well-formed bad � byte" {
		t.Errorf("a text: %+v", sig)
	}
	if sig = failureSignal(&waBinary.Node{Tag: "failure"}); sig.Code != 0 {
		t.Errorf("an empty one: %+v", sig)
	}
}
