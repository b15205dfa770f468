package dynamo_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
)

// What passes by itself is told from what stays. The answers are made up:
// DynamoDB Local gives none of them.
func TestReach(t *testing.T) {
	answer := func(status int, code string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.0")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"__type":"com.amazonaws.dynamodb.v20120810#`+code+`","message":"because"}`)
		}
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		passing bool
		words   string // of the error; empty: there is none
	}{
		"it answers":       {answer(200, ""), false, ""},
		"no table":         {answer(400, "ResourceNotFoundException"), false, ""},
		"no permission":    {answer(400, "AccessDeniedException"), false, ""},
		"throttling":       {answer(400, "ThrottlingException"), true, "throttling"},
		"a fault":          {answer(500, "InternalServerError"), true, "has a fault"},
		"an expired token": {answer(400, "ExpiredTokenException"), false, "have expired"},
		"a wrong secret":   {answer(400, "UnrecognizedClientException"), false, "are not accepted"},
		"silence": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}, true, "did not answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(c.handler)
			defer server.Close()
			s, err := dynamo.Open(t.Context(), dynamo.Options{Prefix: "fleet", Region: "eu-west-1", Endpoint: server.URL, HTTPClient: server.Client(),
				Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "not-a-real-secret", "")})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			err = s.Reach(ctx)
			switch {
			case c.words == "" && err != nil:
				t.Errorf("it says %v", err)
			case c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "\n")):
				t.Errorf("it says %v, want %q in one line", err, c.words)
			case errors.Is(err, state.ErrUnavailable) != c.passing:
				t.Errorf("%v passes: %v", err, !c.passing)
			}
		})
	}
}
