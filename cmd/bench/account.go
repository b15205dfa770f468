package main

import (
	"context"
	"fmt"

	"go.mau.fi/whatsmeow/proto/waAdv"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/util/keys"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-wa/holdfast/infra/wasim/memstore"
)

// Account is a linked device: what a pairing leaves on the client's side.
type Account struct {
	Name           string // of the session
	Number         string
	JID, LID       string
	Noise          []byte
	Identity       []byte
	SignedPreKey   []byte
	SignedPreKeyID uint32
	Signature      []byte
	RegistrationID uint32
	Adv            []byte
	Signed         []byte // waAdv.ADVSignedDeviceIdentity
	Platform       string
}

// newAccount is what an enrolled device holds.
func newAccount(name, number string, d *store.Device) (Account, error) {
	signed, err := proto.Marshal(d.Account)
	if err != nil {
		return Account{}, err
	}
	return Account{
		Name: name, Number: number, JID: d.ID.String(), LID: d.LID.String(),
		Noise: d.NoiseKey.Priv[:], Identity: d.IdentityKey.Priv[:],
		SignedPreKey: d.SignedPreKey.Priv[:], SignedPreKeyID: d.SignedPreKey.KeyID, Signature: d.SignedPreKey.Signature[:],
		RegistrationID: d.RegistrationID, Adv: d.AdvSecretKey, Signed: signed, Platform: d.Platform,
	}, nil
}

// pair makes a device, fresh from its store, the account's, and saves it as the
// library does at the end of a pairing.
func (a Account) pair(ctx context.Context, d *store.Device) error {
	pair := func(b []byte) *keys.KeyPair { return keys.NewKeyPairFromPrivateKey([32]byte(b)) }
	jid, err := types.ParseJID(a.JID)
	if err != nil {
		return err
	}
	if d.LID, err = types.ParseJID(a.LID); err != nil {
		return err
	}
	signature := [64]byte(a.Signature)
	d.ID, d.NoiseKey, d.IdentityKey = &jid, pair(a.Noise), pair(a.Identity)
	d.SignedPreKey = &keys.PreKey{KeyPair: *pair(a.SignedPreKey), KeyID: a.SignedPreKeyID, Signature: &signature}
	d.RegistrationID, d.AdvSecretKey, d.Platform = a.RegistrationID, a.Adv, a.Platform
	d.Account = &waAdv.ADVSignedDeviceIdentity{}
	if err := proto.Unmarshal(a.Signed, d.Account); err != nil {
		return err
	}
	if err := d.Save(ctx); err != nil {
		return fmt.Errorf("saving a device: %w", err)
	}
	if err := d.LIDs.PutLIDMapping(ctx, d.LID, jid); err != nil {
		return fmt.Errorf("saving a device: %w", err)
	}
	return nil
}

// onePreKey is a store that hands out one key under every id and keeps none. A
// client over it leaves the service with all the prekeys it wants for an
// account, without the time that making them takes.
type onePreKey struct{ pair *keys.KeyPair }

var _ store.PreKeyStore = onePreKey{}

// primer is a device over such a store.
func primer(ctx context.Context, a Account) (*store.Device, error) {
	d := memstore.New()
	d.PreKeys = onePreKey{d.NoiseKey}
	return d, a.pair(ctx, d)
}

// GetOrGenPreKeys implements store.PreKeyStore.
func (s onePreKey) GetOrGenPreKeys(_ context.Context, count uint32) ([]*keys.PreKey, error) {
	out := make([]*keys.PreKey, count)
	for i := range out {
		out[i] = &keys.PreKey{KeyPair: *s.pair, KeyID: uint32(i) + 1}
	}
	return out, nil
}

// GenOnePreKey implements store.PreKeyStore.
func (s onePreKey) GenOnePreKey(context.Context) (*keys.PreKey, error) {
	return &keys.PreKey{KeyPair: *s.pair, KeyID: 1}, nil
}

// GetPreKey implements store.PreKeyStore.
func (onePreKey) GetPreKey(context.Context, uint32) (*keys.PreKey, error) { return nil, nil }

// RemovePreKey implements store.PreKeyStore.
func (onePreKey) RemovePreKey(context.Context, uint32) error { return nil }

// MarkPreKeysAsUploaded implements store.PreKeyStore.
func (onePreKey) MarkPreKeysAsUploaded(context.Context, uint32) error { return nil }

// UploadedPreKeyCount implements store.PreKeyStore.
func (onePreKey) UploadedPreKeyCount(context.Context) (int, error) { return 0, nil }
