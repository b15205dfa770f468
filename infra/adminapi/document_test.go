package adminapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-wa/holdfast/state"
)

// The document of the API as a stranger reads it: nothing below looks at the
// code that it was made from.
type document struct {
	Paths      map[string]map[string]*operation
	Components struct{ Schemas map[string]*schema }
}

type operation struct {
	OperationID string
	Description string
	Parameters  []parameter
	RequestBody *struct {
		Required bool
		Content  map[string]struct{ Schema *schema }
	}
	Responses map[string]struct {
		Content map[string]struct{ Schema *schema }
	}
	method, path string
}

type parameter struct {
	Name, In string
	Required bool
	Schema   *schema
}

type schema struct {
	Ref                  string `json:"$ref"`
	Type                 types
	Format               string
	Enum                 []any
	Pattern              string
	Minimum, Maximum     *float64
	MinLength, MaxLength *int
	MinItems, MaxItems   *int
	Properties           map[string]*schema
	Required             []string
	AdditionalProperties json.RawMessage
	Items                *schema
	ContentEncoding      string
}

// types is a schema's type, or its types.
type types []string

func (ts *types) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*ts = types{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(ts))
}

func (s *stage) document() *document {
	s.t.Helper()
	doc := want[document](s.t, s.ask(0, "GET", "/api/openapi.json", ""), 200)
	for path, methods := range doc.Paths {
		for method, op := range methods {
			op.method, op.path = strings.ToUpper(method), path
		}
	}
	return &doc
}

// operations are those of the document in a fixed order.
func (d *document) operations() []*operation {
	var all []*operation
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(d.Paths[path])) {
			all = append(all, d.Paths[path][method])
		}
	}
	return all
}

func (d *document) resolve(s *schema) *schema {
	for s != nil && s.Ref != "" {
		s = d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	return s
}

func (s *schema) is(kind string) bool { return slices.Contains(s.Type, kind) }

// closed says that an object takes no properties but its own.
func (s *schema) closed() bool { return string(s.AdditionalProperties) == "false" }

var roleOf = regexp.MustCompile(`Role: (\w+)\.`)

// role is what the document says that a caller needs.
func (op *operation) role(t testing.TB) Role {
	m := roleOf.FindStringSubmatch(op.Description)
	if m == nil || roleNames[m[1]] == 0 {
		t.Fatalf("%s: the document does not say the role", op.OperationID)
	}
	return roleNames[m[1]]
}

// json is the schema of the operation's JSON body; nil: it takes none.
func (op *operation) json(d *document) *schema {
	if op.RequestBody == nil {
		return nil
	}
	return d.resolve(op.RequestBody.Content["application/json"].Schema)
}

// hints are values that mean something to the stage, by the name of the field.
// The generator mixes them with what the schema alone allows.
type hints map[string][]string

func (s *stage) furnished() hints {
	s.t.Helper()
	shop := s.session("shop")
	s.online(shop)
	for seq := range uint64(3) {
		s.event(shop, seq+1, state.EventMessage, `{"text":"hi"}`)
	}
	s.event(shop, 4, state.EventQR, `{"code":"2@hush"}`)
	fresh := s.session("fresh")
	s.showQR(fresh, "2@hush,a,b,c", time.Minute)
	cooling := s.session("cooling")
	s.status(cooling, state.Status{State: state.Failed, Cause: state.CauseLoggedOut, CooldownUntil: s.now().Add(time.Minute)}, state.Identity{})
	m := want[QueuedMessage](s.t, s.ask(Operator, "POST", "/api/sessions/shop/messages", `{"to":"4915123456789","text":"hi"}`), 202)
	c := want[Command](s.t, s.ask(Operator, "POST", "/api/sessions/fresh/stop", "", "Idempotency-Key", "k1"), 202)
	names := []string{"shop", "shop", "fresh", "cooling", "nobody", "new-one"}
	return hints{
		"name": names, "session": names, "id": {m.ID, m.Command, c.ID, "w-1", "none"}, "owner": {"w-1", "w-2"},
		"wait": {"", "0s", "1ms", "3ms"}, "for": {"1s", "15m", "24h"}, "cursor": {"", toCursor("shop"), toCursor(state.EventID(2)), toCursor(m.ID)},
		"state": {"", "online", "pairing", "queued"}, "cause": {"logged_out", "none"}, "type": {"message.received", "session.qr"},
		"to":    {"4915123456789", "+49 151 234567", "4915123456789@s.whatsapp.net", "120363000000000000@g.us", "nobody"},
		"phone": {"+49 151 23456789", "4915123456789", "123"}, "text": {"", "hello", "ü\u0000\u202e\U0001F600"},
		"profile": {"", "guide", "gentle"}, "proxy": {"", "socks5://127.0.0.1:1080", "http://u:hush@proxy.test:1"},
		"webhookUrl": {"", "https://example.test/hook?t=hush"}, "webhookSecret": {"", "hush-hush-hush-hush", "whsec_aHVzaGh1c2hodXNoaHVzaGh1c2g="},
		"sendAt":          {s.now().Add(time.Hour).Format(time.RFC3339), "0001-01-01T00:00:00Z", s.now().Format(time.RFC3339)},
		"Idempotency-Key": {"", "k1", "k2"}, "If-Match": {"", "*", `"1"`, `"2"`}, "Last-Event-ID": {"", "2"}, "If-None-Match": {"", `"x"`},
		"url": {"https://example.test/a.jpg"}, "mimetype": {"image/jpeg"},
	}
}

// generator makes requests from the document.
type generator struct {
	*rapid.T
	doc   *document
	known hints
	whole bool // all that may be left out is there
	tidy  bool // values that mean something, and little beside what must be there
}

func pick[T any](g *generator, what string, list []T) T {
	return list[rapid.IntRange(0, len(list)-1).Draw(g.T, what)]
}

// maybe says whether what may be left out is there.
func (g *generator) maybe(where string) bool {
	if g.tidy {
		return g.oneIn(4, where+"?")
	}
	return rapid.Bool().Draw(g.T, where+"?")
}

func (g *generator) oneIn(n int, what string) bool { return rapid.IntRange(1, n).Draw(g.T, what) == 1 }

// value makes one that the schema allows. Name is the last part of where.
func (g *generator) value(s *schema, where string) any {
	s = g.doc.resolve(s)
	if s == nil || len(s.Type) == 0 { // anything
		return pick(g, where, []any{"x", 1.5, true, nil, []any{map[string]any{"a": nil}}, map[string]any{"conversation": "hi"}})
	}
	kind := pick(g, where+" type", s.Type)
	if len(s.Enum) > 0 && kind != "null" && kind != "array" {
		return pick(g, where, s.Enum)
	}
	switch kind {
	case "boolean":
		return rapid.Bool().Draw(g.T, where)
	case "integer":
		low, high := s.span(0, 1<<53)
		return rapid.Int64Range(int64(low), int64(high)).Draw(g.T, where)
	case "number":
		low, high := s.span(-1e9, 1e9)
		return rapid.Float64Range(low, high).Draw(g.T, where)
	case "string":
		return g.text(s, where)
	case "array":
		list := []any{}
		for i := range rapid.IntRange(deref(s.MinItems, 0), min(deref(s.MaxItems, 3), 3)).Draw(g.T, where+" length") {
			list = append(list, g.value(s.Items, fmt.Sprintf("%s[%d]", where, i)))
		}
		return list
	case "object":
		obj := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			if slices.Contains(s.Required, name) || g.whole || g.maybe(where+"."+name) {
				obj[name] = g.value(s.Properties[name], where+"."+name)
			}
		}
		if values := s.values(); values != nil && !g.tidy {
			for range rapid.IntRange(0, 3).Draw(g.T, where+" size") {
				key := rapid.SampledFrom([]string{"a", "b", "keepalive-interval", "conversation", "ü", ""}).Draw(g.T, where+" key")
				obj[key] = g.value(values, where+"."+key)
			}
		}
		return obj
	}
	return nil
}

// values is the schema of an object's free properties; nil: it has none.
func (s *schema) values() *schema {
	var values schema
	if len(s.AdditionalProperties) == 0 || s.closed() || json.Unmarshal(s.AdditionalProperties, &values) != nil {
		return nil
	}
	return &values
}

func (s *schema) span(low, high float64) (float64, float64) {
	return deref(s.Minimum, low), deref(s.Maximum, high)
}

func deref[T any](p *T, none T) T {
	if p == nil {
		return none
	}
	return *p
}

func last(where string) string { return where[strings.LastIndexAny(where, ".")+1:] }

func (g *generator) text(s *schema, where string) string {
	name := last(where)
	low, high := deref(s.MinLength, 0), min(deref(s.MaxLength, 40), 40)
	if list := g.known[name]; len(list) > 0 && (name == "wait" || g.tidy || !g.oneIn(4, where+" free")) {
		if v := pick(g, where, list); len(v) >= low && (s.Pattern == "" || regexp.MustCompile(s.Pattern).MatchString(v)) {
			return v
		}
	}
	switch {
	case name == "wait":
		return "1ms"
	case s.Format == "date-time":
		return time.Unix(rapid.Int64Range(-62135596800, 253402300799).Draw(g.T, where), 0).UTC().Format(time.RFC3339)
	case s.ContentEncoding == "base64":
		return rapid.StringMatching(`([A-Za-z0-9+/]{4}){0,8}`).Draw(g.T, where)
	case s.Pattern != "":
		v := rapid.StringMatching(s.Pattern).Draw(g.T, where)
		return v[:min(len(v), high)]
	}
	return rapid.StringN(low, high, -1).Draw(g.T, where)
}

// request is one to send, and what is known of it.
type request struct {
	method, target, body string
	media                string // its Content-Type
	headers              []string
	broken               string // the field that the schema does not allow, such as body.name; empty: it allows all
	hidden               bool   // that field's value must not come back
	bound                string // what the problem has to say about it, as a part of its words
}

// request makes one of an operation. Choose is told how many ways there are to
// break it, and says which is taken; -1: none.
func (g *generator) request(op *operation, choose func(ways int) int) request {
	r := request{method: op.method, media: "application/json"}
	var fields []field
	query := url.Values{}
	values := map[string]string{}
	for _, p := range op.Parameters {
		where := p.In + "." + p.Name
		if p.In == "path" || p.Required || g.maybe(where) {
			values[where] = asText(g.value(p.Schema, where))
		}
		fields = append(fields, g.faultsOf(p.Schema, where, p.In == "query" || p.In == "header", func(v any) { values[where] = asText(v) })...)
	}
	var body any
	top := op.json(g.doc)
	if top != nil {
		body = g.value(top, "body")
		if op.RequestBody.Required || g.whole || !g.oneIn(4, "no body") {
			fields = append(fields, g.bodyFaults(top, body, "body", func(v any) { body = v })...)
		} else {
			body = nil
		}
	}
	fields = append(fields, field{where: "query.surplus", apply: func() { query.Set("surplus", "1") }})
	if i := choose(len(fields)); i >= 0 {
		f := fields[i]
		f.apply()
		r.broken, r.hidden, r.bound = f.where, f.hidden, f.bound
	}
	path := op.path
	for where, v := range values {
		in, name, _ := strings.Cut(where, ".")
		switch in {
		case "path":
			if v == "" || v == "." || v == ".." {
				v = "x" // else it is another route
			}
			path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(v))
		case "query":
			query.Set(name, v)
		case "header":
			r.headers = append(r.headers, name, headerSafe(v))
		}
	}
	r.target = path
	if len(query) > 0 {
		r.target += "?" + query.Encode()
	}
	if top != nil && body != nil || r.broken == "body" {
		b, err := json.Marshal(body)
		if err != nil {
			g.Fatalf("body %v: %v", body, err)
		}
		r.body = string(b)
	}
	return r
}

// headerSafe is what of a text can stand in a header line.
func headerSafe(v string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, v)
}

func asText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case []any:
		var parts []string
		for _, x := range v {
			parts = append(parts, asText(x))
		}
		return strings.Join(parts, ",")
	}
	return fmt.Sprint(v)
}

// field is a place of a request and one way to break it.
type field struct {
	where  string
	bound  string
	hidden bool
	apply  func()
}

// mark is in values that must not come back, in an answer or in the log.
const mark = "hush"

// faultsOf lists how a value can break its schema. Text parameters cannot have a
// wrong type: whatever stands there is text.
func (g *generator) faultsOf(s *schema, where string, inText bool, set func(any)) []field {
	s = g.doc.resolve(s)
	if s == nil || len(s.Type) == 0 {
		return nil
	}
	var all []field
	add := func(v any, bound string, hidden bool) {
		all = append(all, field{where, bound, hidden, func() { set(v) }})
	}
	inPath := strings.HasPrefix(where, "path.")
	isText := inText || inPath
	if s.MaxLength != nil {
		add(mark+strings.Repeat("x", *s.MaxLength-len(mark)+1), strconv.Itoa(*s.MaxLength), !inPath)
		if !strings.HasPrefix(where, "header.") {
			add(strings.Repeat("ü", *s.MaxLength+1), strconv.Itoa(*s.MaxLength), false)
		}
	}
	if deref(s.MinLength, 0) > 0 && !isText {
		add("", strconv.Itoa(*s.MinLength), false)
	}
	if s.Minimum != nil && (!isText || s.is("integer") || s.is("number")) {
		add(int64(*s.Minimum)-1, strconv.Itoa(int(*s.Minimum)), false)
	}
	if s.Maximum != nil {
		add(int64(*s.Maximum)+1, strconv.Itoa(int(*s.Maximum)), false)
	}
	if len(s.Enum) > 0 && !s.is("array") {
		add(mark, "one of", !inPath)
	}
	if s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(mark+"!") {
		add(mark+"!", "", !inPath)
	}
	if s.Format == "date-time" {
		add(mark, "", !inPath)
	}
	if s.is("integer") || s.is("number") || s.is("boolean") {
		add(mark, "", !inPath)
	}
	if !isText {
		for kind, v := range map[string]any{"string": mark, "number": 1.5, "boolean": true, "array": []any{mark}, "object": map[string]any{mark: 1}} {
			if !s.is(kind) && (kind != "number" || !s.is("integer")) {
				add(v, "", false)
			}
		}
	}
	slices.SortFunc(all, func(a, b field) int { return strings.Compare(a.bound, b.bound) })
	return all
}

// bodyFaults lists how a body can be broken, at every place in it.
func (g *generator) bodyFaults(s *schema, v any, where string, set func(any)) []field {
	s = g.doc.resolve(s)
	all := g.faultsOf(s, where, false, set)
	obj, isObject := v.(map[string]any)
	if s == nil || !isObject || !s.is("object") {
		return all
	}
	if s.closed() {
		all = append(all, field{where: where + ".surplus", apply: func() { obj["surplus"] = 1 }})
		for name := range s.Properties { // names are exact
			if upper := strings.ToUpper(name); upper != name {
				all = append(all, field{where: where + "." + upper, apply: func() { obj[upper] = nil; delete(obj, name) }})
				break
			}
		}
	}
	for _, name := range s.Required {
		all = append(all, field{where: where + "." + name, apply: func() { delete(obj, name) }})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		all = append(all, g.bodyFaults(s.Properties[name], obj[name], where+"."+name, func(v any) { obj[name] = v })...)
	}
	return all
}

// send sends a request as a role.
func (s *stage) send(role Role, r request) reply {
	headers := append([]string{}, r.headers...)
	if r.body != "" {
		headers = append(headers, "Content-Type", r.media)
	}
	return s.ask(role, r.method, r.target, r.body, headers...)
}

func (r request) String() string {
	return fmt.Sprintf("%s %s %q %.300s", r.method, r.target, r.headers, r.body)
}

// leftovers of a program that came to light.
var leftovers = regexp.MustCompile(`goroutine \d|panic|\.go:\d|runtime error|0x[0-9a-f]{8}|/infra/|huma|github\.com`)

// check is what holds of every answer. It returns the problem, if it is one.
func (s *stage) check(t fataler, op *operation, needed, role Role, r request, got reply) *Problem {
	if got.StatusCode >= 500 {
		t.Fatalf("%s: HTTP %d %s\n%s", r, got.StatusCode, got.body, s.log)
	}
	if (role < needed) != (got.StatusCode == http.StatusForbidden) && !strings.Contains(string(got.body), "force") {
		t.Fatalf("%s as %s, where the document wants %s: HTTP %d %s", r, role, needed, got.StatusCode, got.body)
	}
	if got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Fatalf("%s: headers %v", r, got.Header)
	}
	answer, documented := op.Responses[strconv.Itoa(got.StatusCode)]
	if !documented {
		t.Fatalf("%s: HTTP %d is not in the document: %s", r, got.StatusCode, got.body)
	}
	media, _, _ := strings.Cut(got.Header.Get("Content-Type"), ";")
	if _, ok := answer.Content[media]; !ok && len(got.body) > 0 {
		t.Fatalf("%s: HTTP %d is of the type %q, which the document does not have: %.200s", r, got.StatusCode, media, got.body)
	}
	if got.StatusCode < 400 {
		return nil
	}
	var p Problem
	if err := json.Unmarshal(got.body, &p); err != nil || media != "application/problem+json" {
		t.Fatalf("%s: HTTP %d %s: %s is no problem: %v", r, got.StatusCode, media, got.body, err)
	}
	kind, known := problems[p.Code]
	if !known || p.Status != got.StatusCode || kind.status != got.StatusCode || p.Title == "" || p.Detail == "" {
		t.Fatalf("%s: HTTP %d, %s", r, got.StatusCode, got.body)
	}
	if m := leftovers.Find(got.body); m != nil && !strings.Contains(r.String(), string(m)) {
		t.Fatalf("%s: the answer shows %q of the program: %s", r, m, got.body)
	}
	if p.Code == CodeInvalid && len(p.Errors) == 0 {
		t.Fatalf("%s: no field is named: %s", r, got.body)
	}
	for _, f := range p.Errors {
		if f.Message == "" || !place.MatchString(f.Field) {
			t.Fatalf("%s: field %q: %q", r, f.Field, f.Message)
		}
	}
	return &p
}

var place = regexp.MustCompile(`^(body|query|path|header)(\.|\[|$)`)

type fataler interface{ Fatalf(string, ...any) }
