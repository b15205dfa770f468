package browsertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestTextOfStrangersIsText has strangers write HTML wherever they can.
func TestTextOfStrangersIsText(t *testing.T) {
	s := newStage(t)
	s.pair("default", phone)
	const evil = `<img src=x onerror="window.broken=1"><script>window.broken=1</script><a href="javascript:window.broken=1">press</a>"'` + "`&amp;${window.broken=1}"
	s.sim("POST", "/contacts", map[string]any{"number": contact, "name": "<b onmouseover=window.broken=1>Eve</b>\u202etxt.exe"})
	s.sim("POST", "/contacts/"+contact+"/send", map[string]any{"to": phone, "text": "before the page: " + evil})
	s.api("PATCH", "/api/sessions/default", map[string]any{"settings": map[string]any{"labels": map[string]string{"<i>label</i>": evil}}})
	p := newTab(t, s.url, 1280, 900)
	p.signIn("admin")
	p.press("default")
	p.untilText(".events", "before the page: <img src=x onerror=")
	s.sim("POST", "/contacts/"+contact+"/send", map[string]any{"to": phone, "text": "while it is open: " + evil})
	p.untilText(".events", "while it is open: <img src=x onerror=")
	p.untilText(".events", "<b onmouseover=window.broken=1>Eve</b>")
	p.untilText(".facts", "<i>label</i>")
	p.fill("To", contact)
	p.fill("Text", evil)
	p.press("Send")
	p.until("it is sent", `document.querySelector('.sent [data-state]')`)
	eval[bool](p, `(location.hash = '#/sessions/' + encodeURIComponent('<img src=x onerror=window.broken=1>'), true)`)
	p.untilText("main", "There is no session <img src=x")
	eval[bool](p, `(location.hash = '#/?q=' + encodeURIComponent('<img src=x onerror=window.broken=1>') + '&state=<b>&owner=<b>', true)`)
	p.untilText("main", "No session is like that")
	p.shot("hostile")
	if eval[bool](p, `'broken' in window`) {
		t.Error("what a stranger wrote was run")
	}
	if n := eval[int](p, `document.querySelectorAll('main img:not(.qr), main script, main b[onmouseover], main a[href^="javascript"]').length`); n != 0 {
		t.Errorf("what a stranger wrote has become %d elements", n)
	}
	// The browser itself refuses text as HTML and scripts that stand in the page.
	if !eval[bool](p, `(() => { try { document.createElement('p').innerHTML = '<b>x</b>'; return false; } catch (e) { return e instanceof TypeError; } })()`) {
		t.Error("text may become HTML")
	}
	p.mu.Lock()
	p.troubles = nil // of this last attempt
	p.mu.Unlock()
}

// TestViewersSeeNeitherCodesNorButtons signs in with the least of the keys.
func TestViewersSeeNeitherCodesNorButtons(t *testing.T) {
	s := newStage(t)
	p := newTab(t, s.url, 1280, 900)
	p.signIn("viewer")
	p.press("default")
	p.untilText(".state", "pairing")
	p.untilText(".events", "for operators")
	p.shot("viewer")
	if got := eval[string](p, `[...document.querySelectorAll('main button')].filter((b) => b.checkVisibility()).map((b) => b.innerText).join()`); got != "1 h,24 h,7 d,Pause" {
		t.Errorf("a viewer sees the buttons %s", got)
	}
	if eval[bool](p, `Boolean(document.querySelector('.qr, form'))`) {
		t.Error("a viewer sees a code or a form")
	}
	p.press("Workers")
	p.untilText("table", "alive")
	if eval[bool](p, `Boolean(document.querySelector('main button'))`) {
		t.Error("a viewer sees a button at the workers")
	}
	p.press("Sessions")
	p.untilText("table", "default")
	if strings.Contains(p.text("main"), "New session") {
		t.Error("a viewer may create sessions")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.asked {
		if strings.Contains(a, "/qr") {
			t.Errorf("the page of a viewer asks for a code: %s", a)
		}
	}
}

// TestLoggedOutAndBack is a device that was removed on the phone: the repair has to
// wait, an admin may go past that, and what was put aside can be restored.
func TestLoggedOutAndBack(t *testing.T) {
	s := newStage(t)
	s.pair("default", phone)
	p := newTab(t, s.url, 1280, 900)
	p.signIn("operator")
	p.press("default")
	p.untilText(".state", "online")
	s.sim("POST", "/faults", map[string]any{"kind": "device_removed", "now": true, "device": phone})
	p.untilText(".state", "conflict")
	p.untilText(".state", "logged_out")
	p.untilText(".lines", "Its cooldown ends in 4:")
	p.shot("logged-out")
	p.press("Repair …")
	p.untilText("dialog", "is cooling down")
	p.untilText("dialog", "An admin can go past it")
	p.shot("cooldown-operator")
	p.keys(kb.Escape)
	if strings.Contains(p.text(".actions"), "Delete") {
		t.Error("an operator sees Delete")
	}
	p.press("Restore …")
	p.untilText("dialog", "logged_out")
	p.shot("restore")
	p.pressIn("dialog", "Restore")
	p.untilText(".state", "online")

	s.sim("POST", "/faults", map[string]any{"kind": "device_removed", "now": true, "device": phone})
	p.untilText(".state", "conflict")
	p.press("Sign out")
	p.signIn("admin")
	p.untilText(".state", "conflict")
	p.press("Repair …")
	p.untilText("dialog", "As an admin you can go past it")
	p.pressIn("dialog", "Repair without waiting")
	p.scan(s, phone)
	p.untilText(".state", "online")
}

// TestTheAPIRefusesARepair hides the cooldown from the page, as if it had just begun:
// the refusal of the API says how long it lasts.
func TestTheAPIRefusesARepair(t *testing.T) {
	s := newStage(t)
	s.pair("default", phone)
	s.sim("POST", "/faults", map[string]any{"kind": "device_removed", "now": true, "device": phone})
	s.until("it is logged out", func() bool { return s.state("default") == "conflict" })
	front := s.front(func(w http.ResponseWriter, r *http.Request, through http.Handler) {
		if r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, "/api/sessions") || strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
			through.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		through.ServeHTTP(answer, r)
		w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
		w.WriteHeader(answer.Code)
		fmt.Fprint(w, strings.ReplaceAll(answer.Body.String(), `"cooldownUntil"`, `"unknown"`))
	})
	p := newTab(t, front, 1280, 900)
	p.signIn("operator")
	p.press("default")
	p.untilText(".state", "conflict")
	p.press("Repair …")
	p.untilText("dialog", "A fresh code is shown")
	p.pressIn("dialog", "Clear and show a code")
	p.untilText("dialog", "is cooling down")
	p.untilText("dialog", "It can pair again in 4:")
	p.pressIn("dialog", "Close")
	p.until("the dialog is closed", `!document.querySelector('dialog')`)
	if got := p.focused(); got != "Repair …" {
		t.Errorf("the focus is on %q", got)
	}
}

// TestPairByNumberAndDelete pairs with the code that is typed on the phone.
func TestPairByNumberAndDelete(t *testing.T) {
	s := newStage(t)
	p := newTab(t, s.url, 390, 844)
	p.phone()
	p.signIn("admin")
	p.press("New session")
	p.fill("Name", "by-number")
	p.press("Create")
	p.untilText("h1", "by-number")
	// The code to scan moves what is below it.
	p.until("a code to scan is shown", `document.querySelector('.pairing img:not([hidden])')?.getBoundingClientRect().height > 0`)
	p.press("No camera? Type a code on the phone instead")
	p.fill("Number of the phone, with country code", "12")
	p.press("Get a code")
	p.untilText("main", "No code:")
	p.fill("Number of the phone, with country code", "+49 170 0000001")
	p.press("Get a code")
	p.until("there is a code", `document.querySelector('.paircode')`)
	p.shot("pair-code")
	code := eval[string](p, `document.querySelector('.paircode [aria-hidden]').innerText`)
	s.sim("POST", "/link", map[string]any{"code": strings.ReplaceAll(code, "-", ""), "number": phone})
	p.untilText(".state", "online")
	p.shot("phone-online")
	p.press("Delete …")
	p.fill("Type the name to confirm", "by-number")
	p.press("Delete for good")
	p.untilText("main", "There is no session by-number")
	p.press("All sessions")
	p.untilText("table", "default")
	if status, _ := s.try("GET", "/api/sessions/by-number", nil); status != http.StatusNotFound {
		t.Errorf("the deleted session is still there: %d", status)
	}
}

// TestTheKeyStaysInItsTab looks where the key is kept.
func TestTheKeyStaysInItsTab(t *testing.T) {
	s := newStage(t)
	p := newTab(t, s.url, 1280, 900)
	p.signIn("operator")
	p.untilText("table", "default")
	if got := eval[string](p, `JSON.stringify([Object.values(sessionStorage), localStorage.length, document.cookie])`); got != `[["`+keys["operator"]+`"],0,""]` {
		t.Errorf("it is kept like this: %s", got)
	}
	eval[bool](p, `(location.reload(), true)`)
	p.untilText("#who", "operator")
	p.untilText("table", "default")

	other, stop := chromedp.NewContext(p.ctx)
	defer stop()
	if err := chromedp.Do(other, chromedp.Navigate(s.url+"/console/")); err != nil {
		t.Fatal(err)
	}
	asks, err := chromedp.Run(other, chromedp.Evaluate[bool](`new Promise((resolve) => { const look = () => document.querySelector('#key') ? resolve(true) : document.querySelector('table') ? resolve(false) : setTimeout(look, 50); look(); })`, chromedp.EvalAwaitPromise))
	if err != nil || !asks {
		t.Errorf("another tab is signed in as well: %v %v", asks, err)
	}

	p.press("Sign out")
	p.until("the form", `document.querySelector('#key')`)
	if n := eval[int](p, `sessionStorage.length`); n != 0 {
		t.Errorf("after signing out %d entries are kept", n)
	}
	var shown map[string]any
	if err := json.Unmarshal(s.api("GET", "/api/me", nil), &shown); err != nil || shown["role"] != "admin" {
		t.Errorf("/api/me answers %v: %v", shown, err)
	}
}
