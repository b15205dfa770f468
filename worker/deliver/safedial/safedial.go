// Package safedial keeps requests that a user of the API has named a URL for,
// webhooks and media, from reaching what only this host can reach: itself, its
// private network, and the address at which clouds hand out credentials.
//
// The rule is applied to the address that is dialled, after DNS and for every
// attempt, so a name that answers differently the second time gains nothing. A
// client that uses it must not follow redirects blindly either: each hop dials
// again, and is judged again.
//
//	t := safedial.Public.Transport()          // for an http.Client
//	net.Dialer{Control: safedial.Public.Control}
//	err := safedial.Public.CheckURL(rawURL)   // early, to tell the user
package safedial

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Policy says which addresses may be dialled beside those of the public internet.
// The zero Policy allows none.
type Policy struct {
	text     string
	loopback bool
	private  bool           // includes loopback
	networks []netip.Prefix // allowed whatever they are
}

// The policies by name. Link-local addresses, multicast and those of metadata
// services are in none of them.
var (
	Public   = Policy{text: "false"}                               // the internet only
	Loopback = Policy{text: "loopback", loopback: true}            // and this host
	Private  = Policy{text: "true", loopback: true, private: true} // and private networks
)

// Parse reads false, loopback, true, or networks such as 10.1.0.0/16,127.0.0.1:
// those and no other private ones. A network may name what no policy by name
// allows.
func Parse(text string) (Policy, error) {
	switch text = strings.ToLower(strings.TrimSpace(text)); text {
	case "false", "":
		return Public, nil
	case "loopback":
		return Loopback, nil
	case "true":
		return Private, nil
	}
	p := Policy{}
	var names []string
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		network, err := netip.ParsePrefix(part)
		if err != nil {
			addr, err := netip.ParseAddr(part)
			if err != nil || addr.Zone() != "" {
				return Policy{}, fmt.Errorf("%q is neither false, loopback nor true, nor a network; use one of them or a list such as 10.1.0.0/16,192.168.7.2", part)
			}
			network = netip.PrefixFrom(addr, addr.BitLen())
		}
		if network.Addr().Is4In6() {
			return Policy{}, fmt.Errorf("%q is an IPv4 network in the form of IPv6; write it as IPv4", part)
		}
		p.networks = append(p.networks, network.Masked())
		names = append(names, network.Masked().String())
	}
	p.text = strings.Join(names, ",")
	return p, nil
}

// String is what Parse reads.
func (p Policy) String() string {
	if p.text == "" {
		return Public.text
	}
	return p.text
}

// Trusted is the policy for URLs that whoever runs the process has set himself:
// private networks too.
func (p Policy) Trusted() Policy {
	p.loopback, p.private = true, true
	return p
}

// All says whether everything may be dialled that a policy by name can allow. A
// proxy may be used then: behind one, what is dialled is not seen here.
func (p Policy) All() bool { return p.private }

// Refused is the error for an address that may not be dialled.
type Refused struct {
	Addr netip.Addr
	Kind string // loopback, private, link-local, metadata, …
}

func (r *Refused) Error() string {
	return fmt.Sprintf("address %s is refused: it is %s, not on the public internet", r.Addr, r.Kind)
}

// The networks that are not the public internet, by IANA's registries of
// special-purpose addresses. The first that matches names the kind.
var special = []struct {
	network netip.Prefix
	kind    string
}{
	{netip.MustParsePrefix("169.254.169.254/32"), metadata},
	{netip.MustParsePrefix("169.254.170.2/32"), metadata},   // ECS: credentials of the task
	{netip.MustParsePrefix("169.254.170.23/32"), metadata},  // EKS: credentials of the pod
	{netip.MustParsePrefix("fd00:ec2::/32"), metadata},      // EC2 by IPv6
	{netip.MustParsePrefix("fd20:ce::254/128"), metadata},   // Google by IPv6
	{netip.MustParsePrefix("168.63.129.16/32"), metadata},   // Azure, in public space
	{netip.MustParsePrefix("100.100.100.200/32"), metadata}, // Alibaba
	{netip.MustParsePrefix("192.0.0.192/32"), metadata},     // Oracle
	{netip.MustParsePrefix("127.0.0.0/8"), loopback},
	{netip.MustParsePrefix("::1/128"), loopback},
	{netip.MustParsePrefix("10.0.0.0/8"), private},
	{netip.MustParsePrefix("172.16.0.0/12"), private},
	{netip.MustParsePrefix("192.168.0.0/16"), private},
	{netip.MustParsePrefix("100.64.0.0/10"), private}, // shared by carriers, and by VPCs
	{netip.MustParsePrefix("fc00::/7"), private},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"}, // Linux connects to itself
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("192.0.0.0/24"), reserved},
	{netip.MustParsePrefix("192.0.2.0/24"), reserved},
	{netip.MustParsePrefix("192.88.99.0/24"), reserved},
	{netip.MustParsePrefix("198.18.0.0/15"), reserved},
	{netip.MustParsePrefix("198.51.100.0/24"), reserved},
	{netip.MustParsePrefix("203.0.113.0/24"), reserved},
	{netip.MustParsePrefix("240.0.0.0/4"), reserved},
	{netip.MustParsePrefix("2001::/23"), reserved}, // Teredo and its like carry other addresses
	{netip.MustParsePrefix("2001:db8::/32"), reserved},
	{netip.MustParsePrefix("3fff::/20"), reserved},
}

const (
	metadata = "a metadata service"
	loopback = "loopback"
	private  = "private"
	reserved = "reserved"
)

var (
	global = netip.MustParsePrefix("2000::/3") // all of IPv6 that is given out
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4 = netip.MustParsePrefix("2002::/16")
)

// Check tells whether an address may be dialled. Its error is a *Refused.
func (p Policy) Check(addr netip.Addr) error {
	// A zone would make every network miss; a mapped address is the IPv4 one.
	addr = addr.WithZone("").Unmap()
	if slices.ContainsFunc(p.networks, func(n netip.Prefix) bool { return n.Contains(addr) }) {
		return nil
	}
	kind := kindOf(addr)
	switch {
	case kind == "", kind == loopback && p.loopback, kind == private && p.private:
		return nil
	}
	return &Refused{Addr: addr, Kind: kind}
}

// kindOf names what an address is; empty where it is on the public internet.
func kindOf(addr netip.Addr) string {
	if !addr.IsValid() {
		return "no address"
	}
	if addr.Is6() {
		b := addr.As16()
		switch {
		case nat64.Contains(addr): // as the resolver of an IPv6-only network answers
			return kindOf(netip.AddrFrom4([4]byte(b[12:])))
		case sixTo4.Contains(addr):
			return kindOf(netip.AddrFrom4([4]byte(b[2:6])))
		}
	}
	for _, s := range special {
		if s.network.Contains(addr) {
			return s.kind
		}
	}
	if addr.Is6() && !global.Contains(addr) {
		return reserved
	}
	return ""
}

// Control is for a net.Dialer: it sees each address right before it is dialled.
func (p Policy) Control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return errors.New("address is refused: it is no IP address and port")
	}
	return p.Check(at.Addr())
}

// CheckURL tells what can be told of a URL without a lookup: an address that
// stands in it, and names of this host. Its error does not repeat the URL.
func (p Policy) CheckURL(rawURL string) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return errors.New("is not a URL")
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return p.Check(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return nil // a name: what it stands for is judged when it is dialled
	}
	return p.Check(addr)
}

// Dialer is a dialer whose every connection is judged.
func (p Policy) Dialer() *net.Dialer {
	return &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second, Control: p.Control}
}

// Transport is an HTTP transport whose every connection is judged. It uses no
// proxy unless the policy allows all: a proxy would resolve and dial instead.
func (p Policy) Transport() *http.Transport {
	t := &http.Transport{
		DialContext:           p.Dialer().DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: 10 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConns:          64,
		MaxIdleConnsPerHost:   4,
	}
	if p.All() {
		t.Proxy = http.ProxyFromEnvironment
	}
	return t
}
