package device

import (
	"bytes"
	"encoding/json"
)

// ratchets is the library's session record: JSON, with a current state and archived
// ones, of sessions that the two sides began at the same time or anew.
type ratchets struct {
	SessionState   json.RawMessage
	PreviousStates []json.RawMessage
}

// noArchive ends the records that most contacts have.
var noArchive = []byte(`"PreviousStates":[]}`)

// archived reads a session record; ok is false where it has no archived states, or
// is no such record.
func archived(record []byte) (r ratchets, ok bool) {
	if bytes.HasSuffix(record, noArchive) || json.Unmarshal(record, &r) != nil {
		return r, false
	}
	return r, len(r.SessionState) > 0 && len(r.PreviousStates) > 0
}

// baseKey names a state; it is empty for one that was never begun.
func baseKey(state json.RawMessage) string {
	var s struct{ SenderBaseKey []byte }
	if json.Unmarshal(state, &s) != nil {
		return ""
	}
	return string(s.SenderBaseKey)
}

// keepArchived undoes what a decryption has done to the archived states of a
// session record.
//
// The library tries the states of a record in turn, and moves the ratchet of each
// before it knows whether the message is of that one: the keys of a state that it
// merely tried are gone, and with the record they would be stored. Whatever is under
// way on that state could be read by neither side. A decryption changes the state
// that it ends with as the current one, and no other; so the archived ones are taken
// from the record as it was before. The library also leaves copies of the state that
// it makes current among the archived ones; they are left out.
//
// now is what after holds. Where before is no such record, after is returned.
func keepArchived(before []byte, now ratchets, after []byte) []byte {
	var was ratchets
	if json.Unmarshal(before, &was) != nil {
		return after
	}
	known := map[string]json.RawMessage{}
	for _, s := range append([]json.RawMessage{was.SessionState}, was.PreviousStates...) {
		if key := baseKey(s); key != "" && known[key] == nil {
			known[key] = s
		}
	}
	out := ratchets{SessionState: now.SessionState, PreviousStates: []json.RawMessage{}}
	seen := map[string]bool{baseKey(now.SessionState): true}
	for _, s := range now.PreviousStates {
		if key := baseKey(s); key != "" {
			if seen[key] {
				continue
			}
			seen[key] = true
			if before, ok := known[key]; ok {
				s = before
			}
		}
		out.PreviousStates = append(out.PreviousStates, s)
	}
	b, err := json.Marshal(out)
	if err != nil {
		return after
	}
	return b
}
