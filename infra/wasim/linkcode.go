package wasim

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/pbkdf2"
	"crypto/sha256"
	"fmt"
	"strings"

	"golang.org/x/crypto/curve25519"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/util/keys"
)

// codePairing is a client that waits for its eight characters to be typed.
// The characters themselves never pass the server.
type codePairing struct {
	pair    *pairing
	ref     string
	number  string
	wrapped []byte // the client's ephemeral key under the code: salt 32, iv 16, key 32

	// set once the code was typed
	user      *user
	ephemeral *keys.KeyPair
	shared    []byte
}

// linkRounds is how often the code is hashed.
const linkRounds = 2 << 16

// onLinkCode serves the two steps of a pairing by code.
func (c *conn) onLinkCode(iq, reg *waBinary.Node) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.pairing == nil {
		c.fail(iq, 403, "forbidden")
		return
	}
	switch text(reg, "stage") {
	case "companion_hello":
		wrapped := content(reg.GetChildByTag("link_code_pairing_wrapped_companion_ephemeral_pub"))
		display := string(content(reg.GetChildByTag("companion_platform_display")))
		number := jidOf(reg, "jid").User
		if _, err := digits(number); err != nil || len(wrapped) != 80 || !strings.Contains(display, " (") {
			c.fail(iq, 400, "bad-request")
			return
		}
		cp := &codePairing{pair: c.pairing, ref: s.iqID(), number: number, wrapped: wrapped}
		for ref, old := range s.codes { // a new code replaces this socket's old one
			if old.pair == c.pairing {
				delete(s.codes, ref)
			}
		}
		s.codes[cp.ref] = cp
		c.result(iq, waBinary.Node{Tag: "link_code_companion_reg", Attrs: waBinary.Attrs{"stage": "companion_hello"},
			Content: []waBinary.Node{{Tag: "link_code_pairing_ref", Content: []byte(cp.ref)}}})
		s.notify()
	case "companion_finish":
		cp := s.codes[string(content(reg.GetChildByTag("link_code_pairing_ref")))]
		if cp == nil || cp.pair != c.pairing || cp.shared == nil {
			c.fail(iq, 404, "item-not-found")
			return
		}
		c.result(iq)
		adv, err := cp.secret(content(reg.GetChildByTag("link_code_pairing_wrapped_key_bundle")), content(reg.GetChildByTag("companion_identity_public")))
		cp.pair.by, cp.pair.scanned = "code", true
		if err == nil {
			err = s.succeed(cp.user, cp.pair, adv, "code")
		}
		if err != nil {
			cp.pair.device = s.newDevice(cp.user)
			s.anomalyLocked(c, "signature", err.Error())
			s.finishPairing(cp.pair, err)
			c.end("pairing failed", streamEnd())
		}
	default:
		c.fail(iq, 400, "bad-request")
	}
}

// EnterCode types the eight characters that a client shows (with or without
// the dash) on the phone, and waits until the pairing has ended.
func (p *Phone) EnterCode(ctx context.Context, code string) (*Device, error) {
	code = strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(code))
	if len(code) != 8 {
		return nil, fmt.Errorf("%w: code: has %d characters; 8 are needed", ErrInput, len(code))
	}
	s := p.u.s
	s.mu.Lock()
	var cp *codePairing
	for _, v := range s.codes {
		if v.number == p.u.number && v.shared == nil {
			cp = v
		}
	}
	s.mu.Unlock()
	if cp == nil {
		return nil, fmt.Errorf("%w: code: nobody asks for one of this number now", ErrNotFound)
	}
	companion, err := unwrapKey(code, cp.wrapped)
	if err != nil {
		return nil, fmt.Errorf("code: %w", err)
	}
	own := keys.NewKeyPair()
	shared, err := curve25519.X25519(own.Priv[:], companion)
	if err != nil {
		return nil, fmt.Errorf("%w: code: %w", ErrPairing, err)
	}
	salt := junk(48)
	wrapped, err := wrapKey(code, salt, own.Pub[:])
	if err != nil {
		return nil, fmt.Errorf("code: %w", err)
	}
	s.mu.Lock()
	cp.user, cp.ephemeral, cp.shared = p.u, own, shared
	cp.pair.conn.send(waBinary.Node{
		Tag: "notification", Attrs: waBinary.Attrs{"from": types.ServerJID, "type": "link_code_companion_reg", "id": s.iqID(), "t": s.opt.Now().Unix()},
		Content: []waBinary.Node{{Tag: "link_code_companion_reg", Attrs: waBinary.Attrs{"stage": "primary_hello"}, Content: []waBinary.Node{
			{Tag: "link_code_pairing_ref", Content: []byte(cp.ref)},
			{Tag: "link_code_pairing_wrapped_primary_ephemeral_pub", Content: wrapped},
			{Tag: "primary_identity_pub", Content: p.u.peer.store.IdentityKey.Pub[:]},
		}}},
	})
	s.mu.Unlock()
	return s.paired(ctx, cp.pair)
}

// wrapKey and unwrapKey seal a public key under the code: salt, iv, key.
func wrapKey(code string, saltIV, pub []byte) ([]byte, error) {
	key, err := pbkdf2.Key(sha256.New, code, saltIV[:32], linkRounds, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 80)
	copy(out, saltIV)
	cipher.NewCTR(block, saltIV[32:48]).XORKeyStream(out[48:], pub)
	return out, nil
}

func unwrapKey(code string, wrapped []byte) ([]byte, error) {
	out, err := wrapKey(code, wrapped[:48], wrapped[48:80])
	if err != nil {
		return nil, err
	}
	return out[48:], nil
}

// secret opens the client's key bundle and derives the secret that
// authenticates pair-success. A wrong code shows here.
func (cp *codePairing) secret(bundle, companion []byte) ([]byte, error) {
	if len(bundle) < 32+12+16 || len(companion) != 32 {
		return nil, fmt.Errorf("%w: code: key bundle is too short", ErrPairing)
	}
	key, err := hkdf.Key(sha256.New, cp.shared, bundle[:32], "link_code_pairing_key_bundle_encryption_key", 32)
	if err != nil {
		return nil, err
	}
	plain, err := mustGCM(key).Open(nil, bundle[32:44], bundle[44:], nil)
	if err != nil {
		return nil, fmt.Errorf("%w: code: wrong characters", ErrPairing)
	}
	own := cp.user.peer.store.IdentityKey
	if len(plain) != 96 || string(plain[:32]) != string(companion) || string(plain[32:64]) != string(own.Pub[:]) {
		return nil, fmt.Errorf("%w: code: key bundle is about other keys", ErrPairing)
	}
	identity, err := curve25519.X25519(own.Priv[:], companion)
	if err != nil {
		return nil, err
	}
	input := append(append(append([]byte{}, cp.shared...), identity...), plain[64:]...)
	return hkdf.Key(sha256.New, input, nil, "adv_secret", 32)
}
