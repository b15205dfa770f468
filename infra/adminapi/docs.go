package adminapi

import (
	"bytes"
	"cmp"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// The docs page is drawn here from the OpenAPI document: no script, and nothing
// that a browser would have to fetch from elsewhere.
var docsTemplate = template.Must(template.New("docs").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
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
</head>
<body>
<h1>{{.Title}} <small>{{.Version}}</small></h1>
<p>{{.About}}</p>
<p>Send your key as <code>X-Api-Key</code>, or as <code>Authorization: Bearer</code>. The document for programs: <a href="/api/openapi.json">/api/openapi.json</a>.</p>
{{range .Groups}}<h2>{{.Name}}</h2>
{{range .Routes}}<details id="{{.ID}}"><summary><span class="method">{{.Method}}</span> <span class="path">{{.Path}}</span> <span class="what">{{.Summary}}</span></summary><div>
<p>{{.About}}</p>
{{if .Params}}<h4>Parameters</h4><table><tr><th>name</th><th>in</th><th>type</th><th></th></tr>
{{range .Params}}<tr><td><code>{{.Name}}</code>{{if .Required}} *{{end}}</td><td>{{.In}}</td><td>{{.Type}}</td><td>{{.About}}</td></tr>
{{end}}</table>{{end}}
{{if .Body}}<h4>Body</h4><table><tr><th>field</th><th></th><th>type</th><th></th></tr>
{{range .Body}}<tr><td><code>{{.Name}}</code>{{if .Required}} *{{end}}</td><td></td><td>{{.Type}}</td><td>{{.About}}</td></tr>
{{end}}</table>{{end}}
<h4>Answers</h4><table>{{range .Answers}}<tr><td>{{.Status}}</td><td>{{.About}}</td><td>{{range .Types}}<code>{{.}}</code> {{end}}</td><td>{{if .Schema}}<a href="#schema-{{.Schema}}">{{.Schema}}</a>{{end}}</td></tr>{{end}}</table>
</div></details>
{{end}}{{end}}
<h2>Shapes</h2>
{{range .Shapes}}<details id="schema-{{.Name}}"><summary><code>{{.Name}}</code></summary><div><table>
{{range .Fields}}<tr><td><code>{{.Name}}</code>{{if .Required}} *{{end}}</td><td>{{.Type}}</td><td>{{.About}}</td></tr>
{{end}}</table></div></details>
{{end}}
<h2>Codes of problems</h2>
<table>{{range .Codes}}<tr><td><code>{{.Code}}</code></td><td>{{.Status}}</td><td>{{.Title}}</td></tr>{{end}}</table>
</body>
</html>
`))

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

type docGroup struct {
	Name   string
	Routes []docRoute
}

type docShape struct {
	Name   string
	Fields []docField
}

type docCode struct {
	Code   Code
	Status int
	Title  string
}

// docsPage draws the document once.
func docsPage(doc *huma.OpenAPI) []byte {
	page := struct {
		Title, Version, About string
		Groups                []docGroup
		Shapes                []docShape
		Codes                 []docCode
	}{Title: doc.Info.Title, Version: doc.Info.Version, About: strings.ReplaceAll(doc.Info.Description, "`", "")}
	groups := map[string][]docRoute{}
	for path, item := range doc.Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PATCH": item.Patch, "DELETE": item.Delete} {
			if op != nil {
				groups[op.Tags[0]] = append(groups[op.Tags[0]], docOf(method, path, op, doc.Components.Schemas))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		routes := groups[name]
		slices.SortFunc(routes, func(x, y docRoute) int { return cmp.Or(cmp.Compare(x.Path, y.Path), cmp.Compare(x.Method, y.Method)) })
		page.Groups = append(page.Groups, docGroup{name, routes})
	}
	shapes := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		page.Shapes = append(page.Shapes, docShape{name, fieldsOf(shapes[name])})
	}
	for _, code := range slices.Sorted(maps.Keys(problems)) {
		page.Codes = append(page.Codes, docCode{code, problems[code].status, problems[code].title})
	}
	var b bytes.Buffer
	if err := docsTemplate.Execute(&b, page); err != nil {
		panic("docs page: " + err.Error()) // the template and its data are both ours
	}
	return b.Bytes()
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
