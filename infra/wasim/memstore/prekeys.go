package memstore

import (
	"context"
	"slices"

	"go.mau.fi/whatsmeow/util/keys"
)

// generate makes the next prekey. Ids only grow, whatever was removed.
func (s *Store) generate() *keys.PreKey {
	k := keys.NewPreKey(s.nextPreKey)
	s.nextPreKey++
	put(&s.prekeys, k.KeyID, &storedPreKey{priv: *k.Priv})
	return k
}

func (p *storedPreKey) key(id uint32) *keys.PreKey {
	return &keys.PreKey{KeyPair: *keys.NewKeyPairFromPrivateKey(p.priv), KeyID: id}
}

// GetOrGenPreKeys implements store.PreKeyStore: the ones not uploaded yet and
// as many new ones as are missing, in ascending order of id.
func (s *Store) GetOrGenPreKeys(_ context.Context, count uint32) ([]*keys.PreKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*keys.PreKey
	for id, p := range s.prekeys {
		if !p.uploaded {
			out = append(out, p.key(id))
		}
	}
	slices.SortFunc(out, func(a, b *keys.PreKey) int { return int(a.KeyID) - int(b.KeyID) })
	if uint32(len(out)) > count {
		out = out[:count]
	}
	for uint32(len(out)) < count {
		out = append(out, s.generate())
	}
	return out, nil
}

// GenOnePreKey implements store.PreKeyStore; the key counts as uploaded.
func (s *Store) GenOnePreKey(context.Context) (*keys.PreKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.generate()
	s.prekeys[k.KeyID].uploaded = true
	return k, nil
}

// GetPreKey implements store.PreKeyStore; absent is nil, nil.
func (s *Store) GetPreKey(_ context.Context, id uint32) (*keys.PreKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.prekeys[id]; p != nil {
		return p.key(id), nil
	}
	return nil, nil
}

// RemovePreKey implements store.PreKeyStore.
func (s *Store) RemovePreKey(_ context.Context, id uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.prekeys, id)
	return nil
}

// MarkPreKeysAsUploaded implements store.PreKeyStore.
func (s *Store) MarkPreKeysAsUploaded(_ context.Context, upToID uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.prekeys {
		if id <= upToID {
			p.uploaded = true
		}
	}
	return nil
}

// UploadedPreKeyCount implements store.PreKeyStore.
func (s *Store) UploadedPreKeyCount(context.Context) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, p := range s.prekeys {
		if p.uploaded {
			n++
		}
	}
	return n, nil
}
