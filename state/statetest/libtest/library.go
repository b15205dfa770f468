// Package libtest is what whatsmeow expects of its device stores, as tests. The
// library itself has none; its own SQL store is the oracle: the suite passes on
// it, and on every store of ours.
package libtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

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

func appStateKeys(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.AppStateKeys
	want(t, (*store.AppStateSyncKey)(nil))(s.GetAppStateSyncKey(ctx, []byte{1}))
	want(t, []byte(nil))(s.GetLatestAppStateSyncKeyID(ctx))
	put := func(id byte, data string, at int64) {
		t.Helper()
		must(t, s.PutAppStateSyncKey(ctx, []byte{id}, store.AppStateSyncKey{Data: []byte(data), Fingerprint: []byte("f"), Timestamp: at}))
	}
	put(1, "one", 10)
	put(2, "two", 30)
	put(3, "three", 20)
	put(1, "older", 5)
	put(1, "as old", 10)
	put(3, "newer", 25)
	want(t, &store.AppStateSyncKey{Data: []byte("one"), Fingerprint: []byte("f"), Timestamp: 10})(s.GetAppStateSyncKey(ctx, []byte{1}))
	want(t, &store.AppStateSyncKey{Data: []byte("newer"), Fingerprint: []byte("f"), Timestamp: 25})(s.GetAppStateSyncKey(ctx, []byte{3}))
	want(t, []byte{2})(s.GetLatestAppStateSyncKeyID(ctx))
	all, err := s.GetAllAppStateSyncKeys(ctx)
	must(t, err)
	var data []string
	for _, k := range all {
		data = append(data, string(k.Data))
	}
	if !slices.Equal(data, []string{"two", "newer", "one"}) {
		t.Fatalf("got %v", data)
	}
}

func appState(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.AppState
	version := func(name string, expected uint64, hash [128]byte) {
		t.Helper()
		v, h, err := s.GetAppStateVersion(ctx, name)
		must(t, err)
		if v != expected || h != hash {
			t.Fatalf("version of %s is %d, want %d", name, v, expected)
		}
	}
	version("regular", 0, [128]byte{})
	index := func(i int) []byte { k := key(byte(i)); k[31] = byte(i >> 8); return k[:] }
	value := func(i int) []byte { k := key(byte(i + 1)); return k[:] }
	macs := func(from, to, shift int) (out []store.AppStateMutationMAC) {
		for i := from; i < to; i++ {
			out = append(out, store.AppStateMutationMAC{IndexMAC: index(i), ValueMAC: value(i + shift)})
		}
		return out
	}
	// The library's three calls for a snapshot.
	must(t, s.PutAppStateVersion(ctx, "regular", 3, [128]byte{3}))
	must(t, s.DeleteAppStateMutationMACs(ctx, "regular", nil))
	must(t, s.PutAppStateMutationMACs(ctx, "regular", 3, macs(0, 700, 0)))
	version("regular", 3, [128]byte{3})
	want(t, value(650))(s.GetAppStateMutationMAC(ctx, "regular", index(650)))
	want(t, []byte(nil))(s.GetAppStateMutationMAC(ctx, "regular", index(701)))
	want(t, []byte(nil))(s.GetAppStateMutationMAC(ctx, "other", index(650)))
	// And for a patch.
	must(t, s.PutAppStateVersion(ctx, "regular", 4, [128]byte{4}))
	must(t, s.DeleteAppStateMutationMACs(ctx, "regular", [][]byte{index(1), index(650)}))
	must(t, s.PutAppStateMutationMACs(ctx, "regular", 4, macs(5, 7, 100)))
	version("regular", 4, [128]byte{4})
	want(t, []byte(nil))(s.GetAppStateMutationMAC(ctx, "regular", index(1)))
	want(t, []byte(nil))(s.GetAppStateMutationMAC(ctx, "regular", index(650)))
	want(t, value(105))(s.GetAppStateMutationMAC(ctx, "regular", index(5))) // the highest version
	want(t, value(7))(s.GetAppStateMutationMAC(ctx, "regular", index(7)))
	must(t, s.PutAppStateVersion(ctx, "regular", 5, [128]byte{5}))
	must(t, s.PutAppStateMutationMACs(ctx, "regular", 5, nil))
	version("regular", 5, [128]byte{5})

	must(t, s.PutAppStateVersion(ctx, "critical", 1, [128]byte{1}))
	must(t, s.PutAppStateMutationMACs(ctx, "critical", 1, macs(0, 3, 0)))
	must(t, s.DeleteAppStateVersion(ctx, "regular"))
	version("regular", 0, [128]byte{})
	want(t, []byte(nil))(s.GetAppStateMutationMAC(ctx, "regular", index(5)))
	version("critical", 1, [128]byte{1})
	want(t, value(2))(s.GetAppStateMutationMAC(ctx, "critical", index(2)))
}

func contacts(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.Contacts
	a, b, c := pn("1", 0), pn("2", 0), lid("3", 0)
	want(t, types.ContactInfo{})(s.GetContact(ctx, a))
	push := func(user types.JID, name string, changed bool, before string) {
		t.Helper()
		got, old, err := s.PutPushName(ctx, user, name)
		must(t, err)
		if got != changed || old != before {
			t.Fatalf("changed %v from %q, want %v from %q", got, old, changed, before)
		}
	}
	push(a, "Ann", true, "")
	push(a, "Ann", false, "")
	push(a, "Anna", true, "Ann")
	changed, old, err := s.PutBusinessName(ctx, a, "Shop")
	must(t, err)
	if !changed || old != "" {
		t.Fatal("the first business name is a change")
	}
	must(t, s.PutContactName(ctx, a, "Anna", "Anna A"))
	want(t, types.ContactInfo{Found: true, FirstName: "Anna", FullName: "Anna A", PushName: "Anna", BusinessName: "Shop"})(s.GetContact(ctx, a))
	must(t, s.PutAllContactNames(ctx, []store.ContactEntry{{JID: a, FirstName: "A", FullName: "A A"}, {JID: b, FirstName: "B", FullName: "B B"}}))
	must(t, s.PutManyRedactedPhones(ctx, []store.RedactedPhoneEntry{{JID: c, RedactedPhone: "+1∙∙∙3"}, {JID: b, RedactedPhone: "+1∙∙∙2"}}))
	must(t, s.PutAllContactNames(ctx, nil))
	must(t, s.PutManyRedactedPhones(ctx, nil))
	all := map[types.JID]types.ContactInfo{
		a: {Found: true, FirstName: "A", FullName: "A A", PushName: "Anna", BusinessName: "Shop"},
		b: {Found: true, FirstName: "B", FullName: "B B", RedactedPhone: "+1∙∙∙2"},
		c: {Found: true, RedactedPhone: "+1∙∙∙3"},
	}
	for jid, info := range all {
		want(t, info)(s.GetContact(ctx, jid))
	}
	want(t, all)(s.GetAllContacts(ctx))
}

func chatSettings(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.ChatSettings
	a := pn("1", 0)
	want(t, types.LocalChatSettings{})(s.GetChatSettings(ctx, a))
	until := time.Unix(1900000000, 0)
	must(t, s.PutMutedUntil(ctx, a, until))
	must(t, s.PutPinned(ctx, a, true))
	must(t, s.PutArchived(ctx, a, true))
	must(t, s.PutPinned(ctx, a, false))
	want(t, types.LocalChatSettings{Found: true, MutedUntil: until, Archived: true})(s.GetChatSettings(ctx, a))
	must(t, s.PutMutedUntil(ctx, a, store.MutedForever))
	want(t, types.LocalChatSettings{Found: true, MutedUntil: store.MutedForever, Archived: true})(s.GetChatSettings(ctx, a))
	must(t, s.PutMutedUntil(ctx, a, time.Time{}))
	want(t, types.LocalChatSettings{Found: true, Archived: true})(s.GetChatSettings(ctx, a))
}

func messageSecrets(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.MsgSecrets
	chat, sender := pn("1", 0), pn("2", 4)
	secret := func(chat, sender types.JID, id, expected string, from types.JID) {
		t.Helper()
		got, real, err := s.GetMessageSecret(ctx, chat, sender, id)
		must(t, err)
		if string(got) != expected || real != from {
			t.Fatalf("got %q from %v, want %q from %v", got, real, expected, from)
		}
	}
	secret(chat, sender, "A", "", types.JID{})
	must(t, s.PutMessageSecret(ctx, chat, sender, "A", []byte("first")))
	must(t, s.PutMessageSecret(ctx, chat, sender, "A", []byte("second")))
	secret(chat, sender, "A", "first", sender.ToNonAD())
	secret(chat, pn("2", 0), "A", "first", sender.ToNonAD()) // devices do not count
	secret(chat, pn("3", 0), "A", "", types.JID{})
	secret(pn("9", 0), sender, "A", "", types.JID{})
	must(t, s.PutMessageSecrets(ctx, []store.MessageSecretInsert{
		{Chat: chat, Sender: sender, ID: "A", Secret: []byte("third")},
		{Chat: chat, Sender: sender, ID: "B", Secret: []byte("b")},
		{Chat: chat, Sender: sender, ID: "B", Secret: []byte("b2")},
		{Chat: chat, Sender: sender, ID: "C"},
		{Chat: types.JID{}, Sender: sender, ID: "D", Secret: []byte("d")},
	}))
	must(t, s.PutMessageSecrets(ctx, nil))
	secret(chat, sender, "A", "first", sender.ToNonAD())
	secret(chat, sender, "B", "b", sender.ToNonAD())
	secret(chat, sender, "C", "", types.JID{})

	// Under LIDs, once the map knows them.
	must(t, dev.LIDs.PutLIDMapping(ctx, lid("101", 0), chat))
	must(t, dev.LIDs.PutLIDMapping(ctx, lid("102", 0), pn("2", 0)))
	secret(lid("101", 0), lid("102", 3), "A", "first", sender.ToNonAD())
	secret(lid("101", 0), sender, "A", "first", sender.ToNonAD())
	must(t, s.PutMessageSecret(ctx, lid("101", 0), lid("102", 0), "L", []byte("l")))
	secret(chat, sender, "L", "l", lid("102", 0))
	group := types.JID{User: "g", Server: types.GroupServer}
	must(t, s.PutMessageSecret(ctx, group, lid("102", 0), "G", []byte("g")))
	secret(group, sender, "G", "g", lid("102", 0))
	var many []store.MessageSecretInsert
	for i := range 200 {
		many = append(many, store.MessageSecretInsert{Chat: group, Sender: sender, ID: fmt.Sprint("M", i), Secret: []byte{byte(i)}})
	}
	must(t, s.PutMessageSecrets(ctx, many))
	secret(group, sender, "M199", "\xc7", sender.ToNonAD())
}

func privacyTokens(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.PrivacyTokens
	at := func(n int64) time.Time { return time.Unix(n, 0) }
	want(t, (*store.PrivacyToken)(nil))(s.GetPrivacyToken(ctx, pn("1", 0)))
	must(t, s.PutPrivacyTokens(ctx, store.PrivacyToken{User: pn("1", 3), Token: []byte("a"), Timestamp: at(100), SenderTimestamp: at(90)}))
	want(t, &store.PrivacyToken{User: pn("1", 0), Token: []byte("a"), Timestamp: at(100), SenderTimestamp: at(90)})(s.GetPrivacyToken(ctx, pn("1", 2)))
	must(t, s.PutPrivacyTokens(ctx, store.PrivacyToken{User: pn("1", 0), Token: []byte("old"), Timestamp: at(99), SenderTimestamp: at(1)}))
	want(t, &store.PrivacyToken{User: pn("1", 0), Token: []byte("a"), Timestamp: at(100), SenderTimestamp: at(90)})(s.GetPrivacyToken(ctx, pn("1", 0)))
	must(t, s.PutPrivacyTokens(ctx, store.PrivacyToken{User: pn("1", 0), Token: []byte("b"), Timestamp: at(100)}))
	want(t, &store.PrivacyToken{User: pn("1", 0), Token: []byte("b"), Timestamp: at(100), SenderTimestamp: at(90)})(s.GetPrivacyToken(ctx, pn("1", 0)))
	must(t, s.PutPrivacyTokens(ctx,
		store.PrivacyToken{User: pn("2", 0), Token: []byte("two"), Timestamp: at(50)},
		store.PrivacyToken{User: lid("103", 0), Token: []byte("three"), Timestamp: at(300)}))
	must(t, dev.LIDs.PutLIDMapping(ctx, lid("101", 0), pn("1", 0)))
	must(t, dev.LIDs.PutLIDMapping(ctx, lid("103", 0), pn("3", 0)))
	want(t, &store.PrivacyToken{User: lid("101", 0), Token: []byte("b"), Timestamp: at(100), SenderTimestamp: at(90)})(s.GetPrivacyToken(ctx, lid("101", 0)))
	want(t, &store.PrivacyToken{User: pn("3", 0), Token: []byte("three"), Timestamp: at(300)})(s.GetPrivacyToken(ctx, pn("3", 0)))
	must(t, s.PutPrivacyTokens(ctx, store.PrivacyToken{User: pn("3", 0), Token: []byte("newer"), Timestamp: at(400)}))
	want(t, &store.PrivacyToken{User: lid("103", 0), Token: []byte("newer"), Timestamp: at(400)})(s.GetPrivacyToken(ctx, lid("103", 0)))
	want(t, int64(1))(s.DeleteExpiredPrivacyTokens(ctx, at(100)))
	want(t, int64(0))(s.DeleteExpiredPrivacyTokens(ctx, at(100)))
	want(t, (*store.PrivacyToken)(nil))(s.GetPrivacyToken(ctx, pn("2", 0)))
}

func nctSalt(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.NCTSalt
	want(t, []byte(nil))(s.GetNCTSalt(ctx))
	must(t, s.PutNCTSalt(ctx, []byte("a")))
	must(t, s.PutNCTSalt(ctx, []byte("b")))
	want(t, []byte("b"))(s.GetNCTSalt(ctx))
	must(t, s.DeleteNCTSalt(ctx))
	must(t, s.DeleteNCTSalt(ctx))
	want(t, []byte(nil))(s.GetNCTSalt(ctx))
}

func eventBuffer(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.EventBuffer
	want(t, (*store.BufferedEvent)(nil))(s.GetBufferedEvent(ctx, key(1)))
	at := time.Unix(1700000000, 0)
	must(t, s.PutBufferedEvent(ctx, key(1), []byte("plain"), at))
	got, err := s.GetBufferedEvent(ctx, key(1))
	must(t, err)
	if got == nil || string(got.Plaintext) != "plain" || !got.ServerTime.Equal(at) || time.Since(got.InsertTime).Abs() > time.Minute {
		t.Fatalf("got %+v", got)
	}
	must(t, s.ClearBufferedEventPlaintext(ctx, key(1)))
	got, err = s.GetBufferedEvent(ctx, key(1))
	must(t, err)
	if got == nil || got.Plaintext != nil || !got.ServerTime.Equal(at) {
		t.Fatalf("got %+v", got)
	}
	must(t, s.ClearBufferedEventPlaintext(ctx, key(2)))
	want(t, (*store.BufferedEvent)(nil))(s.GetBufferedEvent(ctx, key(2)))
	must(t, s.DeleteOldBufferedHashes(ctx))
	got, err = s.GetBufferedEvent(ctx, key(1))
	must(t, err)
	if got == nil {
		t.Fatal("a hash of today is gone")
	}
}

func decryptionTxn(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.EventBuffer
	must(t, dev.Sessions.PutSession(ctx, "1:0", []byte("old")))
	failure := errors.New("does not decrypt")
	err := s.DoDecryptionTxn(ctx, func(ctx context.Context) error {
		must(t, dev.Sessions.PutSession(ctx, "1:0", []byte("new")))
		want(t, []byte("new"))(dev.Sessions.GetSession(ctx, "1:0"))
		must(t, dev.Identities.PutIdentity(ctx, "1:0", key(1)))
		return failure
	})
	if !errors.Is(err, failure) {
		t.Fatalf("got %v", err)
	}
	want(t, []byte("old"))(dev.Sessions.GetSession(ctx, "1:0"))
	want(t, true)(dev.Identities.IsTrustedIdentity(ctx, "1:0", key(2)))
	must(t, s.DoDecryptionTxn(ctx, func(ctx context.Context) error {
		must(t, dev.Sessions.PutSession(ctx, "1:0", []byte("new")))
		return s.PutBufferedEvent(ctx, key(1), []byte("plain"), time.Unix(1700000000, 0))
	}))
	want(t, []byte("new"))(dev.Sessions.GetSession(ctx, "1:0"))
	got, err := s.GetBufferedEvent(ctx, key(1))
	must(t, err)
	if got == nil || string(got.Plaintext) != "plain" {
		t.Fatalf("got %+v", got)
	}
	must(t, s.ClearBufferedEventPlaintext(ctx, key(1)))
	got, err = s.GetBufferedEvent(ctx, key(1))
	must(t, err)
	if got == nil || got.Plaintext != nil {
		t.Fatalf("got %+v", got)
	}
	want(t, []byte("new"))(dev.Sessions.GetSession(ctx, "1:0"))
}

func outgoingEvents(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.EventBuffer
	a, b := pn("1", 0), lid("101", 0)
	if _, _, err := s.GetOutgoingEvent(ctx, a, b, "M"); err == nil || errors.Is(err, context.Canceled) {
		t.Fatalf("an absent event is an error of its own, got %v", err)
	}
	must(t, s.AddOutgoingEvent(ctx, b, "M", "wa", []byte("one")))
	must(t, s.AddOutgoingEvent(ctx, b, "M", "fb", []byte("two")))
	for _, chats := range [][2]types.JID{{a, b}, {b, a}, {b, {}}} {
		format, plain, err := s.GetOutgoingEvent(ctx, chats[0], chats[1], "M")
		must(t, err)
		if format != "fb" || string(plain) != "two" {
			t.Fatalf("got %s %q", format, plain)
		}
	}
	if _, _, err := s.GetOutgoingEvent(ctx, a, types.JID{}, "M"); err == nil {
		t.Fatal("another chat's event")
	}
	must(t, s.DeleteOldOutgoingEvents(ctx))
	_, _, err := s.GetOutgoingEvent(ctx, b, types.JID{}, "M")
	must(t, err)
}

func lidMap(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.LIDs
	want(t, types.JID{})(s.GetLIDForPN(ctx, pn("1", 0)))
	want(t, types.JID{})(s.GetPNForLID(ctx, lid("101", 0)))
	must(t, s.PutLIDMapping(ctx, lid("101", 0), pn("1", 0)))
	must(t, s.PutLIDMapping(ctx, lid("101", 0), pn("1", 0)))
	want(t, lid("101", 4))(s.GetLIDForPN(ctx, pn("1", 4))) // the device goes with it
	want(t, pn("1", 5))(s.GetPNForLID(ctx, lid("101", 5)))
	if err := s.PutLIDMapping(ctx, pn("1", 0), lid("101", 0)); err == nil {
		t.Fatal("arguments in the wrong order")
	}
	if _, err := s.GetLIDForPN(ctx, lid("101", 0)); err == nil {
		t.Fatal("a LID is no phone number")
	}
	if _, err := s.GetPNForLID(ctx, pn("1", 0)); err == nil {
		t.Fatal("a phone number is no LID")
	}
	var pairs []store.LIDMapping
	for i := range 100 {
		pairs = append(pairs, store.LIDMapping{LID: lid(fmt.Sprint(2000+i), 0), PN: pn(fmt.Sprint(1000+i), 0)})
	}
	pairs = append(pairs, store.LIDMapping{LID: pn("5", 0), PN: pn("6", 0)}, pairs[0])
	must(t, s.PutManyLIDMappings(ctx, pairs))
	must(t, s.PutManyLIDMappings(ctx, nil))
	got, err := s.GetManyLIDsForPNs(ctx, []types.JID{pn("1000", 1), pn("1000", 2), pn("1099", 0), pn("77", 0), lid("101", 0), pn("1", 0)})
	must(t, err)
	if expected := (map[types.JID]types.JID{pn("1000", 1): lid("2000", 1), pn("1000", 2): lid("2000", 2),
		pn("1099", 0): lid("2099", 0), pn("1", 0): lid("101", 0)}); !maps.Equal(got, expected) {
		t.Fatalf("got %v", got)
	}
}

func lidConflicts(t *testing.T, dev *store.Device) {
	ctx, s := context.Background(), dev.LIDs
	must(t, s.PutLIDMapping(ctx, lid("101", 0), pn("1", 0)))
	must(t, s.PutLIDMapping(ctx, lid("102", 0), pn("1", 0))) // the number has another LID now
	want(t, lid("102", 0))(s.GetLIDForPN(ctx, pn("1", 0)))
	want(t, types.JID{})(s.GetPNForLID(ctx, lid("101", 0)))
	want(t, pn("1", 0))(s.GetPNForLID(ctx, lid("102", 0)))
	must(t, s.PutLIDMapping(ctx, lid("102", 0), pn("2", 0))) // the LID has another number now
	want(t, types.JID{})(s.GetLIDForPN(ctx, pn("1", 0)))
	want(t, lid("102", 0))(s.GetLIDForPN(ctx, pn("2", 0)))
	want(t, pn("2", 0))(s.GetPNForLID(ctx, lid("102", 0)))
}

func deviceFields(t *testing.T, dev *store.Device) {
	ctx := context.Background()
	if dev.ID == nil || *dev.ID != JID || !dev.Initialized {
		t.Fatal("the device is paired")
	}
	dev.PushName, dev.LIDMigrationTimestamp, dev.CompanionMetaNonce = "Me", 123, "nonce"
	must(t, dev.Save(ctx))
	must(t, dev.Save(ctx))
	empty := *dev
	empty.ID = nil
	if err := dev.Container.PutDevice(ctx, &empty); err == nil {
		t.Fatal("a device without a JID cannot be saved")
	}
	must(t, dev.Delete(ctx))
	must(t, dev.Delete(ctx))
	if !dev.Deleted || dev.ID != nil {
		t.Fatal("the device is deleted")
	}
	if err := dev.Save(ctx); !errors.Is(err, store.ErrDeviceDeleted) {
		t.Fatalf("got %v", err)
	}
}
