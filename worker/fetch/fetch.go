// Package fetch gets files from URLs that users of the API have named, for
// messages with attachments. Such a URL is not trusted: every address is judged
// when it is dialled (package safedial), redirects are followed only where a
// setting says so, and size and time are bounded.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
)

// Defaults of a Config.
const (
	DefaultLimit  = 16 << 20
	DefaultWithin = time.Minute
)

// hops is how many redirects are followed in a row.
const hops = 5

// Config says what may be fetched. The zero value is usable.
type Config struct {
	// Allow is what may be reached beside the internet.
	Allow safedial.Policy
	// Redirects says that they are followed, each judged as the first address.
	Redirects bool
	// Limit bounds a file, bytes; default 16 MiB.
	Limit int64
	// Within bounds a fetch from dial to the last byte; default 1 min.
	Within time.Duration
}

// File is what was fetched. MIME and Name are the server's word; either may be
// empty.
type File struct {
	Data []byte
	MIME string
	Name string
}

// The codes of errors: they are shown as the code of the message.
const (
	CodeRefused     = "media_refused"     // by us or by the server, for good
	CodeTooLarge    = "media_too_large"   // for good
	CodeUnreachable = "media_unreachable" // may pass
)

// Error is why a file was not fetched. Its text names the host of the URL alone:
// paths and queries often hold secrets.
type Error struct {
	Code      string
	Temporary bool
	Host      string
	Err       error
}

func (e *Error) Error() string {
	if e.Host == "" {
		return "fetching the file: " + e.Err.Error()
	}
	return "fetching the file from " + e.Host + ": " + e.Err.Error()
}

// Unwrap gives the chain of errors.
func (e *Error) Unwrap() error { return e.Err }

// Fetcher fetches files. It is safe for concurrent use.
type Fetcher struct {
	cfg    Config
	client *http.Client
	idle   func()
}

// New makes a Fetcher. Close it when it is used no more.
func New(c Config) *Fetcher {
	if c.Limit <= 0 {
		c.Limit = DefaultLimit
	}
	if c.Within <= 0 {
		c.Within = DefaultWithin
	}
	t := c.Allow.Transport()
	t.DisableCompression = true // what is counted is what arrives
	t.MaxResponseHeaderBytes = 64 << 10
	t.ResponseHeaderTimeout = c.Within
	f := &Fetcher{cfg: c, idle: t.CloseIdleConnections}
	f.client = &http.Client{Transport: t, CheckRedirect: f.redirect}
	return f
}

// Close drops idle connections.
func (f *Fetcher) Close() { f.idle() }

// Check tells what can be told of a URL without asking anybody. Its error does not
// repeat the URL.
func (f *Fetcher) Check(rawURL string) error {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return &Error{Code: CodeRefused, Err: errors.New("is not an http or https URL")}
	}
	if err := f.cfg.Allow.CheckURL(rawURL); err != nil {
		return &Error{Code: CodeRefused, Host: u.Hostname(), Err: err}
	}
	return nil
}

var (
	errHops  = errors.New("it redirects again and again")
	errOther = errors.New("it redirects to what is not an http or https URL")
)

func (f *Fetcher) redirect(req *http.Request, via []*http.Request) error {
	switch {
	case !f.cfg.Redirects:
		return http.ErrUseLastResponse
	case len(via) > hops:
		return errHops
	case req.URL.Scheme != "http" && req.URL.Scheme != "https", req.URL.Hostname() == "":
		return errOther
	}
	req.Header.Del("Referer")
	return f.cfg.Allow.CheckURL(req.URL.String())
}

// Fetch gets a file. Its errors are *Errors, or the context's.
func (f *Fetcher) Fetch(ctx context.Context, rawURL string) (File, error) {
	if err := f.Check(rawURL); err != nil {
		return File{}, err
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return File{}, err
	}
	host := u.Hostname()
	within, cancel := context.WithTimeout(ctx, f.cfg.Within)
	defer cancel()
	req, err := http.NewRequestWithContext(within, http.MethodGet, rawURL, nil)
	if err != nil {
		return File{}, &Error{Code: CodeRefused, Host: host, Err: errors.New("no request can be made to it")}
	}
	req.Header.Set("User-Agent", "holdfast-media")
	req.Header.Set("Accept", "*/*")
	resp, err := f.client.Do(req)
	if err != nil {
		return File{}, f.failed(ctx, host, err)
	}
	defer resp.Body.Close()
	if err := f.answered(host, resp); err != nil {
		return File{}, err
	}
	tooLarge := &Error{Code: CodeTooLarge, Host: host, Err: fmt.Errorf("it has more than %d bytes", f.cfg.Limit)}
	if resp.ContentLength > f.cfg.Limit {
		return File{}, tooLarge
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, f.cfg.Limit+1))
	switch {
	case err != nil:
		return File{}, f.failed(ctx, host, err)
	case int64(len(data)) > f.cfg.Limit:
		return File{}, tooLarge
	}
	return File{Data: data, MIME: resp.Header.Get("Content-Type"), Name: nameOf(resp)}, nil
}

// answered judges the status.
func (f *Fetcher) answered(host string, resp *http.Response) error {
	e := &Error{Code: CodeRefused, Host: host, Err: fmt.Errorf("it answers HTTP %d", resp.StatusCode)}
	switch status := resp.StatusCode; {
	case status == http.StatusOK:
		return nil
	case status >= 300 && status < 400:
		e.Err = fmt.Errorf("it answers HTTP %d, a redirect, which is not followed; name the URL that it leads to, or set media-redirects", status)
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests, status >= 500:
		e.Code, e.Temporary = CodeUnreachable, true
	}
	return e
}

// failed says why there was no answer, without the URL.
func (f *Fetcher) failed(ctx context.Context, host string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var refused *safedial.Refused
	if errors.As(err, &refused) {
		return &Error{Code: CodeRefused, Host: host, Err: refused}
	}
	for _, final := range []error{errHops, errOther} {
		if errors.Is(err, final) {
			return &Error{Code: CodeRefused, Host: host, Err: final}
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("it took longer than %s", f.cfg.Within)
	}
	var at *url.Error
	if errors.As(err, &at) {
		err = at.Err
	}
	return &Error{Code: CodeUnreachable, Temporary: true, Host: host, Err: err}
}

// nameOf is the file's name: as the server says, else the end of the path.
func nameOf(resp *http.Response) string {
	if _, params, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition")); err == nil {
		if name := clean(params["filename"]); name != "" {
			return name
		}
	}
	return clean(path.Base(resp.Request.URL.Path))
}

// clean makes a name of what a server says is one: the last part of a path,
// without what would break a line, at most 255 bytes.
func clean(name string) string {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, ""))
	for len(name) > 255 {
		name = strings.ToValidUTF8(name[:255], "")
	}
	if name == "." || name == ".." {
		return ""
	}
	return name
}
