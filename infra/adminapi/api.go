package adminapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

const (
	maxBody     = 1 << 20          // bytes of a request's body
	bodyTime    = 15 * time.Second // for it to arrive
	longestWait = 60 * time.Second // of ?wait=
)

// Keyset opens and seals what the admin side may see: the fleet's.
type Keyset interface {
	Seal(p seal.Place, plaintext []byte) ([]byte, error)
	Open(p seal.Place, sealed []byte) ([]byte, error)
}

// Config is what the API stands on. Store and Fleet must be set.
type Config struct {
	Store state.Store
	Fleet Keyset
	Keys  []Key // without any, every request is refused

	// ValidateSettings checks what only the worker knows: profile names and
	// single values. Its error is shown. Nil: none of it is checked.
	ValidateSettings func(state.SessionSettings) error
	// ValidateMediaURL says early that the workers would refuse to fetch from a URL.
	// Its error is shown. Nil: they say so themselves.
	ValidateMediaURL func(rawURL string) error
	// Vault keeps uploads. Nil: none are taken.
	Vault state.Vault
	// MaxMedia bounds an upload, bytes. Default DefaultMaxMedia.
	MaxMedia int64
	// Rate is how many requests a second each caller may make, RateBurst how many at
	// once (default: two seconds' worth). 0: no bound.
	Rate      float64
	RateBurst int
	// Nudge tells a worker in the same process that there is a command for the
	// session. It must not block. May be nil.
	Nudge func(session string)
	// Bell, where a worker in the same process rings it, wakes what waits.
	Bell *Bell
	// View is the fleet as this process sees it. Nil: one over Store is made.
	View *fleet.View
	// Workers are those in this process, fresher than the roster has them; what is
	// said of them takes the place of what the roster says. May be nil.
	Workers func(context.Context) ([]Worker, error)
	// Offline carries out what must not wait for a worker while none is alive.
	// Nil: it waits.
	Offline Offline
	// Live tells what a worker in the same process knows better than the record:
	// health, counters and the times that move fast. Nil or false: the record is
	// shown.
	Live func(session string) (state.Status, bool)
	// Alive says of an incarnation in this process that it is at work, without
	// asking the store. Nil or false: the roster is asked.
	Alive func(incarnation string) bool

	// NotReady says why no request can be served yet; empty: they can. Nil: always.
	NotReady func() string

	Version string
	Now     func() time.Time
	Log     *slog.Logger
	Poll    time.Duration // how often what waits looks, without a bell; default 500 ms
	// StreamFor ends a live stream after so long, so that a key that was taken
	// away ends too; clients resume by themselves. Default 1 h.
	StreamFor time.Duration
	// NoStreams refuses live streams, where whatever serves the API sends each
	// answer whole. Who takes JSON as well gets the history.
	NoStreams bool
}

// API is the handler, with its routes under /api.
type API struct {
	cfg  Config
	rate *limits
	room chan struct{} // a place for each upload in memory
	mux  *http.ServeMux
	huma huma.API
	docs []byte
}

// New makes the handler.
func New(c Config) *API {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Poll <= 0 {
		c.Poll = 500 * time.Millisecond
	}
	if c.StreamFor <= 0 {
		c.StreamFor = time.Hour
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.Alive == nil {
		c.Alive = func(string) bool { return false }
	}
	if c.View == nil {
		c.View = fleet.NewView(fleet.ViewConfig{Members: c.Store, Now: c.Now})
	}
	if c.ValidateSettings == nil {
		c.ValidateSettings = func(state.SessionSettings) error { return nil }
	}
	if c.MaxMedia <= 0 {
		c.MaxMedia = DefaultMaxMedia
	}
	a := &API{cfg: c, rate: newLimits(c.Rate, c.RateBurst), room: make(chan struct{}, uploadsAtOnce), mux: http.NewServeMux()}
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{Title: "Holdfast admin API", Version: c.Version,
				Description: "Sessions of WhatsApp, what they are and what they should be. Every answer that is not a success is a problem (RFC 9457) with a stable `code`.",
				License:     &huma.License{Name: "GPL-3.0-or-later", Identifier: "GPL-3.0-or-later"}},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"key":    {Type: "apiKey", In: "header", Name: "X-Api-Key"},
					"bearer": {Type: "http", Scheme: "bearer", Description: "the same key as a bearer token"},
				},
			},
		},
		OpenAPIPath:   "/api/openapi",
		Formats:       map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json",
	}
	a.huma = humago.New(a.mux, config)
	a.huma.UseMiddleware(a.authorize)
	a.sessionRoutes()
	a.verbRoutes()
	a.pairingRoutes()
	a.eventRoutes()
	a.messageRoutes()
	a.uploadRoutes()
	a.workerRoutes()
	a.meRoutes()
	a.auditRoutes()
	a.deadLetterRoutes()
	standard(a.huma.OpenAPI())
	a.docs = docsPage(a.huma.OpenAPI())
	a.mux.HandleFunc("GET /api/docs", a.serveDocs)
	return a
}

// standard says where the API is, which readers of the document want to be told,
// and takes out what OpenAPI does not know: the words for a pattern, which are in
// the messages of the library by now.
func standard(doc *huma.OpenAPI) {
	doc.Servers = []*huma.Server{{URL: "/", Description: "where this document is served"}}
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			for _, p := range op.Parameters {
				if p.Schema != nil {
					p.Schema.PatternDescription = ""
				}
			}
		}
	}
}

// OpenAPI is the document that /api/openapi.json serves.
func (a *API) OpenAPI() *huma.OpenAPI { return a.huma.OpenAPI() }

// open are the paths that need no key: they say what is public anyway.
func open(path string) bool {
	return path == "/api/docs" || strings.HasPrefix(path, "/api/openapi")
}

// ServeHTTP checks the key, reads the body within its bounds, and answers also
// what no route does.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			panic(v)
		default:
			a.cfg.Log.Error("request failed", "method", r.Method, "route", r.Pattern, "panic", v, "stack", string(debug.Stack()))
			writeProblem(w, problem(CodeInternal, "something went wrong here: the log of the server has it"))
		}
	}()
	// Requests may wait longer than a server's timeouts are: a read deadline that
	// passes meanwhile would cancel them.
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(longestWait + bodyTime + writeTime)) // not every writer has deadlines
	_ = rc.SetReadDeadline(time.Time{})
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	if !open(r.URL.Path) {
		who, ok := known(r.Context())
		if !ok {
			who, ok = authenticate(a.cfg.Keys, r)
		}
		if !ok {
			h.Set("WWW-Authenticate", `Bearer realm="holdfast"`)
			writeProblem(w, problem(CodeUnauthorized, "no valid API key: send one as X-Api-Key, or as Authorization: Bearer"))
			return
		}
		if wait := a.rate.take(who.name, a.cfg.Now()); wait > 0 {
			writeProblem(w, problem(CodeRateLimited, "the key %q asks more often than %g times a second: wait a moment", who.name, a.cfg.Rate).after(wait))
			return
		}
		r = r.WithContext(withPrincipal(r.Context(), who))
		if a.cfg.NotReady != nil {
			if why := a.cfg.NotReady(); why != "" {
				writeProblem(w, problem(CodeStoreUnavailable, "not ready yet: %s", why).after(2*time.Second))
				return
			}
		}
	}
	if isUpload(r) {
		select {
		case a.room <- struct{}{}:
			defer func() { <-a.room }()
		default:
			writeProblem(w, problem(CodeRateLimited, "%d files are being uploaded: wait a moment", uploadsAtOnce).after(time.Second))
			return
		}
	}
	if p := a.takeBody(w, &r); p != nil {
		writeProblem(w, p)
		return
	}
	handler, pattern := a.mux.Handler(r)
	if at := r.URL.EscapedPath(); at != path.Clean(at) { // the mux would redirect
		writeProblem(w, problem(CodeNotFound, "there is no such route: /api/docs lists them"))
		return
	}
	if pattern == "" {
		a.noRoute(w, r, handler)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// takeBody reads the whole body before anything else: a deadline that stayed on
// the connection would end requests that wait.
func (a *API) takeBody(w http.ResponseWriter, at **http.Request) *Problem {
	r := *at
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	most, within := int64(maxBody), bodyTime
	upload := isUpload(r) && caller(r.Context()).role >= Operator && a.cfg.Vault != nil
	if upload {
		most, within = a.cfg.MaxMedia+formRoom, uploadTime
	}
	deadline := http.NewResponseController(w)
	_ = deadline.SetReadDeadline(time.Now().Add(within)) // not every writer has one
	body, err := io.ReadAll(io.LimitReader(r.Body, most+1))
	_ = deadline.SetReadDeadline(time.Time{})
	switch {
	case err != nil:
		return problem(CodeBadRequest, "the body did not arrive whole")
	case int64(len(body)) > most && upload:
		return a.tooLarge()
	case upload:
		r.Body = http.NoBody
		*at = r.WithContext(withBody(r.Context(), body))
		return nil
	case len(body) > maxBody:
		p := problem(CodeTooLarge, "body: has more than %d bytes", maxBody)
		p.Errors = []Fault{{Field: "body", Message: "is too large"}}
		return p
	}
	if field := repeated(body); field != "" {
		return invalid(field, "is there twice")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// noRoute answers a path or method that nothing is registered for.
func (a *API) noRoute(w http.ResponseWriter, r *http.Request, handler http.Handler) {
	probe := &statusOnly{header: http.Header{}}
	handler.ServeHTTP(probe, r)
	if probe.status == http.StatusMethodNotAllowed {
		allowed := probe.header.Get("Allow")
		w.Header().Set("Allow", allowed)
		writeProblem(w, problem(CodeMethodNotAllowed, "this path has no %s: use %s", r.Method, allowed))
		return
	}
	writeProblem(w, problem(CodeNotFound, "there is no such route: /api/docs lists them"))
}

// statusOnly keeps what the mux says of a request that it does not route.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(p []byte) (int, error) { return len(p), nil }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }

func writeProblem(w http.ResponseWriter, p *Problem) {
	h := w.Header()
	for name, values := range p.GetHeaders() {
		h[name] = values
	}
	h.Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = huma.DefaultJSONFormat.Marshal(w, p) // the client may be gone
}

// roleKey is where an operation's metadata has its role.
const roleKey = "role"

// authorize refuses callers whose role does not reach the operation's.
func (a *API) authorize(ctx huma.Context, next func(huma.Context)) {
	needed, _ := ctx.Operation().Metadata[roleKey].(Role)
	if who := caller(ctx.Context()); needed == 0 || who.role < needed {
		_, w := humago.Unwrap(ctx)
		writeProblem(w, problem(CodeForbidden, "this needs the role %s: the key %q has %s", needed, who.name, who.role))
		return
	}
	next(ctx)
}

// route registers an operation: who may call it, its bounds, and how its errors
// are answered.
func route[I, O any](a *API, role Role, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	op.Metadata = map[string]any{roleKey: role}
	op.Security = []map[string][]string{{"key": {}}, {"bearer": {}}}
	op.MaxBodyBytes = maxBody + 1
	op.BodyReadTimeout = -1 // takeBody has read it
	op.RejectUnknownQueryParameters = true
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusServiceUnavailable)
	op.Description = strings.TrimSpace(op.Description + "\n\nRole: " + role.String() + ".")
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err == nil {
			return out, nil
		}
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			// The client is gone: whatever is written reaches nobody.
			return nil, problem(CodeTimeout, "the request was cancelled")
		}
		p, known := problemOf(err)
		if !known {
			a.cfg.Log.Error("request failed", "route", op.OperationID, "error", err)
		}
		return nil, p
	})
}

// answers documents a success that is not the operation's JSON body.
func (a *API) answers(body any, description string, types ...string) map[string]*huma.Response {
	content := map[string]*huma.MediaType{}
	if body != nil {
		content["application/json"] = &huma.MediaType{Schema: a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(body), true, "")}
	}
	for _, t := range types {
		content[t] = &huma.MediaType{Schema: &huma.Schema{Type: "string"}}
	}
	return map[string]*huma.Response{"200": {Description: description, Content: content}}
}

// SessionPath is the session that a route is about.
type SessionPath struct {
	Name string `path:"name" maxLength:"63" pattern:"^[a-z0-9][a-z0-9_-]*$" patternDescription:"1 to 63 of a-z, 0-9, - and _, beginning with a letter or digit" doc:"the session's name"`
}

// WaitParam is how long an answer may be held back.
type WaitParam struct {
	Wait string `query:"wait" example:"10s" maxLength:"16" doc:"wait for the end, at most so long (60s at most)"`
}

// duration reads the parameter; 0 where there is none.
func (w WaitParam) duration() (time.Duration, error) {
	if w.Wait == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(w.Wait)
	if err != nil || d < 0 || d > longestWait {
		return 0, invalid("query.wait", "must be a time from 0s to %s, such as 10s", longestWait)
	}
	return d, nil
}

// KeyParam makes a write that is repeated have its effect once.
type KeyParam struct {
	Key string `header:"Idempotency-Key" maxLength:"128" doc:"a write repeated with the same key has its effect once, for a day"`
}

// MatchParam makes a change only to the version that the client has seen.
type MatchParam struct {
	IfMatch string `header:"If-Match" maxLength:"64" doc:"ETag that the session must still have"`
}

// await calls look until it says done, when the session's bell rings and at
// every poll, for as long as wait.
func (a *API) await(ctx context.Context, session string, wait time.Duration, look func() (done bool, err error)) error {
	heard, stop := a.cfg.Bell.listen(session)
	defer stop()
	if done, err := look(); done || err != nil || wait <= 0 {
		return err
	}
	end := time.NewTimer(wait)
	defer end.Stop()
	poll := time.NewTicker(a.cfg.Poll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return nil
		case <-heard.signal:
		case <-poll.C:
		}
		if done, err := look(); done || err != nil {
			return err
		}
	}
}
