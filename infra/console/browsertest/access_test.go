package browsertest

import (
	_ "embed"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp/kb"
)

//go:embed checks.js
var checks string

// check looks at the view as it is, in the light and in the dark, at a desk and on
// a phone, and keeps a picture of each.
func (p *tab) check(name string) {
	p.t.Helper()
	for _, device := range []string{"desk", "phone"} {
		if device == "desk" {
			p.desk()
		} else {
			p.phone()
		}
		for _, scheme := range []string{"light", "dark"} {
			p.scheme(scheme)
			for _, fault := range eval[[]string](p, checks) {
				p.t.Errorf("%s, %s, %s: %s", name, device, scheme, fault)
			}
			p.shot(fmt.Sprintf("view-%s-%s-%s", name, device, scheme))
		}
	}
	p.desk()
	p.scheme("light")
}

func TestEveryViewIsForEverybody(t *testing.T) {
	s := newStage(t)
	s.api("POST", "/api/sessions", map[string]any{"name": "shop"})
	s.api("POST", "/api/sessions", map[string]any{"name": "depot", "wanted": "stopped"})
	s.pair("shop", phone)
	p := newTab(t, s.url, 1280, 900)
	p.until("the form", `document.querySelector('#key')`)
	p.check("signin")
	p.fill("API key", "wrong")
	p.press("Sign in")
	p.untilText("main", "No valid API key")
	p.check("refused")
	p.signIn("admin")
	p.untilText("table", "shop")
	p.check("sessions")
	p.press("New session")
	p.untilText("dialog", "New session")
	p.pressIn("dialog", "Webhook and proxy")
	p.check("create")
	p.keys(kb.Escape)
	p.until("the dialog is closed", `!document.querySelector('dialog')`)
	p.press("shop")
	p.untilText(".state", "online")
	p.untilText(".events", "session.paired")
	p.check("online")
	p.press("Repair …")
	p.untilText("dialog", "This is lost")
	p.check("repair")
	p.pressIn("dialog", "Cancel")
	p.press("Delete …")
	p.untilText("dialog", "Delete shop?")
	p.check("delete")
	p.keys(kb.Escape)
	p.press("← All sessions")
	p.press("default")
	p.until("a QR code is shown", `document.querySelector('img.qr')?.checkVisibility()`)
	p.press("No camera? Type a code on the phone instead")
	p.check("pairing")
	p.press("Workers")
	p.untilText("table", "alive")
	p.check("workers")
	p.press("Drain … worker " + eval[string](p, `document.querySelector('[data-worker]').dataset.worker`))
	p.untilText("dialog", "No other worker is alive")
	p.check("drain")
	p.keys(kb.Escape)
	eval[bool](p, `(location.hash = '#/sessions/nobody', true)`)
	p.untilText("main", "There is no session nobody")
	p.check("missing")
}

// TestByKeyboardAlone goes through the console without a mouse.
func TestByKeyboardAlone(t *testing.T) {
	s := newStage(t)
	p := newTab(t, s.url, 1280, 900)
	p.until("the focus is in the field for the key", `document.activeElement?.id === 'key'`)
	p.keys(keys["admin"], kb.Enter)
	p.untilText("table", "default")
	p.until("the heading has the focus", `document.activeElement?.tagName === 'H1'`)

	// Round the page once: each stop is seen, in the order of the page, and none twice.
	eval[bool](p, `(document.activeElement.blur(), document.querySelector('#skip').focus(), true)`)
	if got := p.focused(); got != "Skip to the content" {
		t.Errorf("the first stop is %q", got)
	}
	var stops []string
	for range 40 {
		p.keys(kb.Tab)
		stop := eval[string](p, `(() => {
			const e = document.activeElement;
			if (e === document.body) return '';
			const outline = (pseudo) => { const s = getComputedStyle(e, pseudo); return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2; };
			const n = (e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText || e.tagName).trim().replace(/\s+/g, ' ');
			return (outline() || outline('::after') ? '' : 'UNSEEN ') + n;
		})()`)
		if stop == "" || stop == "Skip to the content" {
			break
		}
		stops = append(stops, stop)
	}
	want := []string{"Sessions", "Workers", "API", "Sign out", "New session", "all 1", "pairing 1", "Name, number or worker", "Cause", "First", "default"}
	if strings.Join(stops, "|") != strings.Join(want, "|") {
		t.Errorf("the stops are\n%q, want\n%q", stops, want)
	}

	// A dialog keeps the focus, and gives it back.
	eval[bool](p, `([...document.querySelectorAll('button')].find((b) => b.innerText === 'New session').focus(), true)`)
	p.keys(kb.Enter)
	p.until("the dialog has the focus", `document.activeElement?.id === 'c-name'`)
	for range 12 {
		p.keys(kb.Tab)
		if !eval[bool](p, `document.activeElement === document.body || Boolean(document.activeElement.closest('dialog'))`) {
			t.Fatalf("the focus leaves the dialog: it is on %q", p.focused())
		}
	}
	p.keys(kb.Escape)
	p.until("the dialog is closed", `!document.querySelector('dialog')`)
	if got := p.focused(); got != "New session" {
		t.Errorf("after the dialog the focus is on %q", got)
	}
	p.keys(kb.Enter)
	p.until("the dialog has the focus", `document.activeElement?.id === 'c-name'`)
	p.keys("Not A Name", kb.Enter)
	if eval[bool](p, `document.querySelector('#c-name').checkValidity()`) {
		t.Error("a name that none may be is taken")
	}
	eval[bool](p, `(document.querySelector('#c-name').select(), true)`)
	p.keys("typed", kb.Enter)
	p.untilText("h1", "typed")
	p.until("the heading has the focus", `document.activeElement?.tagName === 'H1'`)
	if got := eval[string](p, `document.title`); got != "typed · Holdfast" {
		t.Errorf("the title is %q", got)
	}
	p.until("it shows a code", `document.querySelector('img.qr')?.checkVisibility()`)

	// From the heading on: the buttons come next.
	p.keys(kb.Tab)
	if got := p.focused(); got != "Stop" {
		t.Fatalf("behind the heading comes %q", got)
	}
	p.keys(kb.Enter)
	p.untilText(".state", "stopped")
	if got := p.focused(); got != "Start" {
		t.Errorf("Stop is gone and the focus is on %q", got)
	}
	p.back()
	p.keys(kb.Tab)
	p.keys(" ")
	p.untilText(".state", "pairing")
	p.until("it is said", `document.querySelector('#said').textContent.includes('typed is')`)
}

func TestNothingMovesForThoseWhoAskedForThat(t *testing.T) {
	s := newStage(t)
	p := newTab(t, s.url, 1280, 900)
	p.signIn("admin")
	moves := `(() => {
		const box = document.createElement('div');
		box.className = 'notice ok';
		document.querySelector('#notices').append(box);
		const name = getComputedStyle(box).animationName;
		box.remove();
		return name;
	})()`
	if got := eval[string](p, moves); got == "none" {
		t.Error("a notice does not come in at all")
	}
	p.do(command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-reduced-motion", Value: "reduce"}}}))
	if got := eval[string](p, moves); got != "none" {
		t.Errorf("it still moves: %s", got)
	}
}
