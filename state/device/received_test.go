package device_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// TestOneRoundTrip counts what a message of a known contact asks of the store.
func TestOneRoundTrip(t *testing.T) {
	counting := statetest.Counting(memory.New(time.Now))
	w := newWorld(t, counting)
	d := w.paired()
	cl, c := newClient(w, d), newContact(t)
	for i := range 3 {
		id := fmt.Sprint("warm", i)
		if answer := cl.receive(c.jid, c.write(ours, cl.dev, id, id)); answer != "receipt" {
			t.Fatalf("answered %q", answer)
		}
	}
	counting.Reset()
	const n = 20
	for i := range n {
		id := fmt.Sprint("m", i)
		_, _, err := cl.dev.Contacts.PutPushName(context.Background(), types.JID{User: "15550002222", Server: types.DefaultUserServer}, "Name")
		must(t, err)
		cl.receive(c.jid, c.write(ours, cl.dev, id, id))
	}
	commits, all := counting.Count(statetest.Commit), counting.Count()
	if commits != n || all > n+1 { // the push name is looked up once
		t.Fatalf("%d commits and %d calls for %d messages", commits, all, n)
	}
}

// TestSendRoundTrips counts what a text to a known contact asks of the store.
func TestSendRoundTrips(t *testing.T) {
	counting := statetest.Counting(memory.New(time.Now))
	w := newWorld(t, counting)
	cl, c := newClient(w, w.paired()), newContact(t)
	must(t, send(cl, c, "warm", "warm"))
	counting.Reset()
	must(t, send(cl, c, "m", "m"))
	if commits, all := counting.Count(statetest.Commit), counting.Count(); commits != 1 || all != 1 {
		t.Fatalf("%d commits and %d calls for one text", commits, all)
	}
	if _, _, err := cl.dev.EventBuffer.GetOutgoingEvent(context.Background(), c.jid, types.JID{}, "m"); err != nil {
		t.Fatal(err)
	}
}

// TestRedelivered: what was committed is recognised, by the same owner and by
// the next.
func TestRedelivered(t *testing.T) {
	w := newWorld(t, memory.New(time.Now))
	cl, c := newClient(w, w.paired()), newContact(t)
	e := c.write(ours, cl.dev, "m", "text")
	for range 2 {
		if answer := cl.receive(c.jid, e); answer != "receipt" {
			t.Fatalf("answered %q", answer)
		}
	}
	cl = newClient(w, w.open())
	if answer := cl.receive(c.jid, e); answer != "receipt" {
		t.Fatalf("answered %q", answer)
	}
	if n := len(w.committed()); n != 1 {
		t.Fatalf("%d events", n)
	}
}

// TestDropped: a handler that refuses leaves everything as it was.
func TestDropped(t *testing.T) {
	w := newWorld(t, memory.New(time.Now))
	d := w.paired()
	cl, c := newClient(w, d), newContact(t)
	accept := cl.handle
	for _, id := range []string{"first", "second"} { // with a prekey, and in a known session
		e := c.write(ours, cl.dev, id, id)
		cl.handle = func(id, text string) bool {
			must(t, d.Stage(journal.Batch{Events: []journal.Draft{{Type: state.EventMessage, ID: id}}}))
			d.Drop()
			return false
		}
		if answer := cl.receive(c.jid, e); answer != "" {
			t.Fatalf("answered %q to what was refused", answer)
		}
		cl.handle = accept
		if answer := cl.receive(c.jid, e); answer != "receipt" {
			t.Fatalf("answered %q to the redelivery", answer)
		}
	}
	if n := len(w.committed()); n != 2 {
		t.Fatalf("%d events", n)
	}
}

// TestUnpadding: a message that decrypts and is then of no use is committed
// before its answers leave, and not handled again.
func TestUnpadding(t *testing.T) {
	w := newWorld(t, memory.New(time.Now))
	cl, c := newClient(w, w.paired()), newContact(t)
	cl.receive(c.jid, c.write(ours, cl.dev, "m0", "m0"))
	cl.unpad = errors.New("padding")
	e := c.write(ours, cl.dev, "m1", "m1")
	if answer := cl.receive(c.jid, e); answer != "ack" {
		t.Fatalf("answered %q", answer)
	}
	cl = newClient(w, w.open())
	if answer := cl.receive(c.jid, e); answer != "receipt" {
		t.Fatalf("answered %q", answer)
	}
	if answer := cl.receive(c.jid, c.write(ours, cl.dev, "m2", "m2")); answer != "receipt" {
		t.Fatalf("the ratchet is not intact: %q", answer)
	}
	if n := len(w.committed()); n != 2 {
		t.Fatalf("%d events", n)
	}
}

// TestSendLockDeadlock: a sender holds the library's send lock and waits for the
// ratchet lock, whose holder waits for the send lock, because its message does
// not unpad and it asks the phone for it. Neither may wait for long.
func TestSendLockDeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memory.New(time.Now))
		d := w.paired()
		cl, c := newClient(w, d), newContact(t)
		must(t, send(cl, c, "first", "first"))
		cl.receive(c.jid, c.write(ours, cl.dev, "m0", "m0"))

		cl.sendLock <- struct{}{} // the send has begun
		cl.unpad = errors.New("padding")
		e := c.write(ours, cl.dev, "m1", "m1")
		received, sent := make(chan string, 1), make(chan error, 1)
		go func() { received <- cl.receive(c.jid, e) }()
		synctest.Wait() // it holds the ratchet lock and waits for the send lock
		go func() {
			ctx, done := d.Sending(context.Background())
			defer done()
			_, ctx, err := cl.dev.WithCachedSessions(ctx, []string{c.jid.SignalAddress().String()})
			if err == nil {
				err = cl.dev.PutCachedSessions(ctx)
			}
			if err == nil {
				err = d.BeforeSend("message")
			}
			done()
			<-cl.sendLock
			sent <- err
		}()
		begun := time.Now()
		must(t, <-sent)
		if answer := <-received; answer != "ack" {
			t.Errorf("answered %q", answer)
		}
		if waited := time.Since(begun); waited > time.Second {
			t.Errorf("they waited %s for each other", waited)
		}
		if p := w.poisoned(); len(p) > 0 {
			t.Errorf("poisoned: %v", p)
		}
	})
}

// TestYielded: a message whose handling takes long gives the lock up, with its
// plaintext stored; a crash then loses nothing.
func TestYielded(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprint("crash ", crash), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, memory.New(time.Now))
				d := w.paired()
				cl, c := newClient(w, d), newContact(t)
				must(t, send(cl, c, "first", "first"))
				e := c.write(ours, cl.dev, "m", "text")
				accept := cl.handle
				var next *device.Device
				cl.handle = func(id, text string) bool {
					must(t, cl.sendPeer(context.Background(), c.jid)) // on this goroutine
					free := make(chan error)
					go func() { free <- cl.sendPeer(context.Background(), c.jid) }()
					must(t, <-free)
					if crash {
						next = w.open() // the owner is another now
					}
					return accept(id, text)
				}
				answer := cl.receive(c.jid, e)
				if !crash {
					if answer != "receipt" {
						t.Fatalf("answered %q", answer)
					}
				} else {
					if answer != "" {
						t.Fatalf("answered %q without the right to", answer)
					}
					w.poison = nil
					cl = newClient(w, next)
					if answer := cl.receive(c.jid, e); answer != "receipt" {
						t.Fatalf("answered %q to the redelivery", answer)
					}
				}
				if answer := cl.receive(c.jid, e); answer != "receipt" {
					t.Fatalf("answered %q", answer)
				}
				if n := len(w.committed()); n != 1 {
					t.Fatalf("%d events", n)
				}
				if answer := cl.receive(c.jid, c.write(ours, cl.dev, "m2", "m2")); answer != "receipt" {
					t.Fatalf("the ratchet is not intact: %q", answer)
				}
			})
		})
	}
}

// TestAckOfAnotherGoroutine: a receipt that the library sends from a goroutine
// of its own waits until the message is committed.
func TestAckOfAnotherGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memory.New(time.Now))
		d := w.paired()
		cl, c := newClient(w, d), newContact(t)
		left := make(chan int, 1)
		accept := cl.handle
		cl.handle = func(id, text string) bool {
			go func() {
				must(t, d.BeforeSend("receipt"))
				left <- len(w.committed())
			}()
			time.Sleep(time.Second)
			return accept(id, text)
		}
		cl.receive(c.jid, c.write(ours, cl.dev, "m", "text"))
		if n := <-left; n != 1 {
			t.Fatal("the receipt left before its message was durable")
		}
		must(t, d.BeforeSend("iq"))
	})
}

// TestLeakedLock: a ratchet that was read and not written does not hold others
// up for long, and its reader can no longer write it.
func TestLeakedLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memory.New(time.Now))
		d := w.paired()
		s := d.Library().Sessions
		ctx := context.Background()
		late, done := make(chan struct{}), make(chan error)
		go func() {
			_, err := s.GetSession(ctx, "1:0")
			must(t, err)
			<-late
			done <- s.PutSession(ctx, "1:0", []byte("stale"))
		}()
		synctest.Wait()
		begun := time.Now()
		_, err := s.GetSession(ctx, "1:0")
		must(t, err)
		must(t, s.PutSession(ctx, "1:0", []byte("new")))
		if waited := time.Since(begun); waited > 3*time.Second {
			t.Errorf("waited %s", waited)
		}
		close(late)
		wantErr(t, <-done, device.ErrLockLost, context.Canceled)
		if len(w.poisoned()) != 1 {
			t.Error("a stale ratchet must poison")
		}
	})
}

// TestWaitedLong: a ratchet that was waited for longer than one may be kept is
// not taken away at the moment it is had.
func TestWaitedLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memory.New(time.Now))
		d := w.paired()
		dev, ctx := d.Library(), context.Background()
		sending, sent := d.Sending(ctx)
		_, err := dev.Sessions.GetManySessions(sending, []string{"1:0"})
		must(t, err)
		done := make(chan error)
		for range 3 {
			go func() {
				_, err := dev.Sessions.GetSession(ctx, "1:0")
				if err == nil {
					time.Sleep(100 * time.Millisecond)
					err = dev.Sessions.PutSession(ctx, "1:0", []byte("moved"))
				}
				done <- err
			}()
		}
		time.Sleep(3 * time.Second) // prekeys are fetched
		must(t, dev.Sessions.PutManySessions(sending, map[string][]byte{"1:0": []byte("sent")}))
		sent()
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestYieldWhileReading: a message that is handled, and for which something is
// sent, does not give up the lock between a ratchet's reading and its writing.
func TestYieldWhileReading(t *testing.T) {
	for _, slow := range []time.Duration{time.Second, 5 * time.Second} {
		t.Run(slow.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, memory.New(time.Now))
				d := w.paired()
				dev, ctx := d.Library(), context.Background()
				must(t, dev.Sessions.PutSession(ctx, "1:0", []byte("0")))
				must(t, dev.EventBuffer.DoDecryptionTxn(ctx, func(ctx context.Context) error {
					return dev.EventBuffer.PutBufferedEvent(ctx, [32]byte{1}, []byte("text"), time.Now())
				}))
				old, err := dev.Sessions.GetSession(ctx, "1:0")
				must(t, err)
				read := make(chan string, 1)
				go func() {
					sending, sent := d.Sending(ctx)
					defer sent()
					got, err := dev.Sessions.GetManySessions(sending, []string{"1:0"})
					if err == nil {
						_ = dev.Sessions.PutManySessions(sending, map[string][]byte{"1:0": append(got["1:0"], '+')})
					}
					read <- string(got["1:0"])
				}()
				time.Sleep(slow)
				err = dev.Sessions.PutSession(ctx, "1:0", append(old, '-'))
				if err == nil {
					err = d.BeforeSend("message")
				}
				if got := <-read; err == nil && got != "0-" {
					t.Fatalf("the sender read %q: one ratchet was moved twice", got)
				}
				if slow > 2*time.Second && err == nil {
					t.Fatal("a ratchet was written after its lock was lost")
				}
			})
		})
	}
}

// TestStuckSender: who holds the lock beyond the bound poisons the device.
func TestStuckSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memory.New(time.Now))
		d := w.paired()
		ctx, done := d.Sending(context.Background())
		defer done()
		_, err := d.Library().Sessions.GetManySessions(ctx, []string{"1:0"})
		must(t, err)
		got := make(chan error)
		go func() {
			got <- d.Library().EventBuffer.DoDecryptionTxn(context.Background(), func(context.Context) error { return nil })
		}()
		wantErr(t, <-got, device.ErrLockWait, context.Canceled)
		if len(w.poisoned()) != 1 {
			t.Fatal("the connection was not cut")
		}
	})
}

// TestWaitEnds: a caller whose ctx ends stops waiting, and nothing is poisoned.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memory.New(time.Now))
		d := w.paired()
		ctx, done := d.Sending(context.Background())
		_, err := d.Library().Sessions.GetManySessions(ctx, []string{"1:0"})
		must(t, err)
		got := make(chan error)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			ctx, end := d.Sending(ctx)
			defer end()
			_, err := d.Library().Sessions.GetManySessions(ctx, []string{"1:0"})
			got <- err
		}()
		wantErr(t, <-got, context.DeadlineExceeded, context.Canceled)
		done()
		_, err = d.Library().Sessions.GetSession(context.Background(), "1:0")
		must(t, err)
		if p := w.poisoned(); len(p) > 0 {
			t.Fatalf("poisoned: %v", p)
		}
	})
}

// TestPanicInDecryption: the lock is free again and nothing is staged.
func TestPanicInDecryption(t *testing.T) {
	w := newWorld(t, memory.New(time.Now))
	d := w.paired()
	dev := d.Library()
	ctx := context.Background()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is the library's to recover")
			}
		}()
		_ = dev.EventBuffer.DoDecryptionTxn(ctx, func(ctx context.Context) error {
			must(t, dev.Sessions.PutSession(ctx, "1:0", []byte("half")))
			panic("library")
		})
	}()
	must(t, d.BeforeSend("ack"))
	if has, err := dev.Sessions.HasSession(ctx, "1:0"); err != nil || has {
		t.Fatal("what a panicking decryption wrote is there", err)
	}
	must(t, dev.EventBuffer.DoDecryptionTxn(ctx, func(context.Context) error { return nil }))
	d.Drop()
}

// TestGroupFanOut: ratchets, identities and the sender key of a large group are
// all durable before the frame.
func TestGroupFanOut(t *testing.T) {
	counting := statetest.Counting(memory.New(time.Now))
	w := newWorld(t, counting)
	d := w.paired()
	dev := d.Library()
	ctx, done := d.Sending(context.Background())
	defer done()
	must(t, dev.SenderKeys.PutSenderKey(ctx, "g@g.us", "9_1:7", []byte("sender key")))
	must(t, d.BeforeSend("iq")) // the device lists are asked for
	var addresses []string
	sessions := make(map[string][]byte)
	for i := range 300 {
		addresses = append(addresses, fmt.Sprintf("%d_1:0", i))
		sessions[addresses[i]] = []byte(strings.Repeat("s", 2000))
	}
	_, err := dev.Sessions.GetManySessions(ctx, addresses)
	must(t, err)
	must(t, d.BeforeSend("iq")) // missing prekeys are asked for
	for _, a := range addresses {
		must(t, dev.Identities.PutIdentity(ctx, a, [32]byte{1}))
	}
	counting.Reset()
	must(t, dev.Sessions.PutManySessions(ctx, sessions))
	if n := counting.Count(statetest.Commit); n < 7 || n > 12 {
		t.Errorf("%d commits for 601 records", n)
	}
	must(t, d.BeforeSend("message"))
	d = w.open()
	for _, a := range addresses {
		if has, err := d.Library().Sessions.HasSession(context.Background(), a); err != nil || !has {
			t.Fatal(a, has, err)
		}
	}
	if k, err := d.Library().SenderKeys.GetSenderKey(context.Background(), "g@g.us", "9_1:7"); err != nil || k == nil {
		t.Fatal("the sender key is not durable", err)
	}
}

// TestGroupOfAThousand dies at each commit of a fan-out to 1,000 members, before
// and after it takes effect. The frame leaves only when all ratchets are durable;
// after a death before that the next owner has for each member the old ratchet or
// the new one, sends again, and then has the new ones.
func TestGroupOfAThousand(t *testing.T) {
	const members = 1000
	var addresses []string
	for i := range members {
		addresses = append(addresses, fmt.Sprintf("%d_1:0", i))
	}
	ratchets := func(name string) map[string][]byte {
		all := make(map[string][]byte, members)
		for _, a := range addresses {
			all[a] = []byte(strings.Repeat(name, 2000))
		}
		return all
	}
	send := func(d *device.Device, name string) error {
		dev := d.Library()
		ctx, done := d.Sending(context.Background())
		defer done()
		if err := dev.SenderKeys.PutSenderKey(ctx, "g@g.us", "9_1:7", []byte(name)); err != nil {
			return err
		}
		if _, err := dev.Sessions.GetManySessions(ctx, addresses); err != nil {
			return err
		}
		for _, a := range addresses {
			if err := dev.Identities.PutIdentity(ctx, a, [32]byte{1}); err != nil {
				return err
			}
		}
		if err := dev.Sessions.PutManySessions(ctx, ratchets(name)); err != nil {
			return err
		}
		return d.BeforeSend("message")
	}
	durable := func(t *testing.T, d *device.Device, name string) (n int) {
		t.Helper()
		ctx, done := d.Sending(context.Background())
		defer done()
		all, err := d.Library().Sessions.GetManySessions(ctx, addresses)
		must(t, err)
		for _, a := range addresses {
			switch string(all[a][:1]) {
			case name:
				n++
			case "o":
			default:
				t.Fatalf("%s has the ratchet %q", a, all[a][:1])
			}
		}
		return n
	}
	for _, after := range []bool{false, true} {
		commits := 0
		for death := 1; ; death++ {
			fault := statetest.Fault(memory.New(time.Now))
			w := newWorld(t, fault)
			d := w.paired()
			must(t, send(d, "o"))
			seen := 0
			dying := func(c statetest.Call) bool {
				if c.Method == statetest.Commit {
					seen++
				}
				return c.Method == statetest.Commit && seen >= death
			}
			if after {
				fault.FailAfter(dying, -1, nil)
			} else {
				fault.FailBefore(dying, -1, nil)
			}
			err := send(d, "n")
			fault.Heal()
			if err == nil {
				if n := durable(t, w.open(), "n"); n != members {
					t.Fatalf("the frame left with %d of %d ratchets durable", n, members)
				}
				break
			}
			commits++
			wantErr(t, err, context.Canceled) // what the library takes for a connection that is gone
			d = w.open()
			durable(t, d, "n")
			must(t, send(d, "n"))
			if n := durable(t, w.open(), "n"); n != members {
				t.Fatalf("sent again with %d of %d ratchets durable", n, members)
			}
		}
		t.Logf("after its effect: %v: %d commits", after, commits)
		if commits < members/state.MaxItems { // the identities are known already
			t.Errorf("%d commits for %d records", commits, members+1)
		}
	}
}

// TestSenderKeyAlone: a frame that needs no ratchet is preceded by its sender
// key all the same.
func TestSenderKeyAlone(t *testing.T) {
	w := newWorld(t, memory.New(time.Now))
	d := w.paired()
	ctx, done := d.Sending(context.Background())
	must(t, d.Library().SenderKeys.PutSenderKey(ctx, "g@g.us", "9_1:7", []byte("sender key")))
	must(t, d.BeforeSend("message"))
	done()
	k, err := w.open().Library().SenderKeys.GetSenderKey(context.Background(), "g@g.us", "9_1:7")
	if err != nil || string(k) != "sender key" {
		t.Fatal(k, err)
	}
}
