// Package seal encrypts what Holdfast stores. A Keyset seals the records and
// credentials of one session (or, for the fleet keyset, what the fleet shares);
// a Master wraps keysets so that they can be stored beside what they seal.
//
//	master key (a file, 0600)
//	  └─ wraps ─ keyset of a session, bound to its partition
//	               ├─ AES-256-GCM ─ seals values, bound to partition, kind, id and keyset
//	               └─ HMAC-SHA256 ─ blinds addresses that would show in record ids
//
// A sealed value opens at its own place only: moved to another session, kind,
// id or keyset it is as good as damaged. What seal cannot see is an old value
// put back in its own place; pointers with versions and hashes guard those that
// matter. Destroying the wrapped keyset makes all it sealed unreadable.
//
// The cryptography is Tink's. Nonces are random.
package seal

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/holdfast-wa/holdfast/state"
)

// Overhead is how many bytes longer than its plaintext a sealed value is: the
// format, Tink's key prefix, the nonce and the tag.
const Overhead = 1 + prefixSize + 12 + 16

const (
	sealedFormat = 1
	keysetFormat = 1
	prefixSize   = 5 // Tink's: a start byte and the key's 32-bit id
	idSize       = 10
	blindSize    = 15 // 120 bits, 24 characters
)

var lower32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Master wraps keysets. Its context is authenticated: what was wrapped with one
// context does not unwrap with another. A Master is safe for concurrent use.
type Master interface {
	// Wrap encrypts a keyset.
	Wrap(ctx context.Context, plain []byte, context map[string]string) ([]byte, error)
	// Unwrap is the reverse. If the key or the context is another one or the
	// bytes are damaged the error wraps state.ErrCorrupt and says which key id
	// is wanted and which is had; if the master cannot be asked now it wraps
	// state.ErrUnavailable.
	Unwrap(ctx context.Context, wrapped []byte, context map[string]string) ([]byte, error)
	// ID names the key, without telling anything about it.
	ID() string
}

// Place is where a sealed value belongs.
type Place struct {
	Partition state.Partition
	Kind      state.Kind
	ID        string
}

// String is the place as errors name it. Record ids hold no personal data:
// addresses in them are blinded.
func (p Place) String() string {
	return fmt.Sprintf("%s of %s", state.Key{Kind: p.Kind, ID: p.ID}, p.Partition)
}

// Keyset seals and opens values. It is safe for concurrent use, and small,
// because a process holds one for each of its sessions.
type Keyset struct {
	now    atomic.Pointer[keys] // nil: see Later
	source atomic.Pointer[source]
}

// keys are what a keyset is made of.
type keys struct {
	id     string
	aead   tink.AEAD
	prf    prf.PRF
	keyIDs []uint32 // of the AEAD keys, to tell a foreign value from a damaged one
	plain  []byte   // what Wrap wraps; Tink's handles are larger and are dropped
}

func newKeyset(c *keys) *Keyset {
	k := new(Keyset)
	k.now.Store(c)
	return k
}

// NewKeyset makes a keyset with new random keys.
func NewKeyset() (*Keyset, error) {
	sealing, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("making a keyset: %w", err)
	}
	blinding, err := keyset.NewHandle(prf.HMACSHA256PRFKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("making a keyset: %w", err)
	}
	id := make([]byte, idSize)
	rand.Read(id)
	made, err := assemble(id, sealing, blinding)
	if err != nil {
		return nil, err
	}
	return newKeyset(made), nil
}

// AddKey returns a keyset that seals with a new key and still opens what the
// old keys sealed. Its id and its blinding stay, so record ids do too. The
// caller wraps and stores it before sealing with it.
func (k *Keyset) AddKey() (*Keyset, error) {
	have, err := k.keys()
	if err != nil {
		return nil, err
	}
	id, sealing, blinding, err := disassemble(have.plain)
	if err != nil {
		return nil, err
	}
	m := keyset.NewManagerFromHandle(sealing)
	primary, err := m.Add(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("adding a key: %w", err)
	}
	if err := m.SetPrimary(primary); err != nil {
		return nil, fmt.Errorf("adding a key: %w", err)
	}
	if sealing, err = m.Handle(); err != nil {
		return nil, fmt.Errorf("adding a key: %w", err)
	}
	made, err := assemble(id, sealing, blinding)
	if err != nil {
		return nil, err
	}
	return newKeyset(made), nil
}

// Wrap encrypts the keyset for storage in the partition p, and there only.
func (k *Keyset) Wrap(ctx context.Context, m Master, p state.Partition) ([]byte, error) {
	have, err := k.keys()
	if err != nil {
		return nil, err
	}
	wrapped, err := m.Wrap(ctx, have.plain, wrapContext(p))
	if err != nil {
		return nil, fmt.Errorf("wrapping the keyset of %s: %w", p, err)
	}
	return wrapped, nil
}

// Unwrap reads a keyset that was wrapped for the partition p.
func Unwrap(ctx context.Context, m Master, p state.Partition, wrapped []byte) (*Keyset, error) {
	plain, err := m.Unwrap(ctx, wrapped, wrapContext(p))
	if err != nil {
		return nil, fmt.Errorf("unwrapping the keyset of %s: %w", p, err)
	}
	id, sealing, blinding, err := disassemble(plain)
	if err != nil {
		return nil, fmt.Errorf("unwrapping the keyset of %s: %w", p, err)
	}
	made, err := assemble(id, sealing, blinding)
	if err != nil {
		return nil, fmt.Errorf("unwrapping the keyset of %s: %w", p, err)
	}
	return newKeyset(made), nil
}

// wrapContext is what binds a wrapped keyset to its partition.
func wrapContext(p state.Partition) map[string]string {
	return map[string]string{"holdfast:partition": string(p), "holdfast:purpose": "keyset"}
}

// ID names the keyset. It is random and no secret. That of a keyset that is not
// there yet is empty.
func (k *Keyset) ID() string {
	if c := k.now.Load(); c != nil {
		return c.id
	}
	return ""
}

// Seal encrypts a value for its place. The result is Overhead bytes longer.
func (k *Keyset) Seal(p Place, plaintext []byte) ([]byte, error) {
	c, err := k.keys()
	if err != nil {
		return nil, fmt.Errorf("sealing %s: %w", p, err)
	}
	sealed, err := c.aead.Encrypt(plaintext, c.associated(p))
	if err != nil {
		return nil, fmt.Errorf("sealing %s: %w", p, err)
	}
	return slices.Concat([]byte{sealedFormat}, sealed), nil
}

// Open decrypts a value at its place. Errors wrap state.ErrCorrupt.
func (k *Keyset) Open(p Place, sealed []byte) ([]byte, error) {
	switch {
	case len(sealed) < Overhead:
		return nil, fmt.Errorf("%w: %s has %d bytes, which is too short for a sealed value", state.ErrCorrupt, p, len(sealed))
	case sealed[0] != sealedFormat:
		return nil, fmt.Errorf("%w: %s is sealed in format %d, this release reads %d", state.ErrCorrupt, p, sealed[0], sealedFormat)
	}
	c, err := k.keys()
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", p, err)
	}
	if key := binary.BigEndian.Uint32(sealed[2:]); !slices.Contains(c.keyIDs, key) {
		if c, err = k.newer(c, key); err != nil {
			return nil, fmt.Errorf("opening %s: %w", p, err)
		}
		if !slices.Contains(c.keyIDs, key) {
			return nil, fmt.Errorf("%w: %s was sealed with key %08x, which keyset %s does not have", state.ErrCorrupt, p, key, c.id)
		}
	}
	plain, err := c.aead.Decrypt(sealed[1:], c.associated(p))
	if err != nil {
		return nil, fmt.Errorf("%w: %s does not open with keyset %s: damaged, or sealed for another place", state.ErrCorrupt, p, c.id)
	}
	return plain, nil
}

// Blind turns a value into a short name that only this keyset's owner can
// compute: 24 characters of a-z and 2-7. Equal values under equal labels have
// equal names; nothing else can be told from them.
func (k *Keyset) Blind(label, value string) string {
	in := make([]byte, 0, 4+len(label)+len(value))
	in = appendSized(in, label)
	in = append(in, value...)
	c := k.now.Load()
	if c == nil {
		panic("seal: blinding with a keyset that is not there yet")
	}
	out, err := c.prf.ComputePRF(in, blindSize)
	if err != nil {
		// Only a length above the hash's can fail, and ours is a constant.
		panic("seal: blinding: " + err.Error())
	}
	return lower32.EncodeToString(out)
}

// associated is what a sealed value is bound to. Each part has its length
// before it, so that no two places have the same bytes.
func (k *keys) associated(p Place) []byte {
	b := make([]byte, 0, 1+4*4+len(p.Partition)+len(p.Kind)+len(p.ID)+len(k.id))
	b = append(b, sealedFormat)
	b = appendSized(b, string(p.Partition))
	b = appendSized(b, string(p.Kind))
	b = appendSized(b, p.ID)
	return appendSized(b, k.id)
}

func appendSized(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// assemble makes the keys of a keyset from two Tink handles.
func assemble(id []byte, sealing, blinding *keyset.Handle) (*keys, error) {
	a, err := aead.New(sealing)
	if err != nil {
		return nil, fmt.Errorf("%w: sealing keys: %w", state.ErrCorrupt, err)
	}
	set, err := prf.NewPRFSet(blinding)
	if err != nil {
		return nil, fmt.Errorf("%w: blinding key: %w", state.ErrCorrupt, err)
	}
	k := &keys{id: lower32.EncodeToString(id), aead: a, prf: set.PRFs[set.PrimaryID]}
	for i := range sealing.Len() {
		e, err := sealing.Entry(i)
		if err != nil {
			return nil, fmt.Errorf("%w: sealing keys: %w", state.ErrCorrupt, err)
		}
		k.keyIDs = append(k.keyIDs, e.KeyID())
	}
	k.plain = append(append(k.plain, keysetFormat), id...)
	for _, h := range []*keyset.Handle{sealing, blinding} {
		var b bytes.Buffer
		if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&b)); err != nil {
			return nil, fmt.Errorf("serialising a keyset: %w", err)
		}
		k.plain = appendSized(k.plain, b.String())
	}
	k.plain = slices.Clip(k.plain)
	return k, nil
}

// disassemble is the reverse of what assemble leaves in plain.
func disassemble(plain []byte) (id []byte, sealing, blinding *keyset.Handle, err error) {
	if len(plain) < 1+idSize || plain[0] != keysetFormat {
		return nil, nil, nil, fmt.Errorf("%w: not a keyset of format %d", state.ErrCorrupt, keysetFormat)
	}
	id, rest := plain[1:1+idSize], plain[1+idSize:]
	var handles [2]*keyset.Handle
	for i := range handles {
		if len(rest) < 4 || uint64(len(rest)-4) < uint64(binary.BigEndian.Uint32(rest)) {
			return nil, nil, nil, fmt.Errorf("%w: the keyset is cut short", state.ErrCorrupt)
		}
		n := binary.BigEndian.Uint32(rest)
		h, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(rest[4 : 4+n])))
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%w: not a keyset: %w", state.ErrCorrupt, err)
		}
		handles[i], rest = h, rest[4+n:]
	}
	if len(rest) != 0 {
		return nil, nil, nil, fmt.Errorf("%w: %d bytes behind the keyset", state.ErrCorrupt, len(rest))
	}
	return id, handles[0], handles[1], nil
}
