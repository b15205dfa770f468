package device

import (
	"encoding/json"
	"slices"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// What an export needs to know of how a device is stored. Records and objects are
// copied as they are: they are bound to session, place and keyset, which stay the
// same in the other store.

// Kinds lists the kinds of records that are a device's.
func Kinds() []state.Kind { return slices.Clone(deviceKinds) }

// Prefix begins the ids of all records of a keyset.
func Prefix(keysetID string) string { return keysetID + "." }

// CheckCredential tells whether an object is the credential that a pointer of
// META names, and whole. Otherwise the error is a *StaleError.
func CheckCredential(session string, k *seal.Keyset, at state.ObjectPointer, object []byte) error {
	_, err := openCredential(state.OfSession(session), k, at, object)
	return err
}

// ObjectOf names the object in the vault that holds the body of a record; ok is
// false for a record that holds its own.
func ObjectOf(r state.Record) (name, versionID string, ok bool, err error) {
	if len(r.Value) == 0 || r.Value[0] != bodyVault {
		return "", "", false, nil
	}
	p, err := decodePointer(r)
	return p.Name, p.VersionID, err == nil, err
}

// Repointed is the value of a record whose object has another version id, as in
// another vault.
func Repointed(r state.Record, versionID string) ([]byte, error) {
	p, err := decodePointer(r)
	if err != nil {
		return nil, err
	}
	p.VersionID = versionID
	pointer, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return append([]byte{bodyVault}, pointer...), nil
}
