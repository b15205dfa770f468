package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
)

const (
	// maxWait is how long an answer is held back at most: API Gateway gives up on
	// an integration after 30 s.
	maxWait = 20 * time.Second
	// forAnswer is what is left of the function's time for the answer itself, and
	// afterWait for what comes between a wait and the answer.
	forAnswer = 500 * time.Millisecond
	afterWait = 2 * time.Second
)

// waitHeader says of an answer that it was not held back for as long as asked.
const waitHeader = "Holdfast-Wait"

// request answers a request that came through API Gateway.
func (g *Gateway) request(ctx context.Context, payload []byte) ([]byte, error) {
	var e events.APIGatewayV2HTTPRequest
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, fmt.Errorf("%w: a request with a field of another type than payload format 2.0 has", ErrEvent)
	}
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-forAnswer))
		defer cancel()
	}
	w := newRecorder(e.RequestContext.HTTP.Method)
	began := time.Now()
	r, err := httpRequest(ctx, &e)
	if err != nil {
		adminapi.Refuse(w, adminapi.CodeBadRequest, "%s", err)
	} else {
		g.serve(w, r, &e)
	}
	if id := e.RequestContext.RequestID; id != "" {
		w.header.Set("X-Request-Id", oneLine(id))
	}
	level := g.cfg.Log.Debug
	if w.status >= http.StatusInternalServerError {
		level = g.cfg.Log.Warn
	}
	// The path has names of sessions; the query and the headers may have more.
	level("request", "requestId", oneLine(e.RequestContext.RequestID), "method", e.RequestContext.HTTP.Method, "path", r.URL.Path,
		"status", w.status, "bytes", w.body.Len(), "ms", time.Since(began).Milliseconds())
	return w.event()
}

// serve lets a request through to the API, as whoever it is from.
func (g *Gateway) serve(w *recorder, r *http.Request, e *events.APIGatewayV2HTTPRequest) {
	defer func() {
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler { //nolint:errorlint // a recovered value, which is compared as net/http does
				g.cfg.Log.Error("request failed", "requestId", oneLine(e.RequestContext.RequestID), "panic", v, "stack", string(debug.Stack()))
			}
			w.reset()
			adminapi.Refuse(w, adminapi.CodeInternal, "something went wrong here: the log of the function has it")
		}
	}()
	who, known, err := g.cfg.Auth.caller(e, r.Header)
	switch {
	case err != nil:
		var refused *refusal
		code := adminapi.CodeForbidden
		if errors.As(err, &refused) {
			code = refused.code
		}
		adminapi.Refuse(w, code, "%s", err)
		return
	case known:
		r = r.WithContext(adminapi.WithCaller(r.Context(), who))
	}
	if err := g.cfg.Open(r.Context()); err != nil {
		g.cfg.Log.Error("not ready: the request is answered without", "requestId", oneLine(e.RequestContext.RequestID), "error", err)
	}
	if cut := cutWait(r, time.Now()); cut != "" {
		w.header.Set(waitHeader, cut)
	}
	g.cfg.API.ServeHTTP(w, r)
}

// httpRequest is the event as a server would have read it. It is never nil.
func httpRequest(ctx context.Context, e *events.APIGatewayV2HTTPRequest) (*http.Request, error) {
	rc := &e.RequestContext
	u := &url.URL{Scheme: "https", RawQuery: e.RawQueryString}
	u.Path = withoutStage(e.RawPath, rc.Stage)
	// API Gateway hands some paths on with their escapes and some without.
	if plain, err := url.PathUnescape(u.Path); err == nil && plain != u.Path {
		u.Path, u.RawPath = plain, u.Path
	}
	r := (&http.Request{Method: rc.HTTP.Method, URL: u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, len(e.Headers)+1), Host: rc.DomainName, RequestURI: u.RequestURI(), Body: http.NoBody}).WithContext(ctx)
	for name, value := range e.Headers {
		r.Header.Set(name, value) // several of a name are joined by commas already
	}
	if len(e.Cookies) > 0 {
		r.Header.Set("Cookie", strings.Join(e.Cookies, "; "))
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
		r.Header.Del("Host") // as net/http has it
	}
	u.Host = r.Host
	if rc.HTTP.SourceIP != "" {
		r.RemoteAddr = net.JoinHostPort(rc.HTTP.SourceIP, "0")
	}
	if u.Path == "" || u.Path[0] != '/' {
		return r, errors.New("rawPath: does not begin with a slash")
	}
	if r.Method == "" {
		return r, errors.New("requestContext.http.method: is empty")
	}
	body := []byte(e.Body)
	if e.IsBase64Encoded {
		var err error
		if body, err = base64.StdEncoding.DecodeString(e.Body); err != nil {
			return r, errors.New("body: is said to be base64 and is not")
		}
	}
	r.ContentLength = int64(len(body))
	if len(body) > 0 {
		r.Body = newBody(body)
	}
	return r, nil
}

// withoutStage takes the name of the stage off a path. The default stage has
// none, and a custom domain may have left it out, so that a stage named like the
// API's first word is there only if that word comes twice.
func withoutStage(path, stage string) string {
	if stage == "" || stage == "$default" {
		return path
	}
	rest, found := strings.CutPrefix(path, "/"+stage)
	switch {
	case !found, rest != "" && rest[0] != '/':
		return path
	case rest == "":
		return "/"
	case stage == "api" && !strings.HasPrefix(rest, "/api/"):
		return path
	}
	return rest
}

// cutWait shortens a wait to what can be had here, and returns to what; empty: it
// was not cut. What is no time stays as it is, for the API to say so.
func cutWait(r *http.Request, now time.Time) string {
	q := r.URL.Query()
	asked, err := time.ParseDuration(q.Get("wait"))
	if err != nil || asked <= 0 || asked > adminapi.LongestWait {
		return ""
	}
	most := maxWait
	if deadline, ok := r.Context().Deadline(); ok {
		most = max(0, min(most, deadline.Sub(now)-afterWait))
	}
	most = most.Truncate(100 * time.Millisecond)
	if asked <= most {
		return ""
	}
	q.Set("wait", most.String())
	r.URL.RawQuery = q.Encode()
	return most.String()
}

// oneLine keeps a word of an event from ending its line in a log or header.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, s[:min(len(s), 128)])
}
