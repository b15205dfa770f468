package wasim

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"go.mau.fi/libsignal/ecc"
	"google.golang.org/protobuf/proto"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waAdv"
	"go.mau.fi/whatsmeow/proto/waWa6"
	"go.mau.fi/whatsmeow/types"
)

// clientPayload is what a client sends to log in or to register.
type clientPayload = waWa6.ClientPayload

// refCount is how many refs a pair-device has: one QR text each.
const refCount = 6

// pairing is a socket that waits to be scanned.
type pairing struct {
	conn     *conn
	noise    [32]byte
	reg      *waWa6.ClientPayload_DevicePairingRegistrationData
	refs     []string
	acked    bool // the client has taken the refs
	scanned  bool
	device   *Device
	details  []byte // signed device identity, as the client must sign it
	iq       string // id of the pair-success
	by       string
	over     bool
	finished chan error // buffered, one result
}

// Phone is the simulated phone of an account.
type Phone struct{ u *user }

// Phone returns the phone of a number, made on first use. A number has 5 to
// 15 digits, what else is in it is ignored; anything else is a programming
// error and panics.
func (s *Server) Phone(number string) *Phone {
	p, err := s.phone(number)
	if err != nil {
		panic(err)
	}
	return p
}

func (s *Server) phone(number string) (*Phone, error) {
	number, err := digits(number)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Phone{s.user(number)}, nil
}

// Number is the account's phone number.
func (p *Phone) Number() string { return p.u.number }

// Devices are the linked devices of the account.
func (p *Phone) Devices() []*Device {
	p.u.s.mu.Lock()
	defer p.u.s.mu.Unlock()
	out, _ := p.u.s.live(p.u.number)
	return out
}

// Contact is the same person as somebody to write to and from.
func (p *Phone) Contact() *Contact { return &Contact{p.u} }

// qr is what a QR text says.
type qr struct {
	ref                  string
	noise, identity, adv []byte
}

// parseQR reads a QR text, with the link in front or without.
func parseQR(code string) (qr, error) {
	code = strings.TrimSpace(code)
	if i := strings.IndexByte(code, '#'); i >= 0 {
		code = code[i+1:]
	}
	parts := strings.Split(code, ",")
	if len(parts) < 4 || len(parts) > 5 || parts[0] == "" {
		return qr{}, fmt.Errorf("%w: qr: has %d parts; a QR text is ref,noise,identity,secret,client", ErrInput, len(parts))
	}
	q := qr{ref: parts[0]}
	for i, into := range []*[]byte{&q.noise, &q.identity, &q.adv} {
		key, err := base64.StdEncoding.DecodeString(parts[i+1])
		if err != nil || len(key) != 32 {
			return qr{}, fmt.Errorf("%w: qr: part %d is no key of 32 bytes", ErrInput, i+2)
		}
		*into = key
	}
	return q, nil
}

// Scan reads a QR text with the phone's camera and waits until the pairing has
// ended: the device is linked when it returns, and told to restart (515).
func (p *Phone) Scan(ctx context.Context, code string) (*Device, error) {
	q, err := parseQR(code)
	if err != nil {
		return nil, err
	}
	s := p.u.s
	s.mu.Lock()
	pair := s.pairings[q.ref]
	switch {
	case pair == nil:
		s.mu.Unlock()
		return nil, fmt.Errorf("%w: qr: not shown by any socket now; take the newest", ErrNotFound)
	case pair.scanned:
		s.mu.Unlock()
		return nil, fmt.Errorf("%w: qr: is being scanned already", ErrPairing)
	case string(q.noise) != string(pair.noise[:]) || string(q.identity) != string(pair.reg.GetEIdent()):
		s.mu.Unlock()
		return nil, fmt.Errorf("%w: qr: its keys are not those of the socket that shows it", ErrPairing)
	}
	err = s.succeed(p.u, pair, q.adv, "qr")
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.paired(ctx, pair)
}

// paired waits for the end of a pairing.
func (s *Server) paired(ctx context.Context, pair *pairing) (*Device, error) {
	select {
	case err := <-pair.finished:
		if err != nil {
			return nil, err
		}
		return pair.device, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: the client has not answered: %w", ErrPairing, ctx.Err())
	case <-s.ctx.Done():
		return nil, ErrClosed
	}
}

// beginPairing shows refs to an unpaired client. The lock is held.
func (s *Server) beginPairing(c *conn, static []byte, reg *waWa6.ClientPayload_DevicePairingRegistrationData) error {
	if len(reg.GetEIdent()) != 32 || len(reg.GetERegid()) != 4 || len(reg.GetESkeyID()) != 3 || len(reg.GetESkeyVal()) != 32 || len(reg.GetESkeySig()) != 64 {
		return fmt.Errorf("%w: registration lacks keys", errHandshake)
	}
	pub := append([]byte{ecc.DjbType}, reg.GetESkeyVal()...)
	if !ecc.VerifySignature(ecc.NewDjbECPublicKey([32]byte(reg.GetEIdent())), pub, [64]byte(reg.GetESkeySig())) {
		return fmt.Errorf("%w: the signed prekey's signature is wrong", errHandshake)
	}
	p := &pairing{conn: c, noise: [32]byte(static), reg: reg, finished: make(chan error, 1)}
	refs := make([]waBinary.Node, 0, refCount)
	for range refCount {
		var raw [48]byte
		_, _ = rand.Read(raw[:])
		ref := "2@" + base64.StdEncoding.EncodeToString(raw[:])
		p.refs = append(p.refs, ref)
		s.pairings[ref] = p
		refs = append(refs, waBinary.Node{Tag: "ref", Content: []byte(ref)})
	}
	c.pairing, c.rec.Pairing = p, true
	c.send(waBinary.Node{
		Tag: "iq", Attrs: waBinary.Attrs{"from": types.ServerJID, "type": "set", "id": s.iqID(), "xmlns": "md"},
		Content: []waBinary.Node{{Tag: "pair-device", Content: refs}},
	})
	expire := time.AfterFunc(s.opt.PairingTime, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		c.end("not scanned in time", streamEnd())
	})
	c.timers = append(c.timers, expire)
	s.notify()
	return nil
}

// iqID is a fresh id for an iq of ours. The lock is held.
func (s *Server) iqID() string { return fmt.Sprintf("wasim-%d", s.next()) }

// dropPairing forgets a pairing whose socket is gone. The lock is held.
func (s *Server) dropPairing(p *pairing, err error) {
	for _, ref := range p.refs {
		delete(s.pairings, ref)
	}
	for code, cp := range s.codes {
		if cp.pair == p {
			delete(s.codes, code)
		}
	}
	if p.scanned {
		s.finishPairing(p, err)
	}
}

// finishPairing reports a result, once. The lock is held.
func (s *Server) finishPairing(p *pairing, err error) {
	if p.over {
		return
	}
	p.over = true
	p.finished <- err
	rec := Pairing{Account: p.device.user.number, Device: p.device.jid.String(), By: p.by, At: s.opt.Now()}
	if err != nil {
		rec.Error, rec.Device = err.Error(), ""
	}
	keep(&s.truth, s.opt.MaxRecords, &s.truth.pairings, rec)
	s.notify()
}

// newDevice numbers a device of a user; it counts once it is linked. The lock
// is held.
func (s *Server) newDevice(u *user) *Device {
	d := &Device{s: s, user: u, jid: u.pn(u.nextID), lid: u.lidJID(u.nextID)}
	u.nextID++
	if u.nextID > 255 { // a device's number is a byte on the wire
		u.nextID = 1
	}
	return d
}

// sign makes the account's statement about a device: what pair-success carries.
func (u *user) sign(d *Device) (*waAdv.ADVSignedDeviceIdentity, error) {
	details, err := proto.Marshal(&waAdv.ADVDeviceIdentity{
		RawID: proto.Uint32(uint32(d.jid.UserInt())), Timestamp: proto.Uint64(uint64(u.s.opt.Now().Unix())),
		KeyIndex: proto.Uint32(uint32(d.jid.Device)), AccountType: waAdv.ADVEncryptionType_E2EE.Enum(), DeviceType: waAdv.ADVEncryptionType_E2EE.Enum(),
	})
	if err != nil {
		return nil, err
	}
	message := append([]byte{6, 0}, details...)
	message = append(message, d.identity[:]...)
	signature := ecc.CalculateSignature(ecc.NewDjbECPrivateKey(*u.peer.store.IdentityKey.Priv), message)
	return &waAdv.ADVSignedDeviceIdentity{
		Details: details, AccountSignatureKey: u.peer.store.IdentityKey.Pub[:], AccountSignature: signature[:],
	}, nil
}

// verifyDevice checks a device's signature over the account's statement.
func verifyDevice(accountKey []byte, device *waAdv.ADVSignedDeviceIdentity, identity [32]byte) bool {
	if len(device.GetDeviceSignature()) != 64 {
		return false
	}
	message := append([]byte{6, 1}, device.GetDetails()...)
	message = append(message, identity[:]...)
	message = append(message, accountKey...)
	return ecc.VerifySignature(ecc.NewDjbECPublicKey(identity), message, [64]byte(device.GetDeviceSignature()))
}

// succeed sends pair-success. The lock is held.
func (s *Server) succeed(u *user, p *pairing, adv []byte, by string) error {
	d := s.newDevice(u)
	d.noise, d.identity = p.noise, [32]byte(p.reg.GetEIdent())
	d.regID = binary.BigEndian.Uint32(p.reg.GetERegid())
	d.skeyID = binary.BigEndian.Uint32(append([]byte{0}, p.reg.GetESkeyID()...))
	d.skey, d.skeySig = [32]byte(p.reg.GetESkeyVal()), [64]byte(p.reg.GetESkeySig())
	signed, err := u.sign(d)
	if err != nil {
		return fmt.Errorf("device identity: %w", err)
	}
	fault := s.strike(stageScan, p.conn)
	if fault != nil && fault.Kind == PairBadSignature {
		signed.AccountSignature[0] ^= 1
	}
	details, err := proto.Marshal(signed)
	if err != nil {
		return fmt.Errorf("device identity: %w", err)
	}
	mac := hmac.New(sha256.New, adv)
	mac.Write(details)
	sum := mac.Sum(nil)
	if fault != nil && fault.Kind == PairBadHMAC {
		sum[0] ^= 1
	}
	container, err := proto.Marshal(&waAdv.ADVSignedDeviceIdentityHMAC{Details: details, HMAC: sum})
	if err != nil {
		return fmt.Errorf("device identity: %w", err)
	}
	p.scanned, p.device, p.details, p.by = true, d, signed.GetDetails(), by
	if fault != nil && fault.Kind == PairDropBefore {
		p.conn.end("dropped: scan failed", streamEnd())
		s.finishPairing(p, fmt.Errorf("%w: fault %s", ErrPairing, fault.Kind))
		return nil
	}
	p.iq = s.iqID()
	now := s.opt.Now().Unix()
	p.conn.send(waBinary.Node{
		Tag: "iq", Attrs: waBinary.Attrs{"from": types.ServerJID, "type": "set", "id": p.iq, "t": now, "xmlns": "md"},
		Content: []waBinary.Node{{Tag: "pair-success", Content: []waBinary.Node{
			{Tag: "device-identity", Content: container},
			{Tag: "device", Attrs: waBinary.Attrs{"jid": d.jid, "lid": d.lid}},
			{Tag: "platform", Attrs: waBinary.Attrs{"name": "android"}},
		}}},
	})
	s.notify()
	return nil
}

// pairAnswer takes the client's answer to pair-success.
func (c *conn) pairAnswer(n *waBinary.Node) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	p := c.pairing
	if p == nil || p.iq == "" || text(n, "id") != p.iq {
		if p != nil {
			p.acked = true
		}
		return
	}
	if text(n, "type") != "result" {
		e := n.GetChildByTag("error")
		s.finishPairing(p, fmt.Errorf("%w: the client refused with %s %s", ErrPairing, text(&e, "code"), text(&e, "text")))
		return
	}
	var device waAdv.ADVSignedDeviceIdentity
	err := proto.Unmarshal(content(n.GetChildByTag("pair-device-sign", "device-identity")), &device)
	switch {
	case err != nil || string(device.GetDetails()) != string(p.details):
		s.anomalyLocked(c, "signature", "pair-device-sign is not about this pairing")
		s.finishPairing(p, fmt.Errorf("%w: pair-device-sign is not about this pairing", ErrPairing))
		c.end("pairing failed", streamError(401, ""))
		return
	case !verifyDevice(p.device.user.peer.store.IdentityKey.Pub[:], &device, p.device.identity):
		s.anomalyLocked(c, "signature", "the device's signature is wrong")
		s.finishPairing(p, fmt.Errorf("%w: the device's signature is wrong", ErrPairing))
		c.end("pairing failed", streamError(401, ""))
		return
	}
	d := p.device
	d.user.devices[d.jid.Device] = d
	c.rec.Device = d.jid.String()
	s.finishPairing(p, nil)
	if f := s.strike(stagePaired, c); f != nil {
		c.retire("paired, dropped without 515")
		return
	}
	c.end("paired", streamError(515, ""))
}
