package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
)

// sealedLips is a deployment as it runs in production, two processes over one
// store, with the log of both at debug. What must never come to light is put on a
// list the moment it exists.
type sealedLips struct {
	*testing.T
	ctx    context.Context
	sim    *wasim.Server
	listen string // of the admin API
	health string // of the worker
	keys   map[adminapi.Role]string

	mu      sync.Mutex
	secrets map[string]string // by text: what it is
	answers bytes.Buffer      // all that is not a success
	out     map[string]*bytes.Buffer
}

// secret puts a text on the list, in the forms in which it could come to light.
func (l *sealedLips) secret(what, text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, form := range []string{text, url.QueryEscape(text), hex.EncodeToString([]byte(text)), base64.StdEncoding.EncodeToString([]byte(text))} {
		l.secrets[form] = what
	}
	return text
}

func random() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// child runs the program with a file of settings; what it writes is kept under
// its name.
func (l *sealedLips) child(name string, set map[string]string, args ...string) *exec.Cmd {
	var file strings.Builder
	for setting, value := range set {
		fmt.Fprintf(&file, "%s: %q\n", setting, value)
	}
	cmd := exec.Command(os.Args[0], append([]string{name, "--config", writeFile(l.T, name+".yaml", file.String())}, args...)...)
	cmd.Env = append(os.Environ(), childVariable+"=1")
	out := &bytes.Buffer{}
	l.out[name] = out
	cmd.Stdout = out
	cmd.Stderr = out // the same writer, so that both are written by one goroutine
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if text := out.String(); l.Failed() {
			l.Logf("the end of what %s wrote:\n%s", name, text[max(0, len(text)-2000):])
		}
	})
	return cmd
}

// ask sends a request as a role and keeps what is not a success.
func (l *sealedLips) ask(role adminapi.Role, method, path, body string, answer any) int {
	l.Helper()
	req, err := http.NewRequestWithContext(l.ctx, method, "http://"+l.listen+path, strings.NewReader(body))
	if err != nil {
		l.Fatal(err)
	}
	req.Header.Set("X-Api-Key", l.keys[role])
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode >= 400 {
		l.mu.Lock()
		l.answers.Write(b)
		l.mu.Unlock()
		return resp.StatusCode
	}
	if answer != nil {
		if err := json.Unmarshal(b, answer); err != nil {
			l.Fatalf("%s %s: %s: %v", method, path, b, err)
		}
	}
	return resp.StatusCode
}

// want asks until the answer has a status.
func (l *sealedLips) want(status int, role adminapi.Role, method, path, body string, answer any) {
	l.Helper()
	for {
		got := l.ask(role, method, path, body, answer)
		if got == status {
			return
		}
		if l.ctx.Err() != nil {
			l.Fatalf("%s %s: HTTP %d, want %d", method, path, got, status)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (l *sealedLips) until(session string, done func(adminapi.Session) bool) {
	l.Helper()
	for {
		var s adminapi.Session
		if l.ask(adminapi.Viewer, "GET", "/api/sessions/"+session, "", &s) == 200 && done(s) {
			return
		}
		if l.ctx.Err() != nil {
			l.Fatalf("session %s is %s after %s", session, s.State, s.Cause)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func online(s adminapi.Session) bool { return s.State == state.Online }

// TestNothingSecretComesToLight runs a story with everything in it that a log
// could tell, and then reads the logs, the metrics, the answers that are errors,
// and what was stored.
func TestNothingSecretComesToLight(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	l := &sealedLips{T: t, ctx: ctx, sim: startSim(t, wasim.Options{}), keys: map[adminapi.Role]string{}, secrets: map[string]string{}, out: map[string]*bytes.Buffer{}}
	var list []string
	for _, role := range []adminapi.Role{adminapi.Viewer, adminapi.Operator, adminapi.Admin} {
		l.keys[role] = l.secret("API key", random())
		list = append(list, role.String()+":"+role.String()+":"+adminapi.HashKey(l.keys[role]))
	}

	// A receiver for all sessions, with secrets in its URL, that checks what it gets.
	hookKey := l.secret("webhook secret", "whsec_"+base64.StdEncoding.EncodeToString([]byte(random())))
	verifier, err := standardwebhooks.NewWebhook(hookKey)
	if err != nil {
		t.Fatal(err)
	}
	var delivered, canary atomic.Int32
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch n := delivered.Add(1); {
		case verifier.Verify(body, r.Header) != nil:
			t.Error("a request is not signed with the secret")
		case n == 2:
			w.WriteHeader(http.StatusBadGateway) // tried again
		case n == 3:
			w.WriteHeader(http.StatusGone) // put aside
		}
	}))
	defer receiver.Close()
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { canary.Add(1) }))
	defer trap.Close()
	hookURL := strings.Replace(receiver.URL, "://", "://hook:"+l.secret("webhook password", random())+"@", 1) +
		"/" + l.secret("webhook path", random()) + "?token=" + l.secret("webhook token", random())
	proxyPassword := l.secret("proxy password", random())
	proxy := tunnel(t, proxyPassword)

	dir := t.TempDir()
	if l.listen, err = freeAddress(); err != nil {
		t.Fatal(err)
	}
	if l.health, err = freeAddress(); err != nil {
		t.Fatal(err)
	}
	set := map[string]string{"data-dir": dir, "log-level": "debug", "log-format": "json", "api-keys": strings.Join(list, ","), "listen": l.listen}
	admin := l.child("admin", set)
	set["webhook-url"], set["webhook-secret"], set["listen"], set["whatsapp-url"], set["whatsapp-root-key"] = hookURL, hookKey, l.health, l.sim.URL(), l.sim.RootKeyHex()
	worker := l.child("worker", set, quickly...)

	// Two sessions, one of them through a proxy; one paired by QR, one by code.
	ownSecret := l.secret("webhook secret", random())
	l.want(202, adminapi.Operator, "POST", "/api/sessions", `{"name":"shop","settings":{"proxy":"http://holder:`+proxyPassword+`@`+proxy+`"}}`, nil)
	l.want(202, adminapi.Operator, "POST", "/api/sessions", `{"name":"desk","settings":{"webhookUrl":"http://127.0.0.1:1/`+l.secret("webhook path", random())+`","webhookSecret":"`+ownSecret+`"}}`, nil)
	master, err := os.ReadFile(filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(master)) {
		if line = strings.TrimSpace(line); len(line) >= 16 {
			l.secret("master key", line)
		}
	}

	const phone, second, contact = "491700000041", "491700000042", "491700000043"
	for _, number := range []string{phone, second, contact} {
		l.secret("phone number", number)
	}
	var qr adminapi.QR
	l.want(200, adminapi.Operator, "GET", "/api/sessions/shop/qr?wait=20s", "", &qr)
	for i, part := range strings.Split(qr.Code, ",") {
		if len(part) >= 16 {
			l.secret(fmt.Sprintf("part %d of a QR text", i), part)
		}
	}
	l.ask(adminapi.Viewer, "GET", "/api/sessions/shop/qr", "", nil) // refused
	dev, err := l.sim.Phone(phone).Scan(ctx, qr.Code)
	if err != nil {
		t.Fatal(err)
	}
	var code adminapi.Command
	for code.PairCode == "" {
		l.want(202, adminapi.Operator, "POST", "/api/sessions/desk/pair-code?wait=20s", `{"phone":"+49 1700 000042"}`, &code)
	}
	l.secret("pairing code", code.PairCode)
	l.secret("pairing code", strings.ReplaceAll(code.PairCode, "-", ""))
	other, err := l.sim.Phone(second).EnterCode(ctx, code.PairCode)
	if err != nil {
		t.Fatal(err)
	}
	l.until("shop", online)
	l.until("desk", online)

	// Messages both ways: texts, hostile ones, one that does not decrypt.
	ada := l.sim.Contact(contact)
	ada.SetName(l.secret("push name", "Ada "+random()))
	if _, err := l.sim.Inject(wasim.Fault{Kind: wasim.CorruptMessage, Device: phone, Contact: contact}); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"in " + random(), "</script><img src=x onerror=alert(1)> " + random()} {
		if _, err := ada.SendText(ctx, phone, l.secret("message", text)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ada.Send(ctx, phone, &waE2E.Message{ImageMessage: &waE2E.ImageMessage{
		URL: proto.String(trap.URL + "/image.enc"), DirectPath: proto.String("/image.enc"), Mimetype: proto.String("image/jpeg"),
		MediaKey: make([]byte, 32), FileSHA256: make([]byte, 32), FileEncSHA256: make([]byte, 32), Caption: proto.String(l.secret("caption", "look "+random()))}}); err != nil {
		t.Fatal(err)
	}
	group, err := l.sim.NewGroup(l.secret("subject of a group", "plot "+random()), phone, contact)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{contact, group.JID.String()} {
		text := l.secret("message", "out "+random())
		body, _ := json.Marshal(map[string]string{"to": to, "text": text})
		l.want(202, adminapi.Operator, "POST", "/api/sessions/shop/messages?wait=20s", string(body), nil)
		if _, err := ada.WaitText(ctx, text); err != nil {
			t.Fatal(err)
		}
	}
	// Files by URL: one that is there, one that is not, one that is out of bounds.
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/there") {
			fmt.Fprint(w, "a file of a customer")
			return
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	defer files.Close()
	for to, at := range map[string]string{contact: files.URL + "/there/", phone: files.URL + "/gone/", second: "http://10.255.255.1/",
		l.secret("phone number", "491700000048"): "http://127.0.0.1:1/"} { // the last is tried again and again, and holds up its own chat alone
		body, _ := json.Marshal(map[string]any{"to": to, "text": l.secret("caption", random()),
			"media": map[string]string{"url": at + l.secret("path of a file", random()) + "?token=" + l.secret("token of a file", random()), "kind": "document", "fileName": l.secret("name of a file", random())}})
		l.ask(adminapi.Operator, "POST", "/api/sessions/shop/messages?wait=1s", string(body), nil)
	}

	// A message that cannot be sent, and requests that are wrong in every way.
	if _, err := l.sim.Inject(wasim.Fault{Kind: wasim.SendError, Device: phone, Code: 479, Times: 1}); err != nil {
		t.Fatal(err)
	}
	l.ask(adminapi.Operator, "POST", "/api/sessions/shop/messages?wait=5s", `{"to":"491700000049","text":"`+l.secret("message", random())+`"}`, nil)
	l.secret("phone number", "491700000049")
	wrong := l.secret("value at fault", random())
	for _, r := range [][3]string{
		{"POST", "/api/sessions", `{"name":"bad","settings":{"webhookSecret":"whsec_` + wrong + `!"}}`},
		{"POST", "/api/sessions", `{"name":"bad","settings":{"webhookUrl":"ftp://` + wrong + `"}}`},
		{"POST", "/api/sessions", `{"name":"bad","settings":{"webhookUrl":"http://169.254.169.254/` + wrong + `"}}`},
		{"POST", "/api/sessions", `{"name":"bad","settings":{"proxy":"gopher://u:` + wrong + `@h"}}`},
		{"POST", "/api/sessions/desk/pair-code", `{"phone":"` + wrong + `"}`},
		{"POST", "/api/sessions/shop/messages", `{"to":"` + wrong + `","text":"x"}`},
		{"POST", "/api/sessions/shop/messages", `{"to":"491700000043","text":"` + wrong},
		{"POST", "/api/sessions/shop/messages", `["` + wrong + `"]`},
		{"GET", "/api/sessions?cursor=!" + wrong, ""},
		{"GET", "/api/sessions?limit=" + wrong, ""},
	} {
		if got := l.ask(adminapi.Admin, r[0], r[1], r[2], nil); got < 400 || got >= 500 {
			t.Errorf("%s %s: HTTP %d", r[0], r[1], got)
		}
	}
	for _, message := range []string{`{"conversation":{"` + wrong + `":1}}`, `{"extendedTextMessage":{"text":"x","previewType":"` + wrong + `"}}`, `{"imageMessage":{"mediaKey":"` + wrong + `!"}}`} {
		l.ask(adminapi.Operator, "POST", "/api/sessions/shop/messages?wait=2s", `{"to":"491700000043","message":`+message+`}`, nil)
	}
	l.keys[0] = l.secret("API key", random()) // one that is none
	l.ask(0, "GET", "/api/sessions", "", nil)

	// Lines that break, a proxy that refuses, a server that fails.
	for _, f := range []wasim.Fault{{Kind: wasim.ResetFault, Now: true}, {Kind: wasim.GarbageFrame, Device: phone, Now: true}, {Kind: wasim.StreamError, Code: 503, Device: second, Now: true}} {
		for _, d := range []*wasim.Device{dev, other} {
			if err := d.WaitOnline(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := l.sim.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []*wasim.Device{other, dev} {
		if err := d.WaitOnline(ctx); err != nil {
			t.Fatal(err)
		}
	}
	l.until("shop", online)
	l.until("desk", online)
	l.want(202, adminapi.Operator, "PATCH", "/api/sessions/shop", `{"settings":{"proxy":"http://holder:`+l.secret("proxy password", random())+`@`+proxy+`"}}`, nil)
	l.want(202, adminapi.Operator, "POST", "/api/sessions/shop/restart", "", nil)
	l.until("shop", func(s adminapi.Session) bool { return s.Attempt > 0 })
	l.want(202, adminapi.Operator, "PATCH", "/api/sessions/shop", `{"settings":{"proxy":""}}`, nil)
	l.want(202, adminapi.Operator, "POST", "/api/sessions/shop/restart", "", nil)
	l.until("shop", online)

	metrics := map[string]string{}
	for _, at := range []string{l.listen, l.health} {
		for _, path := range []string{"/metrics", "/health", "/health/ready", "/health/memory", "/qr-image"} {
			if resp, err := http.Get("http://" + at + path); err == nil {
				b, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				metrics[at+path] = string(b)
			}
		}
	}
	l.want(202, adminapi.Operator, "POST", "/api/sessions/desk/disconnect?wait=20s", "", nil)
	dev.Unlink()
	l.until("shop", func(s adminapi.Session) bool { return s.State != state.Online && s.Cause != state.CauseNone })
	for _, cmd := range []*exec.Cmd{worker, admin} {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", cmd.Args[1], err)
		}
	}

	if n := canary.Load(); n > 0 {
		t.Errorf("the URL in a message was asked %d times", n)
	}
	if delivered.Load() < 5 {
		t.Errorf("the receiver got %d events", delivered.Load())
	}
	metrics["answers"] = l.answers.String()
	for name, out := range l.out {
		metrics["output of "+name] = out.String()
	}
	for _, where := range []string{"output of worker", "output of admin", "answers", l.health + "/metrics"} {
		if len(metrics[where]) < 200 {
			t.Errorf("%s has %d bytes: there is nothing to be found", where, len(metrics[where]))
		}
	}
	// Whoever carries the folder off without the master key has none of it either.
	stored := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "master.key" {
			return err
		}
		b, err := os.ReadFile(path)
		stored += len(b)
		metrics["the file "+path] = string(b)
		return err
	})
	if err != nil || stored < 100<<10 {
		t.Errorf("the data folder has %d bytes: %v", stored, err)
	}
	if !strings.Contains(metrics["output of worker"], `"level":"DEBUG"`) {
		t.Error("the worker's log is not at debug")
	}
	for where, text := range metrics {
		told := map[string]bool{}
		for secret, what := range l.secrets {
			if i := strings.Index(text, secret); i >= 0 && !told[what] {
				told[what] = true
				t.Errorf("%s shows a %s:\n…%q…", where, what, text[max(0, i-300):min(len(text), i+len(secret)+200)])
			}
		}
	}
}

// tunnel is an HTTP proxy that asks for a password.
func tunnel(t *testing.T, password string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	hold := func(c net.Conn) {
		mu.Lock()
		open[c] = true
		mu.Unlock()
	}
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			hold(conn)
			all.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				want := "Basic " + base64.StdEncoding.EncodeToString([]byte("holder:"+password))
				if req.Method != http.MethodConnect || req.Header.Get("Proxy-Authorization") != want {
					fmt.Fprint(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
					return
				}
				to, err := net.Dial("tcp", req.Host)
				if err != nil {
					return
				}
				hold(to)
				defer to.Close()
				fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n")
				all.Go(func() {
					_, _ = io.Copy(to, in)
					to.Close()
				})
				_, _ = io.Copy(conn, to)
			})
		}
	})
	return listener.Addr().String()
}
