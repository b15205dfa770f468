// Package chaos breaks a fleet of whole processes for some minutes and proves
// from outside that nothing was lost and nothing happened twice.
//
// Workers of the real binary run over stand-ins for AWS and a simulated
// WhatsApp. Messages go both ways while a plan, made from a seed, kills, freezes,
// parts, delays and restarts them. Everything that can be seen from outside goes
// into a History: the service's own record of sockets and messages, what the
// receiver of events got, what contacts read, what was done to whom. Check is a
// pure function over it.
package chaos

import (
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin"
	"github.com/holdfast-wa/holdfast/infra/standin/crew"
	"github.com/holdfast-wa/holdfast/infra/wasim"
)

// Timing are the times of the protocol of ownership.
type Timing struct {
	Heartbeat, Trust, Takeover, Poll time.Duration
}

// History is what happened, as seen from outside of the workers.
type History struct {
	Timing   Timing
	Began    time.Time     // of the faults
	Healed   time.Time     // all faults are over and all workers run
	Online   time.Time     // all sessions are online again; zero: never
	Rest     time.Time     // nothing waits any more; zero: never
	Bound    time.Duration // from Healed to Online, at most
	Restless []string      // what still waited when patience ended

	Sessions []Account
	Runs     []crew.Run
	Conns    []Conn
	Lines    []LineFault
	Bans     []Banned
	Truth    wasim.Truth
	Wrote    []Wrote
	Arrivals []Arrival
	Sent     []Sent
	Ordered  []Ordered
	Read     []Read
	Unread   []Unread
	Final    []crew.Session
	Leaks    []Leak

	// Steady are times in which whatever was wrong was to be sat out: no socket
	// closes.
	Steady []crew.Span
	// Unreadable is what a release could not read of what another one wrote.
	Unreadable []string
}

// Account is a session and the account that it is paired with.
type Account struct {
	Session string `json:"session"`
	Number  string `json:"number"`
	Device  string `json:"device"` // JID
}

// Conn is one connection to the service and whose it is.
type Conn struct {
	Remote  string    `json:"remote"` // its address as the service sees it
	Process string    `json:"process"`
	Run     int       `json:"run"`
	Opened  time.Time `json:"opened"`
}

// LineFault is what was wrong with a line, and when.
type LineFault struct {
	Process string
	Service standin.Service
	Kind    standin.FaultKind
	Span    crew.Span
}

// Wrote is a message that a contact sent to a session.
type Wrote struct {
	ID      string
	Session string
	Text    string
	At      time.Time
}

// Arrival is one event as the receiver got it. The same may arrive often.
type Arrival struct {
	At      time.Time
	Event   string // its id
	Type    string
	Session string
	Epoch   uint64
	Seq     uint64
	Message string // of a received message: its id
	Text    string
	Command string // of command.done: the command's id
	State   string // of an event that tells of a session's state
	Cause   string
}

// Sent is a text that the API has accepted.
type Sent struct {
	Session string
	To      string // the contact's number
	Text    string
	ID      string // in the outbox
	Message string // at WhatsApp
	State   string // at the end
	Problem string
}

// Read is a text that a contact has read.
type Read struct {
	By   string // the contact's number
	From string // the device's JID
	ID   string
	Text string
}

// Unread is a ciphertext that a contact could not open.
type Unread struct {
	By, From, ID, Enc, Reason string
	At                        time.Time
}

// Leak is something that ought to be sealed and lies open. What was found is not
// in it.
type Leak struct{ Where, What string }

// Finding is something that must not be.
type Finding struct {
	Rule string `json:"rule"`
	Text string `json:"text"`
}
