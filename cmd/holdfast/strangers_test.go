package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/holdfast-wa/holdfast/state"
)

// TestAStrangersWordsAreShownNotObeyed: names and texts that come from elsewhere
// cannot move the cursor, clear the screen, turn a line around or begin another.
func TestAStrangersWordsAreShownNotObeyed(t *testing.T) {
	hostile := "Ann\x1b[2J\x1b]0;title\x07\u202egnp.exe\u0085\u009b31m\x00\nname  forged\r\x7fZ"
	s := sessionView{Name: "shop", State: state.Failed, PushName: hostile, Text: hostile, JID: hostile, Decision: hostile}
	for what, show := range map[string]func(a *app) error{
		"sessions show": func(a *app) error { return a.printSession(s) },
		"qr":            func(a *app) error { return a.pairedNow(&qrScreen{io: a.io}, s) },
		"explain": func(a *app) error {
			lines := strings.Join(a.explain(t.Context(), nil, s).MadeFrom, "\n")
			_, err := a.io.Out.Write([]byte(lines + "\n"))
			return err
		},
		"an error": func(a *app) error { report(a.io.Out, errors.New(hostile)); return nil },
		"watch":    func(a *app) error { _, err := a.io.Out.Write([]byte(short(hostile) + "\n")); return err },
	} {
		var out bytes.Buffer
		if err := show(&app{io: IO{Out: &out, Err: &out}, now: time.Now}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if !strings.Contains(out.String(), "Ann") {
			t.Errorf("%s does not show it: %q", what, out.String())
		}
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if i := strings.IndexFunc(line, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }); i >= 0 {
				t.Errorf("%s: %q", what, line)
			}
			if strings.HasPrefix(line, "name  forged") {
				t.Errorf("%s: a line was begun: %q", what, out.String())
			}
		}
	}
}
