package dynamo_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"go.mau.fi/whatsmeow/store"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamotest"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest/libtest"
)

// What the library expects of a device store holds over DynamoDB as well.
func TestLibrary(t *testing.T) {
	libtest.Library(t, func(t *testing.T) *store.Device { return newShop(t, dynamotest.Open(t)).device.Library() })
}

// Whoever reads both tables and has no key finds ids, times and states: no phone
// number, no address, no name, no message, in whatever attribute and however it
// may be written.
func TestReadRaw(t *testing.T) {
	ctx := context.Background()
	o := dynamotest.Options(t)
	s := dynamotest.Reopen(t, o)
	if err := s.Create(ctx); err != nil {
		t.Fatal(err)
	}
	sh := newShop(t, s)
	from := sh.contact()
	own := sh.device.Library()
	const secret = "the words of a message"
	for i := range 3 {
		sh.receive(from, fmt.Sprint("IN", i), secret)
		sh.send(fmt.Sprint("OUT", i), secret)
	}
	for what, err := range map[string]error{
		"contact":       own.Contacts.PutContactName(ctx, phone, "Ann", "Ann Example"),
		"chat settings": own.ChatSettings.PutPinned(ctx, phone, true),
		"sender key":    own.SenderKeys.PutSenderKey(ctx, "120363000000000000@g.us", theirs.SignalAddress().String(), []byte(secret)),
		"identity":      own.Identities.PutIdentity(ctx, phone.SignalAddress().String(), [32]byte{1}),
		"sync key":      own.AppStateKeys.PutAppStateSyncKey(ctx, []byte("key"), store.AppStateSyncKey{Data: []byte(secret)}),
		"token":         own.PrivacyTokens.PutPrivacyTokens(ctx, store.PrivacyToken{User: phone, Token: []byte(secret), Timestamp: time.Now()}),
		"status": sh.sealed(state.KindStatus, "", func(b []byte) any { return state.Status{V: 1, State: state.Online, Sealed: b} },
			state.Identity{JID: libtest.JID.String(), LID: ours.String(), PushName: "Ann Example"}),
		"outbox": sh.sealed(state.KindOutbox, "01J", func(b []byte) any { return state.Outbox{V: 1, ID: "01J", Sealed: b} },
			state.OutboxContent{To: phone.String(), Text: secret}),
		"a load":  s.Beat(ctx, "w1", state.Load{Sessions: 1}),
		"a flush": sh.journal.Flush(ctx),
	} {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if _, err := own.PreKeys.GetOrGenPreKeys(ctx, 10); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, clear := range []string{
		secret, "Ann Example", "Example", phone.User, phone.String(), theirs.User, ours.User, libtest.JID.User, "120363000000000000", "s.whatsapp.net", "@lid", "@g.us",
	} {
		all = append(all, needles(clear)...)
	}
	for _, before := range []string{"", "x", "xx"} { // they would be found
		secret := before + secret
		for _, line := range []string{secret, fmt.Sprintf("%x", secret), base64.StdEncoding.EncodeToString([]byte(secret))} {
			if !containsAny(line, all) {
				t.Fatalf("%q is not seen through", line)
			}
		}
	}
	seen := 0
	kinds := map[string]bool{}
	for _, table := range []string{"test-fleet", "test-signal"} {
		for _, line := range append(items(t, raw(o), table), names(t, raw(o), table)...) {
			seen++
			for _, kind := range []string{"SESS", "ID", "SK", "PK", "SEC", "WOUT", "WEVT", "CON", "CHAT", "ASK", "PT", "LID", "EV", "STATUS", "OB", "META"} {
				if strings.Contains(line, " sk="+kind+"#") || strings.Contains(line+" ", " sk="+kind+" ") {
					kinds[kind] = true
				}
			}
			if containsAny(line, all) {
				t.Errorf("%s shows what should be sealed: %.300s", table, line)
			}
		}
	}
	if len(kinds) != 16 || seen < 30 {
		t.Errorf("%d items of the kinds %v were looked at: too little to tell anything", seen, kinds)
	}
}

// needles are a text as it might be found: as it is, in hex, and in base64, where
// it may begin at three places and its ends are mixed with what is beside.
func needles(text string) []string {
	all := []string{text, fmt.Sprintf("%x", text)}
	for shift := range 3 {
		code := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", shift) + text))
		if code = code[(shift*8+5)/6 : len(code)-1]; len(code) >= 6 {
			all = append(all, code)
		}
	}
	return all
}

func containsAny(line string, parts []string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(line, part) })
}

// sealed commits a document with a part sealed for the fleet.
func (sh *shop) sealed(kind state.Kind, id string, doc func(sealed []byte) any, part any) error {
	body, err := json.Marshal(part)
	if err != nil {
		return err
	}
	box, err := sh.keyset.Seal(seal.Place{Partition: state.OfSession("shop"), Kind: kind, ID: id}, body)
	if err != nil {
		return err
	}
	value, err := state.Encode(doc(box))
	if err != nil {
		return err
	}
	return sh.store.Commit(context.Background(), sh.journal.Fence(), "", []state.Write{state.Put(kind, id, value)})
}

// names are the table's own words about itself.
func names(t *testing.T, client *dynamodb.Client, table string) []string {
	t.Helper()
	out, err := client.DescribeTable(context.Background(), &dynamodb.DescribeTableInput{TableName: &table})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(out.Table)
	if err != nil {
		t.Fatal(err)
	}
	return []string{string(b)}
}
