package whatsapp

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/store"
)

const (
	keyA = "0101010101010101010101010101010101010101010101010101010101010101"
	keyB = "0202020202020202020202020202020202020202020202020202020202020202"
)

func TestSettingsAreChecked(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  ServiceConfig
		want string
	}{
		{"a root key without an endpoint", ServiceConfig{RootKey: keyA}, "WHATSAPP_ROOT_KEY: is set but WHATSAPP_URL is not"},
		{"a root key that is not hex", ServiceConfig{Endpoint: "ws://h", RootKey: "xyz"}, "not hexadecimal"},
		{"a short root key", ServiceConfig{Endpoint: "ws://h", RootKey: "0102"}, "has 2 bytes"},
		{"another scheme", ServiceConfig{Endpoint: "http://h"}, `scheme "http" is neither ws nor wss`},
		{"no host", ServiceConfig{Endpoint: "ws:///x"}, "has no host"},
		{"not a URL", ServiceConfig{Endpoint: "ws://\x7f"}, "is not a URL"},
		{"a user in the URL", ServiceConfig{Endpoint: "ws://a:b@h"}, "holds a user name"},
		{"an unknown platform", ServiceConfig{Platform: "netscape"}, `"netscape" is not known; use one of`},
		{"a proxy of another kind", ServiceConfig{Proxy: "ftp://h"}, `scheme "ftp" is not known`},
		{"a proxy without a host", ServiceConfig{Proxy: "http://"}, "has no host"},
		{"a proxy that is no URL", ServiceConfig{Proxy: "http://user:topsecret@ho st"}, "is not a URL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := NewService(c.cfg)
			if err == nil {
				s.Close()
				t.Fatal("taken")
			}
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.want) || strings.ContainsAny(err.Error(), "\n") {
				t.Errorf("got %q", err)
			}
			if strings.Contains(err.Error(), "topsecret") {
				t.Errorf("the password is in %q", err)
			}
		})
	}
}

func TestGlobalsOfServicesMustAgree(t *testing.T) {
	first, err := NewService(ServiceConfig{Endpoint: "ws://one", RootKey: keyA})
	if err != nil {
		t.Fatal(err)
	}
	same, err := NewService(ServiceConfig{Endpoint: "ws://two", RootKey: keyA})
	if err != nil {
		t.Fatalf("the same values: %v", err)
	}
	if _, err := NewService(ServiceConfig{Endpoint: "ws://one", RootKey: keyB}); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "root key") {
		t.Errorf("another root key: %v", err)
	}
	if _, err := NewService(ServiceConfig{Endpoint: "ws://one", RootKey: keyA, DeviceName: "Linux"}); !errors.Is(err, ErrConfig) {
		t.Errorf("another device name: %v", err)
	}
	first.Close()
	first.Close() // counts once
	if _, err := NewService(ServiceConfig{Endpoint: "ws://one", RootKey: keyB}); err == nil {
		t.Error("another root key while one service lives")
	}
	same.Close()
	next, err := NewService(ServiceConfig{Endpoint: "ws://one", RootKey: keyB})
	if err != nil {
		t.Fatalf("after both were closed: %v", err)
	}
	if whatsmeow.WACertPubKey[0] != 2 {
		t.Error("the library does not have the new key")
	}
	next.Close()
	real, err := NewService(ServiceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	if whatsmeow.WACertPubKey != whatsappKey {
		t.Error("WhatsApp's own key did not come back")
	}
}

func TestLibraryIsParked(t *testing.T) {
	newService(t, ServiceConfig{})
	if whatsmeow.KeepAliveIntervalMin < parked || whatsmeow.KeepAliveIntervalMax-whatsmeow.KeepAliveIntervalMin < 1e6 {
		t.Errorf("keepalive between %s and %s", whatsmeow.KeepAliveIntervalMin, whatsmeow.KeepAliveIntervalMax)
	}
	if store.DeviceProps.GetOs() != "macOS" || store.DeviceProps.GetPlatformType().String() != "SAFARI" || store.DeviceProps.GetRequireFullSync() {
		t.Errorf("device properties: %v", store.DeviceProps)
	}
}

func TestLatestVersion(t *testing.T) {
	page := `x{"client_revision":1035000123,"a":1}`
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(page))
	}))
	defer server.Close()
	s := newService(t, ServiceConfig{Endpoint: "ws" + strings.TrimPrefix(server.URL, "http") + "/ws/chat"})
	v, err := s.LatestVersion(t.Context(), "")
	if err != nil || v != "2.3000.1035000123" {
		t.Fatalf("got %q, %v", v, err)
	}
	if s.Version() == v {
		t.Error("reading the version put it in force")
	}
	if err := s.SetVersion(v); err != nil || s.Version() != v {
		t.Errorf("set %q, %v", s.Version(), err)
	}
	for _, bad := range []string{"", "1.2", "a.b.c", "0.0.0"} {
		if err := s.SetVersion(bad); !errors.Is(err, ErrConfig) {
			t.Errorf("SetVersion(%q): %v", bad, err)
		}
	}
	for _, broken := range []string{"no number", `"client_revision":,`, `"client_revision":99999999999999,`, `"client_revision":0,`} {
		page = broken
		if _, err := s.LatestVersion(t.Context(), ""); !errors.Is(err, ErrVersion) {
			t.Errorf("page %q: %v", broken, err)
		}
	}
	status = http.StatusServiceUnavailable
	if _, err := s.LatestVersion(t.Context(), ""); !errors.Is(err, ErrVersion) {
		t.Errorf("status 503: %v", err)
	}
	if err := s.Reachable(t.Context(), ""); err != nil {
		t.Errorf("any answer means reachable: %v", err)
	}
	server.Close()
	if err := s.Reachable(t.Context(), ""); err == nil {
		t.Error("reachable without a server")
	}
}
