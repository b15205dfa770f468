package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// eventData says of each type of event when it comes and what its data holds.
var eventData = []struct {
	kind state.EventType
	when string
	data string
}{
	{state.EventState, "the state or the cause of a session has changed", "`state`, `previous`, `cause`, `code`, `since`, `attempt`, `paired`; `nextAttemptAt` and `cooldownUntil` where there are such times"},
	{state.EventQR, "a QR code is shown; the text itself is not in it", "`expiresAt`, `path`: where the API has it, for operators"},
	{state.EventPaired, "a device was linked", "`jid`, `lid`, and `platform` and `businessName` where the phone has told them; compare `jid` with the account that you meant"},
	{state.EventHealth, "the health has changed", "`health`: healthy, unhealthy or dead; `why`"},
	{state.EventExhausted, "the attempts in a row are used up, and the session rests", "`state`, `cause`, `code`, `attempt`, `credentials`, `why`, `advice`; `nextAttemptAt` and `cooldownUntil` where there are such times"},
	{state.EventPhoneAbsent, "the phone was not seen for 12 days; WhatsApp unlinks devices after 14", "`phoneLastSeen`"},
	{state.EventQueueFilling, "90 % of the queue of undelivered events is used: a receiver does not keep up", "`events`, `oldestSeconds`"},
	{state.EventStallProved, "after a reconnect it turned out that messages had been waiting", "`messages`, `oldest`, `bound`"},
	{state.EventMessage, "a message came in, or was sent by another device of the account", "`id`, `chat`, `sender`, `senderAlt` (the other address: number for a LID, LID for a number), `fromMe`, `isGroup`, `pushName`, `timestamp`, " +
		"`type` (text, image, …, reaction, edit, revoke, other), `text`, `textCut`, `quotedId`, `reaction`, `editOf`, `revokes`, `media`, `viewOnce`, `message` (all of it as protobuf JSON), `messageDropped` (why that is absent)"},
	{state.EventMessageState, "something became of a message that was sent", "`messageId`, `status`: sent, delivered, read or failed; with sent and failed the outbox `id`, and where it failed `code` and `problem`; with delivered and read `chat`, `by`, `timestamp`"},
	{state.EventUndecrypted, "a message came that could not be decrypted; most are healed by a retry", "`id`, `chat`, `sender`, `senderAlt`, `isGroup`, `timestamp`, `reason`: decryption, unavailable or view_once"},
	{state.EventCommandDone, "a command of the API has ended", "`command`, `verb`, `state`, `code`, `problem`"},
	{state.EventOutage, "many sessions fail at once: one outage", "`outage`, `cause`"},
}

// TestEventsAreDescribed: each type, and of messages each field.
func TestEventsAreDescribed(t *testing.T) {
	said := map[state.EventType]string{}
	for _, e := range eventData {
		said[e.kind] = e.data
	}
	for _, kind := range eventTypes(t) {
		if said[kind] == "" {
			t.Errorf("%s is not in the reference of the API", kind)
		}
	}
	for kind, data := range map[state.EventType]any{state.EventMessage: whatsapp.MessageData{}, state.EventMessageState: whatsapp.StatusData{}, state.EventUndecrypted: whatsapp.UndecryptableData{}} {
		shape := reflect.TypeOf(data)
		for i := range shape.NumField() {
			name, _, _ := strings.Cut(shape.Field(i).Tag.Get("json"), ",")
			if !strings.Contains(said[kind], "`"+name+"`") {
				t.Errorf("%s: its field %s is not in the reference of the API", kind, name)
			}
		}
	}
}

func apiPage() string {
	var m markdown
	m.WriteString(made)
	m.text("# Admin API")
	m.text("`holdfast dev` serves it under `/api` beside the console, `holdfast admin` alone, and in AWS a Lambda function. A running holdfast shows the same at `/api/docs`, and as OpenAPI 3.1 at `/api/openapi.json`.")
	m.text("Give the key as `X-Api-Key`, or as `Authorization: Bearer`. A role may do what the ones before it may: viewer, operator, admin.")
	store := memory.New(time.Now)
	doc := adminapi.New(adminapi.Config{Store: store}).OpenAPI()
	type entry struct {
		method, path string
		op           *huma.Operation
	}
	groups := map[string][]entry{}
	for path, item := range doc.Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PATCH": item.Patch, "PUT": item.Put, "DELETE": item.Delete} {
			if op != nil {
				groups[op.Tags[0]] = append(groups[op.Tags[0]], entry{method, path, op})
			}
		}
	}
	rows := [][]string{{"route", "role", ""}}
	for _, tag := range slices.Sorted(maps.Keys(groups)) {
		slices.SortFunc(groups[tag], func(a, b entry) int { return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.method, b.method)) })
		for _, e := range groups[tag] {
			_, role := about(e.op)
			rows = append(rows, []string{fmt.Sprintf("[`%s %s`](#%s)", e.method, e.path, e.op.OperationID), role, sentence(e.op.Summary)})
		}
	}
	m.text("## Routes")
	m.table(rows)
	m.text("A worker's own listener has `GET /health`, `/health/live`, `/health/ready`, `/health/memory`, `/metrics`, and for a worker of a single session `GET /qr-image` and `POST /restart`; [operating](operating.md#health) says what they answer.")
	for _, tag := range slices.Sorted(maps.Keys(groups)) {
		for _, e := range groups[tag] {
			m.text("### %s", e.op.OperationID)
			words, role := about(e.op)
			m.text("`%s %s`, for %s. %s", e.method, e.path, role, strings.TrimSpace(sentence(e.op.Summary)+" "+words))
			operation(&m, e.op, doc.Components.Schemas)
		}
	}
	m.text("## Problems")
	m.text("Every answer that is not a success is `application/problem+json` (RFC 9457) with `title`, `status`, `detail`, `retryAfter` where waiting helps, `errors` with the fields at fault, and a stable `code`:")
	rows = [][]string{{"code", "status", ""}}
	for _, c := range adminapi.Codes() {
		rows = append(rows, []string{code(string(c.Code)), fmt.Sprint(c.Status), sentence(c.Title)})
	}
	m.table(rows)
	m.text("## Events")
	m.text("The same in the history, in live streams, on standard output and in webhooks: `id` (a ULID; an event that comes again has the same), `type`, `time`, `session`, `epoch`, `seq` (counts per session, without gaps), and `data`.")
	rows = [][]string{{"type", "when", "data"}}
	for _, e := range eventData {
		rows = append(rows, []string{code(string(e.kind)), sentence(e.when), e.data})
	}
	m.table(rows)
	m.text("## States")
	var states []string
	for _, s := range state.States() {
		states = append(states, code(string(s)))
	}
	m.text("%s. Each has a [cause](causes.md), which is empty where all is well. `unowned` is shown where no live worker has the session.", strings.Join(states, ", "))
	m.text("## Shapes")
	shapes := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		if fields := fieldRows(shapes[name]); len(fields) > 1 {
			m.text("### %s", name)
			m.table(fields)
		}
	}
	return strings.TrimRight(m.String(), "\n") + "\n"
}

// about is an operation's description, and its role, which is the last word of it.
func about(op *huma.Operation) (words, role string) {
	words, role, _ = strings.Cut(op.Description, "Role: ")
	return strings.ReplaceAll(strings.TrimSpace(words), "\n", " "), strings.TrimSuffix(role, ".")
}

func operation(m *markdown, op *huma.Operation, schemas huma.Registry) {
	rows := [][]string{{"parameter", "in", "type", ""}}
	for _, p := range op.Parameters {
		rows = append(rows, []string{code(p.Name) + starred(p.Required), p.In, bounds(p.Schema), sentence(cmp.Or(p.Description, p.Schema.Description))})
	}
	if len(rows) > 1 {
		m.table(rows)
	}
	if op.RequestBody != nil {
		for _, media := range slices.Sorted(maps.Keys(op.RequestBody.Content)) {
			schema := op.RequestBody.Content[media].Schema
			if schema.Ref != "" {
				m.text("Body: `%s`, [%s](#%s).", media, shape(schema.Ref), strings.ToLower(shape(schema.Ref)))
				continue
			}
			m.text("Body: `%s`.", media)
		}
	}
	var answers []string
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[status]
		if status[0] != '2' && status[0] != '3' {
			continue
		}
		answer := code(status)
		for _, media := range slices.Sorted(maps.Keys(r.Content)) {
			if s := r.Content[media].Schema; s != nil && s.Ref != "" {
				answer += fmt.Sprintf(" [%s](#%s)", shape(s.Ref), strings.ToLower(shape(s.Ref)))
			} else if s != nil && s.Items != nil {
				answer += " " + bounds(s)
			} else {
				answer += " " + code(media)
			}
		}
		answers = append(answers, answer)
	}
	if len(answers) > 0 {
		m.text("Answers: %s.", strings.Join(answers, ", "))
	}
}

func starred(required bool) string {
	if required {
		return " *"
	}
	return ""
}

func shape(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

func fieldRows(s *huma.Schema) [][]string {
	rows := [][]string{{"field", "type", ""}}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		f := s.Properties[name]
		rows = append(rows, []string{code(name) + starred(slices.Contains(s.Required, name)), bounds(f), sentence(f.Description)})
	}
	return rows
}

// bounds is a type with its bounds.
func bounds(s *huma.Schema) string {
	switch {
	case s == nil:
		return ""
	case s.Ref != "":
		return fmt.Sprintf("[%s](#%s)", shape(s.Ref), strings.ToLower(shape(s.Ref)))
	case s.Items != nil:
		return "list of " + bounds(s.Items)
	}
	text := s.Type
	if s.Format != "" {
		text += ", " + s.Format
	}
	if len(s.Enum) > 0 {
		var words []string
		for _, e := range s.Enum {
			words = append(words, code(fmt.Sprint(e)))
		}
		text = strings.Join(words, ", ")
	}
	if s.MaxLength != nil {
		text += fmt.Sprintf(", at most %d", *s.MaxLength)
	}
	if s.Minimum != nil {
		text += fmt.Sprintf(", from %g", *s.Minimum)
	}
	if s.Maximum != nil {
		text += fmt.Sprintf(", to %g", *s.Maximum)
	}
	if s.Default != nil {
		text += fmt.Sprintf(", default `%v`", s.Default)
	}
	return text
}

// eventTypes reads the types of events out of the source that names them.
func eventTypes(t *testing.T) []state.EventType {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../state/event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var found []state.EventType
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			return true
		}
		if name, ok := v.Type.(*ast.Ident); !ok || name.Name != "EventType" {
			return true
		}
		if text, ok := v.Values[0].(*ast.BasicLit); ok {
			found = append(found, state.EventType(strings.Trim(text.Value, `"`)))
		}
		return true
	})
	if len(found) < 13 {
		t.Fatalf("only %v were found in state/event.go", found)
	}
	return found
}
