package worker

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
)

// TestARecordOfAFormatToComeParksItsSessionAlone: it says which format, writes
// over nothing, and the other sessions of the worker go on. When the record can be
// read again, as by the release that wrote it, so does this one.
func TestARecordOfAFormatToComeParksItsSessionAlone(t *testing.T) {
	for _, kind := range []state.Kind{state.KindSpec, state.KindStatus} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				p := newParty(t, memory.New(time.Now))
				left(t, p.store, "w-dead", 3)
				key := state.Key{Kind: kind}
				part := state.OfSession("shop-1")
				write := func(value string) {
					t.Helper()
					if err := p.store.Update(ctx, part, []state.Write{state.Put(kind, "", []byte(value))}); err != nil {
						t.Fatal(err)
					}
				}
				before, err := p.store.Get(ctx, part, key)
				if err != nil && !errors.Is(err, state.ErrNotFound) {
					t.Fatal(err)
				}
				later := fmt.Sprintf(`{"v":%d,"name":"shop-1","state":{"what":"is to come"}}`, state.Format+1)
				write(later)
				var log bytes.Buffer
				w, stop := p.join(func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
				time.Sleep(time.Hour)
				if l, ok := w.Live("shop-1"); !ok || l.State != state.Failing || l.Cause != state.CauseStaleCredentials ||
					!strings.Contains(l.Status.Decision, fmt.Sprintf("format %d, this release reads up to %d; run the release that wrote it", state.Format+1, state.Format)) {
					t.Errorf("shop-1 is %s %s: %s", l.State, l.Cause, l.Status.Decision)
				}
				for _, other := range []string{"shop-0", "shop-2"} {
					if l, ok := w.Live(other); !ok || l.State != state.Stopped || l.Cause != state.CauseStopped {
						t.Errorf("%s is %s %s", other, l.State, l.Cause)
					}
				}
				if rec, err := p.store.Get(ctx, part, key); err != nil || string(rec.Value) != later {
					t.Errorf("the record is now %s, %v", rec.Value, err)
				}

				if kind == state.KindSpec {
					write(string(before.Value))
				} else if err := p.store.Update(ctx, part, []state.Write{state.Del(kind, "")}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				if l, _ := w.Live("shop-1"); l.State != state.Stopped {
					t.Errorf("with a record of this format shop-1 is %s %s: %s", l.State, l.Cause, l.Status.Decision)
				}
				stop()
				if n := strings.Count(log.String(), "run the release that wrote it"); n == 0 || strings.Contains(log.String(), "session=shop-0 error") {
					t.Errorf("the log says it %d times", n)
				}
			})
		})
	}
}
