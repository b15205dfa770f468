// Package libtest is what whatsmeow expects of its device stores, as tests. The
// library itself has none; its own SQL store is the oracle: the suite passes on
// it, and on every store of ours.
package libtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"reflect"
	"testing"

	"go.mau.fi/whatsmeow/proto/waAdv"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
)

// JID is the phone number that Pair gives a device.
var JID = types.JID{User: "15550001111", Device: 7, Server: types.DefaultUserServer}

// Pair makes a new device a paired one and saves it.
func Pair(t testing.TB, dev *store.Device) {
	t.Helper()
	jid := JID
	dev.ID = &jid
	dev.LID = types.JID{User: "900000001111", Device: 7, Server: types.HiddenUserServer}
	dev.Account = &waAdv.ADVSignedDeviceIdentity{Details: []byte("details"), AccountSignature: random(64),
		AccountSignatureKey: random(32), DeviceSignature: random(64)}
	dev.Platform, dev.BusinessName = "android", "Business"
	must(t, dev.Save(context.Background()))
}

// Library runs the suite. open returns a paired device over an empty store.
func Library(t *testing.T, open func(t *testing.T) *store.Device) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, dev *store.Device)
	}{
		{"identities", identities},
		{"sessions", sessions},
		{"many sessions", manySessions},
		{"deleting by user", deletingByUser},
		{"migration to LID", migration},
		{"prekeys", preKeys},
		{"prekey removal", preKeyRemoval},
		{"sender keys", senderKeys},
		{"app state keys", appStateKeys},
		{"app state", appState},
		{"contacts", contacts},
		{"chat settings", chatSettings},
		{"message secrets", messageSecrets},
		{"privacy tokens", privacyTokens},
		{"NCT salt", nctSalt},
		{"event buffer", eventBuffer},
		{"decryption transaction", decryptionTxn},
		{"outgoing events", outgoingEvents},
		{"LID map", lidMap},
		{"LID map conflicts", lidConflicts},
		{"device", deviceFields},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// want fails unless a call returned the value and no error.
func want[T any](t testing.TB, expected T) func(T, error) {
	return func(got T, err error) {
		t.Helper()
		must(t, err)
		if !reflect.DeepEqual(got, expected) {
			t.Fatalf("got %v, want %v", got, expected)
		}
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func key(b byte) [32]byte { return [32]byte(bytes.Repeat([]byte{b}, 32)) }

func pn(user string, device uint16) types.JID {
	return types.JID{User: user, Device: device, Server: types.DefaultUserServer}
}

func lid(user string, device uint16) types.JID {
	return types.JID{User: user, Device: device, Server: types.HiddenUserServer}
}

func identities(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.Identities
	want(t, true)(s.IsTrustedIdentity(ctx, "1:0", key(1))) // unknown
	must(t, s.PutIdentity(ctx, "1:0", key(1)))
	want(t, true)(s.IsTrustedIdentity(ctx, "1:0", key(1)))
	want(t, false)(s.IsTrustedIdentity(ctx, "1:0", key(2)))
	must(t, s.PutIdentity(ctx, "1:0", key(2)))
	want(t, true)(s.IsTrustedIdentity(ctx, "1:0", key(2)))
	want(t, true)(s.IsTrustedIdentity(ctx, "1:1", key(9)))
	must(t, s.DeleteIdentity(ctx, "1:0"))
	want(t, true)(s.IsTrustedIdentity(ctx, "1:0", key(1)))
	must(t, s.DeleteIdentity(ctx, "1:0"))
}

func sessions(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.Sessions
	want(t, []byte(nil))(s.GetSession(ctx, "1:0"))
	want(t, false)(s.HasSession(ctx, "1:0"))
	must(t, s.PutSession(ctx, "1:0", []byte("a")))
	want(t, []byte("a"))(s.GetSession(ctx, "1:0"))
	want(t, true)(s.HasSession(ctx, "1:0"))
	must(t, s.PutSession(ctx, "1:0", []byte("b")))
	want(t, []byte("b"))(s.GetSession(ctx, "1:0"))
	must(t, s.DeleteSession(ctx, "1:0"))
	want(t, false)(s.HasSession(ctx, "1:0"))
	want(t, []byte(nil))(s.GetSession(ctx, "1:0"))
	must(t, s.PutSession(ctx, "1:0", []byte("c")))
	large := random(400 << 10) // more than fits into a record
	must(t, s.PutSession(ctx, "2:0", large))
	want(t, large)(s.GetSession(ctx, "2:0"))
	must(t, s.PutSession(ctx, "2:0", []byte("small")))
	want(t, []byte("small"))(s.GetSession(ctx, "2:0"))
}

func manySessions(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.Sessions
	none, err := s.GetManySessions(ctx, nil)
	must(t, err)
	if len(none) != 0 {
		t.Fatalf("got %v", none)
	}
	all := make(map[string][]byte)
	var addresses []string
	for i := range 250 {
		a := fmt.Sprintf("%d_1:%d", i/3, i%3)
		all[a] = []byte(a)
		addresses = append(addresses, a)
	}
	must(t, s.PutManySessions(ctx, all))
	addresses = append(addresses, "absent:0")
	all["absent:0"] = nil
	want(t, all)(s.GetManySessions(ctx, addresses))
	must(t, s.PutManySessions(ctx, map[string][]byte{"0_1:0": []byte("new")}))
	want(t, []byte("new"))(s.GetSession(ctx, "0_1:0"))
	must(t, s.PutManySessions(ctx, map[string][]byte{"0_1:0": []byte("newer")}))
}

func deletingByUser(t *testing.T, dev *store.Device) {
	ctx := context.Background()
	for _, a := range []string{"1:0", "1:5", "12:0", "1_1:0"} {
		must(t, dev.Sessions.PutSession(ctx, a, []byte(a)))
		must(t, dev.Identities.PutIdentity(ctx, a, key(1)))
	}
	must(t, dev.Sessions.DeleteAllSessions(ctx, "1"))
	must(t, dev.Identities.DeleteAllIdentities(ctx, "1"))
	for a, there := range map[string]bool{"1:0": false, "1:5": false, "12:0": true, "1_1:0": true} {
		want(t, there)(dev.Sessions.HasSession(ctx, a))
		want(t, !there)(dev.Identities.IsTrustedIdentity(ctx, a, key(2)))
	}
}

func migration(t *testing.T, dev *store.Device) {
	ctx := context.Background()
	for _, a := range []string{"49:0", "49:2", "50:0"} {
		must(t, dev.Sessions.PutSession(ctx, a, []byte("of "+a)))
		must(t, dev.Identities.PutIdentity(ctx, a, key(1)))
		must(t, dev.SenderKeys.PutSenderKey(ctx, "g1@g.us", a, []byte("g1 of "+a)))
		must(t, dev.SenderKeys.PutSenderKey(ctx, "g2@g.us", a, []byte("g2 of "+a)))
	}
	must(t, dev.Sessions.PutSession(ctx, "77_1:0", []byte("is replaced")))
	must(t, dev.Sessions.MigratePNToLID(ctx, pn("49", 0), lid("77", 0)))
	must(t, dev.Sessions.MigratePNToLID(ctx, pn("49", 0), lid("77", 0)))
	for _, device := range []string{"0", "2"} {
		want(t, false)(dev.Sessions.HasSession(ctx, "49:"+device))
		want(t, []byte("of 49:"+device))(dev.Sessions.GetSession(ctx, "77_1:"+device))
		must(t, dev.Sessions.PutSession(ctx, "77_1:"+device, []byte("moved on")))
		want(t, true)(dev.Identities.IsTrustedIdentity(ctx, "49:"+device, key(5)))
		want(t, false)(dev.Identities.IsTrustedIdentity(ctx, "77_1:"+device, key(5)))
		want(t, []byte(nil))(dev.SenderKeys.GetSenderKey(ctx, "g1@g.us", "49:"+device))
		want(t, []byte("g1 of 49:"+device))(dev.SenderKeys.GetSenderKey(ctx, "g1@g.us", "77_1:"+device))
		want(t, []byte("g2 of 49:"+device))(dev.SenderKeys.GetSenderKey(ctx, "g2@g.us", "77_1:"+device))
	}
	want(t, true)(dev.Sessions.HasSession(ctx, "50:0"))
	must(t, dev.Sessions.MigratePNToLID(ctx, pn("51", 0), lid("78", 0))) // nothing there
}

func preKeys(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.PreKeys
	want(t, 0)(s.UploadedPreKeyCount(ctx))
	first, err := s.GetOrGenPreKeys(ctx, 60)
	must(t, err)
	if len(first) != 60 {
		t.Fatalf("got %d prekeys", len(first))
	}
	for i, k := range first {
		if i > 0 && k.KeyID <= first[i-1].KeyID || k.KeyID == 0 || k.KeyID > 1<<24-1 {
			t.Fatalf("prekey %d has id %d after %d", i, k.KeyID, first[max(0, i-1)].KeyID)
		}
		if k.Signature != nil {
			t.Fatal("a one-time prekey is not signed")
		}
		got, err := s.GetPreKey(ctx, k.KeyID)
		must(t, err)
		if got == nil || *got.Priv != *k.Priv || *got.Pub != *k.Pub || got.KeyID != k.KeyID {
			t.Fatalf("prekey %d reads as another", k.KeyID)
		}
	}
	again, err := s.GetOrGenPreKeys(ctx, 60) // not uploaded yet
	must(t, err)
	if again[0].KeyID != first[0].KeyID || again[59].KeyID != first[59].KeyID {
		t.Fatal("keys that were not uploaded are offered again")
	}
	fewer, err := s.GetOrGenPreKeys(ctx, 10)
	must(t, err)
	if len(fewer) != 10 || fewer[9].KeyID != first[9].KeyID {
		t.Fatal("the lowest ids come first")
	}
	want(t, 0)(s.UploadedPreKeyCount(ctx))
	must(t, s.MarkPreKeysAsUploaded(ctx, first[29].KeyID))
	want(t, 30)(s.UploadedPreKeyCount(ctx))
	mixed, err := s.GetOrGenPreKeys(ctx, 50)
	must(t, err)
	if mixed[0].KeyID != first[30].KeyID || mixed[29].KeyID != first[59].KeyID || mixed[30].KeyID <= first[59].KeyID {
		t.Fatal("what was not uploaded comes first, then new ones with higher ids")
	}
	one, err := s.GenOnePreKey(ctx)
	must(t, err)
	if one.KeyID <= mixed[49].KeyID {
		t.Fatalf("prekey id %d came after %d", one.KeyID, mixed[49].KeyID)
	}
	want(t, 31)(s.UploadedPreKeyCount(ctx))
	none, err := s.GetPreKey(ctx, one.KeyID+1000)
	must(t, err)
	if none != nil {
		t.Fatal("an unknown prekey is nil")
	}
}

func preKeyRemoval(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.PreKeys
	all, err := s.GetOrGenPreKeys(ctx, 812)
	must(t, err)
	must(t, s.MarkPreKeysAsUploaded(ctx, all[811].KeyID))
	want(t, 812)(s.UploadedPreKeyCount(ctx))
	for _, k := range all[:30] {
		must(t, s.RemovePreKey(ctx, k.KeyID))
	}
	must(t, s.RemovePreKey(ctx, all[0].KeyID))
	want(t, 782)(s.UploadedPreKeyCount(ctx))
	gone, err := s.GetPreKey(ctx, all[3].KeyID)
	must(t, err)
	there, err := s.GetPreKey(ctx, all[30].KeyID)
	must(t, err)
	if gone != nil || there == nil {
		t.Fatal("only what was removed is gone")
	}
}

func senderKeys(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.SenderKeys
	want(t, []byte(nil))(s.GetSenderKey(ctx, "g@g.us", "1:0"))
	must(t, s.PutSenderKey(ctx, "g@g.us", "1:0", []byte("a")))
	must(t, s.PutSenderKey(ctx, "g@g.us", "1:1", []byte("b")))
	must(t, s.PutSenderKey(ctx, "h@g.us", "1:0", []byte("c")))
	must(t, s.PutSenderKey(ctx, "g@g.us", "1:0", []byte("a2")))
	want(t, []byte("a2"))(s.GetSenderKey(ctx, "g@g.us", "1:0"))
	want(t, []byte("b"))(s.GetSenderKey(ctx, "g@g.us", "1:1"))
	want(t, []byte("c"))(s.GetSenderKey(ctx, "h@g.us", "1:0"))
}
