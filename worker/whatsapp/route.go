package whatsapp

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/proxy"
)

// ErrProxy is in the chain of every failure of a proxy itself. Nothing is ever
// dialled directly instead.
var ErrProxy = errors.New("proxy")

// CheckProxy tells whether a proxy setting can be used. Empty means none.
func CheckProxy(setting string) error {
	_, err := parseProxy(setting)
	return err
}

// parseProxy reads a proxy setting. Its errors never show the setting itself,
// which may hold a password.
func parseProxy(setting string) (*url.URL, error) {
	if setting == "" {
		return nil, nil
	}
	const want = "use http://, https:// or socks5:// with a host, such as socks5://user:password@proxy.example:1080"
	u, err := url.Parse(setting)
	if err != nil {
		return nil, fmt.Errorf("proxy: is not a URL; %s", want)
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return nil, fmt.Errorf("proxy: scheme %q is not known; %s", u.Scheme, want)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("proxy: has no host; %s", want)
	}
	if u.Port() == "" {
		port := map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

// route is one way out of this process: directly, or through one proxy. All
// sessions that use the same proxy share it.
type route struct {
	svc    *Service
	proxy  *url.URL
	dialer net.Dialer

	once  sync.Once
	plain *http.Transport // for requests other than the websocket; made when first needed
}

func newRoute(svc *Service, via *url.URL) *route {
	return &route{svc: svc, proxy: via, dialer: net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 4},
	}}
}

// dial opens a connection to host:port. hold gets the TCP connection as soon
// as it is open; what it returns is used from there on. Names are resolved by
// the proxy where there is one.
func (r *route) dial(ctx context.Context, address string, hold func(net.Conn) (net.Conn, error)) (net.Conn, error) {
	open := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := r.dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return hold(c)
	}
	if r.proxy == nil {
		return open(ctx, "tcp", address)
	}
	conn, err := r.throughProxy(ctx, address, open)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrProxy, r.proxy.Host, err)
	}
	return conn, nil
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// DialContext and Dial make dialFunc what the socks package asks for.
func (f dialFunc) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return f(ctx, network, addr)
}

func (f dialFunc) Dial(network, addr string) (net.Conn, error) {
	return f(context.Background(), network, addr)
}

func (r *route) throughProxy(ctx context.Context, address string, open dialFunc) (net.Conn, error) {
	if strings.HasPrefix(r.proxy.Scheme, "socks5") {
		var auth *proxy.Auth
		if user := r.proxy.User; user != nil {
			password, _ := user.Password()
			auth = &proxy.Auth{User: user.Username(), Password: password}
		}
		socks, err := proxy.SOCKS5("tcp", r.proxy.Host, auth, open)
		if err != nil {
			return nil, err
		}
		return socks.(proxy.ContextDialer).DialContext(ctx, "tcp", address)
	}
	conn, err := open(ctx, "tcp", r.proxy.Host)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	tunnel, err := r.connect(ctx, conn, address)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return tunnel, nil
}

// connect asks an HTTP proxy for a tunnel, for ws:// as for wss://.
func (r *route) connect(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	if r.proxy.Scheme == "https" {
		secured := tls.Client(conn, r.svc.tlsConfig(r.proxy.Hostname()))
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS: %w", err)
		}
		conn = secured
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if user := r.proxy.User; user != nil {
		password, _ := user.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return nil, fmt.Errorf("asking for a tunnel: %w", err)
	}
	// The peer says nothing through the tunnel before it is asked, so all that
	// is read here is the proxy's own answer.
	br := bufio.NewReaderSize(&io.LimitedReader{R: conn, N: maxResponseHead}, 1024)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return nil, fmt.Errorf("asking for a tunnel: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("refused the tunnel with %d", resp.StatusCode)
	}
	if br.Buffered() > 0 {
		return nil, errors.New("spoke before the tunnel was used")
	}
	return conn, nil
}

// transport is for requests other than the websocket: media, the version page,
// reachability. The environment's proxy settings are not looked at.
func (r *route) transport() *http.Transport {
	r.once.Do(func() {
		r.plain = &http.Transport{
			DialContext:           r.dialer.DialContext,
			TLSClientConfig:       r.svc.tlsConfig(""),
			TLSHandshakeTimeout:   15 * time.Second,
			ResponseHeaderTimeout: 60 * time.Second,
			IdleConnTimeout:       30 * time.Second,
			MaxIdleConnsPerHost:   2,
			ForceAttemptHTTP2:     true,
		}
		if r.proxy != nil {
			r.plain.Proxy = http.ProxyURL(r.proxy)
		}
	})
	return r.plain
}

// RoundTrip serves media requests. With an endpoint of one's own they go to its
// host, so that nothing of a test ever reaches WhatsApp.
func (r *route) RoundTrip(req *http.Request) (*http.Response, error) {
	if end := r.svc.endpoint; end.own {
		req = req.Clone(req.Context())
		req.URL.Scheme, req.URL.Host = end.web.Scheme, end.web.Host
		req.Host = ""
	}
	resp, err := r.transport().RoundTrip(req)
	if err != nil && r.proxy != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrProxy, r.proxy.Host, err)
	}
	return resp, err
}
