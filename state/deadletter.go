package state

import "time"

// DeadLetter is a record DL#DeadID: an event that a receiver refused for good,
// or that could not be read, kept until an operator has it delivered again.
type DeadLetter struct {
	V       int       `json:"v"`
	Sink    string    `json:"sink"`
	Seq     uint64    `json:"seq"`
	EventID string    `json:"eventId"`
	Type    EventType `json:"type"`
	At      time.Time `json:"at"`      // of the event
	DiedAt  time.Time `json:"diedAt"`  // when it was given up
	Status  int       `json:"status"`  // HTTP status of the refusal, 0 where there was none
	Reason  string    `json:"reason"`  // in words, without content of the event
	Tries   int       `json:"tries"`   // deliveries that were refused, redrives included
	Corrupt bool      `json:"corrupt"` // the stored event could not be opened
	Sealed  []byte    `json:"sealed"`  // Event as JSON, sealed for the place of its record EV#EventID(Seq)
	// Large is where the event is whole; see StoredEvent.
	Large *LargeEvent `json:"large,omitempty"`
}

// DeadID is the record id of a dead letter: by sequence number, then by sink.
func DeadID(seq uint64, sink string) string { return EventID(seq) + "." + sink }
