package whatsapp

import (
	"encoding/binary"
	"errors"

	"go.mau.fi/whatsmeow/socket"
)

// errOversized ends a connection whose server sends more in one message than
// the library reads.
var errOversized = errors.New("a websocket message of over 16 MiB")

// reframer rewrites what the server sends so that each websocket message holds
// exactly one WhatsApp frame. The library counts the length of a frame that is
// spread over messages wrongly by three: it would lose the frame, or index out
// of its buffer in a goroutine that nothing recovers, which ends the process
// and all its sessions. Text and control frames pass unchanged. What breaks
// the websocket protocol passes unchanged too, from there on, for the
// websocket library to refuse.
//
// It also frees the library's handshake when the connection ends under it: the
// library would wait 20 s for a frame that cannot come any more, and an empty
// one makes it fail at once.
type reframer struct {
	in       func([]byte) (int, error)
	awaited  func() bool // whether the first frame is waited for
	given    func()      // told of each frame; nil: nobody counts
	out      []byte      // rewritten, not yet read
	answered bool        // a frame was given

	broken  bool     // not a websocket any more: pass everything on
	head    [14]byte // of the websocket frame that is being read
	nhead   int
	left    uint64 // of its payload
	binary  bool   // whether the payload is a binary message's
	message byte   // opcode of the message that continuation frames go on with
	size    uint64 // of that message so far
	err     error  // given up

	frame []byte // WhatsApp frame so far, with its three bytes of length
}

// Read returns rewritten bytes.
func (r *reframer) Read(p []byte) (int, error) {
	for len(r.out) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		n, err := r.in(p)
		if n > 0 && r.broken {
			return n, err
		}
		r.feed(p[:n])
		if err != nil && len(r.out) == 0 {
			if r.answered || !r.awaited() {
				return 0, err
			}
			r.frame = []byte{0, 0, 0}
			r.emit()
		}
		// With bytes to give, the error comes back with the next read.
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	if len(r.out) == 0 {
		r.out = nil // an idle connection holds no buffer
	}
	return n, nil
}

func (r *reframer) feed(p []byte) {
	for len(p) > 0 {
		if r.err != nil {
			return
		}
		if r.broken {
			r.out = append(r.out, p...)
			return
		}
		if r.left == 0 {
			r.head[r.nhead] = p[0]
			r.nhead++
			p = p[1:]
			r.header()
			continue
		}
		n := len(p)
		if uint64(n) > r.left {
			n = int(r.left)
		}
		if r.binary {
			r.collect(p[:n])
		} else {
			r.out = append(r.out, p[:n]...)
		}
		r.left -= uint64(n)
		p = p[n:]
	}
}

// header looks at the bytes of the header so far and, once it is whole, says
// what the payload is.
func (r *reframer) header() {
	if r.nhead < 2 {
		return
	}
	first, second := r.head[0], r.head[1]
	opcode := first & 0x0f
	if first&0x70 != 0 || second&0x80 != 0 { // reserved bits, or masked by a server
		r.breakOff()
		return
	}
	want := 2
	switch second {
	case 126:
		want = 4
	case 127:
		want = 10
	}
	if r.nhead < want {
		return
	}
	switch second {
	case 126:
		r.left = uint64(binary.BigEndian.Uint16(r.head[2:4]))
	case 127:
		r.left = binary.BigEndian.Uint64(r.head[2:10])
	default:
		r.left = uint64(second)
	}
	if r.left > 1<<31 {
		r.breakOff()
		return
	}
	control := opcode >= 8
	if !control && opcode != 0 {
		r.message, r.size = opcode, 0
	}
	if !control {
		if r.size += r.left; r.size > socket.FrameMaxSize {
			r.err = errOversized
			return
		}
	}
	r.binary = !control && r.message == 2
	if !r.binary {
		r.out = append(r.out, r.head[:r.nhead]...)
	}
	r.nhead = 0
}

func (r *reframer) breakOff() {
	r.broken = true
	r.out = append(r.out, r.head[:r.nhead]...)
	r.nhead = 0
}

// collect takes bytes of binary messages and emits each WhatsApp frame that is
// whole as a message of its own.
func (r *reframer) collect(p []byte) {
	for len(p) > 0 {
		want := 3
		if len(r.frame) >= 3 {
			want += int(r.frame[0])<<16 | int(r.frame[1])<<8 | int(r.frame[2])
		}
		n := min(want-len(r.frame), len(p))
		r.frame = append(r.frame, p[:n]...)
		p = p[n:]
		if len(r.frame) < 3 {
			continue
		}
		want = 3 + (int(r.frame[0])<<16 | int(r.frame[1])<<8 | int(r.frame[2]))
		if len(r.frame) == want {
			r.emit()
		}
	}
}

func (r *reframer) emit() {
	const finalBinary = 0x82
	switch n := len(r.frame); {
	case n < 126:
		r.out = append(r.out, finalBinary, byte(n))
	case n < 1<<16:
		r.out = binary.BigEndian.AppendUint16(append(r.out, finalBinary, 126), uint16(n))
	default:
		r.out = binary.BigEndian.AppendUint64(append(r.out, finalBinary, 127), uint64(n))
	}
	r.out = append(r.out, r.frame...)
	r.frame = nil
	r.answered = true
	if r.given != nil {
		r.given()
	}
}
