package dynamo_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
)

// Why a request is repeated is told each time, and what is final is not told. The
// answers are made up: DynamoDB Local gives none of them.
func TestRetriesAreTold(t *testing.T) {
	const done = `{}`
	refusal := func(code string) string {
		return `{"__type":"com.amazonaws.dynamodb.v20120810#` + code + `","message":"because"}`
	}
	cancelled := func(reasons ...string) string {
		list := make([]string, len(reasons))
		for i, r := range reasons {
			list[i] = `{"Code":"` + r + `"}`
		}
		return `{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","Message":"because","CancellationReasons":[` + strings.Join(list, ",") + `]}`
	}
	for name, c := range map[string]struct {
		status  int
		answers []string // before the one that says it is done
		want    []string
	}{
		"nothing":                    {400, nil, nil},
		"a busy table":               {400, []string{refusal("ProvisionedThroughputExceededException"), refusal("ThrottlingException")}, []string{"throttled", "throttled"}},
		"a busy account":             {400, []string{refusal("RequestLimitExceeded")}, []string{"throttled"}},
		"a busy item":                {400, []string{cancelled("None", "ThrottlingError", "None")}, []string{"throttled"}},
		"busy beside a conflict":     {400, []string{cancelled("TransactionConflict", "ProvisionedThroughputExceeded")}, []string{"throttled"}},
		"another transaction":        {400, []string{cancelled("None", "TransactionConflict")}, []string{"conflict"}},
		"the same one is under way":  {400, []string{refusal("TransactionInProgressException")}, []string{"conflict"}},
		"a fault of the service":     {500, []string{refusal("InternalServerError")}, []string{"other"}},
		"a condition that is final":  {400, []string{cancelled("ConditionalCheckFailed", "None")}, nil},
		"a permission that is final": {400, []string{refusal("AccessDeniedException")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			asked := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				w.Header().Set("Content-Type", "application/x-amz-json-1.0")
				body := done
				if asked < len(c.answers) {
					body = c.answers[asked]
					w.WriteHeader(c.status)
				}
				asked++
				_, _ = io.WriteString(w, body)
			}))
			defer server.Close()
			var told []string
			s, err := dynamo.Open(t.Context(), dynamo.Options{Prefix: "fleet", Region: "eu-west-1", Endpoint: server.URL, HTTPClient: server.Client(), RetryFor: 30 * time.Second,
				OnRetry:     func(reason string) { told = append(told, reason) },
				Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "not-a-real-secret", "")})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			err = s.Commit(t.Context(), state.Fence{Session: "a", Owner: "w-1", Epoch: 1}, "token", []state.Write{state.Put(state.KindStatus, "", []byte(`{}`))})
			if (err == nil) != (len(c.want) == len(c.answers)) {
				t.Errorf("the commit: %v", err)
			}
			if !slices.Equal(told, c.want) {
				t.Errorf("told of %v, want %v", told, c.want)
			}

			// A heartbeat is repeated by who sends it.
			mu.Lock()
			asked, told = 0, nil
			mu.Unlock()
			if err := s.Beat(t.Context(), "w-1", state.Load{}); len(c.want) > 0 && !errors.Is(err, state.ErrUnavailable) {
				t.Errorf("the heartbeat: %v", err)
			}
			if len(c.want) > 0 && !slices.Equal(told, c.want[:1]) {
				t.Errorf("of a heartbeat it told %v, want %v", told, c.want[:1])
			}
		})
	}
}
