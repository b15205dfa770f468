package awsclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Code returns the error code that a service answered with, or "".
func Code(err error) string {
	var answer smithy.APIError
	if errors.As(err, &answer) {
		return answer.ErrorCode()
	}
	return ""
}

// Status returns the HTTP status and headers that a service answered with, or 0.
func Status(err error) (int, http.Header) {
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil {
		return answer.Response.StatusCode, answer.Response.Header
	}
	return 0, nil
}

// codes names what is wrong by the error code of a service. Each service has
// its own spelling of the same faults.
var codes = map[string]kind{
	"ExpiredToken": expired, "ExpiredTokenException": expired, "TokenRefreshRequired": expired, "RequestExpired": expired,

	"InvalidAccessKeyId": wrongKey, "UnrecognizedClientException": wrongKey, "InvalidClientTokenId": wrongKey,
	"InvalidToken": wrongKey, "SignatureDoesNotMatch": wrongKey, "InvalidSignatureException": wrongKey,
	"IncompleteSignature": wrongKey, "MissingAuthenticationToken": wrongKey, "MissingAuthenticationTokenException": wrongKey,

	"RequestTimeTooSkewed": clock,

	"AccessDenied": denied, "AccessDeniedException": denied, "Forbidden": denied, "UnauthorizedOperation": denied,
	"AllAccessDisabled": denied, "NotAuthorized": denied,
}

type kind int

const (
	other kind = iota
	expired
	wrongKey
	clock
	denied
	throttled
	broken
	noCredentials
	silent
	unknownHost
	untrusted
	unreachable
	cancelled
)

func kindOf(err error) kind {
	code := Code(err)
	if k, ok := codes[code]; ok {
		var answer smithy.APIError
		if k == wrongKey && errors.As(err, &answer) && strings.Contains(answer.ErrorMessage(), "Signature expired") {
			return clock
		}
		return k
	}
	status, _ := Status(err)
	_, slow := retry.DefaultThrottleErrorCodes[code]
	switch {
	case slow, status == http.StatusTooManyRequests:
		return throttled
	case status >= 500:
		return broken
	case status != 0:
		return other
	}
	var (
		signing *v4.SigningError
		dns     *net.DNSError
		tlsErr  *tls.CertificateVerificationError
		network net.Error
		op      *net.OpError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return cancelled
	case errors.As(err, &signing), strings.Contains(err.Error(), "get identity"):
		return noCredentials
	case errors.As(err, &tlsErr):
		return untrusted
	case errors.As(err, &dns) && !dns.IsTimeout:
		return unknownHost
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return silent
	case errors.As(err, &op), errors.As(err, &network):
		return unreachable
	}
	return other
}

// Passing tells whether a fault may pass by itself: the service did not answer,
// is throttling, or has a fault. All else stays until somebody does something
// about it.
func Passing(err error) bool {
	switch kindOf(err) {
	case throttled, broken, silent, unknownHost, unreachable, cancelled:
		return true
	}
	return false
}

// Denied tells whether a service refused the call for want of a permission.
func Denied(err error) bool { return kindOf(err) == denied }

// refusal is how AWS words a missing permission: "User: … is not authorized to
// perform: dynamodb:Query on resource: arn:… because …".
var refusal = regexp.MustCompile(`not authorized to perform:? ([a-z0-9-]+:[A-Za-z0-9]+)(?: on resource:? "?([^\s"]+))?`)

// Denial tells which action on which resource a service refused for want of a
// permission, as far as it says so. Not every service names the resource.
func Denial(err error) (action, resource string) {
	var answer smithy.APIError
	if kindOf(err) != denied || !errors.As(err, &answer) {
		return "", ""
	}
	m := refusal.FindStringSubmatch(answer.ErrorMessage())
	if m == nil {
		return "", ""
	}
	return m[1], m[2]
}

// Advice says what would help against a fault that any service may have. need is
// the permission that the call takes, and what for: "s3:PutObject on bucket b".
// It is empty where there is nothing to say.
func Advice(err error, need string) string {
	switch kindOf(err) {
	case expired:
		return "the credentials have expired; renew them, or give the task a role, whose credentials renew themselves"
	case wrongKey:
		return "the credentials are not accepted; check the access key and its secret, or give the task a role"
	case clock:
		return "the clock of this machine is wrong; set it"
	case denied:
		return "allow " + need + " for this role"
	case throttled:
		return "the service is throttling; nothing is lost, it is tried again"
	case broken:
		return "the service has a fault; nothing is lost, it is tried again"
	case noCredentials:
		return "no usable credentials were found; give the task a role, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
	case silent:
		return "it did not answer in time; check the region, and the way there: gateway endpoint or NAT, routes, security groups"
	case unknownHost:
		return "no such host; check the region and the endpoint"
	case untrusted:
		return "its certificate is not trusted; check the endpoint, or name the authority with AWS_CA_BUNDLE"
	case unreachable:
		return "it cannot be reached; check the endpoint, and the way there: gateway endpoint or NAT, routes, security groups"
	}
	return ""
}

// Short is the gist of a call's error in one line: the code and message of the
// service with the id that its support asks for, or what the network said,
// without the address, in which names of sessions stand.
func Short(err error) string {
	var answer smithy.APIError
	if errors.As(err, &answer) {
		text := answer.ErrorCode()
		if m := OneLine(answer.ErrorMessage()); m != "" && m != answer.ErrorCode() {
			text += ": " + m
		}
		var id interface{ ServiceRequestID() string }
		if errors.As(err, &id) && id.ServiceRequestID() != "" {
			text += " (request " + id.ServiceRequestID() + ")"
		}
		return text
	}
	if status, _ := Status(err); status != 0 {
		return fmt.Sprintf("HTTP status %d", status)
	}
	for _, known := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	var called *url.Error
	if errors.As(err, &called) {
		err = called.Err
	}
	return OneLine(err.Error())
}

// maxText bounds what a service may put into our errors.
const maxText = 300

// OneLine puts a text that came from elsewhere into one line of bounded length.
func OneLine(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
	text = strings.Join(slices.DeleteFunc(words, func(w string) bool { return strings.TrimSpace(w) == "" }), " ")
	if r := []rune(text); len(r) > maxText {
		text = string(r[:maxText]) + "…"
	}
	return strings.ToValidUTF8(text, "?")
}

// Fault is the error of a call: Text for people, and what it wraps for callers.
type Fault struct {
	Text string
	Kind error // the sentinel that callers branch on
	Err  error // what the SDK returned
}

func (f *Fault) Error() string { return f.Text }

// Unwrap makes both the sentinel and the SDK's error findable.
func (f *Fault) Unwrap() []error { return []error{f.Kind, f.Err} }
