package contract

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state/dynamo"
)

const (
	testKey    = "arn:aws:kms:eu-west-1:123456789012:key/1234"
	testFleet  = "arn:aws:dynamodb:eu-west-1:123456789012:table/shop-fleet"
	testSignal = "arn:aws:dynamodb:eu-west-1:123456789012:table/shop-signal"
)

// sound is what a program is and what was made for it, with nothing wrong.
func sound() (made, code) {
	c := code{
		tables:   dynamo.Tables,
		settings: map[string]bool{}, function: map[string]bool{},
		commands: map[string]bool{"worker": true, "healthcheck": true},
		worker: map[need][]string{
			{"dynamodb:Query", "table"}: {"Query"}, {"dynamodb:Query", "index"}: {"Indexed"}, {"kms:Encrypt", "key"}: {"Wrap"},
			{"s3:PutObject", "object"}: {"put"}, {"kms:GenerateDataKey", "key via s3"}: {"put"}, {"s3:ListBucket", "bucket"}: {"ListObjects"},
			{"dynamodb:CreateTable", "table"}: {"Create"}, {"dynamodb:UpdateTimeToLive", "table"}: {"Create"},
		},
		control:  map[need][]string{{"dynamodb:Query", "table"}: {"Query"}, {"kms:Encrypt", "key"}: {"Wrap"}},
		purposes: []string{"check", "keyset"},
		events:   map[string]bool{"aws.ecs": true, "ECS Task State Change": true, "STOPPED": true, "2.0": true},
		listen:   "127.0.0.1:8080", health: 3 * time.Second,
	}
	for _, n := range []string{"STATE", "VAULT", "MASTER_KEY", "DRAIN", "PROFILE", "LISTEN", "WEBHOOK_SECRET"} {
		c.settings["HOLDFAST_"+n] = true
	}
	for _, n := range []string{"STATE", "VAULT", "MASTER_KEY", "PROFILE", "GATEWAY_AUTH", "API_KEYS", "IAM_ROLES", "WORKER_CONTAINER"} {
		c.function["HOLDFAST_"+n] = true
	}
	m := made{
		from: "sound", tables: dynamo.Tables("shop"),
		logs:    map[string]int{"/shop/worker": 30, "/shop/control": 30},
		payload: "2.0",
		pattern: `{"source":["aws.ecs"],"detail-type":["ECS Task State Change"],"detail":{"lastStatus":["STOPPED"],"clusterArn":["x"]}}`,
		desired: service{100, 200, "DISABLED"},
	}
	m.container.Name, m.container.Command, m.container.StopTimeout = "holdfast", []string{"worker"}, 120
	m.container.Memory, m.memory = 512, "512"
	m.container.HealthCheck.Command, m.container.HealthCheck.Timeout = []string{"CMD", "/holdfast", "healthcheck"}, 5
	m.container.LogConfiguration.Options = map[string]string{"awslogs-group": "/shop/worker"}
	shared := map[string]string{"HOLDFAST_STATE": "dynamodb:shop", "HOLDFAST_VAULT": "s3://shop-vault/vault", "HOLDFAST_MASTER_KEY": "awskms:" + testKey,
		"HOLDFAST_PROFILE": "guide"}
	for _, n := range slices.Sorted(maps.Keys(shared)) {
		set(&m, n, shared[n])
	}
	set(&m, "HOLDFAST_DRAIN", "90s")
	env := maps.Clone(shared)
	env["HOLDFAST_GATEWAY_AUTH"], env["HOLDFAST_API_KEYS"] = "keys", "me:admin:"+strings.Repeat("0", 64)
	m.function.Environment = []struct{ Variables map[string]string }{{env}}
	m.function.Logging = append(m.function.Logging, struct {
		Group string `json:"log_group"`
	}{"/shop/control"})
	m.sealed, m.roles = []string{"/shop/worker", "/shop/control"}, []string{"shop-worker", "shop-control"}
	key := allow([]string{"kms:Decrypt"}, "*")
	key.Condition = map[string]map[string]texts{"ArnLike": {
		"aws:PrincipalArn":                   {"arn:aws:iam::123456789012:role/shop-worker", "arn:aws:iam::123456789012:role/shop-control"},
		"kms:EncryptionContext:aws:logs:arn": {"arn:aws:logs:eu-west-1:123456789012:log-group:/shop/work*", "arn:aws:logs:eu-west-1:123456789012:log-group:/shop/control"},
	}}
	m.key = []statement{key}
	m.worker = []statement{
		allow([]string{"dynamodb:Query"}, testFleet, testSignal),
		allow([]string{"dynamodb:Query"}, testFleet+"/index/*"),
		allow([]string{"s3:PutObject"}, "arn:aws:s3:::shop-vault/vault/*"),
		allow([]string{"s3:ListBucket"}, "arn:aws:s3:::shop-vault"),
		where(allow([]string{"kms:Encrypt"}, testKey), contextPurpose, "keyset", "check"),
		where(allow([]string{"kms:GenerateDataKey"}, testKey), "kms:ViaService", "s3.eu-west-1.amazonaws.com"),
	}
	m.control = []statement{
		allow([]string{"dynamodb:Query"}, testFleet, testSignal),
		where(where(allow([]string{"kms:Encrypt"}, testKey), contextPurpose, "keyset"), contextPartition, "FLEET"),
		allow([]string{"logs:CreateLogStream", "logs:PutLogEvents"}, "arn:aws:logs:eu-west-1:123456789012:log-group:/shop/control:*"),
		allow([]string{"sqs:SendMessage"}, "arn:aws:sqs:eu-west-1:123456789012:shop-control-failed"),
	}
	return m, c
}

// set gives the container a variable, anew where it has it.
func set(m *made, name, value string) {
	for i, e := range m.container.Environment {
		if e.Name == name {
			m.container.Environment[i].Value = value
			return
		}
	}
	m.container.Environment = append(m.container.Environment, struct{ Name, Value string }{name, value})
}

func allow(actions []string, resources ...string) statement {
	return statement{Effect: "Allow", Action: actions, Resource: resources}
}

func where(s statement, key string, values ...string) statement {
	equals := map[string]texts{key: values}
	maps.Copy(equals, s.Condition["StringEquals"])
	s.Condition = map[string]map[string]texts{"StringEquals": equals}
	return s
}

// Each way in which modules and program can part is found, and said by its name.
// Were one not, the contract could not be broken.
func TestFaultsAreFound(t *testing.T) {
	if m, c := sound(); len(compare(m, c)) > 0 {
		t.Fatalf("what is sound is not: %q", compare(m, c))
	}
	variables := func(m *made) map[string]string { return m.function.Environment[0].Variables }
	for name, test := range map[string]struct {
		part func(m *made, c *code)
		want string
	}{
		"another sort key":       {func(m *made, _ *code) { m.tables[0].SortKey.Name = "sort" }, "table shop-fleet has the key {pk S} {sort S}, not {pk S} {sk S}"},
		"another type of a key":  {func(m *made, _ *code) { m.tables[1].PartitionKey.Type = "N" }, "table shop-signal has the key {pk N}"},
		"an index less":          {func(m *made, _ *code) { m.tables[0].Indexes = m.tables[0].Indexes[:1] }, "table shop-fleet has the indexes"},
		"an index of keys alone": {func(m *made, _ *code) { m.tables[0].Indexes[1].Projection = "KEYS_ONLY" }, "table shop-fleet has the indexes"},
		"no TTL":                 {func(m *made, _ *code) { m.tables[0].TTLAttribute = "" }, `table shop-fleet has TTL on "", not "ttl"`},
		"another TTL":            {func(m *made, _ *code) { m.tables[1].TTLAttribute = "xp" }, `table shop-signal has TTL on "xp", not "ttl"`},
		"provisioned":            {func(m *made, _ *code) { m.tables[0].BillingMode = "PROVISIONED" }, "is billed as PROVISIONED"},
		"another prefix":         {func(m *made, _ *code) { set(m, "HOLDFAST_STATE", "dynamodb:shop2") }, "table shop2-fleet is not made"},
		"a table more":           {func(m *made, _ *code) { m.tables = append(m.tables, dynamo.TableDefinition{Name: "x"}) }, "there are 3 tables, not 2"},
		"an unknown variable":    {func(m *made, _ *code) { set(m, "HOLDFAST_DRAIN_TIME", "90s") }, "the container has HOLDFAST_DRAIN_TIME, which a worker does not know"},
		"an unknown secret": {func(m *made, _ *code) {
			m.container.Secrets = []struct{ Name, ValueFrom string }{{"HOLDFAST_SECRET", "x"}}
		}, "the container has HOLDFAST_SECRET"},
		"a variable twice": {func(m *made, _ *code) {
			m.container.Secrets = []struct{ Name, ValueFrom string }{{"HOLDFAST_DRAIN", "x"}}
		}, "HOLDFAST_DRAIN twice"},
		"a setting of workers":   {func(m *made, _ *code) { variables(m)["HOLDFAST_DRAIN"] = "90s" }, "the function has HOLDFAST_DRAIN, which it does not know"},
		"a setting that is gone": {func(_ *made, c *code) { delete(c.settings, "HOLDFAST_PROFILE") }, "the container has HOLDFAST_PROFILE"},
		"no vault":               {func(m *made, _ *code) { delete(variables(m), "HOLDFAST_VAULT") }, "HOLDFAST_VAULT is missing"},
		"two profiles":           {func(m *made, _ *code) { set(m, "HOLDFAST_PROFILE", "gentle") }, `HOLDFAST_PROFILE is "gentle" for workers and "guide"`},
		"no such authorizer":     {func(m *made, _ *code) { variables(m)["HOLDFAST_GATEWAY_AUTH"] = "cognito" }, "HOLDFAST_GATEWAY_AUTH: "},
		"a key in the clear":     {func(m *made, _ *code) { variables(m)["HOLDFAST_API_KEYS"] = "me:admin:hf_x" }, "HOLDFAST_API_KEYS: "},
		"no keys":                {func(m *made, _ *code) { delete(variables(m), "HOLDFAST_API_KEYS") }, "HOLDFAST_API_KEYS: has 0 keys"},
		"no roles":               {func(m *made, _ *code) { variables(m)["HOLDFAST_GATEWAY_AUTH"] = "iam" }, "HOLDFAST_IAM_ROLES: has 0 roles"},
		"another container":      {func(m *made, _ *code) { m.container.Name = "worker" }, `the worker's container is "worker", and the function looks for "holdfast"`},
		"killed while it drains": {func(m *made, _ *code) { m.container.StopTimeout = 60 }, "workers are killed after 1m0s, and may take 1m30s"},
		"a stop that is not had": {func(m *made, _ *code) { m.container.StopTimeout = 180 }, "Fargate allows 2m"},
		"no drain":               {func(m *made, _ *code) { set(m, "HOLDFAST_DRAIN", "") }, "HOLDFAST_DRAIN: "},
		"memory without a limit": {func(m *made, _ *code) { m.container.Memory = 0 }, "the container may use 0 MiB and the task 512"},
		"no such command":        {func(m *made, _ *code) { m.container.Command = []string{"serve"} }, `the container runs ["serve"]`},
		"a shell in the check": {func(m *made, _ *code) {
			m.container.HealthCheck.Command = []string{"CMD-SHELL", "holdfast healthcheck"}
		}, "the health check is"},
		"another check":            {func(m *made, _ *code) { m.container.HealthCheck.Command[2] = "health" }, "the health check is"},
		"an impatient check":       {func(m *made, _ *code) { m.container.HealthCheck.Timeout = 3 }, "the health check is given 3s"},
		"a port nobody listens at": {func(m *made, _ *code) { m.container.PortMappings = []struct{ ContainerPort int }{{8080}} }, "port 8080 is mapped, and the worker listens at 127.0.0.1:8080"},
		"another port": {func(m *made, _ *code) {
			set(m, "HOLDFAST_LISTEN", "0.0.0.0:80")
			m.container.PortMappings = []struct{ ContainerPort int }{{8080}}
		}, "port 8080 is mapped, and the worker listens at 0.0.0.0:80"},
		"old ones end first":      {func(m *made, _ *code) { m.desired.Least = 50 }, "deployed at 50/200 %"},
		"zones are balanced":      {func(m *made, _ *code) { m.desired.Rebalance = "ENABLED" }, "rebalancing ENABLED"},
		"a log for ever":          {func(m *made, _ *code) { m.logs["/shop/worker"] = 0 }, "the log of the workers"},
		"a log of nobody":         {func(m *made, _ *code) { delete(m.logs, "/shop/control") }, "the log of the function"},
		"an old format":           {func(m *made, _ *code) { m.payload = "1.0" }, `payload format "1.0"`},
		"another event":           {func(m *made, _ *code) { m.pattern = strings.ReplaceAll(m.pattern, "STOPPED", "STOPPING") }, `has "STOPPING", which the gateway does not know`},
		"all events":              {func(m *made, _ *code) { m.pattern = `{"source":["aws.ecs"]}` }, "lets more through"},
		"a permission less":       {func(m *made, _ *code) { m.worker = m.worker[1:] }, "the worker may not do dynamodb:Query on table, which Query needs"},
		"one table alone":         {func(m *made, _ *code) { m.control[0].Resource = texts{testFleet} }, "the function may not do dynamodb:Query on table"},
		"no index":                {func(m *made, _ *code) { m.worker = slices.Delete(m.worker, 1, 2) }, "the worker may not do dynamodb:Query on index, which Indexed needs"},
		"a call more":             {func(_ *made, c *code) { c.control[need{"dynamodb:Scan", "table"}] = []string{"Everything"} }, "the function may not do dynamodb:Scan on table, which Everything needs"},
		"a permission more":       {func(m *made, _ *code) { m.worker[0].Action = append(m.worker[0].Action, "dynamodb:Scan") }, "the worker may do dynamodb:Scan on table, which no call needs"},
		"all permissions":         {func(m *made, _ *code) { m.worker[2].Action = texts{"s3:*"} }, "the worker may do s3:* on object, which no call needs"},
		"all resources":           {func(m *made, _ *code) { m.worker[2].Resource = texts{"*"} }, "the worker may do s3:PutObject on something else: *, which no call needs"},
		"another bucket":          {func(m *made, _ *code) { m.worker[2].Resource = texts{"arn:aws:s3:::other/vault/*"} }, "the worker may not do s3:PutObject on object"},
		"the whole bucket":        {func(m *made, _ *code) { m.worker[2].Resource = texts{"arn:aws:s3:::shop-vault/*"} }, "something else: arn:aws:s3:::shop-vault/*"},
		"the key, not through S3": {func(m *made, _ *code) { m.worker[5].Condition = nil }, "the worker may do kms:GenerateDataKey on key, which no call needs"},
		"another service": {func(m *made, _ *code) {
			m.control = append(m.control, allow([]string{"iam:PassRole"}, "arn:aws:iam::123456789012:role/x"))
		}, "the function may do iam:PassRole on other, which no call needs"},
		"a denial":                  {func(m *made, _ *code) { m.worker[3].Effect = "Deny" }, "the worker may not do s3:ListBucket on bucket"},
		"a call less":               {func(_ *made, c *code) { delete(c.worker, need{"s3:ListBucket", "bucket"}) }, "the worker may do s3:ListBucket on bucket, which no call needs"},
		"an exception that is none": {func(m *made, _ *code) { m.worker[0].Action = append(m.worker[0].Action, "dynamodb:CreateTable") }, "is an exception of the worker that is none"},
		"an exception of the past":  {func(m *made, _ *code) { m.control = m.control[:3] }, "is an exception of the function that is none"},
		"a log the key knows not":   {func(m *made, _ *code) { m.sealed[1] = "/shop/control2" }, "the log group /shop/control2 is encrypted with the master key, whose policy does not know it"},
		"a role the key knows not":  {func(m *made, _ *code) { m.roles[0] = "shop-workers" }, "the role shop-workers may not use the master key"},
		"a role more":               {func(m *made, _ *code) { m.roles = append(m.roles, "shop-worker") }, "there are the roles"},
		"a key for nobody":          {func(m *made, _ *code) { m.key[0].Effect = "Deny" }, "the role shop-control may not use the master key"},
		"keysets of sessions":       {func(m *made, _ *code) { delete(m.control[1].Condition["StringEquals"], contextPartition) }, "the function may unwrap keysets of [], not of FLEET alone"},
		"any use of the key":        {func(m *made, _ *code) { delete(m.worker[4].Condition["StringEquals"], contextPurpose) }, "the worker may use the key for []"},
		"a use of the key more":     {func(_ *made, c *code) { c.purposes = []string{"check", "export", "keyset"} }, "the worker may use the key for [check keyset], not for [check export keyset]"},
	} {
		t.Run(name, func(t *testing.T) {
			m, c := sound()
			test.part(&m, &c)
			faults := compare(m, c)
			if !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, test.want) }) {
				t.Errorf("%q is not said; said is %q", test.want, faults)
			}
		})
	}
}

// What calls need is read from source as it is written in the adapters: calls,
// paginators and waiters, parts of transactions, indexes; and only what a program
// can come to counts.
func TestNeedsAreRead(t *testing.T) {
	parse := func(source string) []*ast.File {
		f, err := parser.ParseFile(token.NewFileSet(), "", source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		return []*ast.File{f}
	}
	p := program{
		ours + "state/dynamo": parse(`package dynamo
import ("github.com/aws/aws-sdk-go-v2/service/dynamodb"; "github.com/aws/aws-sdk-go-v2/service/dynamodb/types")
func (s *Store) Get() { s.client.GetItem(nil, nil) }
func (s *Store) Commit() { s.transact(types.TransactWriteItem{Put: &types.Put{}}, types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{}}) }
func (s *Store) transact(...types.TransactWriteItem) { s.client.TransactWriteItems(nil, nil) }
func (s *Store) Indexed() { s.pages(&dynamodb.QueryInput{IndexName: nil}) }
func (s *Store) Later(in *dynamodb.QueryInput) { in.IndexName = nil }
func (s *Store) pages(in *dynamodb.QueryInput) { s.client.Query(nil, in) }
func (s *Store) Create() { s.client.CreateTable(nil, nil); dynamodb.NewTableExistsWaiter(s.client) }
func (s *Store) Unused() { s.client.Scan(nil, nil) }`),
		ours + "state/vault": parse(`package vault
import "github.com/aws/aws-sdk-go-v2/service/s3"
func (v *S3) List() { s3.NewListObjectsV2Paginator(v.client, nil) }
func (v *S3) Put() { v.client.PutObject(nil, nil) }`),
		ours + "infra/api": parse(`package api
type store interface { Get(); Commit() }
type lister interface { List() }`),
		ours + "cmd/x": parse(`package main
import ("github.com/holdfast-wa/holdfast/state/dynamo"; other "github.com/holdfast-wa/holdfast/state")
func main() { s := dynamo.Open(); s.Indexed(); other.Unused() }`),
	}
	got := slices.Collect(maps.Keys(p.needs()))
	want := []need{{"dynamodb:GetItem", "table"}, {"dynamodb:PutItem", "table"}, {"dynamodb:ConditionCheckItem", "table"},
		{"dynamodb:Query", "table"}, {"dynamodb:Query", "index"}, {"s3:ListBucket", "bucket"}}
	for _, n := range want {
		if !slices.Contains(got, n) {
			t.Errorf("%s is needed, and not found", n)
		}
	}
	for _, n := range got {
		if !slices.Contains(want, n) {
			t.Errorf("%s is found, by %v, and not needed", n, p.needs()[n])
		}
	}
	p[ours+"worker"] = parse(`package worker
import "github.com/aws/aws-sdk-go-v2/service/sqs"
var _ sqs.Client`)
	if callers := p.callers(); !slices.Equal(callers, []string{ours + "worker calls sqs"}) {
		t.Errorf("beside the adapters AWS is called by %q", callers)
	}
}

// A state is read as Terraform prints it, and what cannot be read is told.
func TestStatesAreRead(t *testing.T) {
	readText := func(resources string) (made, error) {
		var m module
		if err := json.Unmarshal([]byte(`{"child_modules":[{"resources":[`+resources+`]}]}`), &m); err != nil {
			t.Fatal(err)
		}
		return read("test", m)
	}
	m, err := readText(`{"address":"module.state.aws_dynamodb_table.fleet","mode":"managed","type":"aws_dynamodb_table","values":{"name":"shop-fleet","billing_mode":"PAY_PER_REQUEST",
		"hash_key":"pk","range_key":"sk","attribute":[{"name":"pk","type":"S"},{"name":"sk","type":"S"},{"name":"ix","type":"S"},{"name":"ord","type":"S"},{"name":"shard","type":"S"}],
		"global_secondary_index":[{"name":"by-shard","hash_key":"shard","range_key":"ord","projection_type":"ALL"},{"name":"by-index","hash_key":"ix","range_key":"ord","projection_type":"ALL"}],
		"ttl":[{"attribute_name":"ttl","enabled":true}]}},
		{"address":"module.worker.aws_iam_role_policy.state","mode":"managed","type":"aws_iam_role_policy","name":"state","values":{"policy":"{\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"a:B\",\"Resource\":[\"r\"]}]}"}}`)
	if err != nil {
		t.Fatal(err)
	}
	if faults := compareTables(m.tables, dynamo.Tables("shop")[:1]); len(faults) > 0 {
		t.Errorf("the table is read as %+v: %q", m.tables, faults)
	}
	if len(m.worker) != 1 || !slices.Equal(m.worker[0].Action, []string{"a:B"}) || !slices.Equal(m.worker[0].Resource, []string{"r"}) {
		t.Errorf("the policy is read as %+v", m.worker)
	}
	for what, resources := range map[string]string{
		"two containers":       `{"mode":"managed","type":"aws_ecs_task_definition","values":{"container_definitions":"[{},{}]"}}`,
		"a policy of nobody":   `{"address":"module.x.y","mode":"managed","type":"aws_iam_role_policy","values":{"policy":"{}"}}`,
		"a policy that is not": `{"address":"module.worker.y","mode":"managed","type":"aws_iam_role_policy","values":{"policy":"-"}}`,
		"another type":         `{"mode":"managed","type":"aws_cloudwatch_log_group","values":{"retention_in_days":"long"}}`,
	} {
		if _, err := readText(resources); err == nil {
			t.Errorf("%s is no error", what)
		}
	}
}
