package adminapi

import (
	"bytes"
	"context"
	"encoding/xml"
	"image/png"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"rsc.io/qr"

	"github.com/holdfast-wa/holdfast/state"
)

const qrText = "2@abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJ,KLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz01=,abc,def"

func TestQRFormats(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.showQR(o, qrText, time.Minute)
	code, err := qr.Encode(qrText, qr.L)
	if err != nil {
		t.Fatal(err)
	}
	get := func(accept, query, contentType string) reply {
		t.Helper()
		r := s.ask(Operator, "GET", "/api/sessions/shop/qr"+query, "", "Accept", accept)
		if r.StatusCode != 200 || r.Header.Get("Content-Type") != contentType || r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("ETag") == "" {
			t.Fatalf("%s: HTTP %d %v", accept, r.StatusCode, r.Header)
		}
		return r
	}
	for _, accept := range []string{"image/png", "image/*", "text/html;q=0.2, image/png;q=0.9", "image/avif,image/webp,image/*,*/*;q=0.8"} {
		img, err := png.Decode(bytes.NewReader(get(accept, "", "image/png").body))
		if err != nil {
			t.Fatal(err)
		}
		if side := img.Bounds().Dx(); side != (code.Size+8)*8 || side != img.Bounds().Dy() {
			t.Errorf("PNG of %v", img.Bounds())
		}
	}
	svg := get("image/svg+xml", "", "image/svg+xml").body
	if err := xml.Unmarshal(svg, new(any)); err != nil || bytes.Contains(svg, []byte("<script")) {
		t.Errorf("SVG: %v", err)
	}
	text := string(get("text/plain", "", "text/plain; charset=utf-8").body)
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) != (code.Size+4+1)/2 || utf8.RuneCountInString(lines[0]) != code.Size+4 {
		t.Errorf("%d lines of %d characters for %d modules", len(lines), utf8.RuneCountInString(lines[0]), code.Size)
	}
	// The drawing is the code: each module again.
	for y := range code.Size {
		line := []rune(lines[(y+2)/2])
		for x := range code.Size {
			r := line[x+2]
			white := r == '█' || (y+2)%2 == 0 && r == '▀' || (y+2)%2 == 1 && r == '▄'
			if white == code.Black(x, y) {
				t.Fatalf("module %d,%d is %q", x, y, r)
			}
		}
	}
	for _, accept := range []string{"", "*/*", "application/json", "application/json, image/png;q=0.5"} {
		got := want[QR](t, get(accept, "", "application/json"), 200)
		if got.Code != qrText || !got.ExpiresAt.Equal(s.now().Add(time.Minute)) {
			t.Errorf("%s: %+v", accept, got)
		}
	}
	get("application/json", "?format=svg", "image/svg+xml")
	wantProblem(t, s.ask(Operator, "GET", "/api/sessions/shop/qr", "", "Accept", "application/pdf"), CodeNotAcceptable)
	wantProblem(t, s.ask(Operator, "GET", "/api/sessions/shop/qr", "", "Accept", "image/png;q=0"), CodeNotAcceptable)
	wantProblem(t, s.ask(Viewer, "GET", "/api/sessions/shop/qr", ""), CodeForbidden)
}

func TestQRThatIsNotThere(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	wantProblem(t, s.ask(Operator, "GET", "/api/sessions/shop/qr", ""), CodeNoQR)
	s.showQR(o, qrText, time.Minute)
	s.pass(2 * time.Minute)
	wantProblem(t, s.ask(Operator, "GET", "/api/sessions/shop/qr", ""), CodeNoQR)
	s.status(o, state.Status{State: state.Conflict, Cause: state.CauseLoggedOut, CooldownUntil: s.now().Add(time.Minute)}, state.Identity{})
	if p := wantProblem(t, s.ask(Operator, "GET", "/api/sessions/shop/qr", ""), CodeNoQR); p.RetryAfter != 60 {
		t.Errorf("retryAfter %d", p.RetryAfter)
	}
	s.online(o)
	wantProblem(t, s.ask(Operator, "GET", "/api/sessions/shop/qr", ""), CodeAlreadyPaired)
}

func TestQRLongPoll(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	ask := func(headers ...string) <-chan reply {
		got := make(chan reply, 1)
		go func() { got <- s.ask(Operator, "GET", "/api/sessions/shop/qr?wait=30s", "", headers...) }()
		return got
	}
	waiting := ask()
	s.showQR(o, "first", time.Minute)
	first := <-waiting
	if got := want[QR](t, first, 200); got.Code != "first" {
		t.Errorf("code %q", got.Code)
	}
	tag := first.Header.Get("ETag")
	waiting = ask("If-None-Match", tag)
	s.showQR(o, "second", time.Minute)
	if got := want[QR](t, <-waiting, 200); got.Code != "second" {
		t.Errorf("code %q", got.Code)
	}
	if r := s.ask(Operator, "GET", "/api/sessions/shop/qr?wait=10ms", "", "If-None-Match", first.Header.Get("ETag")); r.StatusCode != 200 {
		t.Errorf("HTTP %d", r.StatusCode)
	}
	again := s.ask(Operator, "GET", "/api/sessions/shop/qr", "")
	if r := s.ask(Operator, "GET", "/api/sessions/shop/qr?wait=10ms", "", "If-None-Match", again.Header.Get("ETag")); r.StatusCode != 304 {
		t.Errorf("HTTP %d, want 304", r.StatusCode)
	}
	waiting = ask("If-None-Match", again.Header.Get("ETag"))
	s.online(o)
	wantProblem(t, <-waiting, CodeAlreadyPaired)
}

// The number is sealed, and yet tells one request from another.
func TestPairCodeOfAnotherNumber(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	ask := func(phone string) reply {
		return s.ask(Operator, "POST", "/api/sessions/shop/pair-code", `{"phone":"`+phone+`"}`, "Idempotency-Key", "k")
	}
	first := want[Command](t, ask("+49 151 23456789"), 202)
	same := func(when string) {
		t.Helper()
		if again := want[Command](t, ask("4915123456789"), 202); again.ID != first.ID {
			t.Errorf("%s: the same request made %s, not %s", when, again.ID, first.ID)
		}
	}
	same("pending")
	wantProblem(t, ask("4915123456780"), CodeIdempotencyMismatch)
	_, id, _ := state.ParseCommandRef(first.ID)
	s.end(o, first.ID, func(c *state.Command) {
		c.Sealed = s.seal("shop", state.KindCommand, id, state.CommandSecret{Phone: "4915123456789", PairCode: "ABCD-EFGH"})
	})
	same("done")
	wantProblem(t, ask("4915123456780"), CodeIdempotencyMismatch)
}

func TestPairCode(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	c := want[Command](t, s.ask(Operator, "POST", "/api/sessions/shop/pair-code", `{"phone":"+49 (151) 234-56789"}`), 202)
	_, id, _ := state.ParseCommandRef(c.ID)
	r, err := s.store.Get(context.Background(), state.OfSession("shop"), state.Key{Kind: state.KindCommand, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	var stored state.Command
	var secret state.CommandSecret
	if err := state.Decode(r.Value, &stored); err != nil {
		t.Fatal(err)
	}
	if err := s.api.openJSON(commandPlace("shop", id), stored.Sealed, &secret); err != nil || secret.Phone != "4915123456789" {
		t.Errorf("the owner reads %+v, %v", secret, err)
	}
	s.end(o, c.ID, func(c *state.Command) {
		c.Sealed = s.seal("shop", state.KindCommand, id, state.CommandSecret{PairCode: "ABCD-EFGH"})
	})
	if got := want[Command](t, s.ask(Operator, "GET", "/api/commands/"+c.ID, ""), 200); got.PairCode != "ABCD-EFGH" {
		t.Errorf("operator is shown %+v", got)
	}
	if got := s.ask(Viewer, "GET", "/api/commands/"+c.ID, ""); strings.Contains(string(got.body), "ABCD") {
		t.Errorf("viewer is shown %s", got.body)
	}
	s.online(o)
	wantProblem(t, s.ask(Operator, "POST", "/api/sessions/shop/pair-code", `{"phone":"4915123456789"}`), CodeAlreadyPaired)
}
