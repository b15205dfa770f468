package deliver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"syscall"

	"github.com/holdfast-wa/holdfast/state"
)

// SinkNDJSON is the name of the NDJSON sink.
const SinkNDJSON = "ndjson"

// ErrWriterGone is returned once the reader of the NDJSON writer has gone away
// (a broken pipe, a closed file). Events stay in the queue for the next start.
var ErrWriterGone = errors.New("nobody reads the NDJSON output any more")

// NDJSON writes one event a line to one writer of the process. Lines of
// different sessions never mix.
type NDJSON struct {
	w    io.Writer
	lock chan struct{} // of one place: held while writing; a channel, so that waiting for it can be cancelled
	gone atomic.Bool
	torn bool // the last write ended within a line
	lost func(error)
}

// NewNDJSON makes the sink. Lost, where not nil, is called once when the writer
// can no longer be written; the process may then want to stop.
func NewNDJSON(w io.Writer, lost func(error)) *NDJSON {
	return &NDJSON{w: w, lock: make(chan struct{}, 1), lost: lost}
}

// Name is SinkNDJSON.
func (s *NDJSON) Name() string { return SinkNDJSON }

// Deliver writes the events in one write and flushes, where the writer can.
func (s *NDJSON) Deliver(ctx context.Context, events []state.Event) (int, error) {
	select {
	case s.lock <- struct{}{}:
		defer func() { <-s.lock }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if s.gone.Load() {
		return 0, ErrWriterGone
	}
	var buf bytes.Buffer
	if s.torn {
		buf.WriteByte('\n') // ends the half line: readers drop what does not parse
	}
	ends := make([]int, len(events))
	for i, ev := range events {
		line, err := json.Marshal(ev)
		if err != nil {
			if i == 0 {
				return 0, unencodable(ev)
			}
			ends = ends[:i] // the next call begins with it
			break
		}
		buf.Write(line)
		buf.WriteByte('\n')
		ends[i] = buf.Len()
	}
	written, err := s.w.Write(buf.Bytes())
	if err == nil {
		err = s.flush()
	}
	if err == nil {
		s.torn = false
		return len(ends), nil
	}
	whole := 0
	for whole < len(ends) && ends[whole] <= written {
		whole++
	}
	if written > 0 {
		s.torn = whole == 0 || ends[whole-1] != written
	}
	if readerGone(err) {
		s.gone.Store(true)
		err = fmt.Errorf("%w: %w", ErrWriterGone, err)
		if s.lost != nil {
			s.lost(err)
		}
	}
	return whole, err
}

func (s *NDJSON) flush() error {
	if f, ok := s.w.(interface{ Flush() error }); ok {
		return f.Flush()
	}
	return nil
}

// readerGone says whether a write failed because there will be no reader again.
func readerGone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, fs.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}
