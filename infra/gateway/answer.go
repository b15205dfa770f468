package gateway

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
)

// maxAnswer is what Lambda takes as an answer, in bytes of JSON. More would end
// the process.
const maxAnswer = 6 << 20

func newBody(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }

// recorder keeps an answer until it is whole.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
	head   bool // the answer to a HEAD, which has no body
	over   bool // more was written than can be sent
}

func newRecorder(method string) *recorder {
	return &recorder{header: http.Header{}, head: method == http.MethodHead}
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	switch {
	case w.head || w.status == http.StatusNoContent || w.status == http.StatusNotModified:
	case w.over || w.body.Len()+len(p) > maxAnswer:
		w.over = true
	default:
		w.body.Write(p)
	}
	return len(p), nil
}

func (w *recorder) reset() {
	clear(w.header)
	w.status, w.over = 0, false
	w.body.Reset()
}

// event is the answer as API Gateway takes it.
func (w *recorder) event() ([]byte, error) {
	if !w.over {
		answer, err := w.encoded()
		if err != nil || len(answer) <= maxAnswer {
			return answer, err
		}
	}
	id := w.header.Get("X-Request-Id")
	w.reset()
	adminapi.Refuse(w, adminapi.CodeAnswerTooLarge, "the answer has more than the %d bytes that can be sent from here: ask for less of it, with a smaller limit", maxAnswer)
	if id != "" {
		w.header.Set("X-Request-Id", id)
	}
	return w.encoded()
}

func (w *recorder) encoded() ([]byte, error) {
	e := events.APIGatewayV2HTTPResponse{StatusCode: w.status, Headers: map[string]string{}}
	if e.StatusCode == 0 {
		e.StatusCode = http.StatusOK
	}
	for name, values := range w.header {
		switch name {
		case "Set-Cookie":
			e.Cookies = values
		case "Connection", "Content-Length", "Transfer-Encoding", "Trailer": // of a connection that is not ours
		default:
			e.Headers[strings.ToLower(name)] = strings.Join(values, ", ")
		}
	}
	if w.body.Len() > 0 {
		if w.textual() {
			e.Body = w.body.String()
		} else {
			e.Body, e.IsBase64Encoded = base64.StdEncoding.EncodeToString(w.body.Bytes()), true
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // it counts
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("encoding an answer: %w", err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// textual says whether a body can be sent as it is, within JSON.
func (w *recorder) textual() bool {
	if w.header.Get("Content-Encoding") != "" || !utf8.Valid(w.body.Bytes()) {
		return false
	}
	kind, _, err := mime.ParseMediaType(w.header.Get("Content-Type"))
	return err == nil && (strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "json") || strings.HasSuffix(kind, "xml") || strings.HasSuffix(kind, "javascript"))
}
