package whatsapp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"pgregory.net/rapid"
)

// newService makes a service that is closed with the test.
func newService(t *testing.T, cfg ServiceConfig) *Service {
	t.Helper()
	s, err := NewService(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// bareUpgrader is an upgrader as a line has it.
func bareUpgrader(t *testing.T, s *Service, proxy string) *upgrader {
	t.Helper()
	r, err := s.via(proxy)
	if err != nil {
		t.Fatal(err)
	}
	return &upgrader{svc: s, route: r, tether: &tether{}, failed: func(error) {}, unsent: func(error) {}}
}

const libraryURL = "wss://web.whatsapp.com/ws/chat"

// echo is a websocket server that tells what it was asked and sends back what
// it gets.
func echo(asked *atomic.Pointer[http.Request]) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Clone(context.Background()))
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionContextTakeover})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, data) != nil {
				return
			}
		}
	})
}

func exchange(t *testing.T, u *upgrader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, libraryURL, &websocket.DialOptions{HTTPClient: u.client(), CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	frame := append([]byte{0, 0, 5}, "hello"...)
	if err := c.Write(ctx, websocket.MessageBinary, frame); err != nil {
		t.Fatal(err)
	}
	_, got, err := c.Read(ctx)
	if err != nil || !bytes.Equal(got, frame) {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestEndpointTakesThePlaceOfTheLibrarysURL(t *testing.T) {
	var asked atomic.Pointer[http.Request]
	for _, c := range []struct {
		name, path, want string
		tls              bool
	}{
		{"in the clear", "", "/ws/chat", false},
		{"own path", "/other", "/other", false},
		{"TLS", "", "/ws/chat", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(echo(&asked))
			if c.tls {
				server.StartTLS()
			} else {
				server.Start()
			}
			defer server.Close()
			s := newService(t, ServiceConfig{Endpoint: "ws" + strings.TrimPrefix(server.URL, "http") + c.path})
			if c.tls {
				s.roots = x509.NewCertPool()
				s.roots.AddCert(server.Certificate())
			}
			exchange(t, bareUpgrader(t, s, ""))
			r := asked.Load()
			if r.URL.Path != c.want || r.Host != s.Host() {
				t.Errorf("asked %s of host %s, want %s of %s", r.URL.Path, r.Host, c.want, s.Host())
			}
			if offer := r.Header.Get("Sec-WebSocket-Extensions"); offer != "" {
				t.Errorf("compression was offered: %q", offer)
			}
		})
	}
}

func TestUnknownCertificateIsRefused(t *testing.T) {
	var asked atomic.Pointer[http.Request]
	server := httptest.NewTLSServer(echo(&asked))
	defer server.Close()
	s := newService(t, ServiceConfig{Endpoint: "wss" + strings.TrimPrefix(server.URL, "https")})
	_, _, err := websocket.Dial(t.Context(), libraryURL, &websocket.DialOptions{HTTPClient: bareUpgrader(t, s, "").client()})
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
		t.Errorf("got %v", err)
	}
	if asked.Load() != nil {
		t.Error("the request was sent all the same")
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	var asked atomic.Pointer[http.Request]
	elsewhere := httptest.NewServer(echo(&asked))
	defer elsewhere.Close()
	server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	defer server.Close()
	s := newService(t, ServiceConfig{Endpoint: "ws" + strings.TrimPrefix(server.URL, "http")})
	_, resp, err := websocket.Dial(t.Context(), libraryURL, &websocket.DialOptions{HTTPClient: bareUpgrader(t, s, "").client()})
	if err == nil || resp == nil || resp.StatusCode != http.StatusFound || asked.Load() != nil {
		t.Errorf("err %v, resp %v, followed %v", err, resp, asked.Load() != nil)
	}
}

// The head of an answer that has no end must not fill the memory.
func TestEndlessAnswerIsGivenUp(t *testing.T) {
	l := listen(t)
	go serveRaw(l, func(c net.Conn) {
		_, _ = fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nX: ")
		for {
			if _, err := c.Write(bytes.Repeat([]byte{'a'}, 4096)); err != nil {
				return
			}
		}
	})
	s := newService(t, ServiceConfig{Endpoint: "ws://" + l.Addr().String()})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, _, err := websocket.Dial(ctx, libraryURL, &websocket.DialOptions{HTTPClient: bareUpgrader(t, s, "").client()}); err == nil || ctx.Err() != nil {
		t.Errorf("got %v, %v", err, ctx.Err())
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func serveRaw(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

// Whatever writers are doing while the line is cut: what the peer has got by
// the time that cut returns is all that it ever gets.
func TestNothingLeavesAfterCut(t *testing.T) {
	l := listen(t)
	type result struct {
		n   int64
		err error
	}
	for round := range 20 {
		results := make(chan result, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				results <- result{0, err}
				return
			}
			defer c.Close()
			n, err := io.Copy(io.Discard, c)
			results <- result{n, err}
		}()
		raw, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		var tie tether
		conn, err := tie.hold(raw)
		if err != nil {
			t.Fatal(err)
		}
		var written atomic.Int64
		var late atomic.Int64
		var isCut atomic.Bool
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					before := isCut.Load()
					n, err := conn.Write(make([]byte, 1+round*100))
					written.Add(int64(n))
					if n > 0 && before {
						late.Add(1)
					}
					if err != nil {
						return
					}
				}
			})
		}
		time.Sleep(time.Duration(round) * 100 * time.Microsecond)
		tie.cut()
		isCut.Store(true)
		wg.Wait()
		if _, err := conn.Write([]byte("late")); !errors.Is(err, errCut) {
			t.Fatalf("a write after the cut: %v", err)
		}
		if late.Load() != 0 {
			t.Fatalf("%d writes were taken after the cut", late.Load())
		}
		if got := <-results; got.n > written.Load() {
			t.Fatalf("the peer got %d bytes of %d", got.n, written.Load())
		}
	}
}

func TestCutBeforeThereIsAConnection(t *testing.T) {
	var tie tether
	tie.cut()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	if _, err := tie.hold(ours); !errors.Is(err, errCut) {
		t.Errorf("got %v", err)
	}
	if _, err := ours.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the connection was left open: %v", err)
	}
}

// Whoever comes second of the first write and the end of reading tells the
// library; both at once would leave a frame that nobody takes.
func TestHelloOrEnd(t *testing.T) {
	nothing := func(error) {}
	for _, endFirst := range []bool{true, false} {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		s := &stream{conn: ours, failed: nothing, unsent: nothing}
		var ended, again, said = false, false, error(nil)
		say := func() { _, said = s.Write([]byte("hello")) }
		end := func() { ended, again = s.awaited(), s.awaited() }
		if endFirst {
			end()
			say()
		} else {
			say()
			end()
		}
		if ended == endFirst || again != ended || (said != nil) != endFirst || endFirst && !errors.Is(said, errUnheard) {
			t.Errorf("end first %t: awaited %t, then %t; write %v", endFirst, ended, again, said)
		}
		_, _ = ours.Close(), theirs.Close()
	}
}

// connectProxy is an HTTP proxy that only makes tunnels.
func connectProxy(t *testing.T, user string) (address string, tunnels *atomic.Int64) {
	t.Helper()
	tunnels = new(atomic.Int64)
	l := listen(t)
	go serveRaw(l, func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil || req.Method != http.MethodConnect {
			return
		}
		if user != "" && req.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(user)) {
			_, _ = fmt.Fprint(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
			return
		}
		target, err := net.Dial("tcp", req.Host)
		if err != nil {
			return
		}
		tunnels.Add(1)
		_, _ = fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
		pipe(c, target)
	})
	return l.Addr().String(), tunnels
}

// socksProxy is a SOCKS5 proxy without authentication. It knows one name.
func socksProxy(t *testing.T, name, realAddress string) (address string, names *sync.Map) {
	t.Helper()
	names = new(sync.Map)
	l := listen(t)
	go serveRaw(l, func(c net.Conn) {
		head := make([]byte, 2)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, c, int64(head[1]))
		_, _ = c.Write([]byte{5, 0})
		req := make([]byte, 5)
		if _, err := io.ReadFull(c, req); err != nil || req[3] != 3 {
			return // not a name
		}
		rest := make([]byte, int(req[4])+2)
		if _, err := io.ReadFull(c, rest); err != nil {
			return
		}
		asked := string(rest[:req[4]])
		names.Store(asked, true)
		if asked != name {
			_, _ = c.Write([]byte{5, 4, 0, 1, 0, 0, 0, 0, 0, 0})
			return
		}
		target, err := net.Dial("tcp", realAddress)
		if err != nil {
			return
		}
		_, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		pipe(c, target)
	})
	return l.Addr().String(), names
}

func pipe(a, b net.Conn) {
	defer b.Close()
	go func() {
		_, _ = io.Copy(b, a)
		_ = b.Close()
	}()
	_, _ = io.Copy(a, b)
}

func TestHTTPProxy(t *testing.T) {
	var asked atomic.Pointer[http.Request]
	server := httptest.NewServer(echo(&asked))
	defer server.Close()
	address, tunnels := connectProxy(t, "ada:secret")
	s := newService(t, ServiceConfig{Endpoint: "ws" + strings.TrimPrefix(server.URL, "http")})
	exchange(t, bareUpgrader(t, s, "http://ada:secret@"+address))
	if tunnels.Load() != 1 {
		t.Errorf("%d tunnels", tunnels.Load())
	}
	_, _, err := websocket.Dial(t.Context(), libraryURL, &websocket.DialOptions{HTTPClient: bareUpgrader(t, s, "http://ada:wrong@"+address).client()})
	if !errors.Is(err, ErrProxy) || !strings.Contains(err.Error(), "407") || strings.Contains(err.Error(), "wrong") {
		t.Errorf("with a wrong password: %v", err)
	}
}

// The name is resolved by the proxy: here it exists nowhere else.
func TestSOCKSProxyResolvesTheName(t *testing.T) {
	var asked atomic.Pointer[http.Request]
	server := httptest.NewServer(echo(&asked))
	defer server.Close()
	address, names := socksProxy(t, "chat.nowhere.invalid", server.Listener.Addr().String())
	s := newService(t, ServiceConfig{Endpoint: "ws://chat.nowhere.invalid:81/ws/chat", Proxy: "socks5://" + address})
	exchange(t, bareUpgrader(t, s, ""))
	if _, ok := names.Load("chat.nowhere.invalid"); !ok {
		t.Error("the proxy was not asked for the name")
	}
	if err := s.Reachable(t.Context(), ""); err != nil {
		t.Errorf("reachability through the proxy: %v", err)
	}
}

// A proxy that is dead, or dies, never leads to a direct connection.
func TestDeadProxyIsNotBypassed(t *testing.T) {
	dead := listen(t)
	address := dead.Addr().String()
	_ = dead.Close()
	mute := listen(t)
	go serveRaw(mute, func(c net.Conn) { _, _ = c.Write([]byte("go away")) })
	for _, proxy := range []string{
		"http://" + address, "https://" + address, "socks5://" + address,
		"http://" + mute.Addr().String(), "socks5://" + mute.Addr().String(),
	} {
		t.Run(proxy, func(t *testing.T) {
			var direct atomic.Int64
			target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { direct.Add(1) }))
			defer target.Close()
			s := newService(t, ServiceConfig{Endpoint: "ws" + strings.TrimPrefix(target.URL, "http")})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, _, err := websocket.Dial(ctx, libraryURL, &websocket.DialOptions{HTTPClient: bareUpgrader(t, s, proxy).client()})
			if !errors.Is(err, ErrProxy) {
				t.Errorf("websocket: %v", err)
			}
			if err := s.Reachable(ctx, proxy); !errors.Is(err, ErrProxy) {
				t.Errorf("reachability: %v", err)
			}
			if direct.Load() != 0 {
				t.Errorf("%d direct requests", direct.Load())
			}
		})
	}
}

func TestEnvironmentProxyIsIgnored(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("ALL_PROXY", "socks5://127.0.0.1:1")
	var asked atomic.Pointer[http.Request]
	server := httptest.NewServer(echo(&asked))
	defer server.Close()
	s := newService(t, ServiceConfig{Endpoint: "ws" + strings.TrimPrefix(server.URL, "http")})
	exchange(t, bareUpgrader(t, s, ""))
	if err := s.Reachable(t.Context(), ""); err != nil {
		t.Error(err)
	}
}

func TestMediaGoesToTheOwnEndpoint(t *testing.T) {
	var asked atomic.Pointer[http.Request]
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked.Store(r.Clone(context.Background())) }))
	defer server.Close()
	s := newService(t, ServiceConfig{Endpoint: "ws" + strings.TrimPrefix(server.URL, "http")})
	r, _ := s.via("")
	resp, err := r.media().Get("https://mmg.whatsapp.net/v/t62/file.enc?hash=1")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := asked.Load(); got == nil || got.URL.Path != "/v/t62/file.enc" || got.Host != s.Host() {
		t.Errorf("asked %+v", got)
	}
}

// frames cuts what a reframer gives into websocket frames.
func frames(t interface{ Fatalf(string, ...any) }, b []byte) (out []wsFrame) {
	for len(b) > 0 {
		f := wsFrame{first: b[0]}
		n := int(b[1])
		b = b[2:]
		switch n {
		case 126:
			n = int(binary.BigEndian.Uint16(b))
			b = b[2:]
		case 127:
			n = int(binary.BigEndian.Uint64(b))
			b = b[8:]
		}
		if n > len(b) {
			t.Fatalf("a frame of %d bytes, %d left", n, len(b))
		}
		f.payload, b = b[:n], b[n:]
		out = append(out, f)
	}
	return out
}

type wsFrame struct {
	first   byte
	payload []byte
}

func (f wsFrame) append(b []byte) []byte {
	switch n := len(f.payload); {
	case n < 126:
		b = append(b, f.first, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, f.first, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, f.first, 127), uint64(n))
	}
	return append(b, f.payload...)
}

// However the server cuts its frames into messages, messages into fragments
// and fragments into packets, the library gets one frame a message.
func TestReframing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 400), 1, 6).Draw(t, "frames")
		var stream []byte
		for _, f := range whole {
			stream = append(stream, byte(len(f)>>16), byte(len(f)>>8), byte(len(f)))
			stream = append(stream, f...)
		}
		var wire []byte
		pings := 0
		continuing := false
		for len(stream) > 0 {
			if rapid.IntRange(0, 4).Draw(t, "ping") == 0 {
				wire = wsFrame{0x89, []byte("p")}.append(wire)
				pings++
			}
			n := rapid.IntRange(1, len(stream)).Draw(t, "piece")
			final := n == len(stream) || rapid.Bool().Draw(t, "final")
			first := byte(2)
			if continuing {
				first = 0
			}
			if final {
				first |= 0x80
			}
			continuing = !final
			wire = wsFrame{first, stream[:n]}.append(wire)
			stream = stream[n:]
		}
		r := reframer{awaited: func() bool { return false }, in: func(p []byte) (int, error) {
			if len(wire) == 0 {
				return 0, io.EOF
			}
			n := copy(p, wire[:rapid.IntRange(1, min(len(wire), len(p))).Draw(t, "packet")])
			wire = wire[n:]
			return n, nil
		}}
		got, err := io.ReadAll(&r)
		if err != nil {
			t.Fatal(err)
		}
		var binaries [][]byte
		for _, f := range frames(t, got) {
			switch f.first {
			case 0x82:
				binaries = append(binaries, f.payload)
			case 0x89:
				pings--
			default:
				t.Fatalf("a frame of kind %#x", f.first)
			}
		}
		if pings != 0 || len(binaries) != len(whole) {
			t.Fatalf("%d messages for %d frames, %d pings lost", len(binaries), len(whole), pings)
		}
		for i, b := range binaries {
			if !bytes.Equal(b[3:], whole[i]) {
				t.Fatalf("frame %d is %x, want %x", i, b[3:], whole[i])
			}
		}
	})
}

// Garbage reaches the websocket library as it is, and nothing panics.
func FuzzReframer(f *testing.F) {
	f.Add([]byte{0x82, 3, 0, 0, 0})
	f.Add([]byte{0xf2, 3, 0, 0, 0})
	f.Add([]byte{0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{0x81, 2, 'h', 'i', 0x82, 4, 0, 0, 1, 9})
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := reframer{in: bytes.NewReader(wire).Read, awaited: func() bool { return false }}
		out, err := io.ReadAll(&r)
		if err != nil {
			t.Fatal(err)
		}
		if len(out) > 6*len(wire)+16 {
			t.Errorf("%d bytes became %d", len(wire), len(out))
		}
	})
}
