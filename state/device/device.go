// Package device keeps whatsmeow's device state in sealed, fenced records: all
// of the library's store interfaces, with a write-through cache, over a session's
// commit queue (state/journal). One Device serves one session under one epoch.
//
// # The unit of work
//
// What the library writes about one message is collected and committed at once,
// under the ratchet lock, which the session has one of:
//
//	received   DoDecryptionTxn ─ lock ─▶ ratchet, identity, prekey, hash   staged
//	           the library's processing ▶ sender keys, secrets, …          staged
//	           our handler ─ Stage ─────▶ the event                        staged
//	           ClearBufferedEventPlaintext ▶ ONE commit ─ unlock ─▶ receipt
//
//	sent       GetManySessions ─ lock ─▶ (missing prekeys are fetched)
//	           encryption ──────────────▶ identities, outgoing event       staged
//	           PutManySessions ─────────▶ commit ─ unlock ─▶ frame
//
//	others     GetSession ─ lock ─▶ PutSession ─ commit ─ unlock ─▶ frame
//
// Units belong to goroutines, because the library hands no context through some
// of its paths. BeforeSend is the safety net: before an acknowledgement or a
// message leaves, what its goroutine has staged is committed, by whatever path
// the library got there.
//
// A unit that keeps others waiting is relieved of the lock. A received message
// whose processing takes long (or waits for the library's own send lock, which
// the waiting sender holds) has its ratchet committed together with its
// plaintext, so that the message can still be processed after a crash; its event
// follows in a second commit.
//
// # Failure
//
// A store operation that fails poisons the Device: Config.Poison cuts the
// connection before the operation returns, so that no acknowledgement leaves any
// more, and from then on everything fails with an error that the library takes
// for a cancelled context, on which it acknowledges nothing. A poisoned Device
// is closed and a new one opened.
package device

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/util/keys"
	waLog "go.mau.fi/whatsmeow/util/log"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// Defaults of a Config.
const (
	DefaultCacheBytes = 256 << 10
	DefaultQuarantine = 7 * 24 * time.Hour
	DefaultLockWait   = 60 * time.Second
	DefaultYield      = 250 * time.Millisecond
	DefaultLeak       = 2 * time.Second
	DefaultReadWait   = 3 * time.Second
)

// Config is what a Device needs. Journal, Store, Vault, Master and Session are
// required.
type Config struct {
	Journal *journal.Journal
	Store   state.Store
	Vault   state.Vault
	Master  seal.Master
	Session string

	// Prepared is what Prepare has loaded, if anything; nil: nothing. Open takes
	// it, whatever it can do with it.
	Prepared *Prepared

	// CacheBytes bounds the cache of records; it is filled as needed. Default
	// 256 KiB.
	CacheBytes int
	Now        func() time.Time
	Log        *slog.Logger
	// Quarantine is how long credentials are kept that were taken out of use;
	// 0 or less destroys them at once.
	Quarantine time.Duration
	// Poison is called once, synchronously, before the failing store operation
	// returns. It must cut the network connection, and must not call the Device.
	Poison func(error)

	// LockWait is how long a caller waits for the ratchet lock before the
	// Device is poisoned. Default 60 s.
	LockWait time.Duration
	// YieldAfter is how long a received message that is idle may keep others
	// waiting for the lock. Default 250 ms.
	YieldAfter time.Duration
	// LeakAfter is how long a ratchet that was read and not written may keep
	// others waiting for the lock. Default 2 s.
	LeakAfter time.Duration
	// ReadWait is how long reads of an unavailable store are retried. Default
	// 3 s.
	ReadWait time.Duration
}

func (c *Config) fill() error {
	if c.Journal == nil || c.Store == nil || c.Vault == nil || c.Master == nil || c.Session == "" {
		return errors.New("device: journal, store, vault, master key and session are required")
	}
	if c.CacheBytes <= 0 {
		c.CacheBytes = DefaultCacheBytes
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Poison == nil {
		c.Poison = func(error) {}
	}
	for _, d := range []struct {
		have *time.Duration
		dflt time.Duration
	}{{&c.LockWait, DefaultLockWait}, {&c.YieldAfter, DefaultYield}, {&c.LeakAfter, DefaultLeak}, {&c.ReadWait, DefaultReadWait}} {
		if *d.have <= 0 {
			*d.have = d.dflt
		}
	}
	return nil
}

// Device is the device state of one session under one epoch. It is safe for
// concurrent use.
type Device struct {
	cfg       Config
	partition state.Partition

	life        gate          // held while credentials change
	library     *store.Device // as it was saved last; clients work on copies
	current     *libraryStore // what those of this keyset write through
	paired      atomic.Bool
	established atomic.Bool // the pairing has ended: credentials are worth a quarantine
	ring        atomic.Pointer[ring]
	wrapper     atomic.Pointer[wrapper]

	poisoned atomic.Pointer[PoisonedError]
	retired  atomic.Bool

	cache  cache
	hashes hashSet
	lock   latch

	unitMu sync.Mutex
	units  map[int64]*unit     // by goroutine
	open   map[*unit]struct{}  // received messages that are not committed yet
	lost   map[int64]time.Time // goroutines whose lock was taken from them

	survivable gate // read-modify-write of lazy records
	appMu      sync.Mutex
	apps       map[string]*appStage
	preKeyNext uint64 // next prekey to generate; guarded by the ratchet lock
	preKeyTop  uint64 // highest one reserved in META
}

// ring is the keyset in use. Record ids begin with its id, so that a new keyset
// does not see what an old one wrote.
type ring struct {
	*seal.Keyset
	prefix string
	stored atomic.Bool // META holds it: records may be written
}

func newRing(k *seal.Keyset, stored bool) *ring {
	r := &ring{Keyset: k, prefix: k.ID() + "."}
	r.stored.Store(stored)
	return r
}

// unreadableMeta is the reason of a StaleError.
const unreadableMeta = "the session's META record cannot be read"

// StaleError says that a session's credentials must not be used: missing,
// corrupt, sealed with another key, or older than the session's record says.
type StaleError struct {
	Reason string
	Err    error
}

func (e *StaleError) Error() string {
	if errors.Is(e.Err, ErrMoved) || errors.Is(e.Err, ErrHalfImported) {
		return fmt.Sprintf("credentials: %s: %v", e.Reason, e.Err)
	}
	return fmt.Sprintf("credentials: %s: %v; restore the missing part from its backup, or disconnect the session and pair it again", e.Reason, e.Err)
}

func (e *StaleError) Unwrap() error { return e.Err }

// Open reads a session's credentials, or makes new keys if it has none.
//
// With a *StaleError it returns a Device all the same: its library half fails,
// and Quarantine, Destroy and Close work. With any other error the Device is nil
// and nothing is known of the credentials (the store, the vault or the master
// key did not answer).
func Open(ctx context.Context, cfg Config) (*Device, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	d := &Device{cfg: cfg, partition: state.OfSession(cfg.Session), life: newGate(), survivable: newGate()}
	d.cache.limit = cfg.CacheBytes
	d.wrapper.Store(&wrapper{cfg.Master})
	meta, _, err := readMeta(ctx, cfg.Store, d.partition)
	if err != nil {
		cfg.Prepared.Discard()
		if errors.Is(err, state.ErrCorrupt) {
			return d.stale(unreadableMeta, err)
		}
		return nil, err
	}
	if err := away(meta); err != nil {
		cfg.Prepared.Discard()
		return d.stale(err.Reason, err.Err)
	}
	k, c, ready := cfg.Prepared.take(cfg.Session, meta)
	if meta.Credential == nil {
		if err := d.renew(); err != nil {
			return nil, err
		}
		return d, nil
	}
	if !ready {
		k, c, err = loadKeys(ctx, cfg.Vault, cfg.Master, d.partition, meta)
		if k != nil {
			d.ring.Store(newRing(k, true))
		}
		if stale := (*StaleError)(nil); errors.As(err, &stale) {
			return d.stale(stale.Reason, stale.Err)
		} else if err != nil {
			return nil, err
		}
	}
	d.ring.Store(newRing(k, true))
	d.library = c.device()
	d.attach(d.library)
	d.paired.Store(true)
	d.established.Store(true)
	if id, _, err := seal.WrappedWith(meta.Keyset); err == nil && id != cfg.Master.ID() {
		return d.rewrapped(ctx)
	}
	return d, nil
}

func (d *Device) stale(reason string, err error) (*Device, error) {
	d.retired.Store(true)
	d.library = &store.Device{Log: waLog.Noop}
	d.attach(d.library)
	return d, &StaleError{Reason: reason, Err: err}
}

// renew makes new keys. Nothing is stored before the library saves the device.
func (d *Device) renew() error {
	k, err := seal.NewKeyset()
	if err != nil {
		return err
	}
	var random [36]byte
	crand.Read(random[:])
	dev := &store.Device{
		Log:            waLog.Noop,
		NoiseKey:       keys.NewKeyPair(),
		IdentityKey:    keys.NewKeyPair(),
		RegistrationID: binary.BigEndian.Uint32(random[32:]),
		AdvSecretKey:   random[:32:32],
	}
	dev.SignedPreKey = dev.IdentityKey.CreateSignedPreKey(1)
	d.attach(dev)
	d.ring.Store(newRing(k, false))
	d.library = dev
	d.established.Store(false)
	d.paired.Store(false)
	d.retired.Store(false)
	d.cache.clear()
	d.hashes.clear()
	d.appMu.Lock()
	d.apps = nil
	d.appMu.Unlock()
	return nil
}

func (d *Device) attach(dev *store.Device) {
	s := &libraryStore{d}
	d.current = s
	dev.SetAllStores(s)
	dev.LIDs = s
	dev.Container = s
	dev.Initialized = true
}

// Library returns what a client is made with: a view of its own, which others see
// no changes of before it is saved. The library goes on with a pairing for a moment
// after its connection has ended, and that is not to reach the next client. It waits
// for a save that goes on.
func (d *Device) Library() *store.Device {
	d.life.Lock()
	defer d.life.Unlock()
	view := *d.library
	return &view
}

// Paired says that the device has credentials which have been stored.
func (d *Device) Paired() bool { return d.paired.Load() }

// Err returns why the Device is poisoned; nil while it works.
func (d *Device) Err() error {
	if p := d.poisoned.Load(); p != nil {
		return p
	}
	return nil
}

// Close gives up the cache and what is staged. The journal is the caller's.
func (d *Device) Close() {
	d.retired.Store(true)
	d.cache.clear()
	d.hashes.clear()
}

// libraryStore is the library's half of a Device.
type libraryStore struct{ d *Device }

var (
	_ store.AllStores       = (*libraryStore)(nil)
	_ store.DeviceContainer = (*libraryStore)(nil)
)
