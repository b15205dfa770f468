package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aws/aws-lambda-go/events"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// through sends an event through a gateway to a handler.
func through(t *testing.T, h http.HandlerFunc, e events.APIGatewayV2HTTPRequest, change ...func(*Config)) events.APIGatewayV2HTTPResponse {
	t.Helper()
	store := memory.New(time.Now)
	c := Config{API: h, Store: store, View: fleet.NewView(fleet.ViewConfig{Members: store}), Auth: Auth{Keys: true}}
	for _, f := range change {
		f(&c)
	}
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	e.Version = "2.0"
	if e.RawPath == "" {
		e.RawPath = "/"
	}
	if e.RequestContext.HTTP.Method == "" {
		e.RequestContext.HTTP.Method = "GET"
	}
	payload, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	out, err := g.Invoke(t.Context(), payload)
	if err != nil {
		t.Fatal(err)
	}
	var r events.APIGatewayV2HTTPResponse
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// What a handler sees of an event is what a server would have read.
func TestWhatTheHandlerSees(t *testing.T) {
	e := events.APIGatewayV2HTTPRequest{RawPath: "/dev/api/sessions/a%2Fb", RawQueryString: "a=1&a=2&b=%20", Cookies: []string{"one=1", "two=2"},
		Headers: map[string]string{"host": "api.example.org", "accept": "text/plain,text/html", "x-custom": "a,b", "content-type": "application/json"},
		Body:    base64.StdEncoding.EncodeToString([]byte{0, 0xff, '{'}), IsBase64Encoded: true}
	e.RequestContext.Stage, e.RequestContext.HTTP.Method, e.RequestContext.HTTP.SourceIP = "dev", "PUT", "2001:db8::7"
	r := through(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(body, []byte{0, 0xff, '{'}) || r.ContentLength != 3 {
			t.Errorf("body %q of %d, %v", body, r.ContentLength, err)
		}
		for what, pair := range map[string][2]string{
			"method": {r.Method, "PUT"}, "path": {r.URL.Path, "/api/sessions/a/b"}, "escaped path": {r.URL.EscapedPath(), "/api/sessions/a%2Fb"},
			"query": {r.URL.RawQuery, "a=1&a=2&b=%20"}, "several": {fmt.Sprint(r.URL.Query()["a"]), "[1 2]"}, "host": {r.Host, "api.example.org"},
			"host header": {r.Header.Get("Host"), ""}, "accept": {r.Header.Get("Accept"), "text/plain,text/html"}, "custom": {r.Header.Get("X-Custom"), "a,b"},
			"from": {r.RemoteAddr, "[2001:db8::7]:0"}, "URI": {r.RequestURI, "/api/sessions/a%2Fb?a=1&a=2&b=%20"},
		} {
			if pair[0] != pair[1] {
				t.Errorf("%s: %q, want %q", what, pair[0], pair[1])
			}
		}
		if c, err := r.Cookie("two"); err != nil || c.Value != "2" || len(r.Cookies()) != 2 {
			t.Errorf("cookies: %v", r.Cookies())
		}
		w.WriteHeader(http.StatusNoContent)
	}, e)
	if r.StatusCode != http.StatusNoContent || r.Body != "" {
		t.Errorf("%+v", r)
	}
}

func TestStages(t *testing.T) {
	for _, c := range []struct{ path, stage, want string }{
		{"/api/sessions", "$default", "/api/sessions"},
		{"/dev/api/sessions", "dev", "/api/sessions"},
		{"/api/sessions", "dev", "/api/sessions"}, // a custom domain
		{"/development/api", "dev", "/development/api"},
		{"/dev", "dev", "/"},
		{"/api/api/sessions", "api", "/api/sessions"},
		{"/api/sessions", "api", "/api/sessions"},
		{"/api/sessions", "", "/api/sessions"}, // a function URL
	} {
		if got := withoutStage(c.path, c.stage); got != c.want {
			t.Errorf("%s in stage %s: %s, want %s", c.path, c.stage, got, c.want)
		}
	}
	// A path that came without its escapes.
	var seen string
	through(t, func(_ http.ResponseWriter, r *http.Request) { seen = r.URL.Path }, events.APIGatewayV2HTTPRequest{RawPath: "/api/100% sure"})
	if seen != "/api/100% sure" {
		t.Errorf("a path without escapes: %q", seen)
	}
}

// What is sent back is what a client would have read from a server.
func TestWhatIsSentBack(t *testing.T) {
	picture := "\x89PNG\r\n"
	for name, c := range map[string]struct {
		method string
		handle http.HandlerFunc
		want   events.APIGatewayV2HTTPResponse
	}{
		"text": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Add("Vary", "Accept")
			w.Header().Add("Vary", "Origin")
			w.Header().Set("Content-Length", "5")
			w.WriteHeader(http.StatusTeapot)
			w.WriteHeader(http.StatusOK) // too late
			_, _ = io.WriteString(w, `"<ä>"`)
		}, events.APIGatewayV2HTTPResponse{StatusCode: 418, Headers: map[string]string{"content-type": "application/problem+json", "vary": "Accept, Origin"}, Body: `"<ä>"`}},
		"cookies": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
			http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
		}, events.APIGatewayV2HTTPResponse{StatusCode: 200, Cookies: []string{"a=1", "b=2"}}},
		"a picture": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "image/png")
			_, _ = io.WriteString(w, picture)
		}, events.APIGatewayV2HTTPResponse{StatusCode: 200, Headers: map[string]string{"content-type": "image/png"}, Body: base64.StdEncoding.EncodeToString([]byte(picture)), IsBase64Encoded: true}},
		"text that is none": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, "\xff")
		}, events.APIGatewayV2HTTPResponse{StatusCode: 200, Headers: map[string]string{"content-type": "text/plain"}, Body: "/w==", IsBase64Encoded: true}},
		"to a HEAD": {"HEAD", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "body")
		}, events.APIGatewayV2HTTPResponse{StatusCode: 200}},
		"unchanged": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"1"`)
			w.WriteHeader(http.StatusNotModified)
			_, _ = io.WriteString(w, "body")
		}, events.APIGatewayV2HTTPResponse{StatusCode: 304, Headers: map[string]string{"etag": `"1"`}}},
		"nothing": {"GET", func(http.ResponseWriter, *http.Request) {}, events.APIGatewayV2HTTPResponse{StatusCode: 200}},
	} {
		var e events.APIGatewayV2HTTPRequest
		e.RequestContext.HTTP.Method = c.method
		got := through(t, c.handle, e)
		if got.StatusCode != c.want.StatusCode || got.Body != c.want.Body || got.IsBase64Encoded != c.want.IsBase64Encoded ||
			!maps.Equal(got.Headers, c.want.Headers) || !slices.Equal(got.Cookies, c.want.Cookies) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// A handler that panics, or an answer that is too large, is a problem and not the
// end of the process.
func TestAnswersThatCannotBe(t *testing.T) {
	var log bytes.Buffer
	logged := func(c *Config) { c.Log = slog.New(slog.NewJSONHandler(&log, nil)) }
	var e events.APIGatewayV2HTTPRequest
	e.RequestContext.RequestID = "id\n1"
	for name, c := range map[string]struct {
		handle http.HandlerFunc
		status int
		code   adminapi.Code
	}{
		"a panic": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Left", "over")
			_, _ = io.WriteString(w, "half")
			panic("boom")
		}, 500, adminapi.CodeInternal},
		"an aborted handler": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 500, adminapi.CodeInternal},
		"too much": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			for range 7 {
				_, _ = w.Write(make([]byte, 1<<20))
			}
		}, 413, adminapi.CodeAnswerTooLarge},
		"too much in JSON": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, strings.Repeat(`"`, 4<<20))
		}, 413, adminapi.CodeAnswerTooLarge},
	} {
		r := through(t, c.handle, e, logged)
		var p adminapi.Problem
		if err := json.Unmarshal([]byte(r.Body), &p); err != nil || r.StatusCode != c.status || p.Code != c.code || r.Headers["x-left"] != "" || r.Headers["x-request-id"] != "id1" {
			t.Errorf("%s: %v, %+v", name, err, r)
		}
	}
	if strings.Count(log.String(), `"panic":"boom"`) != 1 || strings.Contains(log.String(), "abort") {
		t.Errorf("log:\n%s", log.String())
	}
	// Just what fits.
	r := through(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, strings.Repeat("x", maxAnswer-300))
	}, events.APIGatewayV2HTTPRequest{})
	if r.StatusCode != http.StatusOK || len(r.Body) != maxAnswer-300 {
		t.Errorf("what fits: %d", r.StatusCode)
	}
}

// A wait is cut to 20 s and to what is left of the function's time; what is no
// wait is left for the API to refuse.
func TestWaits(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		query, want, cut string
		left             time.Duration
	}{
		{"wait=60s", "20s", "20s", time.Minute},
		{"wait=60s", "20s", "20s", 0}, // no deadline
		{"wait=10s", "10s", "", time.Minute},
		{"wait=10s&x=1", "3s", "3s", 5 * time.Second},
		{"wait=10s", "0s", "0s", time.Second},
		{"wait=61s", "61s", "", time.Minute},
		{"wait=soon", "soon", "", time.Minute},
		{"wait=-1s", "-1s", "", time.Minute},
		{"", "", "", time.Minute},
	} {
		ctx := t.Context()
		if c.left > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, now.Add(c.left))
			defer cancel()
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/x?"+c.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if cut := cutWait(r, now); cut != c.cut || r.URL.Query().Get("wait") != c.want || strings.Contains(c.query, "x=1") && r.URL.Query().Get("x") != "1" {
			t.Errorf("%q with %v left: %q, cut to %q", c.query, c.left, r.URL.RawQuery, cut)
		}
	}
}

// A request whose preparations failed still reaches the API, which says so, and
// one that its authorizer does not let in does not.
func TestBeforeTheHandler(t *testing.T) {
	reached := 0
	handle := func(http.ResponseWriter, *http.Request) { reached++ }
	failing := func(c *Config) { c.Open = func(context.Context) error { return errors.New("no") } }
	if r := through(t, handle, events.APIGatewayV2HTTPRequest{}, failing); r.StatusCode != http.StatusOK || reached != 1 {
		t.Errorf("%+v", r)
	}
	onlyIAM := func(c *Config) { c.Auth = Auth{IAM: true} }
	if r := through(t, handle, events.APIGatewayV2HTTPRequest{}, failing, onlyIAM); r.StatusCode != http.StatusUnauthorized || reached != 1 {
		t.Errorf("%+v", r)
	}
}

func TestARNRoles(t *testing.T) {
	roles, err := ParseARNRoles("arn:aws:iam::111122223333:user/team/*=viewer , arn:aws-us-gov:sts::111122223333:assumed-role/Ops*/*=admin,")
	if err != nil || len(roles) != 2 || roles[0].Role != adminapi.Viewer || roles[1].Role != adminapi.Admin {
		t.Fatalf("%+v, %v", roles, err)
	}
	a := Auth{IAM: true, Roles: roles}
	for arn, want := range map[string]adminapi.Role{
		"arn:aws:iam::111122223333:user/team/ann":                   adminapi.Viewer,
		"arn:aws:iam::111122223333:user/team/sub/ann":               0,
		"arn:aws:iam::111122223333:user/team/":                      adminapi.Viewer,
		"arn:aws:iam::111122223333:user/ann":                        0,
		"arn:aws-us-gov:sts::111122223333:assumed-role/OpsTeam/a":   adminapi.Admin,
		"arn:aws-us-gov:sts::111122223333:assumed-role/Ops/a/b":     0,
		"arn:aws-us-gov:sts::111122223333:assumed-role/NotOps/a":    0,
		"xarn:aws:iam::111122223333:user/team/ann":                  0,
		"arn:aws:iam::111122223333:user/team/ann\x00arn:aws:iam::1": adminapi.Viewer,
		"": 0,
	} {
		who, err := a.iamCaller(&events.APIGatewayV2HTTPRequestContextAuthorizerIAMDescription{UserARN: arn})
		if who.Role != want || (err == nil) != (want > 0) || strings.ContainsAny(who.Name, "\x00\n") {
			t.Errorf("%q: %+v, %v", arn, who, err)
		}
	}
	for _, bad := range []string{"*=admin", "arn:aws:iam::111122223333:user/ann", "arn:aws:iam::*:user/ann=admin", "arn:*:iam::111122223333:user/ann=admin",
		"arn:aws:iam::111122223333:user/ann=root", "arn:aws:iam::111122223333:user/[a=admin", "arn:aws:iam::111122223333:=admin", "arn:aws:iam:::user/ann=admin", "ann=admin"} {
		if roles, err := ParseARNRoles(bad); err == nil {
			t.Errorf("%q: %+v", bad, roles)
		}
	}
}

func TestJWTRoles(t *testing.T) {
	type claims = map[string]string
	for name, c := range map[string]struct {
		claims claims
		scopes []string
		role   adminapi.Role
		name   string
	}{
		"the highest scope":      {claims{"sub": "s", "scope": "holdfast/viewer holdfast/admin other/operator"}, nil, adminapi.Admin, "jwt:s"},
		"scopes of the route":    {claims{"sub": "s"}, []string{"holdfast/operator"}, adminapi.Operator, "jwt:s"},
		"a client's credentials": {claims{"client_id": "c", "scope": "holdfast/viewer"}, nil, adminapi.Viewer, "jwt:c"},
		"the claim alone":        {claims{"sub": "s", "holdfast_role": "operator"}, nil, adminapi.Operator, "jwt:s"},
		"the lesser":             {claims{"sub": "s", "holdfast_role": "viewer", "scope": "holdfast/admin"}, nil, adminapi.Viewer, "jwt:s"},
		"a claim that is none":   {claims{"sub": "s", "holdfast_role": "root", "scope": "holdfast/admin"}, nil, 0, ""},
		"an empty claim":         {claims{"sub": "s", "holdfast_role": "", "scope": "holdfast/admin"}, nil, 0, ""},
		"another's scope":        {claims{"sub": "s", "scope": "xholdfast/admin holdfast/Admin holdfast/"}, nil, 0, ""},
		"nobody":                 {claims{"scope": "holdfast/admin"}, nil, 0, ""},
		"a long name":            {claims{"sub": strings.Repeat("ä", 300) + "\n", "scope": "holdfast/viewer"}, nil, adminapi.Viewer, "jwt:" + strings.Repeat("ä", longest/2) + "…"},
	} {
		who, err := jwtCaller(&events.APIGatewayV2HTTPRequestContextAuthorizerJWTDescription{Claims: c.claims, Scopes: c.scopes})
		if who.Role != c.role || (err == nil) != (c.role > 0) || err == nil && who.Name != c.name {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
}

// A key that is brought is judged as a key where keys count, whatever else vouches
// for the caller.
func TestKeysBesideAuthorizers(t *testing.T) {
	var e events.APIGatewayV2HTTPRequest
	e.RequestContext.Authorizer = &events.APIGatewayV2HTTPRequestContextAuthorizerDescription{
		JWT: &events.APIGatewayV2HTTPRequestContextAuthorizerJWTDescription{Claims: map[string]string{"sub": "s", "holdfast_role": "admin"}}}
	key := http.Header{"X-Api-Key": {"k"}}
	for name, c := range map[string]struct {
		auth  Auth
		h     http.Header
		known bool
		fails bool
	}{
		"keys alone":                 {Auth{Keys: true}, http.Header{}, false, false},
		"keys and JWT, with a key":   {Auth{Keys: true, JWT: true}, key, false, false},
		"keys and JWT, without":      {Auth{Keys: true, JWT: true}, http.Header{}, true, false},
		"JWT, with a key":            {Auth{JWT: true}, key, true, false},
		"IAM, though it is a JWT":    {Auth{IAM: true}, http.Header{}, false, true},
		"keys and IAM, with a token": {Auth{Keys: true, IAM: true}, http.Header{}, false, false},
	} {
		if _, known, err := c.auth.caller(&e, c.h); known != c.known || (err != nil) != c.fails {
			t.Errorf("%s: %t, %v", name, known, err)
		}
	}
	for list, want := range map[string]Auth{"keys": {Keys: true}, " jwt , iam": {JWT: true, IAM: true}, "": {}, "keys,none": {}} {
		a, err := ParseAuth(list)
		if a.Keys != want.Keys || a.JWT != want.JWT || a.IAM != want.IAM || (err != nil) != (want.Keys == want.JWT) {
			t.Errorf("%q: %+v, %v", list, a, err)
		}
	}
}
