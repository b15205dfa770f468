package policy

import (
	"errors"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/types/events"

	"github.com/holdfast-wa/holdfast/state"
)

// permanent has one of each of the library's events that end a connection for
// good, by the name of its type, as the signal that the translation makes of it.
var permanent = map[string]struct {
	event  events.PermanentDisconnect
	signal Signal
	want   state.Cause
}{
	"LoggedOut": {&events.LoggedOut{Reason: events.ConnectFailureLoggedOut},
		Signal{Kind: SignalLoggedOut, Code: int(events.ConnectFailureLoggedOut)}, state.CauseLoggedOut},
	"StreamReplaced": {&events.StreamReplaced{}, Signal{Kind: SignalStreamReplaced}, state.CauseReplaced},
	"ClientOutdated": {&events.ClientOutdated{}, Signal{Kind: SignalClientOutdated}, state.CauseClientOutdated},
	"CATRefreshError": {&events.CATRefreshError{Error: errors.New("no token")},
		Signal{Kind: SignalCATRefresh}, state.CauseRejected},
	"TemporaryBan": {&events.TemporaryBan{Expire: time.Hour},
		Signal{Kind: SignalTemporaryBan, Expire: time.Hour}, state.CauseTemporaryBan},
	"ConnectFailure": {&events.ConnectFailure{Reason: events.ConnectFailureGeneric},
		Signal{Kind: SignalFailure, Code: int(events.ConnectFailureGeneric)}, state.CauseRejected},
}

// reasons has every reason of a connect failure that the library names.
var reasons = map[int]state.Cause{
	400: state.CauseRejected, 401: state.CauseLoggedOut, 402: state.CauseTemporaryBan, 403: state.CauseAccountLocked,
	405: state.CauseClientOutdated, 406: state.CauseAccountBanned, 409: state.CauseRejected, 413: state.CauseRejected,
	414: state.CauseRejected, 415: state.CauseRejected, 418: state.CauseRejected, 500: state.CauseServerError,
	501: state.CauseRejected, 503: state.CauseUnavailable,
}

// The library's own source is read, so that a new event or reason fails here
// when the pin moves.
func TestEveryPermanentDisconnectHasACause(t *testing.T) {
	methods, constants := readEvents(t)
	if len(methods) < 6 || len(constants) < 14 {
		t.Fatalf("found %d events and %d reasons in the library: the reading is broken", len(methods), len(constants))
	}
	for _, name := range methods {
		row, ok := permanent[name]
		if !ok {
			t.Errorf("events.%s ends a connection and has no cause here", name)
			continue
		}
		if got := Classify(row.signal, true); got != row.want {
			t.Errorf("%s (%s): %s, want %s", name, row.event.PermanentDisconnectDescription(), got, row.want)
		}
		if got := RuleOf(row.want).Action; got == Stay {
			t.Errorf("%s: stays on a connection that has ended", name)
		}
	}
	for name, code := range constants {
		want, ok := reasons[code]
		if !ok {
			t.Errorf("events.%s (%d) has no cause here", name, code)
			continue
		}
		if got := Classify(Signal{Kind: SignalFailure, Code: code}, true); got != want {
			t.Errorf("%s: %s, want %s", events.ConnectFailureReason(code), got, want)
		}
		if loggedOut := events.ConnectFailureReason(code).IsLoggedOut(); loggedOut != (RuleOf(want).Action == Retire) {
			t.Errorf("%s: the library deletes the device: %v, the rule is to %s", name, loggedOut, RuleOf(want).Action)
		}
	}
}

func readEvents(t *testing.T) (permanent []string, reasons map[string]int) {
	t.Helper()
	pkg, err := build.Import("go.mau.fi/whatsmeow/types/events", ".", build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(pkg.Dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no source in %s: %v", pkg.Dir, err)
	}
	reasons = make(map[string]int)
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil && d.Name.Name == "PermanentDisconnectDescription" {
					permanent = append(permanent, receiver(d))
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					readReason(spec, reasons)
				}
			}
		}
	}
	return permanent, reasons
}

func receiver(d *ast.FuncDecl) string {
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	return typ.(*ast.Ident).Name
}

func readReason(spec ast.Spec, reasons map[string]int) {
	value, ok := spec.(*ast.ValueSpec)
	if !ok {
		return
	}
	if typ, ok := value.Type.(*ast.Ident); !ok || typ.Name != "ConnectFailureReason" {
		return
	}
	if lit, ok := value.Values[0].(*ast.BasicLit); ok {
		code, _ := strconv.Atoi(lit.Value)
		reasons[value.Names[0].Name] = code
	}
}

// The library's signal table: the ways in which a server ends or troubles a
// connection, as they were seen in a running client.
func TestEveryRowOfTheLibrarysSignalTable(t *testing.T) {
	failure := func(code int) Signal { return Signal{Kind: SignalFailure, Code: code} }
	stream := func(code int, conflict string) Signal {
		return Signal{Kind: SignalStreamError, Code: code, Conflict: conflict}
	}
	rows := []struct {
		sent   string
		signal Signal
		want   state.Cause
	}{
		{"TCP drop", Signal{Kind: SignalClosed}, state.CauseConnectionLost},
		{"websocket 1000", Signal{Kind: SignalClosed}, state.CauseConnectionLost},
		{"xmlstreamend", Signal{Kind: SignalStreamEnd}, state.CauseConnectionLost},
		{"stream:error 515", stream(515, ""), state.CauseRestartRequired},
		{"stream:error 503", stream(503, ""), state.CauseUnavailable},
		{"stream:error 516", stream(516, ""), state.CauseServerError},
		{"conflict replaced", stream(0, "replaced"), state.CauseReplaced},
		{"401 device_removed", stream(401, "device_removed"), state.CauseLoggedOut},
		{"failure 401", failure(401), state.CauseLoggedOut},
		{"failure 403", failure(403), state.CauseAccountLocked},
		{"failure 406", failure(406), state.CauseAccountBanned},
		{"failure 402", failure(402), state.CauseTemporaryBan},
		{"failure 405", failure(405), state.CauseClientOutdated},
		{"failure 500", failure(500), state.CauseServerError},
		{"failure 503", failure(503), state.CauseUnavailable},
		{"failure 400", failure(400), state.CauseRejected},
		{"failure 408", failure(408), state.CauseTimedOut},
		{"failure 409", failure(409), state.CauseRejected},
		{"failure 411", failure(411), state.CauseMultideviceMismatch},
		{"failure 415", failure(415), state.CauseRejected},
		{"failure 418", failure(418), state.CauseRejected},
		{"failure 428", failure(428), state.CauseConnectionLost},
		{"failure 429", failure(429), state.CauseRateLimited},
		{"failure 440", failure(440), state.CauseReplaced},
		{"failure 501", failure(501), state.CauseRejected},
		{"failure 515", failure(515), state.CauseRestartRequired},
		{"downgrade_webclient", Signal{Kind: SignalMultidevice}, state.CauseMultideviceMismatch},
		{"keepalive misses", Signal{Kind: SignalPongTimeout}, state.CauseTimedOut},
	}
	for _, row := range rows {
		if got := Classify(row.signal, true); got != row.want {
			t.Errorf("%s: %s, want %s", row.sent, got, row.want)
		}
	}
}
