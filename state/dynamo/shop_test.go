package dynamo_test

import (
	"context"
	"crypto/sha256"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.mau.fi/libsignal/ecc"
	"go.mau.fi/libsignal/keys/identity"
	"go.mau.fi/libsignal/keys/prekey"
	"go.mau.fi/libsignal/protocol"
	libsession "go.mau.fi/libsignal/session"
	"go.mau.fi/libsignal/util/optional"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/state/statetest/libtest"
)

// shop is a session with a paired device over a store: what a worker holds of it.
type shop struct {
	t       testing.TB
	store   state.Store
	vault   state.Vault
	master  seal.Master
	keyset  *seal.Keyset
	journal *journal.Journal
	device  *device.Device
}

// newShop makes the session "shop" and pairs it.
func newShop(t testing.TB, s state.Store) *shop {
	t.Helper()
	sh := &shop{t: t, store: s, vault: memory.NewVault()}
	var err error
	if sh.master, err = seal.CreateFile(filepath.Join(t.TempDir(), "master.key")); err != nil {
		t.Fatal(err)
	}
	if sh.keyset, err = seal.NewKeyset(); err != nil {
		t.Fatal(err)
	}
	sh.must(s.CreateSession(context.Background(), "shop", nil))
	owner, err := statetest.Take(context.Background(), s, "shop", "w1")
	sh.must(err)
	sh.open(owner)
	libtest.Pair(t, sh.device.Library())
	return sh
}

// open opens the session's journal and device under an owner.
func (sh *shop) open(owner state.Owner) {
	sh.t.Helper()
	var err error
	sh.journal, err = journal.Open(context.Background(), journal.Config{
		Store: sh.store, Fence: owner.Fence(), Fleet: sh.keyset, Retry: time.Second, Sinks: []string{"test"},
	})
	sh.must(err)
	sh.t.Cleanup(sh.journal.Close)
	sh.device, err = device.Open(context.Background(), device.Config{
		Journal: sh.journal, Store: sh.store, Vault: sh.vault, Master: sh.master, Session: "shop",
		Poison: func(err error) { sh.t.Errorf("poisoned: %v", err) },
	})
	sh.must(err)
	sh.t.Cleanup(sh.device.Close)
}

func (sh *shop) must(err error) {
	sh.t.Helper()
	if err != nil {
		sh.t.Fatal(err)
	}
}

// The addresses of the device and of the contact who writes to it.
var (
	ours   = types.JID{User: "900000001111", Device: 7, Server: types.HiddenUserServer}
	theirs = types.JID{User: "900000002222", Server: types.HiddenUserServer}
	phone  = types.JID{User: "15550002222", Server: types.DefaultUserServer}
)

var serializer = store.SignalProtobufSerializer

func cipher(dev *store.Device, with types.JID) *libsession.Cipher {
	return libsession.NewCipher(libsession.NewBuilderFromSignal(dev, with.SignalAddress(), serializer), with.SignalAddress())
}

// contact writes to the shop and starts the Signal session that both then have.
func (sh *shop) contact() *store.Device {
	sh.t.Helper()
	ctx := context.Background()
	dev := newShop(sh.t, memory.New(time.Now)).device.Library()
	own := sh.device.Library()
	one, err := own.PreKeys.GenOnePreKey(ctx)
	sh.must(err)
	bundle := prekey.NewBundle(own.RegistrationID, 0, optional.NewOptionalUint32(one.KeyID), own.SignedPreKey.KeyID,
		ecc.NewDjbECPublicKey(*one.Pub), ecc.NewDjbECPublicKey(*own.SignedPreKey.Pub), *own.SignedPreKey.Signature,
		identity.NewKey(ecc.NewDjbECPublicKey(*own.IdentityKey.Pub)))
	sh.must(libsession.NewBuilderFromSignal(dev, ours.SignalAddress(), serializer).ProcessBundle(ctx, bundle))
	return dev
}

// receive does what the library and the actor do with a text from the contact.
func (sh *shop) receive(from *store.Device, id, text string) {
	sh.t.Helper()
	ctx, own := context.Background(), sh.device.Library()
	sealed, err := cipher(from, ours).Encrypt(ctx, []byte(text))
	sh.must(err)
	body := sealed.Serialize()
	hash := sha256.Sum256(body)
	sh.must(own.LIDs.PutLIDMapping(ctx, theirs, phone))
	sh.must(own.Sessions.MigratePNToLID(ctx, phone, theirs))
	_, _, err = own.Contacts.PutPushName(ctx, phone, "Ann Example")
	sh.must(err)
	sh.must(own.EventBuffer.DoDecryptionTxn(ctx, func(ctx context.Context) error {
		var plain []byte
		if sealed.Type() == protocol.PREKEY_TYPE {
			m, err := protocol.NewPreKeySignalMessageFromBytes(body, serializer.PreKeySignalMessage, serializer.SignalMessage)
			sh.must(err)
			plain, err = cipher(own, theirs).DecryptMessage(ctx, m)
			sh.must(err)
		} else {
			m, err := protocol.NewSignalMessageFromBytes(body, serializer.SignalMessage)
			sh.must(err)
			plain, err = cipher(own, theirs).Decrypt(ctx, m)
			sh.must(err)
		}
		return own.EventBuffer.PutBufferedEvent(ctx, hash, plain, time.Now())
	}))
	sh.must(own.MsgSecrets.PutMessageSecret(ctx, theirs, theirs, id, []byte(strings.Repeat("s", 32))))
	data := map[string]string{"id": id, "from": phone.String(), "name": "Ann Example", "text": text}
	sh.must(sh.device.Stage(journal.Batch{Events: []journal.Draft{{Type: state.EventMessage, Data: data, ID: id}}}))
	sh.must(own.EventBuffer.ClearBufferedEventPlaintext(ctx, hash))
	sh.must(sh.device.BeforeSend("receipt"))
}

// send does what the library does with a text to the contact, up to its frame.
func (sh *shop) send(id, text string) {
	sh.t.Helper()
	ctx, end := sh.device.Sending(context.Background())
	defer end()
	own := sh.device.Library()
	sh.must(own.EventBuffer.AddOutgoingEvent(ctx, theirs, id, "wa", []byte(text)))
	sh.must(own.MsgSecrets.PutMessageSecret(ctx, theirs, theirs, id, []byte(strings.Repeat("s", 32))))
	_, ctx, err := own.WithCachedSessions(ctx, []string{theirs.SignalAddress().String()})
	sh.must(err)
	_, err = cipher(own, theirs).Encrypt(ctx, []byte(text))
	sh.must(err)
	sh.must(own.PutCachedSessions(ctx))
	sh.must(sh.device.BeforeSend("message"))
}
