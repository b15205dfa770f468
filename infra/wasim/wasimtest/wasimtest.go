// Package wasimtest points bare whatsmeow clients at a simulated service: the
// library alone, for tests and for benches to compare with.
package wasimtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types/events"
	waLog "go.mau.fi/whatsmeow/util/log"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/infra/wasim/memstore"
)

// Trust makes this process's whatsmeow clients trust the server's root, and no
// other. Call it before any client connects: the library keeps the key in one
// variable without a lock. Servers without a RootSeed of their own share a root.
func Trust(s *wasim.Server) {
	if key := s.RootKey(); whatsmeow.WACertPubKey != key {
		whatsmeow.WACertPubKey = key
	}
}

// Transport is a RoundTripper that sends every request to host:port in the
// clear, whatever its address, and takes away the offer of permessage-deflate
// unless keepDeflate is set.
func Transport(hostport string, keepDeflate bool) http.RoundTripper {
	return &redirect{host: hostport, deflate: keepDeflate, next: &http.Transport{
		MaxIdleConnsPerHost: 2, IdleConnTimeout: 10 * time.Second, DisableCompression: true,
	}}
}

type redirect struct {
	host    string
	deflate bool
	next    *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (t *redirect) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host = "http", t.host, t.host
	if !t.deflate {
		r.Header.Del("Sec-WebSocket-Extensions")
	}
	return t.next.RoundTrip(r)
}

// CloseIdleConnections implements what http.Client asks of its transport.
func (t *redirect) CloseIdleConnections() { t.next.CloseIdleConnections() }

// ClientTransport is Transport to a server's URL.
func ClientTransport(wsURL string) (http.RoundTripper, error) {
	u, err := url.Parse(wsURL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("url %q: is none; use ws://host:port/ws/chat", wsURL)
	}
	return Transport(u.Host, false), nil
}

// Point makes a client dial the server, for websocket and media, through rt,
// which clients may share (Transport makes one).
func Point(cli *whatsmeow.Client, rt http.RoundTripper) {
	h := &http.Client{Transport: rt}
	cli.SetPreLoginHTTPClient(h)
	cli.SetWebsocketHTTPClient(h)
	cli.SetMediaHTTPClient(h)
}

// Client is a bare client on a device (nil: a fresh one in memory), pointed at
// the server, with the settings that Holdfast uses: acks after handling, the
// event buffer, no reconnecting by itself.
func Client(s *wasim.Server, dev *store.Device) *whatsmeow.Client {
	Trust(s)
	if dev == nil {
		dev = memstore.New()
	}
	cli := whatsmeow.NewClient(dev, waLog.Noop)
	cli.SynchronousAck, cli.EnableDecryptedEventBuffer, cli.UseRetryMessageStore = true, true, true
	cli.EnableAutoReconnect, cli.DisableLoginAutoReconnect = false, true
	Point(cli, Transport(s.Host(), false))
	return cli
}

// errEnded is returned when a client's line ends before it was connected.
var errEnded = errors.New("wasimtest: the line ended")

// Connect connects a paired client and waits until it is online.
func Connect(ctx context.Context, cli *whatsmeow.Client) error {
	done := make(chan error, 1)
	tell := func(err error) {
		select {
		case done <- err:
		default:
		}
	}
	id := cli.AddEventHandler(func(evt any) {
		switch evt := evt.(type) {
		case *events.Connected:
			tell(nil)
		case *events.Disconnected, events.PermanentDisconnect:
			tell(fmt.Errorf("%w: %T", errEnded, evt))
		}
	})
	defer cli.RemoveEventHandler(id)
	if err := cli.ConnectContext(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Pair connects an unpaired client, lets number's phone scan its first QR,
// does the restart that follows, and returns once it is online.
func Pair(ctx context.Context, s *wasim.Server, number string, cli *whatsmeow.Client) (*wasim.Device, error) {
	codes := make(chan string, 1)
	restart := make(chan struct{}, 1)
	id := cli.AddEventHandler(func(evt any) {
		switch evt := evt.(type) {
		case *events.QR:
			codes <- evt.Codes[0]
		case *events.ManualLoginReconnect:
			restart <- struct{}{}
		}
	})
	defer cli.RemoveEventHandler(id)
	if err := cli.ConnectContext(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	var code string
	select {
	case code = <-codes:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	d, err := s.Phone(number).Scan(ctx, code)
	if err != nil {
		return nil, err
	}
	select {
	case <-restart:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	cli.Disconnect()
	return d, Connect(ctx, cli)
}

// Revision asks the version page, as whatsmeow.GetLatestVersion does.
func Revision(ctx context.Context, s *wasim.Server) (string, error) {
	v, err := whatsmeow.GetLatestVersion(ctx, &http.Client{Transport: Transport(s.Host(), false)})
	if err != nil {
		return "", err
	}
	return v.String(), nil
}
