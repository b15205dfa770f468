package deliver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
)

func TestRedirectsAreNotFollowed(t *testing.T) {
	var followed atomic.Bool
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	defer inner.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		server := httptest.NewServer(http.RedirectHandler(inner.URL, status))
		p := NewPoster(PosterConfig{Allow: safedial.Loopback})
		w, err := p.Webhook(server.URL, "")
		if err != nil {
			t.Fatal(err)
		}
		n, err := w.Deliver(t.Context(), []state.Event{sample})
		var refused *Refused
		if n != 0 || err == nil || errors.As(err, &refused) || followed.Load() {
			t.Errorf("%d: Deliver: %d, %v; followed: %t", status, n, err, followed.Load())
		}
		p.Close()
		server.Close()
	}
}

// TestInnerReceiversAreNotReached: whatever form the address of this host has in
// a URL, an inner receiver gets nothing.
func TestInnerReceiversAreNotReached(t *testing.T) {
	var reached atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer server.Close()
	port := server.URL[strings.LastIndex(server.URL, ":")+1:]
	for _, tc := range []struct {
		name  string
		allow safedial.Policy
		hosts []string
		want  int32
	}{
		{"public only", safedial.Public, []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "[::1]", "user:pw@127.0.0.1",
			"127.1", "2130706433", "0x7f000001", "017700000001"}, 0},
		{"this host", safedial.Loopback, []string{"127.0.0.1", "[::ffff:127.0.0.1]"}, 2},
		{"another network", must(safedial.Parse("10.0.0.0/8")), []string{"127.0.0.1"}, 0},
		{"this address", must(safedial.Parse("127.0.0.1")), []string{"127.0.0.1"}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reached.Store(0)
			p := NewPoster(PosterConfig{Timeout: 5 * time.Second, Tries: 1, Allow: tc.allow})
			defer p.Close()
			for _, host := range tc.hosts {
				w, err := p.Webhook("http://"+host+":"+port+"/", "")
				if err != nil {
					t.Fatal(err)
				}
				n, err := w.Deliver(t.Context(), []state.Event{sample})
				if (n == 1) != (tc.want > 0) || (err == nil) != (tc.want > 0) {
					t.Errorf("%s: Deliver: %d, %v", host, n, err)
				}
			}
			if got := reached.Load(); got != tc.want {
				t.Errorf("the receiver was reached %d times, want %d", got, tc.want)
			}
		})
	}
}

func must(p safedial.Policy, err error) safedial.Policy {
	if err != nil {
		panic(err)
	}
	return p
}

// TestRebindingGainsNothing: a name that leads to an allowed receiver when it is
// looked up first, and into the network the next time, is judged at each dial.
func TestRebindingGainsNothing(t *testing.T) {
	var reached atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer server.Close()
	server.Config.SetKeepAlivesEnabled(false) // each delivery dials
	port := server.URL[strings.LastIndex(server.URL, ":")+1:]

	inner := []string{"127.0.0.2", "10.0.0.1", "169.254.169.254"}
	var asked atomic.Int32
	dialer := must(safedial.Parse("127.0.0.1")).Dialer() // the receiver of this test is the internet
	dialer.Resolver = dnsServer(t, func() netip.Addr {
		if n := int(asked.Add(1)) - 2; n >= 0 {
			return netip.MustParseAddr(inner[n%len(inner)])
		}
		return netip.MustParseAddr("127.0.0.1")
	})
	p := NewPoster(PosterConfig{Transport: &http.Transport{DialContext: dialer.DialContext}})
	w, err := p.Webhook("http://rebind.test:"+port+"/", "")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.Deliver(t.Context(), []state.Event{sample}); n != 1 || err != nil {
		t.Fatalf("the first delivery: %d, %v", n, err)
	}
	for _, addr := range inner {
		n, err := w.Deliver(t.Context(), []state.Event{sample})
		if n != 0 || err == nil || !strings.Contains(err.Error(), "address "+addr+" is refused") {
			t.Errorf("rebound to %s: Deliver: %d, %v", addr, n, err)
		}
	}
	if got := reached.Load(); got != 1 {
		t.Errorf("the receiver was reached %d times, want 1", got)
	}
	if got := asked.Load(); int(got) != 1+len(inner) {
		t.Errorf("%d lookups, want one for each delivery: a refused address is not tried again at once", got)
	}
}

// dnsServer answers questions for A records with what answer says, and others
// with nothing.
func dnsServer(t *testing.T, answer func() netip.Addr) *net.Resolver {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Authoritative, m.Additionals = true, true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type, TTL: 0},
					Body: &dnsmessage.AResource{A: answer().As4()}}}
			}
			packed, err := m.Pack()
			if err == nil {
				_, _ = conn.WriteTo(packed, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func TestSecretsHaveBounds(t *testing.T) {
	for secret, fits := range map[string]bool{
		"": true, "short": false, "sixteen-bytes-ok": true, strings.Repeat("x", 512): true, strings.Repeat("x", 513): false,
		"whsec_aHVzaGh1c2hodXNoaHVz":     false, // 15 bytes behind the prefix are too few, though the text is long
		"whsec_aHVzaGh1c2hodXNoaHVzaA==": true,
	} {
		err := CheckWebhook("https://a.test/", secret)
		if (err == nil) != fits {
			t.Errorf("%d characters: %v", len(secret), err)
		}
		if err != nil && (strings.Contains(err.Error(), "short") && !strings.Contains(err.Error(), strconv.Itoa(minSecret)) || !strings.Contains(err.Error(), "16 to 512")) {
			t.Errorf("the error does not say the bounds: %v", err)
		}
	}
}
