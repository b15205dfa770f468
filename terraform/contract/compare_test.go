package contract

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/gateway"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
)

// code is what the program is, as far as the modules must know it.
type code struct {
	tables   func(prefix string) []dynamo.TableDefinition
	settings map[string]bool // variables that a worker knows
	function map[string]bool // variables that the function knows
	commands map[string]bool // of holdfast
	// worker and control are what the programs ask of AWS, with the functions that do.
	worker, control map[need][]string
	purposes        []string        // of keysets that are wrapped
	events          map[string]bool // texts that the gateway's code has
	listen          string          // where a worker listens by itself
	health          time.Duration   // what a health check takes at most
}

// exceptions are what one of two has and the other need not have, and why.
type exceptions struct {
	unasked   map[need]string // allowed, and no call of the program needs it
	forbidden map[need]string // called by the program, and not allowed to this role
}

var workerExceptions = exceptions{forbidden: map[need]string{
	{"dynamodb:CreateTable", "table"}:      "holdfast doctor --create-tables is for tables without Terraform, and whoever runs it has a role for that",
	{"dynamodb:UpdateTimeToLive", "table"}: "likewise",
}}

var controlExceptions = exceptions{unasked: map[need]string{
	{"logs:CreateLogStream", "other"}: "Lambda writes the function's log under its role",
	{"logs:PutLogEvents", "other"}:    "likewise",
	{"sqs:SendMessage", "other"}:      "Lambda puts events aside that failed, under its role",
}}

// shared are settings that may differ between workers and function although both
// know them.
var apart = []string{"HOLDFAST_LOG_LEVEL", "HOLDFAST_API_RATE", "HOLDFAST_API_KEYS"}

// compare says all in which what was made is not what the program is.
func compare(m made, c code) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }

	prefix := strings.TrimPrefix(m.container.value("HOLDFAST_STATE"), "dynamodb:")
	faults = append(faults, compareTables(m.tables, c.tables(prefix))...)
	faults = append(faults, compareSettings(m, c)...)
	faults = append(faults, compareTask(m, c)...)
	faults = append(faults, comparePermissions("worker", allowed(m.worker, m), c.worker, workerExceptions)...)
	faults = append(faults, comparePermissions("function", allowed(m.control, m), c.control, controlExceptions)...)
	faults = append(faults, compareContexts(m, c)...)
	faults = append(faults, compareKey(m)...)

	for what, group := range map[string]string{"workers": m.container.LogConfiguration.Options["awslogs-group"], "function": logGroup(m.function)} {
		if days, there := m.logs[group]; !there || days <= 0 {
			fault("the log of the %s goes to the group %q, which is not made or keeps it for ever", what, group)
		}
	}
	if m.payload != "2.0" || !c.events[m.payload] {
		fault("requests come in payload format %q, which the gateway does not read", m.payload)
	}
	var pattern struct {
		Source []string
		Type   []string `json:"detail-type"`
		Detail struct{ LastStatus []string }
	}
	if err := json.Unmarshal([]byte(m.pattern), &pattern); err != nil {
		fault("the pattern of stopped tasks: %v", err)
	}
	for _, word := range slices.Concat(pattern.Source, pattern.Type, pattern.Detail.LastStatus) {
		if !c.events[word] {
			fault("the rule for stopped tasks has %q, which the gateway does not know", word)
		}
	}
	if len(pattern.Source) != 1 || len(pattern.Type) != 1 || len(pattern.Detail.LastStatus) != 1 {
		fault("the rule for stopped tasks lets more through than one kind of event: %s", m.pattern)
	}
	return faults
}

func logGroup(f function) string {
	if len(f.Logging) != 1 {
		return ""
	}
	return f.Logging[0].Group
}

func compareTables(have, want []dynamo.TableDefinition) (faults []string) {
	for _, w := range want {
		i := slices.IndexFunc(have, func(h dynamo.TableDefinition) bool { return h.Name == w.Name })
		if i < 0 {
			faults = append(faults, fmt.Sprintf("table %s is not made", w.Name))
			continue
		}
		h := have[i]
		if h.PartitionKey != w.PartitionKey || h.SortKey != w.SortKey {
			faults = append(faults, fmt.Sprintf("table %s has the key %v %v, not %v %v", w.Name, h.PartitionKey, h.SortKey, w.PartitionKey, w.SortKey))
		}
		if !reflect.DeepEqual(h.Indexes, w.Indexes) {
			faults = append(faults, fmt.Sprintf("table %s has the indexes %v, not %v", w.Name, h.Indexes, w.Indexes))
		}
		if h.TTLAttribute != w.TTLAttribute {
			faults = append(faults, fmt.Sprintf("table %s has TTL on %q, not %q", w.Name, h.TTLAttribute, w.TTLAttribute))
		}
		if h.BillingMode != w.BillingMode {
			faults = append(faults, fmt.Sprintf("table %s is billed as %s, not %s", w.Name, h.BillingMode, w.BillingMode))
		}
	}
	if len(have) != len(want) {
		faults = append(faults, fmt.Sprintf("there are %d tables, not %d", len(have), len(want)))
	}
	return faults
}

func compareSettings(m made, c code) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	var env map[string]string
	if len(m.function.Environment) == 1 {
		env = m.function.Environment[0].Variables
	}
	names := m.container.names()
	for i, n := range names {
		if strings.HasPrefix(n, "HOLDFAST_") && !c.settings[n] {
			fault("the container has %s, which a worker does not know and refuses", n)
		}
		if slices.Contains(names[:i], n) {
			fault("the container has %s twice", n)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(env)) {
		if strings.HasPrefix(n, "HOLDFAST_") && !c.function[n] {
			fault("the function has %s, which it does not know and refuses", n)
		}
	}
	for _, n := range []string{"HOLDFAST_STATE", "HOLDFAST_VAULT", "HOLDFAST_MASTER_KEY"} {
		if m.container.value(n) == "" || env[n] == "" {
			fault("%s is missing, of the container or of the function", n)
		}
	}
	for _, e := range m.container.Environment {
		if c.function[e.Name] && env[e.Name] != e.Value && !slices.Contains(apart, e.Name) {
			fault("%s is %q for workers and %q for the function", e.Name, e.Value, env[e.Name])
		}
	}
	auth, err := gateway.ParseAuth(env["HOLDFAST_GATEWAY_AUTH"])
	if err != nil {
		fault("HOLDFAST_GATEWAY_AUTH: %v", err)
	}
	if keys, err := adminapi.ParseKeys(env["HOLDFAST_API_KEYS"]); err != nil || auth.Keys && len(keys) == 0 {
		fault("HOLDFAST_API_KEYS: has %d keys, %v", len(keys), err)
	}
	if roles, err := gateway.ParseARNRoles(env["HOLDFAST_IAM_ROLES"]); err != nil || auth.IAM && len(roles) == 0 {
		fault("HOLDFAST_IAM_ROLES: has %d roles, %v", len(roles), err)
	}
	container := env["HOLDFAST_WORKER_CONTAINER"]
	if container == "" {
		container = gateway.DefaultContainer
	}
	if container != m.container.Name {
		fault("the worker's container is %q, and the function looks for %q", m.container.Name, container)
	}
	return faults
}

func compareTask(m made, c code) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	drain, err := time.ParseDuration(m.container.value("HOLDFAST_DRAIN"))
	switch stop := time.Duration(m.container.StopTimeout) * time.Second; {
	case err != nil:
		fault("HOLDFAST_DRAIN: %v", err)
	case stop <= drain:
		fault("workers are killed after %v, and may take %v to give their sessions away", stop, drain)
	case stop > 2*time.Minute:
		fault("stopTimeout is %v, and Fargate allows 2m", stop)
	}
	if m.memory == "" || strconv.Itoa(m.container.Memory) != m.memory {
		fault("the container may use %d MiB and the task %s: a worker takes as many sessions as its container has memory for", m.container.Memory, m.memory)
	}
	if len(m.container.Command) != 1 || !c.commands[m.container.Command[0]] {
		fault("the container runs %q, which is no command of holdfast", m.container.Command)
	}
	check := m.container.HealthCheck
	if len(check.Command) != 3 || check.Command[0] != "CMD" || check.Command[1] != "/holdfast" || !c.commands[check.Command[2]] {
		fault("the health check is %q, which runs no command of holdfast", check.Command)
	}
	if limit := time.Duration(check.Timeout) * time.Second; limit <= c.health {
		fault("the health check is given %v, and takes up to %v", limit, c.health)
	}
	listen := m.container.value("HOLDFAST_LISTEN")
	if listen == "" {
		listen = c.listen
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		fault("HOLDFAST_LISTEN: %v", err)
	}
	for _, p := range m.container.PortMappings {
		if strconv.Itoa(p.ContainerPort) != port || net.ParseIP(host).IsLoopback() {
			fault("port %d is mapped, and the worker listens at %s", p.ContainerPort, listen)
		}
	}
	if s := m.desired; s.Least != 100 || s.Most != 200 || s.Rebalance != "DISABLED" {
		fault("the service is deployed at %d/%d %%, rebalancing %s: sessions would be without a worker", s.Least, s.Most, s.Rebalance)
	}
	return faults
}

// allowed is what a role's statements allow, with what is wrong with them.
func allowed(all []statement, m made) (permissions map[need]bool) {
	permissions = map[need]bool{}
	state, vault := m.container.value("HOLDFAST_STATE"), m.container.value("HOLDFAST_VAULT")
	prefix := strings.TrimPrefix(state, "dynamodb:")
	bucket, folder, _ := strings.Cut(strings.TrimPrefix(vault, "s3://"), "/")
	key := strings.TrimPrefix(m.container.value("HOLDFAST_MASTER_KEY"), "awskms:")
	for _, s := range all {
		tables := 0
		for _, r := range s.Resource {
			on := "something else: " + r
			service, _, _ := strings.Cut(strings.TrimPrefix(r, "arn:aws:"), ":")
			switch {
			case strings.HasSuffix(r, ":table/"+prefix+"-fleet"), strings.HasSuffix(r, ":table/"+prefix+"-signal"):
				on = "one table"
				if tables++; tables == 2 {
					on = "table"
				}
			case strings.HasSuffix(r, ":table/"+prefix+"-fleet/index/*"):
				on = "index"
			case r == "arn:aws:s3:::"+bucket:
				on = "bucket"
			case r == "arn:aws:s3:::"+bucket+"/"+folder+"/*":
				on = "object"
			case r == key:
				on = "key"
				if s.Condition["StringEquals"]["kms:ViaService"] != nil {
					on = "key via s3"
				}
			case service == "dynamodb", service == "s3", service == "kms", service == "*":
			default:
				on = "other"
			}
			for _, a := range s.Action {
				if s.Effect == "Allow" {
					permissions[need{a, on}] = true
				}
				if on == "table" {
					delete(permissions, need{a, "one table"})
				}
			}
		}
	}
	return permissions
}

func comparePermissions(role string, allowed map[need]bool, asked map[need][]string, except exceptions) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	byName := func(a, b need) int { return strings.Compare(a.String(), b.String()) }
	for _, n := range slices.SortedFunc(maps.Keys(asked), byName) {
		if _, known := except.forbidden[n]; !allowed[n] && !known {
			fault("the %s may not do %s, which %s needs", role, n, strings.Join(asked[n], ", "))
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(allowed), byName) {
		if _, known := except.unasked[n]; len(asked[n]) == 0 && !known {
			fault("the %s may do %s, which no call needs", role, n)
		}
	}
	for n := range except.forbidden {
		if allowed[n] || len(asked[n]) == 0 {
			fault("%s is an exception of the %s that is none: %s", n, role, except.forbidden[n])
		}
	}
	for n := range except.unasked {
		if !allowed[n] || len(asked[n]) > 0 {
			fault("%s is an exception of the %s that is none: %s", n, role, except.unasked[n])
		}
	}
	return faults
}

const (
	contextPurpose   = "kms:EncryptionContext:holdfast:purpose"
	contextPartition = "kms:EncryptionContext:holdfast:partition"
)

// compareContexts looks at which keysets may be unwrapped: by workers all, by the
// function that of the fleet.
func compareContexts(m made, c code) (faults []string) {
	for role, all := range map[string][]statement{"worker": m.worker, "function": m.control} {
		for _, s := range all {
			if !slices.Contains(s.Action, "kms:Encrypt") {
				continue
			}
			equals := s.Condition["StringEquals"]
			purposes, want := slices.Clone([]string(equals[contextPurpose])), c.purposes
			if role == "function" {
				want = []string{"keyset"}
			}
			slices.Sort(purposes)
			if !slices.Equal(purposes, want) {
				faults = append(faults, fmt.Sprintf("the %s may use the key for %v, not for %v", role, purposes, want))
			}
			if partition := equals[contextPartition]; role == "function" && !slices.Equal(partition, []string{string(state.Fleet)}) {
				faults = append(faults, fmt.Sprintf("the function may unwrap keysets of %v, not of %s alone", partition, state.Fleet))
			}
		}
	}
	return faults
}

// compareKey looks whether the key's policy lets the roles use it, and CloudWatch
// for these logs: both are named there before they are made.
func compareKey(m made) (faults []string) {
	named := func(context string) (patterns []string) {
		for _, s := range m.key {
			if s.Effect == "Allow" {
				patterns = append(patterns, s.Condition["ArnLike"][context]...)
			}
		}
		return patterns
	}
	covers := func(pattern, group string) bool {
		_, known, _ := strings.Cut(pattern, ":log-group:")
		before, open := strings.CutSuffix(known, "*")
		return known == group || open && strings.HasPrefix(group, before)
	}
	for _, group := range m.sealed {
		if !slices.ContainsFunc(named("kms:EncryptionContext:aws:logs:arn"), func(p string) bool { return covers(p, group) }) {
			faults = append(faults, fmt.Sprintf("the log group %s is encrypted with the master key, whose policy does not know it", group))
		}
	}
	users := named("aws:PrincipalArn")
	for _, role := range m.roles {
		if !slices.ContainsFunc(users, func(u string) bool { return strings.HasSuffix(u, ":role/"+role) }) {
			faults = append(faults, fmt.Sprintf("the role %s may not use the master key, by the key's own policy", role))
		}
	}
	if len(m.roles) != 2 {
		faults = append(faults, fmt.Sprintf("there are the roles %v, not one of workers and one of the function", m.roles))
	}
	return faults
}
