package adminapi

import (
	"bytes"
	"errors"
	"fmt"
	"mime/multipart"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

var errPrivate = errors.New("address is refused: it is private")

const toMedia = "/api/sessions/shop/media"

// form is a body with files in it.
func form(t testing.TB, files ...string) (body, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := w.WriteField("note", "beside"); err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		part, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {fmt.Sprintf(`form-data; name="file"; filename="f%d.txt"`, i)}, "Content-Type": {"text/plain"}})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = part.Write([]byte(f)) // into memory
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), w.FormDataContentType()
}

// TestAnUploadIsSealedAndNamedByAMessage, as it is or in a form.
func TestAnUploadIsSealedAndNamedByAMessage(t *testing.T) {
	s := newStage(t)
	s.online(s.session("shop"))
	text, kind := form(t, "in a form")
	for _, tt := range []struct{ body, contentType, query, data, mime, name string }{
		{"\x89PNG\r\n\x1a\nhush", "image/png", "?fileName=cat.png", "\x89PNG\r\n\x1a\nhush", "image/png", "cat.png"},
		{text, kind, "", "in a form", "text/plain", "f0.txt"},
		{text, kind, "?fileName=own.txt", "in a form", "text/plain", "own.txt"},
		{`{"a":1}`, "application/json", "", `{"a":1}`, "application/json", ""},
	} {
		r := s.ask(Operator, "POST", toMedia+tt.query, tt.body, "Content-Type", tt.contentType)
		up := want[Upload](t, r, 201)
		if up.MIME != tt.mime || up.FileName != tt.name || up.Size != int64(len(tt.data)) || len(up.SHA256) != 64 || !up.ExpiresAt.After(s.now()) || r.Header.Get("Location") != toMedia+"/"+up.ID {
			t.Errorf("%+v", up)
		}
		got, data, err := s.api.shelf().Open(t.Context(), "shop", up.ID)
		if err != nil || string(data) != tt.data {
			t.Errorf("the owner reads %q: %v", data, err)
		}
		sealed, err := s.vault.GetObject(t.Context(), "shop", got.Object, "")
		if err != nil || bytes.Contains(sealed, []byte("hush")) {
			t.Errorf("in the vault: %q %v", sealed, err)
		}
		q := want[QueuedMessage](t, s.ask(Operator, "POST", toMessages, `{"to":"4915123456789","media":{"id":"`+up.ID+`"}}`), 202)
		if q.Media == nil || q.Media.ID != up.ID {
			t.Errorf("%+v", q.Media)
		}
		v := want[Upload](t, s.ask(Viewer, "GET", toMedia+"/"+up.ID, ""), 200)
		if len(v.Messages) != 1 || v.Messages[0] != q.ID || !v.ExpiresAt.IsZero() {
			t.Errorf("%+v", v)
		}
		// Cancelled, the message needs it no more.
		want[Message](t, s.ask(Operator, "DELETE", toMessages+"/"+q.ID, ""), 200)
		wantProblem(t, s.ask(Viewer, "GET", toMedia+"/"+up.ID, ""), CodeNotFound)
		if _, err := s.vault.GetObject(t.Context(), "shop", got.Object, ""); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("the file is still there: %v", err)
		}
	}
}

func TestUploadsAreBounded(t *testing.T) {
	s := newStage(t)
	s.online(s.session("shop"))
	limit := int(s.api.cfg.MaxMedia)
	want[Upload](t, s.ask(Operator, "POST", toMedia, strings.Repeat("x", limit), "Content-Type", "text/plain"), 201)
	for _, more := range []int{1, formRoom + 1} {
		wantProblem(t, s.ask(Operator, "POST", toMedia, strings.Repeat("x", limit+more), "Content-Type", "text/plain"), CodeTooLarge)
	}
	// Whoever may not upload cannot make us read so much.
	wantProblem(t, s.ask(Viewer, "POST", toMedia, strings.Repeat("x", maxBody+1), "Content-Type", "text/plain"), CodeTooLarge)
	two, kind := form(t, "a", "b")
	none, noneKind := form(t)
	for _, tt := range []struct{ body, contentType, query, field string }{
		{two, kind, "", "body"}, {none, noneKind, "", "body"}, {"not a form", kind, "", "body"}, {"x", "multipart/form-data", "", "body"},
		{"x", "nonsense;;", "", "header.Content-Type"}, {"x", "text/plain", "?keep=8d", "query.keep"}, {"x", "text/plain", "?keep=169h", "query.keep"},
		{"x", "text/plain", "?fileName=..%2Fx", "query.fileName"},
	} {
		p := wantProblem(t, s.ask(Operator, "POST", toMedia+tt.query, tt.body, "Content-Type", tt.contentType), CodeInvalid)
		if len(p.Errors) != 1 || p.Errors[0].Field != tt.field {
			t.Errorf("%q: %+v", tt.body, p.Errors)
		}
	}
	wantProblem(t, s.ask(Operator, "POST", toMedia, ""), CodeInvalid)
	wantProblem(t, s.ask(Operator, "POST", "/api/sessions/nobody/media", "x", "Content-Type", "text/plain"), CodeNotFound)
	if names, err := s.vault.ListObjects(t.Context(), "nobody"); err != nil || len(names) != 0 {
		t.Errorf("files of a session that is not there: %v %v", names, err)
	}
	s.api.cfg.Vault = nil
	wantProblem(t, s.ask(Operator, "POST", toMedia, "x", "Content-Type", "text/plain"), CodeNoUploads)
}

func TestUploadsAreRepeatedListedAndRemoved(t *testing.T) {
	s := newStage(t)
	s.online(s.session("shop"))
	up := func(body, key string) reply {
		return s.ask(Operator, "POST", toMedia, body, "Content-Type", "text/plain", "Idempotency-Key", key)
	}
	first := want[Upload](t, up("a", "k1"), 201)
	if again := want[Upload](t, up("a", "k1"), 201); again.ID != first.ID {
		t.Errorf("%s and %s", first.ID, again.ID)
	}
	wantProblem(t, up("b", "k1"), CodeIdempotencyMismatch)
	for i := range 4 {
		want[Upload](t, up("b", fmt.Sprint("l", i)), 201)
	}
	if names, err := s.vault.ListObjects(t.Context(), "shop"); err != nil || len(names) != 5 {
		t.Errorf("%d objects, %v", len(names), err)
	}
	seen, cursor := map[string]bool{}, ""
	for range 5 {
		page := want[UploadPage](t, s.ask(Viewer, "GET", toMedia+"?limit=2&cursor="+cursor, ""), 200)
		for _, u := range page.Uploads {
			seen[u.ID] = true
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d listed", len(seen))
	}
	if r := s.ask(Operator, "DELETE", toMedia+"/"+first.ID, ""); r.StatusCode != 204 {
		t.Errorf("HTTP %d %s", r.StatusCode, r.body)
	}
	wantProblem(t, s.ask(Operator, "DELETE", toMedia+"/"+first.ID, ""), CodeNotFound)
	// Nobody has named the others: they expire.
	s.pass(25 * time.Hour)
	if page := want[UploadPage](t, s.ask(Viewer, "GET", toMedia, ""), 200); len(page.Uploads) != 0 {
		t.Errorf("%d after a day", len(page.Uploads))
	}
	kept := want[Upload](t, s.ask(Operator, "POST", toMedia+"?keep=48h", "c", "Content-Type", "text/plain"), 201)
	m := want[QueuedMessage](t, s.ask(Operator, "POST", toMessages, `{"to":"4915123456789","media":{"id":"`+kept.ID+`"}}`), 202)
	want[Message](t, s.ask(Operator, "DELETE", toMessages+"/"+m.ID, ""), 200)
	want[Upload](t, s.ask(Viewer, "GET", toMedia+"/"+kept.ID, ""), 200)
	s.pass(49 * time.Hour)
	wantProblem(t, s.ask(Viewer, "GET", toMedia+"/"+kept.ID, ""), CodeNotFound)
}
