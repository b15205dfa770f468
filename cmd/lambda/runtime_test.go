package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// bootstrap is the function as it is deployed, built once.
var bootstrap = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "holdfast-lambda-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "bootstrap")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "lambda.norpc", "-ldflags", "-s -w -X main.release=test", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the function: %w: %s", err, out)
	}
	return path, nil
})

// built is the folder of the bootstrap, once there is one.
var built string

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

// outcome is what a function made of an event: an answer, or an error.
type outcome struct {
	body   []byte
	failed bool
}

// invocation is an event on its way to the function.
type invocation struct {
	payload []byte
	within  time.Duration
	done    chan outcome
}

// function is a running bootstrap with the Runtime API that it asks, as AWS
// documents it.
type function struct {
	t      testing.TB
	events chan invocation
	asked  chan struct{} // closed when it asks for its first event
	log    *lockedBuffer
	ended  chan error

	mu    sync.Mutex
	open  map[string]invocation
	count int
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs the bootstrap with these variables, as Lambda would: nothing of this
// process's environment reaches it.
func start(t testing.TB, environ ...string) *function {
	t.Helper()
	path, err := bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	f := &function{t: t, events: make(chan invocation), asked: make(chan struct{}), log: &lockedBuffer{}, ended: make(chan error, 1), open: map[string]invocation{}}
	server := httptest.NewServer(f)
	cmd := exec.Command(path)
	cmd.Env = append([]string{"AWS_LAMBDA_RUNTIME_API=" + strings.TrimPrefix(server.URL, "http://"), "_HANDLER=bootstrap",
		"AWS_LAMBDA_FUNCTION_NAME=holdfast-admin", "AWS_LAMBDA_LOG_STREAM_NAME=2026/05/06/[$LATEST]abc", "TZ=:UTC"}, environ...)
	cmd.Stdout, cmd.Stderr = f.log, f.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { f.ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		server.CloseClientConnections()
		server.Close()
		if t.Failed() {
			t.Logf("the function's log:\n%s", f.log)
		}
	})
	return f
}

// ServeHTTP is the Runtime API.
func (f *function) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const base = "/2018-06-01/runtime/invocation/"
	rest, ok := strings.CutPrefix(r.URL.Path, base)
	id, what, _ := strings.Cut(rest, "/")
	switch {
	case ok && r.Method == http.MethodGet && rest == "next":
		f.next(w, r)
	case ok && r.Method == http.MethodPost && (what == "response" || what == "error"):
		// Lambda takes 6 MB and no more.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 6<<20+100))
		if err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		f.mu.Lock()
		i, open := f.open[id]
		delete(f.open, id)
		f.mu.Unlock()
		if !open {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		i.done <- outcome{body, what == "error"}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (f *function) next(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	if f.count == 0 {
		close(f.asked)
	}
	f.count++
	id := "8476a536-e9f4-11e8-9739-" + fmt.Sprintf("%012d", f.count)
	f.mu.Unlock()
	select {
	case <-r.Context().Done():
	case i := <-f.events:
		f.mu.Lock()
		f.open[id] = i
		f.mu.Unlock()
		h := w.Header()
		h.Set("Lambda-Runtime-Aws-Request-Id", id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(i.within).UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-west-1:123456789012:function:holdfast-admin")
		h.Set("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1")
		h.Set("Content-Type", "application/json")
		_, _ = w.Write(i.payload) // it may have ended
	}
}

// invoke sends an event to the function and returns what it made of it. The
// function has its usual 29 s.
func (f *function) invoke(payload string) outcome {
	f.t.Helper()
	return f.invokeWithin(29*time.Second, payload)
}

func (f *function) invokeWithin(within time.Duration, payload string) outcome {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	i := invocation{[]byte(payload), within, make(chan outcome, 1)}
	select {
	case f.events <- i:
	case err := <-f.ended:
		f.t.Fatalf("the function has ended: %v\n%s", err, f.log)
	case <-ctx.Done():
		f.t.Fatal("the function asks for no event")
	}
	select {
	case o := <-i.done:
		return o
	case err := <-f.ended:
		f.t.Fatalf("the function has ended: %v\n%s", err, f.log)
	case <-ctx.Done():
		f.t.Fatal("the function does not answer")
	}
	return outcome{}
}

// reply is an answer as API Gateway reads it.
type reply struct {
	StatusCode      int               `json:"statusCode"`
	Headers         map[string]string `json:"headers"`
	Cookies         []string          `json:"cookies"`
	Body            string            `json:"body"`
	IsBase64Encoded bool              `json:"isBase64Encoded"`
}

// decode reads an answer of a request, and its JSON body into v.
func (o outcome) decode(t testing.TB, v any) reply {
	t.Helper()
	var r reply
	if o.failed {
		t.Fatalf("the invocation failed: %s", o.body)
	}
	if err := json.Unmarshal(o.body, &r); err != nil {
		t.Fatalf("%v: %.300s", err, o.body)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(r.Body), v); err != nil {
			t.Fatalf("%v: %.300s", err, r.Body)
		}
	}
	return r
}
