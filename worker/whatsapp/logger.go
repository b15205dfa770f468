package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	waBinary "go.mau.fi/whatsmeow/binary"
	waLog "go.mau.fi/whatsmeow/util/log"

	"github.com/holdfast-wa/holdfast/worker/policy"
)

// libLog is the logger that a client is given. Most of what Holdfast must know
// and the library has no event for passes through here: each node before it is
// handled, each node before it leaves, the end of the read loop and its error,
// panics that the library swallows. These hooks run on the library's own
// goroutine at that very point; they are told apart by the format of the
// message. Everything else goes to the session's log at debug level, redacted,
// and is not even formatted while that level is off.
type libLog struct {
	line *Line
	part string
}

var _ waLog.Logger = (*libLog)(nil)

// The parts of the library whose loggers are hooks. The names and the formats
// below are the library's; a test tells if they change.
const (
	partRecv   = "Recv"
	partSend   = "Send"
	partSocket = "Socket"

	formatPumpExit     = "Frame websocket read pump exiting"
	formatNotOpened    = "Failed to decrypt frame"
	formatNotUnpacked  = "Failed to decompress frame"
	formatNoNode       = "Failed to decode node in frame"
	formatReadError    = "Error reading from websocket"
	formatSlowNode     = "Node handling is taking long for"
	formatSlowDone     = "Node handling took"
	formatBackground   = "Continuing handling of %s in background"
	formatPairFailed   = "Failed to pair device"
	formatPanicked     = "panicked"
	formatDropped      = "Emitting Disconnected event"
	formatDroppedQuiet = "OnDisconnect() called"
	formatDecryptName  = "Message decryption"
	formatFrameHex     = "Errored frame hex"
)

// Sub makes the logger of a part of the library.
func (l *libLog) Sub(module string) waLog.Logger { return &libLog{line: l.line, part: module} }

// Debugf is where nodes and the end of the read loop pass.
func (l *libLog) Debugf(format string, args ...any) {
	switch l.part {
	case partRecv:
		if n, ok := only[*waBinary.Node](args); ok {
			l.line.received(n)
			l.line.taken.Add(1)
		}
	case partSend:
		if n, ok := only[*waBinary.Node](args); ok {
			l.line.leaving(n)
		}
	case partSocket:
		if strings.HasPrefix(format, formatPumpExit) {
			l.line.readEnded()
		}
	default:
		if strings.HasPrefix(format, formatDropped) || strings.HasPrefix(format, formatDroppedQuiet) {
			l.line.socketDropped()
		}
	}
	l.print(format, args)
}

// Infof goes to the log only.
func (l *libLog) Infof(format string, args ...any) { l.print(format, args) }

// errFrame ends a connection on which a frame did not open. Frames are counted
// and come in order, so one was lost or is false, and what it brought will not
// come again on this connection.
var errFrame = errors.New("a frame from the server could not be decrypted")

// Warnf tells of frames that do not open, and of handlers that take long.
func (l *libLog) Warnf(format string, args ...any) {
	switch {
	case l.part == partSocket && strings.HasPrefix(format, formatNotOpened):
		l.line.fail(policy.Signal{Kind: policy.SignalClosed, Err: errFrame})
	case strings.HasPrefix(format, formatSlowNode):
		for _, arg := range args {
			if d, ok := arg.(time.Duration); ok {
				l.line.handlerSlow(d)
			}
		}
	case strings.HasPrefix(format, formatSlowDone), strings.HasPrefix(format, formatBackground):
		l.line.handlerFree()
	case strings.HasPrefix(format, formatNotUnpacked), strings.HasPrefix(format, formatNoNode):
		l.line.taken.Add(1)
	}
	l.print(format, args)
}

// Errorf tells of the connection's own death, of failed pairings and of panics.
func (l *libLog) Errorf(format string, args ...any) {
	switch {
	case l.part == partSocket && strings.HasPrefix(format, formatReadError):
		if err, ok := only[error](args); ok {
			l.line.readFailed(err)
		}
	case strings.HasPrefix(format, formatPairFailed):
		if err, ok := only[error](args); ok {
			l.line.pairFailed(err)
		}
	case strings.Contains(format, formatPanicked):
		l.line.libraryPanicked(format, args)
		return // reported there; the arguments hold a stack
	}
	l.print(format, args)
}

func only[T any](args []any) (T, bool) {
	var zero T
	if len(args) != 1 {
		return zero, false
	}
	v, ok := args[0].(T)
	return v, ok
}

func (l *libLog) print(format string, args []any) {
	log := l.line.log
	if !log.Enabled(context.Background(), slog.LevelDebug) || strings.HasPrefix(format, formatFrameHex) {
		return
	}
	if strings.Contains(format, "ush name") || strings.Contains(format, "usiness name") {
		args = nil // names of people are not for a log
		format = strings.ReplaceAll(strings.ReplaceAll(format, "%s", "…"), "%v", "…")
	}
	redacted := make([]any, len(args))
	for i, arg := range args {
		redacted[i] = redactArg(arg)
	}
	if (l.part == partRecv || l.part == partSend) && len(redacted) == 1 {
		log.Debug("stanza", "direction", strings.ToLower(l.part), "node", redacted[0])
		return
	}
	text := fmt.Sprintf(strings.ReplaceAll(format, "%X", "%v"), redacted...)
	log.Debug("library: "+Redact(text), "part", l.part)
}
