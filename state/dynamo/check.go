package dynamo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/awsclient"
)

// The bounds of Check as a whole and of one of its requests. A person waits.
const (
	checkWithin  = 8 * time.Second
	checkRequest = 2500 * time.Millisecond
)

// Check compares the tables with Tables, tries each permission that the store
// needs without changing anything, and says in one line all that is wrong; nil if
// nothing is. It is for the first start and for doctor, takes 8 s at most, and
// needs DescribeTable and DescribeTimeToLive beside what the store needs. The error
// wraps state.ErrUnavailable if all that is wrong may pass by itself.
func (s *Store) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	looks, _ := together(len(s.tables), func(i int) (look, error) { return s.describe(ctx, s.tables[i]), nil })
	faults := s.outOfReach(looks)
	if len(faults) == 0 {
		found, _ := together(len(s.tables), func(i int) ([]fault, error) {
			return append(s.compare(ctx, s.tables[i], looks[i]), s.denied(ctx, s.tables[i], looks[i])...), nil
		})
		faults = slices.Concat(found...)
	}
	if len(faults) == 0 {
		return nil
	}
	var said []string
	passing := true
	for _, f := range faults {
		said = append(said, f.text)
		passing = passing && f.passes
	}
	if passing {
		return fmt.Errorf("%w: %s", state.ErrUnavailable, strings.Join(said, "; "))
	}
	return errors.New(strings.Join(said, "; "))
}

// fault is one thing that is wrong, and whether it may pass by itself.
type fault struct {
	text   string
	passes bool
}

func lasting(format string, args ...any) fault { return fault{text: fmt.Sprintf(format, args...)} }

// by is a fault that a request met: it passes where the request's error does.
func by(err error, format string, args ...any) fault {
	return fault{fmt.Sprintf(format, args...), awsclient.Passing(err)}
}

// look is what DescribeTable says.
type look struct {
	table   *types.TableDescription
	missing bool
	err     error // why it says nothing, where the table may be there
}

func (s *Store) describe(ctx context.Context, d TableDefinition) look {
	var l look
	err := s.ask(ctx, checkRequest, func(ctx context.Context) error {
		out, err := s.client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &d.Name})
		if err == nil {
			l.table = out.Table
		}
		return err
	})
	if missing := (*types.ResourceNotFoundException)(nil); errors.As(err, &missing) {
		l.missing = true
		return l
	}
	l.err = err
	return l
}

// outOfReach tells what is wrong with all tables alike: they are not there, or
// nothing answers or lets anybody in.
func (s *Store) outOfReach(looks []look) []fault {
	missing, silent := 0, 0
	var names []string
	for i, l := range looks {
		names = append(names, s.tables[i].Name)
		if l.missing {
			missing++
		}
		if l.err != nil && !awsclient.Denied(l.err) {
			silent++
		}
	}
	switch {
	case missing == len(looks):
		return []fault{lasting("tables of prefix %s: %s do not exist in %s; create them with the Terraform module or `holdfast doctor --create-tables`, "+
			"or correct the prefix or the region", s.prefix, strings.Join(names, " and "), s.place)}
	case silent == len(looks):
		return []fault{by(looks[0].err, "DynamoDB in %s: %v", s.place, helped(looks[0].err, "dynamodb:DescribeTable"))}
	}
	return nil
}

// compare tells where a table is not what it is defined as.
func (s *Store) compare(ctx context.Context, d TableDefinition, l look) []fault {
	table := "table " + d.Name
	switch {
	case l.missing:
		return []fault{lasting("%s: is missing in %s; create it with the Terraform module or `holdfast doctor --create-tables`", table, s.place)}
	case l.err != nil:
		return []fault{by(l.err, "%s: cannot be looked at: %v", table, helped(l.err, "dynamodb:DescribeTable on it"))}
	}
	var faults []fault
	wrong := func(format string, args ...any) { faults = append(faults, lasting(table+": "+format, args...)) }
	wait := func(format string, args ...any) {
		faults = append(faults, fault{fmt.Sprintf(table+": "+format+", not ACTIVE; wait until it is", args...), true})
	}
	t := l.table
	if t.TableStatus != types.TableStatusActive && t.TableStatus != types.TableStatusUpdating {
		wait("its status is %s", t.TableStatus)
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
			wait("its index %s is %s", x.Name, g.IndexStatus)
		}
	}
	switch on, err := s.ttlAttribute(ctx, d); {
	case err != nil:
		faults = append(faults, by(err, "%s: %v", table, ttlUnknown(err)))
	case on == "":
		wrong("TTL is off; turn it on for the attribute %s, or expired items stay for ever", d.TTLAttribute)
	case on != d.TTLAttribute:
		wrong("TTL is on for the attribute %s, not %s; change it", on, d.TTLAttribute)
	}
	return faults
}

// ttlAttribute is the attribute that TTL is on for, empty where it is off. Its
// error is the SDK's.
func (s *Store) ttlAttribute(ctx context.Context, d TableDefinition) (string, error) {
	var ttl *types.TimeToLiveDescription
	err := s.ask(ctx, checkRequest, func(ctx context.Context) error {
		out, err := s.client.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &d.Name})
		if err == nil {
			ttl = out.TimeToLiveDescription
		}
		return err
	})
	if err != nil || ttl == nil || ttl.TimeToLiveStatus != types.TimeToLiveStatusEnabled && ttl.TimeToLiveStatus != types.TimeToLiveStatusEnabling {
		return "", err
	}
	return aws.ToString(ttl.AttributeName), nil
}

func ttlUnknown(err error) error {
	return fmt.Errorf("its TTL cannot be looked at: %w", helped(err, "dynamodb:DescribeTimeToLive on it"))
}

// denied tells what the role may not do with a table. Nothing is changed: the
// condition of each write contradicts itself, and DynamoDB looks at permissions
// before conditions.
func (s *Store) denied(ctx context.Context, d TableDefinition, l look) (faults []fault) {
	if l.missing {
		return nil
	}
	key, never := itemKey(pkFleet, "PING"), aws.String("attribute_exists(pk) AND attribute_not_exists(pk)")
	write := func(it types.TransactWriteItem) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := s.client.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{it}})
			return err
		}
	}
	query := func(index *string, attribute string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := s.client.Query(ctx, &dynamodb.QueryInput{
				TableName: &d.Name, IndexName: index, KeyConditionExpression: aws.String("#key = :key"), Limit: aws.Int32(1),
				ExpressionAttributeNames:  map[string]string{"#key": attribute},
				ExpressionAttributeValues: item{":key": text("PING")},
			})
			return err
		}
	}
	type probe struct {
		action string
		try    func(context.Context) error
	}
	probes := []probe{
		{"GetItem", func(ctx context.Context) error {
			_, err := s.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &d.Name, Key: key})
			return err
		}},
		{"BatchGetItem", func(ctx context.Context) error {
			ask := map[string]types.KeysAndAttributes{d.Name: {Keys: []map[string]types.AttributeValue{key}}}
			_, err := s.client.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: ask})
			return err
		}},
		{"Query", query(nil, attrPK)},
		{"PutItem", write(types.TransactWriteItem{Put: &types.Put{TableName: &d.Name, Item: key, ConditionExpression: never}})},
		{"UpdateItem", write(types.TransactWriteItem{Update: &types.Update{
			TableName: &d.Name, Key: key, ConditionExpression: never, UpdateExpression: aws.String("REMOVE #none"),
			ExpressionAttributeNames: map[string]string{"#none": "none"},
		}})},
		{"DeleteItem", write(types.TransactWriteItem{Delete: &types.Delete{TableName: &d.Name, Key: key, ConditionExpression: never}})},
		{"ConditionCheckItem", write(types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{
			TableName: &d.Name, Key: key, ConditionExpression: never,
		}})},
	}
	for _, x := range d.Indexes {
		probes = append(probes, probe{"Query on its index " + x.Name, query(&x.Name, x.PartitionKey.Name)})
	}
	errs, _ := together(len(probes), func(i int) (error, error) { return s.ask(ctx, checkRequest, probes[i].try), nil })
	var lacks []string
	var why, other error
	for i, err := range errs {
		missing := (*types.ResourceNotFoundException)(nil)
		switch {
		case err == nil, final(err), wrong(err), errors.As(err, &missing): // what is missing is told by compare
		case awsclient.Denied(err):
			lacks = append(lacks, "dynamodb:"+probes[i].action)
			why = err
		default:
			other = err
		}
	}
	if len(lacks) > 0 {
		faults = append(faults, lasting("table %s: the role may not do all that it must: %v; allow it %s", d.Name, short(why), strings.Join(lacks, ", ")))
	}
	if other != nil {
		faults = append(faults, by(other, "table %s: cannot be tried: %v", d.Name, helped(other, "reading and writing of it")))
	}
	return faults
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
