package contract

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const (
	ours = "github.com/holdfast-wa/holdfast/"
	sdk  = "github.com/aws/aws-sdk-go-v2/service/"
)

// adapters are the packages that may call AWS, and which service. That no other
// one does is tested.
var adapters = map[string]string{
	ours + "state/dynamo":   "dynamodb",
	ours + "state/vault":    "s3",
	ours + "state/seal/kms": "kms",
}

// operations of a service are the methods of its client.
var operations = map[string]map[string]bool{
	"dynamodb": methods(&dynamodb.Client{}),
	"s3":       methods(&s3.Client{}),
	"kms":      methods(&kms.Client{}),
}

func methods(client any) map[string]bool {
	names := map[string]bool{}
	t := reflect.TypeOf(client)
	for i := range t.NumMethod() {
		if name := t.Method(i).Name; name != "Options" {
			names[name] = true
		}
	}
	return names
}

// A program is what its packages call. Packages are by their import paths.
type program map[string][]*ast.File

// load parses a command and all packages of ours that it is made of.
func load(command string) (program, error) {
	cmd := exec.Command("go", "list", "-deps", "-f", `{{if .Module}}{{if .Module.Main}}{{$p := .}}{{range .GoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}{{end}}{{end}}`, command)
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", command, err)
	}
	p := program{}
	for line := range strings.Lines(string(out)) {
		pkg, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		p[pkg] = append(p[pkg], parsed)
	}
	return p, nil
}

// imports are the names that a file has imports under, by path.
func imports(f *ast.File) map[string]string {
	names := map[string]string{}
	for _, i := range f.Imports {
		at, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue // the parser would have said so
		}
		names[at] = path.Base(at)
		if i.Name != nil {
			names[at] = i.Name.Name
		}
	}
	return names
}

// A need is an operation of a service, as dynamodb:Query, or what a part of one
// is, as dynamodb:PutItem of a transaction.
type need struct {
	action string
	on     string // table, index, bucket, object, key, or key via s3
}

func (n need) String() string { return n.action + " on " + n.on }

// needs are what a program asks of AWS, each with the functions of the adapters
// that ask.
//
// An adapter's function counts if something can call it: a package that imports
// the adapter and has its name, an interface with a method of its name, or a
// function of the adapter that counts. Names are compared, not types, so that too
// much may count, and never too little.
func (p program) needs() map[need][]string {
	found := map[need][]string{}
	for adapter, service := range adapters {
		for name, asks := range p.reached(adapter) {
			for n := range p.asked(adapter, service, asks) {
				if !slices.Contains(found[n], name) {
					found[n] = append(found[n], name)
				}
			}
		}
	}
	for _, by := range found {
		slices.Sort(by)
	}
	return found
}

// A called name is of a function, or of a method whatever its receiver.
type called struct {
	method bool
	name   string
}

// reached are the functions of an adapter that the program can come to.
func (p program) reached(adapter string) map[string][]*ast.FuncDecl {
	type source struct {
		fn   *ast.FuncDecl
		file *ast.File
	}
	declared := map[called][]source{}
	for _, f := range p[adapter] {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				c := called{fn.Recv != nil, fn.Name.Name}
				declared[c] = append(declared[c], source{fn, f})
			}
		}
	}
	var next []called
	for pkg, files := range p {
		for _, f := range files {
			if _, imported := imports(f)[adapter]; imported && pkg != adapter {
				next = append(next, used(f, f, adapter)...)
			}
			next = append(next, promised(f)...)
		}
	}
	seen, reached := map[called]bool{}, map[string][]*ast.FuncDecl{}
	for len(next) > 0 {
		c := next[0]
		next = next[1:]
		if seen[c] {
			continue
		}
		seen[c] = true
		for _, d := range declared[c] {
			reached[c.name] = append(reached[c.name], d.fn)
			next = append(next, used(d.fn, d.file, adapter)...)
		}
	}
	return reached
}

// used are the names in a piece of a file that may be of functions of the
// adapter. What another package is asked for is none.
func used(n ast.Node, f *ast.File, adapter string) (names []called) {
	others := map[string]bool{}
	for at, name := range imports(f) {
		others[name] = at != adapter
	}
	var visit func(ast.Node) bool
	visit = func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			other, imported := others[name(n.X)]
			switch {
			case imported && !other:
				names = append(names, called{false, n.Sel.Name})
			case !imported:
				names = append(names, called{true, n.Sel.Name})
			}
			ast.Inspect(n.X, visit)
			return false
		case *ast.Ident:
			names = append(names, called{false, n.Name})
		}
		return true
	}
	ast.Inspect(n, visit)
	return names
}

// promised are the methods of the interfaces in a file.
func promised(f *ast.File) (names []called) {
	ast.Inspect(f, func(n ast.Node) bool {
		if i, ok := n.(*ast.InterfaceType); ok {
			for _, m := range i.Methods.List {
				for _, id := range m.Names {
					names = append(names, called{true, id.Name})
				}
			}
		}
		return true
	})
	return names
}

// asked is what functions of an adapter ask of the service.
func (p program) asked(adapter, service string, functions []*ast.FuncDecl) map[need]bool {
	found := map[need]bool{}
	for _, f := range p[adapter] {
		sdkName, sdkTypes := imports(f)[sdk+service], imports(f)[sdk+service+"/types"]
		for _, fn := range functions {
			if !declares(f, fn) {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					s, ok := n.Fun.(*ast.SelectorExpr)
					if !ok {
						break
					}
					op := s.Sel.Name
					if x := name(s.X); x == sdkName && x != "" { // a paginator or a waiter
						op = strings.TrimPrefix(strings.TrimSuffix(op, "Paginator"), "New")
						if op == "TableExistsWaiter" {
							op = "DescribeTable"
						}
					}
					if operations[service][op] {
						for _, x := range actions(service, op) {
							found[x] = true
						}
					}
				case *ast.AssignStmt:
					for _, to := range n.Lhs {
						if s, ok := to.(*ast.SelectorExpr); ok && s.Sel.Name == "IndexName" && service == "dynamodb" {
							found[need{"dynamodb:Query", "index"}] = true
						}
					}
				case *ast.CompositeLit:
					s, ok := n.Type.(*ast.SelectorExpr)
					if ok && name(s.X) == sdkName && s.Sel.Name == "QueryInput" && has(n, "IndexName") {
						found[need{"dynamodb:Query", "index"}] = true
					}
					if ok && sdkTypes != "" && name(s.X) == sdkTypes && service == "dynamodb" {
						switch s.Sel.Name { // what a transaction is made of
						case "Put", "Update", "Delete":
							found[need{"dynamodb:" + s.Sel.Name + "Item", "table"}] = true
						case "ConditionCheck":
							found[need{"dynamodb:ConditionCheckItem", "table"}] = true
						}
					}
				}
				return true
			})
		}
	}
	return found
}

func declares(f *ast.File, fn *ast.FuncDecl) bool {
	return slices.ContainsFunc(f.Decls, func(d ast.Decl) bool { return d == ast.Decl(fn) })
}

// has tells whether a literal sets a field.
func has(lit *ast.CompositeLit, field string) bool {
	return slices.ContainsFunc(lit.Elts, func(e ast.Expr) bool {
		kv, ok := e.(*ast.KeyValueExpr)
		return ok && name(kv.Key) == field
	})
}

func name(e ast.Expr) string {
	if id, ok := e.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

// actions are what IAM asks of a role that calls an operation. Most have the name
// of the operation; S3 has names of its own.
func actions(service, op string) []need {
	switch service {
	case "dynamodb":
		if op == "TransactWriteItems" {
			return nil // its parts are asked for
		}
		return []need{{"dynamodb:" + op, "table"}}
	case "kms":
		return []need{{"kms:" + op, "key"}}
	}
	switch op {
	case "HeadBucket", "ListObjectsV2":
		return []need{{"s3:ListBucket", "bucket"}}
	case "ListObjectVersions":
		return []need{{"s3:ListBucketVersions", "bucket"}}
	case "GetBucketEncryption":
		return []need{{"s3:GetEncryptionConfiguration", "bucket"}}
	case "GetPublicAccessBlock":
		return []need{{"s3:GetBucketPublicAccessBlock", "bucket"}}
	case "GetObject", "HeadObject":
		// Of versions as well; and what is in the bucket is encrypted with the key.
		return []need{{"s3:GetObject", "object"}, {"s3:GetObjectVersion", "object"}, {"kms:Decrypt", "key via s3"}}
	case "DeleteObject":
		return []need{{"s3:DeleteObject", "object"}, {"s3:DeleteObjectVersion", "object"}}
	case "PutObject":
		return []need{{"s3:PutObject", "object"}, {"kms:GenerateDataKey", "key via s3"}}
	}
	return []need{{"s3:" + op, "bucket"}}
}

// callers are the packages of a program, beside the adapters, that import a
// service of the SDK.
func (p program) callers() []string {
	found := map[string]bool{}
	for pkg, files := range p {
		for _, f := range files {
			for at := range imports(f) {
				if service, is := strings.CutPrefix(at, sdk); is && adapters[pkg] != strings.TrimSuffix(service, "/types") {
					found[pkg+" calls "+service] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// purposes are the values of holdfast:purpose in encryption contexts.
func (p program) purposes() []string {
	found := map[string]bool{}
	for _, files := range p {
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				if kv, ok := n.(*ast.KeyValueExpr); ok && literal(kv.Key) == "holdfast:purpose" {
					found[literal(kv.Value)] = true
				}
				return true
			})
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// literal is the text of a string in the source, empty where it is none.
func literal(e ast.Expr) string {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return ""
	}
	s, _ := strconv.Unquote(l.Value)
	return s
}

// texts are all strings in a package.
func (p program) texts(pkg string) map[string]bool {
	found := map[string]bool{}
	for _, f := range p[pkg] {
		ast.Inspect(f, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok && literal(e) != "" {
				found[literal(e)] = true
			}
			return true
		})
	}
	return found
}
