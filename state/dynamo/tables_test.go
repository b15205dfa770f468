package dynamo_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

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
	says("without tables", "table test-fleet: is missing in region eu-west-1;", "table test-signal: is missing")
	if err := s.Commit(ctx, state.Fence{Session: "a"}, "", nil); !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a commit without tables: %v", err)
	}
	if err := s.Ping(ctx); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("a ping without tables: %v", err)
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
	says("without permission", "table test-fleet: cannot be looked at: AccessDeniedException", "allow dynamodb:DescribeTable on it for this role")
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
