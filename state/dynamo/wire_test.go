package dynamo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamotest"
)

// wire stands between the store and DynamoDB: it notes requests and does to
// them what a network and a busy service do.
type wire struct {
	next aws.HTTPClient

	mu    sync.Mutex
	seen  []request
	fault func(request) fault // nil, or nil for a request: it passes
}

// request is one on its way.
type request struct {
	Op    string // DynamoDB's name of it
	Token string // the client request token, of transactions
	Body  string
	N     int // of the requests since faults were set, from 1
}

// fault is what is done to a request instead of passing it on.
type fault func(w *wire, r *http.Request) (*http.Response, error)

func (w *wire) Do(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	var in map[string]any
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	token, _ := in["ClientRequestToken"].(string)
	if body, err = json.Marshal(in); err != nil { // the same for the same request: the SDK's order varies
		return nil, err
	}
	w.mu.Lock()
	req := request{op, token, string(body), len(w.seen) + 1}
	w.seen = append(w.seen, req)
	script := w.fault
	w.mu.Unlock()
	if script != nil {
		if f := script(req); f != nil {
			return f(w, r)
		}
	}
	return w.next.Do(r)
}

// set forgets what was seen and has the script decide from now on.
func (w *wire) set(script func(request) fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen, w.fault = nil, script
}

func (w *wire) requests() []request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]request(nil), w.seen...)
}

func (w *wire) ops() string {
	var ops []string
	for _, r := range w.requests() {
		ops = append(ops, r.Op)
	}
	return strings.Join(ops, " ")
}

// wired opens an empty store behind a wire.
func wired(t *testing.T, change ...func(*dynamo.Options)) (*dynamo.Store, *wire) {
	t.Helper()
	w := &wire{}
	s := dynamotest.Open(t, append(change, func(o *dynamo.Options) {
		w.next = o.HTTPClient
		o.HTTPClient = w
	})...)
	w.set(nil)
	return s, w
}

// another opens a second store over the same database, with a wire of its own.
func another(t *testing.T, change func(*dynamo.Options)) (first, second *dynamo.Store, w *wire) {
	t.Helper()
	o := dynamotest.Options(t)
	w = &wire{next: o.HTTPClient}
	first = dynamotest.Reopen(t, o)
	if err := first.Create(context.Background()); err != nil {
		t.Fatal(err)
	}
	o.HTTPClient = w
	if change != nil {
		change(&o)
	}
	return first, dynamotest.Reopen(t, o), w
}

func retryFor(d time.Duration) func(*dynamo.Options) {
	return func(o *dynamo.Options) { o.RetryFor = d }
}

// first is a script that does something to the first n requests.
func first(n int, f fault) func(request) fault {
	return func(r request) fault {
		if r.N <= n {
			return f
		}
		return nil
	}
}

func always(f fault) func(request) fault { return func(request) fault { return f } }

func answer(r *http.Request, status int, body string) (*http.Response, error) {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header:        http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

// refuse answers with an error of DynamoDB's.
func refuse(status int, code string) fault {
	return func(_ *wire, r *http.Request) (*http.Response, error) {
		return answer(r, status, fmt.Sprintf(`{"__type":"com.amazonaws.dynamodb.v20120810#%s","message":"said so"}`, code))
	}
}

// cancel answers that the transaction was cancelled, with a reason for each item.
func cancel(reasons ...string) fault {
	return func(_ *wire, r *http.Request) (*http.Response, error) {
		var all []string
		for _, code := range reasons {
			all = append(all, fmt.Sprintf(`{"Code":%q}`, code))
		}
		return answer(r, http.StatusBadRequest, fmt.Sprintf(
			`{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","Message":"cancelled","CancellationReasons":[%s]}`,
			strings.Join(all, ",")))
	}
}

// unsent is a connection that cannot be made.
func unsent(*wire, *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("dial tcp: connection refused")
}

// lost has the request carried out, and its answer lost.
func lost(w *wire, r *http.Request) (*http.Response, error) {
	resp, err := w.next.Do(r.WithContext(context.WithoutCancel(r.Context())))
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return nil, err
	}
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	return nil, io.ErrUnexpectedEOF
}

// swallowed is a request that is never answered, and does not arrive either.
func swallowed(_ *wire, r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// late has the request carried out, and answered when nobody waits any more.
func late(w *wire, r *http.Request) (*http.Response, error) {
	if _, err := lost(w, r); !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return swallowed(w, r)
}
