package wasim

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.mau.fi/libsignal/ecc"
	"golang.org/x/crypto/curve25519"
	"google.golang.org/protobuf/proto"

	"go.mau.fi/whatsmeow/proto/waCert"
	"go.mau.fi/whatsmeow/proto/waWa6"
	"go.mau.fi/whatsmeow/socket"
	"go.mau.fi/whatsmeow/util/keys"
)

// errHandshake is what a client did wrong in a handshake.
var errHandshake = errors.New("noise handshake")

// noise is the responder's side of Noise XX with 25519, AES-GCM and SHA-256 as
// WhatsApp speaks it: one nonce counter for both directions, reset by each mix.
type noise struct {
	hash, salt []byte
	key        cipher.AEAD
	count      uint32
}

// newNoise starts with the protocol's name and the client's header.
func newNoise(header []byte) *noise {
	n := &noise{hash: []byte(socket.NoiseStartPattern)}
	n.salt = n.hash
	n.key = mustGCM(n.hash)
	n.absorb(header)
	return n
}

// mustGCM makes a cipher of a key that is 32 bytes by construction.
func mustGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

// nonce is a frame counter as a GCM nonce.
func nonce(n uint32) []byte {
	iv := make([]byte, 12)
	binary.BigEndian.PutUint32(iv[8:], n)
	return iv
}

func (n *noise) absorb(data []byte) {
	h := sha256.New()
	h.Write(n.hash)
	h.Write(data)
	n.hash = h.Sum(nil)
}

func (n *noise) seal(plain []byte) []byte {
	out := n.key.Seal(nil, nonce(n.count), plain, n.hash)
	n.count++
	n.absorb(out)
	return out
}

func (n *noise) open(sealed []byte) ([]byte, error) {
	out, err := n.key.Open(nil, nonce(n.count), sealed, n.hash)
	if err != nil {
		return nil, fmt.Errorf("%w: a part does not open", errHandshake)
	}
	n.count++
	n.absorb(sealed)
	return out, nil
}

// mix derives the next salt and key from a Diffie-Hellman result.
func (n *noise) mix(priv, pub []byte) error {
	secret, err := curve25519.X25519(priv, pub)
	if err != nil {
		return fmt.Errorf("%w: %w", errHandshake, err)
	}
	a, b := n.expand(secret)
	n.salt, n.key, n.count = a, mustGCM(b), 0
	return nil
}

func (n *noise) expand(secret []byte) (a, b []byte) {
	out, err := hkdf.Key(sha256.New, secret, n.salt, "", 64)
	if err != nil {
		panic(err) // only for lengths over 255 hashes
	}
	return out[:32], out[32:]
}

// respond runs the handshake over receive and send, which carry one frame's
// body each. It returns the client's static key, its payload and the ciphers:
// rx opens what the client sends, tx seals what it is sent.
func respond(id *serverKeys, chain []byte, header, hello []byte, send func([]byte) error, receive func() ([]byte, error)) (static []byte, payload *waWa6.ClientPayload, rx, tx cipher.AEAD, err error) {
	fail := func(err error) ([]byte, *waWa6.ClientPayload, cipher.AEAD, cipher.AEAD, error) {
		return nil, nil, nil, nil, err
	}
	var first waWa6.HandshakeMessage
	if err := proto.Unmarshal(hello, &first); err != nil {
		return fail(fmt.Errorf("%w: hello: %w", errHandshake, err))
	}
	ephemeral := first.GetClientHello().GetEphemeral()
	if len(ephemeral) != 32 {
		return fail(fmt.Errorf("%w: hello has no ephemeral key", errHandshake))
	}
	n := newNoise(header)
	n.absorb(ephemeral)
	own := keys.NewKeyPair()
	n.absorb(own.Pub[:])
	if err := n.mix(own.Priv[:], ephemeral); err != nil {
		return fail(err)
	}
	sealedStatic := n.seal(id.static.Pub[:])
	if err := n.mix(id.static.Priv[:], ephemeral); err != nil {
		return fail(err)
	}
	answer, err := proto.Marshal(&waWa6.HandshakeMessage{ServerHello: &waWa6.HandshakeMessage_ServerHello{
		Ephemeral: own.Pub[:], Static: sealedStatic, Payload: n.seal(chain),
	}})
	if err != nil {
		return fail(err)
	}
	if err := send(answer); err != nil {
		return fail(err)
	}
	raw, err := receive()
	if err != nil {
		return fail(err)
	}
	var finish waWa6.HandshakeMessage
	if err := proto.Unmarshal(raw, &finish); err != nil {
		return fail(fmt.Errorf("%w: finish: %w", errHandshake, err))
	}
	static, err = n.open(finish.GetClientFinish().GetStatic())
	if err != nil {
		return fail(err)
	}
	if len(static) != 32 {
		return fail(fmt.Errorf("%w: static key of %d bytes", errHandshake, len(static)))
	}
	if err := n.mix(own.Priv[:], static); err != nil {
		return fail(err)
	}
	plain, err := n.open(finish.GetClientFinish().GetPayload())
	if err != nil {
		return fail(err)
	}
	payload = &waWa6.ClientPayload{}
	if err := proto.Unmarshal(plain, payload); err != nil {
		return fail(fmt.Errorf("%w: payload: %w", errHandshake, err))
	}
	a, b := n.expand(nil)
	return static, payload, mustGCM(a), mustGCM(b), nil
}

// serverKeys is who the server is: a root, an intermediate and a static key.
type serverKeys struct {
	root, middle, static *keys.KeyPair
}

// newServerKeys derives the intermediate and static keys from the root's seed,
// so that a server with the same seed is the same server.
func newServerKeys(seed [32]byte) *serverKeys {
	key := func(label string) *keys.KeyPair {
		sum := sha256.Sum256(append([]byte("wasim "+label+" "), seed[:]...))
		sum[0] &= 248
		sum[31] = sum[31]&127 | 64
		return keys.NewKeyPairFromPrivateKey(sum)
	}
	return &serverKeys{root: key("root"), middle: key("intermediate"), static: key("static")}
}

// chain is the certificate chain for a period: the intermediate, issued by
// serial 0 (the root), and the leaf that names the static key.
func (id *serverKeys) chain(notBefore, notAfter time.Time) ([]byte, error) {
	cert := func(serial, issuer uint32, subject, signer *keys.KeyPair) (*waCert.CertChain_NoiseCertificate, error) {
		details, err := proto.Marshal(&waCert.CertChain_NoiseCertificate_Details{
			Serial: proto.Uint32(serial), IssuerSerial: proto.Uint32(issuer), Key: subject.Pub[:],
			NotBefore: proto.Uint64(uint64(notBefore.Unix())), NotAfter: proto.Uint64(uint64(notAfter.Unix())),
		})
		if err != nil {
			return nil, err
		}
		signature := ecc.CalculateSignature(ecc.NewDjbECPrivateKey(*signer.Priv), details)
		return &waCert.CertChain_NoiseCertificate{Details: details, Signature: signature[:]}, nil
	}
	middle, err := cert(1, 0, id.middle, id.root)
	if err != nil {
		return nil, err
	}
	leaf, err := cert(2, 1, id.static, id.middle)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&waCert.CertChain{Intermediate: middle, Leaf: leaf})
}
