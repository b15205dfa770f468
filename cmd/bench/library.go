package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/store/sqlstore"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	waLog "go.mau.fi/whatsmeow/util/log"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-wa/holdfast/infra/wasim/memstore"
	"github.com/holdfast-wa/holdfast/infra/wasim/wasimtest"
)

// library is the role of the library alone: clients as its documentation makes
// them, with the settings under which an acknowledgement follows the handler.
type library struct {
	common
	clients    map[string]*whatsmeow.Client // by session
	containers []*sqlstore.Container
}

// Clients says what clients to make.
type Clients struct {
	Where
	Store    subject
	Accounts []Account
	Dir      string        // of sqlstore's files
	Apart    bool          // a file for each client, so that none waits for another's transaction
	Latency  time.Duration // of sqlstore
}

// Open makes the clients and connects them all, and returns when they are on
// their way.
func (r *library) Open(c Clients, _ *None) error {
	if err := trust(c.RootKey); err != nil {
		return err
	}
	transport, err := wasimtest.ClientTransport(c.URL)
	if err != nil {
		return err
	}
	ctx := context.Background()
	devices, err := r.devices(ctx, c)
	if err != nil {
		return err
	}
	r.clients = map[string]*whatsmeow.Client{}
	var dials errgroup.Group
	for i, a := range c.Accounts {
		cli := whatsmeow.NewClient(devices[i], waLog.Noop)
		cli.SynchronousAck, cli.EnableDecryptedEventBuffer, cli.UseRetryMessageStore = true, true, true
		cli.EnableAutoReconnect = false
		wasimtest.Point(cli, transport)
		cli.AddEventHandlerWithSuccessStatus(func(evt any) bool {
			if e, ok := evt.(*events.Disconnected); ok {
				fmt.Fprintf(os.Stderr, "# a client of the library lost its line: %+v\n", e)
			}
			return true
		})
		r.clients[a.Name] = cli
		dials.Go(func() error { return cli.ConnectContext(ctx) })
	}
	return dials.Wait()
}

// devices opens the device of each account, and pairs those that are new.
func (r *library) devices(ctx context.Context, c Clients) ([]*store.Device, error) {
	out := make([]*store.Device, len(c.Accounts))
	var err error
	for i, a := range c.Accounts {
		switch c.Store {
		case libraryPrimer:
			if out[i], err = primer(ctx, a); err != nil {
				return nil, err
			}
			continue
		case libraryMemory:
			out[i] = memstore.New()
			if err := a.pair(ctx, out[i]); err != nil {
				return nil, err
			}
			continue
		case librarySQL:
		default:
			return nil, fmt.Errorf("no store %q", c.Store)
		}
		if c.Apart || i == 0 {
			if err := r.container(ctx, filepath.Join(c.Dir, fmt.Sprintf("library%d.db", i)), c.Latency); err != nil {
				return nil, err
			}
		}
		if out[i], err = saved(ctx, r.containers[len(r.containers)-1], a); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// container opens a file of sqlstore.
func (r *library) container(ctx context.Context, path string, latency time.Duration) error {
	db := openSlow(path, 0)
	c := sqlstore.NewWithDB(db, "sqlite", waLog.Noop)
	if err := c.Upgrade(ctx); err != nil {
		return fmt.Errorf("sqlstore: %w", err)
	}
	if latency > 0 {
		if err := db.Close(); err != nil {
			return err
		}
		c = sqlstore.NewWithDB(openSlow(path, latency), "sqlite", waLog.Noop)
	}
	r.containers = append(r.containers, c)
	return nil
}

// saved is a device out of sqlstore, paired if it is new.
func saved(ctx context.Context, c *sqlstore.Container, a Account) (*store.Device, error) {
	jid, err := types.ParseJID(a.JID)
	if err != nil {
		return nil, err
	}
	d, err := c.GetDevice(ctx, jid)
	if err != nil || d != nil {
		return d, err
	}
	d = c.NewDevice()
	return d, a.pair(ctx, d)
}

// Reply is a text from a session.
type Reply struct{ Session, To, Text string }

// Reply sends it.
func (r *library) Reply(m Reply, _ *None) error {
	cli := r.clients[m.Session]
	if cli == nil {
		return fmt.Errorf("no client %q", m.Session)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := cli.SendMessage(ctx, types.NewJID(m.To, types.DefaultUserServer), &waE2E.Message{Conversation: proto.String(m.Text)})
	return err
}

// Stop disconnects all clients.
func (r *library) Stop(None, *None) error {
	var all sync.WaitGroup
	for _, cli := range r.clients {
		all.Go(cli.Disconnect)
	}
	all.Wait()
	var errs []error
	for _, c := range r.containers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// trust makes this process's clients trust a root key.
func trust(rootKey string) error {
	key, err := hex.DecodeString(rootKey)
	if err != nil || len(key) != 32 {
		return errors.New("the service's root key is none")
	}
	whatsmeow.WACertPubKey = [32]byte(key)
	return nil
}
