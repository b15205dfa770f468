package whatsapp

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/worker/policy"
)

// The hooks know the library's messages by their formats. If one of these is
// gone after the pin was moved, look for what took its place.
func TestFormatsAreTheLibrarys(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "go.mau.fi/whatsmeow").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := strings.TrimSpace(string(out))
	for file, formats := range map[string][]string{
		"client.go": {`recvLog.Debugf("%s", node)`, `sendLog.Debugf("%s", &node)`, `Sub("` + partRecv + `")`, `Sub("` + partSend + `")`, `Sub("` + partSocket + `")`,
			`Warnf("` + formatSlowNode + ` %s (started %s ago)", node, time.Since(start))`, `Warnf("` + formatSlowDone, `Warnf("` + formatBackground, `Errorf("Event handler ` + formatPanicked, formatFrameHex,
			`Warnf("` + formatNotUnpacked, `Warnf("` + formatNoNode, `Debugf("` + formatDropped, `Debugf("` + formatDroppedQuiet},
		"socket/framesocket.go": {`Debugf("` + formatPumpExit, `Errorf("` + formatReadError + `: %v", err)`},
		"socket/noisesocket.go": {`Warnf("` + formatNotOpened},
		"pair.go":               {`Errorf("` + formatPairFailed + `: %v", err)`},
		"message.go":            {`Errorf("` + formatDecryptName + ` for %s ` + formatPanicked + `: %v\n%s", info.ID, err, debug.Stack())`},
		"retry.go":              {`Errorf("Retry receipt handler ` + formatPanicked},
	} {
		source, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, format := range formats {
			if !bytes.Contains(source, []byte(format)) {
				t.Errorf("%s has no %s", file, format)
			}
		}
	}
}

// tripwire fails the test when it is formatted.
type tripwire struct{ t *testing.T }

func (w tripwire) String() string {
	w.t.Error("formatted although debug is off")
	return ""
}

func TestDebugIsSwitchedWhileRunning(t *testing.T) {
	var out bytes.Buffer
	level := new(slog.LevelVar)
	l, _ := loose(t, newFakeStore(), func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))
	})
	log := &libLog{line: l}
	for _, print := range []func(string, ...any){log.Debugf, log.Infof, log.Warnf, log.Errorf} {
		print("told of %s", tripwire{t})
	}
	if out.Len() != 0 {
		t.Errorf("printed %q", out.String())
	}
	level.Set(slog.LevelDebug)
	log.Warnf("Failed for %s with %v", types.NewJID("4915112345678", types.DefaultUserServer), errors.New("key "+strings.Repeat("k", 44)))
	log.Debugf("Errored frame hex: %s", "00112233")
	log.Sub(partRecv).Debugf("%s", &waBinary.Node{Tag: "message", Attrs: waBinary.Attrs{"notify": "Ada", "from": adaPN}, Content: []byte("secret")})
	got := out.String()
	for _, secret := range []string{"4915112345678", "kkkk", "00112233", "Ada", "secret", adaPN.User} {
		if strings.Contains(got, secret) {
			t.Errorf("%q is in %q", secret, got)
		}
	}
	for _, want := range []string{"…78@s.whatsapp.net", "node=<message>"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}

func TestHandlerBlockedFor(t *testing.T) {
	l, _ := loose(t, newFakeStore(), nil)
	log := &libLog{line: l}
	node := &waBinary.Node{Tag: "message"}
	log.Warnf("Node handling is taking long for %s (started %s ago)", node, time.Minute)
	if got := l.HandlerBlockedFor(); got < time.Minute || got > 2*time.Minute {
		t.Errorf("blocked for %s", got)
	}
	log.Warnf("Node handling took %s for %s", 70*time.Second, node)
	if got := l.HandlerBlockedFor(); got != 0 {
		t.Errorf("blocked for %s after it was done", got)
	}
}

// After a panic while decrypting the library acknowledges the message: by then
// nothing may leave any more.
func TestPanicInTheLibraryCutsTheLine(t *testing.T) {
	var out bytes.Buffer
	f := newFakeStore()
	l, m := loose(t, f, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&out, nil)) })
	log := &libLog{line: l}
	log.Errorf("Message decryption for %s panicked: %v\n%s", "3EB0AA", "from 4915112345678", []byte("goroutine 1 [running]"))
	if !l.tether.off.Load() {
		t.Error("the line is not cut")
	}
	if got := m.terminal(); len(got) != 1 || got[0].Kind != policy.SignalHandlerPanic {
		t.Errorf("signals %+v", got)
	}
	if got := of[Panicked](m); len(got) != 1 || got[0].Stanza != "message" {
		t.Errorf("events %+v", got)
	}
	if !strings.Contains(out.String(), "goroutine 1") || strings.Contains(out.String(), "4915112345678") {
		t.Errorf("log %q", out.String())
	}
	if got := f.seen(); len(got) != 1 || got[0] != "drop" {
		t.Errorf("the store saw %v", got)
	}
}

// Nothing that comes in may panic where the library does not recover, whatever
// the attributes hold.
func TestHooksTakeAnyNode(t *testing.T) {
	l, _ := loose(t, newFakeStore(), nil)
	for _, tag := range []string{"", "iq", "ib", "message", "receipt", "success", "failure", "stream:error", "xmlstreamend", "ack", "mystery"} {
		for _, attrs := range []waBinary.Attrs{nil, {"id": 5, "t": "soon", "from": 7, "code": nil, "reason": "x"}, {"from": (*types.JID)(nil), "type": "result"}} {
			for _, content := range []any{nil, "text", []byte("x"), []waBinary.Node{{}, {Tag: "sync", Content: []waBinary.Node{{}}}}} {
				n := &waBinary.Node{Tag: tag, Attrs: attrs, Content: content}
				l.received(n)
				l.leaving(n)
				outline(n)
			}
		}
	}
	outline(nil)
}
