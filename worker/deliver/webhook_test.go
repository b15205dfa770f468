package deliver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
)

var sample = state.Event{ID: "01J9ZZZZZZZZZZZZZZZZZZZZZZ", Type: state.EventMessage, Session: "shop", Epoch: 3, Seq: 7,
	Time: time.Date(2026, 3, 4, 5, 6, 7, 891e6, time.UTC), Data: json.RawMessage(`{"text":"a <b> & ü"}`)}

func TestSignatureIsTheStandards(t *testing.T) {
	const coded = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	byCode, err := standardwebhooks.NewWebhook(coded)
	if err != nil {
		t.Fatal(err)
	}
	byBytes, err := standardwebhooks.NewWebhookRaw([]byte("a plain secret, as it is"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, secret string
		verify       func([]byte, http.Header) error
	}{
		{"coded", coded, byCode.Verify},
		{"raw", "a plain secret, as it is", byBytes.Verify},
		{"none", "", func(_ []byte, h http.Header) error {
			if h.Get("webhook-signature") != "" {
				return errors.New("signed without a secret")
			}
			return nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tries := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if err := tc.verify(body, r.Header); err != nil {
					t.Errorf("verifying: %v", err)
				}
				if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("webhook-id") != sample.ID {
					t.Errorf("%s %v", r.Method, r.Header)
				}
				var got state.Event
				if err := json.Unmarshal(body, &got); err != nil || got.Seq != 7 || !bytes.Contains(body, []byte(`"time":"2026-03-04T05:06:07.891Z"`)) {
					t.Errorf("body %s: %v", body, err)
				}
				if tries++; tries == 1 {
					w.WriteHeader(http.StatusBadGateway) // the retry is signed too
				}
			}))
			defer server.Close()
			p := NewPoster(PosterConfig{RetryMin: time.Millisecond, Allow: safedial.Loopback})
			defer p.Close()
			w, err := p.Webhook(server.URL+"/in?token=abc", tc.secret)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := w.Deliver(t.Context(), []state.Event{sample}); n != 1 || err != nil {
				t.Errorf("Deliver: %d, %v", n, err)
			}
			if tries != 2 {
				t.Errorf("%d requests, want 2", tries)
			}
		})
	}
}

func TestReceiverThatHangs(t *testing.T) {
	release := make(chan struct{})
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc
		taken  int
	}{
		{"before the answer", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-release
		}, 0},
		{"within an answer that took it", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			<-release
		}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewServer(tc.answer)
			p := NewPoster(PosterConfig{Timeout: 50 * time.Millisecond, Allow: safedial.Loopback})
			defer p.Close()
			w, err := p.Webhook(server.URL+"/s3cr3t-path?key=s3cr3t", "")
			if err != nil {
				t.Fatal(err)
			}
			n, err := w.Deliver(t.Context(), []state.Event{sample})
			if n != tc.taken || (err == nil) != (tc.taken == 1) {
				t.Errorf("Deliver: %d, %v", n, err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the error holds the URL: %v", err)
			}
			release <- struct{}{}
			server.Close()
		})
	}
}

func TestAnswersAreReadToABound(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chunk := bytes.Repeat([]byte("x"), 32<<10)
		for { // as long as somebody reads
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	p := NewPoster(PosterConfig{Timeout: 20 * time.Second, Allow: safedial.Loopback})
	defer p.Close()
	w, err := p.Webhook(server.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if n, err := w.Deliver(t.Context(), []state.Event{sample}); n != 1 || err != nil {
		t.Errorf("Deliver: %d, %v", n, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("an endless answer was read for %v", took)
	}
}

func TestWebhookSettingsThatCannotWork(t *testing.T) {
	p := NewPoster(PosterConfig{})
	for _, tc := range []struct{ url, secret string }{
		{"", ""}, {"ftp://a.test/hush", ""}, {"a.test/hush", ""}, {"http://", ""}, {"http:///hush", ""}, {"http://a.test:hush", ""},
		{"https://a.test/", "whsec_"}, {"https://a.test/", "whsec_hush!"},
	} {
		for _, err := range []error{CheckWebhook(tc.url, tc.secret), made(p, tc.url, tc.secret)} {
			if err == nil {
				t.Errorf("%q with %q is accepted", tc.url, tc.secret)
			} else if strings.Contains(err.Error(), "hush") {
				t.Errorf("the error repeats what may be secret: %v", err)
			}
		}
	}
}

func made(p *Poster, url, secret string) error {
	_, err := p.Webhook(url, secret)
	return err
}

func TestNothingSecretIsLogged(t *testing.T) {
	s := newStage(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close() // nobody answers there
	p := NewPoster(PosterConfig{RetryMin: time.Millisecond, Tries: 2, Allow: safedial.Loopback})
	defer p.Close()
	const secret = "whsec_aHVzaGh1c2hodXNoaHVzaGh1c2g="
	w, err := p.Webhook("http://user:hush@"+address+"/hush?token=hush", secret)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan struct{}, 100)
	d, stop := s.run(Config{PauseMin: time.Millisecond, PauseMax: 2 * time.Millisecond, Observe: func(Outcome) { failed <- struct{}{} }})
	q := s.attach(d, "shop", nil, w)
	s.commit(q, "shop", 1)
	for range 12 {
		<-failed
	}
	stop()
	logged := s.log.String()
	if logged == "" {
		t.Fatal("a receiver that is down is not logged")
	}
	for _, word := range []string{"hush", "aHVzaG", "hello"} {
		if strings.Contains(logged, word) {
			t.Errorf("the log holds %q:\n%s", word, logged)
		}
	}
}

func TestNDJSONWritesWholeLines(t *testing.T) {
	w := &tearing{}
	s := NewNDJSON(w, nil)
	events := []state.Event{sample, sample, sample}
	w.room = 250 // one line and a part of the second
	n, err := s.Deliver(t.Context(), events)
	if n != 1 || err == nil {
		t.Fatalf("Deliver: %d, %v", n, err)
	}
	w.room = 1 << 20
	if n, err := s.Deliver(t.Context(), events[1:]); n != 2 || err != nil {
		t.Fatalf("Deliver: %d, %v", n, err)
	}
	whole := 0
	for line := range strings.Lines(w.b.String()) {
		var ev state.Event
		if json.Unmarshal([]byte(line), &ev) == nil {
			whole++
		}
	}
	if whole != 3 {
		t.Errorf("%d whole lines, want 3:\n%s", whole, w.b.String())
	}
}

// tearing is a writer with room for so many bytes.
type tearing struct {
	b    bytes.Buffer
	room int
}

func (w *tearing) Write(p []byte) (int, error) {
	n := min(len(p), w.room)
	w.room -= n
	w.b.Write(p[:n])
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

func TestNDJSONBrokenPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	lost := 0
	s := NewNDJSON(w, func(error) { lost++ })
	for range 2 {
		if n, err := s.Deliver(t.Context(), []state.Event{sample}); n != 0 || !errors.Is(err, ErrWriterGone) {
			t.Errorf("Deliver: %d, %v", n, err)
		}
	}
	if lost != 1 {
		t.Errorf("told %d times that the reader is gone", lost)
	}
}

func TestNDJSONEventThatIsNotJSON(t *testing.T) {
	var out bytes.Buffer
	s := NewNDJSON(&out, nil)
	bad := sample
	bad.Data = json.RawMessage("{")
	if n, err := s.Deliver(t.Context(), []state.Event{sample, bad, sample}); n != 1 || err != nil {
		t.Errorf("Deliver: %d, %v; want the one before it", n, err)
	}
	var refused *Refused
	if n, err := s.Deliver(t.Context(), []state.Event{bad, sample}); n != 0 || !errors.As(err, &refused) {
		t.Errorf("Deliver: %d, %v", n, err)
	}
}

func TestNDJSONWaitIsCancelled(t *testing.T) {
	s := NewNDJSON(io.Discard, nil)
	s.lock <- struct{}{} // another session writes to a pipe that nobody reads
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Deliver(ctx, []state.Event{sample}); !errors.Is(err, context.Canceled) {
		t.Errorf("Deliver: %v", err)
	}
}
