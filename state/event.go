package state

import (
	"encoding/json"
	"fmt"
	"time"
)

// EventType is what an event out tells.
type EventType string

// The types of events.
const (
	EventState        EventType = "session.state"
	EventQR           EventType = "session.qr"
	EventPaired       EventType = "session.paired"
	EventHealth       EventType = "session.health"
	EventExhausted    EventType = "session.reconnect_exhausted"
	EventPhoneAbsent  EventType = "session.phone_absent"
	EventMessage      EventType = "message.received"
	EventMessageState EventType = "message.status"
	EventUndecrypted  EventType = "message.undecryptable"
	EventCommandDone  EventType = "command.done"
	EventOutage       EventType = "fleet.outage"
	EventQueueFilling EventType = "session.queue_filling" // 90 % of the event queue is used
	EventStallProved  EventType = "session.inbound_stalled"
)

// Event is the envelope that sinks deliver and the API shows. Receivers
// deduplicate by ID. Seq counts per session without gaps.
type Event struct {
	ID      string          `json:"id"` // ULID
	Type    EventType       `json:"type"`
	Time    time.Time       `json:"time"` // RFC 3339, milliseconds, UTC
	Session string          `json:"session"`
	Epoch   uint64          `json:"epoch"`
	Seq     uint64          `json:"seq"`
	Data    json.RawMessage `json:"data"`
}

// MarshalJSON writes the time with exactly three decimals.
func (e Event) MarshalJSON() ([]byte, error) {
	type plain Event
	return json.Marshal(struct {
		plain
		Time string `json:"time"`
	}{plain(e), e.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00")})
}

// StoredEvent is a record EV#seq: the event's place and kind in the clear, the
// event itself sealed with the fleet keyset, so that the admin side can read it.
// Once every sink has had it, Sealed is written again without the content of
// messages (Trimmed).
type StoredEvent struct {
	V       int       `json:"v"`
	ID      string    `json:"id"`
	Type    EventType `json:"type"`
	At      time.Time `json:"at"`
	Trimmed bool      `json:"trimmed,omitempty"`
	Sealed  []byte    `json:"sealed"` // Event as JSON
	// Large is where the event is whole, if it does not fit into a record; Sealed
	// then holds it without its data.
	Large *LargeEvent `json:"large,omitempty"`
}

// LargeEvent points at an object in the vault that holds an event, sealed as
// Sealed would be.
type LargeEvent struct {
	Name      string `json:"name"`
	VersionID string `json:"versionId,omitempty"`
	SHA256    string `json:"sha256"` // hex, of the object as stored
}

// LargeEventPrefix begins the names of such objects; a ULID follows.
const LargeEventPrefix = "event-"

// MaxEvent is the most bytes that an event's record holds of it. Above that it is
// in the vault.
const MaxEvent = 200 << 10

// EventID is the record id of a sequence number: it sorts as the number does.
func EventID(seq uint64) string { return fmt.Sprintf("%020d", seq) }

// Cursor is a record CUR#sink: everything up to Seq has been delivered.
type Cursor struct {
	V   int    `json:"v"`
	Seq uint64 `json:"seq"`
}
