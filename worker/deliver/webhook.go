package deliver

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
)

// SinkWebhook is the name of the webhook sink.
const SinkWebhook = "webhook"

const (
	answerLimit = 64 << 10        // bytes of a receiver's answer that are read
	turnSlice   = time.Second     // after so long a batch is given back, so that the cursor moves
	laterLimit  = time.Hour       // the longest Retry-After that is obeyed
	agent       = "holdfast-hook" // User-Agent
)

// PosterConfig says how webhooks are posted. The zero value is usable.
type PosterConfig struct {
	Timeout   time.Duration     // of one attempt, from dial to the end of the answer; default 10 s
	Tries     int               // attempts within one delivery; default 3
	RetryMin  time.Duration     // pause between those, doubling; default 500 ms
	RetryMax  time.Duration     // and at most; default 4 s. A longer Retry-After ends the delivery
	Allow     safedial.Policy   // which addresses may be posted to beside the internet's
	Transport http.RoundTripper // instead of one made from the above; for tests
	Now       func() time.Time
}

// Poster posts events for all webhooks of the process: they share connections
// and bounds.
type Poster struct {
	client *retryablehttp.Client
	idle   func()
	slice  time.Duration
	now    func() time.Time
}

// NewPoster makes a Poster. Close it when no webhook of it is used any more.
func NewPoster(c PosterConfig) *Poster {
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Tries <= 0 {
		c.Tries = 3
	}
	if c.RetryMin <= 0 {
		c.RetryMin = 500 * time.Millisecond
	}
	if c.RetryMax <= 0 {
		c.RetryMax = 4 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	p := &Poster{now: c.Now, slice: turnSlice, idle: func() {}}
	transport := c.Transport
	if transport == nil {
		t := c.Allow.Transport()
		t.ResponseHeaderTimeout, t.MaxResponseHeaderBytes, t.DisableCompression = c.Timeout, answerLimit, true
		transport, p.idle = t, t.CloseIdleConnections
	}
	p.client = &retryablehttp.Client{
		HTTPClient: &http.Client{
			Transport: kept{transport},
			Timeout:   c.Timeout,
			// A redirect is a mistake in the settings or an attempt to lead us
			// to an inner address: it is an answer, not an instruction.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Logger:       nil, // it would log URLs, which may hold secrets
		RetryWaitMin: c.RetryMin,
		RetryWaitMax: c.RetryMax,
		RetryMax:     c.Tries - 1,
		CheckRetry:   p.checkRetry,
		Backoff:      p.backoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		PrepareRetry: func(r *http.Request) error { return sign(r, p.now()) },
	}
	return p
}

// Close drops idle connections.
func (p *Poster) Close() { p.idle() }

// kept hides CloseIdleConnections, which the retrying client calls after every
// failure: one bad receiver would cost all others their connections.
type kept struct{ inner http.RoundTripper }

func (k kept) RoundTrip(r *http.Request) (*http.Response, error) { return k.inner.RoundTrip(r) }

// Webhook posts the events of a session to its receiver.
type Webhook struct {
	poster *Poster
	url    string
	signer *standardwebhooks.Webhook // nil: not signed
}

// The bounds of a secret that is set, in bytes. A short one can be guessed from a
// single signed request.
const (
	minSecret = 16
	maxSecret = 512
)

// CheckWebhook tells whether URL and secret may be set. Its errors hold neither.
func CheckWebhook(rawURL, secret string) error {
	if err := checkURL(rawURL); err != nil {
		return err
	}
	if _, err := signerOf(secret); err != nil {
		return err
	}
	n := len(secret)
	if encoded, ok := strings.CutPrefix(secret, "whsec_"); ok {
		n = base64.StdEncoding.DecodedLen(len(encoded)) - strings.Count(encoded, "=")
	}
	if secret != "" && (n < minSecret || n > maxSecret) {
		return fmt.Errorf("webhook secret: has %d bytes; use %d to %d, such as whsec_ and what openssl rand -base64 32 prints", n, minSecret, maxSecret)
	}
	return nil
}

func checkURL(rawURL string) error {
	const want = "http://HOST/PATH or https://HOST/PATH"
	u, err := url.Parse(rawURL)
	if err != nil {
		return errors.New("webhook URL: is not a URL; use " + want)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return errors.New("webhook URL: must be " + want)
	}
	return nil
}

// signerOf reads a secret: whsec_ and base64, as the standard writes it, or,
// without that prefix, the bytes as they are. Empty: nil, not signed.
func signerOf(secret string) (*standardwebhooks.Webhook, error) {
	if secret == "" {
		return nil, nil
	}
	if encoded, ok := strings.CutPrefix(secret, "whsec_"); ok {
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(key) == 0 {
			return nil, errors.New("webhook secret: what follows whsec_ is not base64; copy it whole, with its = at the end")
		}
		return standardwebhooks.NewWebhookRaw(key)
	}
	return standardwebhooks.NewWebhookRaw([]byte(secret))
}

// Webhook makes the sink of one receiver. An empty secret means that requests
// are not signed. A short one that was set when it could be is used.
func (p *Poster) Webhook(rawURL, secret string) (*Webhook, error) {
	if err := checkURL(rawURL); err != nil {
		return nil, err
	}
	signer, err := signerOf(secret)
	if err != nil {
		return nil, err
	}
	return &Webhook{poster: p, url: rawURL, signer: signer}, nil
}

// Name is SinkWebhook.
func (w *Webhook) Name() string { return SinkWebhook }

// Deliver posts one event a request, in order, until one fails or a second is
// over.
func (w *Webhook) Deliver(ctx context.Context, events []state.Event) (int, error) {
	began := w.poster.now()
	for i, ev := range events {
		if i > 0 && w.poster.now().Sub(began) > w.poster.slice {
			return i, nil
		}
		if err := w.post(ctx, ev); err != nil {
			return i, err
		}
	}
	return len(events), nil
}

// signing is what a retry needs to sign again with its own time.
type signing struct {
	signer *standardwebhooks.Webhook
	id     string
	body   []byte
}

type signingKey struct{}

func sign(r *http.Request, now time.Time) error {
	s, ok := r.Context().Value(signingKey{}).(signing)
	if !ok {
		return errors.New("webhook request without its signing")
	}
	r.Header.Set(standardwebhooks.HeaderWebhookID, s.id)
	r.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	if s.signer == nil {
		return nil
	}
	signature, err := s.signer.Sign(s.id, now, s.body)
	if err != nil {
		return fmt.Errorf("signing event %s: %w", s.id, err)
	}
	r.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	return nil
}

func (w *Webhook) post(ctx context.Context, ev state.Event) error {
	body, err := json.Marshal(ev)
	if err != nil {
		return unencodable(ev)
	}
	req, err := retryablehttp.NewRequestWithContext(context.WithValue(ctx, signingKey{}, signing{w.signer, ev.ID, body}),
		http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("webhook URL: no request can be made to it")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", agent)
	if err := sign(req.Request, w.poster.now()); err != nil {
		return err
	}
	resp, err := w.poster.client.Do(req)
	if resp == nil {
		return redacted(ctx, err)
	}
	defer resp.Body.Close()
	_, readErr := io.Copy(io.Discard, io.LimitReader(resp.Body, answerLimit))
	switch status := resp.StatusCode; {
	case status >= 200 && status < 300:
		// The receiver has it, also if its answer broke off.
		return nil
	case passing(status):
		return later(resp, w.poster.now(), fmt.Errorf("receiver answered HTTP %d", status))
	case status >= 400 && status < 500:
		return &Refused{Status: status}
	case status >= 300 && status < 400:
		return fmt.Errorf("receiver answered HTTP %d, a redirect, which is not followed; set the URL that it leads to", status)
	case readErr != nil:
		return redacted(ctx, readErr)
	default:
		return fmt.Errorf("receiver answered HTTP %d", status)
	}
}

// passing says whether a status is one that may be different next time.
func passing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500
}

// redacted takes the URL out of a transport error: it may hold a secret.
func redacted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var u *url.Error
	if errors.As(err, &u) {
		if u.Timeout() {
			return errors.New("receiver did not answer in time")
		}
		return fmt.Errorf("receiver not reached: %w", u.Err)
	}
	if err == nil {
		return errors.New("receiver not reached")
	}
	return fmt.Errorf("receiver not reached: %w", err)
}

func (p *Poster) checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil || isProbe(ctx) {
		return false, nil
	}
	if err != nil {
		var refused *safedial.Refused
		if errors.As(err, &refused) {
			return false, nil
		}
		// One that hangs is not waited for twice while it holds a place.
		var slow net.Error
		return !errors.As(err, &slow) || !slow.Timeout(), nil
	}
	if !passing(resp.StatusCode) {
		return false, nil
	}
	// A receiver that wants a longer pause than we hold a place for gets it
	// from the dispatcher.
	after, ok := retryAfter(resp, p.now())
	return !ok || after <= p.client.RetryWaitMax, nil
}

func (p *Poster) backoff(low, high time.Duration, attempt int, resp *http.Response) time.Duration {
	if after, ok := retryAfter(resp, p.now()); ok {
		return after
	}
	return min(low<<min(attempt, 16), high)
}

// retryAfter reads the header in seconds or as a date.
func retryAfter(resp *http.Response, now time.Time) (time.Duration, bool) {
	if resp == nil {
		return 0, false
	}
	value := strings.TrimSpace(resp.Header.Get("Retry-After"))
	if value == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil {
		if seconds < 0 {
			return 0, false
		}
		return time.Duration(min(seconds, int64(laterLimit/time.Second))) * time.Second, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), laterLimit), true
}

func later(resp *http.Response, now time.Time, err error) error {
	if after, ok := retryAfter(resp, now); ok {
		return &Later{After: after, Err: err}
	}
	return err
}
