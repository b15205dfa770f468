package contract

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-wa/holdfast/state/dynamo"
)

// made is what one run of an example makes.
type made struct {
	from   string // example and run
	tables []dynamo.TableDefinition

	container container
	memory    string // of the task, MiB
	desired   service
	function  function
	// worker and control are what the roles of workers and of the function allow.
	worker, control []statement
	logs            map[string]int // days that a log group keeps, by its name
	sealed          []string       // log groups that are encrypted with the master key
	roles           []string       // names of the roles of workers and function
	key             []statement    // of the master key's policy
	pattern         string         // of the rule for stopped tasks
	payload         string         // format of requests
}

type container struct {
	Name        string
	Image       string
	Command     []string
	StopTimeout int
	Memory      int
	Environment []struct{ Name, Value string }
	Secrets     []struct{ Name, ValueFrom string }
	HealthCheck struct {
		Command []string
		Timeout int
	}
	PortMappings     []struct{ ContainerPort int }
	LogConfiguration struct{ Options map[string]string }
}

// names are those of all variables that the container has.
func (c container) names() []string {
	var names []string
	for _, e := range c.Environment {
		names = append(names, e.Name)
	}
	for _, s := range c.Secrets {
		names = append(names, s.Name)
	}
	return names
}

// value is that of a variable, empty where it is not set.
func (c container) value(name string) string {
	for _, e := range c.Environment {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

type service struct {
	Least     int    `json:"deployment_minimum_healthy_percent"`
	Most      int    `json:"deployment_maximum_percent"`
	Rebalance string `json:"availability_zone_rebalancing"`
}

type function struct {
	Handler     string
	Runtime     string
	Timeout     int
	Environment []struct{ Variables map[string]string }
	Logging     []struct {
		Group string `json:"log_group"`
	} `json:"logging_config"`
}

// statement is one of a policy. AWS takes a single text for a list of one.
type statement struct {
	Sid       string
	Effect    string
	Action    texts
	Resource  texts
	Condition map[string]map[string]texts
}

type texts []string

func (t *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// resource is one of a state as terraform show prints it.
type resource struct {
	Address string
	Mode    string
	Type    string
	Name    string
	Values  json.RawMessage
}

type module struct {
	Resources []resource
	Children  []module `json:"child_modules"`
}

func (m module) all() []resource {
	found := slices.Clone(m.Resources)
	for _, c := range m.Children {
		found = append(found, c.all()...)
	}
	return found
}

// read reads what a state has of interest here.
func read(from string, root module) (made, error) {
	m := made{from: from, logs: map[string]int{}}
	var failed error
	into := func(r resource, v any) {
		if err := json.Unmarshal(r.Values, v); err != nil && failed == nil {
			failed = fmt.Errorf("%s: %s: %w", from, r.Address, err)
		}
	}
	for _, r := range root.all() {
		if r.Mode != "managed" {
			continue
		}
		switch r.Type {
		case "aws_dynamodb_table":
			var t table
			into(r, &t)
			m.tables = append(m.tables, t.definition())
		case "aws_ecs_task_definition":
			var t struct {
				Memory     string
				Containers string `json:"container_definitions"`
			}
			into(r, &t)
			m.memory = t.Memory
			var all []container
			if err := json.Unmarshal([]byte(t.Containers), &all); err != nil {
				return m, fmt.Errorf("%s: %s: %w", from, r.Address, err)
			}
			if len(all) != 1 {
				return m, fmt.Errorf("%s: %s: has %d containers, not one", from, r.Address, len(all))
			}
			m.container = all[0]
		case "aws_ecs_service":
			into(r, &m.desired)
		case "aws_lambda_function":
			into(r, &m.function)
		case "aws_cloudwatch_log_group":
			var g struct {
				Name string
				Days int    `json:"retention_in_days"`
				Key  string `json:"kms_key_id"`
			}
			into(r, &g)
			m.logs[g.Name] = g.Days
			if g.Key != "" {
				m.sealed = append(m.sealed, g.Name)
			}
		case "aws_iam_role":
			if r.Name != "execution" {
				var i struct{ Name string }
				into(r, &i)
				m.roles = append(m.roles, i.Name)
			}
		case "aws_kms_key":
			if !strings.HasPrefix(r.Address, "module.state.") {
				continue
			}
			var k struct{ Policy string }
			into(r, &k)
			var doc struct{ Statement []statement }
			if err := json.Unmarshal([]byte(k.Policy), &doc); err != nil {
				return m, fmt.Errorf("%s: %s: %w", from, r.Address, err)
			}
			m.key = doc.Statement
		case "aws_cloudwatch_event_rule":
			if r.Name == "stopped" {
				var e struct {
					Pattern string `json:"event_pattern"`
				}
				into(r, &e)
				m.pattern = e.Pattern
			}
		case "aws_apigatewayv2_integration":
			var i struct {
				Format string `json:"payload_format_version"`
			}
			into(r, &i)
			m.payload = i.Format
		case "aws_iam_role_policy":
			if r.Name == "execution" {
				continue // what ECS does, not the program
			}
			var p struct{ Policy string }
			into(r, &p)
			var doc struct{ Statement []statement }
			if err := json.Unmarshal([]byte(p.Policy), &doc); err != nil {
				return m, fmt.Errorf("%s: %s: %w", from, r.Address, err)
			}
			switch {
			case strings.HasPrefix(r.Address, "module.worker."):
				m.worker = append(m.worker, doc.Statement...)
			case strings.HasPrefix(r.Address, "module.control."):
				m.control = append(m.control, doc.Statement...)
			default:
				return m, fmt.Errorf("%s: %s: a policy of neither workers nor function", from, r.Address)
			}
		}
	}
	slices.SortFunc(m.tables, func(a, b dynamo.TableDefinition) int { return strings.Compare(a.Name, b.Name) })
	return m, failed
}

// table is aws_dynamodb_table.
type table struct {
	Name      string
	Billing   string `json:"billing_mode"`
	Hash      string `json:"hash_key"`
	Range     string `json:"range_key"`
	Attribute []struct{ Name, Type string }
	Indexes   []struct {
		Name       string
		Hash       string `json:"hash_key"`
		Range      string `json:"range_key"`
		Projection string `json:"projection_type"`
	} `json:"global_secondary_index"`
	TTL []struct {
		Attribute string `json:"attribute_name"`
		Enabled   bool
	}
}

func (t table) definition() dynamo.TableDefinition {
	of := func(name string) dynamo.Attribute {
		a := dynamo.Attribute{Name: name}
		for _, d := range t.Attribute {
			if d.Name == name {
				a.Type = d.Type
			}
		}
		return a
	}
	d := dynamo.TableDefinition{Name: t.Name, PartitionKey: of(t.Hash), SortKey: of(t.Range), BillingMode: t.Billing}
	for _, x := range t.Indexes {
		d.Indexes = append(d.Indexes, dynamo.IndexDefinition{Name: x.Name, PartitionKey: of(x.Hash), SortKey: of(x.Range), Projection: x.Projection})
	}
	slices.SortFunc(d.Indexes, func(a, b dynamo.IndexDefinition) int { return strings.Compare(a.Name, b.Name) })
	for _, x := range t.TTL {
		if x.Enabled {
			d.TTLAttribute = x.Attribute
		}
	}
	return d
}

const (
	requireAll  = "HOLDFAST_REQUIRE_ALL"
	providerDir = "HOLDFAST_TERRAFORM_PROVIDER_DIR"
)

// examples are all runs of all examples that made something. They are made once,
// for all tests.
func examples(t *testing.T) []made {
	t.Helper()
	required := os.Getenv(requireAll) == "1"
	excuse := ""
	if _, err := exec.LookPath("terraform"); err != nil {
		excuse = "terraform is not installed"
	} else if os.Getenv(providerDir) == "" && !required {
		excuse = "the provider would have to be fetched; " + providerDir + " names a stand-in, " + requireAll + "=1 has it fetched"
	}
	switch {
	case excuse != "" && required:
		t.Fatal(excuse)
	case excuse != "":
		t.Skip(excuse)
	}
	all, err := makeOnce()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var makeOnce = sync.OnceValues(func() ([]made, error) { return checked("states", readFile) })

// checked has check.sh write a file for each example, and reads them.
func checked[T any](command string, read func(file string) ([]T, error)) ([]T, error) {
	dir, err := os.MkdirTemp("", "holdfast-contract-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("bash", filepath.Join("..", "check.sh"), command, dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("check.sh %s: %w\n%s", command, err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []T
	for _, f := range files {
		found, err := read(f)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// readFile reads what terraform test -json -verbose has printed.
func readFile(file string) ([]made, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	example := strings.TrimSuffix(filepath.Base(file), ".json")
	var all []made
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 64<<20) // the schemas are in it
	for lines.Scan() {
		var l struct {
			Run   string `json:"@testrun"`
			State *struct {
				Root module `json:"root_module"`
			} `json:"test_state"`
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("%s: %w", example, err)
		}
		if l.State == nil {
			continue
		}
		m, err := read(example+"/"+l.Run, l.State.Root)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: its tests make nothing: one run must apply", example)
	}
	return all, lines.Err()
}
