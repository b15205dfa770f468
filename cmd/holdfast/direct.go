package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
)

// storeFlag is the store that a client command was told to work on, instead of
// asking an admin API: --state with a place such as sqlite:PATH. Of lists --state
// is a filter as well; no state has a colon in it. Empty: none.
func storeFlag(cmd *cobra.Command) string {
	f := cmd.Flags().Lookup("state")
	if f == nil || !f.Changed || !strings.Contains(f.Value.String(), ":") {
		return ""
	}
	return f.Value.String()
}

// stateFilter is the --state of a list, where it is none of a store.
func stateFilter(text string) string {
	if strings.Contains(text, ":") {
		return ""
	}
	return text
}

// directKey is the name under which the audit has what was done on the store itself.
const directKey = "break-glass"

// storeClient serves the admin API in this process, over the store itself, for
// when no admin API runs or can be reached. What only a worker can do waits for
// one; a disconnect is carried out here where no worker is alive.
func (a *app) storeClient(cmd *cobra.Command) (*client, error) {
	if a.direct != nil {
		return a.direct, nil
	}
	cfg, err := a.config(cmd, nil)
	if err != nil {
		return nil, err
	}
	if cfg.State.Scheme == "sqlite" && sealedAlready(cfg) == "" {
		return nil, fmt.Errorf("state %s: is not there or is empty; check --state and --data-dir", cfg.State)
	}
	cfg.APIRate = 0
	ctx := cmd.Context()
	o, err := openTool(ctx, cfg, shared)
	if err != nil {
		return nil, err
	}
	a.closing = append(a.closing, o.close)
	if o.dir == nil { // the store is not on this host: neither are its workers
		if cfg.DataDir, err = os.MkdirTemp("", "holdfast-*"); err != nil {
			return nil, fmt.Errorf("no temporary folder can be made: %w", err)
		}
		a.closing = append(a.closing, func() { _ = os.RemoveAll(cfg.DataDir) })
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	key := base64.RawURLEncoding.EncodeToString(secret)
	keys, err := adminapi.ParseKeys(directName() + ":admin:" + adminapi.HashKey(key))
	if err != nil {
		return nil, err
	}
	office, err := newAdminOffice(cfg, o, keys, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	office.set(&office.unready, "") // openTool has asked all of it
	line := newInProcess()
	server := &http.Server{Handler: office.routes(), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go func() { _ = server.Serve(line) }() // until it is closed
	a.closing = append(a.closing, func() { _ = server.Close() })
	a.direct = &client{base: "http://" + cfg.State.Scheme, key: Secret(key),
		http: &http.Client{Transport: &http.Transport{DialContext: line.dial, DisableKeepAlives: true}}}
	return a.direct, nil
}

// directName names who works on the store, for the audit.
func directName() string {
	who, err := user.Current()
	if err != nil || who.Username == "" {
		return directKey
	}
	return directKey + "-" + strings.NewReplacer(":", "_", ",", "_").Replace(who.Username)
}

// inProcess is a listener that only this process can reach.
type inProcess struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newInProcess() *inProcess {
	return &inProcess{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *inProcess) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (l *inProcess) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *inProcess) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *inProcess) Addr() net.Addr { return &net.UnixAddr{Name: "in this process", Net: "pipe"} }
