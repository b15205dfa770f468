package session

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// TestAQRIsSealedAndGoesWithItsTime: nothing that is stored or told shows it, and
// it is gone when it cannot be scanned any more.
func TestAQRIsSealedAndGoesWithItsTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const code = "2@secret-of-the-moment,a,b,c"
		w.behave = func(l *fakeLine) {
			l.post(whatsapp.QRCodes{On: whatsapp.On{N: l.call.N}, Codes: []string{code}, Lasts: []time.Duration{20 * time.Second}})
		}
		w.start()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		p, ctx := state.OfSession("shop"), context.Background()
		rec, err := w.store.Get(ctx, p, state.Key{Kind: state.KindQR})
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(rec.Expires); left <= 0 || left > 20*time.Second {
			t.Errorf("it is kept for another %s", left)
		}
		var shown state.QRShown
		if err := state.Decode(rec.Value, &shown); err != nil {
			t.Fatal(err)
		}
		if text, err := w.fleet.Open(seal.Place{Partition: p, Kind: state.KindQR}, shown.Sealed); err != nil || string(text) != code {
			t.Errorf("it opens as %q: %v", text, err)
		}
		for _, kind := range []state.Kind{state.KindQR, state.KindEvent, state.KindStatus, state.KindCommand} {
			page, err := w.store.Query(ctx, p, state.Query{Kind: kind})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page.Records {
				if bytes.Contains(r.Value, []byte("secret-of")) {
					t.Errorf("%s shows it", r.Key)
				}
			}
		}
		w.mu.Lock()
		for _, e := range w.events {
			if strings.Contains(string(e.Data), "secret-of") {
				t.Errorf("the event %s tells it", e.Type)
			}
		}
		w.mu.Unlock()
		time.Sleep(5 * time.Minute) // its pairing ends in that time
		synctest.Wait()
		if _, err := w.store.Get(ctx, p, state.Key{Kind: state.KindQR}); err == nil {
			t.Error("it is still there after its pairing")
		}
	})
}
