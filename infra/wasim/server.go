package wasim

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Errors to branch on.
var (
	// ErrNotFound: no such device, account, contact, group, fault or QR.
	ErrNotFound = errors.New("not found")
	// ErrInput: what was asked cannot be done as it was said.
	ErrInput = errors.New("bad input")
	// ErrOffline: the device has no live socket.
	ErrOffline = errors.New("device is offline")
	// ErrClosed: the server is closed.
	ErrClosed = errors.New("server closed")
	// ErrPairing: a pairing did not end well.
	ErrPairing = errors.New("pairing failed")
)

// ReceiptMode is what a contact answers to a message that it could read.
type ReceiptMode string

// The modes. The real service sends delivery receipts, and read ones when the
// person looks at the chat.
const (
	ReceiptsDelivery ReceiptMode = ""     // one delivery receipt
	ReceiptsRead     ReceiptMode = "read" // a delivery receipt and a read receipt
	ReceiptsNone     ReceiptMode = "none"
)

// Options of a Server. The zero value is good for tests.
type Options struct {
	Listen  string // host:port of the service; default 127.0.0.1:0, a free port on loopback
	Control string // host:port of the control API; default 127.0.0.1:0, "off" for none

	RootSeed    []byte // 32 bytes the keys are derived from; default: one random seed a process
	Revision    uint32 // of WhatsApp Web as the version page tells it; default 1035000000
	MinRevision uint32 // older clients are refused with failure 405; default 0, none
	Deflate     bool   // accept a client's offer of permessage-deflate (costs about 1.2 MiB a client)

	Receipts    ReceiptMode   // what contacts send for what they received
	NoRetry     bool          // contacts do not ask for what they could not decrypt again
	Redeliver   time.Duration // what is not acknowledged on a live socket is sent again after this; 0: on the next login only
	PairingTime time.Duration // an unpaired socket is closed after this; default 165 s
	CloseGrace  time.Duration // at least, between a final stanza (failure, stream:error) and the end of the socket; default 250 ms
	QuietPhone  bool          // the phone sends no app-state keys and no history after a pairing
	MaxRecords  int           // records of each kind that Truth keeps, oldest dropped first; default 200,000

	Log *slog.Logger     // default: none
	Now func() time.Time // default: time.Now
}

// Server is one simulated service. Safe for concurrent use.
type Server struct {
	opt      Options
	id       *serverKeys
	chain    []byte
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	http     *http.Server
	control  *http.Server
	listener net.Listener // guarded by mu: it changes while the service is unreachable
	controlL net.Listener
	address  string

	mu       sync.Mutex
	closed   bool
	users    map[string]*user // by phone number
	lids     map[string]*user // by LID user
	groups   map[string]*Group
	conns    map[*conn]struct{}
	pairings map[string]*pairing // by ref
	codes    map[string]*codePairing
	faults   []*fault
	revision uint32
	minimum  uint32
	truth    truth
	media    map[string][]byte
	uploads  int   // of files, since the start
	serial   int64 // of sockets, faults and iq ids
	waiters  int
	changed  chan struct{}
}

// processSeed is the default root of all servers of this process.
var processSeed = sync.OnceValue(func() (seed [32]byte) {
	_, _ = rand.Read(seed[:])
	return seed
})

// New makes a server; Start or Serve puts it on the network.
func New(opt Options) (*Server, error) {
	seed := processSeed()
	if opt.RootSeed != nil {
		if len(opt.RootSeed) != 32 {
			return nil, fmt.Errorf("%w: root seed: has %d bytes; 32 are needed", ErrInput, len(opt.RootSeed))
		}
		seed = [32]byte(opt.RootSeed)
	}
	def(&opt.Listen, "127.0.0.1:0")
	def(&opt.Control, "127.0.0.1:0")
	def(&opt.Revision, 1035000000)
	def(&opt.PairingTime, 165*time.Second)
	def(&opt.CloseGrace, 250*time.Millisecond)
	def(&opt.MaxRecords, 200_000)
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	switch opt.Receipts {
	case ReceiptsDelivery, ReceiptsRead, ReceiptsNone:
	default:
		return nil, fmt.Errorf("%w: receipts %q: use none, read or nothing", ErrInput, opt.Receipts)
	}
	s := &Server{
		opt: opt, id: newServerKeys(seed), revision: opt.Revision, minimum: opt.MinRevision,
		users: map[string]*user{}, lids: map[string]*user{}, groups: map[string]*Group{},
		conns: map[*conn]struct{}{}, pairings: map[string]*pairing{}, codes: map[string]*codePairing{},
		media: map[string][]byte{}, changed: make(chan struct{}),
	}
	var err error
	now := time.Now() // the client checks against its own clock
	if s.chain, err = s.id.chain(now.Add(-24*time.Hour), now.Add(365*24*time.Hour)); err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// def fills in a default.
func def[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// Start listens and serves in the background until Close.
func (s *Server) Start() error {
	l, err := net.Listen("tcp", s.opt.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; choose another address", s.opt.Listen, err)
	}
	if s.opt.Control != "off" {
		s.controlL, err = net.Listen("tcp", s.opt.Control)
		if err != nil {
			_ = l.Close()
			return fmt.Errorf("control: listen on %s: %w; choose another address", s.opt.Control, err)
		}
		s.control = &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second}
		s.wg.Go(func() { _ = s.control.Serve(s.controlL) })
	}
	s.address = l.Addr().String()
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		ReadHeaderTimeout: 30 * time.Second,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, rawConn{}, c) },
		ErrorLog:          slog.NewLogLogger(s.opt.Log.Handler(), slog.LevelDebug),
	}
	s.serveOn(l)
	if s.opt.Redeliver > 0 {
		s.wg.Go(s.redeliverLoop)
	}
	return nil
}

// serveOn accepts on a listener until that is closed.
func (s *Server) serveOn(l net.Listener) {
	s.mu.Lock()
	s.listener = l
	s.mu.Unlock()
	s.wg.Go(func() { _ = s.http.Serve(l) })
}

// Serve is Start that blocks until ctx ends, and closes then.
func (s *Server) Serve(ctx context.Context) error {
	if err := s.Start(); err != nil {
		return err
	}
	<-ctx.Done()
	s.Close()
	return nil
}

// rawConn is the context key of a request's net.Conn.
type rawConn struct{}

// URL is the websocket address that a client is to dial.
func (s *Server) URL() string { return "ws://" + s.address + "/ws/chat" }

// Host is host:port of the service: version page, websocket and media.
func (s *Server) Host() string { return s.address }

// ControlURL is the base of the control API, empty if it is off.
func (s *Server) ControlURL() string {
	if s.controlL == nil {
		return ""
	}
	return "http://" + s.controlL.Addr().String()
}

// RootKey is the public key that clients must trust (whatsmeow.WACertPubKey).
func (s *Server) RootKey() [32]byte { return *s.id.root.Pub }

// RootKeyHex is RootKey in lower-case hex, as HOLDFAST_WHATSAPP_ROOT_KEY takes it.
func (s *Server) RootKeyHex() string { return hex.EncodeToString(s.id.root.Pub[:]) }

// SetRevision changes what the version page tells, and the oldest revision
// that may log in (0: any).
func (s *Server) SetRevision(revision, minimum uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision, s.minimum = revision, minimum
}

// Close ends every socket and waits for the server's goroutines.
func (s *Server) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.notify()
	s.mu.Unlock()
	s.cancel()
	for _, c := range conns {
		c.cut(false, "server closed")
	}
	for _, h := range []*http.Server{s.http, s.control} {
		if h != nil {
			_ = h.Close()
		}
	}
	s.wg.Wait()
}

// notify wakes everybody who waits for a change. The lock is held.
func (s *Server) notify() {
	if s.waiters > 0 {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// wait blocks until done says so; it is called with the lock held.
func (s *Server) wait(ctx context.Context, done func() bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiters++
	defer func() { s.waiters-- }()
	for !done() {
		if s.closed {
			return ErrClosed
		}
		ch := s.changed
		s.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil && !done() {
			return ctx.Err()
		}
	}
	return nil
}

// number is the next serial number. The lock is held.
func (s *Server) next() int64 {
	s.serial++
	return s.serial
}
