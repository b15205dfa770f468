package wasim

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/coder/websocket"
	"go.mau.fi/whatsmeow/socket"
)

// handshake reads the client's hello and answers, unless a fault forbids it.
func (c *conn) handshake(ctx context.Context, hello *Fault, chain []byte) (static []byte, payload *clientPayload, err error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	_, msg, err := c.ws.Read(ctx)
	if err != nil {
		return nil, nil, err
	}
	header := socket.WAConnHeader
	if len(msg) < len(header) || string(msg[:len(header)]) != string(header) {
		return nil, nil, fmt.Errorf("%w: does not begin with the header", errHandshake)
	}
	frames, err := splitFrames(msg[len(header):])
	if err != nil || len(frames) != 1 {
		return nil, nil, fmt.Errorf("%w: no single hello: %w", errHandshake, errFrame)
	}
	if hello != nil {
		switch hello.Kind {
		case HandshakeMute:
			for { // until the client tires
				if _, _, err := c.ws.Read(c.s.ctx); err != nil {
					return nil, nil, err
				}
			}
		case HandshakeGarbage:
			junk := make([]byte, 200)
			_, _ = rand.Read(junk)
			if err := c.ws.Write(ctx, websocket.MessageBinary, joinFrame(junk)); err != nil {
				return nil, nil, err
			}
			_, _, err := c.ws.Read(c.s.ctx)
			return nil, nil, fmt.Errorf("%w: garbage was sent: %w", errHandshake, err)
		case CertificateExpired:
			now := time.Now()
			if chain, err = c.s.id.chain(now.Add(-48*time.Hour), now.Add(-24*time.Hour)); err != nil {
				return nil, nil, err
			}
		case CertificateFuture:
			now := time.Now()
			if chain, err = c.s.id.chain(now.Add(24*time.Hour), now.Add(48*time.Hour)); err != nil {
				return nil, nil, err
			}
		case CertificateForged:
			if chain, err = newServerKeys([32]byte{1}).chain(time.Now().Add(-time.Hour), time.Now().Add(time.Hour)); err != nil {
				return nil, nil, err
			}
		}
	}
	send := func(body []byte) error { return c.ws.Write(ctx, websocket.MessageBinary, joinFrame(body)) }
	receive := func() ([]byte, error) {
		_, msg, err := c.ws.Read(ctx)
		if err != nil {
			return nil, err
		}
		frames, err := splitFrames(msg)
		if err != nil {
			return nil, err
		}
		if len(frames) != 1 {
			return nil, fmt.Errorf("%w: %d frames where one was due", errHandshake, len(frames))
		}
		return frames[0], nil
	}
	static, payload, c.rx, c.tx, err = respond(c.s.id, chain, header, frames[0], send, receive)
	return static, payload, err
}
