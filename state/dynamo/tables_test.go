package dynamo_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamotest"
)

// raw is a client for what the store does not do by itself.
func raw(o dynamo.Options) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		Region: o.Region, BaseEndpoint: &o.Endpoint, Credentials: o.Credentials, HTTPClient: o.HTTPClient,
		DisableValidateResponseChecksum: true,
	})
}

func TestTables(t *testing.T) {
	tables := dynamo.Tables("wa")
	if len(tables) != 2 || tables[0].Name != "wa-fleet" || tables[1].Name != "wa-signal" {
		t.Fatalf("the tables are %+v", tables)
	}
	for _, d := range tables {
		if d.BillingMode != "PAY_PER_REQUEST" || d.TTLAttribute != "ttl" || d.PartitionKey.Name != "pk" || d.SortKey.Name != "sk" {
			t.Errorf("%+v", d)
		}
	}
}

// checked is what Check says, which is one line.
func checked(t *testing.T, s *dynamo.Store) string {
	t.Helper()
	err := s.Check(context.Background())
	if err == nil {
		return ""
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than a line: %v", err)
	}
	return err.Error()
}

func TestCheck(t *testing.T) {
	ctx := context.Background()
	o := dynamotest.Options(t)
	w := &wire{next: o.HTTPClient}
	o.HTTPClient = w
	s, client := dynamotest.Reopen(t, o), raw(o)
	says := func(when string, want ...string) {
		t.Helper()
		got := checked(t, s)
		if len(want) == 0 && got != "" {
			t.Errorf("%s: %s", when, got)
		}
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %q does not say %q", when, got, part)
			}
		}
	}
	says("without tables", "tables of prefix test: test-fleet and test-signal do not exist in region eu-west-1", "holdfast doctor --create-tables")
	if err := s.Commit(ctx, state.Fence{Session: "a"}, "", nil); !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a commit without tables: %v", err)
	}
	if err := s.Ping(ctx); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("a ping without tables: %v", err)
	}
	if _, err := s.Identity(ctx); !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "test-fleet cannot be had: it does not exist") {
		t.Errorf("the identity without tables: %v", err)
	}

	s1 := func(name string) types.AttributeDefinition {
		return types.AttributeDefinition{AttributeName: &name, AttributeType: types.ScalarAttributeTypeS}
	}
	key := func(name string, kind types.KeyType) types.KeySchemaElement {
		return types.KeySchemaElement{AttributeName: &name, KeyType: kind}
	}
	if _, err := client.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: aws.String("test-fleet"), BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{s1("pk"), s1("other"), s1("ix")},
		KeySchema:            []types.KeySchemaElement{key("pk", types.KeyTypeHash), key("other", types.KeyTypeRange)},
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{
			IndexName: aws.String("by-index"), KeySchema: []types.KeySchemaElement{key("ix", types.KeyTypeHash)},
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly},
		}},
	}); err != nil {
		t.Fatal(err)
	}
	says("with a wrong table", "table test-fleet: its key is pk (S), other (S), not pk (S), sk (S)", "TTL is off",
		"the key of its index by-index is ix (S), not ix (S), ord (S)", "by-index does not project ALL", "its index by-shard is missing",
		"table test-signal: is missing")
	if _, err := client.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: aws.String("test-fleet")}); err != nil {
		t.Fatal(err)
	}

	for range 2 { // once more is no error
		if err := s.Create(ctx); err != nil {
			t.Fatal(err)
		}
		says("with tables")
	}
	if err := s.Ping(ctx); err != nil {
		t.Errorf("a ping: %v", err)
	}
	rewrite := func(old, replaced string) fault {
		return func(w *wire, r *http.Request) (*http.Response, error) {
			resp, err := w.next.Do(r)
			if err != nil {
				return nil, err
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				return nil, err
			}
			if err := resp.Body.Close(); err != nil {
				return nil, err
			}
			return answer(r, resp.StatusCode, strings.ReplaceAll(string(body), old, replaced))
		}
	}
	w.set(always(rewrite(`"ACTIVE"`, `"DELETING"`)))
	says("while a table is deleted", "its status is DELETING, not ACTIVE", "its index by-index is DELETING")
	w.set(always(rewrite(`"AttributeName":"ttl"`, `"AttributeName":"expires"`)))
	says("with another TTL", "table test-signal: TTL is on for the attribute expires, not ttl")
	w.set(always(refuse(400, "AccessDeniedException")))
	says("without any permission", "table test-fleet: cannot be looked at: AccessDeniedException", "allow dynamodb:DescribeTable on it for this role",
		"table test-signal: the role may not do all that it must", "dynamodb:GetItem, dynamodb:BatchGetItem, dynamodb:Query, dynamodb:PutItem, "+
			"dynamodb:UpdateItem, dynamodb:DeleteItem, dynamodb:ConditionCheckItem")
}

// Each permission that is missing is told by its name and its table, and trying
// them leaves nothing behind.
func TestCheckPermissions(t *testing.T) {
	var o dynamo.Options
	s, w := wired(t, func(x *dynamo.Options) { o = *x })
	for action, c := range map[string]struct {
		op   string
		with []string // in the request
	}{
		"dynamodb:GetItem":                     {"GetItem", nil},
		"dynamodb:BatchGetItem":                {"BatchGetItem", nil},
		"dynamodb:PutItem":                     {"TransactWriteItems", []string{`"Put"`}},
		"dynamodb:UpdateItem":                  {"TransactWriteItems", []string{`"Update"`}},
		"dynamodb:DeleteItem":                  {"TransactWriteItems", []string{`"Delete"`}},
		"dynamodb:ConditionCheckItem":          {"TransactWriteItems", []string{`"ConditionCheck"`}},
		"dynamodb:Query on its index by-shard": {"Query", []string{"by-shard"}},
		"dynamodb:DescribeTable":               {"DescribeTable", nil},
		"dynamodb:DescribeTimeToLive":          {"DescribeTimeToLive", nil},
	} {
		w.set(func(r request) fault {
			for _, part := range append(c.with, "test-fleet") {
				if !strings.Contains(r.Body, part) {
					return nil
				}
			}
			if r.Op != c.op {
				return nil
			}
			return refuse(400, "AccessDeniedException")
		})
		got := checked(t, s)
		if !strings.HasPrefix(got, "table test-fleet: ") || !strings.Contains(got, "allow") || !strings.Contains(got, action) || strings.Contains(got, "test-signal") {
			t.Errorf("without %s: %q", action, got)
		}
	}
	w.set(nil)
	if got := checked(t, s); got != "" {
		t.Errorf("with all permissions: %s", got)
	}
	for _, table := range []string{"test-fleet", "test-signal"} {
		if left := items(t, raw(o), table); len(left) > 0 {
			t.Errorf("%s holds %v", table, left)
		}
	}
	// Without an answer it is no verdict; with one it is.
	w.set(func(r request) fault {
		if r.Op == "DescribeTimeToLive" {
			return refuse(500, "InternalServerError")
		}
		return nil
	})
	short, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := s.Check(short); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("a service with a fault: %v", err)
	}
	w.set(always(refuse(400, "AccessDeniedException")))
	if err := s.Check(context.Background()); err == nil || errors.Is(err, state.ErrUnavailable) {
		t.Errorf("a missing permission: %v", err)
	}
	// Where DynamoDB says what it is about, that is passed on.
	w.set(always(func(_ *wire, r *http.Request) (*http.Response, error) {
		return answer(r, 400, `{"__type":"com.amazonaws.dynamodb.v20120810#AccessDeniedException","message":"User: arn:aws:sts::1:assumed-role/x/y `+
			`is not authorized to perform: dynamodb:ConditionCheckItem on resource: arn:aws:dynamodb:eu-west-1:1:table/test-fleet because of a policy"}`)
	}))
	err := s.Commit(context.Background(), state.Fence{Session: "a"}, "", nil)
	if want := "allow dynamodb:ConditionCheckItem on arn:aws:dynamodb:eu-west-1:1:table/test-fleet for this role"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a commit without permission: %v", err)
	}
}

// What is wrong with all requests is told once, and in time.
func TestCheckOutOfReach(t *testing.T) {
	for name, c := range map[string]struct {
		fault  fault
		want   string
		passes bool
	}{
		"no answer":           {swallowed, "it did not answer in time; check the region", true},
		"expired credentials": {refuse(400, "ExpiredTokenException"), "the credentials have expired; renew them", false},
		"no such key":         {refuse(400, "UnrecognizedClientException"), "the credentials are not accepted", false},
		"throttling":          {refuse(400, "ThrottlingException"), "the service is throttling", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, w := wired(t)
			w.set(always(c.fault))
			started := time.Now()
			got := checked(t, s)
			if !strings.Contains(got, "DynamoDB in region eu-west-1 at http") || !strings.Contains(got, c.want) || strings.Contains(got, "; table") {
				t.Errorf("it says %q", got)
			}
			if took := time.Since(started); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			brief := func(call func(context.Context) error) error {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				return call(ctx)
			}
			for what, err := range map[string]error{"Reach": brief(s.Reach), "Check": brief(s.Check)} {
				if err == nil || errors.Is(err, state.ErrUnavailable) != c.passes {
					t.Errorf("%s: %v", what, err)
				}
			}
			err := brief(func(ctx context.Context) error { _, err := s.Identity(ctx); return err })
			if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the identity: %v", err)
			}
		})
	}
}

// Tables that were made anew are others, whatever their names.
func TestIdentity(t *testing.T) {
	ctx := context.Background()
	o := dynamotest.Options(t)
	first, second := dynamotest.Reopen(t, o), dynamotest.Reopen(t, o)
	if err := first.Create(ctx); err != nil {
		t.Fatal(err)
	}
	identity := func(s *dynamo.Store) string {
		t.Helper()
		id, err := s.Identity(ctx)
		if err != nil || id == "" || strings.Contains(id, "test") {
			t.Fatalf("the identity is %q, %v", id, err)
		}
		return id
	}
	before := identity(first)
	if err := first.CreateSession(ctx, "a", nil); err != nil {
		t.Fatal(err)
	}
	if again := identity(second); again != before {
		t.Errorf("the identity is %s and %s", before, again)
	}
	seen := map[string]bool{before: true}
	for _, table := range []string{"test-fleet", "test-signal"} {
		if _, err := raw(o).DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &table}); err != nil {
			t.Fatal(err)
		}
		if err := first.Create(ctx); err != nil {
			t.Fatal(err)
		}
		after := identity(first)
		if seen[after] {
			t.Errorf("%s is another one, and the identity is still %s", table, after)
		}
		seen[after] = true
	}

	// AWS gives ids; DynamoDB Local does not.
	w := &wire{next: o.HTTPClient}
	o.HTTPClient = w
	w.set(always(func(w *wire, r *http.Request) (*http.Response, error) {
		resp, err := w.next.Do(r)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		named := strings.NewReplacer(`"TableName":"test-fleet"`, `"TableName":"test-fleet","TableId":"11-22"`,
			`"TableName":"test-signal"`, `"TableName":"test-signal","TableId":"33-44"`)
		return answer(r, resp.StatusCode, named.Replace(string(body)))
	}))
	if id := identity(dynamotest.Reopen(t, o)); id != "11-22+33-44" {
		t.Errorf("with ids the identity is %s", id)
	}
}

func TestOpen(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	t.Setenv("AWS_CONFIG_FILE", "/nowhere")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
	for want, o := range map[string]dynamo.Options{
		`table prefix ""`:    {Region: "eu-west-1"},
		`table prefix "a/b"`: {Region: "eu-west-1", Prefix: "a/b"},
		"no region":          {Prefix: "wa-x"},
		"the endpoint":       {Prefix: "wa-x", Region: "eu-west-1", Endpoint: "db"},
		"retry time":         {Region: "eu-west-1", Prefix: "wa-x", RetryFor: -1},
	} {
		if _, err := dynamo.Open(context.Background(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// Without credentials a call fails at once, and says why.
func TestNoCredentials(t *testing.T) {
	s, err := dynamo.Open(context.Background(), dynamo.Options{
		Prefix: "wa-x", Region: "eu-west-1", Endpoint: "http://127.0.0.1:1", HTTPClient: &wire{},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{}, errors.New("no role")
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.Owner(context.Background(), "a")
	if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "no role") || strings.Contains(err.Error(), "gave up") {
		t.Errorf("the error is %v", err)
	}
}
