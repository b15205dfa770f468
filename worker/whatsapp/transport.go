package whatsapp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// errCut is what a write gets after its line was cut.
var errCut = errors.New("the line was cut")

// errUnheard is what the first write gets where reading has ended before it.
var errUnheard = errors.New("the connection ended before anything was said")

const (
	// dialTimeout bounds one TCP dial. The context of Connect bounds the whole.
	dialTimeout = 30 * time.Second
	// maxResponseHead bounds what a server may answer to the upgrade request.
	maxResponseHead = 64 << 10
)

// tether is what a line holds its network connection by. It is held from the
// moment TCP is open, before proxy, TLS and upgrade, so that a cut works at
// any time.
type tether struct {
	off  atomic.Bool
	up   atomic.Bool // the websocket is there, and the library reads from it
	mu   sync.Mutex
	conn net.Conn
}

// hold takes charge of a connection and returns it with its writes guarded. It
// closes the connection and returns errCut if the line was cut before.
func (t *tether) hold(c net.Conn) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.off.Load() {
		_ = c.Close()
		return nil, errCut
	}
	t.conn = c
	return &tethered{Conn: c, t: t}, nil
}

// cut closes the connection at once. Nothing is written after it returns: later
// writes fail on the flag, closing waits for a write that is in the kernel
// right now, and with a linger of 0 what the kernel has not sent yet is thrown
// away. The peer sees a reset.
func (t *tether) cut() {
	t.off.Store(true)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return
	}
	if tcp, ok := t.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = t.conn.Close()
	t.conn = nil
}

type tethered struct {
	net.Conn
	t *tether
}

func (c *tethered) Write(p []byte) (int, error) {
	if c.t.off.Load() {
		return 0, errCut
	}
	return c.Conn.Write(p)
}

// upgrader is the http.RoundTripper that a client opens its websocket with. It
// is not an http.Transport: that may hand a connection dialled for one request
// to another, and here each connection must belong to its line. It asks the
// service's endpoint whatever URL the library names, and does not offer
// permessage-deflate: accepted, that costs over a megabyte a connection.
type upgrader struct {
	svc    *Service
	route  *route
	tether *tether
	failed func(error) // told of the connection's read error
	unsent func(error) // and of its write error
	given  func()      // told of each frame that the library is given; nil: nobody counts
}

// client wraps the upgrader for the library. Redirects are not followed: a
// websocket that answers with one is not the service.
func (u *upgrader) client() *http.Client {
	return &http.Client{
		Transport:     u,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// RoundTrip dials, asks for the upgrade and returns the answer. The body of a
// 101 is the connection itself.
func (u *upgrader) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	end := u.svc.endpoint
	raw, err := u.route.dial(ctx, end.address(), u.tether.hold)
	if err != nil {
		return nil, err
	}
	// From here on only closing the connection interrupts what blocks.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	resp, err := u.upgrade(req, raw)
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		u.tether.up.Store(true)
	}
	if !stop() {
		_ = raw.Close()
		return nil, context.Cause(ctx)
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return resp, nil
}

func (u *upgrader) upgrade(req *http.Request, conn net.Conn) (*http.Response, error) {
	end := u.svc.endpoint
	if end.secure {
		secured := tls.Client(conn, u.svc.tlsConfig(end.url.Hostname()))
		if err := secured.HandshakeContext(req.Context()); err != nil {
			return nil, fmt.Errorf("TLS with %s: %w", end.url.Host, err)
		}
		conn = secured
	}
	out := req.Clone(req.Context())
	target := *end.url
	out.URL = &target
	out.Host = end.url.Host
	out.Header.Del("Sec-WebSocket-Extensions")
	if err := out.Write(conn); err != nil {
		return nil, fmt.Errorf("asking for the websocket: %w", err)
	}
	head := &io.LimitedReader{R: conn, N: maxResponseHead}
	br := bufio.NewReaderSize(head, 1024)
	resp, err := http.ReadResponse(br, out)
	if err != nil {
		return nil, fmt.Errorf("reading the answer to the websocket request: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body = &closing{ReadCloser: resp.Body, conn: conn}
		return resp, nil
	}
	head.N = math.MaxInt64
	s := &stream{conn: conn, failed: u.failed, unsent: u.unsent}
	if n := br.Buffered(); n > 0 {
		early, _ := br.Peek(n)
		s.early = append([]byte(nil), early...)
	}
	s.frames.in, s.frames.awaited, s.frames.given = s.readRaw, s.awaited, u.given
	resp.Body = s
	return resp, nil
}

// closing is the body of an answer that is not an upgrade: closing it closes
// the connection, which nobody can use again.
type closing struct {
	io.ReadCloser
	conn net.Conn
}

func (c *closing) Close() error {
	err := c.ReadCloser.Close()
	return errors.Join(err, c.conn.Close())
}

// stream is the upgraded connection as the websocket library reads it.
type stream struct {
	conn   net.Conn
	early  []byte // what came together with the answer's head
	frames reframer
	hello  atomic.Int32 // which came first, the library's first write or the end of reading
	failed func(error)
	unsent func(error)
}

// What came of the library's first message. One side of the stream decides: a
// library that has sent it waits for a frame, which the reading side then gives
// it; one that has not is told by the write.
const (
	helloDue int32 = iota
	helloSent
	helloLost // nothing can be read any more
)

func (s *stream) readRaw(p []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(p, s.early)
		s.early = s.early[n:]
		if len(s.early) == 0 {
			s.early = nil
		}
		return n, nil
	}
	n, err := s.conn.Read(p)
	if err != nil {
		s.failed(err)
	}
	return n, err
}

// awaited is asked at the end of reading, before there was a frame.
func (s *stream) awaited() bool {
	s.hello.CompareAndSwap(helloDue, helloLost)
	return s.hello.Load() == helloSent
}

func (s *stream) Read(p []byte) (int, error) { return s.frames.Read(p) }

func (s *stream) Write(p []byte) (int, error) {
	n, err := s.conn.Write(p)
	if err == nil && !s.hello.CompareAndSwap(helloDue, helloSent) && s.hello.Load() == helloLost {
		return n, errUnheard
	}
	if err != nil {
		s.unsent(err)
	}
	return n, err
}

func (s *stream) Close() error { return s.conn.Close() }
