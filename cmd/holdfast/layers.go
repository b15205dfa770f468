package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// value is what a setting was given, and where. An empty text is as good as
// none, except that it takes away what an earlier layer gave.
type value struct {
	text   string
	source string
}

// layers holds the values that were given, by name, after the file, the
// environment and the flags have been laid over each other.
type layers map[string]value

// get returns a setting's value, else its default.
func (l layers) get(s setting, dataDir string) value {
	if v, ok := l[s.name]; ok && v.text != "" {
		return v
	}
	dir := strings.TrimSuffix(dataDir, "/")
	return value{strings.ReplaceAll(s.fallback, "{data}", dir), "default"}
}

// over lays b over l.
func (l layers) over(b layers) {
	for name, v := range b {
		l[name] = v
	}
}

// fromEnvironment takes the HOLDFAST_ variables. An unknown one is a fault,
// because it is a setting that someone believes to be in force.
func fromEnvironment(environ []string) (layers, error) {
	names := map[string]string{}
	var variables []string
	for _, n := range settingNames() {
		names[variable(n)] = n
		variables = append(variables, variable(n))
	}
	l := layers{}
	var faults []error
	for _, e := range environ {
		name, text, _ := strings.Cut(e, "=")
		switch {
		case name == "STORAGE_DIR":
			if _, both := l["data-dir"]; !both && text != "" {
				l["data-dir"] = value{text, name}
			}
		case !strings.HasPrefix(name, "HOLDFAST_") || name == "HOLDFAST_CONFIG" || serviceLink(name, text):
		case names[name] != "":
			// An empty variable is how compose files and task definitions
			// write one that is not set.
			if text != "" {
				l[names[name]] = value{text, name}
			}
		default:
			faults = append(faults, fmt.Errorf("%s: there is no such setting; %s", name,
				didYouMean(name, variables, "holdfast doctor lists them all")))
		}
	}
	return l, errors.Join(faults...)
}

var serviceVariable = regexp.MustCompile(`^HOLDFAST_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// serviceLink tells whether a variable is one of those that Kubernetes puts
// into every container of a namespace with a service named holdfast.
func serviceLink(name, text string) bool {
	if !serviceVariable.MatchString(name) {
		return false
	}
	if strings.HasSuffix(name, "_PORT") && !strings.HasSuffix(name, "_SERVICE_PORT") && !strings.Contains(name, "_PORT_") {
		return strings.Contains(text, "://") // HOLDFAST_PORT=tcp://10.0.0.1:8080, and not somebody's 9090
	}
	return true
}

// fromFile takes the settings of a YAML file: a flat map, the names as flags or
// as variables, lists where a setting is a list.
func fromFile(path string) (layers, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("config %s: cannot be read: %w; check --config and HOLDFAST_CONFIG", path, bare(err))
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("config %s: is not YAML: %w; write one name: value a line", path, err)
	}
	if doc.Kind == 0 {
		return layers{}, nil
	}
	top := doc.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return layers{}, nil
	}
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("config %s: line %d: is not a map; write one name: value a line", path, top.Line)
	}
	known := map[string]string{}
	for _, n := range settingNames() {
		known[n], known[variable(n)] = n, n
	}
	l, lines := layers{}, map[string]int{}
	var faults []error
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, val := top.Content[i], top.Content[i+1]
		at := fmt.Sprintf("%s line %d", path, key.Line)
		name := known[key.Value]
		if name == "" {
			faults = append(faults, fmt.Errorf("%s: %s: there is no such setting; %s", at, key.Value,
				didYouMean(key.Value, settingNames(), "holdfast doctor lists them all")))
			continue
		}
		if first, twice := lines[name]; twice {
			faults = append(faults, fmt.Errorf("%s: %s: is in line %d already; keep one", at, key.Value, first))
			continue
		}
		lines[name] = key.Line
		text, err := scalar(val)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %s: %w", at, key.Value, err))
			continue
		}
		l[name] = value{text, at}
	}
	return l, errors.Join(faults...)
}

// scalar is the text of a value; a list is joined with commas.
func scalar(n *yaml.Node) (string, error) {
	switch n.Kind {
	case yaml.AliasNode:
		return scalar(n.Alias)
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "", nil
		}
		return n.Value, nil
	case yaml.SequenceNode:
		var parts []string
		for _, e := range n.Content {
			if e.Kind != yaml.ScalarNode {
				return "", errors.New("is a list of lists or maps; write plain values")
			}
			parts = append(parts, e.Value)
		}
		return strings.Join(parts, ","), nil
	}
	return "", errors.New("is a map; settings are flat, write the whole name")
}

// bare leaves out what an os error repeats of the path.
func bare(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
