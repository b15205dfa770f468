package device_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/store/sqlstore"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest/libtest"
)

// sqlDevice makes a database of the library's own store with a device in it
// that has something in each table.
func sqlDevice(t *testing.T) (string, *store.Device, []uint32) {
	ctx := context.Background()
	file := filepath.Join(t.TempDir(), "source.db")
	c, err := sqlstore.New(ctx, "sqlite", "file:"+file+"?_pragma=foreign_keys(1)&_txlock=immediate", nil)
	must(t, err)
	dev := c.NewDevice()
	libtest.Pair(t, dev)
	dev.PushName = "Me"
	must(t, dev.Save(ctx))
	a := types.JID{User: "1", Server: types.DefaultUserServer}
	l := types.JID{User: "101", Server: types.HiddenUserServer}
	for i := range 120 {
		must(t, dev.Sessions.PutSession(ctx, fmt.Sprintf("%d:0", i), []byte{byte(i)}))
		must(t, dev.Contacts.PutContactName(ctx, types.JID{User: fmt.Sprint(i), Server: types.DefaultUserServer}, "First", "Full"))
	}
	must(t, dev.Identities.PutIdentity(ctx, "1:0", [32]byte{1}))
	must(t, dev.SenderKeys.PutSenderKey(ctx, "g@g.us", "1:0", []byte("sender key")))
	ks, err := dev.PreKeys.GetOrGenPreKeys(ctx, 60)
	must(t, err)
	must(t, dev.PreKeys.MarkPreKeysAsUploaded(ctx, ks[39].KeyID))
	must(t, dev.PreKeys.RemovePreKey(ctx, ks[3].KeyID))
	must(t, dev.AppStateKeys.PutAppStateSyncKey(ctx, []byte{1}, store.AppStateSyncKey{Data: []byte("key"), Fingerprint: []byte("f"), Timestamp: 9}))
	must(t, putAppState(dev.AppState, 1, 0, 500))
	must(t, dev.ChatSettings.PutPinned(ctx, a, true))
	must(t, dev.MsgSecrets.PutMessageSecret(ctx, a, a, "M", []byte("secret")))
	must(t, dev.PrivacyTokens.PutPrivacyTokens(ctx, store.PrivacyToken{User: a, Token: []byte("token"), Timestamp: time.Unix(5, 0)}))
	must(t, dev.NCTSalt.PutNCTSalt(ctx, []byte("salt")))
	must(t, dev.LIDs.PutLIDMapping(ctx, l, a))
	must(t, dev.EventBuffer.PutBufferedEvent(ctx, [32]byte{7}, []byte("plain"), time.Unix(5, 0)))
	must(t, dev.EventBuffer.PutBufferedEvent(ctx, [32]byte{8}, []byte("plain"), time.Unix(5, 0)))
	must(t, dev.EventBuffer.ClearBufferedEventPlaintext(ctx, [32]byte{8}))
	must(t, dev.EventBuffer.AddOutgoingEvent(ctx, a, "M", "wa", []byte("out")))
	must(t, c.Close())
	var ids []uint32
	for _, k := range ks {
		ids = append(ids, k.KeyID)
	}
	return file, dev, ids
}

func sum(t *testing.T, file string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	return sha256.Sum256(b)
}

// TestImport takes a device over whole, and leaves its source as it was.
func TestImport(t *testing.T) {
	ctx := context.Background()
	file, source, ids := sqlDevice(t)
	before := sum(t, file)
	jids, err := device.ListSQLStore(ctx, file)
	must(t, err)
	if len(jids) != 1 || jids[0] != libtest.JID.String() {
		t.Fatal(jids)
	}
	w := newWorld(t, memory.New(time.Now))
	must(t, device.ImportSQLStore(ctx, w.config(w.claim()), file, libtest.JID.String()))
	if sum(t, file) != before {
		t.Error("the source has changed")
	}
	dev := w.open().Library()
	same(t, dev, source)
	a := types.JID{User: "1", Server: types.DefaultUserServer}
	l := types.JID{User: "101", Server: types.HiddenUserServer}
	got := func(what string, value any, err error, want any) {
		t.Helper()
		if err != nil || fmt.Sprint(value) != fmt.Sprint(want) {
			t.Errorf("%s is %v, %v; want %v", what, value, err, want)
		}
	}
	session, err := dev.Sessions.GetSession(ctx, "119:0")
	got("session", session, err, []byte{119})
	trusted, err := dev.Identities.IsTrustedIdentity(ctx, "1:0", [32]byte{2})
	got("identity", trusted, err, false)
	senderKey, err := dev.SenderKeys.GetSenderKey(ctx, "g@g.us", "1:0")
	got("sender key", string(senderKey), err, "sender key")
	uploaded, err := dev.PreKeys.UploadedPreKeyCount(ctx)
	got("uploaded prekeys", uploaded, err, 39)
	next, err := dev.PreKeys.GenOnePreKey(ctx)
	must(t, err)
	if next.KeyID <= ids[59] {
		t.Errorf("prekey id %d again", next.KeyID)
	}
	key, err := dev.AppStateKeys.GetLatestAppStateSyncKeyID(ctx)
	got("app state key", key, err, []byte{1})
	version, _, err := dev.AppState.GetAppStateVersion(ctx, "regular")
	got("app state version", version, err, 1)
	mac, err := dev.AppState.GetAppStateMutationMAC(ctx, "regular", index(499))
	got("app state MAC", mac, err, index(499))
	contacts, err := dev.Contacts.GetAllContacts(ctx)
	got("contacts", len(contacts), err, 120)
	chat, err := dev.ChatSettings.GetChatSettings(ctx, a)
	got("chat", chat.Pinned, err, true)
	secret, _, err := dev.MsgSecrets.GetMessageSecret(ctx, l, l, "M")
	got("secret", string(secret), err, "secret")
	token, err := dev.PrivacyTokens.GetPrivacyToken(ctx, l)
	got("token", string(token.Token), err, "token")
	salt, err := dev.NCTSalt.GetNCTSalt(ctx)
	got("salt", string(salt), err, "salt")
	_, out, err := dev.EventBuffer.GetOutgoingEvent(ctx, a, types.JID{}, "M")
	got("outgoing", string(out), err, "out")
	done, err := dev.EventBuffer.GetBufferedEvent(ctx, [32]byte{8})
	if err != nil || done == nil || done.Plaintext != nil {
		t.Error("the hash of a handled message", done, err)
	}
	open, err := dev.EventBuffer.GetBufferedEvent(ctx, [32]byte{7})
	if err != nil || open == nil || string(open.Plaintext) != "plain" {
		t.Error("the plaintext of a message that was not handled", open, err)
	}
	findings, err := device.Verify(ctx, w.config(w.claim()))
	must(t, err)
	if len(findings) > 0 {
		t.Error(findings)
	}
	wantErr(t, device.ImportSQLStore(ctx, w.config(w.claim()), file, libtest.JID.String()), device.ErrPaired)
}

// TestImportOfNothing: a source that is none leaves the session unpaired.
func TestImportOfNothing(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, memory.New(time.Now))
	err := device.ImportSQLStore(ctx, w.config(w.claim()), filepath.Join(t.TempDir(), "absent.db"), libtest.JID.String())
	wantErr(t, err, fs.ErrNotExist)
	text := filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(text, []byte("not a database at all"), 0o600))
	if err := device.ImportSQLStore(ctx, w.config(w.claim()), text, libtest.JID.String()); err == nil {
		t.Fatal("imported a text")
	}
	file, _, _ := sqlDevice(t)
	other := libtest.JID
	other.User = "15559999999"
	if err := device.ImportSQLStore(ctx, w.config(w.claim()), file, other.String()); err == nil || errors.Is(err, device.ErrPaired) {
		t.Fatalf("got %v", err)
	}
	if w.open().Paired() {
		t.Fatal("paired")
	}
}
