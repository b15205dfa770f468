package whatsapp

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waCommon"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/proto/waServerSync"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

var (
	adaPN  = types.NewJID("491700000002", types.DefaultUserServer)
	adaLID = types.NewJID("8800000002", types.HiddenUserServer)
)

func received(raw *waE2E.Message) *events.Message {
	e := &events.Message{RawMessage: raw, Info: types.MessageInfo{
		MessageSource: types.MessageSource{Chat: adaLID, Sender: adaLID, SenderAlt: adaPN},
		ID:            "3EB0AA", PushName: "Ada", Timestamp: time.Unix(1_700_000_000, 0),
	}}
	return e.UnwrapRaw()
}

func text(s string) *waE2E.Message { return &waE2E.Message{Conversation: proto.String(s)} }

func TestMessageData(t *testing.T) {
	key := &waCommon.MessageKey{ID: proto.String("TARGET")}
	for _, c := range []struct {
		name string
		raw  *waE2E.Message
		want MessageData
	}{
		{"text", text("hello"), MessageData{Type: "text", Text: "hello"}},
		{"an answer", &waE2E.Message{ExtendedTextMessage: &waE2E.ExtendedTextMessage{Text: proto.String("yes"),
			ContextInfo: &waE2E.ContextInfo{StanzaID: proto.String("Q1")}}}, MessageData{Type: "text", Text: "yes", QuotedID: "Q1"}},
		{"a picture", &waE2E.Message{ImageMessage: &waE2E.ImageMessage{Caption: proto.String("look"), Mimetype: proto.String("image/png"), FileLength: proto.Uint64(9)}},
			MessageData{Type: "image", Text: "look", Media: &MediaData{Kind: "image", MIME: "image/png", Size: 9}}},
		{"a picture to be seen once", &waE2E.Message{ViewOnceMessage: &waE2E.FutureProofMessage{Message: &waE2E.Message{ImageMessage: &waE2E.ImageMessage{}}}},
			MessageData{Type: "image", ViewOnce: true, Media: &MediaData{Kind: "image"}}},
		{"a voice message", &waE2E.Message{AudioMessage: &waE2E.AudioMessage{PTT: proto.Bool(true), Seconds: proto.Uint32(3)}},
			MessageData{Type: "audio", Media: &MediaData{Kind: "audio", Seconds: 3, Voice: true}}},
		{"a file", &waE2E.Message{DocumentWithCaptionMessage: &waE2E.FutureProofMessage{Message: &waE2E.Message{
			DocumentMessage: &waE2E.DocumentMessage{FileName: proto.String("a.pdf"), Caption: proto.String("read")}}}},
			MessageData{Type: "document", Text: "read", Media: &MediaData{Kind: "document", FileName: "a.pdf"}}},
		{"a reaction", &waE2E.Message{ReactionMessage: &waE2E.ReactionMessage{Key: key, Text: proto.String("👍")}},
			MessageData{Type: "reaction", Reaction: &ReactionData{To: "TARGET", Emoji: "👍"}}},
		{"a deletion", &waE2E.Message{ProtocolMessage: &waE2E.ProtocolMessage{Type: waE2E.ProtocolMessage_REVOKE.Enum(), Key: key}},
			MessageData{Type: "revoke", Revokes: "TARGET"}},
		{"an edit", &waE2E.Message{EditedMessage: &waE2E.FutureProofMessage{Message: &waE2E.Message{ProtocolMessage: &waE2E.ProtocolMessage{
			Type: waE2E.ProtocolMessage_MESSAGE_EDIT.Enum(), Key: key, EditedMessage: text("better")}}}},
			MessageData{Type: "edit", EditOf: "TARGET", Text: "better"}},
		{"something else", &waE2E.Message{PinInChatMessage: &waE2E.PinInChatMessage{}}, MessageData{Type: "other"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFakeStore()
			l, _ := loose(t, f, nil)
			if !l.handle(received(c.raw)) {
				t.Fatal("refused")
			}
			f.commit("commit")
			got := onlyData(t, f)
			if len(got.Message) == 0 {
				t.Error("the whole message is missing")
			}
			got.Message = nil
			want := c.want
			want.ID, want.Chat, want.Sender, want.SenderAlt = "3EB0AA", adaLID.String(), adaLID.String(), adaPN.String()
			want.PushName, want.Timestamp = "Ada", time.Unix(1_700_000_000, 0).UTC()
			a, _ := json.Marshal(got)
			b, _ := json.Marshal(want)
			if string(a) != string(b) {
				t.Errorf("got  %s\nwant %s", a, b)
			}
		})
	}
}

func onlyData(t *testing.T, f *fakeStore) MessageData {
	t.Helper()
	drafts := f.drafts()
	if len(drafts) != 1 || drafts[0].Type != state.EventMessage {
		t.Fatalf("drafts: %+v", drafts)
	}
	var d MessageData
	if err := json.Unmarshal(drafts[0].Data.(json.RawMessage), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// What devices tell each other is acknowledged and told to nobody.
func TestMessagesWithoutContent(t *testing.T) {
	for name, raw := range map[string]*waE2E.Message{
		"a key of a group": {SenderKeyDistributionMessage: &waE2E.SenderKeyDistributionMessage{}, MessageContextInfo: &waE2E.MessageContextInfo{}},
		"app state keys":   {ProtocolMessage: &waE2E.ProtocolMessage{Type: waE2E.ProtocolMessage_APP_STATE_SYNC_KEY_SHARE.Enum()}},
		"history":          {ProtocolMessage: &waE2E.ProtocolMessage{Type: waE2E.ProtocolMessage_HISTORY_SYNC_NOTIFICATION.Enum()}},
		"nothing":          {},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeStore()
			l, _ := loose(t, f, nil)
			if !l.handle(received(raw)) {
				t.Error("refused")
			}
			if len(f.seen()) != 0 {
				t.Errorf("the store saw %v", f.seen())
			}
		})
	}
}

// Whatever the text, the data is bounded and is JSON.
func TestDataIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]string{"a", "ä", "\x00", "\"", "\xff", "😀"}).Draw(t, "unit")
		n := rapid.IntRange(0, 300<<10).Draw(t, "length")
		data, err := encodeMessage(received(text(strings.Repeat(unit, n))))
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > maxData || !json.Valid(data) {
			t.Fatalf("%d bytes, valid %v", len(data), json.Valid(data))
		}
		var d MessageData
		if err := json.Unmarshal(data, &d); err != nil {
			t.Fatal(err)
		}
		if (len(d.Message) == 0) != (d.MessageDropped != "") {
			t.Fatalf("whole message of %d bytes, dropped %q", len(d.Message), d.MessageDropped)
		}
	})
}

// A text beyond every bound is cut, and says so; one that only a vault can hold
// is told whole.
func TestLargeMessages(t *testing.T) {
	for size, whole := range map[int]bool{450 << 10: true, 6 << 20: false} {
		data, err := encodeMessage(received(text(strings.Repeat("a", size))))
		if err != nil {
			t.Fatal(err)
		}
		var d MessageData
		if err := json.Unmarshal(data, &d); err != nil {
			t.Fatal(err)
		}
		if len(data) > maxData || (len(d.Message) > 0) != whole || (d.MessageDropped == "") != whole {
			t.Errorf("a text of %d bytes: %d bytes of data, whole %v, dropped %q", size, len(data), len(d.Message) > 0, d.MessageDropped)
		}
	}
}

func TestFullQueueRefuses(t *testing.T) {
	f := newFakeStore()
	l, m := loose(t, f, func(c *Config) { c.Full = func() bool { return true } })
	if l.handle(received(text("x"))) {
		t.Error("a message was taken")
	}
	if !slices.Equal(f.seen(), []string{"drop"}) || len(of[QueueFull](m)) != 1 {
		t.Errorf("store %v, events %v", f.seen(), m.all())
	}
	if l.handle(&events.Receipt{MessageIDs: []string{"A"}, Type: types.ReceiptTypeRead}) {
		t.Error("a receipt was taken")
	}
	if l.tether.off.Load() {
		t.Error("a full queue cut the line")
	}
}

// A failing store and a panic end alike: nothing staged, no acknowledgement,
// no frame any more.
func TestFailureInTheHandlerCutsTheLine(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*fakeStore)
		kind policy.SignalKind
	}{
		"store": {func(f *fakeStore) { f.failing = true }, policy.SignalStoreFailed},
		"panic": {func(f *fakeStore) { f.panics = true }, policy.SignalHandlerPanic},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeStore()
			l, m := loose(t, f, nil)
			f.set(func() { c.set(f) })
			if l.handle(received(text("x"))) {
				t.Error("taken")
			}
			if !l.tether.off.Load() {
				t.Error("the line is not cut")
			}
			if !slices.Contains(f.seen(), "drop") {
				t.Errorf("nothing was dropped: %v", f.seen())
			}
			if got := m.terminal(); len(got) != 1 || got[0].Kind != c.kind {
				t.Errorf("signals %+v", got)
			}
			if panicked := len(of[Panicked](m)); (name == "panic") != (panicked == 1) {
				t.Errorf("%d Panicked", panicked)
			}
		})
	}
}

func TestReceipts(t *testing.T) {
	for _, c := range []struct {
		kind types.ReceiptType
		want string
	}{
		{types.ReceiptTypeDelivered, "delivered"}, {types.ReceiptTypeInactive, "delivered"},
		{types.ReceiptTypeRead, "read"}, {types.ReceiptTypePlayed, "read"},
		{types.ReceiptTypeRetry, ""}, {types.ReceiptTypeSender, ""}, {types.ReceiptTypeReadSelf, ""},
	} {
		f := newFakeStore()
		l, m := loose(t, f, nil)
		e := &events.Receipt{MessageSource: types.MessageSource{Chat: adaPN, Sender: adaPN}, MessageIDs: []string{"A", "B"}, Type: c.kind, Timestamp: time.Unix(5, 0)}
		if !l.handle(e) {
			t.Errorf("%q was refused", c.kind)
		}
		f.commit("commit")
		drafts := f.drafts()
		if c.want == "" {
			if len(drafts) != 0 || len(m.all()) != 0 {
				t.Errorf("%q: %v %v", c.kind, drafts, m.all())
			}
			continue
		}
		if len(drafts) != 2 || drafts[1].Data.(StatusData).MessageID != "B" || drafts[1].Data.(StatusData).Status != c.want {
			t.Errorf("%q: %+v", c.kind, drafts)
		}
		if got := of[Receipt](m); len(got) != 1 || got[0].Status != c.want || !slices.Equal(got[0].IDs, []string{"A", "B"}) {
			t.Errorf("%q: %+v", c.kind, got)
		}
	}
}

// A receipt for hundreds of messages is several commits within the bounds.
func TestLongReceipt(t *testing.T) {
	f := newFakeStore()
	l, _ := loose(t, f, nil)
	if !l.handle(&events.Receipt{MessageIDs: make([]string, 200), Type: types.ReceiptTypeRead}) {
		t.Fatal("refused")
	}
	f.commit("commit")
	if n := len(f.drafts()); n != 200 {
		t.Errorf("%d events", n)
	}
	if n := len(f.seen()) - 1; n != 5 {
		t.Errorf("%d commits", n)
	}
}

func TestUndecryptable(t *testing.T) {
	f := newFakeStore()
	l, m := loose(t, f, nil)
	info := received(text("")).Info
	l.handle(&events.UndecryptableMessage{Info: info})
	l.handle(&events.UndecryptableMessage{Info: info, IsUnavailable: true, UnavailableType: events.UnavailableTypeViewOnce})
	f.commit("commit")
	drafts := f.drafts()
	if len(drafts) != 2 || drafts[0].Data.(UndecryptableData).Reason != "decryption" || drafts[1].Data.(UndecryptableData).Reason != "view_once" {
		t.Errorf("drafts %+v", drafts)
	}
	got := of[Undecryptable](m)
	if len(got) != 1 || got[0].ID != "3EB0AA" || got[0].Peer != peerToken(adaLID) || strings.Contains(got[0].Peer, adaLID.User) {
		t.Errorf("events %+v", got)
	}
}

func TestPhoneSeen(t *testing.T) {
	f := newFakeStore()
	own := types.NewJID("491700000001", types.DefaultUserServer)
	f.device.ID = &own
	l, m := loose(t, f, nil)
	now := time.Now()
	companion := own
	companion.Device = 4
	for _, n := range []*waBinary.Node{
		{Tag: "message", Attrs: waBinary.Attrs{"from": companion, "t": "1700000000"}},
		{Tag: "message", Attrs: waBinary.Attrs{"from": adaPN, "t": "1700000000"}},
		{Tag: "notification", Attrs: waBinary.Attrs{"from": own, "t": "1700000000"}},
		{Tag: "iq", Attrs: waBinary.Attrs{"type": "result", "id": "1"}},
	} {
		l.received(n)
	}
	if got := m.all(); len(got) != 0 {
		t.Fatalf("got %+v", got)
	}
	l.received(&waBinary.Node{Tag: "receipt", Attrs: waBinary.Attrs{"from": own, "t": "1700000000"}})
	patch := func(device uint32) *waBinary.Node {
		content, _ := proto.Marshal(&waServerSync.SyncdPatch{Version: &waServerSync.SyncdVersion{Version: proto.Uint64(3)}, PatchMAC: []byte("mac"), DeviceIndex: &device})
		return &waBinary.Node{Tag: "iq", Attrs: waBinary.Attrs{"type": "result"}, Content: []waBinary.Node{{Tag: "sync", Content: []waBinary.Node{
			{Tag: "collection", Content: []waBinary.Node{{Tag: "patches", Content: []waBinary.Node{{Tag: "patch", Content: content}}}}}}}}}
	}
	l.received(patch(3))
	l.received(patch(0))
	got := of[PhoneSeen](m)
	if len(got) != 2 || !got[0].At.Equal(time.Unix(1_700_000_000, 0)) || got[1].At.Before(now) {
		t.Errorf("got %+v", got)
	}
}

func TestQRCodes(t *testing.T) {
	l, m := loose(t, newFakeStore(), nil)
	l.handle(&events.QR{Codes: []string{"a,OLD,1", "b,OLD,1", "c,OLD,1"}})
	l.handle(&events.RotateADVSecret{OldSecret: "OLD", NewSecret: "NEW"})
	got := of[QRCodes](m)
	if len(got) != 2 || !slices.Equal(got[0].Lasts, []time.Duration{time.Minute, 20 * time.Second, 20 * time.Second}) || got[0].Redone {
		t.Fatalf("got %d events", len(got))
	}
	if !slices.Equal(got[1].Codes, []string{"a,NEW,1", "b,NEW,1", "c,NEW,1"}) || !got[1].Redone {
		t.Error("the codes were not rewritten")
	}
	if strings.Contains(got[0].String(), "OLD") {
		t.Error("printing shows the secret")
	}
}

func TestNotices(t *testing.T) {
	l, m := loose(t, newFakeStore(), nil)
	l.handle(&events.QRScannedWithoutMultidevice{})
	l.handle(&events.PairPasskeyRequest{})
	until := events.NotifyAccountReachoutTimelock{IsActive: true}
	until.TimeEnforcementEnds.Time = time.Now().Add(time.Hour)
	l.handle(&until)
	l.handle(&events.NotifyAccountReachoutTimelock{})
	l.handle(&events.IdentityChange{JID: adaPN})
	l.handle(&events.OfflineSyncPreview{Total: 3, Messages: 2})
	l.handle(&events.OfflineSyncCompleted{Count: 3})
	l.handle(&events.HistorySync{}) // off: told to nobody
	var kinds []policy.SignalKind
	for _, s := range of[Signalled](m) {
		if s.Terminal {
			t.Errorf("%s ends the line", s.Signal.Kind)
		}
		kinds = append(kinds, s.Signal.Kind)
	}
	if !slices.Equal(kinds, []policy.SignalKind{policy.SignalMultidevice, policy.SignalPasskeyRequest, policy.SignalReachoutLock}) {
		t.Errorf("signals %v", kinds)
	}
	locks := of[ReachoutTimelock](m)
	if len(locks) != 2 || !locks[0].Active || locks[0].Until.IsZero() || locks[1].Active || !locks[1].Until.IsZero() {
		t.Errorf("locks %+v", locks)
	}
	if len(of[HistorySync](m)) != 0 || len(of[IdentityChanged](m)) != 1 || len(of[PasskeyRequested](m)) != 1 {
		t.Errorf("events %+v", m.all())
	}
	for _, e := range m.all() {
		if e.Connection() != 7 {
			t.Errorf("%T is of connection %d", e, e.Connection())
		}
	}
}

// The offline burst is measured by the server's times.
func TestOfflineBurst(t *testing.T) {
	l, m := loose(t, newFakeStore(), nil)
	for _, at := range []string{"1700000300", "1700000100", "1700000200"} {
		l.received(&waBinary.Node{Tag: "message", Attrs: waBinary.Attrs{"from": adaPN, "t": at}})
	}
	l.handle(&events.OfflineSyncCompleted{Count: 3})
	l.received(&waBinary.Node{Tag: "message", Attrs: waBinary.Attrs{"from": adaPN, "t": "1600000000"}})
	got := of[OfflineDone](m)
	if len(got) != 1 || got[0].Messages != 3 || got[0].Oldest.Unix() != 1_700_000_100 || got[0].Newest.Unix() != 1_700_000_300 {
		t.Errorf("got %+v", got)
	}
	if l.Inbound() != 4 || l.LastInbound().IsZero() || l.LastActivity().IsZero() {
		t.Error("the stanzas were not counted")
	}
}

func TestProtobufJSONRoundTrip(t *testing.T) {
	m := &waE2E.Message{ExtendedTextMessage: &waE2E.ExtendedTextMessage{Text: proto.String("hi")}}
	data, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	back, err := parseMessage(data)
	if err != nil || !proto.Equal(m, back) {
		t.Errorf("got %v, %v", back, err)
	}
	for _, bad := range []string{"", "{}", "[]", `{"nope":1}`, `{"conversation":"secret`} {
		if err := CheckMessage([]byte(bad)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("CheckMessage(%q): %v", bad, err)
		}
	}
}
