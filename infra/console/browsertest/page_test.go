package browsertest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	_ "image/png" // of screenshots
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
)

// tab is a tab of the browser. What it asks for and what it complains of is kept,
// and judged at the end of the test.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	asked    []string // URLs
	troubles []string // errors of scripts, refusals of the security policy
}

// newTab opens a tab of this size. The URL is that of the worker, or of what
// stands before it.
func newTab(t *testing.T, base string, width, height int64) *tab {
	t.Helper()
	needBrowser(t)
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(browserPath))
	for name, value := range map[string]any{"no-sandbox": true, "disable-gpu": true, "disable-background-networking": true,
		"disable-component-update": true, "disable-sync": true, "lang": "en-GB", "hide-scrollbars": true, "force-color-profile": "srgb"} {
		opts = append(opts, chromedp.Flag(name, value))
	}
	browser, stopBrowser := chromedp.NewExecAllocator(context.Background(), opts...)
	p := &tab{t: t}
	ctx, stop := chromedp.NewContext(browser, chromedp.WithListener(p.listen))
	p.ctx = ctx
	// The browser is started with the first action, and lives as long as its context.
	if err := chromedp.Do(ctx); err != nil {
		stopBrowser()
		t.Fatalf("starting %s: %v", browserPath, err)
	}
	own, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.mu.Lock()
		asked, troubles := p.asked, p.troubles
		p.mu.Unlock()
		if t.Failed() {
			p.shot("failed-" + strings.ReplaceAll(t.Name(), "/", "-"))
			t.Logf("the page says:\n%s", p.text("body"))
		}
		stop()
		stopBrowser()
		for _, a := range asked {
			if u, err := url.Parse(a); err != nil || u.Scheme != "blob" && u.Scheme != "data" && u.Host != own.Host {
				t.Errorf("the page asked somebody else: %s", a)
			}
			for _, key := range keys {
				if strings.Contains(a, key) {
					t.Error("an API key stands in a URL")
				}
			}
		}
		for _, trouble := range troubles {
			t.Errorf("the browser complains: %s", trouble)
		}
	})
	p.do(command(network.Enable, network.EnableParams{}), command(log.Enable, cdp.Empty{}), command(runtime.Enable, cdp.Empty{}),
		command(emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Europe/Berlin"}),
		chromedp.EmulateViewport(width, height), chromedp.Navigate(base+"/"))
	return p
}

// command is a command of the protocol as an action.
func command[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

func (p *tab) listen(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		p.asked = append(p.asked, e.Request.URL)
	case *runtime.EventExceptionThrown:
		p.troubles = append(p.troubles, fmt.Sprintf("exception: %s at %s:%d", cmp.Or(describe(e.ExceptionDetails.Exception), e.ExceptionDetails.Text), e.ExceptionDetails.URL, e.ExceptionDetails.LineNumber+1))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			b, _ := json.Marshal(e.Args) // to be read by people
			p.troubles = append(p.troubles, "console: "+string(b))
		}
	case *log.EventEntryAdded:
		// That the API refuses or is away is no fault of the page: the browser
		// notes it all the same.
		if e.Entry.Source == log.EntrySourceNetwork && strings.Contains(e.Entry.URL, "/api/") {
			return
		}
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			p.troubles = append(p.troubles, fmt.Sprintf("%s: %s (%s)", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	}
}

func describe(o *runtime.RemoteObject) string {
	if o == nil {
		return ""
	}
	return o.Description
}

// do runs actions within their time.
func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, within)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// eval is the value of an expression in the page.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	v, err := tryEval[T](p, expression)
	if err != nil {
		p.t.Fatalf("%v in %s", err, expression)
	}
	return v
}

func tryEval[T any](p *tab, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(p.ctx, within)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// until waits until an expression is so.
func (p *tab) until(what, expression string) {
	p.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(60 * time.Millisecond) {
		if eval[bool](p, "Boolean("+expression+")") {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("in vain: %s", what)
		}
	}
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always can
	}
	return string(b)
}

// text is what somebody reads of an element.
func (p *tab) text(selector string) string {
	s, err := tryEval[string](p, `document.querySelector(`+quote(selector)+`)?.innerText ?? ""`)
	if err != nil {
		return err.Error()
	}
	return s
}

// untilText waits until an element says so.
func (p *tab) untilText(selector, want string) {
	p.t.Helper()
	p.until(fmt.Sprintf("%s says %q", selector, want), `(document.querySelector(`+quote(selector)+`)?.innerText ?? "").includes(`+quote(want)+`)`)
}

// press clicks the button, link or summary of this name, as somebody with a mouse
// does: it must be there, be seen, and not lie below something else.
func (p *tab) press(name string) {
	p.t.Helper()
	p.pressIn("body", name)
}

func (p *tab) pressIn(within, name string) {
	p.t.Helper()
	find := `(() => {
		const all = document.querySelector(` + quote(within) + `)?.querySelectorAll('button, a, summary') ?? [];
		const found = [...all].find((e) => e.checkVisibility() && [e.innerText.trim().replace(/\s+/g, " "), e.getAttribute('aria-label')].includes(` + quote(name) + `));
		if (!found) return null;
		found.scrollIntoView({ block: 'center', behavior: 'instant' });
		const box = found.getBoundingClientRect();
		const at = { x: box.x + Math.min(box.width / 2, 60), y: box.y + box.height / 2 };
		const top = document.elementFromPoint(at.x, at.y);
		return found.contains(top) ? at : null;
	})()`
	p.until("a button "+name+" that can be pressed", find)
	at := eval[*struct{ X, Y float64 }](p, find)
	if at == nil {
		p.t.Fatalf("the button %s is gone again", name)
	}
	p.do(chromedp.MouseClickXY(at.X, at.Y))
}

// fill types into the field with this label.
func (p *tab) fill(label, text string) {
	p.t.Helper()
	p.until("a field "+label, `(() => {
		const found = [...document.querySelectorAll('label')].find((l) => l.checkVisibility() && l.innerText.trim() === `+quote(label)+`)?.control;
		found?.focus();
		found?.select?.();
		return document.activeElement === found;
	})()`)
	p.keys(text)
}

// keys types on whatever has the focus.
func (p *tab) keys(strokes ...string) {
	p.t.Helper()
	for _, k := range strokes {
		p.do(chromedp.KeyEvent(k))
	}
}

// back is Shift and Tab.
func (p *tab) back() {
	p.t.Helper()
	p.do(chromedp.KeyEvent(kb.Tab, chromedp.KeyModifiers(chromedp.ModifierShift)))
}

// focused describes what has the focus.
func (p *tab) focused() string {
	p.t.Helper()
	return eval[string](p, `(() => { const e = document.activeElement; return (e.getAttribute('aria-label') || e.innerText || e.labels?.[0]?.innerText || e.tagName).trim(); })()`)
}

// signIn signs in with the key of a role.
func (p *tab) signIn(role string) {
	p.t.Helper()
	p.fill("API key", keys[role])
	p.press("Sign in")
	p.untilText("#who", "("+role+")")
}

// scheme sets light or dark.
func (p *tab) scheme(name string) {
	p.t.Helper()
	p.do(command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}}))
}

// phone makes the tab that of a phone: narrow, and touched.
func (p *tab) phone() {
	p.t.Helper()
	p.do(chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulateScale(2)))
}

func (p *tab) desk() {
	p.t.Helper()
	p.do(chromedp.EmulateViewport(1280, 900))
}

// shot keeps a picture of the whole page, where somebody wants pictures.
func (p *tab) shot(name string) {
	dir := os.Getenv("HOLDFAST_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := p.picture(page.CaptureScreenshotParams{CaptureBeyondViewport: new(true)})
	if err != nil {
		p.t.Logf("no picture %s: %v", name, err)
		return
	}
	err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
	if err != nil {
		p.t.Errorf("picture %s: %v", name, err)
	}
}

func (p *tab) picture(params page.CaptureScreenshotParams) ([]byte, error) {
	ctx, cancel := context.WithTimeout(p.ctx, within)
	defer cancel()
	return chromedp.Run(ctx, func(ctx context.Context, t *chromedp.Target) ([]byte, error) {
		r, err := cdp.Call(ctx, t, page.CaptureScreenshot, params)
		return r.Data, err
	})
}

// readQR reads the code on the screen as a phone's camera would: from one picture,
// and if that is too hard for the reader here, from others, larger ones and such as
// show nothing but the code. It finds no code in one picture of a hundred.
func (p *tab) readQR() (code string, err error) {
	p.t.Helper()
	for _, scale := range []float64{3, 4, 5} {
		for _, pure := range []bool{false, true} {
			if code, err = p.readPicture(scale, pure); err == nil {
				return code, nil
			}
		}
	}
	return "", err
}

func (p *tab) readPicture(scale float64, pure bool) (string, error) {
	p.t.Helper()
	p.until("a QR code is shown", `(() => { const q = document.querySelector('img.qr'); return q?.checkVisibility() && q.complete && q.naturalWidth > 0; })()`)
	box := eval[page.Viewport](p, `(() => {
		const q = document.querySelector('img.qr');
		q.scrollIntoView({ block: 'center', behavior: 'instant' });
		const b = q.getBoundingClientRect();
		return { x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height };
	})()`)
	box.Scale = scale
	png, err := p.picture(page.CaptureScreenshotParams{Clip: &box, CaptureBeyondViewport: new(true)})
	if err != nil {
		return "", err
	}
	picture, _, err := image.Decode(bytes.NewReader(png))
	if err != nil {
		return "", err
	}
	bitmap, err := gozxing.NewBinaryBitmapFromImage(picture)
	if err != nil {
		return "", err
	}
	hints := map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_TRY_HARDER: true}
	if pure {
		hints[gozxing.DecodeHintType_PURE_BARCODE] = true
	}
	read, err := qrcode.NewQRCodeReader().Decode(bitmap, hints)
	if err != nil {
		return "", err
	}
	return read.GetText(), nil
}

// scan reads the code from the screen and has a phone scan it. A code may change
// between the two: then the next one is taken.
func (p *tab) scan(s *stage, number string) {
	p.t.Helper()
	var said []byte
	for end := time.Now().Add(2 * within); time.Now().Before(end); { // a code may last for 60 s
		code, err := p.readQR()
		if err != nil {
			said = []byte(err.Error())
			time.Sleep(500 * time.Millisecond)
			continue
		}
		status, b := s.request(s.control+"/scan", "POST", map[string]any{"qr": code, "number": number})
		if status == 200 {
			return
		}
		said = b
	}
	p.t.Fatalf("the code on the screen cannot be scanned: %s", said)
}
