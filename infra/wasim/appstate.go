package wasim

import (
	"bytes"
	"compress/zlib"
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/proto/waHistorySync"
	"go.mau.fi/whatsmeow/types"
)

// onAppState answers app-state syncs: every collection is empty, and what a
// client puts into one is taken and forgotten.
func (c *conn) onAppState(n *waBinary.Node) {
	var out []waBinary.Node
	sync := n.GetChildByTag("sync")
	for _, asked := range sync.GetChildrenByTag("collection") {
		out = append(out, waBinary.Node{Tag: "collection", Attrs: waBinary.Attrs{"name": text(&asked, "name"), "version": 0, "has_more_patches": false}})
	}
	c.result(n, waBinary.Node{Tag: "sync", Content: out})
}

// greet is what a phone sends a device that it has just linked: a key for the
// app state, and a small history with its push name. It waits for the
// device's prekeys first.
func (u *user) greet(d *Device) {
	s := u.s
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	if s.wait(ctx, func() bool { return d.left > 0 && d.active || d.unlinked != nil }) != nil {
		return
	}
	s.mu.Lock()
	if u.syncKey == nil {
		u.syncKey = junk(6 + 32)
	}
	key, name, now := u.syncKey, u.name, s.opt.Now()
	s.mu.Unlock()
	var history bytes.Buffer
	raw, err := proto.Marshal(&waHistorySync.HistorySync{
		SyncType: waHistorySync.HistorySync_PUSH_NAME.Enum(),
		Pushnames: []*waHistorySync.Pushname{
			{ID: proto.String(u.pn(0).String()), Pushname: proto.String(name)}},
	})
	if err != nil {
		return
	}
	z := zlib.NewWriter(&history)
	_, _ = z.Write(raw)
	_ = z.Close()
	for _, m := range []*waE2E.ProtocolMessage{
		{Type: waE2E.ProtocolMessage_APP_STATE_SYNC_KEY_SHARE.Enum(), AppStateSyncKeyShare: &waE2E.AppStateSyncKeyShare{Keys: []*waE2E.AppStateSyncKey{{
			KeyID: &waE2E.AppStateSyncKeyId{KeyID: key[:6]},
			KeyData: &waE2E.AppStateSyncKeyData{KeyData: key[6:], Timestamp: proto.Int64(now.UnixMilli()),
				Fingerprint: &waE2E.AppStateSyncKeyFingerprint{RawID: proto.Uint32(1), CurrentIndex: proto.Uint32(0), DeviceIndexes: []uint32{0}}}}}}},
		{Type: waE2E.ProtocolMessage_HISTORY_SYNC_NOTIFICATION.Enum(), HistorySyncNotification: &waE2E.HistorySyncNotification{
			SyncType: waE2E.HistorySyncType_PUSH_NAME.Enum(), ChunkOrder: proto.Uint32(1), Progress: proto.Uint32(100),
			InitialHistBootstrapInlinePayload: history.Bytes(), FileLength: proto.Uint64(uint64(len(raw)))}},
	} {
		c := &Contact{u}
		if _, err := c.send([]*Device{d}, types.EmptyJID, &waE2E.Message{ProtocolMessage: m}, ""); err != nil {
			s.opt.Log.Warn("wasim: the phone could not greet its device", "error", err)
			return
		}
	}
}
