package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
)

// Defaults of a Config.
const (
	DefaultUnownedAfter = 2 * time.Minute
	// DefaultPairingAfter is well over what a worker shows QRs for.
	DefaultPairingAfter = 10 * time.Minute
	DefaultContainer    = "holdfast"
)

// Config is what a Gateway stands on. API, Store and View must be set.
type Config struct {
	API  http.Handler // what answers requests; see adminapi.Config.NoStreams
	Auth Auth
	// Open gets ready what requests need, within ctx. It is called before each
	// request and costs nothing once it is done. Its error is the API's to tell.
	Open func(ctx context.Context) error

	Store state.Store
	View  *fleet.View
	// Offline carries out what must not wait for a worker, where every worker is
	// known to be dead: its view must take none for dead that was not declared so.
	// Nil: it waits.
	Offline Offline

	Fleet        string        // names the fleet among the metrics
	Container    string        // of the task, whose exit code is the worker's
	UnownedAfter time.Duration // without a live owner, until a session is raised
	PairingAfter time.Duration // of pairing, until it is raised

	Metrics io.Writer // where CloudWatch's embedded metrics go; nil: nowhere
	Now     func() time.Time
	Log     *slog.Logger
}

// Offline is what of package fleet the sweep calls.
type Offline interface {
	Sweep(ctx context.Context) (int, error)
}

// Gateway handles the events of a function. It may handle several at a time.
type Gateway struct{ cfg Config }

// New makes a Gateway.
func New(c Config) (*Gateway, error) {
	if c.API == nil || c.Store == nil || c.View == nil {
		return nil, errors.New("gateway: handler, store and view are required")
	}
	if c.Open == nil {
		c.Open = func(context.Context) error { return nil }
	}
	if c.Fleet == "" {
		c.Fleet = "default"
	}
	if c.Container == "" {
		c.Container = DefaultContainer
	}
	if c.UnownedAfter <= 0 {
		c.UnownedAfter = DefaultUnownedAfter
	}
	if c.PairingAfter <= 0 {
		c.PairingAfter = DefaultPairingAfter
	}
	if c.Metrics == nil {
		c.Metrics = io.Discard
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Gateway{c}, nil
}

// ErrEvent says that an event is none of those that are handled here. The
// function's invocation fails with it, so that a wrong rule or integration shows
// among its errors.
var ErrEvent = errors.New("event")

// kind is what of an event tells one kind from another.
type kind struct {
	Version    string `json:"version"`
	HTTPMethod string `json:"httpMethod"`
	Context    *struct {
		HTTP *struct {
			Method string `json:"method"`
		} `json:"http"`
	} `json:"requestContext"`
	Source     string          `json:"source"`
	DetailType string          `json:"detail-type"`
	Detail     json.RawMessage `json:"detail"`
}

// Invoke handles one event and returns the answer, both as JSON. The context's
// deadline is the function's. Errors name nothing of what the event holds: it may
// be a secret.
func (g *Gateway) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	var k kind
	if err := json.Unmarshal(payload, &k); err != nil {
		return nil, fmt.Errorf("%w: is not a JSON object that describes one; invoke the function through API Gateway or EventBridge", ErrEvent)
	}
	switch {
	case k.Context != nil && k.Context.HTTP != nil && k.Version == "2.0":
		return g.request(ctx, payload)
	case k.Context != nil || k.HTTPMethod != "":
		return nil, fmt.Errorf("%w: a request of another payload format; set the integration's payload format version to 2.0, of an HTTP API", ErrEvent)
	case k.Source == "aws.ecs" && k.DetailType == "ECS Task State Change":
		return answer(g.taskChanged(ctx, k.Detail))
	case k.DetailType == "Scheduled Event" && (k.Source == "aws.events" || k.Source == "aws.scheduler"):
		return answer(g.Sweep(ctx))
	case k.DetailType != "" || k.Source != "":
		return nil, fmt.Errorf("%w: of a source and detail type that nothing is done for; send ECS Task State Change of aws.ecs, and Scheduled Event", ErrEvent)
	}
	return nil, fmt.Errorf("%w: of no kind that is handled here; send requests of an HTTP API, ECS task state changes and scheduled events", ErrEvent)
}

func answer[T any](v T, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}
