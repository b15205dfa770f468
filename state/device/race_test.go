package device_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"go.mau.fi/libsignal/keys/prekey"

	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// TestEncryptDecryptRace sends 200 messages each way at a store latency of 5 ms,
// while retries of other goroutines encrypt for the same contact. The contact
// must be able to read all of them.
func TestEncryptDecryptRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 200
		w := newWorld(t, statetest.Delay(memory.New(time.Now), 5*time.Millisecond))
		d := w.paired()
		cl := newClient(w, d)
		c := newContact(t)
		must(t, send(cl, c, "first", "first"))

		done := make(chan string)
		go func() {
			for i := range n {
				time.Sleep(rand.N(10 * time.Millisecond))
				id := fmt.Sprint("in", i)
				if answer := cl.receive(c.jid, c.write(ours, cl.dev, id, id)); answer != "receipt" {
					t.Errorf("%s: answered %q", id, answer)
				}
			}
			done <- "receiving"
		}()
		go func() {
			for i := range n {
				time.Sleep(rand.N(10 * time.Millisecond)) // lest the two go in step
				id := fmt.Sprint("out", i)
				if err := send(cl, c, id, id); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			}
			done <- "sending"
		}()
		go func() {
			for range n / 10 {
				if err := cl.sendPeer(context.Background(), c.jid); err != nil {
					t.Errorf("retry: %v", err)
				}
				time.Sleep(20 * time.Millisecond)
			}
			done <- "retrying"
		}()
		begun := time.Now()
		for range 3 {
			<-done
		}
		t.Logf("%s of virtual time", time.Since(begun))
		if len(c.rejected) > 0 {
			t.Errorf("the contact rejected %d of %d: %v", len(c.rejected), n, c.rejected[0])
		}
		if events := w.committed(); len(events) != n {
			t.Errorf("%d events of %d messages", len(events), n)
		}
		for i := range n {
			if c.got[fmt.Sprint("out", i)] != 1 {
				t.Errorf("message %d came %d times", i, c.got[fmt.Sprint("out", i)])
			}
		}
		if p := w.poisoned(); len(p) > 0 {
			t.Errorf("poisoned: %v", p)
		}
		d.Close()
	})
}

// send is a send of ours, marked as such.
func send(cl *client, c *contact, id, text string) error {
	ctx, done := cl.d.Sending(context.Background())
	defer done()
	return cl.send(ctx, c.jid, func() *prekey.Bundle { return bundle(c.t, c.dev) }, id, text, func(e envelope) { c.read(ours, e) })
}
