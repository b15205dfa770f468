package wasim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/types/events"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/infra/wasim/wasimtest"
)

// call makes a control request and returns its status and body.
func call(t *testing.T, s *wasim.Server, method, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(within(t), method, s.ControlURL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(out)
}

func TestControl(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	s := start(t, wasim.Options{})
	good := func(method, path, body string) string {
		t.Helper()
		status, out := call(t, s, method, path, body)
		if status != http.StatusOK {
			t.Fatalf("%s %s: %d %s", method, path, status, out)
		}
		return out
	}
	b := newBot(t, s, nil)
	if err := b.Connect(); err != nil {
		t.Fatal(err)
	}
	qr := expect[*events.QR](t, b, nil).Codes[0]
	body := must(json.Marshal(map[string]any{"qr": qr, "number": "+49 170 0000001"}))
	var d wasim.Status
	if err := json.Unmarshal([]byte(good("POST", "/scan", string(body))), &d); err != nil {
		t.Fatal(err)
	}
	if d.JID != own+":1@s.whatsapp.net" {
		t.Errorf("device: %+v", d)
	}
	expect[*events.ManualLoginReconnect](t, b, nil)
	b.Disconnect()
	if err := wasimtest.Connect(within(t), b.Client); err != nil {
		t.Fatal(err)
	}
	good("POST", "/contacts", `{"number":"491700000002","name":"Ann","reply":"you said {}"}`)
	good("POST", "/contacts/491700000002/send", `{"to":"491700000001","text":"n","count":3}`)
	b.expectText(t, "n 3")
	b.say(t, s.Contact(other).PN(), "hello")
	good("GET", "/contacts/491700000002/received?text=hello&waitSeconds=5", "")
	b.expectText(t, "you said hello")
	good("POST", "/devices/"+url.PathEscape(d.JID)+"/node", `{"tag":"ib","attrs":{"from":"s.whatsapp.net"},"children":[{"tag":"downgrade_webclient"}]}`)
	expect[*events.QRScannedWithoutMultidevice](t, b, nil)
	id := good("POST", "/faults", `{"kind":"zombie","device":"491700000001","times":-1}`)
	if list := good("GET", "/faults", ""); !strings.Contains(list, "zombie") || !strings.Contains(id, `"id"`) {
		t.Errorf("faults: %s %s", id, list)
	}
	good("DELETE", "/faults", "")
	good("POST", "/groups", `{"subject":"us","members":["491700000001","491700000002"]}`)
	good("POST", "/revision", `{"revision":7}`)
	good("POST", "/devices/491700000001/drop", `{"how":"tcp"}`)
	expect[*events.Disconnected](t, b, nil)
	for _, path := range []string{"/", "/accounts", "/devices", "/contacts", "/groups", "/truth", "/truth?device=" + own, "/healthz"} {
		if out := good("GET", path, ""); !json.Valid([]byte(out)) {
			t.Errorf("%s: %s", path, out)
		}
	}
	good("POST", "/truth/reset", "")
	good("DELETE", "/devices/"+url.PathEscape(d.JID), "")

	for _, bad := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/faults", `{"kind":"mute","colour":"red"}`, 400},
		{"POST", "/faults", `{"kind":"mute"} {}`, 400},
		{"POST", "/faults", `{"kind":`, 400},
		{"POST", "/faults", `{"kind":"mute","now":true}`, 409},
		{"POST", "/scan", `{"qr":"nonsense","number":"491700000001"}`, 400},
		{"POST", "/scan", string(body), 404},
		{"POST", "/scan", `{"qr":"x","number":"12"}`, 400},
		{"POST", "/link", `{"code":"ABCD-EFGH","number":"491700000001"}`, 404},
		{"POST", "/contacts/491700000002/send", `{"to":"491700000009","text":"x"}`, 404},
		{"POST", "/contacts/491700000002/send", `{"text":"x"}`, 400},
		{"POST", "/devices/491700000009/drop", `{"how":"tcp"}`, 404},
		{"GET", "/contacts/491700000002/received?text=never&waitSeconds=0.05", "", 504},
		{"DELETE", "/faults/f99", "", 404},
		{"GET", "/nowhere", "", 404},
	} {
		status, out := call(t, s, bad.method, bad.path, bad.body)
		var e struct{ Error string }
		if err := json.Unmarshal([]byte(out), &e); status != bad.status || err != nil || e.Error == "" {
			t.Errorf("%s %s %s: %d %s", bad.method, bad.path, bad.body, status, out)
		}
	}
}

func TestWatchScansWhatIsShown(t *testing.T) {
	s := start(t, wasim.Options{})
	b := newBot(t, s, nil)
	if err := b.Connect(); err != nil {
		t.Fatal(err)
	}
	qr := expect[*events.QR](t, b, nil).Codes[0]
	shows := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Api-Key") != "k" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"code": qr})
	}))
	defer shows.Close()
	fetch := must(wasim.FetchQR(shows.Client(), shows.URL, "k"))
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Watch(ctx, own, 10*time.Millisecond, fetch, func(_ *wasim.Device, err error) { result <- err })
	}()
	if err := <-result; err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	expect[*events.PairSuccess](t, b, nil)
	if _, err := wasim.FetchQR(http.DefaultClient, "nowhere", ""); !errors.Is(err, wasim.ErrInput) {
		t.Errorf("no URL: %v", err)
	}
}

func FuzzStanzaJSON(f *testing.F) {
	f.Add([]byte(`{"tag":"ib","attrs":{"from":"@s.whatsapp.net","id":"1"},"children":[{"tag":"x","text":"y"},{"tag":"z","base64":"AAA="}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var st wasim.Stanza
		if json.NewDecoder(bytes.NewReader(data)).Decode(&st) != nil {
			return
		}
		n, err := st.Node()
		if err != nil {
			return
		}
		if plain, err := wasim.Marshal(n); err == nil && len(plain) == 0 {
			t.Error(fmt.Sprint("nothing for ", n))
		}
	})
}
