// Package memstore is a whatsmeow device store in memory: small, without
// durability, with the semantics of the library's own sqlstore. Simulated
// phones and contacts keep their Signal sessions in one, and tests and benches
// run a bare whatsmeow client on one ("the library alone").
package memstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"maps"
	"strings"
	"sync"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/util/keys"
	waLog "go.mau.fi/whatsmeow/util/log"
)

// Store holds one device's records. Its maps are made when first written, so
// that an idle device costs little. Safe for concurrent use.
type Store struct {
	mu         sync.Mutex
	identities map[string][32]byte
	sessions   map[string][]byte
	prekeys    map[uint32]*storedPreKey
	nextPreKey uint32
	senderKeys map[[2]string][]byte
	misc       *rest
	lids       *LIDs
}

type storedPreKey struct {
	priv     [32]byte
	uploaded bool
}

var _ store.AllStores = (*Store)(nil)

// New makes an unpaired device with fresh keys over a store of its own.
func New() *store.Device {
	return NewWith(&LIDs{})
}

// NewWith is New with a LID map that several devices share.
func NewWith(lids *LIDs) *store.Device {
	s := &Store{nextPreKey: 1, lids: lids}
	var random [36]byte
	_, _ = rand.Read(random[:])
	d := &store.Device{
		Log:            waLog.Noop,
		NoiseKey:       keys.NewKeyPair(),
		IdentityKey:    keys.NewKeyPair(),
		RegistrationID: binary.BigEndian.Uint32(random[:4])&0x3fff | 1,
		AdvSecretKey:   random[4:],
		Initialized:    true,
		Container:      container{},
		LIDs:           s,
	}
	d.SignedPreKey = d.IdentityKey.CreateSignedPreKey(1)
	d.SetAllStores(s)
	return d
}

// container keeps devices by doing nothing: the Device itself is the record.
type container struct{}

func (container) PutDevice(context.Context, *store.Device) error    { return nil }
func (container) DeleteDevice(context.Context, *store.Device) error { return nil }

// put writes a key of a map that is made on demand.
func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[k] = v
}

// PutIdentity implements store.IdentityStore.
func (s *Store) PutIdentity(_ context.Context, address string, key [32]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	put(&s.identities, address, key)
	return nil
}

// DeleteAllIdentities implements store.IdentityStore.
func (s *Store) DeleteAllIdentities(_ context.Context, phone string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.identities, func(a string, _ [32]byte) bool { return strings.HasPrefix(a, phone+":") })
	return nil
}

// DeleteIdentity implements store.IdentityStore.
func (s *Store) DeleteIdentity(_ context.Context, address string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.identities, address)
	return nil
}

// IsTrustedIdentity implements store.IdentityStore: the first one seen is trusted.
func (s *Store) IsTrustedIdentity(_ context.Context, address string, key [32]byte) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.identities[address]
	return !ok || known == key, nil
}

// GetSession implements store.SessionStore; absent is nil, nil.
func (s *Store) GetSession(_ context.Context, address string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[address], nil
}

// HasSession implements store.SessionStore.
func (s *Store) HasSession(_ context.Context, address string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[address] != nil, nil
}

// GetManySessions implements store.SessionStore; every address is answered.
func (s *Store) GetManySessions(_ context.Context, addresses []string) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string][]byte, len(addresses))
	for _, a := range addresses {
		out[a] = s.sessions[a]
	}
	return out, nil
}

// PutSession implements store.SessionStore.
func (s *Store) PutSession(_ context.Context, address string, session []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	put(&s.sessions, address, session)
	return nil
}

// PutManySessions implements store.SessionStore.
func (s *Store) PutManySessions(_ context.Context, sessions map[string][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, session := range sessions {
		put(&s.sessions, a, session)
	}
	return nil
}

// DeleteAllSessions implements store.SessionStore.
func (s *Store) DeleteAllSessions(_ context.Context, phone string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.sessions, func(a string, _ []byte) bool { return strings.HasPrefix(a, phone+":") })
	return nil
}

// DeleteSession implements store.SessionStore.
func (s *Store) DeleteSession(_ context.Context, address string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, address)
	return nil
}

// MigratePNToLID implements store.SessionStore: what is kept under the phone
// number moves under the LID.
func (s *Store) MigratePNToLID(_ context.Context, pn, lid types.JID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, to := pn.SignalAddressUser()+":", lid.SignalAddressUser()+":"
	move := func(a string) (string, bool) {
		rest, ok := strings.CutPrefix(a, from)
		return to + rest, ok
	}
	for a, session := range s.sessions {
		if b, ok := move(a); ok {
			delete(s.sessions, a)
			s.sessions[b] = session
		}
	}
	for a, key := range s.identities {
		if b, ok := move(a); ok {
			delete(s.identities, a)
			s.identities[b] = key
		}
	}
	for k, v := range s.senderKeys {
		if b, ok := move(k[1]); ok {
			delete(s.senderKeys, k)
			s.senderKeys[[2]string{k[0], b}] = v
		}
	}
	return nil
}

// PutSenderKey implements store.SenderKeyStore.
func (s *Store) PutSenderKey(_ context.Context, group, user string, session []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	put(&s.senderKeys, [2]string{group, user}, session)
	return nil
}

// GetSenderKey implements store.SenderKeyStore.
func (s *Store) GetSenderKey(_ context.Context, group, user string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.senderKeys[[2]string{group, user}], nil
}
