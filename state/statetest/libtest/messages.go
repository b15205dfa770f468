package libtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
)

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
	if dev.Delete(ctx) != nil {
		// A store may leave that to its owner; then nothing has changed.
		if dev.Deleted || dev.ID == nil || *dev.ID != JID {
			t.Fatal("the device is not deleted, and not usable")
		}
		must(t, dev.Save(ctx))
		must(t, dev.Identities.PutIdentity(ctx, "9:0", [32]byte{9}))
		return
	}
	must(t, dev.Delete(ctx))
	if !dev.Deleted || dev.ID != nil {
		t.Fatal("the device is deleted")
	}
	if err := dev.Save(ctx); !errors.Is(err, store.ErrDeviceDeleted) {
		t.Fatalf("got %v", err)
	}
}
