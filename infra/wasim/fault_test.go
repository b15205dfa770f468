package wasim_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types/events"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/infra/wasim/memstore"
	"github.com/holdfast-wa/holdfast/infra/wasim/wasimtest"
)

// typed makes a condition on an event's type.
func typed[T any](ok func(T) bool) func(any) bool {
	return func(evt any) bool {
		v, is := evt.(T)
		return is && (ok == nil || ok(v))
	}
}

// signals is what a client makes of each fault: the rows of the signal table.
func signals() map[string]struct {
	fault wasim.Fault
	event func(any) bool
} {
	type row = struct {
		fault wasim.Fault
		event func(any) bool
	}
	disconnected := typed[*events.Disconnected](nil)
	rows := map[string]row{
		"drop":           {wasim.Fault{Kind: wasim.DropFault}, disconnected},
		"reset":          {wasim.Fault{Kind: wasim.ResetFault}, disconnected},
		"close":          {wasim.Fault{Kind: wasim.CloseFault}, disconnected},
		"streamend":      {wasim.Fault{Kind: wasim.StreamEnd}, disconnected},
		"stream 503":     {wasim.Fault{Kind: wasim.StreamError, Code: 503}, disconnected},
		"stream 515":     {wasim.Fault{Kind: wasim.StreamError, Code: 515}, typed[*events.ManualLoginReconnect](nil)},
		"stream 516":     {wasim.Fault{Kind: wasim.StreamError, Code: 516}, typed(func(e *events.StreamError) bool { return e.Code == "516" })},
		"replaced":       {wasim.Fault{Kind: wasim.Replaced}, typed[*events.StreamReplaced](nil)},
		"device removed": {wasim.Fault{Kind: wasim.DeviceRemoved}, typed(func(e *events.LoggedOut) bool { return !e.OnConnect })},
		"downgrade":      {wasim.Fault{Kind: wasim.Downgrade}, typed[*events.QRScannedWithoutMultidevice](nil)},
		"timelock":       {wasim.Fault{Kind: wasim.Timelock, ExpireSeconds: 60}, typed(func(e *events.NotifyAccountReachoutTimelock) bool { return e.IsActive })},
		"oversized":      {wasim.Fault{Kind: wasim.Oversized}, disconnected},
		"node": {wasim.Fault{Kind: wasim.Node, Node: &wasim.Stanza{Tag: "ib", Attrs: map[string]string{"from": "s.whatsapp.net"},
			Children: []wasim.Stanza{{Tag: "downgrade_webclient"}}}}, typed[*events.QRScannedWithoutMultidevice](nil)},
		"failure 402": {wasim.Fault{Kind: wasim.Failure, Code: 402, Ban: 103, ExpireSeconds: 90},
			typed(func(e *events.TemporaryBan) bool { return e.Code == 103 && e.Expire == 90*time.Second })},
		"failure 405": {wasim.Fault{Kind: wasim.Failure, Code: 405}, typed[*events.ClientOutdated](nil)},
	}
	for _, code := range []int{401, 403, 406} {
		rows[fmt.Sprintf("failure %d", code)] = row{wasim.Fault{Kind: wasim.Failure, Code: code},
			typed(func(e *events.LoggedOut) bool { return e.OnConnect && int(e.Reason) == code })}
	}
	for _, code := range []int{500, 503} {
		rows[fmt.Sprintf("failure %d", code)] = row{wasim.Fault{Kind: wasim.Failure, Code: code}, disconnected}
	}
	for _, code := range []int{400, 408, 409, 411, 415, 418, 428, 429, 440, 501, 515} {
		rows[fmt.Sprintf("failure %d", code)] = row{wasim.Fault{Kind: wasim.Failure, Code: code, Text: "because"},
			typed(func(e *events.ConnectFailure) bool { return int(e.Reason) == code && e.Message == "because" })}
	}
	return rows
}

// TestAFinalStanzaThatIsLate: a socket is not closed before its last stanza has left,
// however long that takes.
func TestAFinalStanzaThatIsLate(t *testing.T) {
	s := start(t, wasim.Options{CloseGrace: time.Millisecond})
	ctx := within(t)
	dev := memstore.New()
	d := must(s.Enrol(ctx, "4918999999", dev))
	b := newBot(t, s, dev)
	if err := wasimtest.Connect(ctx, b.Client); err != nil {
		t.Fatal(err)
	}
	must(s.Inject(wasim.Fault{Kind: wasim.Delay, DelayMS: 300, Device: d.JID().String(), Now: true}))
	must(s.Inject(wasim.Fault{Kind: wasim.StreamError, Code: 516, Device: d.JID().String(), Now: true}))
	expect(t, b, typed(func(e *events.StreamError) bool { return e.Code == "516" }))
}

func TestSignals(t *testing.T) {
	s := start(t, wasim.Options{})
	i := 0
	for name, row := range signals() {
		i++
		number := fmt.Sprintf("4918%07d", i)
		for _, now := range []bool{false, true} {
			if now && row.fault.Kind == wasim.Failure {
				continue
			}
			if raceEnabled && !now && row.fault.Kind == wasim.DeviceRemoved {
				continue // right after success the library deletes its store under a goroutine of its own
			}
			t.Run(fmt.Sprintf("%s now=%v", name, now), func(t *testing.T) {
				ctx := within(t)
				dev := memstore.New()
				d := must(s.Enrol(ctx, number, dev))
				f := row.fault
				f.Device, f.Now = d.JID().String(), now
				b := newBot(t, s, dev)
				if now {
					if err := wasimtest.Connect(ctx, b.Client); err != nil {
						t.Fatal(err)
					}
				}
				must(s.Inject(f))
				if !now {
					if err := b.Connect(); err != nil {
						t.Fatal(err)
					}
				}
				if !now && silentAtLogin(row.fault.Kind) {
					b.gone(t)
				} else {
					expect(t, b, row.event)
				}
				if n := len(s.Truth(f.Device).Faults); n != 1 {
					t.Errorf("struck %d times", n)
				}
				if len(s.Faults()) != 0 {
					t.Errorf("left: %+v", s.Faults())
				}
			})
		}
	}
}

// silentAtLogin are the faults of which the library may say nothing when they
// strike right after the handshake: its read loop ends before it has noted whom
// to tell.
func silentAtLogin(k wasim.Kind) bool {
	return k == wasim.DropFault || k == wasim.ResetFault || k == wasim.CloseFault
}

// A line that gets something odd goes on.
func TestHarmlessOddities(t *testing.T) {
	s := start(t, wasim.Options{})
	b, _ := online(t, s, own)
	c := s.Contact(other)
	for i, k := range []wasim.Kind{wasim.UnknownStanza, wasim.GarbageFrame, wasim.GarbageNode, wasim.OutOfOrder, wasim.LowPreKeys} {
		must(s.Inject(wasim.Fault{Kind: k, Device: own, Now: true}))
		text := fmt.Sprintf("after %s", k)
		must(c.SendText(within(t), own, text))
		b.expectText(t, text)
		b.say(t, c.PN(), fmt.Sprint(i))
	}
}

func TestStatesOfASocket(t *testing.T) {
	s := start(t, wasim.Options{})
	b, d := online(t, s, own)
	c := s.Contact(other)
	ping := func(patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		ok, _ := b.DangerousInternals().SendKeepAlive(ctx)
		if !ok {
			return errors.New("no pong")
		}
		return nil
	}
	for _, k := range []wasim.Kind{wasim.Mute, wasim.NoPong, wasim.Zombie} {
		id := must(s.Inject(wasim.Fault{Kind: k, Device: own, Now: true}))
		if err := ping(100 * time.Millisecond); (err == nil) != (k == wasim.Zombie) {
			t.Errorf("%s: ping: %v", k, err)
		}
		must(c.SendText(within(t), own, "during "+string(k)))
		if k == wasim.NoPong {
			b.expectText(t, "during no_pong")
		} else if d.Pending() != 1 || slices.Contains(b.texts(), "during "+string(k)) {
			t.Errorf("%s delivered", k)
		}
		if err := s.ClearFault(id); err != nil {
			t.Fatal(err)
		}
		b.expectText(t, "during "+string(k))
		if err := ping(5 * time.Second); err != nil {
			t.Errorf("after %s: %v", k, err)
		}
		if err := d.WaitDrained(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	must(s.Inject(wasim.Fault{Kind: wasim.Delay, DelayMS: 150, Device: own, Now: true}))
	began := time.Now()
	if err := ping(5 * time.Second); err != nil || time.Since(began) < 150*time.Millisecond {
		t.Errorf("delayed ping: %v after %s", err, time.Since(began))
	}
}

// A client that is slow to acknowledge gets copies, and acknowledges each.
func TestCopiesAreAcknowledgedEach(t *testing.T) {
	s := start(t, wasim.Options{Redeliver: 20 * time.Millisecond})
	b, d := online(t, s, own)
	c := s.Contact(other)
	must(s.Inject(wasim.Fault{Kind: wasim.Delay, DelayMS: 200, Device: own, Now: true}))
	b.say(t, c.PN(), "whose receipt comes late, and often")
	if err := d.WaitDrained(within(t)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what was on its way has come
		if ok, _ := b.DangerousInternals().SendKeepAlive(within(t)); !ok {
			t.Fatal("no pong")
		}
	}
	for _, a := range s.Truth(own).Anomalies {
		t.Errorf("%+v", a)
	}
}

func TestConnectFaults(t *testing.T) {
	s := start(t, wasim.Options{})
	dev := memstore.New()
	must(s.Enrol(within(t), own, dev))
	fail := func(f wasim.Fault) error {
		t.Helper()
		must(s.Inject(f))
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		b := newBot(t, s, dev)
		err := b.ConnectContext(ctx)
		if err == nil {
			t.Errorf("%s: connected", f.Kind)
		}
		s.ClearFaults()
		return err
	}
	for _, k := range []wasim.Kind{wasim.Refuse, wasim.HalfOpen, wasim.Unreachable, wasim.HandshakeGarbage,
		wasim.CertificateExpired, wasim.CertificateFuture, wasim.CertificateForged} {
		t.Logf("%s: %v", k, fail(wasim.Fault{Kind: k, Times: -1}))
	}
	t.Logf("%s: %v", wasim.HTTPStatus, fail(wasim.Fault{Kind: wasim.HTTPStatus, Code: 503}))
	if err := wasimtest.Connect(within(t), newBot(t, s, dev).Client); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestSendFaults(t *testing.T) {
	s := start(t, wasim.Options{})
	b, d := online(t, s, own)
	c := s.Contact(other)
	send := func(id string) error {
		_, err := b.SendMessage(within(t), c.PN(), &waE2E.Message{Conversation: proto.String(id)}, whatsmeow.SendRequestExtra{ID: id, Timeout: 200 * time.Millisecond})
		return err
	}
	must(s.Inject(wasim.Fault{Kind: wasim.SendError, Code: 463, Device: own, Times: 2}))
	for range 2 {
		if err := send("A"); !errors.Is(err, whatsmeow.ErrServerReturnedError) {
			t.Errorf("463: %v", err)
		}
	}
	must(s.Inject(wasim.Fault{Kind: wasim.SendSilence, Device: own}))
	if err := send("B"); !errors.Is(err, whatsmeow.ErrMessageTimedOut) {
		t.Errorf("silence: %v", err)
	}
	must(s.Inject(wasim.Fault{Kind: wasim.SendLateAck, Device: own}))
	if err := send("C"); err == nil {
		t.Error("cut before the ack, but sent")
	}
	must(c.WaitText(within(t), "C"))
	if err := d.WaitOffline(within(t)); err != nil {
		t.Fatal(err)
	}
	again := newBot(t, s, b.Store)
	if err := wasimtest.Connect(within(t), again.Client); err != nil {
		t.Fatal(err)
	}
	b = again
	if err := send("C"); err != nil { // the same id once more
		t.Fatal(err)
	}
	err := s.Wait(within(t), func(tr wasim.Truth) bool {
		return slices.ContainsFunc(tr.Outgoing, func(o wasim.Outgoing) bool {
			return o.ID == "C" && o.Copies == 2 && o.Recipient == c.LID().String() && o.Outcome == "decrypted"
		})
	})
	if err != nil {
		t.Errorf("%v: %+v", err, s.Truth().Outgoing)
	}
	if n := len(c.Received()); n != 1 {
		t.Errorf("the contact shows %d messages", n)
	}
}

func TestPairingFaults(t *testing.T) {
	s := start(t, wasim.Options{})
	show := func(t *testing.T) (*bot, string) {
		b := newBot(t, s, nil)
		if err := b.Connect(); err != nil {
			t.Fatal(err)
		}
		return b, expect[*events.QR](t, b, nil).Codes[0]
	}
	for kind, want := range map[wasim.Kind]error{
		wasim.PairBadHMAC: whatsmeow.ErrPairInvalidDeviceIdentityHMAC, wasim.PairBadSignature: whatsmeow.ErrPairInvalidDeviceSignature,
	} {
		b, code := show(t)
		must(s.Inject(wasim.Fault{Kind: kind}))
		if _, err := s.Phone(own).Scan(within(t), code); !errors.Is(err, wasim.ErrPairing) {
			t.Errorf("%s: %v", kind, err)
		}
		expect(t, b, func(e *events.PairError) bool { return errors.Is(e.Error, want) })
	}
	_, code := show(t)
	must(s.Inject(wasim.Fault{Kind: wasim.PairDropBefore}))
	if _, err := s.Phone(own).Scan(within(t), code); !errors.Is(err, wasim.ErrPairing) {
		t.Errorf("dropped: %v", err)
	}
	b, code := show(t)
	must(s.Inject(wasim.Fault{Kind: wasim.Downgrade, Device: wasim.Unpaired, Now: true}))
	expect[*events.QRScannedWithoutMultidevice](t, b, nil)
	must(s.Inject(wasim.Fault{Kind: wasim.PairDropAfter}))
	d, err := s.Phone(own).Scan(within(t), code)
	if err != nil {
		t.Fatal(err)
	}
	expect[*events.PairSuccess](t, b, nil)
	if _, err := s.Phone(own).Scan(within(t), code); err == nil {
		t.Error("a QR was scanned twice")
	}
	b.Disconnect()
	if err := wasimtest.Connect(within(t), b.Client); err != nil || !d.Online() {
		t.Errorf("paired without 515: %v", err)
	}
	must(s.Inject(wasim.Fault{Kind: wasim.Passkey}))
	b, _ = show(t)
	expect[*events.PairPasskeyRequest](t, b, nil)
	must(s.Inject(wasim.Fault{Kind: wasim.Failure, Code: 405, Device: wasim.Unpaired}))
	b = newBot(t, s, nil)
	if err := b.Connect(); err != nil {
		t.Fatal(err)
	}
	expect[*events.ClientOutdated](t, b, nil)
}

func TestUnlinkAndOldVersions(t *testing.T) {
	s := start(t, wasim.Options{})
	b, d := online(t, s, own)
	d.Unlink()
	expect(t, b, func(e *events.LoggedOut) bool { return !e.OnConnect })
	dev := memstore.New()
	must(s.Enrol(within(t), other, dev))
	s.SetRevision(2_000_000_000, 2_000_000_000)
	b = newBot(t, s, dev)
	if err := b.Connect(); err != nil {
		t.Fatal(err)
	}
	expect[*events.ClientOutdated](t, b, nil)
}

func TestFaultsAreChecked(t *testing.T) {
	s := start(t, wasim.Options{})
	for _, f := range []wasim.Fault{
		{}, {Kind: "nonsense"}, {Kind: wasim.Failure}, {Kind: wasim.Refuse, Device: own}, {Kind: wasim.Failure, Code: 401, Now: true},
		{Kind: wasim.Delay}, {Kind: wasim.Node}, {Kind: wasim.Mute, Contact: other}, {Kind: wasim.StreamError}, {Kind: wasim.Mute, Times: -2},
	} {
		if _, err := s.Inject(f); !errors.Is(err, wasim.ErrInput) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if _, err := s.Inject(wasim.Fault{Kind: wasim.StreamEnd, Now: true}); !errors.Is(err, wasim.ErrOffline) {
		t.Errorf("nobody there: %v", err)
	}
	if !reflect.DeepEqual(s.Faults(), []wasim.Fault{}) {
		t.Errorf("left: %+v", s.Faults())
	}
}
