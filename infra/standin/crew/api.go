package crew

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// API is a client of the admin API, with what is needed of its answers.
type API struct {
	Base string // http://HOST:PORT
	Key  string
	HTTP *http.Client
}

// KeySetting is the value of HOLDFAST_API_KEYS that lets a key in.
func KeySetting(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "local:admin:" + hex.EncodeToString(sum[:])
}

// Refused is an answer that is no success.
type Refused struct {
	Status int
	Code   string
	Detail string
}

func (r *Refused) Error() string { return fmt.Sprintf("status %d %s: %s", r.Status, r.Code, r.Detail) }

// Session is one as the API shows it.
type Session struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Cause  string `json:"cause"`
	Paired bool   `json:"paired"`
	Owner  string `json:"owner"`
	Epoch  uint64 `json:"epoch"`

	Generation         uint64 `json:"generation"`
	ObservedGeneration uint64 `json:"observedGeneration"`
}

// Worker is an incarnation as the API shows it.
type Worker struct {
	ID       string `json:"id"`
	Alive    bool   `json:"alive"`
	Draining bool   `json:"draining"`
	Sessions int    `json:"sessions"`
	Online   int    `json:"online"`
	Task     string `json:"task"`
}

// Message is one of the outbox.
type Message struct {
	ID        string `json:"id"`
	MessageID string `json:"messageId"`
	State     string `json:"state"`
	Attempts  int    `json:"attempts"`
	Problem   string `json:"problem"`
}

// Command is one as the API shows it.
type Command struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Problem string `json:"problem"`
}

// Call does one request; a nil body or answer is none.
func (a *API) Call(ctx context.Context, method, path string, body, answer any) error {
	return a.keyed(ctx, method, path, "", body, answer)
}

// keyed does one request with an idempotency key; an empty one is none.
func (a *API) keyed(ctx context.Context, method, path, key string, body, answer any) error {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, a.Base+path, in)
	if err != nil {
		return err
	}
	r.Header.Set("X-Api-Key", a.Key)
	r.Header.Set("Accept", "application/json")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.HTTP.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		refused := &Refused{Status: resp.StatusCode}
		_ = json.Unmarshal(b, refused) // Code and Detail are a problem's own names
		return refused
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("%s %s: the answer is not what it should be: %w", method, path, err)
	}
	return nil
}

// CreateSession makes one that is wanted running.
func (a *API) CreateSession(ctx context.Context, name string) error {
	return a.Call(ctx, http.MethodPost, "/api/sessions", map[string]string{"name": name}, nil)
}

// QR waits for the code that a session shows.
func (a *API) QR(ctx context.Context, session string, wait time.Duration) (string, error) {
	var shown struct {
		Code string `json:"code"`
	}
	err := a.Call(ctx, http.MethodGet, "/api/sessions/"+url.PathEscape(session)+"/qr?wait="+wait.String(), nil, &shown)
	return shown.Code, err
}

// Sessions lists all sessions.
func (a *API) Sessions(ctx context.Context) ([]Session, error) {
	var all []Session
	for cursor := ""; ; {
		var page struct {
			Sessions []Session `json:"sessions"`
			Next     string    `json:"next"`
		}
		if err := a.Call(ctx, http.MethodGet, "/api/sessions?limit=500&cursor="+url.QueryEscape(cursor), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Sessions...)
		if cursor = page.Next; cursor == "" {
			return all, nil
		}
	}
}

// Workers lists the fleet.
func (a *API) Workers(ctx context.Context) ([]Worker, error) {
	var list struct {
		Workers []Worker `json:"workers"`
	}
	err := a.Call(ctx, http.MethodGet, "/api/workers", nil, &list)
	return list.Workers, err
}

// Send leaves a text in a session's outbox. The same key sends once.
func (a *API) Send(ctx context.Context, session, to, text, key string) (Message, error) {
	var m Message
	err := a.Call(ctx, http.MethodPost, "/api/sessions/"+url.PathEscape(session)+"/messages",
		map[string]string{"to": to, "text": text, "idempotencyKey": key}, &m)
	return m, err
}

// Message reads one of the outbox.
func (a *API) Message(ctx context.Context, session, id string) (Message, error) {
	var m Message
	err := a.Call(ctx, http.MethodGet, "/api/sessions/"+url.PathEscape(session)+"/messages/"+url.PathEscape(id), nil, &m)
	return m, err
}

// Order asks for one of a session's verbs without a body: start, stop, restart.
// The same key orders once.
func (a *API) Order(ctx context.Context, session, verb, key string) (Command, error) {
	var c Command
	err := a.keyed(ctx, http.MethodPost, "/api/sessions/"+url.PathEscape(session)+"/"+verb, key, nil, &c)
	return c, err
}

// Command reads one.
func (a *API) Command(ctx context.Context, id string) (Command, error) {
	var c Command
	err := a.Call(ctx, http.MethodGet, "/api/commands/"+url.PathEscape(id), nil, &c)
	return c, err
}
