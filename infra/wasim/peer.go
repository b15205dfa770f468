package wasim

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.mau.fi/libsignal/ecc"
	"go.mau.fi/libsignal/groups"
	"go.mau.fi/libsignal/keys/identity"
	libprekey "go.mau.fi/libsignal/keys/prekey"
	"go.mau.fi/libsignal/protocol"
	"go.mau.fi/libsignal/session"
	"go.mau.fi/libsignal/util/optional"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/infra/wasim/memstore"
)

var serializer = store.SignalProtobufSerializer

// maxSent bounds what a peer can send again when asked.
const maxSent = 4096

// peer is the Signal end of a phone: device 0 of a user. Its mutex serialises
// its ratchets and is taken before Server.mu, never inside it.
type peer struct {
	user  *user
	store *store.Device

	mu    sync.Mutex
	sent  map[string]*sentMessage
	order []string
	asked map[string]int  // retries asked for, by sender and id
	given map[string]bool // group|device that has our sender key
}

// sentMessage is kept in case a device asks for it again.
type sentMessage struct {
	plain []byte
	chat  types.JID // empty, or the group
	by    string
}

// newPeer makes one with fresh keys.
func newPeer(u *user) *peer { return &peer{user: u, store: memstore.New()} }

// bundle is what is needed to begin a Signal session with a device.
type bundle struct {
	regID    uint32
	identity [32]byte
	one      *preKey // nil if none is left
	skeyID   uint32
	skey     [32]byte
	skeySig  [64]byte
}

// bundle hands out the keys of a phone or a linked device.
func (s *Server) bundle(jid types.JID) (bundle, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if jid.Device != 0 {
		d := s.device(jid)
		if d == nil {
			return bundle{}, false
		}
		b := bundle{regID: d.regID, identity: d.identity, skeyID: d.skeyID, skey: d.skey, skeySig: d.skeySig}
		if k, ok := d.takePreKey(); ok {
			b.one = &k
		}
		return b, true
	}
	u := s.find(jid)
	if u == nil {
		return bundle{}, false
	}
	return u.peer.bundle(), true
}

// bundle is the peer's own, with a fresh one-time key.
func (p *peer) bundle() bundle {
	d := p.store
	b := bundle{regID: d.RegistrationID, identity: *d.IdentityKey.Pub,
		skeyID: d.SignedPreKey.KeyID, skey: *d.SignedPreKey.Pub, skeySig: *d.SignedPreKey.Signature}
	if k, err := d.PreKeys.GenOnePreKey(context.Background()); err == nil {
		b.one = &preKey{id: k.KeyID, pub: *k.Pub}
	}
	return b
}

// library turns it into libsignal's form.
func (b bundle) library(device uint32) *libprekey.Bundle {
	key := identity.NewKey(ecc.NewDjbECPublicKey(b.identity))
	signed := ecc.NewDjbECPublicKey(b.skey)
	if b.one == nil {
		return libprekey.NewBundle(b.regID, device, optional.NewEmptyUint32(), b.skeyID, nil, signed, b.skeySig, key)
	}
	return libprekey.NewBundle(b.regID, device, optional.NewOptionalUint32(b.one.id), b.skeyID,
		ecc.NewDjbECPublicKey(b.one.pub), signed, b.skeySig, key)
}

// pad adds 1 to 15 bytes, each of which says how many.
func pad(plain []byte) []byte {
	var r [1]byte
	_, _ = rand.Read(r[:])
	n := r[0]&0xf | 1
	out := slices.Clone(plain)
	for range n {
		out = append(out, n)
	}
	return out
}

// unpad takes them off again.
func unpad(plain []byte) ([]byte, error) {
	if len(plain) == 0 {
		return nil, errors.New("empty plaintext")
	}
	n := int(plain[len(plain)-1])
	if n == 0 || n > len(plain) {
		return nil, errors.New("wrong padding")
	}
	return plain[:len(plain)-n], nil
}

// encrypt seals for one device. fresh begins a new session with that bundle;
// without one, a session is begun only if there is none. The peer is locked.
func (p *peer) encrypt(d *Device, plain []byte, fresh *bundle) (kind string, sealed []byte, err error) {
	ctx := context.Background()
	address := d.lid.SignalAddress()
	builder := session.NewBuilderFromSignal(p.store, address, serializer)
	if fresh == nil {
		has, err := p.store.ContainsSession(ctx, address)
		if err != nil {
			return "", nil, err
		}
		if !has {
			b, ok := d.s.bundle(d.jid)
			if !ok {
				return "", nil, fmt.Errorf("%w: device %s", ErrNotFound, d.jid)
			}
			fresh = &b
		}
	}
	if fresh != nil {
		if err := builder.ProcessBundle(ctx, fresh.library(uint32(d.jid.Device))); err != nil {
			return "", nil, fmt.Errorf("begin session: %w", err)
		}
	}
	msg, err := session.NewCipher(builder, address).Encrypt(ctx, pad(plain))
	if err != nil {
		return "", nil, fmt.Errorf("encrypt: %w", err)
	}
	kind = "msg"
	if msg.Type() == protocol.PREKEY_TYPE {
		kind = "pkmsg"
	}
	return kind, msg.Serialize(), nil
}

// decrypt opens what a device sent. The peer is locked.
func (p *peer) decrypt(from *Device, kind string, group types.JID, sealed []byte) (plain []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("decrypt: %v", r)
		}
	}()
	ctx := context.Background()
	address := from.lid.SignalAddress()
	switch kind {
	case "pkmsg":
		msg, err := protocol.NewPreKeySignalMessageFromBytes(sealed, serializer.PreKeySignalMessage, serializer.SignalMessage)
		if err != nil {
			return nil, fmt.Errorf("parse: %w", err)
		}
		err = p.keepingArchive(address.String(), func() (err error) {
			plain, err = p.cipher(address).DecryptMessage(ctx, msg)
			return err
		})
		if err != nil {
			return nil, err
		}
	case "msg":
		msg, err := protocol.NewSignalMessageFromBytes(sealed, serializer.SignalMessage)
		if err != nil {
			return nil, fmt.Errorf("parse: %w", err)
		}
		err = p.keepingArchive(address.String(), func() (err error) {
			plain, err = p.cipher(address).Decrypt(ctx, msg)
			return err
		})
		if err != nil {
			return nil, err
		}
	case "skmsg":
		msg, err := protocol.NewSenderKeyMessageFromBytes(sealed, serializer.SenderKeyMessage)
		if err != nil {
			return nil, fmt.Errorf("parse: %w", err)
		}
		builder := groups.NewGroupSessionBuilder(p.store, serializer)
		name := protocol.NewSenderKeyName(group.String(), address)
		if plain, err = groups.NewGroupCipher(builder, name, p.store).Decrypt(ctx, msg); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("unknown type %q", kind)
	}
	return unpad(plain)
}

func (p *peer) cipher(address *protocol.SignalAddress) *session.Cipher {
	return session.NewCipher(session.NewBuilderFromSignal(p.store, address, serializer), address)
}

// remember keeps what was sent in case it is asked for again. The peer is locked.
func (p *peer) remember(id string, m *sentMessage) {
	if p.sent == nil {
		p.sent = map[string]*sentMessage{}
	}
	if _, ok := p.sent[id]; !ok {
		p.order = append(p.order, id)
	}
	p.sent[id] = m
	if len(p.order) > maxSent {
		delete(p.sent, p.order[0])
		p.order = p.order[1:]
	}
}

// resend answers a device's retry receipt: the same message under the same id,
// in a new session begun with the keys of the receipt or the server's.
func (p *peer) resend(d *Device, id string, receipt *waBinary.Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.sent[id]
	if m == nil {
		return
	}
	retry := receipt.GetChildByTag("retry")
	count := retry.AttrGetter().OptionalInt("count")
	b, ok := receiptBundle(receipt)
	if !ok {
		if b, ok = p.user.s.bundle(d.jid); !ok {
			return
		}
	}
	if b.identity != d.identity {
		p.user.s.anomaly(nil, "signature", "retry receipt of "+d.jid.String()+" has another identity key")
		return
	}
	plain := m.plain
	if !m.chat.IsEmpty() {
		withKey, err := p.withSenderKey(m.chat, plain)
		if err != nil {
			return
		}
		plain = withKey
	}
	kind, sealed, err := p.encrypt(d, plain, &b)
	if err != nil {
		p.user.s.anomaly(nil, "panic", "resend: "+err.Error())
		return
	}
	p.post(d, id, m, []encoded{{kind, sealed}}, count)
}

// receiptBundle reads the keys that a retry receipt may carry.
func receiptBundle(n *waBinary.Node) (bundle, bool) {
	ks, ok := n.GetOptionalChildByTag("keys")
	if !ok {
		return bundle{}, false
	}
	reg := content(n.GetChildByTag("registration"))
	id := content(ks.GetChildByTag("identity"))
	one, okOne := readKey(ks.GetChildByTag("key"))
	signed, okSigned := readKey(ks.GetChildByTag("skey"))
	sig := content(ks.GetChildByTag("skey", "signature"))
	if len(reg) != 4 || len(id) != 32 || !okSigned || len(sig) != 64 {
		return bundle{}, false
	}
	b := bundle{regID: binary.BigEndian.Uint32(reg), identity: [32]byte(id), skeyID: signed.id, skey: signed.pub, skeySig: [64]byte(sig)}
	if okOne {
		b.one = &one
	}
	return b, true
}

func readKey(n waBinary.Node) (preKey, bool) {
	id, value := content(n.GetChildByTag("id")), content(n.GetChildByTag("value"))
	if len(id) != 3 || len(value) != 32 {
		return preKey{}, false
	}
	return preKey{id: uint32(id[0])<<16 | uint32(id[1])<<8 | uint32(id[2]), pub: [32]byte(value)}, true
}

// encoded is one enc child.
type encoded struct {
	kind   string
	sealed []byte
}

// post makes the stanza of a message and leaves it with the device's mailbox.
// The peer is locked.
func (p *peer) post(d *Device, id string, m *sentMessage, encs []encoded, retry int) {
	s := p.user.s
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := &Incoming{ID: id, Device: d.jid.String(), From: p.user.pn(0).String(), Queued: s.opt.Now(), Retry: retry}
	if f := s.strikeDevice(stageDeliver, d, p.user); f != nil {
		rec.Corrupt = true
		for _, e := range encs {
			corrupt(e)
		}
	}
	n := waBinary.Node{Tag: "message", Attrs: waBinary.Attrs{"id": id, "t": rec.Queued.Unix(), "type": "text", "notify": p.user.name}}
	switch {
	case d.user == p.user: // our own phone to its companion
		n.Attrs["from"], n.Attrs["category"] = p.user.pn(0), "peer"
	case !m.chat.IsEmpty():
		rec.Group = m.chat.String()
		n.Attrs["from"], n.Attrs["participant"] = m.chat, p.user.lidJID(0)
		n.Attrs["participant_pn"], n.Attrs["addressing_mode"] = p.user.pn(0), "lid"
	case m.by == "pn":
		n.Attrs["from"], n.Attrs["sender_lid"] = p.user.pn(0), p.user.lidJID(0)
	default:
		n.Attrs["from"], n.Attrs["sender_pn"] = p.user.lidJID(0), p.user.pn(0)
	}
	var children []waBinary.Node
	for _, e := range encs {
		enc := waBinary.Node{Tag: "enc", Attrs: waBinary.Attrs{"v": 2, "type": e.kind}, Content: e.sealed}
		if retry > 0 {
			enc.Attrs["count"] = retry
		}
		children = append(children, enc)
		if rec.Enc != "" {
			rec.Enc += "+"
		}
		rec.Enc += e.kind
	}
	n.Content = children
	keep(&s.truth, s.opt.MaxRecords, &s.truth.incoming, rec)
	d.post(&item{node: n, rec: rec})
}

// corrupt breaks a ciphertext so that it still parses: in a pkmsg the inner
// message, elsewhere the MAC or signature at its end.
func corrupt(e encoded) {
	at := len(e.sealed) - 1
	if e.kind == "pkmsg" {
		at -= 15
	}
	if at >= 0 {
		e.sealed[at] ^= 0x55
	}
}
