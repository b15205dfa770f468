package memstore

import (
	"context"
	"time"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
)

// PutMessageSecrets implements store.MsgSecretStore.
func (s *Store) PutMessageSecrets(ctx context.Context, inserts []store.MessageSecretInsert) error {
	for _, in := range inserts {
		if err := s.PutMessageSecret(ctx, in.Chat, in.Sender, in.ID, in.Secret); err != nil {
			return err
		}
	}
	return nil
}

// PutMessageSecret implements store.MsgSecretStore; the first one stays.
func (s *Store) PutMessageSecret(_ context.Context, chat, sender types.JID, id types.MessageID, secret []byte) error {
	r, unlock := s.more()
	defer unlock()
	k := secretKey{chat.ToNonAD(), sender.ToNonAD(), id}
	if _, ok := r.secrets[k]; !ok {
		put(&r.secrets, k, secret)
	}
	return nil
}

// GetMessageSecret implements store.MsgSecretStore; found under phone number and LID.
func (s *Store) GetMessageSecret(ctx context.Context, chat, sender types.JID, id types.MessageID) ([]byte, types.JID, error) {
	chats, senders := s.bothNames(ctx, chat), s.bothNames(ctx, sender)
	r, unlock := s.more()
	defer unlock()
	for _, c := range chats {
		for _, u := range senders {
			if secret, ok := r.secrets[secretKey{c, u, id}]; ok {
				return secret, u, nil
			}
		}
	}
	return nil, types.EmptyJID, nil
}

// bothNames is a JID and, if it is known, the same user's other one.
func (s *Store) bothNames(ctx context.Context, jid types.JID) []types.JID {
	jid = jid.ToNonAD()
	out := []types.JID{jid}
	var other types.JID
	switch jid.Server {
	case types.DefaultUserServer:
		other, _ = s.GetLIDForPN(ctx, jid)
	case types.HiddenUserServer:
		other, _ = s.GetPNForLID(ctx, jid)
	}
	if !other.IsEmpty() {
		out = append(out, other)
	}
	return out
}

// PutPrivacyTokens implements store.PrivacyTokenStore; only a newer one replaces.
func (s *Store) PutPrivacyTokens(_ context.Context, tokens ...store.PrivacyToken) error {
	r, unlock := s.more()
	defer unlock()
	for _, t := range tokens {
		k := t.User.ToNonAD()
		old, ok := r.tokens[k]
		if ok && t.Timestamp.Before(old.Timestamp) {
			continue
		}
		if t.SenderTimestamp.IsZero() {
			t.SenderTimestamp = old.SenderTimestamp
		}
		put(&r.tokens, k, t)
	}
	return nil
}

// GetPrivacyToken implements store.PrivacyTokenStore; absent is nil, nil.
func (s *Store) GetPrivacyToken(ctx context.Context, user types.JID) (*store.PrivacyToken, error) {
	names := s.bothNames(ctx, user)
	r, unlock := s.more()
	defer unlock()
	for _, name := range names {
		if t, ok := r.tokens[name]; ok {
			return &t, nil
		}
	}
	return nil, nil
}

// DeleteExpiredPrivacyTokens implements store.PrivacyTokenStore.
func (s *Store) DeleteExpiredPrivacyTokens(_ context.Context, cutoff time.Time) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n int64
	if s.misc == nil {
		return 0, nil
	}
	for user, t := range s.misc.tokens {
		if t.Timestamp.Before(cutoff) {
			delete(s.misc.tokens, user)
			n++
		}
	}
	return n, nil
}

// PutNCTSalt implements store.NCTSaltStore.
func (s *Store) PutNCTSalt(_ context.Context, salt []byte) error {
	r, unlock := s.more()
	defer unlock()
	r.salt = salt
	return nil
}

// GetNCTSalt implements store.NCTSaltStore.
func (s *Store) GetNCTSalt(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.misc == nil {
		return nil, nil
	}
	return s.misc.salt, nil
}

// DeleteNCTSalt implements store.NCTSaltStore.
func (s *Store) DeleteNCTSalt(context.Context) error {
	r, unlock := s.more()
	defer unlock()
	r.salt = nil
	return nil
}

// GetBufferedEvent implements store.EventBuffer; absent is nil, nil.
func (s *Store) GetBufferedEvent(_ context.Context, hash [32]byte) (*store.BufferedEvent, error) {
	r, unlock := s.more()
	defer unlock()
	if e, ok := r.buffered[hash]; ok {
		return &e, nil
	}
	return nil, nil
}

// PutBufferedEvent implements store.EventBuffer. At its bound an arbitrary
// older event makes room.
func (s *Store) PutBufferedEvent(_ context.Context, hash [32]byte, plaintext []byte, serverTime time.Time) error {
	r, unlock := s.more()
	defer unlock()
	if len(r.buffered) >= maxBuffered {
		for old := range r.buffered {
			delete(r.buffered, old)
			break
		}
	}
	put(&r.buffered, hash, store.BufferedEvent{Plaintext: plaintext, InsertTime: time.Now(), ServerTime: serverTime})
	return nil
}

// DoDecryptionTxn implements store.EventBuffer. Memory needs no transaction.
func (s *Store) DoDecryptionTxn(ctx context.Context, fn func(context.Context) error) error {
	return fn(ctx)
}

// ClearBufferedEventPlaintext implements store.EventBuffer.
func (s *Store) ClearBufferedEventPlaintext(_ context.Context, hash [32]byte) error {
	r, unlock := s.more()
	defer unlock()
	if e, ok := r.buffered[hash]; ok {
		e.Plaintext = nil
		r.buffered[hash] = e
	}
	return nil
}

// DeleteOldBufferedHashes implements store.EventBuffer; the bound does it here.
func (s *Store) DeleteOldBufferedHashes(context.Context) error { return nil }

// GetOutgoingEvent implements store.EventBuffer.
func (s *Store) GetOutgoingEvent(_ context.Context, chat, alt types.JID, id types.MessageID) (string, []byte, error) {
	r, unlock := s.more()
	defer unlock()
	for _, c := range []types.JID{chat, alt} {
		if e, ok := r.outgoing[outgoingKey{c, id}]; ok {
			return e.format, e.data, nil
		}
	}
	return "", nil, errNoEvent
}

// AddOutgoingEvent implements store.EventBuffer; the oldest makes room.
func (s *Store) AddOutgoingEvent(_ context.Context, chat types.JID, id types.MessageID, format string, data []byte) error {
	r, unlock := s.more()
	defer unlock()
	k := outgoingKey{chat, id}
	if _, ok := r.outgoing[k]; !ok {
		r.outgoingAge = append(r.outgoingAge, k)
	}
	put(&r.outgoing, k, outgoingEvent{format, data})
	if len(r.outgoingAge) > maxOutgoing {
		delete(r.outgoing, r.outgoingAge[0])
		r.outgoingAge = r.outgoingAge[1:]
	}
	return nil
}

// DeleteOldOutgoingEvents implements store.EventBuffer; the bound does it here.
func (s *Store) DeleteOldOutgoingEvents(context.Context) error { return nil }

// PutLIDMapping implements store.LIDStore.
func (s *Store) PutLIDMapping(_ context.Context, lid, pn types.JID) error {
	s.lids.mu.Lock()
	defer s.lids.mu.Unlock()
	put(&s.lids.byPN, pn.User, lid.User)
	put(&s.lids.byLID, lid.User, pn.User)
	return nil
}

// PutManyLIDMappings implements store.LIDStore.
func (s *Store) PutManyLIDMappings(ctx context.Context, mappings []store.LIDMapping) error {
	for _, m := range mappings {
		if err := s.PutLIDMapping(ctx, m.LID, m.PN); err != nil {
			return err
		}
	}
	return nil
}

// GetPNForLID implements store.LIDStore; absent is empty. The device number stays.
func (s *Store) GetPNForLID(_ context.Context, lid types.JID) (types.JID, error) {
	s.lids.mu.RLock()
	defer s.lids.mu.RUnlock()
	if pn, ok := s.lids.byLID[lid.User]; ok {
		return types.JID{User: pn, Device: lid.Device, Server: types.DefaultUserServer}, nil
	}
	return types.EmptyJID, nil
}

// GetLIDForPN implements store.LIDStore; absent is empty. The device number stays.
func (s *Store) GetLIDForPN(_ context.Context, pn types.JID) (types.JID, error) {
	s.lids.mu.RLock()
	defer s.lids.mu.RUnlock()
	if lid, ok := s.lids.byPN[pn.User]; ok {
		return types.JID{User: lid, Device: pn.Device, Server: types.HiddenUserServer}, nil
	}
	return types.EmptyJID, nil
}

// GetManyLIDsForPNs implements store.LIDStore; absent ones are left out.
func (s *Store) GetManyLIDsForPNs(ctx context.Context, pns []types.JID) (map[types.JID]types.JID, error) {
	out := make(map[types.JID]types.JID, len(pns))
	for _, pn := range pns {
		if lid, err := s.GetLIDForPN(ctx, pn); err == nil && !lid.IsEmpty() {
			out[pn] = lid
		}
	}
	return out, nil
}
