package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/holdfast-wa/holdfast/state"
)

// Code is the stable name of a problem. Programs branch on it; titles and
// details may be reworded.
type Code string

// The codes.
const (
	CodeBadRequest          Code = "bad_request"
	CodeUnauthorized        Code = "unauthorized"
	CodeForbidden           Code = "forbidden"
	CodeNotFound            Code = "not_found"
	CodeMethodNotAllowed    Code = "method_not_allowed"
	CodeNotAcceptable       Code = "not_acceptable"
	CodeStreamingNotHere    Code = "streaming_not_here"
	CodeTimeout             Code = "request_timeout"
	CodeTooLarge            Code = "too_large"
	CodeAnswerTooLarge      Code = "answer_too_large"
	CodeUnsupportedMedia    Code = "unsupported_media_type"
	CodeInvalid             Code = "invalid"
	CodeExists              Code = "exists"
	CodeConflict            Code = "conflict"
	CodePrecondition        Code = "precondition_failed"
	CodeIdempotencyMismatch Code = "idempotency_mismatch"
	CodeCooldown            Code = "cooldown"
	CodeAlreadyPaired       Code = "already_paired"
	CodeNotPaired           Code = "not_paired"
	CodeNoQR                Code = "no_qr"
	CodeNothingToRestore    Code = "nothing_to_restore"
	CodeNotCancellable      Code = "not_cancellable"
	CodeManySessions        Code = "many_sessions"
	CodeWorkerDead          Code = "worker_dead"
	CodeWorkerAlive         Code = "worker_alive"
	CodeNoUploads           Code = "no_uploads"
	CodeRateLimited         Code = "rate_limited"
	CodeStoreUnavailable    Code = "store_unavailable"
	CodeCorrupt             Code = "corrupt_record"
	CodeInternal            Code = "internal"
)

// problems is the one table of codes: the status that each is answered with,
// and its title.
var problems = map[Code]struct {
	status int
	title  string
}{
	CodeBadRequest:          {http.StatusBadRequest, "The request cannot be read"},
	CodeUnauthorized:        {http.StatusUnauthorized, "No valid API key"},
	CodeForbidden:           {http.StatusForbidden, "The API key's role does not allow this"},
	CodeNotFound:            {http.StatusNotFound, "Not found"},
	CodeMethodNotAllowed:    {http.StatusMethodNotAllowed, "This route does not have this method"},
	CodeNotAcceptable:       {http.StatusNotAcceptable, "None of the accepted formats can be answered"},
	CodeStreamingNotHere:    {http.StatusNotAcceptable, "Events are not streamed here"},
	CodeTimeout:             {http.StatusRequestTimeout, "The request took too long to arrive"},
	CodeTooLarge:            {http.StatusRequestEntityTooLarge, "The request is too large"},
	CodeAnswerTooLarge:      {http.StatusRequestEntityTooLarge, "The answer is too large to be sent from here"},
	CodeUnsupportedMedia:    {http.StatusUnsupportedMediaType, "The body must be application/json"},
	CodeInvalid:             {http.StatusUnprocessableEntity, "A field of the request is not valid"},
	CodeExists:              {http.StatusConflict, "It exists already"},
	CodeConflict:            {http.StatusConflict, "It has changed meanwhile"},
	CodePrecondition:        {http.StatusPreconditionFailed, "It is not the version that If-Match names"},
	CodeIdempotencyMismatch: {http.StatusConflict, "The idempotency key was used for something else"},
	CodeCooldown:            {http.StatusConflict, "The session is cooling down"},
	CodeAlreadyPaired:       {http.StatusConflict, "The session is paired already"},
	CodeNotPaired:           {http.StatusConflict, "The session is not paired"},
	CodeNoQR:                {http.StatusNotFound, "No QR is shown now"},
	CodeNothingToRestore:    {http.StatusConflict, "There are no credentials to restore"},
	CodeNotCancellable:      {http.StatusConflict, "The message cannot be cancelled any more"},
	CodeManySessions:        {http.StatusConflict, "This route is for a worker of one session"},
	CodeWorkerDead:          {http.StatusConflict, "The worker is dead"},
	CodeWorkerAlive:         {http.StatusConflict, "The worker is alive"},
	CodeNoUploads:           {http.StatusNotFound, "No files are taken here"},
	CodeRateLimited:         {http.StatusTooManyRequests, "Too many requests"},
	CodeStoreUnavailable:    {http.StatusServiceUnavailable, "The state store does not answer"},
	CodeCorrupt:             {http.StatusInternalServerError, "A stored record cannot be read"},
	CodeInternal:            {http.StatusInternalServerError, "Something went wrong here"},
}

// Problem is the body of every answer that is not a success: RFC 9457 with a
// stable code, and the fields at fault.
type Problem struct {
	Type       string  `json:"type" example:"about:blank" doc:"always about:blank: the code tells the kind"`
	Title      string  `json:"title" doc:"the kind of problem in words"`
	Status     int     `json:"status" doc:"the HTTP status"`
	Code       Code    `json:"code" doc:"stable name of the kind of problem" example:"not_found"`
	Detail     string  `json:"detail,omitempty" doc:"what went wrong this time, and what to do"`
	RetryAfter int     `json:"retryAfter,omitempty" doc:"seconds until it makes sense to try again"`
	Errors     []Fault `json:"errors,omitempty" doc:"the fields at fault"`
}

// Fault is one field of a request that is not valid.
type Fault struct {
	Field   string `json:"field" example:"body.settings.profile" doc:"where: body, query, path or header, then the field"`
	Message string `json:"message" doc:"what is wrong with it"`
}

func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Detail
}

// GetStatus is the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is that of problems.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// GetHeaders has Retry-After where the problem passes.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	return h
}

// problem makes a Problem of the table's kind.
func problem(code Code, format string, args ...any) *Problem {
	kind := problems[code]
	return &Problem{Type: "about:blank", Title: kind.title, Status: kind.status, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// invalid is the problem of one field.
func invalid(field, format string, args ...any) *Problem {
	p := problem(CodeInvalid, "%s: %s", field, fmt.Sprintf(format, args...))
	p.Errors = []Fault{{Field: field, Message: fmt.Sprintf(format, args...)}}
	return p
}

func (p *Problem) after(d time.Duration) *Problem {
	p.RetryAfter = max(1, int((d+time.Second-1)/time.Second))
	return p
}

// problemOf translates an error of the store or of a handler. Known is false
// for one that nobody foresaw: it is answered without its words, which are for
// the log.
func problemOf(err error) (p *Problem, known bool) {
	switch {
	case errors.As(err, &p):
		return p, true
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, state.ErrUnavailable):
		return problem(CodeStoreUnavailable, "the state store does not answer: nothing may have changed; try again").after(time.Second), true
	case errors.Is(err, state.ErrNotFound):
		return problem(CodeNotFound, "%s", err), true
	case errors.Is(err, state.ErrExists):
		return problem(CodeExists, "%s", err), true
	case errors.Is(err, state.ErrConflict), errors.Is(err, state.ErrFenced):
		return problem(CodeConflict, "it has changed meanwhile: read it and try again"), true
	case errors.Is(err, state.ErrTooLarge):
		return problem(CodeTooLarge, "%s", err), true
	case errors.Is(err, state.ErrCorrupt):
		return problem(CodeCorrupt, "a stored record cannot be read: is the master key the right one? holdfast sessions verify tells which"), false
	}
	return problem(CodeInternal, "something went wrong here: the log of the server has it"), false
}

// faultOf puts what the library says of a field into our words: a property that is
// missing is the one at fault, not the object that lacks it.
func faultOf(location, message string) Fault {
	if name, ok := strings.CutPrefix(message, "expected required property "); ok {
		if name, ok := strings.CutSuffix(name, " to be present"); ok {
			return Fault{Field: location + "." + name, Message: "is required"}
		}
	}
	switch message {
	case "invalid integer":
		message = "must be a whole number, 0 or more"
	case "unexpected property":
		message = "is not known here"
	case "unknown query parameter":
		message = "is not known here"
	}
	return Fault{Field: location, Message: message}
}

// The library makes its own problems (unreadable bodies, fields that do not
// match the schema) through this hook, so that they have our shape. The value
// at fault is left out: it may be a secret.
func init() {
	huma.ValidateStrictCasing = true // else Name and name are both names, and the later one counts
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		code := codeOf(status)
		if status == http.StatusInternalServerError && message == "cannot read request body" {
			code = CodeBadRequest
		}
		p := problem(code, "%s", message)
		if status != 0 && code != CodeBadRequest {
			p.Status = status
		}
		if code == CodeInternal {
			p.Detail = "something went wrong here: the log of the server has it"
			return p
		}
		var words []string
		for _, err := range errs {
			f := Fault{Message: "is not valid"}
			if d := huma.ErrorDetailer(nil); errors.As(err, &d) {
				detail := d.ErrorDetail()
				f = faultOf(detail.Location, detail.Message)
			}
			p.Errors = append(p.Errors, f)
			words = append(words, strings.TrimPrefix(f.Field+": "+f.Message, ": "))
		}
		if len(words) > 0 {
			p.Detail = strings.Join(words, "; ")
		}
		return p
	}
}

// codeOf is the code of the problems that the library makes by status.
func codeOf(status int) Code {
	switch status {
	case http.StatusBadRequest:
		return CodeBadRequest
	case http.StatusNotAcceptable:
		return CodeNotAcceptable
	case http.StatusRequestTimeout:
		return CodeTimeout
	case http.StatusRequestEntityTooLarge:
		return CodeTooLarge
	case http.StatusUnsupportedMediaType:
		return CodeUnsupportedMedia
	case http.StatusUnprocessableEntity:
		return CodeInvalid
	}
	return CodeInternal
}
