package wasim

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
)

// The server's own patience, in real time.
const (
	handshakeTime = 30 * time.Second // from the upgrade to the client's last handshake message
	writeTime     = 30 * time.Second // one frame to a client that does not read
)

// conn is one socket of one client.
type conn struct {
	s      *Server
	ws     *websocket.Conn
	raw    net.Conn
	rx, tx cipher.AEAD
	rxN    uint32 // by the reading goroutine only

	qmu     sync.Mutex
	queue   []frame
	writing bool
	closed  bool
	txN     uint32 // by the writing goroutine only
	latency time.Duration

	// guarded by Server.mu
	rec     *Socket
	device  *Device
	pairing *pairing
	ended   bool // a final stanza was sent; nothing counts any more
	modes   []*fault
	timers  []*time.Timer
	copies  map[string]int // acknowledgements that may come again, by what they name
}

// frame is one thing to write.
type frame struct {
	plain []byte    // a stanza, to be sealed; or
	raw   []byte    // a websocket message as it is
	skip  bool      // raw uses up a nonce
	shift int       // nonce offset, for frames out of order
	due   time.Time // not before
}

// serveHTTP is the service's listener: websocket, version page, media.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/ws/chat":
		s.serveSocket(w, r)
	case r.URL.Path == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		s.mu.Lock()
		revision := s.revision
		s.mu.Unlock()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprintf(w, "<!DOCTYPE html><html><head><title>WhatsApp Web (simulated)</title></head><body><script>"+
			"window.config={\"server_revision\":%d,\"client_revision\":%d,\"simulated\":true};</script></body></html>\n", revision, revision)
	default:
		s.serveMedia(w, r)
	}
}

// serveSocket upgrades one request and lives as long as its socket.
func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request) {
	raw, _ := r.Context().Value(rawConn{}).(net.Conn)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		http.Error(w, "closing", http.StatusServiceUnavailable)
		return
	}
	rec := s.truth.socket(s, r.RemoteAddr)
	fault := s.strike(stageConnect, nil)
	hello := s.strike(stageHello, nil)
	chain := s.chain
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	if fault != nil {
		s.refuse(w, r, raw, rec, fault)
		return
	}
	mode := websocket.CompressionDisabled
	if s.opt.Deflate {
		mode = websocket.CompressionContextTakeover
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: mode})
	if err != nil {
		s.closeRecord(rec, "no websocket: "+err.Error())
		return
	}
	ws.SetReadLimit(maxFrame)
	c := &conn{s: s, ws: ws, raw: raw, rec: rec}
	s.mu.Lock()
	s.conns[c] = struct{}{}
	closed := s.closed
	s.mu.Unlock()
	if closed {
		c.cut(false, "server closed")
	}
	how := c.serve(hello, chain)
	c.cut(false, how)
	c.gone()
}

// refuse ends a request before it becomes a websocket.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, raw net.Conn, rec *Socket, f *Fault) {
	switch f.Kind {
	case HTTPStatus:
		s.closeRecord(rec, fmt.Sprintf("http status %d", f.Code))
		http.Error(w, f.Text, f.Code)
	case HalfOpen:
		select {
		case <-r.Context().Done():
		case <-s.ctx.Done():
		}
		s.closeRecord(rec, "half open")
	default:
		s.closeRecord(rec, "refused")
		linger(raw)
		if h, ok := w.(http.Hijacker); ok {
			if c, _, err := h.Hijack(); err == nil {
				_ = c.Close()
			}
		}
	}
}

// linger makes the next Close of a TCP connection a reset.
func linger(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
}

// serve runs the handshake and reads until the end, and says how it ended.
func (c *conn) serve(hello *Fault, chain []byte) string {
	ctx := c.s.ctx
	static, payload, err := c.handshake(ctx, hello, chain)
	if err != nil {
		return ending(err)
	}
	c.begin(static, payload)
	for {
		_, msg, err := c.ws.Read(ctx)
		if err != nil {
			return ending(err)
		}
		frames, err := splitFrames(msg)
		if err != nil {
			c.s.anomaly(c, "frame", err.Error())
			return err.Error()
		}
		for _, f := range frames {
			plain, err := c.rx.Open(f[:0], nonce(c.rxN), f, nil)
			c.rxN++
			if err != nil {
				c.s.anomaly(c, "frame", "does not open")
				return "a frame does not open"
			}
			node, err := parseStanza(plain)
			if err != nil {
				c.s.anomaly(c, "stanza", err.Error())
				return err.Error()
			}
			c.handle(node)
		}
	}
}

// ending words the error that ended a socket.
func ending(err error) string {
	switch {
	case websocket.CloseStatus(err) != -1:
		return fmt.Sprintf("client closed: websocket %d", websocket.CloseStatus(err))
	case errors.Is(err, io.EOF):
		return "client closed: end of file"
	case errors.Is(err, net.ErrClosed):
		return "closed"
	}
	return "client closed: " + err.Error()
}

// send queues a stanza. It never blocks.
func (c *conn) send(n waBinary.Node) {
	plain, err := marshal(n)
	if err != nil {
		c.s.opt.Log.Error("wasim: a stanza of our own cannot be written", "tag", n.Tag, "error", err)
		return
	}
	c.push(frame{plain: plain})
}

// marshal encodes a stanza; the library panics on what it has no form for.
func marshal(n waBinary.Node) (plain []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errStanza, r)
		}
	}()
	return waBinary.Marshal(n)
}

func (c *conn) push(f frame) {
	c.qmu.Lock()
	defer c.qmu.Unlock()
	if c.closed {
		return
	}
	if c.latency > 0 {
		f.due = time.Now().Add(c.latency)
	}
	c.queue = append(c.queue, f)
	if !c.writing {
		c.writing = true
		c.s.wg.Go(c.write)
	}
}

// write empties the queue and ends, so that an idle socket has no writer.
func (c *conn) write() {
	for {
		c.qmu.Lock()
		if len(c.queue) == 0 || c.closed {
			c.writing, c.queue = false, nil
			c.qmu.Unlock()
			return
		}
		f := c.queue[0]
		c.queue = c.queue[1:]
		c.qmu.Unlock()
		if wait := time.Until(f.due); !f.due.IsZero() && wait > 0 {
			select {
			case <-time.After(wait):
			case <-c.s.ctx.Done():
			}
		}
		out := f.raw
		if f.plain != nil {
			out = joinFrame(c.tx.Seal(nil, nonce(uint32(int64(c.txN)+int64(f.shift))), f.plain, nil))
		}
		if f.plain != nil || f.skip {
			c.txN++
		}
		if out != nil {
			ctx, cancel := context.WithTimeout(c.s.ctx, writeTime)
			err := c.ws.Write(ctx, websocket.MessageBinary, out)
			cancel()
			if err != nil {
				c.cut(false, "write: "+err.Error())
			}
		}
	}
}

// cut closes the TCP connection now; with reset, so that the client gets an
// ECONNRESET. The first reason given is the one recorded.
func (c *conn) cut(reset bool, how string) {
	c.qmu.Lock()
	was := c.closed
	c.closed = true
	c.qmu.Unlock()
	if !was {
		c.s.mu.Lock()
		c.rec.end(c.s, how)
		c.s.mu.Unlock()
	}
	if reset {
		linger(c.raw)
		_ = c.raw.Close()
	}
	_ = c.ws.CloseNow()
}

// gone forgets a socket whose reader has ended.
func (c *conn) gone() {
	s := c.s
	s.mu.Lock()
	delete(s.conns, c)
	if d := c.device; d != nil && d.conn == c {
		d.conn = nil
	}
	if p := c.pairing; p != nil {
		s.dropPairing(p, fmt.Errorf("%w: the socket closed", ErrPairing))
	}
	for _, t := range c.timers {
		t.Stop()
	}
	c.timers = nil
	s.notify()
	s.mu.Unlock()
}

// end sends final stanzas and closes the socket a little later, as the real
// service does: time enough for the client to read them. The lock is held.
func (c *conn) end(how string, nodes ...waBinary.Node) {
	if c.ended {
		return
	}
	for _, n := range nodes {
		c.send(n)
	}
	c.retire(how)
}

// retire makes a socket count no more and closes it after the grace, if what is
// queued has been written by then: on a busy host the writer may be late, and a final
// stanza that never leaves is another fault. The lock is held.
func (c *conn) retire(how string) {
	c.ended = true
	c.rec.Ended = c.s.at()
	if d := c.device; d != nil && d.conn == c {
		d.conn = nil
	}
	var grace *time.Timer
	grace = time.AfterFunc(c.s.opt.CloseGrace, func() {
		c.s.mu.Lock()
		late := c.unwritten()
		if late {
			grace.Reset(c.s.opt.CloseGrace)
		}
		c.s.mu.Unlock()
		if !late {
			c.cut(false, how)
		}
	})
	c.timers = append(c.timers, grace)
	c.s.notify()
}

// unwritten says that stanzas are on their way out. One that cannot be written ends
// the socket after writeTime.
func (c *conn) unwritten() bool {
	c.qmu.Lock()
	defer c.qmu.Unlock()
	return c.writing && !c.closed
}

// result answers an iq with a result and these children.
func (c *conn) result(iq *waBinary.Node, children ...waBinary.Node) {
	n := waBinary.Node{Tag: "iq", Attrs: waBinary.Attrs{"from": types.ServerJID, "type": "result", "id": iq.Attrs["id"]}}
	if len(children) > 0 {
		n.Content = children
	}
	c.send(n)
}

// fail answers an iq with an error.
func (c *conn) fail(iq *waBinary.Node, code int, text string) {
	c.send(waBinary.Node{
		Tag: "iq", Attrs: waBinary.Attrs{"from": types.ServerJID, "type": "error", "id": iq.Attrs["id"]},
		Content: []waBinary.Node{{Tag: "error", Attrs: waBinary.Attrs{"code": code, "text": text}}},
	})
}

// text and jid read an attribute; absent or of another type is empty.
func text(n *waBinary.Node, key string) string {
	switch v := n.Attrs[key].(type) {
	case string:
		return v
	case types.JID:
		return v.String()
	}
	return ""
}

func jidOf(n *waBinary.Node, key string) types.JID {
	switch v := n.Attrs[key].(type) {
	case types.JID:
		return v
	case string:
		if j, err := types.ParseJID(v); err == nil {
			return j
		}
	}
	return types.EmptyJID
}

// content is a node's content if that is bytes.
func content(n waBinary.Node) []byte {
	switch v := n.Content.(type) {
	case []byte:
		return v
	case string:
		return []byte(v)
	}
	return nil
}
