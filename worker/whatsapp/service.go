package whatsapp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.mau.fi/libsignal/logger"
	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waCompanionReg"
	"go.mau.fi/whatsmeow/proto/waWa6"
	"go.mau.fi/whatsmeow/socket"
	"go.mau.fi/whatsmeow/store"
	"google.golang.org/protobuf/proto"
)

// ErrConfig is in the chain of every error about a ServiceConfig.
var ErrConfig = errors.New("whatsapp settings")

// ServiceConfig says whom all lines of this process connect to, and as what.
type ServiceConfig struct {
	// Endpoint is the ws:// or wss:// URL of the service. Empty means WhatsApp's
	// own. Without a path, /ws/chat is asked for.
	Endpoint string
	// RootKey is the hex of the 32 bytes of the endpoint's root key. It is
	// allowed with an Endpoint only.
	RootKey string
	// DeviceName and Platform are how the phone lists this companion: macOS and
	// SAFARI if empty.
	DeviceName string
	Platform   string
	// HistorySync asks the phone for the whole history when pairing.
	HistorySync bool
	// Proxy is used by lines that name none.
	Proxy string

	Log *slog.Logger
	Now func() time.Time // the wall clock; nil: time.Now
}

// Service is what the lines of a process share: the endpoint, the ways out, the
// version that is told to the server. Some of it the library keeps in package
// globals, so all services that live at the same time must agree on those.
type Service struct {
	cfg      ServiceConfig
	endpoint endpoint
	globals  globals
	roots    *x509.CertPool // nil: the system's
	log      *slog.Logger
	clock    atomic.Int64 // nanoseconds that the host's clock is behind

	mu      sync.RWMutex
	version store.WAVersionContainer
	routes  map[string]*route
	closed  bool
}

// endpoint is where the service is.
type endpoint struct {
	own    bool     // not WhatsApp's
	secure bool     // TLS
	url    *url.URL // of the websocket, with scheme http or https
	web    *url.URL // root of the web host
}

func (e endpoint) address() string {
	if e.url.Port() != "" {
		return e.url.Host
	}
	if e.secure {
		return e.url.Host + ":443"
	}
	return e.url.Host + ":80"
}

// NewService checks the settings and sets the library's globals. Close gives
// them back.
func NewService(cfg ServiceConfig) (*Service, error) {
	if cfg.DeviceName == "" {
		cfg.DeviceName = "macOS"
	}
	if cfg.Platform == "" {
		cfg.Platform = "SAFARI"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	end, err := parseEndpoint(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	want := globals{key: whatsappKey, device: cfg.DeviceName, history: cfg.HistorySync}
	if cfg.RootKey != "" {
		if want.key, err = parseRootKey(cfg.RootKey, end.own); err != nil {
			return nil, err
		}
	}
	if want.platform, err = parsePlatform(cfg.Platform); err != nil {
		return nil, err
	}
	if err := CheckProxy(cfg.Proxy); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if err := want.acquire(); err != nil {
		return nil, err
	}
	return &Service{
		cfg: cfg, endpoint: end, globals: want, log: cfg.Log,
		version: store.GetWAVersion(),
		routes:  map[string]*route{},
	}, nil
}

// Close lets idle connections go and gives the library's globals free for a
// service with other ones. All lines must have been closed.
func (s *Service) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	for _, r := range s.routes {
		r.transport().CloseIdleConnections()
	}
	s.globals.release()
}

// OwnEndpoint tells whether this is not WhatsApp's own service.
func (s *Service) OwnEndpoint() bool { return s.endpoint.own }

// Host is the host that lines connect to, for people.
func (s *Service) Host() string { return s.endpoint.url.Host }

func parseEndpoint(setting string) (endpoint, error) {
	if setting == "" {
		u, err := url.Parse(socket.URL)
		if err != nil {
			return endpoint{}, err
		}
		u.Scheme = "https"
		return endpoint{secure: true, url: u, web: &url.URL{Scheme: "https", Host: u.Host, Path: "/"}}, nil
	}
	const want = "use a URL such as ws://127.0.0.1:7080 or wss://host/ws/chat"
	u, err := url.Parse(setting)
	if err != nil {
		return endpoint{}, fmt.Errorf("%w: WHATSAPP_URL: is not a URL; %s", ErrConfig, want)
	}
	end := endpoint{own: true, url: u}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme, end.secure = "https", true
	default:
		return endpoint{}, fmt.Errorf("%w: WHATSAPP_URL: scheme %q is neither ws nor wss; %s", ErrConfig, u.Scheme, want)
	}
	if u.Hostname() == "" {
		return endpoint{}, fmt.Errorf("%w: WHATSAPP_URL: has no host; %s", ErrConfig, want)
	}
	if u.User != nil {
		return endpoint{}, fmt.Errorf("%w: WHATSAPP_URL: holds a user name; leave it out", ErrConfig)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/ws/chat"
	}
	u.Fragment = ""
	end.web = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}
	return end, nil
}

func parseRootKey(setting string, own bool) ([32]byte, error) {
	if !own {
		return [32]byte{}, fmt.Errorf("%w: WHATSAPP_ROOT_KEY: is set but WHATSAPP_URL is not, and WhatsApp's own key must not be replaced; set both or none", ErrConfig)
	}
	key, err := hex.DecodeString(strings.TrimSpace(setting))
	if err != nil {
		return [32]byte{}, fmt.Errorf("%w: WHATSAPP_ROOT_KEY: is not hexadecimal; give 64 hex digits, as the test server prints them", ErrConfig)
	}
	if len(key) != 32 {
		return [32]byte{}, fmt.Errorf("%w: WHATSAPP_ROOT_KEY: has %d bytes; give 32 (64 hex digits), as the test server prints them", ErrConfig, len(key))
	}
	return [32]byte(key), nil
}

func parsePlatform(setting string) (waCompanionReg.DeviceProps_PlatformType, error) {
	name := strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
	if v, ok := waCompanionReg.DeviceProps_PlatformType_value[name]; ok {
		return waCompanionReg.DeviceProps_PlatformType(v), nil
	}
	known := make([]string, 0, len(waCompanionReg.DeviceProps_PlatformType_value))
	for k := range waCompanionReg.DeviceProps_PlatformType_value {
		known = append(known, strings.ToLower(k))
	}
	slices.Sort(known)
	return 0, fmt.Errorf("%w: DEVICE_PLATFORM: %q is not known; use one of %s", ErrConfig, setting, strings.Join(known, ", "))
}

// globals are the values that the library keeps once a process.
type globals struct {
	key      [32]byte
	device   string
	platform waCompanionReg.DeviceProps_PlatformType
	history  bool
}

// inForce are the globals that live services have agreed on.
var inForce struct {
	sync.Mutex
	users int
	globals
}

// whatsappKey is the root key that the library comes with.
var whatsappKey = whatsmeow.WACertPubKey

func (g globals) acquire() error {
	inForce.Lock()
	defer inForce.Unlock()
	if inForce.users > 0 {
		if inForce.globals == g {
			inForce.users++
			return nil
		}
		what := "device name, platform or history sync"
		if inForce.key != g.key {
			what = "root key"
		}
		return fmt.Errorf("%w: another service of this process has a different %s, which the library keeps once a process; "+
			"close it first or use the same", ErrConfig, what)
	}
	inForce.users, inForce.globals = 1, g
	// Only values that differ are written: a client of a service closed a
	// moment ago may still be reading them.
	if whatsmeow.WACertPubKey != g.key {
		whatsmeow.WACertPubKey = g.key
	}
	if store.DeviceProps.GetOs() != g.device {
		store.DeviceProps.Os = proto.String(g.device)
	}
	if store.DeviceProps.GetPlatformType() != g.platform {
		store.DeviceProps.PlatformType = g.platform.Enum()
	}
	if store.DeviceProps.GetRequireFullSync() != g.history {
		store.DeviceProps.RequireFullSync = proto.Bool(g.history)
	}
	parkLibrary()
	return nil
}

func (g globals) release() {
	inForce.Lock()
	defer inForce.Unlock()
	inForce.users--
}

// parked is how long the library's own keepalive sleeps. Pings are sent by
// Line.Ping, at the pace of the session's own settings, which also bound the
// wait for the answer.
const parked = 24 * time.Hour

// parkLibrary switches off what the library does by itself for all clients.
// The interval is drawn from [Min, Max) in milliseconds, and an empty range
// panics.
var parkLibrary = sync.OnceFunc(func() {
	whatsmeow.KeepAliveIntervalMin = parked
	whatsmeow.KeepAliveIntervalMax = parked + time.Hour
	whatsmeow.KeepAliveResponseDeadline = parked
})

// silence is libsignal's logger: it prints to stdout unless one is set.
type silence struct{}

func (silence) Debug(string, string)   {}
func (silence) Info(string, string)    {}
func (silence) Warning(string, string) {}
func (silence) Error(string, string)   {}
func (silence) Configure(string)       {}

// That library keeps its logger in a variable without a lock and sets one at
// first use. Only before main is nobody there yet who could use it.
func init() {
	var silent logger.Loggable = silence{}
	logger.Setup(&silent)
}

func (s *Service) tlsConfig(host string) *tls.Config {
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, RootCAs: s.roots}
	if host != "" {
		cfg.NextProtos = []string{"http/1.1"}
	}
	return cfg
}

// via returns the route through a proxy; empty means the service's own proxy,
// or none.
func (s *Service) via(setting string) (*route, error) {
	if setting == "" {
		setting = s.cfg.Proxy
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.routes[setting]; ok {
		return r, nil
	}
	u, err := parseProxy(setting)
	if err != nil {
		return nil, err
	}
	r := newRoute(s, u)
	s.routes[setting] = r
	return r, nil
}

// payload is what a client tells the server at the end of the handshake: the
// library's own, with the version that is in force now. The library's global
// version stays as it is: it is read without a lock.
func (s *Service) payload(device *store.Device) *waWa6.ClientPayload {
	p := device.GetClientPayload()
	s.mu.RLock()
	v := s.version
	s.mu.RUnlock()
	p.UserAgent.AppVersion = v.ProtoAppVersion()
	if d := p.GetDevicePairingData(); d != nil {
		hash := v.Hash()
		d.BuildHash = hash[:]
	}
	return p
}

// get asks the service's web host for its root page. The caller closes the body.
func (s *Service) get(ctx context.Context, via string) (*http.Response, error) {
	r, err := s.via(via)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.endpoint.web.String(), nil)
	if err != nil {
		return nil, err
	}
	// The page is served to browsers.
	req.Header.Set("User-Agent", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15")
	req.Header.Set("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
	req.Header.Set("Sec-Fetch-Dest", "document")
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	req.Header.Set("Sec-Fetch-Site", "none")
	resp, err := r.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		s.noteClock(date)
	}
	return resp, nil
}
