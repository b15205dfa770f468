package libtest

import (
	"context"
	"slices"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
)

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
