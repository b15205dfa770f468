package browsertest

import (
	"strings"
	"testing"
)

const (
	phone   = "491700000001"
	contact = "491700000002"
)

// TestOperatorsDay is what the console is for, from the first sign-in on: pair by
// the QR on the screen, send, lose the line, see it recover, disconnect, pair again.
func TestOperatorsDay(t *testing.T) {
	s := newStage(t, "HOLDFAST_BACKOFF=3s,6s,8s")
	p := newTab(t, s.url, 1280, 900)
	p.fill("API key", "not the key")
	p.shot("01-sign-in")
	p.press("Sign in")
	p.untilText("main", "No valid API key")
	if got := eval[int](p, `sessionStorage.length`); got != 0 {
		t.Errorf("a key that was refused is kept: %d entries", got)
	}
	p.signIn("admin")
	p.untilText("table", "default")
	p.press("default")
	p.untilText("h1", "default")
	p.until("a QR code is shown", `document.querySelector('img.qr')?.checkVisibility()`)
	p.shot("02-pairing")
	p.scan(s, phone)
	p.untilText(".state", "online")
	p.until("the QR is gone", `!document.querySelector('img.qr')?.checkVisibility()`)
	p.untilText(".events", "session.paired")

	s.sim("POST", "/contacts", map[string]any{"number": contact, "name": "Ada"})
	s.sim("POST", "/contacts/"+contact+"/send", map[string]any{"to": phone, "text": "good morning"})
	p.untilText(".events", "good morning")
	p.fill("To", contact)
	p.fill("Text", "from the console")
	p.press("Send")
	p.until("the message is sent", `['sent', 'delivered', 'read'].includes(document.querySelector('.sent [data-state]')?.dataset.state)`)
	s.sim("GET", "/contacts/"+contact+"/received?text=from+the+console&waitSeconds=10", nil)
	p.shot("03-online")

	// The line breaks and stays away: a countdown to the next attempt is seen.
	s.sim("POST", "/faults", map[string]any{"kind": "failure", "code": 503})
	s.sim("POST", "/devices/"+phone+"/drop", map[string]any{"how": "close"})
	p.untilText(".state", "reconnecting")
	p.untilText(".lines", "It connects again in")
	p.shot("04-reconnecting")
	s.sim("DELETE", "/faults", nil)
	p.untilText(".state", "online")
	p.until("the reconnect is counted", `[...document.querySelectorAll('section')].find((x) => x.querySelector('h2')?.innerText === 'Reconnects by cause').querySelector('tbody').innerText.match(/unavailable|connection_lost/)`)
	p.until("the timeline has it", `document.querySelectorAll('.bar .part').length >= 3`)
	p.shot("05-recovered")

	p.press("Disconnect …")
	p.untilText("dialog", "cannot be restored")
	p.fill("Type the name to confirm", "another")
	p.press("Disconnect")
	p.untilText("dialog", "nothing was done")
	if got := s.state("default"); got != "online" {
		t.Fatalf("with the wrong name typed the session is %s", got)
	}
	p.shot("06-disconnect")
	p.fill("Type the name to confirm", "default")
	p.press("Disconnect")
	p.untilText(".state", "disconnected")
	p.untilText("#notices", "is disconnected")
	if devices := string(s.sim("GET", "/devices", nil)); !strings.Contains(devices, `"unlinked"`) {
		t.Errorf("the device is still linked: %s", devices)
	}
	p.shot("07-disconnected")

	p.press("Start")
	p.scan(s, phone)
	p.untilText(".state", "online")
	p.press("← All sessions")
	p.untilText("table", "online")
	p.shot("08-paired-again")
}
