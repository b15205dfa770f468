package dynamo

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/awsclient"
)

const (
	idleConns       = 128             // kept open; sessions commit at the same time
	pageSize        = 1000            // of listings where the caller sets no limit
	defaultRetryFor = 3 * time.Second // far inside the 8 s that an owner may trust its lease
)

// Options say where the tables are and how long to try. Prefix alone is needed.
type Options struct {
	Prefix      string                  // of the tables' names: 3 to 200 of a-z, A-Z, 0-9, dot, - and _
	Region      string                  // empty: as the SDK finds it, such as in AWS_REGION
	Endpoint    string                  // URL of the service; empty: the region's
	Credentials aws.CredentialsProvider // nil: as the SDK finds them, such as the task's role
	HTTPClient  aws.HTTPClient          // nil: one with a second to connect

	// RetryFor bounds a call from its first request to the end of its last (0:
	// 3 s). One request may take a third of it, so that one that is lost leaves
	// time for another.
	RetryFor time.Duration
	// Now replaces the clock that records expire by; nil: the host's, corrected
	// by the Date of DynamoDB's answers.
	Now func() time.Time
	// OnCapacity is told what each request cost, by several goroutines at a time;
	// nil: nobody asks. It must not block. A Meter's Add is one.
	OnCapacity func(Capacity)
	// OnRetry is told why a request was not answered as it should be and is asked
	// again: one of the reasons below. Terms as OnCapacity's.
	OnRetry func(reason string)
}

// The reasons of Options.OnRetry.
const (
	RetryThrottled = "throttled" // the table or the account has no more to give for now
	RetryConflict  = "conflict"  // another transaction had one of the items
	RetryOther     = "other"     // no answer in time, a fault of the service
)

// Store is a state.Store in DynamoDB.
type Store struct {
	client     *dynamodb.Client
	idle       func() // closes idle connections, where the client can
	tables     []TableDefinition
	fleet      string // names of the tables
	signal     string
	prefix     string
	place      string // region and endpoint, for messages
	retryFor   time.Duration
	now        func() time.Time
	onCapacity func(Capacity)
	onRetry    func(string)
	pending    ledger
	closed     atomic.Bool
}

var _ state.Store = (*Store)(nil)

var goodPrefix = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,200}$`)

// Open makes a store over the tables of a prefix. It finds region and
// credentials, and does not look whether the tables are there: Check does.
func Open(ctx context.Context, o Options) (*Store, error) {
	if !goodPrefix.MatchString(o.Prefix) {
		return nil, fmt.Errorf("table prefix %q: is not one; use 3 to 200 of a-z, A-Z, 0-9, dot, - and _", o.Prefix)
	}
	if o.RetryFor < 0 {
		return nil, fmt.Errorf("retry time %s: is negative; use 3s or so", o.RetryFor)
	}
	if o.RetryFor == 0 {
		o.RetryFor = defaultRetryFor
	}
	if err := awsclient.CheckEndpoint(o.Endpoint); err != nil {
		return nil, fmt.Errorf("DynamoDB: %w", err)
	}
	cfg, err := awsclient.Config(ctx, awsclient.Options{Region: o.Region, HTTPClient: o.HTTPClient, Credentials: o.Credentials})
	if err != nil {
		return nil, err
	}
	if own, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		cfg.HTTPClient = own.
			WithDialerOptions(func(d *net.Dialer) { d.Timeout = time.Second }).
			WithTransportOptions(func(t *http.Transport) { t.MaxIdleConnsPerHost = idleConns })
	}
	c := &clock{host: time.Now}
	s := &Store{
		client: dynamodb.NewFromConfig(cfg, func(d *dynamodb.Options) {
			d.HTTPClient = timed{cfg.HTTPClient, c}
			d.Retryer = aws.NopRetryer{} // the store retries by itself: see retry.go
			// A wrong checksum is but a line in a log, and so is one that is
			// missing, as with DynamoDB Local. TLS tells what was altered.
			d.DisableValidateResponseChecksum = true
			if o.Endpoint != "" {
				d.BaseEndpoint = &o.Endpoint
			}
		}),
		idle:       func() {},
		tables:     Tables(o.Prefix),
		prefix:     o.Prefix,
		place:      "region " + cfg.Region,
		retryFor:   o.RetryFor,
		now:        o.Now,
		onCapacity: o.OnCapacity,
		onRetry:    o.OnRetry,
	}
	if o.Endpoint != "" {
		s.place += " at " + o.Endpoint
	}
	s.fleet, s.signal = s.tables[0].Name, s.tables[1].Name
	if s.now == nil {
		s.now = c.now
	}
	if s.onRetry == nil {
		s.onRetry = func(string) {}
	}
	if client, ok := o.HTTPClient.(interface{ CloseIdleConnections() }); ok {
		s.idle = client.CloseIdleConnections
	}
	return s, nil
}

// Now is DynamoDB's clock as far as its answers tell it: the host's clock where
// they agree with that. It is to be trusted to a second.
func (s *Store) Now() time.Time { return s.now() }

// Ping reads from both tables, half a unit each, with the permissions that the
// store needs for reading.
func (s *Store) Ping(ctx context.Context) error {
	nothing := types.KeysAndAttributes{Keys: []map[string]types.AttributeValue{itemKey(pkFleet, "PING")}}
	ask := map[string]types.KeysAndAttributes{s.fleet: nothing, s.signal: nothing}
	return s.do(ctx, "Ping", func(ctx context.Context) error {
		out, err := s.client.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: ask, ReturnConsumedCapacity: s.countCapacity()})
		if err == nil {
			s.spent(Capacity{Method: "Ping", Read: 1}, out.ConsumedCapacity...)
		}
		return err
	})
}

// Close makes later calls fail with state.ErrUnavailable. Those under way end
// by themselves.
func (s *Store) Close() error {
	s.closed.Store(true)
	s.idle()
	return nil
}

func (s *Store) countCapacity() types.ReturnConsumedCapacity {
	if s.onCapacity == nil {
		return types.ReturnConsumedCapacityNone
	}
	return types.ReturnConsumedCapacityTotal
}

func limited(limit int) int {
	if limit <= 0 {
		return pageSize
	}
	return limit
}
