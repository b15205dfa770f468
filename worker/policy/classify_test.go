package policy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-wa/holdfast/state"
)

func TestNumbersTakeTheirOwnRows(t *testing.T) {
	rows := map[int]state.Cause{
		401: state.CauseLoggedOut, 402: state.CauseTemporaryBan, 403: state.CauseAccountLocked,
		405: state.CauseClientOutdated, 406: state.CauseAccountBanned, 408: state.CauseTimedOut,
		411: state.CauseMultideviceMismatch, 428: state.CauseConnectionLost, 429: state.CauseRateLimited,
		440: state.CauseReplaced, 500: state.CauseServerError, 503: state.CauseUnavailable, 515: state.CauseRestartRequired,
	}
	for code, want := range rows {
		for _, kind := range []SignalKind{SignalFailure, SignalStreamError} {
			e := Observe(Signal{Kind: kind, Code: code}, true)
			if e.Cause != want || e.Code != code || !e.Ended {
				t.Errorf("%s %d: %+v, want %s", kind, code, e, want)
			}
		}
	}
	for _, code := range []int{0, 1, 400, 404, 409, 410, 415, 418, 499, 501, 502, 516, 999, -1} {
		if got := Classify(Signal{Kind: SignalFailure, Code: code}, true); got != state.CauseRejected {
			t.Errorf("failure %d: %s", code, got)
		}
		if got := Classify(Signal{Kind: SignalStreamError, Code: code}, true); got != state.CauseServerError {
			t.Errorf("stream:error %d: %s", code, got)
		}
	}
}

func TestAConflictSaysMoreThanItsNumber(t *testing.T) {
	for _, tt := range []struct {
		code     int
		conflict string
		want     state.Cause
	}{
		{0, "replaced", state.CauseReplaced},
		{409, "replaced", state.CauseReplaced},
		{401, "replaced", state.CauseReplaced},
		{401, "device_removed", state.CauseLoggedOut},
		{0, "something new", state.CauseServerError},
	} {
		if got := Classify(Signal{Kind: SignalStreamError, Code: tt.code, Conflict: tt.conflict}, true); got != tt.want {
			t.Errorf("stream:error %d %q: %s, want %s", tt.code, tt.conflict, got, tt.want)
		}
	}
}

// refused wraps an error as a dial through net/http and the websocket library does.
func refused(err error) error {
	return fmt.Errorf("failed to dial whatsapp web websocket: %w", fmt.Errorf("failed to send handshake request: %w",
		&url.Error{Op: "Get", URL: "https://web.whatsapp.com/ws/chat", Err: err}))
}

func op(name string, err error) error {
	return &net.OpError{Op: name, Net: "tcp", Err: err}
}

func TestErrorsOfTheLine(t *testing.T) {
	rows := []struct {
		name string
		kind SignalKind
		err  error
		want state.Cause
	}{
		{"ENOTFOUND", SignalDialFailed, refused(op("dial", &net.DNSError{Err: "no such host", IsNotFound: true})), state.CauseNetwork},
		{"ECONNREFUSED", SignalDialFailed, refused(op("dial", os.NewSyscallError("connect", syscall.ECONNREFUSED))), state.CauseNetwork},
		{"ENETUNREACH", SignalDialFailed, refused(op("dial", os.NewSyscallError("connect", syscall.ENETUNREACH))), state.CauseNetwork},
		{"ETIMEDOUT at the dial", SignalDialFailed, refused(op("dial", os.NewSyscallError("connect", syscall.ETIMEDOUT))), state.CauseNetwork},
		{"dialer's own timeout", SignalDialFailed, refused(op("dial", os.ErrDeadlineExceeded)), state.CauseNetwork},
		{"proxy refuses", SignalDialFailed, refused(op("proxyconnect", errors.New("Proxy Authentication Required"))), state.CauseNetwork},
		{"socks proxy", SignalDialFailed, refused(op("socks connect", errors.New("host unreachable"))), state.CauseNetwork},
		{"untrusted TLS", SignalDialFailed, refused(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), state.CauseNetwork},
		{"no TLS", SignalDialFailed, refused(tls.RecordHeaderError{Msg: "first record does not look like TLS"}), state.CauseNetwork},
		{"end in the TLS handshake", SignalDialFailed, refused(io.EOF), state.CauseNetwork},
		{"nothing known", SignalDialFailed, nil, state.CauseNetwork},
		{"our connect deadline", SignalDialFailed, refused(context.DeadlineExceeded), state.CauseTimedOut},

		{"half-open server", SignalHandshakeFailed, errors.New("noise handshake failed: timed out waiting for handshake response"), state.CauseTimedOut},
		{"certificate out of date", SignalHandshakeFailed, errors.New("noise handshake failed: failed to verify server cert: leaf cert cert certificate expired (current time … is after …)"), state.CauseServerError},
		{"garbage", SignalHandshakeFailed, errors.New("noise handshake failed: missing parts of handshake response"), state.CauseServerError},
		{"reset in the handshake", SignalHandshakeFailed, fmt.Errorf("noise handshake failed: %w", op("write", os.NewSyscallError("write", syscall.ECONNRESET))), state.CauseNetwork},
		{"end in the handshake", SignalHandshakeFailed, fmt.Errorf("noise handshake failed: %w", io.EOF), state.CauseConnectionLost},
		{"deadline in the handshake", SignalHandshakeFailed, fmt.Errorf("noise handshake failed: %w", context.DeadlineExceeded), state.CauseTimedOut},
		{"handshake, nothing known", SignalHandshakeFailed, nil, state.CauseServerError},

		{"orderly end", SignalClosed, nil, state.CauseConnectionLost},
		{"end of the stream", SignalClosed, io.EOF, state.CauseConnectionLost},
		{"end in a frame", SignalClosed, fmt.Errorf("failed to read frame header: %w", io.ErrUnexpectedEOF), state.CauseConnectionLost},
		{"closed by us", SignalClosed, op("read", net.ErrClosed), state.CauseConnectionLost},
		{"end as an operation", SignalClosed, op("read", io.EOF), state.CauseConnectionLost},
		{"ECONNRESET", SignalClosed, fmt.Errorf("failed to read: %w", op("read", os.NewSyscallError("read", syscall.ECONNRESET))), state.CauseNetwork},
		{"EPIPE", SignalClosed, op("write", os.NewSyscallError("write", syscall.EPIPE)), state.CauseNetwork},
		{"ETIMEDOUT", SignalClosed, op("read", os.NewSyscallError("read", syscall.ETIMEDOUT)), state.CauseNetwork},
		{"read timeout", SignalClosed, op("read", os.ErrDeadlineExceeded), state.CauseNetwork},
		{"TLS alert", SignalClosed, tls.AlertError(80), state.CauseNetwork},
		{"unknown", SignalClosed, errors.New("something else"), state.CauseConnectionLost},
	}
	for _, row := range rows {
		if got := Classify(Signal{Kind: row.kind, Err: row.err}, true); got != row.want {
			t.Errorf("%s: %s, want %s (%v)", row.name, got, row.want, row.err)
		}
	}
}

// What the upgrade to a websocket is refused with is an HTTP status, and never
// WhatsApp's word about an account.
func TestARefusedUpgradeParksAndRetiresNothing(t *testing.T) {
	for status, want := range map[int]state.Cause{
		200: state.CauseServerError, 302: state.CauseServerError, 400: state.CauseServerError, 401: state.CauseServerError,
		403: state.CauseServerError, 407: state.CauseNetwork, 408: state.CauseTimedOut, 429: state.CauseRateLimited,
		500: state.CauseServerError, 502: state.CauseUnavailable, 503: state.CauseUnavailable, 504: state.CauseUnavailable,
	} {
		e := Observe(Signal{Kind: SignalDialFailed, Code: status, Err: errors.New("expected 101")}, true)
		if e.Cause != want {
			t.Errorf("HTTP %d: %s, want %s", status, e.Cause, want)
		}
		if e.Code == 401 || e.Code == 403 || e.Code == 302 {
			t.Errorf("HTTP %d passes for a code of WhatsApp's: %d", status, e.Code)
		}
		if RuleOf(e.Cause).Action != Redial {
			t.Errorf("HTTP %d: %s", status, RuleOf(e.Cause).Action)
		}
	}
}

func TestSignalsOfOurOwn(t *testing.T) {
	rows := map[SignalKind]state.Cause{
		SignalLoggedOut: state.CauseLoggedOut, SignalTemporaryBan: state.CauseTemporaryBan,
		SignalClientOutdated: state.CauseClientOutdated, SignalStreamReplaced: state.CauseReplaced,
		SignalLoginReconnect: state.CauseRestartRequired, SignalCATRefresh: state.CauseRejected,
		SignalPairError: state.CausePairingFailed, SignalPasskeyRequest: state.CausePasskeyRequired,
		SignalPasskeyError: state.CausePairingFailed, SignalReachoutLock: state.CauseReachoutRestricted,
		SignalMultidevice: state.CauseMultideviceMismatch, SignalStreamEnd: state.CauseConnectionLost,
		SignalConnectTimeout: state.CauseTimedOut, SignalPongTimeout: state.CauseTimedOut,
		SignalSocketNotOpen: state.CauseConnectionLost, SignalInboundStalled: state.CauseInboundStalled,
		SignalHandlerBlocked: state.CauseInboundStalled, SignalUndecryptable: state.CauseBadMAC,
		SignalDecryptStorm: state.CauseBadMAC, SignalHandlerPanic: state.CauseConnectionLost,
		SignalQRExpired: state.CauseQRExpired, SignalStale: state.CauseStaleCredentials,
		SignalPoisoned: state.CausePoisoned, SignalLeaseLost: state.CauseLeaseLost,
		SignalStoreFailed: state.CauseStoreUnavailable, SignalUserStop: state.CauseStopped,
		SignalUserDisconnect: state.CauseDisconnected, SignalMoved: state.CauseMoved,
	}
	for kind, want := range rows {
		if got := Classify(Signal{Kind: kind}, true); got != want {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
	}
}

func TestEveryCauseCanBeReached(t *testing.T) {
	reached := map[state.Cause]bool{}
	for _, kind := range SignalKinds() {
		for code := 0; code < 600; code++ {
			reached[Classify(Signal{Kind: kind, Code: code}, true)] = true
		}
	}
	for _, cause := range state.Causes() {
		if !reached[cause] {
			t.Errorf("no signal leads to %s", cause)
		}
	}
}

// Before a pairing has ended, whatever fails is pairing_failed.
func TestUnpaired(t *testing.T) {
	own := []state.Cause{state.CauseRestartRequired, state.CauseMultideviceMismatch, state.CauseQRExpired,
		state.CausePasskeyRequired, state.CauseReachoutRestricted, state.CauseStaleCredentials, state.CausePoisoned,
		state.CauseDisconnected, state.CauseStopped, state.CauseLeaseLost, state.CauseStoreUnavailable, state.CauseMoved}
	for _, kind := range SignalKinds() {
		for _, code := range []int{0, 400, 401, 403, 405, 411, 429, 440, 500, 503, 515} {
			sig := Signal{Kind: kind, Code: code}
			paired, unpaired := Classify(sig, true), Classify(sig, false)
			if want := slices.Contains(own, paired); want && unpaired != paired || !want && unpaired != state.CausePairingFailed {
				t.Errorf("%s %d: paired %s, unpaired %s", kind, code, paired, unpaired)
			}
		}
	}
}

func TestCodesOfSignalsThatComeWithoutOne(t *testing.T) {
	for _, tt := range []struct {
		kind   SignalKind
		paired bool
		want   int
	}{
		{SignalClientOutdated, true, 405}, {SignalClientOutdated, false, 405}, {SignalLoggedOut, true, 401},
		{SignalStreamReplaced, true, 440}, {SignalLoginReconnect, true, 515}, {SignalPongTimeout, true, 408},
		{SignalClosed, true, 428}, {SignalClosed, false, 428}, {SignalMultidevice, false, 411}, {SignalTemporaryBan, true, 402},
		{SignalUserStop, true, 0}, {SignalDialFailed, true, 0},
	} {
		if e := Observe(Signal{Kind: tt.kind}, tt.paired); e.Code != tt.want {
			t.Errorf("%s, paired %v: code %d, want %d", tt.kind, tt.paired, e.Code, tt.want)
		}
	}
	// A pairing that fails because of the version asks for another version; one
	// that fails otherwise does not.
	if Observe(Signal{Kind: SignalPairError}, false).Code != 0 {
		t.Error("a PairError passes for 405")
	}
}

// drawSignal makes any signal at all, unknown kinds included.
func drawSignal(t *rapid.T) Signal {
	kinds := append(SignalKinds(), "of a later release", "")
	errs := []error{nil, io.EOF, context.Canceled, context.DeadlineExceeded, net.ErrClosed, syscall.ECONNRESET,
		op("dial", &net.DNSError{}), errors.New("x"), errors.Join(io.EOF, syscall.EPIPE)}
	return Signal{
		Kind:     rapid.SampledFrom(kinds).Draw(t, "kind"),
		Code:     rapid.OneOf(rapid.IntRange(395, 520), rapid.Int()).Draw(t, "code"),
		Conflict: rapid.SampledFrom([]string{"", "replaced", "device_removed", "else"}).Draw(t, "conflict"),
		Err:      rapid.SampledFrom(errs).Draw(t, "err"),
	}
}

func TestClassifyIsTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sig := drawSignal(t)
		paired := rapid.Bool().Draw(t, "paired")
		e := Observe(sig, paired)
		if !slices.Contains(state.Causes(), e.Cause) {
			t.Fatalf("%+v: cause %q", sig, e.Cause)
		}
		// Nothing but the server's own word or a command ever takes credentials away.
		if paired && RuleOf(e.Cause).Action == Retire {
			switch sig.Kind {
			case SignalFailure, SignalStreamError, SignalLoggedOut, SignalUserDisconnect, SignalPairError,
				SignalPasskeyError, SignalUndecryptable, SignalDecryptStorm:
			default:
				t.Fatalf("%+v retires a paired session", sig)
			}
		}
	})
}
