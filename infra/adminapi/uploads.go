package adminapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/media"
)

const (
	// DefaultMaxMedia bounds an upload, bytes.
	DefaultMaxMedia = 16 << 20
	// uploadsAtOnce bounds the files that are in memory at a time.
	uploadsAtOnce = 8
	// formRoom is what a form may add to its file.
	formRoom = 64 << 10
	// uploadTime is how long an upload may take to arrive.
	uploadTime  = 2 * time.Minute
	longestKeep = 7 * 24 * time.Hour
)

// Upload is a file that waits to be sent.
type Upload struct {
	ID        string    `json:"id" doc:"what media.id of a message names it by"`
	MIME      string    `json:"mime"`
	FileName  string    `json:"fileName,omitempty"`
	Size      int64     `json:"size" doc:"bytes"`
	SHA256    string    `json:"sha256" doc:"of the bytes, in hex"`
	At        time.Time `json:"at"`
	ExpiresAt time.Time `json:"expiresAt,omitzero" doc:"removed then; absent while messages that are not sent yet need it: it goes with the last of them"`
	Messages  []string  `json:"messages" nullable:"false" doc:"that need it and are not sent yet"`
}

// UploadPage is a page of uploads.
type UploadPage struct {
	Uploads []Upload `json:"uploads" nullable:"false"`
	Next    string   `json:"next,omitempty" doc:"cursor of the next page; absent on the last one"`
}

type uploadInput struct {
	SessionPath
	KeyParam
	ContentType string `header:"Content-Type" hidden:"true" maxLength:"256"`
	FileName    string `query:"fileName" maxLength:"255" doc:"what the file is called; in a form the file's own name serves"`
	Keep        string `query:"keep" maxLength:"16" example:"1h" doc:"keep it at least so long, for several messages; at most 168h. By itself it goes when it was sent, or after 24h"`
}

type uploadOutput struct {
	Status   int
	Location string `header:"Location"`
	Body     Upload
}

// UploadPath is the upload that a route is about.
type UploadPath struct {
	SessionPath
	ID string `path:"id" maxLength:"64" doc:"as the write answered it"`
}

type uploadsInput struct {
	SessionPath
	PageParams
}

func (a *API) uploadRoutes() {
	tags := []string{"Messages"}
	body := &huma.RequestBody{Required: true, Description: fmt.Sprintf("the file itself, of at most %d bytes, with its Content-Type; or a form with one file in it", a.cfg.MaxMedia),
		Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}
	route(a, Operator, huma.Operation{OperationID: "upload-media", Method: http.MethodPost, Path: "/api/sessions/{name}/media", Tags: tags,
		Summary: "Upload a file to send", DefaultStatus: http.StatusCreated, Errors: []int{400, 404, 408, 409, 413}, RequestBody: body,
		Description: "The file is sealed and kept until the message that names it was sent, or for a day."}, a.upload)
	// Not before: the library would look for JSON in a form.
	body.Content["multipart/form-data"] = &huma.MediaType{Schema: &huma.Schema{Type: "object", Required: []string{"file"},
		Properties: map[string]*huma.Schema{"file": {Type: "string", Format: "binary"}}}}
	route(a, Viewer, huma.Operation{OperationID: "list-media", Method: http.MethodGet, Path: "/api/sessions/{name}/media", Tags: tags,
		Summary: "List uploads that wait to be sent", Errors: []int{404}}, a.uploads)
	route(a, Viewer, huma.Operation{OperationID: "get-media", Method: http.MethodGet, Path: "/api/sessions/{name}/media/{id}", Tags: tags,
		Summary: "Show an upload, without its bytes", Errors: []int{404}},
		func(ctx context.Context, in *UploadPath) (*struct{ Body Upload }, error) {
			m, err := a.shelf().Get(ctx, in.Name, in.ID)
			return &struct{ Body Upload }{uploadView(m)}, err
		})
	route(a, Operator, huma.Operation{OperationID: "delete-media", Method: http.MethodDelete, Path: "/api/sessions/{name}/media/{id}", Tags: tags,
		Summary: "Remove an upload", DefaultStatus: http.StatusNoContent, Errors: []int{404, 409},
		Description: "Messages that still need it fail."}, a.deleteUpload)
}

var uploadPath = regexp.MustCompile(`^/api/sessions/[^/]+/media/?$`)

// isUpload says whether a request brings a file, which may be larger and slower
// than other bodies.
func isUpload(r *http.Request) bool {
	return r.Method == http.MethodPost && uploadPath.MatchString(r.URL.Path)
}

type bodyKey struct{}

// withBody hands an upload to its route: the library would copy it.
func withBody(ctx context.Context, body []byte) context.Context {
	return context.WithValue(ctx, bodyKey{}, body)
}

func (a *API) shelf() media.Shelf {
	return media.Shelf{Store: a.cfg.Store, Vault: a.cfg.Vault, Fleet: a.cfg.Fleet}
}

func uploadView(m media.Stored) Upload {
	v := Upload{ID: m.ID, MIME: m.Info.MIME, FileName: m.Info.FileName, Size: m.Size, SHA256: m.Info.SHA256, At: m.At, Messages: m.Messages}
	if len(v.Messages) == 0 {
		v.Messages, v.ExpiresAt = []string{}, m.Expires()
	}
	return v
}

func (a *API) upload(ctx context.Context, in *uploadInput) (*uploadOutput, error) {
	if a.cfg.Vault == nil {
		return nil, problem(CodeNoUploads, "nothing can be uploaded here: name a URL in the message instead")
	}
	body, _ := ctx.Value(bodyKey{}).([]byte)
	data, info, err := a.received(body, in.ContentType)
	if err != nil {
		return nil, err
	}
	if in.FileName != "" {
		if err := checkFileName("query.fileName", in.FileName); err != nil {
			return nil, err
		}
		info.FileName = in.FileName
	}
	now := a.cfg.Now().UTC()
	var until time.Time
	if in.Keep != "" {
		keep, err := time.ParseDuration(in.Keep)
		if err != nil || keep < 0 || keep > longestKeep {
			return nil, invalid("query.keep", "must be a time from 0s to %s, such as 1h", longestKeep)
		}
		until = now.Add(keep)
	}
	if _, err := a.cfg.Store.Owner(ctx, in.Name); err != nil {
		return nil, fmt.Errorf("session %q: %w", in.Name, err)
	}
	id := a.newID()
	if in.Key != "" {
		id = keyedID(in.Name, "media\x00"+in.Key)
		if out, err := a.uploadedBefore(ctx, in.Name, id, data); out != nil || err != nil {
			return out, err
		}
	}
	m, w, err := a.shelf().Put(ctx, in.Name, id, a.newID(), info, data, now, until)
	if err != nil {
		return nil, err
	}
	audit, err := a.audit(caller(ctx), now, "upload", "", fmt.Sprintf("upload %s, %d bytes", id, len(data)))
	if err == nil {
		err = a.cfg.Store.Update(ctx, state.OfSession(in.Name), []state.Write{w, audit})
	}
	if err != nil {
		a.shelf().Forget(context.WithoutCancel(ctx), in.Name, m)
		if errors.Is(err, state.ErrConflict) && in.Key != "" { // the same request, at the same time
			if out, err := a.uploadedBefore(ctx, in.Name, id, data); out != nil || err != nil {
				return out, err
			}
		}
		return nil, err
	}
	return uploaded(in.Name, m), nil
}

func uploaded(session string, m media.Stored) *uploadOutput {
	return &uploadOutput{Status: http.StatusCreated, Location: "/api/sessions/" + session + "/media/" + m.ID, Body: uploadView(m)}
}

// uploadedBefore is the answer to an upload that is repeated; nil: it is none.
func (a *API) uploadedBefore(ctx context.Context, session, id string, data []byte) (*uploadOutput, error) {
	m, err := a.shelf().Get(ctx, session, id)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case m.Info.SHA256 != media.Sum(data):
		return nil, problem(CodeIdempotencyMismatch, "header.Idempotency-Key: was used for another file: use a new key")
	}
	return uploaded(session, m), nil
}

// received takes the file out of a body: the body itself, or the one file of a form.
func (a *API) received(body []byte, contentType string) ([]byte, state.MediaInfo, error) {
	info := state.MediaInfo{MIME: contentType}
	kind, params, err := mime.ParseMediaType(contentType)
	switch {
	case contentType == "":
		info.MIME = http.DetectContentType(body)
	case err != nil:
		return nil, info, invalid("header.Content-Type", "is no media type such as image/jpeg")
	case kind == "multipart/form-data":
		if body, info, err = fileOf(body, params["boundary"]); err != nil {
			return nil, info, err
		}
	}
	switch {
	case len(body) == 0:
		return nil, info, invalid("body", "is empty")
	case int64(len(body)) > a.cfg.MaxMedia:
		return nil, info, a.tooLarge()
	}
	return body, info, nil
}

// tooLarge is the problem of a file beyond the bound.
func (a *API) tooLarge() *Problem {
	p := problem(CodeTooLarge, "body: a file has at most %d bytes here: name a URL in the message instead", a.cfg.MaxMedia)
	p.Errors = []Fault{{Field: "body", Message: "is too large"}}
	return p
}

// fileOf is the one file of a form.
func fileOf(form []byte, boundary string) ([]byte, state.MediaInfo, error) {
	var info state.MediaInfo
	unread := invalid("body", "is not a form: give a boundary, and one file")
	if boundary == "" {
		return nil, info, unread
	}
	reader := multipart.NewReader(bytes.NewReader(form), boundary)
	var file []byte
	for found := false; ; {
		part, err := reader.NextPart()
		if errors.Is(err, io.EOF) {
			if !found {
				return nil, info, invalid("body", "has no file in it")
			}
			return file, info, nil
		}
		if err != nil {
			return nil, info, unread
		}
		name := part.FileName()
		if name == "" {
			continue // a field beside the file
		}
		if found {
			return nil, info, invalid("body", "has several files: upload them one by one")
		}
		if file, err = io.ReadAll(part); err != nil {
			return nil, info, unread
		}
		found = true
		if checkFileName("body", name) == nil {
			info.FileName = name
		}
		if info.MIME = part.Header.Get("Content-Type"); info.MIME == "" {
			info.MIME = http.DetectContentType(file)
		}
		if _, _, err := mime.ParseMediaType(info.MIME); err != nil || len(info.MIME) > 256 {
			return nil, info, invalid("body", "the file's Content-Type is no media type such as image/jpeg")
		}
	}
}

func (a *API) uploads(ctx context.Context, in *uploadsInput) (*struct{ Body UploadPage }, error) {
	if _, err := a.cfg.Store.Owner(ctx, in.Name); err != nil {
		return nil, fmt.Errorf("session %q: %w", in.Name, err)
	}
	after, err := fromCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	got, err := a.cfg.Store.Query(ctx, state.OfSession(in.Name), state.Query{Kind: state.KindMedia, After: after, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	page := UploadPage{Uploads: []Upload{}}
	for _, r := range got.Records {
		m, err := a.shelf().Read(in.Name, r)
		if err != nil {
			m.ID, m.Info.MIME = r.Key.ID, "unreadable"
		}
		page.Uploads = append(page.Uploads, uploadView(m))
		if got.More {
			page.Next = toCursor(r.Key.ID)
		}
	}
	return &struct{ Body UploadPage }{page}, nil
}

func (a *API) deleteUpload(ctx context.Context, in *UploadPath) (*struct{}, error) {
	if a.cfg.Vault == nil {
		return nil, problem(CodeNoUploads, "nothing can be uploaded here")
	}
	if _, err := a.shelf().Get(ctx, in.Name, in.ID); err != nil && !errors.Is(err, state.ErrCorrupt) {
		return nil, err
	}
	return nil, a.shelf().Remove(ctx, in.Name, in.ID, func(ctx context.Context, writes []state.Write) error {
		audit, err := a.audit(caller(ctx), a.cfg.Now().UTC(), "delete-upload", "upload "+in.ID, "")
		if err != nil {
			return err
		}
		return a.cfg.Store.Update(ctx, state.OfSession(in.Name), append(writes, audit))
	})
}

// nameUpload is the write by which a message says that it needs an upload.
func (a *API) nameUpload(ctx context.Context, session, id, message string) (state.Write, error) {
	m, err := a.shelf().Get(ctx, session, id)
	var w state.Write
	if err == nil {
		w, err = m.Name(message)
	}
	switch {
	case errors.Is(err, state.ErrNotFound):
		return w, invalid("body.media.id", "there is no such upload, or it was sent already: upload the file again")
	case errors.Is(err, state.ErrTooLarge):
		return w, invalid("body.media.id", "%d messages wait for this upload already: upload the file again", state.MaxMediaMessages)
	}
	return w, err
}

// releaseUpload lets go of the upload of a message that was cancelled. What fails
// here is found by the owner's sweep.
func (a *API) releaseUpload(ctx context.Context, session string, o state.Outbox) {
	c, err := a.openContent(session, o)
	if err != nil || c.Media == nil || c.Media.Upload == "" || a.cfg.Vault == nil {
		return
	}
	err = a.shelf().Release(ctx, session, c.Media.Upload, o.ID, a.cfg.Now(), func(ctx context.Context, writes []state.Write) error {
		return a.cfg.Store.Update(ctx, state.OfSession(session), writes)
	})
	if err != nil {
		a.cfg.Log.Warn("the upload of a cancelled message is still there; it is removed later", "session", session, "upload", c.Media.Upload, "error", err)
	}
}

// purgeUploads removes the files of a session that was removed here.
func (a *API) purgeUploads(ctx context.Context, session string) {
	if a.cfg.Vault == nil {
		return
	}
	names, err := a.cfg.Vault.ListObjects(ctx, session)
	for _, name := range names {
		if err == nil && strings.HasPrefix(name, state.MediaPrefix) {
			err = a.cfg.Vault.DeleteObject(ctx, session, name, "")
		}
	}
	if err != nil {
		a.cfg.Log.Warn("files of a removed session are left in the vault", "session", session, "error", err)
	}
}
