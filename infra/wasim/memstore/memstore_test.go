package memstore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/infra/wasim/memstore"
)

var (
	pn  = types.NewJID("491700000001", types.DefaultUserServer)
	lid = types.NewJID("123456789012345", types.HiddenUserServer)
	ctx = context.Background()
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPreKeyIDsNeverRepeat(t *testing.T) {
	d := memstore.New()
	first := must(d.PreKeys.GetOrGenPreKeys(ctx, 5))
	check(t, d.PreKeys.MarkPreKeysAsUploaded(ctx, first[4].KeyID))
	for _, k := range first {
		got := must(d.PreKeys.GetPreKey(ctx, k.KeyID))
		if *got.Pub != *k.Pub {
			t.Errorf("key %d changed", k.KeyID)
		}
		check(t, d.PreKeys.RemovePreKey(ctx, k.KeyID))
	}
	one := must(d.PreKeys.GenOnePreKey(ctx))
	more := must(d.PreKeys.GetOrGenPreKeys(ctx, 3))
	if one.KeyID != 6 || more[0].KeyID != 7 || more[2].KeyID != 9 {
		t.Errorf("ids: %d, %d to %d", one.KeyID, more[0].KeyID, more[2].KeyID)
	}
	if n := must(d.PreKeys.UploadedPreKeyCount(ctx)); n != 1 {
		t.Errorf("uploaded: %d", n)
	}
	if k := must(d.PreKeys.GetPreKey(ctx, 1)); k != nil {
		t.Error("a removed key is there")
	}
}

func TestMigration(t *testing.T) {
	d := memstore.New()
	from, to := pn.SignalAddress().String(), lid.SignalAddress().String()
	check(t, d.Sessions.PutSession(ctx, from, []byte("s")))
	check(t, d.Identities.PutIdentity(ctx, from, [32]byte{1}))
	check(t, d.SenderKeys.PutSenderKey(ctx, "g", from, []byte("k")))
	check(t, d.Sessions.MigratePNToLID(ctx, pn, lid))
	if string(must(d.Sessions.GetSession(ctx, to))) != "s" || must(d.Sessions.HasSession(ctx, from)) {
		t.Error("session did not move")
	}
	if must(d.Identities.IsTrustedIdentity(ctx, to, [32]byte{2})) || !must(d.Identities.IsTrustedIdentity(ctx, from, [32]byte{2})) {
		t.Error("identity did not move")
	}
	if string(must(d.SenderKeys.GetSenderKey(ctx, "g", to))) != "k" {
		t.Error("sender key did not move")
	}
	check(t, d.Sessions.DeleteAllSessions(ctx, lid.SignalAddressUser()))
	if got := must(d.Sessions.GetManySessions(ctx, []string{to, "x"})); len(got) != 2 || got[to] != nil {
		t.Errorf("sessions: %v", got)
	}
}

func TestSecretsAndTokensUnderBothNames(t *testing.T) {
	d := memstore.New()
	check(t, d.LIDs.PutLIDMapping(ctx, lid, pn))
	check(t, d.MsgSecrets.PutMessageSecret(ctx, pn, pn, "m", []byte("a")))
	check(t, d.MsgSecrets.PutMessageSecret(ctx, pn, pn, "m", []byte("b")))
	secret, _, err := d.MsgSecrets.GetMessageSecret(ctx, lid, lid, "m")
	if err != nil || string(secret) != "a" {
		t.Errorf("secret: %q %v", secret, err)
	}
	now := time.Now()
	check(t, d.PrivacyTokens.PutPrivacyTokens(ctx, store.PrivacyToken{User: lid, Token: []byte("t"), Timestamp: now},
		store.PrivacyToken{User: lid, Token: []byte("old"), Timestamp: now.Add(-time.Hour)}))
	if got := must(d.PrivacyTokens.GetPrivacyToken(ctx, pn)); got == nil || string(got.Token) != "t" {
		t.Errorf("token: %+v", got)
	}
	if n := must(d.PrivacyTokens.DeleteExpiredPrivacyTokens(ctx, now.Add(time.Second))); n != 1 {
		t.Errorf("expired: %d", n)
	}
}

func TestEventsAreBounded(t *testing.T) {
	d := memstore.New()
	for i := range 1500 {
		check(t, d.EventBuffer.AddOutgoingEvent(ctx, pn, fmt.Sprint(i), "wa", []byte{1}))
	}
	if _, _, err := d.EventBuffer.GetOutgoingEvent(ctx, lid, pn, "0"); err == nil {
		t.Error("the oldest is still kept")
	}
	if _, data, err := d.EventBuffer.GetOutgoingEvent(ctx, lid, pn, "1499"); err != nil || len(data) != 1 {
		t.Errorf("the newest: %v", err)
	}
	hash := [32]byte{9}
	check(t, d.EventBuffer.PutBufferedEvent(ctx, hash, []byte("p"), time.Now()))
	check(t, d.EventBuffer.ClearBufferedEventPlaintext(ctx, hash))
	if e := must(d.EventBuffer.GetBufferedEvent(ctx, hash)); e == nil || e.Plaintext != nil {
		t.Errorf("event: %+v", e)
	}
	check(t, d.AppState.PutAppStateVersion(ctx, "n", 3, [128]byte{1}))
	check(t, d.AppState.PutAppStateMutationMACs(ctx, "n", 3, []store.AppStateMutationMAC{{IndexMAC: []byte("i"), ValueMAC: []byte("v")}}))
	check(t, d.AppState.DeleteAppStateVersion(ctx, "n"))
	if v := must(d.AppState.GetAppStateMutationMAC(ctx, "n", []byte("i"))); v != nil {
		t.Error("a MAC outlived its version")
	}
}
