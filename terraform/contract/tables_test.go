package contract

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamotest"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// planned is what the plan of an example says of tables.
type planned struct {
	example string
	tables  []dynamo.TableDefinition
}

// readPlan reads what terraform show -json prints of a plan. Of tables it knows
// everything; policies and containers it does not know before they are made.
func readPlan(file string) ([]planned, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p := planned{example: strings.TrimSuffix(filepath.Base(file), ".json")}
	var plan struct {
		Values struct {
			Root module `json:"root_module"`
		} `json:"planned_values"`
	}
	if err := json.Unmarshal(text, &plan); err != nil {
		return nil, fmt.Errorf("%s: %w", p.example, err)
	}
	for _, r := range plan.Values.Root.all() {
		if r.Type != "aws_dynamodb_table" {
			continue
		}
		var t table
		if err := json.Unmarshal(r.Values, &t); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", p.example, r.Address, err)
		}
		p.tables = append(p.tables, t.definition())
	}
	return []planned{p}, nil
}

// plans are those of all examples. Without a stand-in a plan wants an account;
// what the mocked provider has made stands for it then.
func plans(t *testing.T) []planned {
	t.Helper()
	made := examples(t)
	if os.Getenv(providerDir) == "" {
		var all []planned
		for _, m := range made {
			all = append(all, planned{example: strings.TrimSuffix(m.from, "/made"), tables: m.tables})
		}
		return all
	}
	all, err := checked("plans", readPlan)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Tables that are made as the plan says pass the look at the start and the suite
// that every store passes. The program makes none of its own here.
func TestTablesOfThePlan(t *testing.T) {
	var smallest []dynamo.TableDefinition
	for _, p := range plans(t) {
		// The prefix is the example's own to choose.
		prefix := "none"
		if len(p.tables) > 0 {
			prefix = strings.TrimSuffix(p.tables[0].Name, "-fleet")
		}
		for _, f := range compareTables(p.tables, dynamo.Tables(prefix)) {
			t.Errorf("%s: %s", p.example, f)
		}
		if p.example == "smallest" {
			smallest = p.tables
		}
	}
	if smallest == nil {
		t.Fatal("no plan of the smallest example")
	}
	open := func(t *testing.T) state.Store {
		o := dynamotest.Options(t)
		o.Prefix = "holdfast"
		create(t, o, smallest)
		s := dynamotest.Reopen(t, o)
		if err := s.Check(context.Background()); err != nil {
			t.Fatal(err)
		}
		return s
	}
	statetest.Store(t, open)
}

// create makes tables in DynamoDB Local by what Terraform says of them alone.
func create(t *testing.T, o dynamo.Options, tables []dynamo.TableDefinition) {
	t.Helper()
	ctx := context.Background()
	client := dynamodb.New(dynamodb.Options{Region: o.Region, BaseEndpoint: &o.Endpoint, Credentials: o.Credentials, HTTPClient: o.HTTPClient})
	for _, d := range tables {
		kinds := map[string]string{d.PartitionKey.Name: d.PartitionKey.Type, d.SortKey.Name: d.SortKey.Type}
		in := &dynamodb.CreateTableInput{TableName: &d.Name, BillingMode: types.BillingMode(d.BillingMode), KeySchema: keySchema(d.PartitionKey, d.SortKey)}
		for _, x := range d.Indexes {
			kinds[x.PartitionKey.Name], kinds[x.SortKey.Name] = x.PartitionKey.Type, x.SortKey.Type
			in.GlobalSecondaryIndexes = append(in.GlobalSecondaryIndexes, types.GlobalSecondaryIndex{
				IndexName: &x.Name, KeySchema: keySchema(x.PartitionKey, x.SortKey),
				Projection: &types.Projection{ProjectionType: types.ProjectionType(x.Projection)},
			})
		}
		for name, kind := range kinds {
			in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{
				AttributeName: &name, AttributeType: types.ScalarAttributeType(kind),
			})
		}
		if _, err := client.CreateTable(ctx, in); err != nil {
			t.Fatalf("%s: %v", d.Name, err)
		}
		if _, err := client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: &d.Name,
			TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: &d.TTLAttribute, Enabled: aws.Bool(true)}}); err != nil {
			t.Fatalf("%s: %v", d.Name, err)
		}
	}
}

func keySchema(partition, sort dynamo.Attribute) []types.KeySchemaElement {
	return []types.KeySchemaElement{
		{AttributeName: &partition.Name, KeyType: types.KeyTypeHash},
		{AttributeName: &sort.Name, KeyType: types.KeyTypeRange},
	}
}
