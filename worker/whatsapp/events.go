package whatsapp

import (
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/worker/policy"
)

// Event is something that happened on a line. It goes to the session's mailbox
// through Config.Post. The concrete types are below; each says which
// connection it belongs to, so that one of an older connection can be dropped.
type Event interface {
	// Connection is the N of the line's Config.
	Connection() uint64
}

// On is the part that all events have.
type On struct{ N uint64 }

// Connection implements Event.
func (o On) Connection() uint64 { return o.N }

// QRCodes are the texts to be shown as QR codes, one after the other, each for
// its time: 60 s the first, 20 s the others.
type QRCodes struct {
	On
	Codes  []string
	Lasts  []time.Duration
	Redone bool // the same codes with another secret (the phone asked for it): go on with the one shown now
}

// String hides the texts: each is a secret.
func (q QRCodes) String() string { return fmt.Sprintf("%d QR codes", len(q.Codes)) }

// Paired says that a phone has linked this device. The credentials are stored;
// the server closes the connection and wants a login on a new one.
type Paired struct {
	On
	JID, LID     string
	Platform     string
	BusinessName string
}

// PasskeyRequested says that this pairing wants a passkey.
type PasskeyRequested struct{ On }

// Connected says that the login is complete.
type Connected struct {
	On
	JID, LID   string
	PushName   string    // empty while it is not known
	At         time.Time // by the host's clock
	ServerTime time.Time // by the server's; zero if it did not tell
}

// OfflinePreview says what the server will deliver of the time offline.
type OfflinePreview struct {
	On
	Total, Messages, Notifications, Receipts int
}

// OfflineDone says that all of it has come. Oldest and Newest are the server's
// times of the messages among it; both are zero if there was none. Messages
// that are older than the connection, and were not held back by a time
// offline, prove that the connection before this one was stalled.
type OfflineDone struct {
	On
	Count          int // as the server says
	Messages       int // as seen
	Oldest, Newest time.Time
}

// Signalled carries what was seen of the connection's fate. Terminal: the
// connection is over, or is about to be, and no other terminal one follows.
type Signalled struct {
	On
	Signal   policy.Signal
	Terminal bool
}

// Undecryptable says that a message could not be decrypted. Peer tells senders
// apart within this process and tells nothing else.
type Undecryptable struct {
	On
	Peer string
	ID   string
}

// IdentityChanged says that a contact has a new identity key.
type IdentityChanged struct {
	On
	Peer string // as in Undecryptable
}

// PushName is the account's own name.
type PushName struct {
	On
	Name string
}

// PhoneSeen says that the account's phone was active at that time, by the
// server's clock where it told.
type PhoneSeen struct {
	On
	At time.Time
}

// ReachoutTimelock says that messages to new chats are refused until Until
// (zero: not told), or no longer.
type ReachoutTimelock struct {
	On
	Active bool
	Until  time.Time
}

// Receipt says what became of messages that were sent.
type Receipt struct {
	On
	IDs    []string
	Status string // delivered or read
	At     time.Time
}

// HistorySync says that a piece of history came. Only with history sync on.
type HistorySync struct {
	On
	Type          string
	Conversations int
}

// QueueFull says that a message was refused because the queue of events out is
// full. The server keeps it and delivers it on a later connection.
type QueueFull struct{ On }

// Panicked says that handling a stanza of this kind made the library or a
// handler of ours panic. The line was cut.
type Panicked struct {
	On
	Stanza string
}
