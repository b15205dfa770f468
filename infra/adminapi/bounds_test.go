package adminapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
)

// TestBoundsAreTold: who is refused for a name, number, time or size learns what
// would be taken.
func TestBoundsAreTold(t *testing.T) {
	s := newStage(t)
	s.online(s.session("shop"))
	s.session("fresh")
	many := func(n int) string {
		var pairs []string
		for i := range n {
			pairs = append(pairs, fmt.Sprintf(`"k%d":"1s"`, i))
		}
		return "{" + strings.Join(pairs, ",") + "}"
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, tc := range []struct {
		method, path, body, field, told string
	}{
		{"POST", "/api/sessions", `{"name":"Shop"}`, "body.name", `a-z.*0-9`},
		{"POST", "/api/sessions", `{"name":"4915123456789"}`, "body.name", `digits`},
		{"POST", "/api/sessions", `{"name":"` + long(64) + `"}`, "body.name", `63`},
		{"POST", "/api/sessions", `{"name":""}`, "body.name", `1`},
		{"GET", "/api/sessions/UP", "", "path.name", `1 to 63 of a-z`},
		{"POST", "/api/sessions", `{"name":"a","settings":{"labels":` + many(33) + `}}`, "body.settings.labels", `32`},
		{"POST", "/api/sessions", `{"name":"a","settings":{"labels":{"k":"` + long(257) + `"}}}`, "body.settings.labels", `63.*256`},
		{"POST", "/api/sessions", `{"name":"a","settings":{"override":` + many(65) + `}}`, "body.settings.override", `64`},
		{"POST", "/api/sessions", `{"name":"a","settings":{"webhookUrl":"` + long(2049) + `"}}`, "body.settings.webhookUrl", `2048`},
		{"POST", "/api/sessions", `{"name":"a","settings":{"webhookSecret":"` + long(513) + `"}}`, "body.settings.webhookSecret", `512`},
		{"POST", "/api/sessions/fresh/pair-code", `{"phone":"+49 151"}`, "body.phone", `7 to 15`},
		{"POST", "/api/sessions/fresh/pair-code", `{"phone":"4915123456789012"}`, "body.phone", `7 to 15`},
		{"POST", "/api/sessions/fresh/pair-code", `{"phone":"call me"}`, "body.phone", `7 to 15`},
		{"POST", "/api/sessions/fresh/pair-code", `{"phone":"0151 2345678"}`, "body.phone", `country code`},
		{"POST", "/api/sessions/shop/messages", `{"to":"12345","text":"a"}`, "body.to", `7 to 15`},
		{"POST", "/api/sessions/shop/messages", `{"to":"` + long(129) + `","text":"a"}`, "body.to", `128`},
		{"POST", "/api/sessions/shop/messages", `{"to":"4915123456789","text":"` + strings.Repeat("ü", 40000) + `"}`, "body.text", `65536`},
		{"POST", "/api/sessions/shop/messages", `{"to":"4915123456789","text":"a","sendAt":"2030-01-01T00:00:00Z"}`, "body.sendAt", `year`},
		{"POST", "/api/sessions/shop/messages", `{"to":"4915123456789","text":"a","sendAt":"2020-01-01T00:00:00Z"}`, "body.sendAt", `past`},
		{"POST", "/api/sessions/shop/messages", `{"to":"4915123456789","text":"a","idempotencyKey":"` + long(129) + `"}`, "body.idempotencyKey", `128`},
		{"POST", "/api/sessions/shop/stop?wait=61s", "", "query.wait", `0s to 1m0s`},
		{"POST", "/api/sessions/shop/debug", `{"on":true,"for":"25h"}`, "body.for", `1s to 24h`},
		{"GET", "/api/sessions?limit=501", "", "query.limit", `500`},
		{"GET", "/api/sessions?limit=0", "", "query.limit", `1`},
		{"GET", "/api/sessions/shop/events?after=-1", "", "query.after", `0 or more`},
		{"POST", "/api/workers/w_1/drain", "", "path.id", `64 letters`},
	} {
		p := wantProblem(t, s.ask(Admin, tc.method, tc.path, tc.body), CodeInvalid)
		i := slices.IndexFunc(p.Errors, func(f Fault) bool { return f.Field == tc.field })
		if i < 0 || !regexp.MustCompile(tc.told).MatchString(p.Errors[i].Message) {
			t.Errorf("%s %s %.60s: %+v, want %s to say %s", tc.method, tc.path, tc.body, p.Errors, tc.field, tc.told)
		}
	}
}

// TestNamesOfFieldsAreExact: one that differs by case, or is there twice, could be
// checked as one thing and read as another.
func TestNamesOfFieldsAreExact(t *testing.T) {
	s := newStage(t)
	s.online(s.session("shop"))
	for body, field := range map[string]string{
		`{"settings":{"webhookUrl":"file:///x"},"settings":{}}`:                  "body.settings",
		`{"settings":{"labels":{"a":"1","b":"2","a":"3"}}}`:                      "body.settings.labels.a",
		`{"Settings":{"profile":"gentle"}}`:                                      "body.Settings",
		`{"settings":{"PROFILE":"gentle"}}`:                                      "body.settings.PROFILE",
		`{"settings":{"profile":"gentle"},"\u0073ettings":{"profile":"gentle"}}`: "body.settings", // an escaped name is the same name
	} {
		p := wantProblem(t, s.ask(Admin, "PATCH", "/api/sessions/shop", body), CodeInvalid)
		if !slices.ContainsFunc(p.Errors, func(f Fault) bool { return f.Field == field }) {
			t.Errorf("%s: %+v, want %s", body, p.Errors, field)
		}
	}
	for body, field := range map[string]string{
		`{"a":[{"b":1},{"b":1,"c":{"d":1,"d":2}}]}`: "body.a[1].c.d", `[{"a":1,"a":1}]`: "body[0].a", `{"a":{"a":{"a":1}},"b":[1,[2]]}`: "",
		`{"a":1,"a"`: "body.a", `{"a":}`: "", ``: "", `"a"`: "", `{"a":1}}`: "", `]`: "",
	} {
		if got := repeated([]byte(body)); got != field {
			t.Errorf("%s: %q, want %q", body, got, field)
		}
	}
}

// TestOddRequestLines: whatever path is asked for, the answer is a page of the
// document or a problem.
func TestOddRequestLines(t *testing.T) {
	s := newStage(t)
	s.session("shop")
	for _, target := range []string{"/api//sessions", "/api/sessions/../../etc/passwd", "/api/sessions/%2e%2e/shop", "/api/sessions/shop%2fstop", "/api/sessions/%00",
		"/api/sessions/shop/", "/api/sessions/%C3%28", "//evil.example/api/sessions", "/api/sessions?limit=1;cursor=x", "/api/sessions?%zz", "/api/sessions?limit=1&limit=9999",
		"/api/sessions/shop/messages/%ff%fe", "/api/commands/..%2f..%2fF", "/api/commands/shop.%00", "/api/workers/%2e%2e/drain", "/api/openapi.json/..", "/api/docs/../sessions"} {
		for _, role := range []Role{0, Admin} {
			for _, method := range []string{"GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "CONNECT"} {
				if method == "CONNECT" {
					continue // a request line without a path
				}
				got := s.ask(role, method, target, "")
				switch {
				case got.StatusCode >= 500, got.StatusCode >= 300 && got.StatusCode < 400:
					t.Errorf("%s %s: HTTP %d %s", method, target, got.StatusCode, got.body)
				case role == 0 && got.StatusCode < 400:
					t.Errorf("%s %s without a key: HTTP %d %s", method, target, got.StatusCode, got.body)
				case got.StatusCode >= 400 && got.Header.Get("Content-Type") != "application/problem+json":
					t.Errorf("%s %s: HTTP %d %s", method, target, got.StatusCode, got.body)
				}
			}
		}
	}
}

// TestSeedRoutesAreForOperators: the two that a worker's own listener has.
func TestSeedRoutesAreForOperators(t *testing.T) {
	s := newStage(t)
	o := s.session("shop")
	s.showQR(o, "2@hush,a,b,c", 1e9)
	health := Health(HealthConfig{Snapshot: func() Snapshot { return Snapshot{Sessions: []SessionHealth{{Name: "shop"}}} }, API: s.api})
	for _, r := range []struct{ method, path string }{{"GET", "/qr-image"}, {"POST", "/restart"}} {
		for role, want := range map[Role]int{0: 401, Viewer: 403, Operator: 200, Admin: 200} {
			got := serve(health, role, r.method, r.path)
			if got.StatusCode != want && (want != 200 || got.StatusCode != http.StatusAccepted) {
				t.Errorf("%s %s as %s: HTTP %d %s", r.method, r.path, role, got.StatusCode, got.body)
			}
		}
	}
}

func serve(h http.Handler, role Role, method, path string) reply {
	req := httptest.NewRequest(method, path, nil)
	if role > 0 {
		req.Header.Set("X-Api-Key", secretOf(role))
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return reply{w.Result(), w.Body.Bytes()}
}

// TestRolesHoldForVouchedCallers: what a gateway says of a caller counts as a key
// does, and instead of the key that the request brings.
func TestRolesHoldForVouchedCallers(t *testing.T) {
	doc := theDocument(t)
	for _, r := range routes {
		if said := doc.Paths[r.path][strings.ToLower(r.method)].role(t); said != r.role {
			t.Errorf("%s %s: the document says %s, the tests %s", r.method, r.path, said, r.role)
		}
		s := newStage(t)
		s.session("shop")
		for _, role := range append([]Role{0}, roles...) {
			ctx := WithCaller(t.Context(), Caller{Name: "arn:aws:iam::1:role/x", Role: role})
			got := s.askCtx(ctx, Admin, r.method, filled(r.path), r.body)
			if (got.StatusCode == http.StatusForbidden) != (role < r.role) {
				t.Errorf("%s %s as %s: HTTP %d %s", r.method, r.path, role, got.StatusCode, got.body)
			}
		}
	}
}

// faulty is a fault of one setting, as the worker's check tells it.
type faulty struct{ field, text string }

func (f faulty) Error() string { return f.text }
func (f faulty) Field() string { return f.field }

// TestWhatTheWorkerRefusesNamesItsField: settings that are checked outside of this
// package.
func TestWhatTheWorkerRefusesNamesItsField(t *testing.T) {
	s := newStage(t)
	s.session("shop")
	s.api.cfg.ValidateSettings = func(state.SessionSettings) error {
		return errors.Join(faulty{"webhookUrl", "address 10.0.0.1 is refused"}, fmt.Errorf("more: %w", faulty{"proxy", "is none"}), errors.New("and this"))
	}
	for _, r := range [][2]string{{"POST", "/api/sessions"}, {"PATCH", "/api/sessions/shop"}} {
		body := `{"settings":{"webhookUrl":"http://10.0.0.1/"}}`
		if r[0] == "POST" {
			body = `{"name":"a","settings":{"webhookUrl":"http://10.0.0.1/"}}`
		}
		p := wantProblem(t, s.ask(Operator, r[0], r[1], body), CodeInvalid)
		want := []Fault{{"body.settings.webhookUrl", "address 10.0.0.1 is refused"}, {"body.settings.proxy", "more: is none"}, {"body.settings", "and this"}}
		if !slices.Equal(p.Errors, want) {
			t.Errorf("%s: %+v", r[0], p.Errors)
		}
	}
}
