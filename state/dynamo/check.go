package dynamo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Check compares the tables with Tables and says in one line all that is wrong
// with them; nil if nothing is. It is for the first start and for doctor: it
// needs DescribeTable and DescribeTimeToLive, which the store itself does not.
func (s *Store) Check(ctx context.Context) error {
	var faults []string
	for _, d := range s.tables {
		faults = append(faults, s.checkTable(ctx, d)...)
	}
	if len(faults) == 0 {
		return nil
	}
	return errors.New(strings.Join(faults, "; "))
}

func (s *Store) checkTable(ctx context.Context, d TableDefinition) (faults []string) {
	wrong := func(format string, args ...any) {
		faults = append(faults, fmt.Sprintf("table %s: ", d.Name)+fmt.Sprintf(format, args...))
	}
	out, err := s.client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &d.Name})
	if missing := (*types.ResourceNotFoundException)(nil); errors.As(err, &missing) {
		wrong("is missing in region %s; apply the Terraform module, or correct the table prefix", s.region)
		return faults
	}
	if err != nil {
		wrong("cannot be looked at: %v", helped(err, "dynamodb:DescribeTable on it"))
		return faults
	}
	t := out.Table
	if t.TableStatus != types.TableStatusActive && t.TableStatus != types.TableStatusUpdating {
		wrong("its status is %s, not ACTIVE; wait until it is", t.TableStatus)
	}
	kinds := map[string]string{}
	for _, a := range t.AttributeDefinitions {
		kinds[aws.ToString(a.AttributeName)] = string(a.AttributeType)
	}
	if got, want := described(t.KeySchema, kinds), keys(d.PartitionKey, d.SortKey); got != want {
		wrong("its key is %s, not %s; it must be made anew", got, want)
	}
	for _, x := range d.Indexes {
		i := slices.IndexFunc(t.GlobalSecondaryIndexes, func(g types.GlobalSecondaryIndexDescription) bool {
			return aws.ToString(g.IndexName) == x.Name
		})
		if i < 0 {
			wrong("its index %s is missing; apply the Terraform module", x.Name)
			continue
		}
		g := t.GlobalSecondaryIndexes[i]
		if got, want := described(g.KeySchema, kinds), keys(x.PartitionKey, x.SortKey); got != want {
			wrong("the key of its index %s is %s, not %s; the index must be made anew", x.Name, got, want)
		}
		if g.Projection == nil || string(g.Projection.ProjectionType) != x.Projection {
			wrong("its index %s does not project %s; the index must be made anew", x.Name, x.Projection)
		}
		if g.IndexStatus != types.IndexStatusActive && g.IndexStatus != types.IndexStatusUpdating {
			wrong("its index %s is %s, not ACTIVE; wait until it is", x.Name, g.IndexStatus)
		}
	}
	switch on, err := s.ttlAttribute(ctx, d); {
	case err != nil:
		faults = append(faults, err.Error())
	case on == "":
		wrong("TTL is off; turn it on for the attribute %s, or expired items stay for ever", d.TTLAttribute)
	case on != d.TTLAttribute:
		wrong("TTL is on for the attribute %s, not %s; change it", on, d.TTLAttribute)
	}
	return faults
}

// ttlAttribute is the attribute that TTL is on for, empty where it is off.
func (s *Store) ttlAttribute(ctx context.Context, d TableDefinition) (string, error) {
	out, err := s.client.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &d.Name})
	if err != nil {
		return "", fmt.Errorf("table %s: its TTL cannot be looked at: %w", d.Name, helped(err, "dynamodb:DescribeTimeToLive on it"))
	}
	ttl := out.TimeToLiveDescription
	if ttl == nil || ttl.TimeToLiveStatus != types.TimeToLiveStatusEnabled && ttl.TimeToLiveStatus != types.TimeToLiveStatusEnabling {
		return "", nil
	}
	return aws.ToString(ttl.AttributeName), nil
}

// keys and described write a key as "pk (S), sk (S)".
func keys(partition, sort Attribute) string {
	return fmt.Sprintf("%s (%s), %s (%s)", partition.Name, partition.Type, sort.Name, sort.Type)
}

func described(schema []types.KeySchemaElement, kinds map[string]string) string {
	var parts []string
	for _, k := range schema {
		name := aws.ToString(k.AttributeName)
		parts = append(parts, fmt.Sprintf("%s (%s)", name, kinds[name]))
	}
	return strings.Join(parts, ", ")
}
