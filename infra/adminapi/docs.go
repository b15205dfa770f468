package adminapi

import (
	"cmp"
	"fmt"
	"html"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// The docs page is drawn here from the OpenAPI document: no script, and nothing
// that a browser would have to fetch from elsewhere.
const docsHead = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
code, .path { font-family: ui-monospace, monospace; font-size: .92em; }
details { border: 1px solid #8886; border-radius: 6px; margin: .5rem 0; }
summary { cursor: pointer; padding: .5rem .75rem; }
details > div { padding: 0 .75rem .75rem; }
.method { display: inline-block; min-width: 4.2rem; font-weight: 600; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .75rem .2rem 0; border-top: 1px solid #8883; }
.what { opacity: .8; }
</style>
`

// page is a document of HTML that is being written.
type page struct{ strings.Builder }

// put writes markup, and for each %s in it a text, escaped. html/template would
// do the same at the cost of a quarter of the program's size: it calls methods by
// their names, and so the linker keeps every method of every type.
func (p *page) put(markup string, texts ...string) {
	escaped := make([]any, len(texts))
	for i, t := range texts {
		escaped[i] = html.EscapeString(t)
	}
	fmt.Fprintf(p, markup, escaped...)
}

func (p *page) route(r docRoute) {
	p.put(`<details id="%s"><summary><span class="method">%s</span> <span class="path">%s</span> <span class="what">%s</span></summary><div>
<p>%s</p>
`, r.ID, r.Method, r.Path, r.Summary, r.About)
	p.fields("Parameters", "<th>name</th><th>in</th><th>type</th><th></th>", r.Params)
	p.fields("Body", "<th>field</th><th></th><th>type</th><th></th>", r.Body)
	p.put("<h4>Answers</h4><table>")
	for _, a := range r.Answers {
		p.put("<tr><td>%s</td><td>%s</td><td>", a.Status, a.About)
		for _, t := range a.Types {
			p.put("<code>%s</code> ", t)
		}
		p.put("</td><td>")
		if a.Schema != "" {
			p.put(`<a href="#schema-%s">%s</a>`, a.Schema, a.Schema)
		}
		p.put("</td></tr>")
	}
	p.put("</table>\n</div></details>\n")
}

// fields is a table of them, nothing for none.
func (p *page) fields(title, columns string, fields []docField) {
	if len(fields) == 0 {
		return
	}
	p.put("<h4>%s</h4><table><tr>"+columns+"</tr>\n", title)
	for _, f := range fields {
		p.put("<tr><td><code>%s</code>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>\n", f.Name, star(f), f.In, f.Type, f.About)
	}
	p.put("</table>\n")
}

func (p *page) shape(s docShape) {
	p.put(`<details id="schema-%s"><summary><code>%s</code></summary><div><table>`+"\n", s.Name, s.Name)
	for _, f := range s.Fields {
		p.put("<tr><td><code>%s</code>%s</td><td>%s</td><td>%s</td></tr>\n", f.Name, star(f), f.Type, f.About)
	}
	p.put("</table></div></details>\n")
}

// star marks what must be given.
func star(f docField) string {
	if f.Required {
		return " *"
	}
	return ""
}

type docField struct {
	Name, In, Type, About string
	Required              bool
}

type docAnswer struct {
	Status, About, Schema string
	Types                 []string
}

type docRoute struct {
	ID, Method, Path, Summary, About string
	Params, Body                     []docField
	Answers                          []docAnswer
}

type docShape struct {
	Name   string
	Fields []docField
}

// docsPage draws the document once.
func docsPage(doc *huma.OpenAPI) []byte {
	groups := map[string][]docRoute{}
	for path, item := range doc.Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PATCH": item.Patch, "DELETE": item.Delete} {
			if op != nil {
				groups[op.Tags[0]] = append(groups[op.Tags[0]], docOf(method, path, op, doc.Components.Schemas))
			}
		}
	}
	p := new(page)
	p.WriteString(docsHead)
	p.put(`<title>%s</title>
</head>
<body>
<h1>%s <small>%s</small></h1>
<p>%s</p>
<p>Send your key as <code>X-Api-Key</code>, or as <code>Authorization: Bearer</code>. The document for programs: <a href="/api/openapi.json">/api/openapi.json</a>.</p>
`, doc.Info.Title, doc.Info.Title, doc.Info.Version, strings.ReplaceAll(doc.Info.Description, "`", ""))
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		p.put("<h2>%s</h2>\n", name)
		routes := groups[name]
		slices.SortFunc(routes, func(x, y docRoute) int { return cmp.Or(cmp.Compare(x.Path, y.Path), cmp.Compare(x.Method, y.Method)) })
		for _, r := range routes {
			p.route(r)
		}
	}
	p.put("<h2>Shapes</h2>\n")
	shapes := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		p.shape(docShape{name, fieldsOf(shapes[name])})
	}
	p.put("<h2>Codes of problems</h2>\n<table>")
	for _, code := range slices.Sorted(maps.Keys(problems)) {
		p.put("<tr><td><code>%s</code></td><td>%s</td><td>%s</td></tr>", string(code), strconv.Itoa(problems[code].status), problems[code].title)
	}
	p.put("</table>\n</body>\n</html>\n")
	return []byte(p.String())
}

func docOf(method, path string, op *huma.Operation, schemas huma.Registry) docRoute {
	r := docRoute{ID: op.OperationID, Method: method, Path: path, Summary: op.Summary, About: op.Description}
	for _, p := range op.Parameters {
		r.Params = append(r.Params, docField{Name: p.Name, In: p.In, Type: typeOf(p.Schema), About: cmp.Or(p.Description, p.Schema.Description), Required: p.Required})
	}
	if op.RequestBody != nil {
		for _, media := range op.RequestBody.Content {
			schema := media.Schema
			if schema.Ref != "" {
				schema = schemas.SchemaFromRef(schema.Ref)
			}
			if fields := fieldsOf(schema); len(fields) > 0 { // a file as it is has none
				r.Body = fields
			}
		}
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		resp := op.Responses[status]
		a := docAnswer{Status: status, About: resp.Description, Types: slices.Sorted(maps.Keys(resp.Content))}
		for _, media := range resp.Content {
			if media.Schema != nil && media.Schema.Ref != "" {
				a.Schema = shapeName(media.Schema.Ref)
			}
		}
		r.Answers = append(r.Answers, a)
	}
	return r
}

func shapeName(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

func fieldsOf(s *huma.Schema) []docField {
	var fields []docField
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		f := s.Properties[name]
		fields = append(fields, docField{Name: name, Type: typeOf(f), About: f.Description, Required: slices.Contains(s.Required, name)})
	}
	return fields
}

func typeOf(s *huma.Schema) string {
	switch {
	case s == nil:
		return ""
	case s.Ref != "":
		return shapeName(s.Ref)
	case s.Items != nil:
		return "list of " + typeOf(s.Items)
	case s.Format != "":
		return s.Type + ", " + s.Format
	}
	return s.Type
}

func (a *API) serveDocs(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	_, _ = w.Write(a.docs) // the client may be gone
}
