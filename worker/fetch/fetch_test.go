package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
)

// TestWhatIsFetchedAndWhatIsNot over a real server: each refusal has its code, and
// no error shows more of the URL than its host.
func TestWhatIsFetchedAndWhatIsNot(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 1000)
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		switch r.URL.Path {
		case "/file.png":
			w.Header().Set("Content-Type", "image/png")
			_, _ = w.Write(body)
		case "/named":
			w.Header().Set("Content-Disposition", `attachment; filename="../../etc/pass
wd"; filename*=UTF-8''plan%20b.pdf`)
			_, _ = w.Write(body)
		case "/chunked":
			for range 10 {
				_, _ = w.Write(body)
				w.(http.Flusher).Flush()
			}
		case "/moved":
			http.Redirect(w, r, "/file.png?token=hush", http.StatusFound)
		case "/inside":
			http.Redirect(w, r, "http://10.0.0.1/hush", http.StatusFound)
		case "/ftp":
			http.Redirect(w, r, "ftp://example.org/hush", http.StatusFound)
		case "/round":
			http.Redirect(w, r, "/round", http.StatusFound)
		case "/slow":
			<-r.Context().Done()
		case "/503":
			http.Error(w, "hush", http.StatusServiceUnavailable)
		case "/partial":
			w.WriteHeader(http.StatusPartialContent)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	for _, tt := range []struct {
		path      string
		cfg       Config
		code      string // empty: it is fetched
		temporary bool
		name      string
	}{
		{"/file.png?token=hush", Config{Allow: safedial.Loopback}, "", false, "file.png"},
		{"/named", Config{Allow: safedial.Loopback}, "", false, "plan b.pdf"},
		{"/file.png", Config{}, CodeRefused, false, ""},
		{"/file.png", Config{Allow: safedial.Loopback, Limit: 999}, CodeTooLarge, false, ""},
		{"/file.png", Config{Allow: safedial.Loopback, Limit: 1000}, "", false, "file.png"},
		{"/chunked", Config{Allow: safedial.Loopback, Limit: 5000}, CodeTooLarge, false, ""},
		{"/moved", Config{Allow: safedial.Loopback}, CodeRefused, false, ""},
		{"/moved", Config{Allow: safedial.Loopback, Redirects: true}, "", false, "file.png"},
		{"/inside", Config{Allow: safedial.Loopback, Redirects: true}, CodeRefused, false, ""},
		{"/ftp", Config{Allow: safedial.Loopback, Redirects: true}, CodeRefused, false, ""},
		{"/round", Config{Allow: safedial.Loopback, Redirects: true}, CodeRefused, false, ""},
		{"/slow", Config{Allow: safedial.Loopback, Within: 50 * time.Millisecond}, CodeUnreachable, true, ""},
		{"/503", Config{Allow: safedial.Loopback}, CodeUnreachable, true, ""},
		{"/none", Config{Allow: safedial.Loopback}, CodeRefused, false, ""},
		{"/partial", Config{Allow: safedial.Loopback}, CodeRefused, false, ""},
	} {
		t.Run(strings.Trim(tt.path, "/")+fmt.Sprint(tt.cfg.Redirects, tt.cfg.Limit), func(t *testing.T) {
			f := New(tt.cfg)
			defer f.Close()
			got, err := f.Fetch(t.Context(), server.URL+tt.path)
			if tt.code == "" {
				if err != nil || !bytes.Equal(got.Data, body) || got.Name != tt.name {
					t.Fatalf("%d bytes named %q: %v", len(got.Data), got.Name, err)
				}
				return
			}
			var failed *Error
			if !errors.As(err, &failed) || failed.Code != tt.code || failed.Temporary != tt.temporary {
				t.Fatalf("%v", err)
			}
			if strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error says too much: %v", err)
			}
		})
	}
	before := asked
	closed := New(Config{})
	for _, url := range []string{"http://169.254.169.254/latest", "http://[::1]:1/", "http://localhost/x", "http://2130706433/", "http://0.0.0.0/"} {
		if _, err := closed.Fetch(t.Context(), url); err == nil {
			t.Errorf("%s was fetched", url)
		}
	}
	for _, url := range []string{"", "file:///etc/passwd", "gopher://x/", "http://", "://"} {
		var failed *Error
		if _, err := closed.Fetch(t.Context(), url); !errors.As(err, &failed) || failed.Code != CodeRefused {
			t.Errorf("%q: %v", url, err)
		}
	}
	if asked != before {
		t.Error("the server was asked by a fetcher that may not reach it")
	}
}

// TestTheEndOfTheLineEndsAFetch as what it is.
func TestTheEndOfTheLineEndsAFetch(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	f := New(Config{Allow: safedial.Loopback})
	defer f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := f.Fetch(ctx, server.URL); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
