package adminapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
)

// routes are all routes with the least role that may call them, and a body that
// is valid.
var routes = []struct {
	method, path, body string
	role               Role
}{
	{"POST", "/api/sessions", `{"name":"new"}`, Operator},
	{"GET", "/api/sessions", "", Viewer},
	{"GET", "/api/sessions/{name}", "", Viewer},
	{"PATCH", "/api/sessions/{name}", `{"settings":{"profile":"gentle"}}`, Operator},
	{"DELETE", "/api/sessions/{name}", "", Admin},
	{"POST", "/api/sessions/{name}/start", "", Operator},
	{"POST", "/api/sessions/{name}/stop", "", Operator},
	{"POST", "/api/sessions/{name}/restart", "", Operator},
	{"POST", "/api/sessions/{name}/disconnect", "", Operator},
	{"POST", "/api/sessions/{name}/repair", `{}`, Operator},
	{"POST", "/api/sessions/{name}/restore", "", Operator},
	{"POST", "/api/sessions/{name}/debug", `{"on":true}`, Admin},
	{"POST", "/api/sessions/{name}/pair-code", `{"phone":"+49 151 23456789"}`, Operator},
	{"GET", "/api/sessions/{name}/qr", "", Operator},
	{"GET", "/api/sessions/{name}/events", "", Viewer},
	{"GET", "/api/events", "", Viewer},
	{"POST", "/api/sessions/{name}/messages", `{"to":"4915123456789","text":"hi"}`, Operator},
	{"GET", "/api/sessions/{name}/messages", "", Viewer},
	{"GET", "/api/sessions/{name}/messages/{id}", "", Viewer},
	{"DELETE", "/api/sessions/{name}/messages/{id}", "", Operator},
	{"POST", "/api/sessions/{name}/media", `a file`, Operator},
	{"GET", "/api/sessions/{name}/media", "", Viewer},
	{"GET", "/api/sessions/{name}/media/{id}", "", Viewer},
	{"DELETE", "/api/sessions/{name}/media/{id}", "", Operator},
	{"GET", "/api/sessions/{name}/commands", "", Viewer},
	{"GET", "/api/sessions/{name}/dead-letters", "", Viewer},
	{"POST", "/api/sessions/{name}/dead-letters/redrive", "", Operator},
	{"POST", "/api/sessions/{name}/dead-letters/{id}/redrive", "", Operator},
	{"GET", "/api/commands/{id}", "", Viewer},
	{"GET", "/api/workers", "", Viewer},
	{"GET", "/api/me", "", Viewer},
	{"GET", "/api/audit", "", Admin},
	{"POST", "/api/workers/{id}/drain", `{"wanted":true}`, Admin},
	{"DELETE", "/api/workers/{id}/drain", "", Admin},
	{"POST", "/api/workers/{id}/stopped", "", Admin},
}

func filled(path string) string {
	return strings.NewReplacer("{name}", "shop", "workers/{id}", "workers/w-1", "{id}", "shop.none").Replace(path)
}

func TestEachRouteIsForItsRole(t *testing.T) {
	for _, r := range routes {
		t.Run(r.method+" "+r.path, func(t *testing.T) {
			s := newStage(t)
			s.session("shop")
			wantProblem(t, s.ask(0, r.method, filled(r.path), r.body), CodeUnauthorized)
			wantProblem(t, s.ask(0, r.method, filled(r.path), r.body, "X-Api-Key", "wrong"), CodeUnauthorized)
			wantProblem(t, s.ask(0, r.method, filled(r.path), r.body, "Authorization", "Bearer "+HashKey(secretOf(Admin))), CodeUnauthorized)
			for _, role := range roles {
				got := s.ask(role, r.method, filled(r.path), r.body)
				if role < r.role {
					wantProblem(t, got, CodeForbidden)
				} else if got.StatusCode == 401 || got.StatusCode == 403 || got.StatusCode >= 500 {
					t.Errorf("%s: HTTP %d %s", role, got.StatusCode, got.body)
				}
			}
		})
	}
}

func TestDocumentHasAllRoutes(t *testing.T) {
	s := newStage(t)
	doc := want[struct {
		OpenAPI    string
		Paths      map[string]map[string]struct{ OperationID string }
		Components struct{ Schemas map[string]json.RawMessage }
	}](t, s.ask(0, "GET", "/api/openapi.json", ""), 200)
	if doc.OpenAPI != "3.1.0" || doc.Components.Schemas["Problem"] == nil {
		t.Errorf("OpenAPI %q, %d schemas", doc.OpenAPI, len(doc.Components.Schemas))
	}
	n := 0
	for _, path := range doc.Paths {
		n += len(path)
	}
	if n != len(routes) {
		t.Errorf("the document has %d routes, the tests know %d", n, len(routes))
	}
	page := s.ask(0, "GET", "/api/docs", "")
	for _, r := range routes {
		op, ok := doc.Paths[r.path][strings.ToLower(r.method)]
		if !ok {
			t.Errorf("%s %s is not in the document", r.method, r.path)
		}
		if !strings.Contains(string(page.body), `id="`+op.OperationID+`"`) {
			t.Errorf("%s is not on the docs page", op.OperationID)
		}
	}
	for _, foreign := range []string{"<script", "http://", "https://", "src=", "@import", "url("} {
		if strings.Contains(string(page.body), foreign) {
			t.Errorf("the docs page has %q", foreign)
		}
	}
	if page.StatusCode != 200 || page.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("docs page: HTTP %d", page.StatusCode)
	}
}

func TestBearerIsAKeyToo(t *testing.T) {
	s := newStage(t)
	want[SessionPage](t, s.ask(0, "GET", "/api/sessions", "", "Authorization", "Bearer "+secretOf(Viewer)), 200)
}

func TestUnroutedRequestsAreProblems(t *testing.T) {
	s := newStage(t)
	wantProblem(t, s.ask(Admin, "GET", "/api/nothing", ""), CodeNotFound)
	wantProblem(t, s.ask(Admin, "GET", "/", ""), CodeNotFound)
	r := s.ask(Admin, "PUT", "/api/sessions", "")
	wantProblem(t, r, CodeMethodNotAllowed)
	if allow := r.Header.Get("Allow"); !strings.Contains(allow, "POST") {
		t.Errorf("Allow %q", allow)
	}
}

func TestBadBodiesNameTheField(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.online(o)
	for _, tc := range []struct {
		method, path, body string
		code               Code
		field              string
	}{
		{"POST", "/api/sessions", `{`, CodeBadRequest, "body"},
		{"POST", "/api/sessions", `[]`, CodeInvalid, "body"},
		{"POST", "/api/sessions", `null`, CodeInvalid, "body"},
		{"POST", "/api/sessions", `{}`, CodeInvalid, "body.name"},
		{"POST", "/api/sessions", `{"name":"a","color":"red"}`, CodeInvalid, "body.color"},
		{"POST", "/api/sessions", `{"name":"UP"}`, CodeInvalid, "body.name"},
		{"POST", "/api/sessions", `{"name":"4915123456789"}`, CodeInvalid, "body.name"},
		{"POST", "/api/sessions", `{"name":7}`, CodeInvalid, "body.name"},
		{"POST", "/api/sessions", `{"name":"shop"}`, CodeExists, "body.name"},
		{"POST", "/api/sessions", `{"name":"a","wanted":"disconnected"}`, CodeInvalid, "body.wanted"},
		{"POST", "/api/sessions", `{"name":"a","settings":{"profile":"wild"}}`, CodeInvalid, "body.settings"},
		{"POST", "/api/sessions", `{"name":"a","settings":{"proxy":"ftp://x"}}`, CodeInvalid, "body.settings.proxy"},
		{"POST", "/api/sessions", `{"name":"a","settings":{"webhookUrl":"file:///etc/passwd"}}`, CodeInvalid, "body.settings.webhookUrl"},
		{"POST", "/api/sessions", `{"name":"a","settings":{"webhookSecret":"whsec_!"}}`, CodeInvalid, "body.settings.webhookSecret"},
		{"PATCH", "/api/sessions/shop", `{"settings":{"labels":{"":"x"}}}`, CodeInvalid, "body.settings.labels"},
		{"PATCH", "/api/sessions/shop", `{"settings":{"colour":"x"}}`, CodeInvalid, "body.settings.colour"},
		{"GET", "/api/sessions/UP", "", CodeInvalid, "path.name"},
		{"GET", "/api/sessions?limit=0", "", CodeInvalid, "query.limit"},
		{"GET", "/api/sessions?limit=x", "", CodeInvalid, "query.limit"},
		{"GET", "/api/sessions?colour=x", "", CodeInvalid, "query.colour"},
		{"GET", "/api/sessions?state=x", "", CodeInvalid, "query.state"},
		{"GET", "/api/sessions?cause=x", "", CodeInvalid, "query.cause"},
		{"GET", "/api/sessions?cursor=!", "", CodeInvalid, "query.cursor"},
		{"POST", "/api/sessions/shop/stop?wait=2h", "", CodeInvalid, "query.wait"},
		{"POST", "/api/sessions/shop/stop?wait=soon", "", CodeInvalid, "query.wait"},
		{"POST", "/api/sessions/shop/debug", `{"on":true,"for":"forever"}`, CodeInvalid, "body.for"},
		{"POST", "/api/sessions/shop/debug", ``, CodeBadRequest, ""},
		{"POST", "/api/sessions/shop/pair-code", `{"phone":"0151 2345678"}`, CodeInvalid, "body.phone"},
		{"POST", "/api/sessions/shop/pair-code", `{"phone":"call me"}`, CodeInvalid, "body.phone"},
		{"POST", "/api/sessions/shop/messages", `{"to":"4915123456789"}`, CodeInvalid, "body.text"},
		{"POST", "/api/sessions/shop/messages", `{"to":"4915123456789","text":"a","message":{"a":1}}`, CodeInvalid, "body.text"},
		{"POST", "/api/sessions/shop/messages", `{"to":"4915123456789","message":{}}`, CodeInvalid, "body.message"},
		{"POST", "/api/sessions/shop/messages", `{"to":"nobody","text":"a"}`, CodeInvalid, "body.to"},
		{"POST", "/api/sessions/shop/messages", `{"to":"x@evil.example","text":"a"}`, CodeInvalid, "body.to"},
		{"POST", "/api/sessions/shop/messages", `{"to":"4915123456789","text":"a","sendAt":"2020-01-01T00:00:00Z"}`, CodeInvalid, "body.sendAt"},
		{"POST", "/api/sessions/shop/messages", `{"to":"4915123456789","text":"a","sendAt":"2099-01-01T00:00:00Z"}`, CodeInvalid, "body.sendAt"},
		{"POST", "/api/sessions/shop/messages", `{"to":"4915123456789","text":"a","sendAt":"tomorrow"}`, CodeInvalid, "body.sendAt"},
		{"POST", "/api/sessions/shop/messages", `{"to":"4915123456789","text":"` + strings.Repeat("x", 70000) + `"}`, CodeInvalid, "body.text"},
		{"POST", "/api/sessions/shop/messages", `{"to":"4915123456789","text":"` + strings.Repeat("x", maxBody) + `"}`, CodeTooLarge, "body"},
		{"POST", "/api/workers/w-1/drain", `{"wanted":"yes"}`, CodeInvalid, "body.wanted"},
		{"POST", "/api/workers/w-1/drain", `{"soon":true}`, CodeInvalid, "body.soon"},
		{"POST", "/api/workers/w_1/drain", "", CodeInvalid, "path.id"},
		{"POST", "/api/workers/none/drain", "", CodeNotFound, ""},
		{"DELETE", "/api/workers/none/drain", "", CodeNotFound, ""},
		{"POST", "/api/workers/none/stopped", "", CodeNotFound, ""},
		{"GET", "/api/commands/nonsense", "", CodeNotFound, ""},
		{"GET", "/api/commands/shop.none", "", CodeNotFound, ""},
		{"GET", "/api/sessions/nobody", "", CodeNotFound, ""},
		{"GET", "/api/sessions/nobody/events", "", CodeNotFound, ""},
		{"GET", "/api/sessions/nobody/messages", "", CodeNotFound, ""},
		{"GET", "/api/sessions/nobody/qr", "", CodeNotFound, ""},
		{"POST", "/api/sessions/nobody/stop", "", CodeNotFound, ""},
	} {
		name := fmt.Sprintf("%s %s %.60s", tc.method, tc.path, tc.body)
		t.Run(name, func(t *testing.T) {
			p := wantProblem(t, s.ask(Admin, tc.method, tc.path, tc.body), tc.code)
			if tc.field != "" && (len(p.Errors) == 0 || p.Errors[0].Field != tc.field) {
				t.Errorf("fields %+v, want %s", p.Errors, tc.field)
			}
		})
	}
}

func TestBodiesThatAreNotJSON(t *testing.T) {
	s := newStage(t)
	wantProblem(t, s.ask(Admin, "POST", "/api/sessions", "name=a", "Content-Type", "application/x-www-form-urlencoded"), CodeUnsupportedMedia)
}

func TestNoSecretIsLoggedOrShown(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	want[ChangedSession](t, s.ask(Operator, "PATCH", "/api/sessions/shop",
		`{"settings":{"webhookUrl":"https://u:hush@example.test/hush?t=hush","webhookSecret":"hush-hush","proxy":"socks5://u:hush@127.0.0.1:1"}}`), 202)
	s.showQR(o, "2@hush", 1e9)
	s.ask(Operator, "GET", "/api/sessions/shop/qr", "")
	s.ask(Operator, "POST", "/api/sessions/shop/pair-code", `{"phone":"+49 151 98765432"}`)
	r := s.ask(Viewer, "GET", "/api/sessions/shop", "")
	v := want[Session](t, r, 200)
	if strings.Contains(string(r.body), "hush") || !v.Settings.WebhookSecretSet || v.Settings.WebhookURL != "https://example.test/…" {
		t.Errorf("a viewer is shown %s", r.body)
	}
	if op := s.ask(Operator, "GET", "/api/sessions/shop", ""); strings.Contains(string(op.body), "hush-hush") || strings.Contains(string(op.body), "u:hush@127") {
		t.Errorf("an operator is shown %s", op.body)
	}
	// What is stored is sealed.
	for _, kind := range []state.Kind{state.KindSpec, state.KindCommand, state.KindAudit, state.KindQR} {
		page, err := s.store.Query(t.Context(), state.OfSession("shop"), state.Query{Kind: kind})
		if err != nil || len(page.Records) == 0 {
			t.Fatalf("%s: %d records, %v", kind, len(page.Records), err)
		}
		for _, rec := range page.Records {
			if v := string(rec.Value); strings.Contains(v, "hush") || strings.Contains(v, "98765432") {
				t.Errorf("%s is stored in the clear: %s", rec.Key, v)
			}
		}
	}
	if logged := s.log.String(); strings.Contains(logged, "hush") || strings.Contains(logged, "98765432") || strings.Contains(logged, "-key") {
		t.Errorf("logged: %s", logged)
	}
}

func TestParseKeysRefuses(t *testing.T) {
	h := HashKey("x")
	for _, list := range []string{"a", "a:viewer", ":viewer:" + h, "a:king:" + h, "a:viewer:" + h[:63], "a:viewer:plain", "a:viewer:" + h + ",a:admin:" + h} {
		if _, err := ParseKeys(list); err == nil {
			t.Errorf("%q is accepted", list)
		} else if strings.Contains(err.Error(), h) {
			t.Errorf("the error holds the hash: %v", err)
		}
	}
	keys, err := ParseKeys(" a:viewer:" + h + ", b:admin:" + strings.ToUpper(h) + ",")
	if err != nil || len(keys) != 2 || keys[1].Role != Admin {
		t.Errorf("%v, %v", keys, err)
	}
}

func TestStoreThatIsDown(t *testing.T) {
	s := newStage(t)
	s.session("shop")
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		got := s.ask(Admin, r.method, filled(r.path), r.body)
		if r.path == "/api/me" { // says what is known without it
			want[Me](t, got, 200)
			continue
		}
		if r.path == "/api/commands/{id}" || got.StatusCode != http.StatusServiceUnavailable {
			wantProblem(t, got, CodeStoreUnavailable)
		}
	}
}

// FuzzBodies sends anything to any route: there is no answer that is not
// foreseen.
func FuzzBodies(f *testing.F) {
	for i, r := range routes {
		f.Add(uint8(i), r.body, "", "shop")
	}
	f.Add(uint8(0), `{"name":"a","settings":{"override":{"x":null},"labels":null}}`, "wait=0s", "shop")
	f.Add(uint8(16), `{"to":"4915123456789","message":{"a":{"b":[1,2,{"c":null}]}},"sendAt":"0001-01-01T00:00:00Z"}`, "limit=5&cursor=AAAA", "x")
	f.Add(uint8(14), "", "cursor=LTE&order=asc&after=18446744073709551615", "shop")
	f.Add(uint8(15), "", "cursor=_w", "shop")
	f.Fuzz(func(t *testing.T, route uint8, body, query, id string) {
		s := newStage(t)
		o := s.session("shop")
		s.online(o)
		s.event(o, 1, state.EventMessage, `{"text":"hi"}`)
		r := routes[int(route)%len(routes)]
		if strings.Contains(query, "wait") || r.method == "DELETE" && r.path == "/api/sessions/{name}" {
			return // neither long waits nor an end of the stage
		}
		path := strings.NewReplacer("{name}", "shop", "{id}", pathSafe(id)).Replace(r.path)
		target := path
		if q := pathSafe(query); q != "" {
			target += "?" + q
		}
		got := s.ask(Admin, r.method, target, body)
		if got.StatusCode >= 500 {
			t.Fatalf("%s %s %q: HTTP %d %s", r.method, target, body, got.StatusCode, got.body)
		}
		if got.StatusCode >= 400 && got.Header.Get("Content-Type") != "application/problem+json" {
			t.Fatalf("%s %s: %s", r.method, target, got.body)
		}
	})
}

// pathSafe makes what a fuzzer finds into something that a request line can
// hold.
func pathSafe(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || strings.ContainsRune("/?#%", r) {
			return -1
		}
		return r
	}, s)
}
