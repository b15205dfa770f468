// Package awsclient is what the adapters of AWS services share: how region and
// credentials are found, how long a call may take, and what the error of a call
// means in one line for the person who has to do something about it.
package awsclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
)

// How often a call is sent at most, and the longest pause between. Only failures
// of the network and of the service, and throttling, are tried again, with
// jitter.
const (
	attempts   = 4
	maxBackoff = 2 * time.Second
)

// The bounds of one attempt. The SDK's own are wider (30 s to connect) or none.
const (
	connectTimeout = 3 * time.Second
	answerTimeout  = 8 * time.Second
)

// Options says where a service is and who calls. What is left zero is found as
// the AWS command line finds it: AWS_REGION, AWS_PROFILE, the files below
// ~/.aws, the role of the task or the machine.
type Options struct {
	Region      string
	HTTPClient  aws.HTTPClient          // nil: one that does not wait long
	Credentials aws.CredentialsProvider // nil: the ones found
}

// Config returns what a service's client is made from. It asks no service; a
// fault of the credentials shows at the first call.
func Config(ctx context.Context, o Options) (aws.Config, error) {
	cfg, err := config.LoadDefaultConfig(ctx,
		config.WithHTTPClient(httpClient()),
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = attempts, maxBackoff })
		}))
	if err != nil {
		return aws.Config{}, fmt.Errorf("settings of AWS: %s: correct AWS_PROFILE and the other AWS_ variables, or the files below ~/.aws", OneLine(err.Error()))
	}
	if o.Region != "" {
		cfg.Region = o.Region
	}
	if cfg.Region == "" {
		return aws.Config{}, errors.New("settings of AWS: no region: set one, or AWS_REGION")
	}
	if o.HTTPClient != nil {
		cfg.HTTPClient = o.HTTPClient
	}
	if o.Credentials != nil {
		cfg.Credentials = o.Credentials
	}
	return cfg, nil
}

func httpClient() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = connectTimeout }).
		WithTransportOptions(func(t *http.Transport) {
			t.TLSHandshakeTimeout, t.ResponseHeaderTimeout = connectTimeout, answerTimeout
		})
}

// CheckEndpoint tells whether a service's address is one; empty means AWS's own.
func CheckEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	switch {
	case err == nil && u.User != nil:
		return errors.New("the endpoint has a user in it: leave that out, credentials are found elsewhere")
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Host == "", u.RawQuery != "":
		return fmt.Errorf("the endpoint %q is not an address: write https://host:port, or leave it empty for AWS's own", endpoint)
	}
	return nil
}
