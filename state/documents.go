package state

import (
	"encoding/json"
	"fmt"
	"time"
)

// Format is the version of every document below. A release reads its own
// format and the one before, and writes what the one before can read until the
// whole fleet has been switched.
const Format = 1

// versioned is what every document begins with.
type versioned struct {
	V int `json:"v"`
}

// Encode turns a document into a record's value.
func Encode(doc any) ([]byte, error) {
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encoding a %T: %w", doc, err)
	}
	return b, nil
}

// Decode reads a record's value into a document. ErrCorrupt if it is not one,
// or of a format that this release does not know.
func Decode(value []byte, doc any) error {
	var v versioned
	if err := json.Unmarshal(value, &v); err != nil {
		return fmt.Errorf("%w: not a document: %w", ErrCorrupt, err)
	}
	if v.V < 1 || v.V > Format {
		return fmt.Errorf("%w: format %d, this release reads up to %d; run the release that wrote it", ErrCorrupt, v.V, Format)
	}
	if err := json.Unmarshal(value, doc); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// Spec is what the operator wants of a session (record SPEC). The admin side
// alone writes it, conditionally on Rev; Rev equals Generation.
type Spec struct {
	V                int       `json:"v"`
	Name             string    `json:"name"`
	Wanted           Wanted    `json:"wanted"`
	Generation       uint64    `json:"generation"`       // grows with every change
	RepairGeneration uint64    `json:"repairGeneration"` // grows with every repair asked for
	CreatedAt        time.Time `json:"createdAt"`
	ChangedAt        time.Time `json:"changedAt"`
	Settings         []byte    `json:"settings,omitempty"` // SessionSettings as JSON, sealed with the fleet keyset
}

// SessionSettings are a session's own settings; empty fields take the worker's.
type SessionSettings struct {
	Profile       string            `json:"profile,omitempty"`  // guide or gentle
	Override      map[string]string `json:"override,omitempty"` // single values by setting name in lower case with dashes, such as "keepalive-interval": "20s"
	Proxy         string            `json:"proxy,omitempty"`    // http, https or socks5 URL
	WebhookURL    string            `json:"webhookUrl,omitempty"`
	WebhookSecret string            `json:"webhookSecret,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
}

// Identity is who a session is at WhatsApp. It is personal, so it is stored
// sealed with the fleet keyset.
type Identity struct {
	JID           string    `json:"jid,omitempty"`
	LID           string    `json:"lid,omitempty"`
	PushName      string    `json:"pushName,omitempty"`
	Platform      string    `json:"platform,omitempty"`
	PhoneLastSeen time.Time `json:"phoneLastSeen,omitzero"`
	Text          string    `json:"text,omitempty"` // the server's own words for the cause
}

// Status is what a session is (record STATUS). The owner alone writes it, when
// something but a time changes. Fast-moving times ride on other writes:
// ObservedAt says how fresh they are.
type Status struct {
	V     int       `json:"v"`
	State State     `json:"state"`
	Cause Cause     `json:"cause,omitempty"`
	Code  int       `json:"code,omitempty"` // the server's number for the cause, where there was one
	Since time.Time `json:"since"`

	Health             Health    `json:"health,omitempty"`
	Attempt            int       `json:"attempt"` // redials since the last connection that lasted
	NextAttemptAt      time.Time `json:"nextAttemptAt,omitzero"`
	CooldownUntil      time.Time `json:"cooldownUntil,omitzero"`
	RestrictedUntil    time.Time `json:"restrictedUntil,omitzero"` // reachout_restricted
	ObservedGeneration uint64    `json:"observedGeneration"`
	RepairObserved     uint64    `json:"repairObserved"`
	RateLimitStep      int       `json:"rateLimitStep,omitempty"`     // doublings of the 429 wait
	LastCause          Cause     `json:"lastCause,omitempty"`         // of the last charged redial
	CauseInRow         int       `json:"causeInRow,omitempty"`        // redials in a row charged to LastCause
	DeathsHolding      int       `json:"deathsHolding,omitempty"`     // process deaths since the session was last online for 10 min
	DeathsUnexplained  int       `json:"deathsUnexplained,omitempty"` // likewise, of workers that vanished without a word of why
	Holding            bool      `json:"holding,omitempty"`           // a worker holds or held a connection and has not yet said that it let go
	Paired             bool      `json:"paired"`
	Decision           string    `json:"decision,omitempty"` // the last decision in words, for explain

	LastConnectedAt time.Time `json:"lastConnectedAt,omitzero"`
	LastPongAt      time.Time `json:"lastPongAt,omitzero"`
	LastInboundAt   time.Time `json:"lastInboundAt,omitzero"`
	LastActivityAt  time.Time `json:"lastActivityAt,omitzero"`
	LastStallAt     time.Time `json:"lastStallAt,omitzero"`
	PhoneWarnedAt   time.Time `json:"phoneWarnedAt,omitzero"` // when session.phone_absent was last raised
	FailuresInARow  int       `json:"failuresInARow"`
	Undecryptable   int       `json:"undecryptable"` // in the last 10 min
	ObservedAt      time.Time `json:"observedAt,omitzero"`

	InboundGaps []DayGap      `json:"inboundGaps,omitempty"` // longest gap a day, last 7
	StallBound  time.Duration `json:"stallBound,omitempty"`  // in force; 0: derive
	Hours       []HourTally   `json:"hours,omitempty"`       // last 7 × 24
	Disconnects map[Cause]int `json:"disconnects,omitempty"` // since creation
	Phase       string        `json:"phase,omitempty"`
	LastSeq     uint64        `json:"lastSeq"`          // of events out, when this was written
	Sealed      []byte        `json:"sealed,omitempty"` // Identity
}

// DayGap is the longest time without an inbound stanza on one day (UTC).
type DayGap struct {
	Day string        `json:"day"`
	Gap time.Duration `json:"gap"`
}

// HourTally counts one hour (UTC).
type HourTally struct {
	Hour       string        `json:"hour"` // 2006-01-02T15
	Up         int           `json:"up"`   // seconds online
	Reconnects map[Cause]int `json:"reconnects,omitempty"`
}

// Meta points at a session's credentials (record META). Only the owner, under
// its fence, writes it.
type Meta struct {
	V           int              `json:"v"`
	Keyset      []byte           `json:"keyset,omitempty"` // the session's keyset, wrapped by the master key
	KeysetID    string           `json:"keysetId,omitempty"`
	Credential  *ObjectPointer   `json:"credential,omitempty"` // nil: not paired
	PreKeyHigh  uint32           `json:"preKeyHigh,omitempty"` // highest prekey id ever generated, for a device that starts anew
	Quarantined []QuarantinedSet `json:"quarantined,omitempty"`
	Moved       *MovedMark       `json:"moved,omitempty"`    // an export took the session to another store: nothing here connects
	Imported    *ImportMark      `json:"imported,omitempty"` // the export that the credentials came with
}

// MovedMark says that a session lives, or is about to live, in another store.
// While it stands nobody opens the credentials here.
type MovedMark struct {
	ID   string    `json:"id"` // of the export
	At   time.Time `json:"at"`
	To   string    `json:"to,omitempty"`   // whither, in the operator's words
	Done bool      `json:"done,omitempty"` // the file is written; until then the same export may be run again

	// What the status said before, for the copy and for taking the session back.
	State State `json:"state,omitempty"`
	Cause Cause `json:"cause,omitempty"`
	Code  int   `json:"code,omitempty"`
}

// CodeMoved is the code of an outbox item that went along with an export. It is
// in no index until the session is taken back, and is sent by the copy.
const CodeMoved = "moved"

// ImportMark says which export a session was, or is being, taken in from.
type ImportMark struct {
	ID   string    `json:"id"` // of the export
	At   time.Time `json:"at"`
	Done bool      `json:"done,omitempty"` // all is there; until then nobody opens the session
}

// ObjectPointer says which object in the vault is the credential, and how to
// know that it is the right one.
type ObjectPointer struct {
	Version   uint64 `json:"version"` // grows with each write of the credential
	Name      string `json:"name"`
	VersionID string `json:"versionId,omitempty"` // the object store's, where it has versions
	SHA256    string `json:"sha256"`              // hex, of the object as stored
	KeysetID  string `json:"keysetId"`
}

// QuarantinedSet is a set of credentials taken out of use: kept sealed until
// Until so that an operator can restore it, then destroyed.
type QuarantinedSet struct {
	Credential ObjectPointer `json:"credential"`
	Keyset     []byte        `json:"keyset"`
	KeysetID   string        `json:"keysetId"`
	Cause      Cause         `json:"cause"`
	At         time.Time     `json:"at"`
	Until      time.Time     `json:"until"`
}

// CommandState is where a command is in its life.
type CommandState string

// The states of a command; the last three are final.
const (
	CommandPending CommandState = "pending"
	CommandRunning CommandState = "running"
	CommandDone    CommandState = "done"
	CommandFailed  CommandState = "failed"
	CommandExpired CommandState = "expired"
)

// Final says that the command will not change any more.
func (s CommandState) Final() bool {
	return s == CommandDone || s == CommandFailed || s == CommandExpired
}

// Verb is what a command asks for.
type Verb string

// The verbs. Reconcile asks the owner to read the spec again.
const (
	VerbReconcile  Verb = "reconcile"
	VerbStart      Verb = "start"
	VerbStop       Verb = "stop"
	VerbRestart    Verb = "restart"
	VerbDisconnect Verb = "disconnect"
	VerbRepair     Verb = "repair"
	VerbRestore    Verb = "restore"
	VerbPairCode   Verb = "pair-code"
	VerbSend       Verb = "send" // look into the outbox
	VerbDebug      Verb = "debug"
	VerbDelete     Verb = "delete"
	VerbRewrap     Verb = "rewrap" // wrap the keyset with the present master key
	VerbRotate     Verb = "rotate" // give the keyset a new primary key
	// VerbHandOver has the owner end the session's line and give the session to
	// the incarnation that Args["to"] names: a tool that moves or mends it.
	VerbHandOver Verb = "hand-over"
)

// Command is a record CMD#id. While it is open it is in the index CommandIndex
// of the session's owner.
type Command struct {
	V         int               `json:"v"`
	ID        string            `json:"id"` // ULID
	Session   string            `json:"session"`
	Verb      Verb              `json:"verb"`
	State     CommandState      `json:"state"`
	Epoch     uint64            `json:"epoch,omitempty"` // of the owner that ran it
	By        string            `json:"by"`              // name of the API key
	At        time.Time         `json:"at"`
	ExpiresAt time.Time         `json:"expiresAt"`
	EndedAt   time.Time         `json:"endedAt,omitzero"`
	Args      map[string]string `json:"args,omitempty"`
	Sealed    []byte            `json:"sealed,omitempty"` // arguments that are personal (a phone number), and results that are secret (a pair code)
	Problem   string            `json:"problem,omitempty"`
	Code      string            `json:"code,omitempty"` // stable code of the problem
	Result    string            `json:"result,omitempty"`
}

// CommandIndex is the index that lists the open commands of an incarnation's
// sessions; those of unowned sessions are under the empty incarnation.
func CommandIndex(incarnation string) string { return "cmd/" + incarnation }

// Audit is a record AUD#time#ulid: who did what, and what changed.
type Audit struct {
	V      int       `json:"v"`
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Role   string    `json:"role"`
	Action string    `json:"action"`
	Before string    `json:"before,omitempty"`
	After  string    `json:"after,omitempty"`
}

// OutboxState is where a message to send is in its life.
type OutboxState string

// The states of a message to send.
const (
	OutQueued    OutboxState = "queued"
	OutSending   OutboxState = "sending" // the ratchet may have moved; a resend uses the same id
	OutSent      OutboxState = "sent"
	OutDelivered OutboxState = "delivered"
	OutRead      OutboxState = "read"
	OutFailed    OutboxState = "failed"
	OutCancelled OutboxState = "cancelled"
)

// Outbox is a record OB#id. MessageID is fixed before the first try, so that a
// send after a crash repeats the id and the server and the receiver recognise it.
type Outbox struct {
	V         int         `json:"v"`
	ID        string      `json:"id"` // ULID, so the outbox sorts by time
	MessageID string      `json:"messageId"`
	State     OutboxState `json:"state"`
	At        time.Time   `json:"at"`
	SendAt    time.Time   `json:"sendAt,omitzero"`
	Attempts  int         `json:"attempts"`
	ChangedAt time.Time   `json:"changedAt"`
	Problem   string      `json:"problem,omitempty"`
	Code      string      `json:"code,omitempty"`
	Sealed    []byte      `json:"sealed"` // OutboxContent
}

// OutboxDue is the index that lists unfinished outbox items of a session's
// partition for its owner.
func OutboxDue(session string) string { return "due/" + session }

// QRShown is the record QR: the code that is valid now, sealed.
type QRShown struct {
	V         int       `json:"v"`
	ExpiresAt time.Time `json:"expiresAt"`
	Sealed    []byte    `json:"sealed"` // the text
}
