package wasim

import (
	"container/list"
	"maps"
	"time"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
)

// mailbox is what a device has not acknowledged yet, in order.
type mailbox struct {
	order list.List // of *item
	byKey map[string]*list.Element
}

// item is one stanza that is kept until it is acknowledged.
type item struct {
	node waBinary.Node
	rec  *Incoming // of messages
	sent time.Time // last delivery on a live socket, zero if never
	on   *conn     // that socket
	n    int       // how often it was delivered there
}

// keyOf is what an acknowledgement names: class, id and, but for messages,
// type and sender, for two contacts may answer the same id.
func keyOf(class, id, kind string, from, participant types.JID) string {
	if class == "message" {
		return class + "|" + id
	}
	if !participant.IsEmpty() {
		from = participant
	}
	return class + "|" + id + "|" + kind + "|" + from.String()
}

// post keeps a stanza for a device and delivers it if the device is there. A
// message under the id of one that still waits takes its place. The lock is
// held.
func (d *Device) post(it *item) {
	if d.unlinked != nil {
		return
	}
	key := keyOf(it.node.Tag, text(&it.node, "id"), text(&it.node, "type"), jidOf(&it.node, "from"), jidOf(&it.node, "participant"))
	if old := d.box.byKey[key]; old != nil {
		was := d.box.order.Remove(old).(*item)
		it.on, it.n = was.on, was.n // each copy may be acknowledged
	}
	if d.box.byKey == nil {
		d.box.byKey = map[string]*list.Element{}
	}
	d.box.byKey[key] = d.box.order.PushBack(it)
	d.deliver(it, false)
	d.s.notify()
}

// deliver puts an item on the live socket, if that delivers. The lock is held.
func (d *Device) deliver(it *item, offline bool) {
	c := d.conn
	if c == nil || c.is(Mute) || c.is(Zombie) {
		return
	}
	n := it.node
	if offline {
		n.Attrs = maps.Clone(n.Attrs)
		n.Attrs["offline"] = "1"
	}
	c.send(n)
	it.sent = time.Now()
	if it.on != c {
		it.on, it.n = c, 0
	}
	it.n++
	if it.rec != nil {
		it.rec.Deliveries++
		if it.rec.Delivered == nil {
			it.rec.Delivered = d.s.at()
		}
	}
}

// take removes what an acknowledgement names and returns it, or nil. The lock
// is held.
func (d *Device) take(key string) *item {
	e := d.box.byKey[key]
	if e == nil {
		return nil
	}
	delete(d.box.byKey, key)
	d.box.order.Remove(e)
	d.s.notify()
	it := e.Value.(*item)
	if it.n > 1 {
		it.on.owed(key, it.n-1)
	}
	return it
}

// owed notes that a socket may acknowledge a stanza so many times more, because it
// got as many copies. The lock is held.
func (c *conn) owed(key string, n int) {
	if c.copies == nil {
		c.copies = map[string]int{}
	}
	c.copies[key] += n
}

// redeliverLoop sends again what a live socket has not acknowledged in time.
func (s *Server) redeliverLoop() {
	tick := time.NewTicker(max(s.opt.Redeliver/4, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		s.mu.Lock()
		for c := range s.conns {
			d := c.device
			if d == nil || d.conn != c {
				continue
			}
			for e := d.box.order.Front(); e != nil; e = e.Next() {
				if it := e.Value.(*item); time.Since(it.sent) > s.opt.Redeliver {
					d.deliver(it, false)
				}
			}
		}
		s.mu.Unlock()
	}
}

// onAck takes the client's ack of a message, receipt or notification.
func (c *conn) onAck(n *waBinary.Node) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	d := c.device
	if d == nil || c.ended {
		return
	}
	class, id := text(n, "class"), text(n, "id")
	key := keyOf(class, id, text(n, "type"), jidOf(n, "to"), jidOf(n, "participant"))
	it := d.take(key)
	if it == nil {
		if rec := s.incoming(d, id); class == "message" && rec != nil {
			rec.Again++
			return
		}
		if c.copies[key] > 0 {
			if c.copies[key]--; c.copies[key] == 0 {
				delete(c.copies, key)
			}
			return
		}
		if class != "notification" { // those of faults and of Send are not kept
			s.anomalyLocked(c, "ack", class+" "+id+" waits for none")
		}
		return
	}
	if it.rec != nil {
		it.rec.Acked, it.rec.By, it.rec.Socket = s.at(), "ack", c.rec.N
		it.rec.Error = text(n, "error")
	}
}

// incoming finds the newest record of a message to a device; it looks at the
// last ones only. The lock is held.
func (s *Server) incoming(d *Device, id string) *Incoming {
	list := s.truth.incoming
	jid := d.jid.String()
	for i := len(list) - 1; i >= 0 && i > len(list)-5000; i-- {
		if list[i].ID == id && list[i].Device == jid {
			return list[i]
		}
	}
	return nil
}

// onReceipt takes a device's receipt: it acknowledges messages, asks for one
// again, or tells the sender that they were read.
func (c *conn) onReceipt(n *waBinary.Node) {
	s := c.s
	kind, id, to := text(n, "type"), text(n, "id"), jidOf(n, "to")
	ids := []string{id}
	if list, ok := n.GetOptionalChildByTag("list"); ok {
		for _, item := range list.GetChildren() {
			ids = append(ids, text(&item, "id"))
		}
	}
	ack := waBinary.Node{Tag: "ack", Attrs: waBinary.Attrs{"class": "receipt", "id": id, "from": to, "t": s.opt.Now().Unix()}}
	if kind != "" {
		ack.Attrs["type"] = kind
	}
	s.mu.Lock()
	d := c.device
	if d == nil || c.ended {
		s.mu.Unlock()
		return
	}
	name := kind
	if name == "" {
		name = "delivery"
	}
	retry := kind == "retry"
	for _, id := range ids {
		if retry {
			if rec := s.incoming(d, id); rec != nil {
				rec.Retries++
			}
			continue
		}
		it := d.take(keyOf("message", id, "", to, types.EmptyJID))
		switch {
		case it != nil && it.rec != nil:
			it.rec.Acked, it.rec.By, it.rec.Receipt, it.rec.Socket = s.at(), "receipt", name, c.rec.N
		case it == nil:
			if rec := s.incoming(d, id); rec != nil && rec.Acked != nil && kind != "read" && kind != "played" {
				rec.Again++
			}
		}
	}
	if kind != "" && kind != "inactive" && kind != "sender" || retry {
		keep(&s.truth, s.opt.MaxRecords, &s.truth.receipts, Receipt{
			Device: d.jid.String(), To: to.String(), IDs: ids, Type: name, At: s.opt.Now()})
	}
	c.send(ack)
	target := to
	if target.Server == types.GroupServer {
		target = jidOf(n, "participant")
	}
	u := s.find(target)
	s.notify()
	s.mu.Unlock()
	if retry && u != nil && target.Device == 0 {
		u.peer.resend(d, id, n)
	}
}
