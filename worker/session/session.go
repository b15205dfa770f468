package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/worker/fetch"
	"github.com/holdfast-wa/holdfast/worker/lease"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// Line is one connection, from dial to close.
type Line interface {
	// Connect dials and shakes hands; ctx bounds that, not the connection.
	Connect(ctx context.Context) error
	// Cut closes the network connection at once: no frame leaves after it.
	Cut()
	// Close cuts and lets the library clean up behind.
	Close()
	Ping(ctx context.Context) error
	Open() bool
	LoggedIn() bool
	LastPong() time.Time
	LastInbound() time.Time
	LastActivity() time.Time
	HandlerBlockedFor() time.Duration
	SendText(ctx context.Context, messageID, to, text string) (time.Time, error)
	Send(ctx context.Context, messageID, to string, message []byte) (time.Time, error)
	// Attach uploads a file and returns the message that carries it, for Send.
	Attach(ctx context.Context, content state.OutboxContent, file whatsapp.File) ([]byte, error)
	Logout(ctx context.Context) error
	PairPhone(ctx context.Context, phone string) (string, error)
}

// Call is what a dialer needs to make a line.
type Call struct {
	Session  string
	N        uint64 // the connection's number within the session
	Device   *device.Device
	Journal  *journal.Journal
	Settings policy.Settings
	Own      state.SessionSettings
	Post     func(whatsapp.Event)
	Log      *slog.Logger
}

// Fleet is what sessions of one process share.
type Fleet interface {
	// Ask says how long this session must still wait for its turn to log in
	// (login rate, an outage); 0: go, and report how it went.
	Ask(session string, now time.Time) time.Duration
	// Failed reports a connection that ended, and tells whether that is part of
	// an outage; alarm is not empty for the one report that begins one.
	Failed(session string, cause state.Cause, now time.Time) (outage bool, alarm string)
	// Succeeded reports a login.
	Succeeded(session string, now time.Time)
	// RefreshVersion fetches the newest WhatsApp version, once for all that ask
	// at a time.
	RefreshVersion(ctx context.Context) (changed bool, err error)
	// Clock is the time by WhatsApp's clock, as far as it is known. Deadlines that
	// outlive a process are kept by it, because a host's may be wrong.
	Clock() time.Time
	// Synced waits until that clock was looked at, for a moment at most.
	Synced(ctx context.Context)
	// Reachable is what the last check of WhatsApp said.
	Reachable(proxy string) bool
}

// Config is what an actor is made of.
type Config struct {
	Name     string
	Lease    *lease.Lease
	Store    state.Store
	Vault    state.Vault
	Master   seal.Master
	Keyset   *seal.Keyset // the fleet's
	Settings policy.Settings
	Dial     func(Call) (Line, error)
	Fleet    Fleet
	// Effective lays a session's own settings over the worker's.
	Effective func(state.SessionSettings) (policy.Settings, error)
	// Sinks names the receivers of a session's events; see journal.Config.
	Sinks func(state.SessionSettings) []string
	// KeepContent keeps the content of delivered events in the history.
	KeepContent func(state.SessionSettings) bool
	// Redrive has dead letters delivered again: one, or all.
	Redrive func(ctx context.Context, session, deadLetter string) (int, error)
	// Committed hands over events that are durable, in order; never blocks.
	Committed func(session string, events []state.Event)
	// Journal is told of the journal in use, for the sinks' cursors; nil when
	// there is none.
	Journal func(session string, j *journal.Journal, own state.SessionSettings)
	// ShowQR is told of each QR text as it becomes valid, and of the end of a
	// pairing with "".
	ShowQR func(session, code string, until time.Time)
	// Blamed says that the owner before this one died of a stanza of this
	// session; Innocent that it is known not to have been this one. Neither: nobody
	// can tell.
	Blamed, Innocent bool
	// Verdict finds that out where neither is known yet; nil: nobody can tell. It
	// is asked only where an owner died while it held a connection.
	Verdict func(ctx context.Context) (blamed, innocent bool)
	// PairAtStart begins a pairing although the last one ended without a scan:
	// for one machine, where starting the program is the command.
	PairAtStart bool
	CacheBytes  int
	// Fetch gets the file of a message from a URL; nil: nothing is fetched.
	Fetch func(ctx context.Context, url string) (fetch.File, error)
	// FileSlots bounds the files that are in the process's memory at a time, by its
	// capacity; nil: no bound.
	FileSlots chan struct{}
	// Prepared is what was loaded before the claim; nil: nothing.
	Prepared *device.Prepared
	Observe  Observer
	Log      *slog.Logger
}

// Observer counts for the metrics. Any field may be nil.
type Observer struct {
	Disconnected func(state.Cause)
	Reconnected  func(time.Duration)
	State        func(session string, s state.State)
	Sent         func(ok bool)
}

// Session is the handle on a running actor.
type Session struct {
	a *actor
}

// New makes an actor; Run lives it.
func New(cfg Config) *Session {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &actor{cfg: cfg, box: newMailbox(), open: make(map[string]struct{}), ended: make(map[string]time.Time)}
	a.cfg.Log = slog.New(switched{cfg.Log.Handler(), &a.detail})
	a.log = a.cfg.Log.With("session", cfg.Name)
	return &Session{a: a}
}

// Run lives the session until its lease's context ends or the session is
// removed. It returns nil after an orderly end: the line is closed, everything
// is committed, and the lease may be released. Other errors say why the session
// could not even be parked.
func (s *Session) Run() error { return s.a.run(s.a.cfg.Lease.Context()) }

// Command hands a command over. It never blocks; the actor writes its life into
// the store.
func (s *Session) Command(o Order) { s.a.box.post(o) }

// Removed says, after Run, that the session does not exist any more.
func (s *Session) Removed() bool { return s.a.removed }

// Wake asks the actor to look at its spec and outbox.
func (s *Session) Wake() { s.a.box.post(wake{}) }

// Online says whether the session is.
func (s *Session) Online() bool {
	s.a.liveMu.Lock()
	defer s.a.liveMu.Unlock()
	return s.a.live.State == state.Online
}

// Live returns what the session is at this moment, fresher than its record.
func (s *Session) Live() Live {
	s.a.liveMu.Lock()
	l := s.a.live
	s.a.liveMu.Unlock()
	if line := s.a.currentLine.Load(); line != nil && l.State == state.Online {
		l.Status.LastPongAt = newer(l.Status.LastPongAt, (*line).LastPong())
		l.Status.LastInboundAt = newer(l.Status.LastInboundAt, (*line).LastInbound())
		l.Status.LastActivityAt = newer(l.Status.LastActivityAt, (*line).LastActivity())
		l.Status.ObservedAt = time.Now()
	}
	return l
}

type actor struct {
	cfg Config
	log *slog.Logger
	box *mailbox

	jrn  *journal.Journal
	dev  *device.Device
	line Line
	n    uint64 // number of the newest connection

	spec state.Spec
	own  state.SessionSettings
	set  policy.Settings
	st   state.Status
	who  state.Identity

	phase    string
	online   *onlineRun
	outbox   outbox
	open     map[string]struct{}   // commands taken in hand, by id
	ended    map[string]time.Time  // commands that ended lately, by id
	decrypts *policy.DecryptWindow // nil: none counted yet
	stall    *policy.Stall
	losing   time.Time // when the line was lost that is now being replaced

	stored     state.Identity // what the sealed identity holds
	codesShown bool
	codeFor    *Order // a pairing code that is waited for
	fresh      bool   // a command asked for the connection that begins now
	unlinked   string // what became of the device at the server
	redialFor  string // the setting whose change wants another connection
	reopen     bool   // the receivers have changed: the journal is to be opened anew
	removed    bool
	swept      time.Time
	strands    int         // times in a row that the store failed, since a connection that lasted
	detail     atomic.Bool // the log is in detail
	quiet      *time.Timer // ends that

	unproven   bool // credentials that no login and no end of a pairing has confirmed
	justPaired bool // until the first login
	newVersion bool // the WhatsApp version has changed since the last refusal
	starved    bool // messages were refused because the queue was full

	// currentLine is what Poison cuts, from whichever goroutine it is called on.
	currentLine atomic.Pointer[Line]

	live   Live
	liveMu sync.Mutex
}

// wake asks to look at the store.
type wake struct{}

// broken says that the journal will write no more.
type broken struct{ err error }

// phase is a named stretch of a session's life; it returns the next one.
type phase func(context.Context) phase

// run is on the stack for as long as the session lives, so what is big and rare
// is in functions of its own.
func (a *actor) run(ctx context.Context) error {
	defer a.close() // also behind a panic: no line may stay open without its owner
	a.cfg.Lease.OnLoss(a.cutCurrent)
	if err := a.load(ctx); err != nil {
		return a.unloaded(err)
	}
	for next := phase(a.begin); next != nil; {
		next = next(ctx)
	}
	return nil
}

// unloaded shows a session whose records cannot be read.
func (a *actor) unloaded(err error) error {
	a.setLive(func(l *Live) {
		// The record tells none of this: it may be what cannot be read.
		l.State, l.Cause, l.Health, l.Wanted = state.Failing, state.CauseStoreUnavailable, state.Dead, state.WantRunning
		if errors.Is(err, state.ErrCorrupt) {
			l.Cause = state.CauseStaleCredentials
		}
		l.Status = state.Status{State: l.State, Cause: l.Cause, Health: l.Health, ObservedAt: time.Now(), Decision: "park: " + err.Error()}
	})
	return fmt.Errorf("session %s: %w", a.cfg.Name, err)
}

// load reads what is stored and opens the journal. It is called at the start
// and after the store was away.
func (a *actor) load(ctx context.Context) error {
	part := state.OfSession(a.cfg.Name)
	var damaged error // of the status record
	if err := a.loadSpec(ctx); err != nil {
		return err
	}
	rec, err := a.cfg.Store.Get(ctx, part, state.Key{Kind: state.KindStatus})
	switch {
	case errors.Is(err, state.ErrNotFound):
		a.st = state.Status{V: state.Format, State: state.Unpaired, Since: time.Now()}
	case err != nil:
		return fmt.Errorf("reading the status: %w", err)
	default:
		a.st = state.Status{}
		err := state.Decode(rec.Value, &a.st)
		if err == nil {
			err = a.openIdentity()
		}
		switch {
		case errors.Is(err, state.ErrCorrupt) && !ofNewerRelease(rec.Value):
			damaged = err
		case err != nil:
			return fmt.Errorf("status record: %w", err)
		}
	}
	err = a.openJournal(ctx)
	if errors.Is(err, state.ErrCorrupt) {
		if err := a.mendCursors(ctx); err != nil {
			return err
		}
		err = a.openJournal(ctx)
	}
	if err != nil {
		return err
	}
	if damaged == nil {
		return nil
	}
	// What it said of cooldowns is lost, so nothing is tried before a command.
	a.log.Error("the status record cannot be read; the session is parked", "error", damaged)
	a.st = state.Status{V: state.Format, State: state.Failing, Cause: state.CauseStaleCredentials, Health: state.Dead,
		Paired: true, Since: time.Now(), Decision: "park: the status record could not be read"}
	a.who = state.Identity{Text: "the status record could not be read"}
	return a.report(nil)
}

func (a *actor) openJournal(ctx context.Context) error {
	fence := a.cfg.Lease.Fence()
	var trim func(state.Event) state.Event // nil: the journal's own
	if a.cfg.KeepContent(a.own) {
		trim = func(e state.Event) state.Event { return e }
	}
	jrn, err := journal.Open(ctx, journal.Config{
		Store: a.cfg.Store, Fence: fence, Fleet: a.cfg.Keyset, Vault: a.cfg.Vault, Sinks: a.cfg.Sinks(a.own), Trim: trim,
		Committed: func(events []state.Event) {
			if a.cfg.Committed != nil {
				a.cfg.Committed(a.cfg.Name, events)
			}
		},
		Broken: func(err error) { a.box.post(broken{err}) },
	})
	if err != nil {
		return fmt.Errorf("opening the journal: %w", err)
	}
	a.jrn, a.reopen = jrn, false
	a.log = a.cfg.Log.With("session", a.cfg.Name, "epoch", fence.Epoch)
	if a.cfg.Journal != nil {
		a.cfg.Journal(a.cfg.Name, jrn, a.own)
	}
	return nil
}

// openDevice opens the credentials, if they are not open already.
func (a *actor) openDevice(ctx context.Context) error {
	if a.dev != nil {
		return nil
	}
	dev, err := device.Open(ctx, a.deviceConfig())
	a.cfg.Prepared = nil // it serves once
	a.dev = dev          // also with a *device.StaleError: it can still be retired
	return err
}

// dropDevice closes the credentials; they are opened and verified anew.
func (a *actor) dropDevice() {
	if a.dev != nil {
		a.dev.Close()
		a.dev = nil
	}
}

func (a *actor) deviceConfig() device.Config {
	return device.Config{
		Journal: a.jrn, Store: a.cfg.Store, Vault: a.cfg.Vault, Master: a.cfg.Master, Session: a.cfg.Name,
		CacheBytes: a.cfg.CacheBytes, Log: a.log, Quarantine: a.set.Quarantine, Prepared: a.cfg.Prepared,
		Poison: func(err error) {
			// On the library's goroutine, before the failing call returns: no
			// frame may leave any more.
			a.cutCurrent()
			a.box.post(broken{err})
		},
	}
}

// close ends everything that the actor opened.
func (a *actor) close() {
	a.cutCurrent()
	if a.quiet != nil {
		a.quiet.Stop()
	}
	a.dropLine()
	a.dropDevice()
	if a.jrn != nil {
		if a.cfg.Journal != nil {
			a.cfg.Journal(a.cfg.Name, nil, a.own)
		}
		a.jrn.Close()
		a.jrn = nil
	}
}

// dropLine cuts and closes the line, if there is one. What it still says is
// ignored from now on.
func (a *actor) dropLine() {
	a.currentLine.Store(nil)
	if a.line == nil {
		return
	}
	a.line.Close()
	a.line = nil
	a.n++
}

// jitter is a share in [0,1): spread, not secrecy.
func jitter() float64 { return rand.Float64() }
