package adminapi

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestTheDocumentIsValid OpenAPI 3.1, by a reader that shares no code with its
// writer: its structure, its schemas and examples, and what
// holds of every operation.
func TestTheDocumentIsValid(t *testing.T) {
	s := newStage(t)
	raw := s.ask(0, "GET", "/api/openapi.json", "")
	doc, err := openapi3.NewLoader().LoadFromData(raw.body)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background(), openapi3.IsOpenAPI31OrLater(), openapi3.EnableExamplesValidation(), openapi3.EnableSchemaFormatValidation(), openapi3.EnableMultiError()); err != nil {
		t.Error(err)
	}
	if !doc.IsOpenAPI31OrLater() {
		t.Errorf("it says that it is OpenAPI %s", doc.OpenAPI)
	}
	// Common linters want both.
	if len(doc.Servers) != 1 || doc.Servers[0].URL != "/" || doc.Info.License == nil || doc.Info.License.Name == "" {
		t.Errorf("servers %v, licence %v", doc.Servers, doc.Info.License)
	}
	if qr := doc.Paths.Value("/api/sessions/{name}/qr").Get.Responses; qr.Value("304") == nil {
		t.Error("a QR says not that it may answer 304")
	}
	ids := map[string]bool{}
	variable := regexp.MustCompile(`\{(\w+)\}`)
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			where := method + " " + path
			if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" || len(op.Tags) != 1 || op.Security == nil || len(*op.Security) == 0 {
				t.Errorf("%s: id %q, summary %q, tags %v, security %v", where, op.OperationID, op.Summary, op.Tags, op.Security)
			}
			ids[op.OperationID] = true
			var named []string
			for _, p := range op.Parameters {
				if p.Value.In == "path" {
					named = append(named, p.Value.Name)
				}
				if p.Value.Description == "" && p.Value.Schema.Value.Description == "" && p.Value.Schema.Value.Enum == nil && p.Value.Name != "limit" {
					t.Errorf("%s: nothing is said of %s", where, p.Value.Name)
				}
			}
			for _, m := range variable.FindAllStringSubmatch(path, -1) {
				if !slices.Contains(named, m[1]) {
					t.Errorf("%s: {%s} is no parameter", where, m[1])
				}
			}
			success := false
			for status, r := range op.Responses.Map() {
				success = success || strings.HasPrefix(status, "2")
				if status >= "400" && r.Value.Content["application/problem+json"] == nil {
					t.Errorf("%s: %s is no problem", where, status)
				}
			}
			for _, status := range []string{"401", "403", "422", "429", "503"} {
				if op.Responses.Value(status) == nil {
					t.Errorf("%s: does not say %s", where, status)
				}
			}
			if !success {
				t.Errorf("%s: has no success", where)
			}
			// What a worker has yet to do is accepted; these are done when they are answered.
			done := op.OperationID == "upload-media" || op.OperationID == "stopped-worker"
			if (method == http.MethodPost || method == http.MethodPatch) && !done && (op.Responses.Value("202") == nil || op.Responses.Value("200") != nil || op.Responses.Value("201") != nil) {
				t.Errorf("%s: a write that is not answered with 202", where)
			}
			if body := op.RequestBody; (method == http.MethodGet || method == http.MethodDelete) && body != nil {
				t.Errorf("%s: takes a body", where)
			}
		}
	}
	upload := doc.Paths.Value("/api/sessions/{name}/media").Post.RequestBody.Value.Content
	if upload["application/octet-stream"] == nil || upload["multipart/form-data"] == nil {
		t.Errorf("an upload is %v", upload)
	}
}
