package device

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"
	"go.mau.fi/whatsmeow/proto/waAdv"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/util/keys"
	waLog "go.mau.fi/whatsmeow/util/log"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// kindCredential is the kind under which credential objects are sealed; their id
// is the object's name.
const kindCredential state.Kind = "CREDENTIAL"

// credentialPrefix begins the names of credential objects.
const credentialPrefix = "credential-"

var (
	// errNoJID is what saving a device before its pairing fails with.
	errNoJID = errors.New("a device is stored when it is paired, not before")
	// errDiscarded is what saving a view fails with whose keys have been given up.
	errDiscarded = errors.New("the keys of this pairing have been discarded")
	// errKept is what the library's deletion fails with.
	errKept = errors.New("credentials are taken out of use by the session's owner alone")
)

// credential is a credential object: the fields of a store.Device.
type credential struct {
	V                     int    `json:"v"`
	Version               uint64 `json:"version"`
	NoiseKey              []byte `json:"noiseKey"`
	IdentityKey           []byte `json:"identityKey"`
	SignedPreKey          []byte `json:"signedPreKey"`
	SignedPreKeyID        uint32 `json:"signedPreKeyId"`
	SignedPreKeySignature []byte `json:"signedPreKeySignature"`
	RegistrationID        uint32 `json:"registrationId"`
	AdvSecretKey          []byte `json:"advSecretKey"`
	ID                    string `json:"id"`
	LID                   string `json:"lid,omitempty"`
	Account               []byte `json:"account,omitempty"` // waAdv.ADVSignedDeviceIdentity
	Platform              string `json:"platform,omitempty"`
	BusinessName          string `json:"businessName,omitempty"`
	PushName              string `json:"pushName,omitempty"`
	LIDMigrationTimestamp int64  `json:"lidMigrationTimestamp,omitempty"`
	CompanionMetaNonce    string `json:"companionMetaNonce,omitempty"`
	FacebookUUID          string `json:"facebookUuid,omitempty"`
}

func newCredential(dev *store.Device, version uint64) (*credential, error) {
	if dev.ID == nil {
		return nil, errNoJID
	}
	c := &credential{V: state.Format, Version: version,
		NoiseKey: dev.NoiseKey.Priv[:], IdentityKey: dev.IdentityKey.Priv[:],
		SignedPreKey: dev.SignedPreKey.Priv[:], SignedPreKeyID: dev.SignedPreKey.KeyID,
		SignedPreKeySignature: dev.SignedPreKey.Signature[:],
		RegistrationID:        dev.RegistrationID, AdvSecretKey: dev.AdvSecretKey,
		ID: dev.ID.String(), Platform: dev.Platform, BusinessName: dev.BusinessName, PushName: dev.PushName,
		LIDMigrationTimestamp: dev.LIDMigrationTimestamp, CompanionMetaNonce: dev.CompanionMetaNonce,
	}
	if !dev.LID.IsEmpty() {
		c.LID = dev.LID.String()
	}
	if dev.Account != nil {
		account, err := proto.Marshal(dev.Account)
		if err != nil {
			return nil, fmt.Errorf("encoding the account: %w", err)
		}
		c.Account = account
	}
	if dev.FacebookUUID != uuid.Nil {
		c.FacebookUUID = dev.FacebookUUID.String()
	}
	return c, nil
}

// decodeCredential checks all that the device is made of.
func decodeCredential(body []byte) (*credential, error) {
	c := new(credential)
	if err := state.Decode(body, c); err != nil {
		return nil, err
	}
	for _, k := range []struct {
		name string
		have []byte
		want int
	}{{"noise key", c.NoiseKey, 32}, {"identity key", c.IdentityKey, 32}, {"signed prekey", c.SignedPreKey, 32},
		{"prekey signature", c.SignedPreKeySignature, 64}, {"adv secret", c.AdvSecretKey, 32}} {
		if len(k.have) != k.want {
			return nil, fmt.Errorf("%w: the %s has %d bytes, not %d", state.ErrCorrupt, k.name, len(k.have), k.want)
		}
	}
	if _, err := types.ParseJID(c.ID); err != nil || c.ID == "" {
		return nil, fmt.Errorf("%w: the device's JID is none", state.ErrCorrupt)
	}
	if _, err := types.ParseJID(c.LID); err != nil {
		return nil, fmt.Errorf("%w: the device's LID is none", state.ErrCorrupt)
	}
	if err := proto.Unmarshal(c.Account, new(waAdv.ADVSignedDeviceIdentity)); err != nil {
		return nil, fmt.Errorf("%w: the account is garbled", state.ErrCorrupt)
	}
	if c.FacebookUUID != "" {
		if _, err := uuid.Parse(c.FacebookUUID); err != nil {
			return nil, fmt.Errorf("%w: the device's UUID is none", state.ErrCorrupt)
		}
	}
	return c, nil
}

// device makes the library's device of a credential that has been checked.
func (c *credential) device() *store.Device {
	pair := func(b []byte) *keys.KeyPair { return keys.NewKeyPairFromPrivateKey([32]byte(b)) }
	signature := [64]byte(c.SignedPreKeySignature)
	jid, _ := types.ParseJID(c.ID)
	dev := &store.Device{
		Log: waLog.Noop, NoiseKey: pair(c.NoiseKey), IdentityKey: pair(c.IdentityKey),
		SignedPreKey:   &keys.PreKey{KeyPair: *pair(c.SignedPreKey), KeyID: c.SignedPreKeyID, Signature: &signature},
		RegistrationID: c.RegistrationID, AdvSecretKey: bytes.Clone(c.AdvSecretKey), ID: &jid,
		Platform: c.Platform, BusinessName: c.BusinessName, PushName: c.PushName,
		LIDMigrationTimestamp: c.LIDMigrationTimestamp, CompanionMetaNonce: c.CompanionMetaNonce,
		Account: new(waAdv.ADVSignedDeviceIdentity),
	}
	dev.LID, _ = types.ParseJID(c.LID)
	_ = proto.Unmarshal(c.Account, dev.Account)
	dev.FacebookUUID, _ = uuid.Parse(c.FacebookUUID)
	return dev
}

// loadCredential reads and verifies a credential object. A *StaleError says that
// it must not be used; another error that it could not be read now.
func loadCredential(ctx context.Context, vault state.Vault, p state.Partition, k *seal.Keyset, at state.ObjectPointer) (*credential, error) {
	session, _ := p.Session()
	body, err := vault.GetObject(ctx, session, at.Name, at.VersionID)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil, &StaleError{"the object in the vault is missing", err}
	case errors.Is(err, state.ErrCorrupt):
		return nil, &StaleError{"the object in the vault cannot be read", err}
	case err != nil:
		return nil, fmt.Errorf("reading the credentials of %s: %w", session, err)
	}
	return openCredential(p, k, at, body)
}

// openCredential verifies a credential object. All errors are *StaleError.
func openCredential(p state.Partition, k *seal.Keyset, at state.ObjectPointer, body []byte) (*credential, error) {
	if at.KeysetID != k.ID() {
		return nil, &StaleError{"the object is of another keyset than the session's", state.ErrCorrupt}
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != at.SHA256 {
		return nil, &StaleError{"the object in the vault is cut short, altered, or of another version than the session's record says", state.ErrCorrupt}
	}
	plain, err := k.Open(seal.Place{Partition: p, Kind: kindCredential, ID: at.Name}, body)
	if err != nil {
		return nil, &StaleError{"the object in the vault does not open", err}
	}
	c, err := decodeCredential(plain)
	if err != nil {
		return nil, &StaleError{"the object in the vault is no credential", err}
	}
	if c.Version != at.Version {
		return nil, &StaleError{fmt.Sprintf("the object in the vault is version %d, the session's record says %d", c.Version, at.Version), state.ErrCorrupt}
	}
	return c, nil
}

// PutDevice stores the credentials: a new object in the vault, then the pointer
// in one fenced commit, then the old object goes.
func (s *libraryStore) PutDevice(ctx context.Context, dev *store.Device) error {
	d := s.d
	if dev.ID == nil {
		return errNoJID
	}
	d.life.Lock()
	defer d.life.Unlock()
	if err := d.check(); err != nil {
		return err
	}
	if s != d.current {
		return errDiscarded
	}
	if err := d.putDevice(context.WithoutCancel(ctx), dev); err != nil {
		return d.fail(fmt.Errorf("storing the credentials: %w", err))
	}
	dev.Initialized = true
	saved := *dev
	d.library = &saved
	d.paired.Store(true)
	return nil
}

func (d *Device) putDevice(ctx context.Context, dev *store.Device) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	k := d.ring.Load()
	wrapped, err := k.Wrap(ctx, d.master(), d.partition)
	if err != nil {
		return err
	}
	meta, _, err := readMeta(ctx, d.cfg.Store, d.partition)
	if err != nil {
		return err
	}
	at := state.ObjectPointer{Version: 1, KeysetID: k.ID(),
		Name: credentialPrefix + strings.ToLower(ulid.Make().String())}
	if meta.Credential != nil {
		at.Version = meta.Credential.Version + 1
	}
	c, err := newCredential(dev, at.Version)
	if err != nil {
		return err
	}
	body, err := state.Encode(c)
	if err != nil {
		return err
	}
	sealed, err := k.Seal(seal.Place{Partition: d.partition, Kind: kindCredential, ID: at.Name}, body)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(sealed)
	at.SHA256 = hex.EncodeToString(sum[:])
	if at.VersionID, err = d.cfg.Vault.PutObject(ctx, d.cfg.Session, at.Name, sealed); err != nil {
		return err
	}
	var old *state.ObjectPointer
	err = d.updateMeta(ctx, nil, func(m *state.Meta) error {
		if m.Credential != nil && m.Credential.KeysetID != at.KeysetID {
			return errors.New("the session has credentials of another pairing; take them out of use first")
		}
		old, m.Credential, m.KeysetID = m.Credential, &at, k.ID()
		if !k.stored.Load() {
			m.Keyset = wrapped
		}
		return nil
	})
	if err != nil {
		return err
	}
	k.stored.Store(true)
	if old != nil {
		d.removeObject(ctx, *old)
	}
	return nil
}

// removeObject deletes an object that nothing points to any more; Sweep does it
// if this fails.
func (d *Device) removeObject(ctx context.Context, at state.ObjectPointer) {
	if err := d.cfg.Vault.DeleteObject(ctx, d.cfg.Session, at.Name, at.VersionID); err != nil {
		d.cfg.Log.Warn("an old credential object was not removed yet", "session", d.cfg.Session, "err", err)
	}
}

// DeleteDevice is called by the library when the server has unlinked the device,
// and when a pairing fails after its first save. It deletes nothing and says so, by
// which the client's view stays usable too: what becomes of credentials is the
// owner's decision, stored in one commit with the state and the cooldown that go
// with it. Whoever comes after a crash before that commit asks the server again.
//
// The library also deletes when it could not send the confirmation of a pairing,
// or was not told that it could: the server's answer may end the connection before
// the write returns.
func (*libraryStore) DeleteDevice(context.Context, *store.Device) error { return errKept }

// loggedIn notes that the server has let the device in: its pairing has ended.
func (d *Device) loggedIn() {
	if d.paired.Load() {
		d.established.Store(true)
	}
}
