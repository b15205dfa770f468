package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
)

const (
	// answerTimeout bounds a request, beyond what it asks the server to wait.
	answerTimeout = 30 * time.Second
	// uploadTimeout is what a file may take beside that.
	uploadTimeout = 2 * time.Minute
	// maxAnswer bounds what is read of an answer, bytes.
	maxAnswer = 16 << 20
)

// newHTTPClient makes the client for admin API and health check. It knows no
// proxy: the key must not travel through one that the environment names by
// accident.
func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout: 10 * time.Second,
		},
		// A redirect would carry the key to another place.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// client talks to the admin API.
type client struct {
	base string
	key  Secret
	http *http.Client
}

// clientCommand gives a command the flags that say where the admin API is.
func (a *app) clientCommand(cmd *cobra.Command) *cobra.Command {
	settingFlags(cmd, append([]string{"url", "api-key", "api-key-file"}, storeSettings...))
	a.jsonFlag(cmd)
	return cmd
}

// client makes the client that a command was told to use.
func (a *app) client(cmd *cobra.Command) (*client, error) {
	if storeFlag(cmd) != "" {
		return a.storeClient(cmd)
	}
	cfg, err := a.config(cmd, clientSettings)
	if err != nil {
		return nil, err
	}
	c := &client{base: cfg.URL, key: cfg.APIKey, http: a.http}
	if c.base == "" {
		c.base = "http://" + dialable(cfg.Listen)
	}
	if c.key == "" {
		path := cfg.APIKeyFile
		if path == "" {
			path = filepath.Join(cfg.DataDir, apiKeyFile)
		}
		if c.key, err = readKeyFile(path); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// refusal is an answer of the admin API that is no success. Its text is why and
// what to do; who asked puts what before it.
type refusal struct {
	adminapi.Problem
	path string // that was asked for
}

func (p *refusal) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	text += " (" + string(p.Code) + ")"
	switch {
	case p.RetryAfter > 0:
		return text + "; try again in " + (time.Duration(p.RetryAfter) * time.Second).String()
	case p.Status == http.StatusUnauthorized:
		return text + "; give the right key with --api-key-file or HOLDFAST_API_KEY"
	case p.Status == http.StatusForbidden:
		return text + "; use a key with a higher role"
	case p.Code == adminapi.CodeNotFound && strings.HasPrefix(p.path, "/api/workers"):
		return text + "; holdfast workers shows who is there"
	case p.Code == adminapi.CodeNotFound:
		return text + "; holdfast sessions ls shows what is there"
	}
	return text
}

// request is one call of the admin API.
type request struct {
	method string
	path   string // beginning with /api
	query  url.Values
	body   any
	accept string        // default application/json
	wait   time.Duration // how long the server is asked to wait

	lastEvent string // of a stream: the id of the last event that was seen

	raw         []byte // instead of body, of contentType
	contentType string
	key         string // of idempotency; empty: none
}

// open makes a request and returns the answer of a 2xx. The caller closes its
// body.
func (c *client) open(ctx context.Context, r request) (*http.Response, error) {
	var body io.Reader
	if r.raw != nil {
		body = bytes.NewReader(r.raw)
	} else if r.body != nil {
		b, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("the request cannot be written: %w", err)
		}
		body = bytes.NewReader(b)
	}
	if r.wait > 0 {
		if r.query == nil {
			r.query = url.Values{}
		}
		r.query.Set("wait", r.wait.String())
	}
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be asked: %w; check --url", c.base, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", cmp.Or(r.contentType, "application/json"))
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	if r.accept == "" {
		r.accept = "application/json"
	}
	req.Header.Set("Accept", r.accept)
	if r.lastEvent != "" {
		req.Header.Set("Last-Event-ID", r.lastEvent)
	}
	req.Header.Set("X-Api-Key", c.key.Reveal())
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readProblem(c.base, r.path, resp)
}

func (c *client) unreachable(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled):
		return context.Canceled
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens at %s; start holdfast dev, or say with --url where it is", c.base)
	}
	return fmt.Errorf("%s does not answer: %w; is it holdfast, and is --url right?", c.base, cause(err))
}

func readProblem(base, path string, resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	p := &refusal{path: path}
	if json.Unmarshal(b, &p.Problem) != nil || p.Code == "" {
		return fmt.Errorf("%s answers %s and not as holdfast does; check --url", base, resp.Status)
	}
	p.Status = resp.StatusCode
	return p
}

// call makes a request and decodes its answer into answer, unless that is nil.
func (c *client) call(ctx context.Context, r request, answer any) error {
	within := answerTimeout + r.wait
	if r.raw != nil {
		within += uploadTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	resp, err := c.open(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.unreachable(ctx, err)
	}
	if answer == nil || len(b) == 0 {
		return nil
	}
	if raw, ok := answer.(*[]byte); ok {
		*raw = b
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("the answer of %s is not what this release knows: %w; use the same release on both sides", c.base, err)
	}
	return nil
}

// get reads a resource.
func (c *client) get(ctx context.Context, path string, query url.Values, answer any) error {
	return c.call(ctx, request{method: http.MethodGet, path: path, query: query}, answer)
}

func sessionPath(name string, more ...string) string {
	p := "/api/sessions/" + url.PathEscape(name)
	for _, m := range more {
		p += "/" + url.PathEscape(m)
	}
	return p
}
