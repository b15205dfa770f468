package deliver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// down is a vault that may not answer.
type down struct {
	*memory.Vault
	is atomic.Bool
}

func (v *down) GetObject(ctx context.Context, session, name, version string) ([]byte, error) {
	if v.is.Load() {
		return nil, fmt.Errorf("%w: injected", state.ErrUnavailable)
	}
	return v.Vault.GetObject(ctx, session, name, version)
}

// commitLarge stores an event of 450 KB as the journal does.
func (s *stage) commitLarge(v *down, name string) (object string) {
	s.t.Helper()
	ctx, p := context.Background(), state.OfSession(name)
	s.mu.Lock()
	s.last[name]++
	seq := s.last[name]
	s.mu.Unlock()
	ev := state.Event{ID: fmt.Sprintf("01EV%010d", seq), Type: state.EventMessage, Time: time.Now(), Session: name, Epoch: 1, Seq: seq,
		Data: json.RawMessage(`"` + strings.Repeat("0123456789", 45_000) + `"`)}
	sealed := func(e state.Event) []byte {
		plain, err := json.Marshal(e)
		if err != nil {
			s.t.Fatal(err)
		}
		b, err := s.fleet.Seal(seal.Place{Partition: p, Kind: state.KindEvent, ID: state.EventID(seq)}, plain)
		if err != nil {
			s.t.Fatal(err)
		}
		return b
	}
	whole := sealed(ev)
	sum := sha256.Sum256(whole)
	at := state.LargeEvent{Name: fmt.Sprintf("event-%d", seq), SHA256: hex.EncodeToString(sum[:])}
	if _, err := v.PutObject(ctx, name, at.Name, whole); err != nil {
		s.t.Fatal(err)
	}
	value, err := state.Encode(state.StoredEvent{V: 1, ID: ev.ID, Type: ev.Type, At: ev.Time, Sealed: sealed(withoutData(ev)), Large: &at})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.store.Update(ctx, p, []state.Write{state.Put(state.KindEvent, state.EventID(seq), value)}); err != nil {
		s.t.Fatal(err)
	}
	return at.Name
}

// TestLargeEvents are delivered whole and in order, wait while the vault is away,
// and are dead letters with all they hold when they are refused.
func TestLargeEvents(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		refuse := true
		sizes := map[uint64]int{}
		r := newReceiver(func(_ string, ev state.Event, _ int) (int, http.Header) {
			if refuse && ev.Seq == 4 {
				return http.StatusRequestEntityTooLarge, nil
			}
			sizes[ev.Seq] = len(ev.Data)
			return 200, nil
		})
		v := &down{Vault: memory.NewVault()}
		v.is.Store(true)
		d, stop := s.run(Config{Vault: v})
		defer stop()
		if err := s.store.CreateSession(t.Context(), "shop", nil); err != nil {
			t.Fatal(err)
		}
		s.commit(nil, "shop", 1)
		for range 4 {
			s.commitLarge(v, "shop") // 2 to 5
		}
		lost := s.commitLarge(v, "shop")
		if err := v.DeleteObject(t.Context(), "shop", lost, ""); err != nil {
			t.Fatal(err)
		}
		s.commit(nil, "shop", 1)
		q := s.attach(d, "shop", nil, hook(t, NewPoster(PosterConfig{Transport: r}), "http://a/"))
		time.Sleep(time.Minute)
		synctest.Wait()
		inOrder(t, "with the vault away", r.seqs("a"), 1)
		v.is.Store(false)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got := fmt.Sprint(r.seqs("a")); got != "[1 2 3 5 6 7]" {
			t.Fatalf("delivered %s", got)
		}
		const whole = 450_002
		r.change(func() {
			if sizes[2] != whole || sizes[3] != whole || sizes[5] != whole || sizes[6] > 100 {
				t.Errorf("delivered with sizes %v", sizes)
			}
			refuse = false
		})
		letters, _, err := Dead(t.Context(), s.store, "shop", "", 10)
		if err != nil || len(letters) != 1 || letters[0].Large == nil || letters[0].Large.Name == "event-4" || len(letters[0].Sealed) > 1000 {
			t.Fatalf("dead letters %+v, %v", letters, err)
		}
		if err := v.DeleteObject(t.Context(), "shop", "event-4", ""); err != nil { // as the journal does
			t.Fatal(err)
		}
		if err := q.Redrive(t.Context(), state.DeadID(4, SinkWebhook)); err != nil {
			t.Fatal(err)
		}
		r.change(func() {
			if sizes[4] != whole {
				t.Errorf("delivered again with %d bytes", sizes[4])
			}
		})
		names, err := v.ListObjects(t.Context(), "shop")
		if err != nil || strings.Join(names, " ") != "event-2 event-3 event-5" {
			t.Errorf("in the vault: %v, %v", names, err)
		}
	})
}
