package memstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
)

// errNoEvent is returned for an outgoing event that is not kept.
var errNoEvent = errors.New("memstore: no such outgoing event")

// rest holds what a device that only passes messages seldom touches.
type rest struct {
	syncKeys    map[string]store.AppStateSyncKey
	latestKey   string
	versions    map[string]appVersion
	macs        map[[2]string]appMAC
	contacts    map[types.JID]types.ContactInfo
	chats       map[types.JID]types.LocalChatSettings
	secrets     map[secretKey][]byte
	tokens      map[types.JID]store.PrivacyToken
	salt        []byte
	buffered    map[[32]byte]store.BufferedEvent
	outgoing    map[outgoingKey]outgoingEvent
	outgoingAge []outgoingKey
}

type appVersion struct {
	version uint64
	hash    [128]byte
}

type appMAC struct {
	version uint64
	value   []byte
}

type secretKey struct {
	chat, sender types.JID
	id           string
}

type outgoingKey struct {
	chat types.JID
	id   string
}

type outgoingEvent struct {
	format string
	data   []byte
}

// The bounds of what is kept for events: enough for tests, little for benches.
const (
	maxBuffered = 4096
	maxOutgoing = 1024
)

// more returns the seldom used part with the lock held; unlock releases it.
func (s *Store) more() (r *rest, unlock func()) {
	s.mu.Lock()
	if s.misc == nil {
		s.misc = &rest{}
	}
	return s.misc, s.mu.Unlock
}

// PutAppStateSyncKey implements store.AppStateSyncKeyStore; an older one does
// not replace a newer one.
func (s *Store) PutAppStateSyncKey(_ context.Context, id []byte, key store.AppStateSyncKey) error {
	r, unlock := s.more()
	defer unlock()
	if old, ok := r.syncKeys[string(id)]; !ok || old.Timestamp < key.Timestamp {
		put(&r.syncKeys, string(id), key)
	}
	if latest, ok := r.syncKeys[r.latestKey]; !ok || latest.Timestamp <= key.Timestamp {
		r.latestKey = string(id)
	}
	return nil
}

// GetAppStateSyncKey implements store.AppStateSyncKeyStore; absent is nil, nil.
func (s *Store) GetAppStateSyncKey(_ context.Context, id []byte) (*store.AppStateSyncKey, error) {
	r, unlock := s.more()
	defer unlock()
	if key, ok := r.syncKeys[string(id)]; ok {
		return &key, nil
	}
	return nil, nil
}

// GetLatestAppStateSyncKeyID implements store.AppStateSyncKeyStore.
func (s *Store) GetLatestAppStateSyncKeyID(context.Context) ([]byte, error) {
	r, unlock := s.more()
	defer unlock()
	if r.latestKey == "" {
		return nil, nil
	}
	return []byte(r.latestKey), nil
}

// GetAllAppStateSyncKeys implements store.AppStateSyncKeyStore.
func (s *Store) GetAllAppStateSyncKeys(context.Context) ([]*store.AppStateSyncKey, error) {
	r, unlock := s.more()
	defer unlock()
	var out []*store.AppStateSyncKey
	for _, key := range r.syncKeys {
		out = append(out, &key)
	}
	return out, nil
}

// PutAppStateVersion implements store.AppStateStore.
func (s *Store) PutAppStateVersion(_ context.Context, name string, version uint64, hash [128]byte) error {
	r, unlock := s.more()
	defer unlock()
	put(&r.versions, name, appVersion{version, hash})
	return nil
}

// GetAppStateVersion implements store.AppStateStore; absent is version 0.
func (s *Store) GetAppStateVersion(_ context.Context, name string) (uint64, [128]byte, error) {
	r, unlock := s.more()
	defer unlock()
	v := r.versions[name]
	return v.version, v.hash, nil
}

// DeleteAppStateVersion implements store.AppStateStore; its MACs go too.
func (s *Store) DeleteAppStateVersion(_ context.Context, name string) error {
	r, unlock := s.more()
	defer unlock()
	delete(r.versions, name)
	for k := range r.macs {
		if k[0] == name {
			delete(r.macs, k)
		}
	}
	return nil
}

// PutAppStateMutationMACs implements store.AppStateStore.
func (s *Store) PutAppStateMutationMACs(_ context.Context, name string, version uint64, mutations []store.AppStateMutationMAC) error {
	r, unlock := s.more()
	defer unlock()
	for _, m := range mutations {
		k := [2]string{name, string(m.IndexMAC)}
		if old, ok := r.macs[k]; !ok || old.version <= version {
			put(&r.macs, k, appMAC{version, m.ValueMAC})
		}
	}
	return nil
}

// DeleteAppStateMutationMACs implements store.AppStateStore.
func (s *Store) DeleteAppStateMutationMACs(_ context.Context, name string, indexMACs [][]byte) error {
	r, unlock := s.more()
	defer unlock()
	for _, mac := range indexMACs {
		delete(r.macs, [2]string{name, string(mac)})
	}
	return nil
}

// GetAppStateMutationMAC implements store.AppStateStore; absent is nil, nil.
func (s *Store) GetAppStateMutationMAC(_ context.Context, name string, indexMAC []byte) ([]byte, error) {
	r, unlock := s.more()
	defer unlock()
	return r.macs[[2]string{name, string(indexMAC)}].value, nil
}

// contact changes a contact's record.
func (s *Store) contact(user types.JID, change func(*types.ContactInfo)) {
	r, unlock := s.more()
	defer unlock()
	c := r.contacts[user]
	c.Found = true
	change(&c)
	put(&r.contacts, user, c)
}

// PutPushName implements store.ContactStore.
func (s *Store) PutPushName(_ context.Context, user types.JID, name string) (changed bool, old string, err error) {
	s.contact(user, func(c *types.ContactInfo) { old, c.PushName = c.PushName, name })
	return old != name, old, nil
}

// PutBusinessName implements store.ContactStore.
func (s *Store) PutBusinessName(_ context.Context, user types.JID, name string) (changed bool, old string, err error) {
	s.contact(user, func(c *types.ContactInfo) { old, c.BusinessName = c.BusinessName, name })
	return old != name, old, nil
}

// PutContactName implements store.ContactStore. The library declares the names
// as (full, first) and calls it with (first, full); this keeps them as declared.
func (s *Store) PutContactName(_ context.Context, user types.JID, fullName, firstName string) error {
	s.contact(user, func(c *types.ContactInfo) { c.FullName, c.FirstName = fullName, firstName })
	return nil
}

// PutAllContactNames implements store.ContactStore.
func (s *Store) PutAllContactNames(_ context.Context, contacts []store.ContactEntry) error {
	for _, e := range contacts {
		s.contact(e.JID, func(c *types.ContactInfo) { c.FullName, c.FirstName = e.FullName, e.FirstName })
	}
	return nil
}

// PutManyRedactedPhones implements store.ContactStore.
func (s *Store) PutManyRedactedPhones(_ context.Context, entries []store.RedactedPhoneEntry) error {
	for _, e := range entries {
		s.contact(e.JID, func(c *types.ContactInfo) { c.RedactedPhone = e.RedactedPhone })
	}
	return nil
}

// GetContact implements store.ContactStore.
func (s *Store) GetContact(_ context.Context, user types.JID) (types.ContactInfo, error) {
	r, unlock := s.more()
	defer unlock()
	return r.contacts[user], nil
}

// GetAllContacts implements store.ContactStore.
func (s *Store) GetAllContacts(context.Context) (map[types.JID]types.ContactInfo, error) {
	r, unlock := s.more()
	defer unlock()
	out := make(map[types.JID]types.ContactInfo, len(r.contacts))
	for jid, c := range r.contacts {
		out[jid] = c
	}
	return out, nil
}

// chat changes a chat's settings.
func (s *Store) chat(chat types.JID, change func(*types.LocalChatSettings)) {
	r, unlock := s.more()
	defer unlock()
	c := r.chats[chat]
	c.Found = true
	change(&c)
	put(&r.chats, chat, c)
}

// PutMutedUntil implements store.ChatSettingsStore.
func (s *Store) PutMutedUntil(_ context.Context, chat types.JID, until time.Time) error {
	s.chat(chat, func(c *types.LocalChatSettings) { c.MutedUntil = until })
	return nil
}

// PutPinned implements store.ChatSettingsStore.
func (s *Store) PutPinned(_ context.Context, chat types.JID, pinned bool) error {
	s.chat(chat, func(c *types.LocalChatSettings) { c.Pinned = pinned })
	return nil
}

// PutArchived implements store.ChatSettingsStore.
func (s *Store) PutArchived(_ context.Context, chat types.JID, archived bool) error {
	s.chat(chat, func(c *types.LocalChatSettings) { c.Archived = archived })
	return nil
}

// GetChatSettings implements store.ChatSettingsStore.
func (s *Store) GetChatSettings(_ context.Context, chat types.JID) (types.LocalChatSettings, error) {
	r, unlock := s.more()
	defer unlock()
	return r.chats[chat], nil
}

// LIDs maps phone numbers to LIDs; devices of one process may share one.
type LIDs struct {
	mu    sync.RWMutex
	byPN  map[string]string
	byLID map[string]string
}
