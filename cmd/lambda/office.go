package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/console"
	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/infra/gateway"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/seal/kms"
	"github.com/holdfast-wa/holdfast/worker"
)

const (
	// openWithin bounds the first questions to tables and master key: a request
	// waits for them.
	openWithin = 12 * time.Second
	// askAgain is the shortest time between two tries to open that failed.
	askAgain = time.Second
	// genuineFor is how long the tables are taken for those that they were: a
	// function's process lives for hours, and tables can be restored under it.
	genuineFor = 10 * time.Minute
	// maxMedia is how large an upload may be: Lambda lets 6 MB of base64 through,
	// with the rest of the event.
	maxMedia = 4 << 20
	// never is a takeover time that no heartbeat stands still for.
	never = time.Duration(math.MaxInt64 / 2)
)

// office is what the function stands on. Making it asks nothing of any service.
type office struct {
	cfg    config
	store  *dynamo.Store
	keyset *seal.Keyset // has no keys until opened
	log    *slog.Logger

	mu       sync.Mutex
	master   seal.Master
	identity string    // of the tables
	sure     time.Time // when it was last found to be the fleet's
	failed   error     // of the last try
	tried    time.Time
}

// newOffice puts the parts together.
func newOffice(ctx context.Context, c config, metrics io.Writer, log *slog.Logger) (*gateway.Gateway, error) {
	o := &office{cfg: c, keyset: seal.Later(), log: log}
	var err error
	if o.store, err = dynamo.Open(ctx, dynamo.Options{Prefix: c.tables, Endpoint: c.endpoints["dynamodb"]}); err != nil {
		return nil, err
	}
	files := &lazyVault{o: o}
	view := fleet.NewView(fleet.ViewConfig{Members: o.store, Takeover: c.takeover})
	offline := func(view *fleet.View) (*fleet.Offline, error) {
		return fleet.New(fleet.Config{Store: o.store, Vault: files, Fleet: o.keyset, View: view,
			Info: state.MemberInfo{Host: os.Getenv("AWS_LAMBDA_LOG_STREAM_NAME"), Version: release}, Log: log})
	}
	// A request watches for as long as it waits, and may conclude that a worker is
	// dead as any observer may; the sweep goes by what was declared.
	asked, err := offline(view)
	if err != nil {
		return nil, err
	}
	certain, err := offline(fleet.NewView(fleet.ViewConfig{Members: o.store, Takeover: never, MaxAge: -1}))
	if err != nil {
		return nil, err
	}
	keys := c.keys
	if !c.auth.Keys {
		keys = nil
	}
	api := adminapi.New(adminapi.Config{Store: o.store, Fleet: o.keyset, Keys: keys, View: view, Offline: asked, NoStreams: true,
		ValidateSettings: func(s state.SessionSettings) error { return worker.CheckSettings(c.policy, c.reach, s) },
		ValidateMediaURL: c.media.CheckURL, Vault: files, MaxMedia: maxMedia, Rate: c.rate,
		NotReady: o.notReady, Version: release, Log: log})
	return gateway.New(gateway.Config{API: withConsole(api), Auth: c.auth, Open: o.open, Store: o.store, View: view, Offline: certain,
		Fleet: c.tables, Container: c.container, UnownedAfter: c.unownedAfter, PairingAfter: c.pairingAfter, Metrics: metrics, Log: log})
}

// withConsole serves the page beside the API.
func withConsole(api http.Handler) http.Handler {
	page := console.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, console.Prefix) {
			page.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}

// notReady says why requests cannot be served.
func (o *office) notReady() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed != nil {
		return o.failed.Error()
	}
	return ""
}

// open has the tables say whether they are the fleet's, and the master key open
// the keyset. It asks once, and of the tables again when that was long ago.
func (o *office) open(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	switch {
	case o.failed == nil && o.keyset.There() && since(now, o.sure) < genuineFor:
		return nil
	case o.failed != nil && since(now, o.tried) < askAgain:
		return o.failed
	}
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	err := o.ask(ctx)
	var restored *worker.RestoredError
	if err != nil && o.keyset.There() && o.failed == nil && !errors.As(err, &restored) {
		o.log.Warn("whether the tables are still the fleet's could not be found out; asking again", "error", err)
		return nil // it was a moment ago
	}
	o.failed, o.tried = err, now
	if err == nil {
		o.sure = now
	}
	return err
}

// since also counts the time in which the process was frozen.
func since(now, then time.Time) time.Duration {
	return max(now.Sub(then), now.Round(0).Sub(then.Round(0)))
}

func (o *office) ask(ctx context.Context) error {
	var both errgroup.Group
	both.Go(func() error {
		identity, err := o.store.Identity(ctx)
		if err != nil {
			return err
		}
		err = worker.CheckIdentity(ctx, o.store, identity)
		var restored *worker.RestoredError
		if errors.As(err, &restored) {
			return fmt.Errorf("state dynamodb:%s: %w; stop all workers and run holdfast adopt --restored", o.cfg.tables, err)
		}
		if err == nil {
			o.identity = identity
		}
		return err
	})
	if !o.keyset.There() {
		both.Go(func() error {
			master, err := o.masterKey(ctx)
			if err != nil {
				return err
			}
			keyset, err := worker.OpenKeyset(ctx, o.store, master)
			var wrong *seal.WrongMasterError
			if errors.As(err, &wrong) {
				return fmt.Errorf("state dynamodb:%s: its keyset is wrapped with %q, and the master key here is %q; set HOLDFAST_MASTER_KEY to that one", o.cfg.tables, wrong.Wanted, wrong.Had)
			}
			if err == nil {
				o.keyset.Become(keyset)
			}
			return err
		})
	}
	return both.Wait()
}

// masterKey makes the client of the master key at its first use.
func (o *office) masterKey(ctx context.Context) (seal.Master, error) {
	if o.master != nil {
		return o.master, nil
	}
	var keys []seal.Master
	for _, arn := range append([]string{o.cfg.master}, o.cfg.former...) {
		m, err := kms.Open(ctx, kms.Options{KeyARN: arn, Endpoint: o.cfg.endpoints["kms"]})
		if err != nil {
			return nil, err
		}
		keys = append(keys, m)
	}
	o.master = seal.WithFormer(keys[0], keys[1:]...)
	return o.master, nil
}
