package wasim_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/infra/wasim/memstore"
	"github.com/holdfast-wa/holdfast/infra/wasim/wasimtest"
)

// The numbers that the tests use.
const (
	own   = "491700000001"
	other = "491700000002"
)

func TestMain(m *testing.M) {
	whatsmeow.KeepAliveIntervalMin, whatsmeow.KeepAliveIntervalMax = 24*time.Hour, 25*time.Hour
	os.Exit(m.Run())
}

// within is a context that ends with the test or after a while.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// start runs a server; its sockets end quickly.
func start(t testing.TB, opt wasim.Options) *wasim.Server {
	t.Helper()
	opt.QuietPhone = true
	return startLoud(t, opt)
}

func startLoud(t testing.TB, opt wasim.Options) *wasim.Server {
	t.Helper()
	if opt.CloseGrace == 0 {
		opt.CloseGrace = 50 * time.Millisecond
	}
	s, err := wasim.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// bot is a client with its events.
type bot struct {
	*whatsmeow.Client
	mu     sync.Mutex
	seen   []any
	wake   chan struct{}
	refuse bool
}

func newBot(t testing.TB, s *wasim.Server, dev *store.Device) *bot {
	b := &bot{Client: wasimtest.Client(s, dev), wake: make(chan struct{}, 1)}
	b.AddEventHandlerWithSuccessStatus(func(evt any) bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.seen = append(b.seen, evt)
		select {
		case b.wake <- struct{}{}:
		default:
		}
		_, message := evt.(*events.Message)
		return !message || !b.refuse
	})
	t.Cleanup(b.Disconnect)
	return b
}

// expect waits for an event of a type that satisfies a condition.
func expect[T any](t testing.TB, b *bot, ok func(T) bool) (found T) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		b.mu.Lock()
		for _, evt := range b.seen {
			if v, is := evt.(T); is && (ok == nil || ok(v)) {
				b.mu.Unlock()
				return v
			}
		}
		var have []string
		for _, evt := range b.seen {
			have = append(have, fmt.Sprintf("%T", evt))
		}
		b.mu.Unlock()
		select {
		case <-b.wake:
		case <-limit:
			t.Fatalf("no %T; have %v", found, have)
		}
	}
}

// gone waits until the library holds no connection.
func (b *bot) gone(t testing.TB) {
	t.Helper()
	for limit := time.After(30 * time.Second); b.IsConnected(); {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-limit:
			t.Fatal("still connected")
		}
	}
}

// texts is the texts that a bot has got, in order.
func (b *bot) texts() (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, evt := range b.seen {
		if m, ok := evt.(*events.Message); ok {
			out = append(out, m.Message.GetConversation())
		}
	}
	return out
}

func (b *bot) expectText(t testing.TB, text string) *events.Message {
	t.Helper()
	return expect(t, b, func(m *events.Message) bool { return m.Message.GetConversation() == text })
}

// online enrols a device and connects a bot on it.
func online(t testing.TB, s *wasim.Server, number string) (*bot, *wasim.Device) {
	t.Helper()
	ctx := within(t)
	dev := memstore.New()
	d, err := s.Enrol(ctx, number, dev)
	if err != nil {
		t.Fatal(err)
	}
	b := newBot(t, s, dev)
	if err := wasimtest.Connect(ctx, b.Client); err != nil {
		t.Fatal(err)
	}
	return b, d
}

func (b *bot) say(t testing.TB, to types.JID, text string) {
	t.Helper()
	if _, err := b.SendMessage(within(t), to, &waE2E.Message{Conversation: proto.String(text)}); err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// clean fails on anything that a right client does not do.
func clean(t testing.TB, s *wasim.Server) {
	t.Helper()
	for _, a := range s.Truth().Anomalies {
		t.Errorf("anomaly: %+v", a)
	}
}

func TestPhoneGreetsItsDevice(t *testing.T) {
	s := startLoud(t, wasim.Options{})
	b := newBot(t, s, nil)
	d := must(wasimtest.Pair(within(t), s, own, b.Client))
	expect[*events.HistorySync](t, b, nil)
	expect(t, b, func(e *events.AppStateSyncComplete) bool { return true })
	if err := d.WaitDrained(within(t)); err != nil {
		t.Fatal(err)
	}
	b.say(t, s.Contact(other).PN(), "hi") // fans out to the phone as well
	r := must(s.Phone(own).Contact().WaitText(within(t), "hi"))
	if r.To == "" {
		t.Error("the phone's copy does not say whom the message went to")
	}
	clean(t, s)
}

func TestBothWaysManyTimes(t *testing.T) {
	s := start(t, wasim.Options{Receipts: wasim.ReceiptsRead})
	b, d := online(t, s, own)
	ctx := within(t)
	contacts := []*wasim.Contact{s.Contact(other), s.Contact("491700000003")}
	for i := range 10 {
		for _, c := range contacts {
			opts := []wasim.SendOption{}
			if i%2 == 0 {
				opts = append(opts, wasim.ByPN())
			}
			text := fmt.Sprintf("%s %d", c.Number(), i)
			if _, err := c.SendText(ctx, own, text, opts...); err != nil {
				t.Fatal(err)
			}
			b.expectText(t, text)
			b.say(t, c.PN(), "re "+text)
			if _, err := c.WaitText(ctx, "re "+text); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.WaitDrained(ctx); err != nil {
		t.Fatal(err)
	}
	expect(t, b, func(r *events.Receipt) bool { return r.Type == types.ReceiptTypeRead })
	kinds := map[string]int{}
	for _, m := range s.Truth(own).Incoming {
		kinds[m.Enc]++
		if m.Acked == nil || m.Deliveries != 1 || m.By != "receipt" {
			t.Errorf("fate: %+v", m)
		}
	}
	if kinds["pkmsg"] == 0 || kinds["msg"] == 0 {
		t.Errorf("kinds of ciphertext: %v", kinds)
	}
	for _, m := range s.Truth(own).Outgoing {
		if m.Outcome != "decrypted" || m.Copies != 1 {
			t.Errorf("fate: %+v", m)
		}
	}
	clean(t, s)
}

func TestOfflineQueueAndRedelivery(t *testing.T) {
	s := start(t, wasim.Options{})
	b, d := online(t, s, own)
	ctx := within(t)
	b.mu.Lock()
	b.refuse = true // the handler fails: no receipt
	b.mu.Unlock()
	c := s.Contact(other)
	id := must(c.SendText(ctx, own, "one"))
	b.expectText(t, "one")
	b.Disconnect()
	if err := d.WaitOffline(ctx); err != nil {
		t.Fatal(err)
	}
	must(c.SendText(ctx, own, "two"))
	must(c.SendText(ctx, own, "three"))
	again := newBot(t, s, b.Store)
	if err := wasimtest.Connect(ctx, again.Client); err != nil {
		t.Fatal(err)
	}
	expect(t, again, func(e *events.OfflineSyncPreview) bool { return e.Messages == 3 })
	expect(t, again, func(e *events.OfflineSyncCompleted) bool { return e.Count == 3 })
	if err := d.WaitDrained(ctx); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(again.texts()); got != "[one two three]" {
		t.Errorf("texts: %s", got)
	}
	for _, m := range s.Truth(own).Incoming {
		if want := map[bool]int{true: 2, false: 1}[m.ID == id]; m.Deliveries != want || m.Acked == nil {
			t.Errorf("fate: %+v", m)
		}
	}
	clean(t, s)
}

func TestRedeliverOnALiveSocket(t *testing.T) {
	s := start(t, wasim.Options{Redeliver: 50 * time.Millisecond})
	b, d := online(t, s, own)
	must(s.Inject(wasim.Fault{Kind: wasim.Zombie, Device: own, Now: true}))
	must(s.Contact(other).SendText(within(t), own, "late"))
	if d.Pending() != 1 {
		t.Fatalf("pending: %d", d.Pending())
	}
	s.ClearFaults()
	b.expectText(t, "late")
	if err := d.WaitDrained(within(t)); err != nil {
		t.Fatal(err)
	}
}

func TestTheOlderSocketIsKicked(t *testing.T) {
	s := start(t, wasim.Options{})
	b, d := online(t, s, own)
	again := newBot(t, s, b.Store)
	if err := wasimtest.Connect(within(t), again.Client); err != nil {
		t.Fatal(err)
	}
	expect[*events.StreamReplaced](t, b, nil)
	if st := d.Status(); st.Kicks != 1 || st.Overlaps != 1 || !st.Online {
		t.Errorf("status: %+v", st)
	}
	if err := s.Wait(within(t), func(tr wasim.Truth) bool { return len(tr.Overlaps) == 1 && tr.Overlaps[0].Until != nil }); err != nil {
		t.Error(err)
	}
	// A socket that was closed first is no overlap.
	again.Disconnect()
	third := newBot(t, s, b.Store)
	if err := wasimtest.Connect(within(t), third.Client); err != nil {
		t.Fatal(err)
	}
	if st := d.Status(); st.Overlaps != 1 {
		t.Errorf("overlaps: %d", st.Overlaps)
	}
}

func TestUndecryptableIsHealedByRetry(t *testing.T) {
	s := start(t, wasim.Options{})
	b, d := online(t, s, own)
	ctx := within(t)
	c := s.Contact(other)
	for i, want := range []string{"pkmsg", "msg"} {
		must(s.Inject(wasim.Fault{Kind: wasim.CorruptMessage, Device: own, Contact: other}))
		text := fmt.Sprintf("broken %d", i)
		id := must(c.SendText(ctx, own, text))
		expect(t, b, func(e *events.UndecryptableMessage) bool { return e.Info.ID == id })
		b.expectText(t, text)
		b.say(t, c.PN(), "got "+text) // makes the next one a msg
		must(c.WaitText(ctx, "got "+text))
		var first wasim.Incoming
		for _, m := range s.Truth(own).Incoming {
			if m.ID == id && m.Retry == 0 {
				first = m
			}
		}
		if !first.Corrupt || first.Retries != 1 || first.Enc != want {
			t.Errorf("fate: %+v", first)
		}
	}
	if err := d.WaitDrained(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestContactAsksAgain(t *testing.T) {
	s := start(t, wasim.Options{})
	b, _ := online(t, s, own)
	ctx := within(t)
	c := s.Contact(other)
	b.say(t, c.PN(), "one")
	must(c.WaitText(ctx, "one"))
	must(c.SendText(ctx, own, "x"))
	b.expectText(t, "x")
	// The client's ratchet is set back: what it sends next was used already.
	addr := c.LID().SignalAddress().String()
	old := must(b.Store.Sessions.GetSession(ctx, addr))
	b.say(t, c.PN(), "two")
	must(c.WaitText(ctx, "two"))
	if err := b.Store.Sessions.PutSession(ctx, addr, old); err != nil {
		t.Fatal(err)
	}
	b.say(t, c.PN(), "three")
	must(c.WaitText(ctx, "three"))
	if got := c.Undecryptable(); len(got) != 1 {
		t.Errorf("undecryptable: %+v", got)
	}
	healed := 0
	for _, m := range s.Truth(own).Outgoing {
		if m.Healed {
			healed++
		}
	}
	if healed != 1 {
		t.Errorf("healed: %d", healed)
	}
}

func TestGroups(t *testing.T) {
	s := start(t, wasim.Options{})
	b, d := online(t, s, own)
	ctx := within(t)
	ann, bob := s.Contact(other), s.Contact("491700000003")
	g := must(s.NewGroup("three of us", own, other, bob.Number()))
	for i := range 3 {
		text := fmt.Sprintf("all %d", i)
		must(ann.SendGroup(ctx, g.JID.String(), text))
		m := b.expectText(t, text)
		if !m.Info.IsGroup || m.Info.Chat != g.JID {
			t.Errorf("source: %+v", m.Info)
		}
		b.say(t, g.JID, "re "+text)
		for _, c := range []*wasim.Contact{ann, bob} {
			if r := must(c.WaitText(ctx, "re "+text)); r.Group != g.JID.String() {
				t.Errorf("group: %+v", r)
			}
		}
	}
	must(s.Inject(wasim.Fault{Kind: wasim.CorruptMessage, Device: own}))
	must(ann.SendGroup(ctx, g.JID.String(), "broken"))
	expect[*events.UndecryptableMessage](t, b, nil)
	b.expectText(t, "broken")
	if err := d.WaitDrained(ctx); err != nil {
		t.Fatal(err)
	}
	clean(t, s)
}

func TestPairByCode(t *testing.T) {
	s := start(t, wasim.Options{})
	b := newBot(t, s, nil)
	ctx := within(t)
	if err := b.Connect(); err != nil {
		t.Fatal(err)
	}
	expect[*events.QR](t, b, nil)
	code := must(b.PairPhone(ctx, own, false, whatsmeow.PairClientChrome, "Chrome (Linux)"))
	if _, err := s.Phone(other).EnterCode(ctx, code); !errors.Is(err, wasim.ErrNotFound) {
		t.Errorf("another number's phone: %v", err)
	}
	d := must(s.Phone(own).EnterCode(ctx, code))
	expect[*events.PairSuccess](t, b, nil)
	expect[*events.ManualLoginReconnect](t, b, nil)
	b.Disconnect()
	if err := wasimtest.Connect(ctx, b.Client); err != nil {
		t.Fatal(err)
	}
	must(s.Contact(other).SendText(ctx, d.JID().String(), "by code"))
	b.expectText(t, "by code")
	clean(t, s)
}

func TestMedia(t *testing.T) {
	s := start(t, wasim.Options{})
	b, _ := online(t, s, own)
	ctx := within(t)
	up := must(b.Upload(ctx, []byte("a picture"), whatsmeow.MediaImage))
	back := must(b.Download(ctx, &waE2E.ImageMessage{
		URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey, FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256, FileLength: &up.FileLength}))
	if string(back) != "a picture" {
		t.Errorf("downloaded %q", back)
	}
}

func TestQueries(t *testing.T) {
	s := start(t, wasim.Options{})
	b, _ := online(t, s, own)
	ctx := within(t)
	on := must(b.IsOnWhatsApp(ctx, []string{"+" + other, "+0123456"}))
	if len(on) != 2 || !on[0].IsIn || on[1].IsIn || on[0].JID != s.Contact(other).LID() {
		t.Errorf("on WhatsApp: %+v", on)
	}
	must(b.GetBlocklist(ctx))
	if p := must(b.TryFetchPrivacySettings(ctx, true)); p.ReadReceipts != types.PrivacySettingAll {
		t.Errorf("privacy: %+v", p)
	}
	if err := b.SendPresence(ctx, types.PresenceAvailable); err != nil && !errors.Is(err, whatsmeow.ErrNoPushName) {
		t.Error(err)
	}
	clean(t, s)
	if _, err := b.GetBotListV2(ctx); err == nil {
		t.Error("an unknown query was answered")
	}
	if a := s.Truth().Anomalies; len(a) != 1 || a[0].What != "iq" {
		t.Errorf("anomalies: %+v", a)
	}
	if got := must(wasimtest.Revision(ctx, s)); got != "2.3000.1035000000" {
		t.Errorf("revision: %s", got)
	}
	if err := b.Logout(ctx); err != nil {
		t.Fatal(err)
	}
	if st := s.Devices()[0].Status(); st.Unlinked == nil {
		t.Error("logged out, but linked")
	}
}

func TestLowPreKeysAreRefilled(t *testing.T) {
	s := start(t, wasim.Options{})
	_, d := online(t, s, own)
	before := d.Status().Uploaded
	for range before - 3 {
		s.TakePreKey(d)
	}
	if err := s.Wait(within(t), func(wasim.Truth) bool { return d.Status().Uploaded == before+50 }); err != nil {
		t.Fatalf("%v: %+v", err, d.Status())
	}
	clean(t, s)
}

func TestDeflateOnlyIfAsked(t *testing.T) {
	for _, deflate := range []bool{false, true} {
		s := start(t, wasim.Options{Deflate: deflate})
		dev := memstore.New()
		must(s.Enrol(within(t), own, dev))
		b := newBot(t, s, dev)
		wasimtest.Point(b.Client, wasimtest.Transport(s.Host(), true)) // the offer stays
		if err := wasimtest.Connect(within(t), b.Client); err != nil {
			t.Fatal(err)
		}
		must(s.Contact(other).SendText(within(t), own, "small or large"))
		b.expectText(t, "small or large")
	}
}

func TestAnUnscannedQREnds(t *testing.T) {
	s := start(t, wasim.Options{PairingTime: 100 * time.Millisecond})
	b := newBot(t, s, nil)
	if err := b.Connect(); err != nil {
		t.Fatal(err)
	}
	code := expect[*events.QR](t, b, nil).Codes[0]
	expect[*events.Disconnected](t, b, nil)
	if _, err := s.Phone(own).Scan(within(t), code); !errors.Is(err, wasim.ErrNotFound) && !errors.Is(err, wasim.ErrPairing) {
		t.Errorf("scanned too late: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, opt := range []wasim.Options{{RootSeed: []byte("short")}, {Receipts: "maybe"}} {
		if _, err := wasim.New(opt); !errors.Is(err, wasim.ErrInput) {
			t.Errorf("%+v: %v", opt, err)
		}
	}
	a := must(wasim.New(wasim.Options{}))
	b := must(wasim.New(wasim.Options{}))
	if a.RootKeyHex() != b.RootKeyHex() {
		t.Error("two servers of a process have two roots")
	}
	if c := must(wasim.New(wasim.Options{RootSeed: make([]byte, 32)})); c.RootKeyHex() == a.RootKeyHex() {
		t.Error("a seed makes no difference")
	}
}

// A device that reuses a prekey id for another key is found out.
func TestAReusedPreKeyIDIsRecorded(t *testing.T) {
	s := start(t, wasim.Options{})
	b, d := online(t, s, own)
	b.Disconnect()
	b.Store.PreKeys = memstore.New().PreKeys // the same device after it lost its prekeys
	again := newBot(t, s, b.Store)
	if err := wasimtest.Connect(within(t), again.Client); err != nil {
		t.Fatal(err)
	}
	err := s.Wait(within(t), func(tr wasim.Truth) bool { return len(tr.Anomalies) > 0 && tr.Anomalies[0].What == "prekey" })
	if err != nil {
		t.Errorf("%v: %+v %+v", err, s.Truth().Anomalies, d.Status())
	}
}
