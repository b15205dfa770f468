package transfer

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/media"
)

// TestUploadsComeAlong with the messages that need them; others stay, and one that
// cannot be opened does not hold the session up.
func TestUploadsComeAlong(t *testing.T) {
	ctx := context.Background()
	home, cloud, k, file := newMemory(t, "home"), newMemory(t, "cloud"), newKey(t), temp(t)
	home.furnished()
	shelf := func(p *place) media.Shelf { return media.Shelf{Store: p.store, Vault: p.vault, Fleet: p.fleet} }
	data := bytes.Repeat([]byte("meow"), 100_000)
	var lost media.Stored
	for id, message := range map[string]string{"UP1": "01A", "UP2": "", "UP3": "01B"} {
		m, w, err := shelf(home).Put(ctx, shop, id, "01JD8Q3W2N5C7G9K1M4P6R8"+id, state.MediaInfo{MIME: "image/png"}, data, time.Now(), time.Time{})
		must(t, err)
		must(t, home.store.Update(ctx, partition, []state.Write{w}))
		if message != "" {
			named, err := m.Name(message)
			must(t, err)
			must(t, home.store.Update(ctx, partition, []state.Write{named}))
		}
		if id == "UP3" {
			lost = m
		}
	}
	must(t, home.vault.DeleteObject(ctx, shop, lost.Object, ""))
	report, err := exportTo(home, file, k)
	must(t, err)
	if report.Unread != 1 {
		t.Errorf("%+v", report)
	}
	_, err = importFrom(cloud, file, k)
	must(t, err)
	m, got, err := shelf(cloud).Open(ctx, shop, "UP1")
	must(t, err)
	if !bytes.Equal(got, data) || m.Info.MIME != "image/png" || len(m.Messages) != 1 || m.Messages[0] != "01A" {
		t.Errorf("%d bytes, %+v", len(got), m)
	}
	for _, id := range []string{"UP2", "UP3"} {
		_, err := shelf(cloud).Get(ctx, shop, id)
		wantErr(t, err, state.ErrNotFound)
	}
	if _, _, err := shelf(home).Open(ctx, shop, "UP1"); err != nil {
		t.Errorf("the source has lost it: %v", err)
	}
}
