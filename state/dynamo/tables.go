package dynamo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// The names of attributes and indexes. They are stored with every item and are
// therefore short.
const (
	attrPK      = "pk"
	attrSK      = "sk"
	attrValue   = "v"
	attrRev     = "rev"
	attrExpires = "xp"    // ms since 1970
	attrTTL     = "ttl"   // seconds since 1970, for DynamoDB's own removal
	attrIndex   = "ix"    // partition key of by-index
	attrOrder   = "ord"   // sort key of both indexes
	attrShard   = "shard" // partition key of by-shard
	attrOwner   = "owner"
	attrEpoch   = "epoch"
	attrRemoved = "removed"
	attrDirty   = "dirty" // removed, and not all of its records are deleted yet
	attrBeats   = "hb"    // the heartbeat counter
	attrDead    = "dead"  // there once the incarnation is dead
	attrLoad    = "load"  // JSON
	attrLife    = "life"  // alive or dead
	attrInfo    = "info"  // JSON
	attrJoined  = "joined"
	attrDrain   = "drain" // there while it is wanted
	attrIDs     = "ids"   // of all incarnations that are remembered
	attrJoins   = "joins" // how many numbers were given to those who joined

	indexByIndex = "by-index"
	indexByShard = "by-shard"
)

// Attribute is a key attribute and its type, which is S here throughout.
type Attribute struct{ Name, Type string }

// IndexDefinition is a global secondary index. It has only the items that have
// both of its keys.
type IndexDefinition struct {
	Name         string
	PartitionKey Attribute
	SortKey      Attribute
	Projection   string // ALL
}

// TableDefinition is what a table must be: whoever makes tables (a test,
// Terraform) makes them like this, and Store.Check compares.
type TableDefinition struct {
	Name         string
	PartitionKey Attribute
	SortKey      Attribute
	Indexes      []IndexDefinition
	TTLAttribute string
	BillingMode  string // PAY_PER_REQUEST; Check does not insist
}

// Tables are the tables of a fleet, by its prefix: first the control plane's,
// then that of device state.
func Tables(prefix string) []TableDefinition {
	byIndex := IndexDefinition{
		Name: indexByIndex, PartitionKey: Attribute{attrIndex, "S"}, SortKey: Attribute{attrOrder, "S"}, Projection: "ALL",
	}
	byShard := IndexDefinition{
		Name: indexByShard, PartitionKey: Attribute{attrShard, "S"}, SortKey: Attribute{attrOrder, "S"}, Projection: "ALL",
	}
	table := func(name string, indexes ...IndexDefinition) TableDefinition {
		return TableDefinition{
			Name: prefix + "-" + name, PartitionKey: Attribute{attrPK, "S"}, SortKey: Attribute{attrSK, "S"},
			Indexes: indexes, TTLAttribute: attrTTL, BillingMode: "PAY_PER_REQUEST",
		}
	}
	return []TableDefinition{table("fleet", byIndex, byShard), table("signal")}
}

// Create makes the tables that are missing and waits until they can be used, a
// minute at most each. In AWS they are better made by Terraform, which also sets
// what concerns operators only: backups, protection, tags.
func (s *Store) Create(ctx context.Context) error {
	for _, d := range s.tables {
		_, err := s.client.CreateTable(ctx, d.input())
		if there := (*types.ResourceInUseException)(nil); errors.As(err, &there) {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("table %s: cannot be made: %w", d.Name, short(err))
		}
		ready := dynamodb.NewTableExistsWaiter(s.client, func(o *dynamodb.TableExistsWaiterOptions) { o.MinDelay = 100 * time.Millisecond })
		if err := ready.Wait(ctx, &dynamodb.DescribeTableInput{TableName: &d.Name}, time.Minute); err != nil {
			return fmt.Errorf("table %s: is not ready: %w", d.Name, short(err))
		}
		on, err := s.ttlAttribute(ctx, d)
		if err != nil {
			return fmt.Errorf("table %s: %w", d.Name, ttlUnknown(err))
		}
		if on == d.TTLAttribute {
			continue
		}
		_, err = s.client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
			TableName: &d.Name,
			TimeToLiveSpecification: &types.TimeToLiveSpecification{
				AttributeName: &d.TTLAttribute, Enabled: aws.Bool(true),
			},
		})
		if err != nil {
			return fmt.Errorf("table %s: its TTL cannot be set: %w", d.Name, short(err))
		}
	}
	return nil
}

func (d TableDefinition) input() *dynamodb.CreateTableInput {
	in := &dynamodb.CreateTableInput{
		TableName: &d.Name, BillingMode: types.BillingMode(d.BillingMode), KeySchema: schema(d.PartitionKey, d.SortKey),
	}
	declared := map[string]bool{}
	declare := func(attributes ...Attribute) {
		for _, a := range attributes {
			if !declared[a.Name] {
				declared[a.Name] = true
				in.AttributeDefinitions = append(in.AttributeDefinitions,
					types.AttributeDefinition{AttributeName: &a.Name, AttributeType: types.ScalarAttributeType(a.Type)})
			}
		}
	}
	declare(d.PartitionKey, d.SortKey)
	for _, x := range d.Indexes {
		declare(x.PartitionKey, x.SortKey)
		in.GlobalSecondaryIndexes = append(in.GlobalSecondaryIndexes, types.GlobalSecondaryIndex{
			IndexName: &x.Name, KeySchema: schema(x.PartitionKey, x.SortKey),
			Projection: &types.Projection{ProjectionType: types.ProjectionType(x.Projection)},
		})
	}
	return in
}

func schema(partition, sort Attribute) []types.KeySchemaElement {
	return []types.KeySchemaElement{
		{AttributeName: &partition.Name, KeyType: types.KeyTypeHash},
		{AttributeName: &sort.Name, KeyType: types.KeyTypeRange},
	}
}
