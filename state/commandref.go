package state

import (
	"fmt"
	"strings"
)

// VerbRedrive asks the owner to deliver dead letters again: the one whose
// record id is the argument "deadLetter", or all where there is none.
const VerbRedrive Verb = "redrive"

// CommandSecret is what Command.Sealed holds, as JSON, sealed with the fleet
// keyset for the place of the command's record: arguments that are personal
// before the command ran, results that are secret after it.
type CommandSecret struct {
	Phone    string `json:"phone,omitempty"`    // digits, of pair-code
	PairCode string `json:"pairCode,omitempty"` // its result
}

// CommandRef is the name that the API and events give a command: session and
// record id, so that the record is found without a scan.
func CommandRef(session, id string) string { return session + "." + id }

// ParseCommandRef takes a CommandRef apart. The session's name has no dot.
func ParseCommandRef(ref string) (session, id string, err error) {
	session, id, ok := strings.Cut(ref, ".")
	if !ok || id == "" || len(id) > 64 || CheckName(session) != nil {
		return "", "", fmt.Errorf("command id: %w: is not SESSION.ID as a write answered it", ErrNotFound)
	}
	return session, id, nil
}
