package state

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The bounds of a commit. They follow from DynamoDB's transaction (100 items,
// 4 MB, 400 KB an item), less what the fence, the index and the item's own
// attributes need.
const (
	MaxItems = 90
	MaxBytes = 3 << 20
	MaxValue = 300 << 10
	MaxKeyID = 512
)

// Partition names what a record belongs to: a session or the fleet.
type Partition string

// Fleet is the partition of what all sessions share.
const Fleet Partition = "FLEET"

// OfSession is the partition of one session.
func OfSession(name string) Partition { return Partition("S/" + name) }

// Session returns the session's name, and false for the fleet partition.
func (p Partition) Session() (string, bool) { return strings.CutPrefix(string(p), "S/") }

// Kind is what a record is. Kinds of device state live in a table of their own
// where the store has tables.
type Kind string

// The kinds of the control plane.
const (
	KindSpec    Kind = "SPEC"   // wanted state and settings; written by the admin side only
	KindStatus  Kind = "STATUS" // what is; written by the owner, on change
	KindMeta    Kind = "META"   // credential pointer, wrapped keyset, quarantine
	KindCommand Kind = "CMD"    // one-shot commands
	KindAudit   Kind = "AUD"    // who did what
	KindEvent   Kind = "EV"     // events out, by sequence number
	KindCursor  Kind = "CUR"    // how far a sink has been served
	KindDead    Kind = "DL"     // events that a receiver refused for good
	KindOutbox  Kind = "OB"     // messages to send, by id
	KindMedia   Kind = "MED"    // uploads that wait to be sent, by id
	KindQR      Kind = "QR"     // the QR shown now, sealed
	KindFleet   Kind = "F"      // fleet-wide records: WAVERSION, BREAKER, TABLE, KEYSET
)

// The kinds of device state, each sealed with the session's keyset.
const (
	KindDevice       Kind = "ID"   // identities of contacts
	KindSignal       Kind = "SESS" // Signal sessions (ratchets)
	KindPreKey       Kind = "PK"   // prekeys, packed
	KindSenderKey    Kind = "SK"   // group sender keys
	KindAppStateKey  Kind = "ASK"  // app state sync keys
	KindAppStateVer  Kind = "ASV"  // app state versions
	KindAppStateMAC  Kind = "ASM"  // app state mutation MACs, packed
	KindEventHash    Kind = "WEVT" // hashes of decrypted ciphertexts
	KindOutgoing     Kind = "WOUT" // sent plaintexts kept for retry receipts
	KindContact      Kind = "CON"  // contacts
	KindChat         Kind = "CHAT" // chat settings
	KindSecret       Kind = "SEC"  // message secrets
	KindPrivacyToken Kind = "PT"   // privacy tokens
	KindNCT          Kind = "NCT"  // NCT salt
	KindLID          Kind = "LID"  // phone number ↔ LID map
)

// DeviceState says whether records of this kind are device state: sealed with
// the session's keyset, written under the fence only, kept in their own table.
func (k Kind) DeviceState() bool {
	switch k {
	case KindDevice, KindSignal, KindPreKey, KindSenderKey, KindAppStateKey, KindAppStateVer, KindAppStateMAC,
		KindEventHash, KindOutgoing, KindContact, KindChat, KindSecret, KindPrivacyToken, KindNCT, KindLID:
		return true
	}
	return false
}

// Key names a record within its partition. ID may be empty for kinds of which
// there is one, has at most MaxKeyID bytes, and sorts bytewise.
type Key struct {
	Kind Kind
	ID   string
}

// String is the sort key: KIND or KIND#ID.
func (k Key) String() string {
	if k.ID == "" {
		return string(k.Kind)
	}
	return string(k.Kind) + "#" + k.ID
}

// Record is one stored value. Rev is whatever the last writer set (0 where it
// set none); conditions compare it. A record whose Expires has passed is as
// good as absent: stores neither return it nor let it satisfy a condition,
// whether or not it has been removed yet. The zero Expires means never.
//
// Index, where set, lists the record under that name for Store.Indexed; a
// record is in one index at most, and device state in none. It is what a sparse
// index is in DynamoDB.
type Record struct {
	Key     Key
	Value   []byte
	Rev     uint64
	Expires time.Time
	Index   string
}

// Condition is what must hold of the stored record for a write to apply. The
// zero value holds always.
type Condition struct {
	kind condKind
	rev  uint64
}

type condKind uint8

const (
	condAlways condKind = iota
	condAbsent
	condRev
	condExists
)

// Absent holds if there is no record under the key.
func Absent() Condition { return Condition{kind: condAbsent} }

// Exists holds if there is a record under the key.
func Exists() Condition { return Condition{kind: condExists} }

// AtRev holds if there is a record under the key and its Rev is rev.
func AtRev(rev uint64) Condition { return Condition{kind: condRev, rev: rev} }

// Always says that the condition holds whatever is stored.
func (c Condition) Always() bool { return c.kind == condAlways }

// Holds tells whether the condition holds of what is stored.
func (c Condition) Holds(found bool, rev uint64) bool {
	switch c.kind {
	case condAbsent:
		return !found
	case condExists:
		return found
	case condRev:
		return found && rev == c.rev
	}
	return true
}

// Split returns the condition's parts for stores that hand it to a database:
// exactly one of always, absent and present is true; where compare is also
// true, the record's Rev must equal rev.
func (c Condition) Split() (always, absent, present, compare bool, rev uint64) {
	switch c.kind {
	case condAbsent:
		return false, true, false, false, 0
	case condExists:
		return false, false, true, false, 0
	case condRev:
		return false, false, true, true, c.rev
	}
	return true, false, false, false, 0
}

// Write puts a record, or deletes it where Delete is set (deleting what is
// absent is no error). A batch writes each key at most once.
type Write struct {
	Record
	Delete bool
	If     Condition
}

// Put is a write that replaces whatever is there.
func Put(kind Kind, id string, value []byte) Write {
	return Write{Record: Record{Key: Key{kind, id}, Value: value}}
}

// Del is a write that removes whatever is there.
func Del(kind Kind, id string) Write {
	return Write{Record: Record{Key: Key{kind, id}}, Delete: true}
}

// Fence is the right to write a session: its owner and the owner's epoch.
type Fence struct {
	Session string
	Owner   string
	Epoch   uint64
}

func (f Fence) String() string {
	return fmt.Sprintf("%s by %s at epoch %d", f.Session, f.Owner, f.Epoch)
}

// Query asks for the records of one kind in ascending order of ID.
type Query struct {
	Kind   Kind
	Prefix string // of the ID
	After  string // IDs greater than this only; less, where Descending; empty: from the start
	Limit  int    // at most this many records; 0: 1000. A store may return fewer.

	Descending bool
}

// Page is the answer to a query. More is true if there may be more behind the
// last record: ask again with After set to its ID.
type Page struct {
	Records []Record
	More    bool
}

// Indexed is a record found through an index, with the partition it is in.
type Indexed struct {
	Partition Partition
	Record
}

// Errors of stores. Callers branch on them with errors.Is.
var (
	// ErrNotFound: no such record or session.
	ErrNotFound = errors.New("not found")
	// ErrFenced: the session has another owner or epoch; nothing was written,
	// and nothing ever will be with this fence.
	ErrFenced = errors.New("fenced: the session has another owner")
	// ErrConflict: a condition of a write did not hold; nothing was written.
	ErrConflict = errors.New("conflict: the record has changed")
	// ErrExists: the session is there already.
	ErrExists = errors.New("exists already")
	// ErrTooLarge: a bound of the contract is broken; nothing was written.
	ErrTooLarge = errors.New("too large for one commit")
	// ErrUnavailable: the store did not answer or cannot write now. Whether a
	// write happened is unknown. Retrying with the same token is safe.
	ErrUnavailable = errors.New("store unavailable")
	// ErrCorrupt: what is stored cannot be read: damaged, sealed for another
	// place or with another key, or of a format this release does not know.
	ErrCorrupt = errors.New("corrupt record")
)

// Records is the record half of a store.
type Records interface {
	// Get returns one record, ErrNotFound if there is none.
	Get(ctx context.Context, p Partition, key Key) (Record, error)
	// GetMany returns those of the records that are there, in no order. Any
	// number of keys may be asked for.
	GetMany(ctx context.Context, p Partition, keys []Key) ([]Record, error)
	// Query returns a page of records of one kind.
	Query(ctx context.Context, p Partition, q Query) (Page, error)
	// Indexed returns records listed under an index name, in order of
	// partition and key, beginning after the given one (nil: from the start).
	// It may lag behind commits by a second.
	Indexed(ctx context.Context, index string, after *Indexed, limit int) ([]Indexed, error)
	// Commit applies all writes or none, if the fence holds. It is durable when
	// it returns nil. Token makes it idempotent: a commit repeated with the
	// token of one that did happen in the last 10 minutes returns nil and has
	// no second effect; empty: none. Errors: ErrFenced, ErrConflict,
	// ErrTooLarge, ErrUnavailable.
	Commit(ctx context.Context, f Fence, token string, writes []Write) error
	// Update applies all writes or none without a fence: for the admin side
	// and for fleet records. Device state is refused. Errors as Commit's, less
	// ErrFenced; ErrNotFound if p is a session that does not exist.
	Update(ctx context.Context, p Partition, writes []Write) error
}

// Owner is who may write a session. An empty Incarnation means nobody.
type Owner struct {
	Session     string
	Incarnation string
	Epoch       uint64
}

// Fence is the owner's right to write.
func (o Owner) Fence() Fence { return Fence{o.Session, o.Incarnation, o.Epoch} }

// Owners is the ownership half of a store.
type Owners interface {
	// CreateSession makes an unowned session together with its first records.
	// ErrExists if it is there. A name that was removed may be created again;
	// its epoch goes on from where it was.
	CreateSession(ctx context.Context, name string, writes []Write) error
	// RemoveSession deletes all records of a session and marks it removed; its
	// epoch stays, one higher, so that no late writer can touch a successor of
	// the same name. f is the owner's fence, or that of an unowned session
	// (Owner empty). ErrFenced if it does not hold.
	RemoveSession(ctx context.Context, f Fence) error
	// Owner reads a session's owner. ErrNotFound if there is no such session.
	Owner(ctx context.Context, session string) (Owner, error)
	// OwnedBy lists the sessions of an incarnation in order of name, beginning
	// after the given name; an empty incarnation lists the unowned ones. It may
	// lag behind by a second.
	OwnedBy(ctx context.Context, incarnation, after string, limit int) ([]Owner, error)
	// Sessions lists all sessions in order of name, beginning after the given
	// name.
	Sessions(ctx context.Context, after string, limit int) ([]Owner, error)
	// Claim makes incarnation `to` the owner of all the sessions, each at its
	// epoch from.Epoch+1, if `to` is alive and each owner is exactly `from` now:
	// all of them or none. At most MaxClaims sessions, each once. ErrDead if `to`
	// is not alive; ErrFenced if an owner is another. Whether the old owner is
	// dead is the caller's to know: see Members.
	Claim(ctx context.Context, to string, from ...Owner) ([]Owner, error)
	// HandOver makes incarnation `to` the owner at epoch f.Epoch+1, if the fence
	// holds and `to` is alive. ErrFenced, ErrDead. It is called when the socket is
	// closed and everything is committed.
	HandOver(ctx context.Context, f Fence, to string) (Owner, error)
	// Release gives the session up: unowned, epoch one higher. ErrFenced if the
	// fence does not hold. Release is called when the socket is closed and
	// everything is committed.
	Release(ctx context.Context, f Fence) error
}

// Store is the whole contract. Implementations are safe for concurrent use.
// The suite in package statetest is what the words above mean in detail.
type Store interface {
	Records
	Owners
	Members
	// Ping tells whether the store answers, for doctor and readiness.
	Ping(ctx context.Context) error
	// Now is the store's clock where it has one of its own, for deadlines that
	// outlive a process; the host's where it has none.
	Now() time.Time
	Close() error
}

// Check tells whether a batch keeps the bounds and writes no key twice. Stores
// call it before anything else. fenced says that the batch is a Commit.
func Check(writes []Write, fenced bool) error {
	if len(writes) > MaxItems {
		return fmt.Errorf("%w: %d writes, at most %d", ErrTooLarge, len(writes), MaxItems)
	}
	total := 0
	seen := make(map[Key]struct{}, len(writes))
	for _, w := range writes {
		if w.Key.Kind == "" || strings.Contains(string(w.Key.Kind), "#") {
			return fmt.Errorf("record kind %q: must be a word without #", w.Key.Kind)
		}
		if len(w.Key.ID) > MaxKeyID {
			return fmt.Errorf("%w: the id of a %s record has %d bytes, at most %d", ErrTooLarge, w.Key.Kind, len(w.Key.ID), MaxKeyID)
		}
		if len(w.Value) > MaxValue {
			return fmt.Errorf("%w: a %s record has %d bytes, at most %d", ErrTooLarge, w.Key.Kind, len(w.Value), MaxValue)
		}
		if !fenced && w.Key.Kind.DeviceState() {
			return fmt.Errorf("device state (%s) is written under a fence only", w.Key.Kind)
		}
		if w.Index != "" && w.Key.Kind.DeviceState() {
			return fmt.Errorf("device state (%s) is in no index", w.Key.Kind)
		}
		if _, twice := seen[w.Key]; twice {
			return fmt.Errorf("%s is written twice in one batch", w.Key)
		}
		seen[w.Key] = struct{}{}
		total += len(w.Key.String()) + len(w.Value)
	}
	if total > MaxBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, total, MaxBytes)
	}
	return nil
}
