package adminapi

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"pgregory.net/rapid"
)

// theDocument is read once: it is the same on every stage.
func theDocument(t testing.TB) *document {
	documentOnce.Do(func() { documentRead = newStage(t).document() })
	return documentRead
}

var (
	documentOnce sync.Once
	documentRead *document
)

// byDocument sends some requests that the document allows, or breaks in one
// field, to a stage that is furnished a little.
func byDocument(s func() *stage) func(*rapid.T) {
	return func(t *rapid.T) {
		s := s()
		g := &generator{T: t, known: s.furnished(), doc: theDocument(s.t)}
		ops := g.doc.operations()
		for range rapid.IntRange(8, 24).Draw(t, "requests") {
			op := pick(g, "operation", ops)
			needed := op.role(s.t)
			role := pick(g, "role", []Role{Admin, Admin, Admin, Operator, Viewer})
			broken := rapid.Bool().Draw(t, "broken")
			g.tidy = rapid.Bool().Draw(t, "tidy")
			r := g.request(op, func(ways int) int {
				if !broken {
					return -1
				}
				return rapid.IntRange(0, ways-1).Draw(t, "fault")
			})
			logged := len(s.log.String())
			got := s.send(role, r)
			p := s.check(t, op, needed, role, r, got)
			news := s.log.String()[logged:]
			if strings.Contains(news, "request failed") {
				t.Fatalf("%s: logged %s", r, news)
			}
			if broken && role >= needed {
				checkFault(t, r, got, p)
			}
			if strings.Contains(news, mark) {
				t.Fatalf("%s: the value is in the log: %s", r, news)
			}
			if p == nil {
				checkAnswer(t, s, op, r, got)
			}
		}
	}
}

// checkFault: what the document does not allow is refused, with the field named
// and its bounds told.
func checkFault(t fataler, r request, got reply, p *Problem) {
	if p == nil {
		t.Fatalf("%s: %s is not what the document allows, and is accepted: HTTP %d %s", r, r.broken, got.StatusCode, got.body)
	}
	i := slices.IndexFunc(p.Errors, func(f Fault) bool { return f.Field == r.broken })
	if p.Code != CodeInvalid || i < 0 {
		t.Fatalf("%s: %s is at fault; answered %s", r, r.broken, got.body)
	}
	if r.bound != "" && !slices.ContainsFunc(p.Errors, func(f Fault) bool { return f.Field == r.broken && strings.Contains(f.Message, r.bound) }) {
		t.Fatalf("%s: the problem of %s does not say %q: %s", r, r.broken, r.bound, got.body)
	}
	if r.hidden && strings.Contains(string(got.body), mark) {
		t.Fatalf("%s: the value at fault comes back: %s", r, got.body)
	}
}

// checkAnswer: the answer is what the document says.
func checkAnswer(t fataler, s *stage, op *operation, r request, got reply) {
	if !strings.HasPrefix(got.Header.Get("Content-Type"), "application/json") {
		return
	}
	api := s.api.OpenAPI()
	item := api.Paths[op.path]
	var said *huma.Schema
	for method, o := range map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PUT": item.Put, "PATCH": item.Patch, "DELETE": item.Delete} {
		if method == op.method {
			if m := o.Responses[strconv.Itoa(got.StatusCode)].Content["application/json"]; m != nil {
				said = m.Schema
			}
		}
	}
	if said == nil || said.Ref == "" && said.Type == "" {
		return
	}
	var v any
	if err := json.Unmarshal(got.body, &v); err != nil {
		t.Fatalf("%s: HTTP %d %s: %v", r, got.StatusCode, got.body, err)
	}
	res := &huma.ValidateResult{}
	huma.Validate(api.Components.Schemas, said, huma.NewPathBuffer([]byte("body"), 4), huma.ModeReadFromServer, v, res)
	if len(res.Errors) > 0 {
		t.Fatalf("%s: the answer is not as the document says: %v: %s", r, res.Errors, got.body)
	}
}

// TestRequestsMadeFromTheDocument sends what the API's own document allows and
// what it does not: nothing is answered with a failure of the server's, or
// otherwise than the document says.
func TestRequestsMadeFromTheDocument(t *testing.T) {
	rapid.Check(t, byDocument(func() *stage { return newStage(t) }))
}

// FuzzDocument is the same for as long as one likes, led by what the fuzzer finds.
func FuzzDocument(f *testing.F) {
	for seed := range uint64(8) {
		input := make([]byte, 8<<10)
		_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(input) // it never fails
		f.Add(input)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		rapid.MakeFuzz(byDocument(func() *stage { return newStage(t) }))(t, input)
	})
}

// TestEveryFieldOfTheDocumentIsJudged breaks each field of each route in each way
// once, so that no run depends on luck.
func TestEveryFieldOfTheDocumentIsJudged(t *testing.T) {
	s := newStage(t)
	known, doc := s.furnished(), theDocument(t)
	n := 0
	for _, op := range doc.operations() {
		t.Run(op.OperationID, func(t *testing.T) {
			needed := op.role(t)
			for i, ways := 0, 1; i < ways; i++ {
				r := rapid.Custom(func(rt *rapid.T) request {
					rapid.Byte().Draw(rt, "something") // some routes have no field to draw
					g := &generator{T: rt, known: known, doc: doc, whole: true}
					return g.request(op, func(n int) int {
						ways = n
						return min(i, n-1)
					})
				}).Example(1) // the same values each time
				n++
				got := s.send(Admin, r)
				checkFault(t, r, got, s.check(t, op, needed, Admin, r, got))
			}
		})
	}
	t.Logf("%d faults", n)
	if n < 300 {
		t.Errorf("only %d faults were made of the document", n)
	}
}
