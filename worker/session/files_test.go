package session

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/media"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/worker/fetch"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// putContent places any message in the outbox.
func (w *world) putContent(id string, c state.OutboxContent, more ...state.Write) {
	w.t.Helper()
	if c.To == "" {
		c.To = "491700000002"
	}
	body, err := json.Marshal(c)
	if err != nil {
		w.t.Fatal(err)
	}
	sealed, err := w.fleet.Seal(seal.Place{Partition: state.OfSession("shop"), Kind: state.KindOutbox, ID: id}, body)
	if err != nil {
		w.t.Fatal(err)
	}
	value, err := state.Encode(state.Outbox{V: state.Format, ID: id, MessageID: "3EB0" + id, State: state.OutQueued, At: time.Now(), Sealed: sealed})
	if err != nil {
		w.t.Fatal(err)
	}
	write := state.Put(state.KindOutbox, id, value)
	write.Rev, write.If, write.Index = 1, state.Absent(), state.OutboxDue("shop")
	if err := w.store.Update(context.Background(), state.OfSession("shop"), append(more, write)); err != nil {
		w.t.Fatal(err)
	}
	if w.s != nil {
		w.s.Wake()
	}
}

// contentOf is the content of an item as it is stored.
func (w *world) contentOf(id string) state.OutboxContent {
	w.t.Helper()
	item := w.item(id)
	plain, err := w.fleet.Open(seal.Place{Partition: state.OfSession("shop"), Kind: state.KindOutbox, ID: id}, item.Sealed)
	if err != nil {
		w.t.Fatal(err)
	}
	var c state.OutboxContent
	if err := json.Unmarshal(plain, &c); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) shelf() media.Shelf {
	return media.Shelf{Store: w.store, Vault: w.vault, Fleet: w.fleet}
}

func (w *world) update(ctx context.Context, writes []state.Write) error {
	return w.store.Update(ctx, state.OfSession("shop"), writes)
}

// upload stores a file as the admin side does.
func (w *world) upload(id, data string, keep time.Duration) {
	w.t.Helper()
	var until time.Time
	if keep > 0 {
		until = time.Now().Add(keep)
	}
	_, write, err := w.shelf().Put(context.Background(), "shop", id, "01JD8Q3W2N5C7G9K1M4P6R8T0"+id[len(id)-1:], state.MediaInfo{MIME: "image/png", FileName: "cat.png"}, []byte(data), time.Now(), until)
	if err == nil {
		err = w.update(context.Background(), []state.Write{write})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// named places a message with an upload in the outbox.
func (w *world) named(id, upload string) {
	w.t.Helper()
	m, err := w.shelf().Get(context.Background(), "shop", upload)
	if err != nil {
		w.t.Fatal(err)
	}
	write, err := m.Name(id)
	if err != nil {
		w.t.Fatal(err)
	}
	w.putContent(id, state.OutboxContent{Text: "look", Media: &state.OutboxMedia{Upload: upload}}, write)
}

func (w *world) objects() int {
	w.t.Helper()
	names, err := w.vault.ListObjects(context.Background(), "shop")
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for _, name := range names {
		if strings.HasPrefix(name, state.MediaPrefix) {
			n++
		}
	}
	return n
}

// TestAFileIsUploadedOnceAndSentAgainAsItWas: the second try after a passing
// failure, and after the owner's end, repeats the very same message.
func TestAFileIsUploadedOnceAndSentAgainAsItWas(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		fetched := 0
		w.cfg = func(c *Config) {
			c.Fetch = func(context.Context, string) (fetch.File, error) {
				fetched++
				return fetch.File{Data: []byte("meow"), Name: "cat.png"}, nil
			}
		}
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		first := w.last()
		first.mu.Lock()
		first.sendErr = &whatsapp.SendError{Temporary: true, Err: context.DeadlineExceeded}
		first.mu.Unlock()
		w.putContent("01", state.OutboxContent{Text: "look", Media: &state.OutboxMedia{URL: "https://example.org/cat.png"}})
		time.Sleep(time.Minute)
		if c := w.contentOf("01"); len(c.Built) == 0 || w.item("01").State != state.OutSending {
			t.Fatalf("before the first try nothing was stored: %+v", c)
		}
		w.end()
		w.start()
		time.Sleep(time.Minute)
		second := w.last()
		if got := w.item("01"); got.State != state.OutSent {
			t.Fatalf("%s %s", got.State, got.Problem)
		}
		if fetched != 1 || first.uploads != 1 || second.uploads != 0 {
			t.Errorf("fetched %d times, uploaded %d and %d times", fetched, first.uploads, second.uploads)
		}
		if len(second.sent) != 1 || second.sent[0] != `3EB001 491700000002 "file cat.png 4 look upload 1"` {
			t.Errorf("sent %q", second.sent)
		}
		if c := w.contentOf("01"); len(c.Built) != 0 {
			t.Error("the file's keys are kept after it was sent")
		}
	})
}

// TestASlowFileHoldsUpItsOwnChatAlone, in which the order is kept.
func TestASlowFileHoldsUpItsOwnChatAlone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.cfg = func(c *Config) {
			c.Fetch = func(ctx context.Context, _ string) (fetch.File, error) {
				select {
				case <-time.After(40 * time.Second):
					return fetch.File{Data: []byte("x")}, nil
				case <-ctx.Done():
					return fetch.File{}, ctx.Err()
				}
			}
		}
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		w.putContent("01", state.OutboxContent{Media: &state.OutboxMedia{URL: "https://example.org/x"}})
		w.putContent("02", state.OutboxContent{Text: "behind it"})
		w.putContent("03", state.OutboxContent{To: "491700000003", Text: "to another"})
		time.Sleep(20 * time.Second)
		if a, b, c := w.item("01").State, w.item("02").State, w.item("03").State; a != state.OutQueued || b != state.OutQueued || c != state.OutSent {
			t.Errorf("while the file is fetched: %s, %s, and to another chat %s", a, b, c)
		}
		time.Sleep(time.Minute)
		sent := w.last().sent
		if len(sent) != 3 || !strings.HasPrefix(sent[1], "3EB001") || !strings.HasPrefix(sent[2], "3EB002") {
			t.Errorf("sent %q", sent)
		}
	})
}

// TestFilesThatCannotBeHad fail for good at once, or after some tries; the
// connection's end is no fault of theirs.
func TestFilesThatCannotBeHad(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		var tries atomic.Int32
		w.cfg = func(c *Config) {
			c.Fetch = func(ctx context.Context, url string) (fetch.File, error) {
				switch url {
				case "gone":
					return fetch.File{}, &fetch.Error{Code: fetch.CodeRefused, Host: "h", Err: errors.New("it answers HTTP 404")}
				case "large":
					return fetch.File{}, &fetch.Error{Code: fetch.CodeTooLarge, Err: errors.New("it has more")}
				}
				tries.Add(1)
				return fetch.File{}, &fetch.Error{Code: fetch.CodeUnreachable, Temporary: true, Err: errors.New("it answers HTTP 503")}
			}
		}
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		for id, c := range map[string]state.OutboxContent{
			"01": {To: "491700000003", Media: &state.OutboxMedia{URL: "gone"}},
			"02": {To: "491700000004", Media: &state.OutboxMedia{URL: "large"}},
			"03": {To: "491700000005", Media: &state.OutboxMedia{Upload: "never"}},
			"04": {To: "491700000006", Media: &state.OutboxMedia{URL: "away"}},
		} {
			w.putContent(id, c)
		}
		time.Sleep(time.Minute)
		for id, code := range map[string]string{"01": "media_refused", "02": "media_too_large", "03": "media_gone"} {
			if got := w.item(id); got.State != state.OutFailed || got.Code != code || got.Problem == "" {
				t.Errorf("%s: %s %s %s, want %s", id, got.State, got.Code, got.Problem, code)
			}
		}
		if got := w.item("04"); got.State != state.OutQueued || got.Code != "media_unreachable" {
			t.Errorf("meanwhile: %s %s", got.State, got.Code)
		}
		time.Sleep(30 * time.Minute)
		if got := w.item("04"); got.State != state.OutFailed || got.Code != "media_unreachable" || tries.Load() != fileTries {
			t.Errorf("in the end: %s %s after %d tries, want %d", got.State, got.Code, tries.Load(), fileTries)
		}
		if n := w.count(state.EventMessageState); n != 4 {
			t.Errorf("%d events tell of it, want one a message", n)
		}
	})
}

// TestAnUploadGoesWithTheLastMessageThatNeedsIt, or when its time is over.
func TestAnUploadGoesWithTheLastMessageThatNeedsIt(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.upload("up-1", "meow", 0)
		w.upload("up-2", "woof", time.Hour)
		w.named("01", "up-1")
		w.named("02", "up-1")
		w.named("03", "up-2")
		if n := w.objects(); n != 2 {
			t.Fatalf("%d objects", n)
		}
		w.start()
		time.Sleep(time.Minute)
		for _, id := range []string{"01", "02", "03"} {
			if got := w.item(id); got.State != state.OutSent {
				t.Fatalf("%s is %s: %s", id, got.State, got.Problem)
			}
		}
		if _, err := w.shelf().Get(context.Background(), "shop", "up-1"); !errors.Is(err, state.ErrNotFound) || w.objects() != 1 {
			t.Errorf("what was sent is still there: %v, %d objects", err, w.objects())
		}
		if m, err := w.shelf().Get(context.Background(), "shop", "up-2"); err != nil || len(m.Messages) != 0 {
			t.Errorf("what is to be kept for an hour: %+v, %v", m.Messages, err)
		}
		if sent := w.last().sent; len(sent) != 3 || !strings.Contains(sent[0], "file cat.png 4 look") {
			t.Errorf("sent %q", sent)
		}
	})
}

// TestTheSweepFindsWhatADeadOwnerLeft: messages that have ended, uploads that are
// released, and objects without a record.
func TestTheSweepFindsWhatADeadOwnerLeft(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		faults := statetest.Fault(w.store)
		w.store = faults
		w.upload("up-1", "meow", 0)
		w.named("01", "up-1")
		// The release of the upload, which comes after the end of the message, fails.
		faults.FailBefore(func(c statetest.Call) bool {
			for _, write := range c.Writes {
				if write.Key.Kind == state.KindMedia {
					return true
				}
			}
			return false
		}, 1<<30, state.ErrUnavailable)
		w.start()
		time.Sleep(time.Minute)
		w.stop()
		time.Sleep(time.Minute)
		if err := <-w.ended; err != nil {
			t.Log(err) // the store was away
		}
		faults.Heal()
		if got := w.item("01").State; got != state.OutSent {
			t.Fatalf("the message is %s", got)
		}
		if m, err := w.shelf().Get(context.Background(), "shop", "up-1"); err != nil || len(m.Messages) != 1 {
			t.Fatalf("%+v %v", m.Messages, err)
		}
		if err := w.lease.Release(context.Background()); err != nil {
			t.Log(err)
		}
		// And an object whose record was never written.
		old := ulid.MustNew(ulid.Timestamp(time.Now().Add(-2*time.Hour)), rand.Reader).String()
		if _, _, err := w.shelf().Put(context.Background(), "shop", "up-2", old, state.MediaInfo{}, []byte("lost"), time.Now(), time.Time{}); err != nil {
			t.Fatal(err)
		}
		w.upload("up-3", "waits", 0)
		w.start()
		time.Sleep(15 * time.Minute)
		if _, err := w.shelf().Get(context.Background(), "shop", "up-1"); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("it is still there: %v", err)
		}
		if n := w.objects(); n != 1 {
			t.Errorf("%d objects, want that of the upload that waits", n)
		}
	})
}

// TestTheOutboxKeepsItsPace between all messages, and the longer one within a chat;
// never less than is set, at most half as much more.
func TestTheOutboxKeepsItsPace(t *testing.T) {
	for _, tt := range []struct {
		name       string
		pace, chat string
		to         []string
		least      []time.Duration // from each message to the next
	}{
		{"of the session", "10s", "0", []string{"2", "3", "4", "2"}, []time.Duration{10 * time.Second, 10 * time.Second, 10 * time.Second}},
		{"of a chat", "0", "20s", []string{"2", "2", "2"}, []time.Duration{20 * time.Second, 20 * time.Second}},
		{"of both", "2s", "20s", []string{"2", "3", "2"}, []time.Duration{2 * time.Second, 0}},
		{"without", "0", "0", []string{"2", "2", "3", "3"}, []time.Duration{0, 0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.pair()
				w.behave = func(l *fakeLine) { l.login() }
				var times []time.Time
				w.cfg = func(c *Config) {
					var err error
					if c.Settings, err = c.Settings.With(map[string]string{"send-pace": tt.pace, "send-pace-chat": tt.chat}); err != nil {
						t.Fatal(err)
					}
					set := c.Settings
					c.Effective = func(state.SessionSettings) (policy.Settings, error) { return set, nil }
					c.Observe.Sent = func(bool) { times = append(times, time.Now()) }
				}
				for i, to := range tt.to {
					w.putTo(fmt.Sprintf("%02d", i), fmt.Sprintf("3EB0%d", i), "49170000000"+to, "x", time.Time{})
				}
				w.start()
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if len(times) != len(tt.to) {
					t.Fatalf("%d sent", len(times))
				}
				for i, least := range tt.least {
					gap := times[i+1].Sub(times[i])
					if gap < least || least > 0 && gap > least*3/2+time.Second {
						t.Errorf("gap %d is %s, want %s and up to half more", i, gap, least)
					}
					if least == 0 && tt.pace == "0" && gap > time.Second {
						t.Errorf("gap %d is %s without a pace", i, gap)
					}
				}
				if tt.name == "of both" {
					if gap := times[2].Sub(times[0]); gap < 20*time.Second || gap > 31*time.Second {
						t.Errorf("the second to one chat came after %s", gap)
					}
				}
			})
		})
	}
}

// TestThePaceEndsWithTheLine: what waits for it does not hold up the session's end.
func TestThePaceEndsWithTheLine(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.cfg = func(c *Config) {
			set, err := c.Settings.With(map[string]string{"send-pace": "50s"})
			if err != nil {
				t.Fatal(err)
			}
			c.Settings = set
			c.Effective = func(state.SessionSettings) (policy.Settings, error) { return set, nil }
		}
		w.put("01", "3EB001", "one", time.Time{})
		w.putTo("02", "3EB002", "491700000003", "two", time.Time{})
		w.start()
		time.Sleep(10 * time.Second)
		if a, b := w.item("01").State, w.item("02").State; a != state.OutSent || b != state.OutQueued {
			t.Fatalf("%s and %s", a, b)
		}
		began := time.Now()
		w.end()
		if took := time.Since(began); took > time.Second {
			t.Errorf("the end took %s", took)
		}
	})
}

// TestReceiptsReachTheNextOwner: they come hours after the message, which another
// process may have sent.
func TestReceiptsReachTheNextOwner(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.pair()
		w.behave = func(l *fakeLine) { l.login() }
		w.start()
		time.Sleep(time.Minute)
		w.put("01", "3EB001", "hello", time.Time{})
		time.Sleep(time.Minute)
		w.end()
		w.start()
		time.Sleep(time.Minute)
		for _, step := range []struct {
			status string
			want   state.OutboxState
		}{{"delivered", state.OutDelivered}, {"read", state.OutRead}, {"delivered", state.OutRead}} {
			l := w.last()
			l.post(whatsapp.Receipt{On: whatsapp.On{N: l.call.N}, IDs: []string{"3EB001", "3EB0other"}, Status: step.status, At: time.Now()})
			time.Sleep(time.Minute)
			if got := w.item("01").State; got != step.want {
				t.Errorf("after %s it is %s", step.status, got)
			}
		}
	})
}
