package contract

import (
	"go/ast"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

const (
	workerCommand   = "./cmd/holdfast"
	functionCommand = "./cmd/lambda"
)

// TestContract compares all that the examples make with the code.
func TestContract(t *testing.T) {
	all := examples(t)
	c := readCode(t)
	for _, m := range all {
		t.Run(m.from, func(t *testing.T) {
			for _, f := range compare(m, c) {
				t.Error(f)
			}
		})
	}
}

// readCode reads what the program is. It needs neither Terraform nor AWS.
func readCode(t *testing.T) code {
	t.Helper()
	worker, function := loaded(t, workerCommand), loaded(t, functionCommand)
	main := worker[ours+"cmd/holdfast"]
	c := code{
		tables: dynamo.Tables, settings: map[string]bool{}, function: map[string]bool{}, commands: map[string]bool{},
		worker: worker.needs(), control: function.needs(), purposes: worker.purposes(),
		events: function.texts(ours + "infra/gateway"),
	}
	for _, d := range policy.Names() {
		c.settings[d.Env], c.function[d.Env] = true, true
	}
	// The rows of the table of settings, and of that of the function.
	for _, f := range main {
		inFunction(f, "settings", func(row ast.Node) {
			kv, ok := row.(*ast.KeyValueExpr)
			if !ok || name(kv.Key) != "name" {
				return
			}
			c.settings["HOLDFAST_"+strings.ToUpper(strings.ReplaceAll(literal(kv.Value), "-", "_"))] = true
		})
		ast.Inspect(f, func(n ast.Node) bool {
			kv, ok := n.(*ast.KeyValueExpr)
			if ok && name(kv.Key) == "Use" {
				use, _, _ := strings.Cut(literal(kv.Value), " ")
				c.commands[use] = true
			}
			if v, ok := n.(*ast.ValueSpec); ok && name(v.Type) == "Mode" {
				c.commands[literal(v.Values[0])] = true
			}
			return true
		})
	}
	for _, f := range function[ours+"cmd/lambda"] {
		inFunction(f, "parsers", func(row ast.Node) {
			if kv, ok := row.(*ast.KeyValueExpr); ok && literal(kv.Key) != "" {
				c.function["HOLDFAST_"+literal(kv.Key)] = true
			}
		})
	}
	for _, f := range main {
		inFunction(f, "settings", func(row ast.Node) {
			lit, ok := row.(*ast.CompositeLit)
			if ok && field(lit, "name") == "listen" {
				c.listen = field(lit, "fallback")
			}
		})
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
				for _, s := range g.Specs {
					if v, ok := s.(*ast.ValueSpec); ok && v.Names[0].Name == "healthTimeout" {
						c.health = seconds(v.Values[0])
					}
				}
			}
		}
	}
	// Where the code was not found, nothing could be compared with it.
	if c.listen == "" || c.health == 0 || !c.settings["HOLDFAST_DRAIN"] || !c.function["HOLDFAST_GATEWAY_AUTH"] || !c.commands["healthcheck"] ||
		len(c.worker) < 20 || len(c.control) < 15 || len(c.purposes) == 0 {
		t.Fatalf("the code is not read as it is written: %+v", c)
	}
	return c
}

func loaded(t *testing.T, command string) program {
	t.Helper()
	p, err := load(command)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// inFunction visits what is in the function of a name.
func inFunction(f *ast.File, function string, visit func(ast.Node)) {
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == function && fn.Recv == nil {
			ast.Inspect(fn, func(n ast.Node) bool {
				visit(n)
				return true
			})
		}
	}
}

// field is the text of a field in a literal.
func field(lit *ast.CompositeLit, key string) string {
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok && name(kv.Key) == key {
			return literal(kv.Value)
		}
	}
	return ""
}

// seconds reads N * time.Second.
func seconds(e ast.Expr) time.Duration {
	b, ok := e.(*ast.BinaryExpr)
	if !ok {
		return 0
	}
	l, ok := b.X.(*ast.BasicLit)
	if s, is := b.Y.(*ast.SelectorExpr); !ok || !is || s.Sel.Name != "Second" {
		return 0
	}
	n, _ := strconv.Atoi(l.Value)
	return time.Duration(n) * time.Second
}

// What calls AWS elsewhere would be compared with nothing.
func TestOnlyAdaptersCallAWS(t *testing.T) {
	for _, command := range []string{workerCommand, functionCommand} {
		for _, c := range loaded(t, command).callers() {
			t.Errorf("%s: %s: calls of AWS belong into an adapter that this package knows", command, c)
		}
	}
}
