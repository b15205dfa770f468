package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// outgoingLife is how long sent plaintexts are kept for retry receipts.
const outgoingLife = 7 * 24 * time.Hour

// secret is the record of a message secret.
type secret struct {
	Sender string `json:"sender"`
	Key    []byte `json:"key"`
}

func (d *Device) secretKey(chat, sender types.JID, id types.MessageID) state.Key {
	return d.key(state.KindSecret, d.blind("secret", chat.String()+"\x00"+sender.String()+"\x00"+id))
}

func (d *Device) secretChange(chat, sender types.JID, id types.MessageID, key []byte) change {
	chat, sender = chat.ToNonAD(), sender.ToNonAD()
	return change{key: d.secretKey(chat, sender, id), absent: true, early: true,
		value: encodeJSON(secret{sender.String(), key})}
}

// PutMessageSecret keeps the first secret that is put for a message. It is not
// looked up first: the commit says whether there was one.
func (s *libraryStore) PutMessageSecret(ctx context.Context, chat, sender types.JID, id types.MessageID, key []byte) error {
	d := s.d
	if err := d.check(); err != nil {
		return err
	}
	c := d.secretChange(chat, sender, id, key)
	if _, found, known := d.cache.get(c.key); known && found {
		return nil
	}
	return d.write(ctx, c)
}

// PutMessageSecrets is PutMessageSecret for many; incomplete ones are left out.
func (s *libraryStore) PutMessageSecrets(ctx context.Context, inserts []store.MessageSecretInsert) error {
	d := s.d
	if err := d.check(); err != nil {
		return err
	}
	staged := newUnit(brief, 0)
	var wanted []state.Key
	for _, in := range inserts {
		if in.Chat.IsEmpty() || in.Sender.IsEmpty() || in.ID == "" || len(in.Secret) == 0 {
			continue
		}
		c := d.secretChange(in.Chat, in.Sender, in.ID, in.Secret)
		if _, again := staged.peek(c.key); !again {
			staged.stage(c)
			wanted = append(wanted, c.key)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	have, err := d.getMany(ctx, d.unit(ctx), wanted)
	if err != nil {
		return err
	}
	var missing []change
	for _, c := range staged.changes() {
		if _, ok := have[c.key]; !ok {
			c.absent = len(wanted) == 1
			missing = append(missing, c)
		}
	}
	if len(missing) > state.MaxItems/2 {
		return d.apply(ctx, missing, journal.Batch{}, false)
	}
	return d.write(ctx, missing...)
}

// GetMessageSecret finds a secret by phone numbers and by LIDs, and returns the
// sender that it was stored under.
func (s *libraryStore) GetMessageSecret(ctx context.Context, chat, sender types.JID, id types.MessageID) ([]byte, types.JID, error) {
	d := s.d
	chats, err := d.both(ctx, chat.ToNonAD())
	if err != nil {
		return nil, types.JID{}, err
	}
	senders, err := d.both(ctx, sender.ToNonAD())
	if err != nil {
		return nil, types.JID{}, err
	}
	var wanted []state.Key
	for _, c := range chats {
		for _, f := range senders {
			wanted = append(wanted, d.secretKey(c, f, id))
		}
	}
	got, err := d.getMany(ctx, d.unit(ctx), wanted)
	if err != nil {
		return nil, types.JID{}, err
	}
	for _, key := range wanted {
		value, ok := got[key]
		if !ok {
			continue
		}
		found, err := decodeJSON[secret](d, value)
		if err != nil {
			return nil, types.JID{}, err
		}
		from, err := types.ParseJID(found.Sender)
		if err != nil {
			return nil, types.JID{}, d.fail(fmt.Errorf("%w: the sender of a message secret is not a JID", state.ErrCorrupt))
		}
		return found.Key, from, nil
	}
	return nil, types.JID{}, nil
}

// both returns a JID and the same user's other one, if that is known.
func (d *Device) both(ctx context.Context, jid types.JID) ([]types.JID, error) {
	other, err := d.alternate(ctx, jid)
	if err != nil || other.IsEmpty() {
		return []types.JID{jid}, err
	}
	return []types.JID{jid, other}, nil
}

// token is the record of a privacy token; times are Unix seconds.
type token struct {
	Token     []byte `json:"token"`
	Timestamp int64  `json:"timestamp"`
	Sender    *int64 `json:"sender,omitempty"`
}

func (d *Device) tokenKey(user types.JID) state.Key {
	return d.key(state.KindPrivacyToken, d.blind("jid", user.String()))
}

// PutPrivacyTokens stores tokens that are not older than what is there. A token
// without a sender timestamp keeps the one that is there.
func (s *libraryStore) PutPrivacyTokens(ctx context.Context, tokens ...store.PrivacyToken) error {
	d := s.d
	d.survivable.Lock()
	defer d.survivable.Unlock()
	for _, t := range tokens {
		key := d.tokenKey(t.User.ToNonAD())
		value, ok, err := d.get(ctx, nil, key)
		if err != nil {
			return err
		}
		next := token{Token: t.Token, Timestamp: t.Timestamp.Unix()}
		if !t.SenderTimestamp.IsZero() {
			at := t.SenderTimestamp.Unix()
			next.Sender = &at
		}
		if ok {
			old, err := decodeJSON[token](d, value)
			if err != nil {
				return err
			}
			if old.Timestamp > next.Timestamp {
				continue
			}
			if next.Sender == nil {
				next.Sender = old.Sender
			}
		}
		if err := d.lazily(ctx, change{key: key, value: encodeJSON(next)}); err != nil {
			return err
		}
	}
	return d.check()
}

// GetPrivacyToken finds a token by phone number and by LID, the newer of both.
func (s *libraryStore) GetPrivacyToken(ctx context.Context, user types.JID) (*store.PrivacyToken, error) {
	d := s.d
	user = user.ToNonAD()
	candidates, err := d.both(ctx, user)
	if err != nil {
		return nil, err
	}
	wanted := make([]state.Key, len(candidates))
	for i, c := range candidates {
		wanted[i] = d.tokenKey(c)
	}
	got, err := d.getMany(ctx, nil, wanted)
	if err != nil {
		return nil, err
	}
	var newest *token
	for _, key := range wanted {
		value, ok := got[key]
		if !ok {
			continue
		}
		t, err := decodeJSON[token](d, value)
		if err != nil {
			return nil, err
		}
		if newest == nil || t.Timestamp > newest.Timestamp {
			newest = t
		}
	}
	if newest == nil {
		return nil, nil
	}
	out := &store.PrivacyToken{User: user, Token: bytes.Clone(newest.Token), Timestamp: time.Unix(newest.Timestamp, 0)}
	if newest.Sender != nil {
		out.SenderTimestamp = time.Unix(*newest.Sender, 0)
	}
	return out, nil
}

// DeleteExpiredPrivacyTokens returns how many tokens older than cutoff there
// were.
func (s *libraryStore) DeleteExpiredPrivacyTokens(ctx context.Context, cutoff time.Time) (int64, error) {
	d := s.d
	d.survivable.Lock()
	defer d.survivable.Unlock()
	all, err := d.scan(ctx, state.KindPrivacyToken, "")
	if err != nil {
		return 0, err
	}
	var old []change
	for _, r := range all {
		t, err := decodeJSON[token](d, r.value)
		if err != nil {
			return 0, err
		}
		if t.Timestamp < cutoff.Unix() {
			old = append(old, change{key: r.key, del: true})
		}
	}
	return int64(len(old)), d.apply(ctx, old, journal.Batch{}, false)
}

func (d *Device) saltKey() state.Key { return d.key(state.KindNCT, "salt") }

func (s *libraryStore) PutNCTSalt(ctx context.Context, salt []byte) error {
	return s.d.write(ctx, change{key: s.d.saltKey(), value: bytes.Clone(salt), early: true})
}

func (s *libraryStore) GetNCTSalt(ctx context.Context) ([]byte, error) {
	value, _, err := s.d.get(ctx, s.d.unit(ctx), s.d.saltKey())
	return bytes.Clone(value), err
}

func (s *libraryStore) DeleteNCTSalt(ctx context.Context) error {
	return s.d.write(ctx, change{key: s.d.saltKey(), del: true, early: true})
}

// errNoOutgoing is what the library expects where a sent message is not known.
var errNoOutgoing = errors.New("the sent message is not known any more")

// outgoing is the record of a sent message.
type outgoing struct {
	Format    string `json:"format"`
	Plaintext []byte `json:"plaintext"`
}

func (d *Device) outgoingKey(chat types.JID, id types.MessageID) state.Key {
	return d.key(state.KindOutgoing, d.blind("outgoing", chat.String()+"\x00"+id))
}

// GetOutgoingEvent finds a sent message under either of two chats; its absence is
// an error.
func (s *libraryStore) GetOutgoingEvent(ctx context.Context, chat, altChat types.JID, id types.MessageID) (string, []byte, error) {
	d := s.d
	wanted := []state.Key{d.outgoingKey(chat, id)}
	if altChat != chat {
		wanted = append(wanted, d.outgoingKey(altChat, id))
	}
	got, err := d.getMany(ctx, d.unit(ctx), wanted)
	if err != nil {
		return "", nil, err
	}
	for _, key := range wanted {
		if value, ok := got[key]; ok {
			o, err := decodeJSON[outgoing](d, value)
			if err != nil {
				return "", nil, err
			}
			return o.Format, o.Plaintext, nil
		}
	}
	return "", nil, errNoOutgoing
}

// AddOutgoingEvent keeps a sent message for a week. Within a send of ours it is
// committed with the ratchets.
func (s *libraryStore) AddOutgoingEvent(ctx context.Context, chat types.JID, id types.MessageID, format string, plaintext []byte) error {
	d := s.d
	return d.write(ctx, change{key: d.outgoingKey(chat, id), value: encodeJSON(outgoing{format, plaintext}),
		expires: d.cfg.Now().Add(outgoingLife)})
}

// DeleteOldOutgoingEvents has nothing to do: the records expire by themselves.
func (s *libraryStore) DeleteOldOutgoingEvents(context.Context) error {
	s.d.cache.clearKind(state.KindOutgoing)
	return s.d.check()
}
