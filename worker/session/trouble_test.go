package session

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// put places a message in the outbox, as the admin side does.
func (w *world) put(id, messageID, text string, sendAt time.Time) {
	w.t.Helper()
	w.putTo(id, messageID, "491700000002", text, sendAt)
}

func (w *world) putTo(id, messageID, to, text string, sendAt time.Time) {
	w.t.Helper()
	body, err := json.Marshal(state.OutboxContent{To: to, Text: text})
	if err != nil {
		w.t.Fatal(err)
	}
	sealed, err := w.fleet.Seal(seal.Place{Partition: state.OfSession("shop"), Kind: state.KindOutbox, ID: id}, body)
	if err != nil {
		w.t.Fatal(err)
	}
	value, err := state.Encode(state.Outbox{V: state.Format, ID: id, MessageID: messageID, State: state.OutQueued, At: time.Now(), SendAt: sendAt, Sealed: sealed})
	if err != nil {
		w.t.Fatal(err)
	}
	write := state.Put(state.KindOutbox, id, value)
	write.Rev, write.If, write.Index = 1, state.Absent(), state.OutboxDue("shop")
	if err := w.store.Update(context.Background(), state.OfSession("shop"), []state.Write{write}); err != nil {
		w.t.Fatal(err)
	}
	if w.s != nil {
		w.s.Wake()
	}
}

func (w *world) item(id string) state.Outbox {
	w.t.Helper()
	synctest.Wait()
	rec, err := w.store.Get(context.Background(), state.OfSession("shop"), state.Key{Kind: state.KindOutbox, ID: id})
	if err != nil {
		w.t.Fatal(err)
	}
	var item state.Outbox
	if err := state.Decode(rec.Value, &item); err != nil {
		w.t.Fatal(err)
	}
	return item
}

func TestTheOutboxIsSentInOrderAndOnTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.put("01", "3EB001", "before the start", time.Time{})
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Second)
		w.put("02", "3EB002", "now", time.Time{})
		w.put("03", "3EB003", "later", time.Now().Add(time.Hour))
		w.put("04", "3EB004", "last", time.Time{})
		time.Sleep(time.Minute)
		synctest.Wait()
		sent := w.last().sent
		if len(sent) != 3 || !strings.HasPrefix(sent[0], "3EB001") || !strings.HasPrefix(sent[1], "3EB002") || !strings.HasPrefix(sent[2], "3EB004") {
			t.Fatalf("sent %v", sent)
		}
		if got := w.item("03").State; got != state.OutQueued {
			t.Errorf("the scheduled one is %s", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if sent := w.last().sent; len(sent) != 4 {
			t.Errorf("sent %v", sent)
		}
		for _, status := range []string{"read", "delivered"} { // the latter by another device of the contact
			w.last().post(whatsapp.Receipt{On: whatsapp.On{N: w.last().call.N}, IDs: []string{"3EB002"}, Status: status, At: time.Now()})
		}
		time.Sleep(2 * time.Minute)
		if got := w.item("02").State; got != state.OutRead {
			t.Errorf("after the receipt %s", got)
		}
	})
}

func TestASendThatFailsForAPassingReasonKeepsItsID(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		fail := true
		w.behave = func(l *fakeLine) {
			if fail {
				l.sendErr = &whatsapp.SendError{Temporary: true, Err: context.DeadlineExceeded}
			}
			l.login()
		}
		w.start()
		time.Sleep(time.Second)
		w.put("01", "3EB001", "stubborn", time.Time{})
		time.Sleep(time.Minute)
		if got := w.item("01").State; got != state.OutSending {
			t.Fatalf("after failures %s", got)
		}
		fail = false
		w.last().signal(policy.Signal{Kind: policy.SignalClosed})
		time.Sleep(time.Minute)
		synctest.Wait()
		if sent := w.last().sent; len(sent) != 1 || !strings.HasPrefix(sent[0], "3EB001 ") {
			t.Errorf("sent %v", sent)
		}
		if got := w.item("01"); got.State != state.OutSent {
			t.Errorf("%+v", got)
		}
	})
}

// TestAStubbornMessageHoldsUpItsOwnChatAlone, and in order.
func TestAStubbornMessageHoldsUpItsOwnChatAlone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) {
			l.stubborn = "491700000002"
			l.login()
		}
		w.start()
		time.Sleep(time.Second)
		w.put("01", "3EB001", "stubborn", time.Time{})
		w.putTo("02", "3EB002", "491700000003", "to another chat", time.Time{})
		w.put("03", "3EB003", "behind it", time.Time{})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		line := w.last()
		if len(line.sent) != 1 || !strings.HasPrefix(line.sent[0], "3EB002 ") {
			t.Fatalf("sent %v", line.sent)
		}
		if line.refused < 5 || line.refused > 10 {
			t.Errorf("tried %d times in 2 minutes; the pauses grow from 1 s to a minute", line.refused)
		}
		line.mu.Lock()
		line.stubborn = ""
		line.mu.Unlock()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if len(line.sent) != 3 || !strings.HasPrefix(line.sent[1], "3EB001 ") || !strings.HasPrefix(line.sent[2], "3EB003 ") {
			t.Errorf("sent %v", line.sent)
		}
	})
}

func TestASendThatIsRefusedFails(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) {
			l.sendErr = &whatsapp.SendError{Code: whatsapp.CodeReachout}
			l.login()
		}
		w.start()
		time.Sleep(time.Second)
		w.put("01", "3EB001", "to a new chat", time.Time{})
		time.Sleep(time.Minute)
		if got := w.item("01"); got.State != state.OutFailed || got.Code != string(state.CauseReachoutRestricted) {
			t.Errorf("%+v", got)
		}
		if st := w.status(); st.State != state.Online {
			t.Errorf("a refused send must not cost the connection: %s", st.State)
		}
	})
}

// TestAStoreThatIsAway cuts the line, and comes back under a higher epoch.
func TestAStoreThatIsAway(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		faults := statetest.Fault(w.store)
		w.store = faults
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		line := w.last()
		epoch := w.lease.Fence().Epoch
		faults.FailBefore(func(statetest.Call) bool { return true }, 1<<30, state.ErrUnavailable)
		// A state change that must be stored.
		line.post(whatsapp.ReachoutTimelock{On: whatsapp.On{N: line.call.N}, Active: true, Until: time.Now().Add(time.Hour)})
		time.Sleep(time.Minute)
		synctest.Wait()
		if line.Open() {
			t.Error("the line was not cut")
		}
		if live := w.s.Live(); live.Cause != state.CauseStoreUnavailable {
			t.Errorf("cause %s", live.Cause)
		}
		if n := len(w.dialled()); n != 1 {
			t.Errorf("%d dials while the store is away", n)
		}
		faults.Heal()
		time.Sleep(3 * time.Minute)
		if st := w.status(); st.State != state.Online {
			t.Errorf("afterwards %s %s", st.State, st.Cause)
		}
		if w.lease.Fence().Epoch <= epoch {
			t.Error("the epoch was not raised")
		}
	})
}

// TestAStoreThatFailsForEver does not become a loop of logins.
func TestAStoreThatFailsForEver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		faults := statetest.Fault(w.store)
		w.store = faults
		w.behave = func(l *fakeLine) {
			l.login()
			time.Sleep(time.Second)
			faults.FailBefore(statetest.Of(statetest.Commit), 1, state.ErrTooLarge)
			l.post(whatsapp.PushName{On: whatsapp.On{N: l.call.N}, Name: time.Now().String()})
		}
		w.start()
		time.Sleep(time.Hour)
		if n := len(w.dialled()); n < 10 || n > 70 {
			t.Errorf("%d dials in an hour", n)
		}
	})
}

// TestADamagedRecordParks the session for an operator: no connection makes it readable.
func TestADamagedRecordParks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		line := w.last()
		ctx := context.Background()
		f := w.lease.Fence()
		// Every place where the contact's ratchet could be, damaged.
		lib := line.call.Device.Library()
		if err := lib.Sessions.PutSession(ctx, "491700000002:0", []byte("ratchet")); err != nil {
			t.Fatal(err)
		}
		page, err := w.store.Query(ctx, state.OfSession("shop"), state.Query{Kind: state.KindSignal})
		if err != nil || len(page.Records) != 1 {
			t.Fatalf("%d records, %v", len(page.Records), err)
		}
		if err := w.store.Commit(ctx, f, "", []state.Write{state.Put(state.KindSignal, page.Records[0].Key.ID, []byte("damaged"))}); err != nil {
			t.Fatal(err)
		}
		w.command(state.VerbRestart, nil) // with an empty cache
		w.command(state.VerbStop, nil)
		w.command(state.VerbStart, nil)
		line = w.last()
		if _, err := line.call.Device.Library().Sessions.GetSession(ctx, "491700000002:0"); err == nil {
			t.Fatal("the damage was not noticed")
		}
		time.Sleep(24 * time.Hour)
		st := w.status()
		if st.Cause != state.CauseStaleCredentials || st.State != state.Failing || !st.Paired {
			t.Errorf("%s %s paired %v", st.State, st.Cause, st.Paired)
		}
		if line.Open() {
			t.Error("the line is still open")
		}
	})
}

// TestAnotherOwner ends the session silently.
func TestAnotherOwner(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		line := w.last()
		if _, err := statetest.Take(context.Background(), w.store, "shop", "w-other"); err != nil {
			t.Fatal(err)
		}
		before, _ := w.store.Get(context.Background(), state.OfSession("shop"), state.Key{Kind: state.KindStatus})
		line.signal(policy.Signal{Kind: policy.SignalClosed})
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-w.ended:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Fatal("it runs on")
		}
		after, _ := w.store.Get(context.Background(), state.OfSession("shop"), state.Key{Kind: state.KindStatus})
		if string(before.Value) != string(after.Value) {
			t.Error("it wrote after it had lost the session")
		}
	})
}

func TestStorms(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		line := w.last()
		for range 19 {
			line.post(whatsapp.Undecryptable{On: whatsapp.On{N: line.call.N}, Peer: "one", ID: "x"})
			time.Sleep(time.Second)
		}
		if st := w.status(); st.State != state.Online {
			t.Fatalf("one peer's trouble: %s", st.State)
		}
		for _, peer := range []string{"two", "three"} {
			line.post(whatsapp.Undecryptable{On: whatsapp.On{N: line.call.N}, Peer: peer, ID: "x"})
		}
		if st := w.status(); st.State != state.Failing || st.Cause != state.CauseBadMAC || st.Paired {
			t.Errorf("%s %s paired %v", st.State, st.Cause, st.Paired)
		}
	})
}

func TestAnAbsentPhoneIsToldOnceADay(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		line := w.last()
		line.post(whatsapp.PhoneSeen{On: whatsapp.On{N: line.call.N}, At: time.Now()})
		time.Sleep(11 * 24 * time.Hour)
		if n := w.count(state.EventPhoneAbsent); n != 0 {
			t.Fatalf("told %d times after 11 days", n)
		}
		time.Sleep(36 * time.Hour)
		if n := w.count(state.EventPhoneAbsent); n != 1 {
			t.Errorf("told %d times after 12.5 days", n)
		}
		time.Sleep(24 * time.Hour)
		if n := w.count(state.EventPhoneAbsent); n != 2 {
			t.Errorf("told %d times after 13.5 days", n)
		}
	})
}
