package policy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// SignalKind is what was seen.
type SignalKind string

// The kinds of signals. Those up to SignalMultidevice come from the server,
// those up to SignalHandlerPanic from the line and its watchdogs, the rest from
// ourselves. In brackets: which fields of Signal they carry.
const (
	SignalFailure         SignalKind = "failure"          // a <failure> node, or the event ConnectFailure (Code, Text; Expire for 402)
	SignalStreamError     SignalKind = "stream_error"     // a <stream:error> node, or the event StreamError (Code where numeric, Conflict, Text)
	SignalLoggedOut       SignalKind = "logged_out"       // event LoggedOut (Code: Reason; 0 counts as 401)
	SignalTemporaryBan    SignalKind = "temporary_ban"    // event TemporaryBan (Expire, Text)
	SignalClientOutdated  SignalKind = "client_outdated"  // event ClientOutdated
	SignalStreamReplaced  SignalKind = "stream_replaced"  // event StreamReplaced
	SignalLoginReconnect  SignalKind = "login_reconnect"  // event ManualLoginReconnect (515)
	SignalCATRefresh      SignalKind = "cat_refresh"      // event CATRefreshError (Err)
	SignalPairError       SignalKind = "pair_error"       // event PairError (Err)
	SignalPasskeyRequest  SignalKind = "passkey_request"  // event PairPasskeyRequest
	SignalPasskeyError    SignalKind = "passkey_error"    // event PairPasskeyError (Err)
	SignalReachoutLock    SignalKind = "reachout_lock"    // event NotifyAccountReachoutTimelock, active (Expire)
	SignalMultidevice     SignalKind = "multidevice"      // event QRScannedWithoutMultidevice
	SignalDialFailed      SignalKind = "dial_failed"      // no websocket (Err; Code: the HTTP status where the upgrade was refused)
	SignalHandshakeFailed SignalKind = "handshake_failed" // no Noise session over the websocket (Err)
	SignalClosed          SignalKind = "closed"           // the connection ended: event Disconnected, or the net.Conn failed (Err: the connection's last error, nil for an orderly end)
	SignalStreamEnd       SignalKind = "stream_end"       // xmlstreamend
	SignalConnectTimeout  SignalKind = "connect_timeout"  // no <success> within connect-timeout
	SignalPongTimeout     SignalKind = "pong_timeout"     // the monitor's limit of missing pongs (KeepAliveTimeout)
	SignalSocketNotOpen   SignalKind = "socket_not_open"  // the monitor's limit of looks at a closed socket
	SignalInboundStalled  SignalKind = "inbound_stalled"  // Stall says so
	SignalHandlerBlocked  SignalKind = "handler_blocked"  // a handler has blocked the queue for over 60 s
	SignalUndecryptable   SignalKind = "undecryptable"    // one UndecryptableMessage
	SignalDecryptStorm    SignalKind = "decrypt_storm"    // DecryptWindow says so
	SignalHandlerPanic    SignalKind = "handler_panic"    // a handler of ours panicked; the line was cut
	SignalQRExpired       SignalKind = "qr_expired"       // qr-timeout is over, or the codes ran out a second time
	SignalStale           SignalKind = "stale"            // credentials must not be used (Err)
	SignalPoisoned        SignalKind = "poisoned"         // Deaths says so
	SignalLeaseLost       SignalKind = "lease_lost"
	SignalStoreFailed     SignalKind = "store_failed" // (Err)
	SignalUserStop        SignalKind = "user_stop"
	SignalUserDisconnect  SignalKind = "user_disconnect"
	SignalMoved           SignalKind = "moved" // the credentials were exported to another store (Err)
)

// SignalKinds lists them all.
func SignalKinds() []SignalKind {
	return []SignalKind{SignalFailure, SignalStreamError, SignalLoggedOut, SignalTemporaryBan, SignalClientOutdated,
		SignalStreamReplaced, SignalLoginReconnect, SignalCATRefresh, SignalPairError, SignalPasskeyRequest,
		SignalPasskeyError, SignalReachoutLock, SignalMultidevice, SignalDialFailed, SignalHandshakeFailed,
		SignalClosed, SignalStreamEnd, SignalConnectTimeout, SignalPongTimeout, SignalSocketNotOpen,
		SignalInboundStalled, SignalHandlerBlocked, SignalUndecryptable, SignalDecryptStorm, SignalHandlerPanic,
		SignalQRExpired, SignalStale, SignalPoisoned, SignalLeaseLost, SignalStoreFailed, SignalUserStop, SignalUserDisconnect, SignalMoved}
}

// Signal is what was seen, before any judgement.
type Signal struct {
	Kind     SignalKind
	Code     int           // the server's number
	Conflict string        // type of the <conflict> in a stream:error: replaced, device_removed …
	Text     string        // the server's own words; personal, so never in a log of other sessions or a Why
	Expire   time.Duration // of a ban or a restriction, from now; 0: not told
	Err      error         // the chain of errors, where there was one
}

// Event is a signal that has been judged.
type Event struct {
	Cause  state.Cause
	Code   int // the server's number where it gave one, else the one that people know the signal by
	Text   string
	Expire time.Duration
	Alone  bool // one undecryptable message, no storm: nothing needs doing
	Ended  bool // the server ends the connection with this signal, so nothing can stay
	Err    error
}

// Observe judges a signal. paired says that the session had whole credentials
// when it was seen.
func Observe(sig Signal, paired bool) Event {
	e := Event{Cause: Classify(sig, paired), Code: sig.Code, Text: sig.Text, Expire: sig.Expire, Err: sig.Err,
		Alone: sig.Kind == SignalUndecryptable,
		Ended: sig.Kind == SignalFailure || sig.Kind == SignalStreamError}
	if sig.Kind == SignalDialFailed {
		e.Code = 0 // an HTTP status is none of WhatsApp's codes
	}
	if e.Code == 0 {
		e.Code = codeOf(sig, e.Cause)
	}
	return e
}

// codeOf is the number that people know a signal by, for signals that come
// without one.
func codeOf(sig Signal, cause state.Cause) int {
	if cause != state.CausePairingFailed {
		return RuleOf(cause).Code
	}
	// 405 matters here, since it asks for another version; the other numbers
	// tell an operator what went wrong.
	if told := classifyPaired(sig); told != state.CausePairingFailed {
		return RuleOf(told).Code
	}
	return 0
}

// byCode is what the numbers of failure and stream:error nodes mean, wherever
// they come from.
var byCode = map[int]state.Cause{
	401: state.CauseLoggedOut,
	402: state.CauseTemporaryBan,
	403: state.CauseAccountLocked,
	405: state.CauseClientOutdated,
	406: state.CauseAccountBanned,
	408: state.CauseTimedOut,
	411: state.CauseMultideviceMismatch,
	428: state.CauseConnectionLost,
	429: state.CauseRateLimited,
	440: state.CauseReplaced,
	500: state.CauseServerError,
	503: state.CauseUnavailable,
	515: state.CauseRestartRequired,
}

// whilePairing are the causes that mean the same before a pairing has ended as
// after it. restart_required is among them because it follows a pairing that
// has just succeeded: were it taken for a failure by somebody who has not yet
// heard of the success, the fresh device would be thrown away.
var whilePairing = map[state.Cause]bool{
	state.CauseRestartRequired:     true,
	state.CauseMultideviceMismatch: true,
	state.CauseQRExpired:           true,
	state.CausePasskeyRequired:     true,
	state.CauseReachoutRestricted:  true,
	state.CauseStaleCredentials:    true,
	state.CausePoisoned:            true,
	state.CauseDisconnected:        true,
	state.CauseStopped:             true,
	state.CauseLeaseLost:           true,
	state.CauseStoreUnavailable:    true,
	state.CauseMoved:               true,
}

// Classify finds the cause of a signal. It is total: every signal, also one of
// an unknown kind, has a cause. While unpaired every failure is pairing_failed,
// network trouble before the first QR included: somebody stands there and waits
// for the QR, and is better told at once than kept waiting.
func Classify(sig Signal, paired bool) state.Cause {
	cause := classifyPaired(sig)
	if !paired && !whilePairing[cause] {
		return state.CausePairingFailed
	}
	return cause
}

func classifyPaired(sig Signal) state.Cause {
	switch sig.Kind {
	case SignalFailure, SignalLoggedOut:
		return failureCause(sig)
	case SignalStreamError:
		return streamCause(sig)
	case SignalTemporaryBan:
		return state.CauseTemporaryBan
	case SignalClientOutdated:
		return state.CauseClientOutdated
	case SignalStreamReplaced:
		return state.CauseReplaced
	case SignalLoginReconnect:
		return state.CauseRestartRequired
	case SignalCATRefresh:
		return state.CauseRejected // 413 and 414: a token that no WhatsApp account has
	case SignalPairError, SignalPasskeyError:
		return state.CausePairingFailed
	case SignalPasskeyRequest:
		return state.CausePasskeyRequired
	case SignalReachoutLock:
		return state.CauseReachoutRestricted
	case SignalMultidevice:
		return state.CauseMultideviceMismatch
	case SignalDialFailed:
		return dialCause(sig)
	case SignalHandshakeFailed:
		return handshakeCause(sig.Err)
	case SignalClosed:
		if isNetwork(sig.Err) {
			return state.CauseNetwork
		}
		return state.CauseConnectionLost
	case SignalConnectTimeout, SignalPongTimeout:
		return state.CauseTimedOut
	case SignalInboundStalled, SignalHandlerBlocked:
		return state.CauseInboundStalled
	case SignalUndecryptable, SignalDecryptStorm:
		return state.CauseBadMAC
	case SignalQRExpired:
		return state.CauseQRExpired
	case SignalStale:
		return state.CauseStaleCredentials
	case SignalPoisoned:
		return state.CausePoisoned
	case SignalLeaseLost:
		return state.CauseLeaseLost
	case SignalStoreFailed:
		return state.CauseStoreUnavailable
	case SignalUserStop:
		return state.CauseStopped
	case SignalUserDisconnect:
		return state.CauseDisconnected
	case SignalMoved:
		return state.CauseMoved
	}
	// SignalStreamEnd, SignalSocketNotOpen, SignalHandlerPanic and whatever a
	// newer caller sends: the line is gone, and that is all there is to know.
	return state.CauseConnectionLost
}

func failureCause(sig Signal) state.Cause {
	if cause, ok := byCode[sig.Code]; ok {
		return cause
	}
	if sig.Kind == SignalLoggedOut {
		return state.CauseLoggedOut // the library has deleted the device, whatever the number
	}
	return state.CauseRejected
}

func streamCause(sig Signal) state.Cause {
	switch sig.Conflict {
	case "replaced":
		return state.CauseReplaced
	case "device_removed":
		return state.CauseLoggedOut
	}
	if cause, ok := byCode[sig.Code]; ok {
		return cause
	}
	return state.CauseServerError
}

// dialCause judges a websocket that could not be opened. Without an HTTP answer
// it is network trouble by definition, whichever layer said no. With one, the
// server or something on the way to it (a captive portal, a firewall) refused
// the upgrade; that is nobody's verdict on the credentials, so no status of it
// parks or retires a session.
func dialCause(sig Signal) state.Cause {
	switch status := sig.Code; {
	case status == 0, status == 407: // 407: the proxy wants a password
		if !isNetwork(sig.Err) && errors.Is(sig.Err, context.DeadlineExceeded) {
			return state.CauseTimedOut
		}
		return state.CauseNetwork
	case status == 408:
		return state.CauseTimedOut
	case status == 429:
		return state.CauseRateLimited
	case status >= 502 && status <= 504:
		return state.CauseUnavailable
	}
	return state.CauseServerError
}

// noAnswer is what the library says when the other side accepts the websocket
// and never answers the handshake. It has no sentinel for it.
const noAnswer = "timed out waiting for handshake response"

// handshakeCause judges a Noise handshake that failed over an open websocket. A
// certificate that does not verify is the server's fault or that of a wrong
// clock here; both pass, so it is server_error and the advice names the clock.
func handshakeCause(err error) state.Cause {
	switch {
	case err == nil:
		return state.CauseServerError
	case strings.Contains(err.Error(), noAnswer):
		return state.CauseTimedOut
	case isNetwork(err):
		return state.CauseNetwork
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return state.CauseTimedOut
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return state.CauseConnectionLost
	}
	return state.CauseServerError
}

// networkErrnos are the system's words for a way that is not there or broke.
var networkErrnos = []syscall.Errno{
	syscall.ECONNRESET, syscall.ECONNABORTED, syscall.ECONNREFUSED, syscall.ETIMEDOUT, syscall.EPIPE,
	syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.ENETRESET,
	syscall.EADDRNOTAVAIL,
}

// isNetwork says that an error tells of trouble on the way rather than of an
// end that the other side chose. A close of our own (net.ErrClosed) and the end
// of the stream are none.
func isNetwork(err error) bool {
	if err == nil {
		return false
	}
	for _, errno := range networkErrnos {
		if errors.Is(err, errno) {
			return true
		}
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	if isTLS(err) {
		return true
	}
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return false
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return true // dial, proxyconnect, socks, read and write alike
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return !errors.Is(err, context.DeadlineExceeded) // that one is our own deadline
	}
	return false
}

// isTLS says that the TLS layer refused the other side, or was refused by it.
func isTLS(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.HostnameError](err)
	return ok
}
