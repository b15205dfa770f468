package awsclient_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/awsclient"
)

// answered is an error as the SDK returns it for what a service answered.
func answered(status int, code, message string) error {
	var err error = &smithy.GenericAPIError{Code: code, Message: message}
	if code == "" {
		err = errors.New("no body")
	}
	return &smithy.OperationError{ServiceID: "S3", OperationName: "GetObject", Err: &awshttp.ResponseError{
		RequestID:     "REQ1",
		ResponseError: &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: err},
	}}
}

func called(err error) error {
	return &smithy.OperationError{ServiceID: "S3", OperationName: "GetObject",
		Err: &url.Error{Op: "Get", URL: "https://bucket.example/fleet/shop/cred-1", Err: err}}
}

func TestAdvice(t *testing.T) {
	for name, c := range map[string]struct {
		err           error
		short, advice string
	}{
		"a permission":         {answered(403, "AccessDeniedException", "not authorized"), "AccessDeniedException: not authorized (request REQ1)", "allow x:Do on y for this role"},
		"an expired key":       {answered(400, "ExpiredTokenException", ""), "ExpiredTokenException (request REQ1)", "have expired"},
		"a wrong key":          {answered(400, "UnrecognizedClientException", "security token is invalid"), "UnrecognizedClient", "are not accepted"},
		"a wrong clock":        {answered(400, "InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than"), "Signature expired", "clock"},
		"a skewed clock":       {answered(403, "RequestTimeTooSkewed", "too large"), "RequestTimeTooSkewed", "clock"},
		"throttling":           {answered(400, "ThrottlingException", "Rate exceeded"), "Rate exceeded", "throttling"},
		"throttling by status": {answered(429, "", ""), "HTTP status 429", "throttling"},
		"a fault":              {answered(500, "", ""), "HTTP status 500", "has a fault"},
		"something else":       {answered(400, "ValidationException", "line one\nline two"), "ValidationException: line one line two", ""},
		"no such host":         {called(&net.DNSError{Err: "no such host", Name: "s3.nowhere.amazonaws.com", IsNotFound: true}), "no such host", "region and the endpoint"},
		"a closed port":        {called(&net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}), "connection refused", "cannot be reached"},
		"a timeout":            {called(context.DeadlineExceeded), "deadline exceeded", "did not answer in time"},
		"a slow name server":   {called(&net.DNSError{Err: "i/o timeout", IsTimeout: true}), "i/o timeout", "did not answer in time"},
		"cancelled":            {called(context.Canceled), "canceled", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := awsclient.Advice(c.err, "x:Do on y"); !strings.Contains(got, c.advice) || c.advice == "" && got != "" {
				t.Errorf("the advice is %q, want %q", got, c.advice)
			}
			got := awsclient.Short(c.err)
			if !strings.Contains(got, c.short) || strings.Contains(got, "\n") || strings.Contains(got, "cred-1") || strings.Contains(got, "operation error") {
				t.Errorf("in short %q, want %q", got, c.short)
			}
		})
	}
}

func TestWhatPasses(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"throttling":        {answered(400, "ThrottlingException", ""), true},
		"a fault":           {answered(503, "", ""), true},
		"a closed port":     {called(&net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}), true},
		"a timeout":         {called(context.DeadlineExceeded), true},
		"no such host":      {called(&net.DNSError{Err: "no such host", IsNotFound: true}), true},
		"a permission":      {answered(403, "AccessDenied", ""), false},
		"an expired key":    {answered(400, "ExpiredTokenException", ""), false},
		"no such bucket":    {answered(404, "NoSuchBucket", ""), false},
		"a wrong clock":     {answered(403, "RequestTimeTooSkewed", ""), false},
		"something strange": {errors.New("odd"), false},
	} {
		if got := awsclient.Passing(c.err); got != c.want {
			t.Errorf("%s passes: %v, want %v", name, got, c.want)
		}
		wrapped := fmt.Errorf("x: %w", &awsclient.Fault{Text: "y", Kind: state.ErrUnavailable, Err: c.err})
		if got := awsclient.Passing(wrapped); got != c.want {
			t.Errorf("%s, wrapped, passes: %v, want %v", name, got, c.want)
		}
	}
}

// Which permission is missing is told where the service says it.
func TestDenial(t *testing.T) {
	const arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/wa-fleet/index/by-index"
	for message, want := range map[string][2]string{
		"User: arn:aws:sts::123456789012:assumed-role/worker/1 is not authorized to perform: dynamodb:Query on resource: " + arn +
			" because no identity-based policy allows the dynamodb:Query action": {"dynamodb:Query", arn},
		`User: x is not authorized to perform: s3:PutObject on resource: "arn:aws:s3:::b/k" because of a boundary`: {"s3:PutObject", "arn:aws:s3:::b/k"},
		"User: x is not authorized to perform: dynamodb:ListTables":                                                {"dynamodb:ListTables", ""},
		"Access Denied": {},
	} {
		action, resource := awsclient.Denial(answered(400, "AccessDeniedException", message))
		if action != want[0] || resource != want[1] {
			t.Errorf("%q is %q on %q", message, action, resource)
		}
		if action, _ := awsclient.Denial(answered(400, "ValidationException", message)); action != "" {
			t.Errorf("another error denies %q", action)
		}
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"one\ntwo\r\n\tthree":       "one two three",
		"a\x1b[31mred":              "a [31mred",
		strings.Repeat("ä", 1000):   strings.Repeat("ä", 300) + "…",
		"bytes that are none: \xff": "bytes that are none: ?",
	} {
		if got := awsclient.OneLine(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// A fault is found by its sentinel, by the cause and by the SDK's types, and
// prints neither.
func TestFault(t *testing.T) {
	cause := called(context.DeadlineExceeded)
	err := fmt.Errorf("loading: %w", &awsclient.Fault{Text: "vault: out of reach", Kind: state.ErrUnavailable, Err: cause})
	var operation *smithy.OperationError
	if !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &operation) {
		t.Errorf("%v does not wrap what it should", err)
	}
	if err.Error() != "loading: vault: out of reach" {
		t.Errorf("it prints %q", err)
	}
}

func TestConfig(t *testing.T) {
	t.Setenv("AWS_REGION", "eu-north-1")
	cfg, err := awsclient.Config(t.Context(), awsclient.Options{})
	if err != nil || cfg.Region != "eu-north-1" {
		t.Errorf("the environment's region: %q, %v", cfg.Region, err)
	}
	cfg, err = awsclient.Config(t.Context(), awsclient.Options{Region: "sa-east-1", HTTPClient: http.DefaultClient})
	if err != nil || cfg.Region != "sa-east-1" || cfg.HTTPClient != http.DefaultClient {
		t.Errorf("what is given goes first: %q, %v", cfg.Region, err)
	}
	if n := cfg.Retryer().MaxAttempts(); n != 4 {
		t.Errorf("%d attempts", n)
	}
}
