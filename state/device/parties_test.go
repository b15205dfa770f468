package device_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.mau.fi/libsignal/ecc"
	"go.mau.fi/libsignal/keys/identity"
	"go.mau.fi/libsignal/keys/prekey"
	"go.mau.fi/libsignal/protocol"
	libsession "go.mau.fi/libsignal/session"
	"go.mau.fi/libsignal/signalerror"
	"go.mau.fi/libsignal/util/optional"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
)

var serializer = store.SignalProtobufSerializer

// envelope is a ciphertext on its way.
type envelope struct {
	id     string
	preKey bool
	body   []byte
}

// contact is somebody else's phone: the library's Signal code over a store of
// its own, one thing at a time.
type contact struct {
	t        testing.TB
	mu       sync.Mutex
	dev      *store.Device
	jid      types.JID
	rejected []error
	got      map[string]int
}

func newContact(t testing.TB) *contact {
	w := newWorld(t, memory.New(time.Now))
	d := w.paired()
	return &contact{t: t, dev: d.Library(), jid: types.JID{User: "900000002222", Server: types.HiddenUserServer}, got: make(map[string]int)}
}

// bundle is what the server hands out to start a session with a device.
func bundle(t testing.TB, dev *store.Device) *prekey.Bundle {
	one, err := dev.PreKeys.GenOnePreKey(context.Background())
	must(t, err)
	return prekey.NewBundle(dev.RegistrationID, 0, optional.NewOptionalUint32(one.KeyID), dev.SignedPreKey.KeyID,
		ecc.NewDjbECPublicKey(*one.Pub), ecc.NewDjbECPublicKey(*dev.SignedPreKey.Pub), *dev.SignedPreKey.Signature,
		identity.NewKey(ecc.NewDjbECPublicKey(*dev.IdentityKey.Pub)))
}

// write encrypts a text for one of ours.
func (c *contact) write(to types.JID, their *store.Device, id, text string) envelope {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx := context.Background()
	builder := libsession.NewBuilderFromSignal(c.dev, to.SignalAddress(), serializer)
	known, err := c.dev.ContainsSession(ctx, to.SignalAddress())
	must(c.t, err)
	if !known {
		must(c.t, builder.ProcessBundle(ctx, bundle(c.t, their)))
	}
	m, err := libsession.NewCipher(builder, to.SignalAddress()).Encrypt(ctx, []byte(text))
	must(c.t, err)
	return envelope{id, m.Type() == protocol.PREKEY_TYPE, m.Serialize()}
}

// read decrypts what one of ours has sent.
func (c *contact) read(from types.JID, e envelope) {
	c.mu.Lock()
	defer c.mu.Unlock()
	plain, err := decrypt(context.Background(), c.dev, from, e)
	if err != nil {
		c.rejected = append(c.rejected, fmt.Errorf("%s: %w", e.id, err))
		return
	}
	c.got[string(plain)]++
}

func decrypt(ctx context.Context, dev *store.Device, from types.JID, e envelope) ([]byte, error) {
	cipher := libsession.NewCipher(libsession.NewBuilderFromSignal(dev, from.SignalAddress(), serializer), from.SignalAddress())
	if e.preKey {
		m, err := protocol.NewPreKeySignalMessageFromBytes(e.body, serializer.PreKeySignalMessage, serializer.SignalMessage)
		if err != nil {
			return nil, err
		}
		return cipher.DecryptMessage(ctx, m)
	}
	m, err := protocol.NewSignalMessageFromBytes(e.body, serializer.SignalMessage)
	if err != nil {
		return nil, err
	}
	return cipher.Decrypt(ctx, m)
}

// client does to a device what the library's client does, in its order.
type client struct {
	d        *device.Device
	dev      *store.Device
	sendLock chan struct{} // the library's messageSendLock
	unpad    error         // what removing the padding fails with
	handle   func(id, text string) bool
	cut      func() bool // the connection is closed: frames do not leave
}

func newClient(w *world, d *device.Device) *client {
	cl := &client{d: d, dev: d.Library(), sendLock: make(chan struct{}, 1)}
	cl.cut = func() bool { return len(w.poisoned()) > 0 || d.Err() != nil }
	cl.handle = func(id, text string) bool {
		err := d.Stage(journal.Batch{Events: []journal.Draft{{Type: state.EventMessage, Data: id + " " + text, ID: id}}})
		if err != nil {
			d.Drop()
		}
		return err == nil
	}
	return cl
}

// frame tells whether a frame leaves.
func (cl *client) frame(tag string) bool {
	return cl.d.BeforeSend(tag) == nil && !cl.cut()
}

// receive handles a message and tells which of its answers left: "receipt",
// "ack" (with a retry receipt), or "" if the server keeps the message.
func (cl *client) receive(from types.JID, e envelope) string {
	ctx := context.Background()
	pn := types.JID{User: "15550002222", Server: types.DefaultUserServer}
	_ = cl.dev.LIDs.PutLIDMapping(ctx, from.ToNonAD(), pn) // errors are only logged
	_ = cl.dev.Sessions.MigratePNToLID(ctx, pn, from)
	answer := func(tag string) string {
		if cl.frame(tag) {
			return tag
		}
		return ""
	}
	hash := sha256.Sum256(e.body)
	plain, err := cl.decrypt(ctx, hash, from, e)
	switch {
	case errors.Is(err, errProcessed), errors.Is(err, signalerror.ErrOldCounter):
		return answer("receipt")
	case err != nil && errors.Is(err, context.Canceled):
		return ""
	}
	if err == nil {
		err = cl.unpad
	}
	if err != nil { // SynchronousAck: a peer message, a retry receipt and an ack, all inline
		if cl.sendPeer(ctx, from) != nil && cl.cut() {
			return ""
		}
		cl.frame("receipt")
		return answer("ack")
	}
	_ = cl.dev.MsgSecrets.PutMessageSecret(ctx, from, from, e.id, []byte("secret of "+e.id))
	if !cl.handle(e.id, string(plain)) {
		return ""
	}
	_ = cl.dev.EventBuffer.ClearBufferedEventPlaintext(ctx, hash)
	return answer("receipt")
}

var errProcessed = errors.New("already processed")

func (cl *client) decrypt(ctx context.Context, hash [32]byte, from types.JID, e envelope) (plain []byte, err error) {
	known, err := cl.dev.EventBuffer.GetBufferedEvent(ctx, hash)
	if err != nil {
		return nil, err
	}
	if known != nil {
		if known.Plaintext == nil {
			return nil, errProcessed
		}
		return known.Plaintext, nil
	}
	err = cl.dev.EventBuffer.DoDecryptionTxn(ctx, func(ctx context.Context) (err error) {
		if plain, err = decrypt(ctx, cl.dev, from, e); err != nil {
			return err
		}
		return cl.dev.EventBuffer.PutBufferedEvent(ctx, hash, plain, time.Now())
	})
	return plain, err
}

// sendPeer encrypts without a cached session, as peer messages and retries are.
func (cl *client) sendPeer(ctx context.Context, to types.JID) error {
	cl.sendLock <- struct{}{}
	defer func() { <-cl.sendLock }()
	cipher := libsession.NewCipher(libsession.NewBuilderFromSignal(cl.dev, to.SignalAddress(), serializer), to.SignalAddress())
	if _, err := cipher.Encrypt(ctx, []byte("peer")); err != nil {
		return err
	}
	if !cl.frame("message") {
		return context.Canceled
	}
	return nil
}

// send sends a text and hands its frame to deliver, if it leaves.
func (cl *client) send(ctx context.Context, to types.JID, their func() *prekey.Bundle, id, text string, deliver func(envelope)) error {
	cl.sendLock <- struct{}{}
	defer func() { <-cl.sendLock }()
	if err := cl.dev.EventBuffer.AddOutgoingEvent(ctx, to, id, "wa", []byte(text)); err != nil {
		return err
	}
	_ = cl.dev.MsgSecrets.PutMessageSecret(ctx, to, to, id, []byte("secret"))
	address := to.SignalAddress().String()
	exists, ctx, err := cl.dev.WithCachedSessions(ctx, []string{address})
	if err != nil {
		return err
	}
	builder := libsession.NewBuilderFromSignal(cl.dev, to.SignalAddress(), serializer)
	if !exists[address] {
		if !cl.frame("iq") {
			return context.Canceled
		}
		if err := builder.ProcessBundle(ctx, their()); err != nil {
			return err
		}
	}
	m, err := libsession.NewCipher(builder, to.SignalAddress()).Encrypt(ctx, []byte(text))
	if err != nil {
		return err
	}
	if err := cl.dev.PutCachedSessions(ctx); err != nil {
		return err
	}
	if !cl.frame("message") {
		return context.Canceled
	}
	deliver(envelope{id, m.Type() == protocol.PREKEY_TYPE, m.Serialize()})
	return nil
}

// ours is the JID that contacts know our device by.
var ours = types.JID{User: "900000001111", Device: 7, Server: types.HiddenUserServer}
