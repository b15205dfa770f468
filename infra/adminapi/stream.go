package adminapi

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// streamWriter writes pieces of a live stream and sends each at once, with a
// deadline of its own in place of the server's.
type streamWriter struct {
	w  io.Writer
	rc *http.ResponseController
}

func newStreamWriter(hc huma.Context) *streamWriter {
	_, w := humago.Unwrap(hc)
	return &streamWriter{w: w, rc: http.NewResponseController(w)}
}

// write says whether the client still takes it.
func (s *streamWriter) write(piece string) bool {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return false
	}
	if _, err := io.WriteString(s.w, piece); err != nil {
		return false
	}
	err := s.rc.Flush()
	return err == nil || errors.Is(err, http.ErrNotSupported)
}
