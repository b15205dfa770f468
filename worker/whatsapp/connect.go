package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	"go.mau.fi/whatsmeow/socket"

	"github.com/holdfast-wa/holdfast/worker/policy"
)

// ConnectError is what Connect fails with: what was seen, for the policy, and
// why.
type ConnectError struct {
	Signal policy.Signal
}

func (e *ConnectError) Error() string {
	return "connecting to WhatsApp: " + Redact(e.Signal.Err.Error())
}

// Unwrap gives the chain of errors.
func (e *ConnectError) Unwrap() error { return e.Signal.Err }

// raceGrace is how long a handshake that was complete when the connection died
// has to say so.
const raceGrace = 50 * time.Millisecond

// Connect dials and makes the handshake, within the context. The connection
// lives on when the context ends. On failure the line is cut, the error is a
// *ConnectError, and nothing is posted; Close is due all the same. Events of
// the connection may be posted before Connect returns.
func (l *Line) Connect(ctx context.Context) error {
	if !l.started.CompareAndSwap(false, true) {
		return errOnce
	}
	// The library holds a lock while it dials and waits 20 s for an answer to
	// its handshake, whatever the context says. So it is waited for elsewhere.
	result := make(chan error, 1)
	if !l.spawn(func() { result <- l.dial() }) {
		return &ConnectError{policy.Signal{Kind: policy.SignalClosed, Err: errCut}}
	}
	var err error
	select {
	case err = <-result:
	case <-l.readOver:
		select {
		case err = <-result:
		case <-time.After(raceGrace):
			err = errors.New("noise handshake failed: the connection ended")
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
		l.Cut()
		return &ConnectError{policy.Signal{Kind: policy.SignalConnectTimeout, Err: err}}
	}
	if err != nil {
		sig := l.dialSignal(err)
		l.Cut()
		return &ConnectError{sig}
	}
	return nil
}

func (l *Line) dial() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the library panicked: %v", p)
			l.log.Error("connecting made the library panic", "panic", Redact(fmt.Sprint(p)), "stack", string(debug.Stack()))
		}
	}()
	if err := l.cli.ConnectContext(l.ctx); err != nil {
		return err
	}
	l.open.Store(true)
	return nil
}

// dialSignal tells a websocket that could not be opened from a handshake that
// failed over one. The connection's own last error says more than the
// library's, where there is one.
func (l *Line) dialSignal(err error) policy.Signal {
	sig := policy.Signal{Kind: policy.SignalHandshakeFailed, Err: err}
	if errors.Is(err, socket.ErrDialFailed) {
		sig.Kind = policy.SignalDialFailed
		if refused, ok := errors.AsType[socket.ErrWithStatusCode](err); ok {
			sig.Code = refused.StatusCode
		}
		return sig
	}
	if cause := l.end.lastError(); cause != nil && !errors.Is(cause, net.ErrClosed) && !errors.Is(cause, errCut) {
		sig.Err = fmt.Errorf("%w: %w", err, cause)
	}
	return sig
}
