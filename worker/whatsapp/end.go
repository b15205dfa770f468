package whatsapp

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.mau.fi/whatsmeow/types/events"

	"github.com/holdfast-wa/holdfast/worker/policy"
)

// settle is how long a better explanation of a connection's end is waited for:
// the server's last node, the library's event, the read error and the end of
// the read loop come from different goroutines, in any order.
const settle = 800 * time.Millisecond

// settleAtMost bounds how much longer it is while the library holds frames that it
// has not made nodes of: on a busy host its goroutine may be late, and the server's
// last word is in one of them.
const settleAtMost = 10 * time.Second

// weight is how much an explanation of an end is worth. A heavier one takes the
// place of a lighter one.
type weight int

const (
	weightClosed weight = iota + 1 // the connection is gone
	weightError                    // its last error, or the server's end of stream
	weightEvent                    // the library's event
	weightNode                     // the server's own words
	weightOwn                      // we ended it, and know why
)

// verdict gathers why a connection ended and lets it be told once.
type verdict struct {
	mu     sync.Mutex
	best   policy.Signal
	weight weight
	timer  *time.Timer
	due    time.Time // when it is told in any case
	over   bool      // told, or to be told no more
	read   error     // the connection's first read error
	write  error     // what the network said to a write
}

func (v *verdict) silence() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.over = true
	if v.timer != nil {
		v.timer.Stop()
		v.timer = nil
	}
}

// noteRead keeps the connection's first read error: later ones only tell that
// it is closed.
func (v *verdict) noteRead(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.read == nil {
		v.read = err
	}
}

// noteWrite keeps what the network said to a write. A socket tells of a reset
// once: when a write is the first to meet it, the read beside it gets an end of
// file, as if the server had chosen to close. A broken pipe says nothing of its
// own: it follows every end, and so does a close of ours.
func (v *verdict) noteWrite(err error) {
	for _, after := range []error{errCut, net.ErrClosed, syscall.EPIPE} {
		if errors.Is(err, after) {
			return
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.write == nil {
		v.write = err
	}
}

// lastError is what the connection itself says of its end.
func (v *verdict) lastError() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.withWrite(v.read)
}

// withWrite adds what the network said to a write, if it said something else.
// The lock is held.
func (v *verdict) withWrite(err error) error {
	switch {
	case v.write == nil || errors.Is(err, v.write):
		return err
	case err == nil:
		return v.write
	}
	return fmt.Errorf("%w: %w", err, v.write)
}

// judge takes an explanation. With final it is told at once, provided that
// something at least as good as an event of the library is known; otherwise
// when the time to settle is over.
func (l *Line) judge(w weight, sig policy.Signal, final bool) {
	v := &l.end
	v.mu.Lock()
	if v.over {
		v.mu.Unlock()
		return
	}
	if w > v.weight {
		v.best, v.weight = sig, w
	}
	if !final || v.weight < weightEvent {
		if v.timer == nil {
			v.due = time.Now().Add(settleAtMost)
			v.timer = time.AfterFunc(settle, l.settled)
		}
		v.mu.Unlock()
		return
	}
	v.mu.Unlock()
	l.tell()
}

// settled tells the verdict, once the library has looked at all that it was given.
// The first frame is the handshake's.
func (l *Line) settled() {
	v := &l.end
	v.mu.Lock()
	wait := l.given.Load()-l.taken.Load() > 1 && time.Now().Before(v.due)
	if wait && v.timer != nil {
		v.timer.Reset(settle / 8)
	}
	v.mu.Unlock()
	if !wait {
		l.tell()
	}
}

// tell posts the verdict.
func (l *Line) tell() {
	v := &l.end
	v.mu.Lock()
	if v.over {
		v.mu.Unlock()
		return
	}
	v.over = true
	if v.timer != nil {
		v.timer.Stop()
		v.timer = nil
	}
	sig := v.best
	if sig.Kind == policy.SignalClosed {
		sig.Err = v.withWrite(sig.Err)
	}
	v.mu.Unlock()
	l.post(Signalled{l.on(), sig, true})
}

// readFailed is told why the read loop ends: a close frame, or an error.
func (l *Line) readFailed(err error) {
	if raw := l.end.lastError(); raw != nil && !errors.Is(err, raw) {
		err = fmt.Errorf("%w: %w", err, raw)
	}
	l.end.noteRead(err)
	l.judge(weightError, policy.Signal{Kind: policy.SignalClosed, Err: err}, true)
}

// readEnded is the watchdog for deaths that the library has no event for: the
// read loop ends with every connection, however it ends.
func (l *Line) readEnded() {
	l.reading.Do(func() { close(l.readOver) })
	l.judge(weightClosed, policy.Signal{Kind: policy.SignalClosed, Err: l.end.lastError()}, true)
}

// pairFailed comes before the library closes the connection, which takes
// seconds, and only then dispatches PairError.
func (l *Line) pairFailed(err error) {
	l.socketDropped()
	l.judge(weightOwn, policy.Signal{Kind: policy.SignalPairError, Err: err}, false)
}

// endSignal is what the library's events about a connection's end mean. They
// come after the server's own node was seen, which says more, so they matter
// only where there was none.
func endSignal(evt any) (policy.Signal, bool) {
	switch e := evt.(type) {
	case *events.Disconnected:
		return policy.Signal{Kind: policy.SignalClosed}, true
	case *events.LoggedOut:
		return policy.Signal{Kind: policy.SignalLoggedOut, Code: int(e.Reason)}, true
	case *events.TemporaryBan:
		return policy.Signal{Kind: policy.SignalTemporaryBan, Code: 402, Expire: e.Expire, Text: e.Code.String()}, true
	case *events.ClientOutdated:
		return policy.Signal{Kind: policy.SignalClientOutdated, Code: 405}, true
	case *events.StreamReplaced:
		return policy.Signal{Kind: policy.SignalStreamReplaced}, true
	case *events.ManualLoginReconnect:
		return policy.Signal{Kind: policy.SignalLoginReconnect, Code: 515}, true
	case *events.ConnectFailure:
		return policy.Signal{Kind: policy.SignalFailure, Code: int(e.Reason), Text: Redact(clip(e.Message))}, true
	case *events.StreamError:
		code, _ := strconv.Atoi(e.Code)
		return policy.Signal{Kind: policy.SignalStreamError, Code: code}, true
	case *events.CATRefreshError:
		return policy.Signal{Kind: policy.SignalCATRefresh, Err: e.Error}, true
	case *events.PairError:
		return policy.Signal{Kind: policy.SignalPairError, Err: orUnknown(e.Error)}, true
	}
	return policy.Signal{}, false
}

func orUnknown(err error) error {
	if err == nil {
		return errors.New("unknown error")
	}
	return err
}
