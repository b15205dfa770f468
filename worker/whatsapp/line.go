package whatsapp

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waWa6"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// Store is what a line needs of its session's device state; state/device has it.
type Store interface {
	// Library is the device that the client works on.
	Library() *store.Device
	// Stage adds to what the message that is handled on this goroutine will
	// commit; outside of one it commits at once.
	Stage(journal.Batch) error
	// Drop forgets what this goroutine has staged.
	Drop()
	// BeforeSend is told the tag of each node before it leaves, and commits
	// what must be durable by then. On an error the node must not leave.
	BeforeSend(tag string) error
	// Sending marks a context as that of a send of our own. The function is
	// called when the send is over.
	Sending(context.Context) (context.Context, func())
}

// Config is what a line is made of. Device, Post and Settings are required.
type Config struct {
	Session  string
	N        uint64 // number of this connection, carried by each event
	Device   Store
	Settings policy.Settings
	Proxy    string       // empty: the service's
	Post     func(Event)  // takes events; must not block, and must not call the line
	Full     func() bool  // whether the queue of events out is full; nil: never
	Log      *slog.Logger // of the session; nil: the service's
}

// Line is one client and one connection. Its methods are safe for concurrent
// use.
type Line struct {
	svc    *Service
	cfg    Config
	store  Store
	log    *slog.Logger
	cli    *whatsmeow.Client
	tether tether

	// ctx is the connection's: the library's goroutines and handlers run under
	// it, and it ends when everything else has.
	ctx    context.Context
	cancel context.CancelFunc

	started  atomic.Bool   // Connect was called
	open     atomic.Bool   // the handshake is complete
	given    atomic.Int64  // frames that the library was given
	taken    atomic.Int64  // those of them that it has made nodes of, or cannot
	readOver chan struct{} // closed when the read loop has ended
	dropped  chan struct{} // closed when the library has let go of the socket by itself
	dropping sync.Once
	done     chan struct{} // closed when the client has let go of everything
	closing  sync.Once
	reading  sync.Once
	calls    sync.WaitGroup // goroutines of ours
	callsMu  sync.Mutex
	gone     bool // Close was called: no more goroutines

	end  verdict
	seen sightings
	qr   pairingState
}

// errNoCAT answers a demand of the server that is not made of WhatsApp accounts.
var errNoCAT = errors.New("the server asks for a token that no WhatsApp account has")

// NewLine makes a line. Nothing is dialled yet, and nothing runs.
func (s *Service) NewLine(cfg Config) (*Line, error) {
	r, err := s.via(cfg.Proxy)
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = s.log
	}
	if cfg.Full == nil {
		cfg.Full = func() bool { return false }
	}
	l := &Line{
		svc: s, cfg: cfg, store: cfg.Device, log: cfg.Log,
		readOver: make(chan struct{}), dropped: make(chan struct{}), done: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.qr.shown = make(chan struct{})
	device := cfg.Device.Library()
	l.seen.own(device.GetJID(), device.GetLID(), device.PushName)

	cli := whatsmeow.NewClient(device, &libLog{line: l})
	l.cli = cli
	// The client comes with three clones of the default transport, which would
	// keep memory and look at the environment's proxy.
	socket := (&upgrader{svc: s, route: r, tether: &l.tether, failed: l.end.noteRead, unsent: l.end.noteWrite,
		given: func() { l.given.Add(1) }}).client()
	cli.SetWebsocketHTTPClient(socket)
	cli.SetPreLoginHTTPClient(socket)
	cli.SetMediaHTTPClient(r.media())
	// Whether and when to connect again is the policy's to say.
	cli.EnableAutoReconnect = false
	cli.DisableLoginAutoReconnect = true
	// An acknowledgement leaves after the handler, and means that it is durable.
	cli.SynchronousAck = true
	cli.EnableDecryptedEventBuffer = true
	cli.UseRetryMessageStore = true
	cli.ManualHistorySyncDownload = !s.cfg.HistorySync
	// The library calls this on failure 413 and 414 without looking whether it is
	// set, and a nil one would take the whole process down.
	cli.RefreshCAT = func(context.Context) error { return errNoCAT }
	cli.BackgroundEventCtx = l.ctx
	cli.GetClientPayload = func() *waWa6.ClientPayload { return s.payload(device) }
	cli.AddEventHandlerWithSuccessStatus(l.handle)
	return l, nil
}

// Open tells whether the connection is there. Whether it is logged in is
// another question.
func (l *Line) Open() bool {
	if !l.open.Load() || l.tether.off.Load() {
		return false
	}
	select {
	case <-l.readOver:
		return false
	default:
		return true
	}
}

// LoggedIn tells whether the connection is there and logged in.
func (l *Line) LoggedIn() bool { return l.Open() && l.cli.IsLoggedIn() }

// Done is closed when the client has let go of the connection and all that
// Connect and Close have started is over, a few milliseconds after Close as a
// rule and 30 s at the very most.
func (l *Line) Done() <-chan struct{} { return l.done }

// Cut closes the network connection at once: no frame leaves after it returns,
// so no acknowledgement either. The line says nothing more of its end. It may
// be called from anywhere, callbacks of the store included. Close is still due.
func (l *Line) Cut() {
	l.end.silence()
	l.sever()
}

// sever ends the connection, or the dial that has none yet. A context that ends
// while the library waits for the answer to its handshake would stop its
// reading, and with it the frame that frees it; see reframer.
func (l *Line) sever() {
	l.tether.cut()
	if !l.tether.up.Load() {
		l.cancel()
	}
}

// Close cuts the line and lets the client go in the background; see Done.
func (l *Line) Close() {
	l.Cut()
	l.closing.Do(func() {
		l.callsMu.Lock()
		l.gone = true
		l.callsMu.Unlock()
		go l.letGo()
	})
}

// spawn runs f beside, unless the line is closed. Close waits for it.
func (l *Line) spawn(f func()) bool {
	l.callsMu.Lock()
	defer l.callsMu.Unlock()
	if l.gone {
		return false
	}
	l.calls.Go(f)
	return true
}

// letGo takes the client down. First the read loop ends: it would hang for good
// on a frame that nobody takes from it any more. Then the library notices the
// end by itself: were Disconnect to run at that moment, it would take away the
// callback that is being called, without a lock.
func (l *Line) letGo() {
	defer close(l.done)
	l.calls.Wait()
	if l.open.Load() {
		within(l.readOver, 5*time.Second)
		within(l.dropped, time.Second)
	}
	l.cli.Disconnect()
	l.cancel()
}

func within(done <-chan struct{}, bound time.Duration) {
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// socketDropped is told that the library holds no socket any more.
func (l *Line) socketDropped() { l.dropping.Do(func() { close(l.dropped) }) }

// fail ends the line for a reason of our own.
func (l *Line) fail(sig policy.Signal) {
	l.judge(weightOwn, sig, true)
	l.sever()
}

var errOnce = errors.New("a line connects once")

// Ping asks the server for a sign of life and waits for it as long as the
// context lasts. It returns nil only if an answer came; LastPong is set then.
func (l *Line) Ping(ctx context.Context) error {
	if !l.Open() {
		return whatsmeow.ErrNotConnected
	}
	before := l.LastPong()
	if before.IsZero() {
		before = l.svc.cfg.Now().Add(-time.Nanosecond)
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Settings.KeepAliveDeadline)
	defer cancel()
	// The library takes the end of the connection for an answer, so its word is
	// not enough.
	l.cli.DangerousInternals().SendKeepAlive(ctx)
	switch {
	case l.LastPong().After(before):
		return nil
	case !l.Open():
		return whatsmeow.ErrNotConnected
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return errNoPong
}

var errNoPong = errors.New("no answer to a ping")

// markOnline shows the account as online, where the settings ask for it. It
// needs the account's name, so it may have to wait for that.
func (l *Line) markOnline() {
	if !l.cfg.Settings.MarkOnline {
		return
	}
	l.spawn(func() {
		ctx, cancel := context.WithTimeout(l.ctx, l.cfg.Settings.QueryTimeout)
		defer cancel()
		if err := l.cli.SendPresence(ctx, types.PresenceAvailable); err != nil && !errors.Is(err, whatsmeow.ErrNoPushName) {
			l.log.Debug("could not show the account as online", "error", Redact(err.Error()))
		}
	})
}

// media is the client for media, shared by all lines of the route.
func (r *route) media() *http.Client { return &http.Client{Transport: r} }
