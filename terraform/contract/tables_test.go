package contract

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamotest"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// Tables that are made as Terraform makes them pass the look at the start and the
// suite that every store passes. The program makes none of its own here.
func TestTablesOfThePlan(t *testing.T) {
	all := examples(t)
	for _, m := range all {
		if m.from != "smallest/made" {
			continue
		}
		open := func(t *testing.T) state.Store {
			o := dynamotest.Options(t)
			o.Prefix = "holdfast"
			create(t, o, m.tables)
			s := dynamotest.Reopen(t, o)
			if err := s.Check(context.Background()); err != nil {
				t.Fatal(err)
			}
			return s
		}
		statetest.Store(t, open)
		return
	}
	t.Fatal("no run made the smallest example")
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
