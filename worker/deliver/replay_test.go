package deliver

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
)

// TestAReplayIsSeen: with the standard's own verifier a receiver tells a request of
// ours from one that was recorded, altered, or made by somebody without the secret.
func TestAReplayIsSeen(t *testing.T) {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	type request struct {
		header http.Header
		body   []byte
	}
	var mu sync.Mutex
	var got []request
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, request{r.Header, body})
	}))
	defer server.Close()
	clock := time.Now()
	p := NewPoster(PosterConfig{Allow: safedial.Loopback, Now: func() time.Time { return clock }})
	defer p.Close()
	w, err := p.Webhook(server.URL, secret)
	if err != nil {
		t.Fatal(err)
	}
	post := func(at time.Time) request {
		clock = at
		if n, err := w.Deliver(t.Context(), []state.Event{sample}); n != 1 || err != nil {
			t.Fatalf("Deliver: %d, %v", n, err)
		}
		mu.Lock()
		defer mu.Unlock()
		return got[len(got)-1]
	}
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	fresh := post(now)
	if err := verifier.Verify(fresh.body, fresh.header); err != nil {
		t.Errorf("one of now: %v", err)
	}
	// The window of the standard's libraries is five minutes either way.
	for _, off := range []time.Duration{-6 * time.Minute, 6 * time.Minute} {
		r := post(now.Add(off))
		if verifier.Verify(r.body, r.header) == nil {
			t.Errorf("one of %s is taken", off)
		}
		if err := verifier.VerifyIgnoringTimestamp(r.body, r.header); err != nil {
			t.Errorf("one of %s has no signature that fits: %v", off, err)
		}
	}
	// A repetition of ours is signed anew, under the same id, so that it is known again.
	again := post(now.Add(time.Second))
	if again.header.Get("webhook-id") != sample.ID || fresh.header.Get("webhook-id") != sample.ID {
		t.Error("the id is not the event's")
	}
	if again.header.Get("webhook-timestamp") == fresh.header.Get("webhook-timestamp") || again.header.Get("webhook-signature") == fresh.header.Get("webhook-signature") {
		t.Error("a repetition carries the time or the signature of the first")
	}
	for name, forge := range map[string]func(h http.Header, body []byte) []byte{
		"a later time": func(h http.Header, body []byte) []byte {
			h.Set("webhook-timestamp", strconv.FormatInt(now.Add(time.Minute).Unix(), 10))
			return body
		},
		"another id": func(h http.Header, body []byte) []byte {
			h.Set("webhook-id", "01J9ZZZZZZZZZZZZZZZZZZZZZY")
			return body
		},
		"another body": func(_ http.Header, body []byte) []byte { return append(body, ' ') },
		"no signature": func(h http.Header, body []byte) []byte { h.Del("webhook-signature"); return body },
		"a foreign one": func(h http.Header, body []byte) []byte {
			other, _ := standardwebhooks.NewWebhookRaw([]byte("not the secret, but long"))
			signature, _ := other.Sign(sample.ID, now, body)
			h.Set("webhook-signature", signature)
			return body
		},
	} {
		header := fresh.header.Clone()
		if verifier.Verify(forge(header, append([]byte{}, fresh.body...)), header) == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
