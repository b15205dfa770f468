package wasim

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/binary/token"
	"go.mau.fi/whatsmeow/types"
)

// The bounds of what a client may send. The largest honest stanzas are a
// prekey upload (40 KB) and a message to a big group (a few 100 KB).
const (
	maxFrame  = 4 << 20 // bytes of a websocket message, and of a stanza when inflated
	maxDepth  = 32      // nesting of a stanza
	maxFrames = 1024    // frames in one websocket message
)

// Errors of what a client sent.
var (
	errFrame  = errors.New("bad frame")
	errStanza = errors.New("bad stanza")
)

// splitFrames cuts a websocket message into its frames: three bytes of length,
// big endian, and that many bytes, until nothing is left.
func splitFrames(msg []byte) ([][]byte, error) {
	var out [][]byte
	for len(msg) > 0 {
		if len(msg) < 3 {
			return nil, fmt.Errorf("%w: %d bytes where a length of three was due", errFrame, len(msg))
		}
		n := int(msg[0])<<16 | int(msg[1])<<8 | int(msg[2])
		if len(msg)-3 < n {
			return nil, fmt.Errorf("%w: %d bytes announced, %d there", errFrame, n, len(msg)-3)
		}
		if len(out) == maxFrames {
			return nil, fmt.Errorf("%w: over %d in one message", errFrame, maxFrames)
		}
		out = append(out, msg[3:3+n])
		msg = msg[3+n:]
	}
	return out, nil
}

// joinFrame puts the length before a frame's body.
func joinFrame(body []byte) []byte {
	out := make([]byte, 3+len(body))
	binary.BigEndian.PutUint16(out[1:], uint16(len(body)))
	out[0] = byte(len(body) >> 16)
	copy(out[3:], body)
	return out
}

// parseStanza decodes an opened frame. The library's decoder trusts its input
// (it allocates what a list announces and panics on wrong types), so the bytes
// are walked over first.
func parseStanza(plain []byte) (node *waBinary.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			node, err = nil, fmt.Errorf("%w: %v", errStanza, r)
		}
	}()
	if len(plain) < 2 {
		return nil, fmt.Errorf("%w: %d bytes", errStanza, len(plain))
	}
	flags, body := plain[0], plain[1:]
	if flags&2 != 0 {
		if body, err = inflate(body); err != nil {
			return nil, err
		}
	}
	w := walker{data: body}
	if err := w.node(0); err != nil {
		return nil, err
	}
	if w.at != len(body) {
		return nil, fmt.Errorf("%w: %d bytes after its end", errStanza, len(body)-w.at)
	}
	node, err = waBinary.Unmarshal(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStanza, err)
	}
	return node, nil
}

func inflate(data []byte) ([]byte, error) {
	z, err := zlib.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStanza, err)
	}
	out, err := io.ReadAll(io.LimitReader(z, maxFrame+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStanza, err)
	}
	if len(out) > maxFrame {
		return nil, fmt.Errorf("%w: inflates to over %d bytes", errStanza, maxFrame)
	}
	return out, nil
}

// walker goes over binary XML without building anything, to prove that it is
// whole, not nested too deeply, and that no list announces more than is there.
type walker struct {
	data []byte
	at   int
}

func (w *walker) bytes(n int) ([]byte, error) {
	if n < 0 || len(w.data)-w.at < n {
		return nil, fmt.Errorf("%w: ends too early", errStanza)
	}
	out := w.data[w.at : w.at+n]
	w.at += n
	return out, nil
}

func (w *walker) integer(n int) (int, error) {
	b, err := w.bytes(n)
	v := 0
	for _, c := range b {
		v = v<<8 | int(c)
	}
	return v, err
}

// size reads a list's length and checks it against what is left: each element
// takes at least one byte.
func (w *walker) size(tag int) (n int, err error) {
	switch tag {
	case token.ListEmpty:
		return 0, nil
	case token.List8:
		n, err = w.integer(1)
	case token.List16:
		n, err = w.integer(2)
	default:
		return 0, fmt.Errorf("%w: no list at byte %d", errStanza, w.at)
	}
	if err == nil && n > len(w.data)-w.at {
		err = fmt.Errorf("%w: a list of %d where %d bytes are left", errStanza, n, len(w.data)-w.at)
	}
	return n, err
}

func (w *walker) node(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: nested over %d deep", errStanza, maxDepth)
	}
	tag, err := w.integer(1)
	if err != nil {
		return err
	}
	n, err := w.size(tag)
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("%w: empty", errStanza)
	}
	for i := 0; i < 1+(n-1)/2*2; i++ { // the tag, then keys and values
		if err := w.value(depth, false); err != nil {
			return err
		}
	}
	if n%2 == 0 {
		return w.value(depth, true)
	}
	return nil
}

// value goes over a string, a JID, bytes or, in a node's content, a list.
func (w *walker) value(depth int, content bool) error {
	tag, err := w.integer(1)
	if err != nil {
		return err
	}
	sized := func(width int) error {
		n, err := w.integer(width)
		if err == nil {
			_, err = w.bytes(n)
		}
		return err
	}
	switch tag {
	case token.ListEmpty:
		return nil
	case token.List8, token.List16:
		n, err := w.size(tag)
		if err == nil && !content {
			err = fmt.Errorf("%w: a list for a string", errStanza)
		}
		for i := 0; i < n && err == nil; i++ {
			err = w.node(depth + 1)
		}
		return err
	case token.Binary8:
		return sized(1)
	case token.Binary20:
		n, err := w.integer(3)
		if err == nil {
			_, err = w.bytes(n & 0xfffff)
		}
		return err
	case token.Binary32:
		return sized(4)
	case token.Dictionary0, token.Dictionary1, token.Dictionary2, token.Dictionary3:
		_, err = w.bytes(1)
		return err
	case token.JIDPair:
		return w.values(depth, 2)
	case token.ADJID:
		if _, err = w.bytes(2); err == nil {
			err = w.values(depth, 1)
		}
		return err
	case token.FBJID, token.InteropJID:
		if err = w.values(depth, 1); err == nil {
			width := 2
			if tag == token.InteropJID {
				width = 4
			}
			_, err = w.bytes(width)
		}
		if err == nil {
			err = w.values(depth, 1)
		}
		return err
	case token.Nibble8, token.Hex8:
		n, err := w.integer(1)
		if err == nil {
			_, err = w.bytes(n & 127)
		}
		return err
	}
	return nil // a single-byte token; an unknown one is the decoder's to refuse
}

// values goes over parts of a JID, which are strings and no JIDs again.
func (w *walker) values(depth, n int) error {
	for range n {
		if w.at < len(w.data) {
			switch int(w.data[w.at]) {
			case token.JIDPair, token.ADJID, token.FBJID, token.InteropJID:
				return fmt.Errorf("%w: a JID within a JID", errStanza)
			}
		}
		if err := w.value(depth, false); err != nil {
			return err
		}
	}
	return nil
}

// Stanza is a node in JSON, for POST /devices/{jid}/node and Fault.Node. An
// attribute that reads as a JID of a known server is sent as one. Content is
// Children, else Text, else Base64.
type Stanza struct {
	Tag      string            `json:"tag"`
	Attrs    map[string]string `json:"attrs,omitempty"`
	Children []Stanza          `json:"children,omitempty"`
	Text     string            `json:"text,omitempty"`
	Base64   string            `json:"base64,omitempty"`
}

// Node turns it into the library's form.
func (s Stanza) Node() (waBinary.Node, error) {
	if s.Tag == "" {
		return waBinary.Node{}, fmt.Errorf("node: has no tag")
	}
	n := waBinary.Node{Tag: s.Tag, Attrs: waBinary.Attrs{}}
	for k, v := range s.Attrs {
		n.Attrs[k] = v
		if user, server, ok := strings.Cut(v, "@"); (ok || !strings.ContainsAny(v, " /")) && knownServer(server, user, ok) {
			if jid, err := types.ParseJID(v); err == nil {
				n.Attrs[k] = jid
			}
		}
	}
	switch {
	case s.Children != nil:
		children := make([]waBinary.Node, 0, len(s.Children))
		for _, c := range s.Children {
			child, err := c.Node()
			if err != nil {
				return n, err
			}
			children = append(children, child)
		}
		n.Content = children
	case s.Text != "":
		n.Content = []byte(s.Text)
	case s.Base64 != "":
		data, err := base64.StdEncoding.DecodeString(s.Base64)
		if err != nil {
			return n, fmt.Errorf("node %q: base64: %w", s.Tag, err)
		}
		n.Content = data
	}
	return n, nil
}

// knownServer tells whether a string is a JID: user@server, or a bare server.
func knownServer(server, user string, cut bool) bool {
	if !cut {
		server = user
	}
	switch server {
	case types.DefaultUserServer, types.HiddenUserServer, types.GroupServer, types.BroadcastServer, types.NewsletterServer:
		return true
	}
	return false
}
