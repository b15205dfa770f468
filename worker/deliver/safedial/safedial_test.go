package safedial

import (
	"errors"
	"net/netip"
	"testing"
)

func TestAddresses(t *testing.T) {
	for _, tc := range []struct {
		addr string
		kind string // "" for the internet
	}{
		{"8.8.8.8", ""}, {"1.1.1.1", ""}, {"172.15.255.255", ""}, {"172.32.0.0", ""}, {"100.63.255.255", ""}, {"100.128.0.0", ""},
		{"11.0.0.0", ""}, {"169.253.255.255", ""}, {"192.167.255.255", ""}, {"223.255.255.255", ""}, {"198.20.0.0", ""},
		{"2606:4700:4700::1111", ""}, {"2a00:1450:4001:80e::200e", ""},
		{"127.0.0.1", loopback}, {"127.255.255.254", loopback}, {"::1", loopback}, {"::ffff:127.0.0.1", loopback},
		{"10.0.0.1", private}, {"172.16.0.1", private}, {"172.31.255.255", private}, {"192.168.1.1", private}, {"100.64.0.1", private},
		{"100.127.255.255", private}, {"fc00::1", private}, {"fdff:ffff::1", private}, {"::ffff:10.0.0.1", private}, {"::ffff:c0a8:101", private},
		{"169.254.0.1", "link-local"}, {"::ffff:169.254.1.1", "link-local"}, {"fe80::1", "link-local"}, {"fe80::1%eth0", "link-local"}, {"febf::1", "link-local"},
		{"169.254.169.254", metadata}, {"::ffff:169.254.169.254", metadata}, {"169.254.170.2", metadata}, {"169.254.170.23", metadata},
		{"fd00:ec2::254", metadata}, {"fd00:ec2::254%eth0", metadata}, {"fd20:ce::254", metadata}, {"168.63.129.16", metadata}, {"100.100.100.200", metadata}, {"192.0.0.192", metadata},
		{"0.0.0.0", "unspecified"}, {"0.1.2.3", "unspecified"}, {"::", "unspecified"},
		{"224.0.0.1", "multicast"}, {"239.255.255.255", "multicast"}, {"ff02::1", "multicast"},
		{"192.0.0.1", reserved}, {"192.0.2.1", reserved}, {"198.18.0.1", reserved}, {"198.19.255.255", reserved}, {"198.51.100.1", reserved},
		{"203.0.113.1", reserved}, {"240.0.0.1", reserved}, {"255.255.255.255", reserved}, {"192.88.99.1", reserved},
		{"2001:db8::1", reserved}, {"3fff::1", reserved}, {"2001::1", reserved}, {"100::1", reserved}, {"fec0::1", "site-local"},
		{"::127.0.0.1", reserved}, {"::10.0.0.1", reserved}, // the old form of IPv4 within IPv6
		{"64:ff9b::8.8.8.8", ""}, {"64:ff9b::10.0.0.1", private}, {"64:ff9b::a9fe:a9fe", metadata}, {"64:ff9b::7f00:1", loopback}, {"64:ff9b:1::1", reserved},
		{"2002:808:808::1", ""}, {"2002:7f00:1::1", loopback}, {"2002:a9fe:a9fe::1", metadata},
	} {
		addr := netip.MustParseAddr(tc.addr)
		for _, p := range []struct {
			Policy
			allowed bool
		}{
			{Public, tc.kind == ""},
			{Policy{}, tc.kind == ""},
			{Loopback, tc.kind == "" || tc.kind == loopback},
			{Private, tc.kind == "" || tc.kind == loopback || tc.kind == private},
			{Public.Trusted(), tc.kind == "" || tc.kind == loopback || tc.kind == private},
		} {
			err := p.Check(addr)
			var refused *Refused
			if (err == nil) != p.allowed || err != nil && (!errors.As(err, &refused) || refused.Kind != tc.kind) {
				t.Errorf("%s under %s: %v, want it allowed: %t, kind %q", tc.addr, p.Policy, err, p.allowed, tc.kind)
			}
			dialled := netip.AddrPortFrom(addr, 443).String()
			if err := p.Control("tcp", dialled, nil); (err == nil) != p.allowed {
				t.Errorf("dialling %s under %s: %v", dialled, p.Policy, err)
			}
		}
	}
	if Private.Check(netip.Addr{}) == nil || Private.Control("unix", "/run/docker.sock", nil) == nil || Private.Control("tcp", "name:80", nil) == nil {
		t.Error("what is no address may be dialled")
	}
}

func TestNetworksOfOnesOwn(t *testing.T) {
	p, err := Parse(" 10.1.2.3/16, 192.168.7.2 ,FD12::/16,169.254.9.9")
	if err != nil {
		t.Fatal(err)
	}
	if p.String() != "10.1.0.0/16,192.168.7.2/32,fd12::/16,169.254.9.9/32" || p.All() {
		t.Errorf("%s, all: %t", p, p.All())
	}
	for addr, allowed := range map[string]bool{"10.1.255.255": true, "::ffff:10.1.0.1": true, "10.2.0.1": false, "192.168.7.2": true, "192.168.7.3": false,
		"fd12::1%eth0": true, "fd13::1": false, "169.254.9.9": true, "169.254.169.254": false, "127.0.0.1": false, "8.8.8.8": true} {
		if err := p.Check(netip.MustParseAddr(addr)); (err == nil) != allowed {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, bad := range []string{"yes", "10.0.0.0/33", "10.0.0.0/8,", "fe80::1%eth0", "example.org", "::ffff:10.0.0.0/104", "loopback,10.0.0.0/8"} {
		if p, err := Parse(bad); err == nil {
			t.Errorf("%q is read as %s", bad, p)
		}
	}
	for text, want := range map[string]string{"": "false", "FALSE": "false", "loopback": "loopback", " true ": "true"} {
		if p, err := Parse(text); err != nil || p.String() != want {
			t.Errorf("%q: %s, %v", text, p, err)
		}
	}
}

func TestURLs(t *testing.T) {
	for raw, allowed := range map[string]bool{
		"https://example.org/hook": true, "http://8.8.8.8/": true, "http://[2606:4700::1]:8443/": true,
		"http://localhost:9000/": false, "http://LOCALHOST./": false, "http://a.localhost/": false,
		"http://127.0.0.1/": false, "http://user@10.0.0.1:80/": false, "http://[::ffff:10.0.0.1]/": false, "http://[fe80::1%25eth0]/": false,
		"http://169.254.169.254/latest/meta-data/": false, "http://[fd00:ec2::254]/": false, "http://%zz/": false, "http://127.0.0.1./": false,
	} {
		if err := Public.CheckURL(raw); (err == nil) != allowed {
			t.Errorf("%s: %v", raw, err)
		}
	}
	if err := Loopback.CheckURL("http://localhost:9000/"); err != nil {
		t.Error(err)
	}
}

func TestProxiesAreForThoseWhoMayReachAll(t *testing.T) {
	if Public.Transport().Proxy != nil || Loopback.Transport().Proxy != nil {
		t.Error("a proxy would dial what is refused here")
	}
	if Private.Transport().Proxy == nil || Public.Trusted().Transport().Proxy == nil {
		t.Error("the environment's proxy is not used")
	}
}
