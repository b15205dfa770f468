package dynamo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
)

// Commit implements state.Records.
func (s *Store) Commit(ctx context.Context, f state.Fence, token string, writes []state.Write) error {
	if err := checked(writes, true); err != nil {
		return err
	}
	now := s.now()
	var p promise
	requestToken := rand.Text()
	if token != "" {
		p = s.pending.begin(f, token, now, conditional(writes))
		now, requestToken = p.at, p.requestToken()
	}
	pk := pkSession + f.Session
	items := append([]types.TransactWriteItem{s.fenceHolds(f)}, s.items(pk, writes, now)...)
	err := s.transact(ctx, "Commit", requestToken, items)
	if used := (*types.IdempotentParameterMismatchException)(nil); token != "" && errors.As(err, &used) {
		// A commit with this token has happened: what was refused left none behind.
		return nil
	}
	err = refusal(err, state.OfSession(f.Session), writes, fmt.Errorf("%s: %w", f, state.ErrFenced))
	if token != "" && errors.Is(err, state.ErrConflict) {
		s.pending.refused(p, s.now())
	}
	return err
}

// Update implements state.Records.
func (s *Store) Update(ctx context.Context, p state.Partition, writes []state.Write) error {
	if err := checked(writes, false); err != nil {
		return err
	}
	pk, ok := partitionKey(p)
	if !ok {
		return fmt.Errorf("partition %q: is neither a session's nor the fleet's", p)
	}
	name, ofSession := p.Session()
	items := s.items(pk, writes, s.now())
	if !ofSession {
		if len(items) == 0 {
			return s.Ping(ctx)
		}
		return refusal(s.transact(ctx, "Update", rand.Text(), items), p, writes, nil)
	}
	exists := types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{
		TableName: &s.fleet, Key: itemKey(pk, skSession), ConditionExpression: aws.String("attribute_exists(pk)"),
	}}
	err := s.transact(ctx, "Update", rand.Text(), append([]types.TransactWriteItem{exists}, items...))
	return refusal(err, p, writes, fmt.Errorf("session %s: %w", name, state.ErrNotFound))
}

// checked refuses a batch that breaks the contract's bounds or cannot be stored.
func checked(writes []state.Write, fenced bool) error {
	if err := state.Check(writes, fenced); err != nil {
		return err
	}
	return storable(writes)
}

func conditional(writes []state.Write) bool {
	for _, w := range writes {
		if !w.If.Always() {
			return true
		}
	}
	return false
}

// transact makes all writes or none, once, however often it has to ask. The
// token must be new, or that of the same request.
func (s *Store) transact(ctx context.Context, method, token string, items []types.TransactWriteItem) error {
	in := &dynamodb.TransactWriteItemsInput{
		TransactItems: items, ClientRequestToken: &token, ReturnConsumedCapacity: s.countCapacity(),
	}
	return s.do(ctx, method, func(ctx context.Context) error {
		out, err := s.client.TransactWriteItems(ctx, in)
		if err == nil && s.onCapacity != nil {
			s.spent(Capacity{Method: method, Write: leastWrite(items)}, out.ConsumedCapacity...)
		}
		return err
	})
}

// refusal turns what transact returns into the contract's errors. first is the
// error of the transaction's first item, which comes before the writes; nil if
// the writes are all there is.
func refusal(err error, p state.Partition, writes []state.Write, first error) error {
	if err == nil || errors.Is(err, state.ErrUnavailable) {
		return err
	}
	failed := failedAt(err)
	if len(failed) == 0 {
		return fmt.Errorf("%d writes of %s: %w", len(writes), p, short(err))
	}
	at := failed[0]
	if first != nil {
		if at == 0 {
			return first
		}
		at--
	}
	return fmt.Errorf("%s of %s: %w", writes[at].Key, p, state.ErrConflict)
}

// fenceHolds is the check that stands before every commit.
func (s *Store) fenceHolds(f state.Fence) types.TransactWriteItem {
	condition, names, values := ownedBy(f)
	return types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{
		TableName: &s.fleet, Key: itemKey(pkSession+f.Session, skOwner),
		ConditionExpression: &condition, ExpressionAttributeNames: names, ExpressionAttributeValues: values,
	}}
}

// ownedBy is the condition that an owner item is a fence's.
func ownedBy(f state.Fence) (condition string, names map[string]string, values item) {
	return "#owner = :owner AND #epoch = :epoch AND attribute_not_exists(#removed)",
		map[string]string{"#owner": attrOwner, "#epoch": attrEpoch, "#removed": attrRemoved},
		item{":owner": text(f.Owner), ":epoch": number(f.Epoch)}
}

// items are the writes as parts of a transaction.
func (s *Store) items(pk string, writes []state.Write, now time.Time) []types.TransactWriteItem {
	var out []types.TransactWriteItem
	for _, w := range writes {
		table := s.table(w.Key.Kind)
		condition, names, values := holds(w.If, now)
		if w.Delete {
			out = append(out, types.TransactWriteItem{Delete: &types.Delete{
				TableName: &table, Key: itemKey(pk, w.Key.String()),
				ConditionExpression: condition, ExpressionAttributeNames: names, ExpressionAttributeValues: values,
			}})
			continue
		}
		out = append(out, types.TransactWriteItem{Put: &types.Put{
			TableName: &table, Item: toItem(pk, w.Record),
			ConditionExpression: condition, ExpressionAttributeNames: names, ExpressionAttributeValues: values,
		}})
	}
	return out
}

// holds is a condition in DynamoDB's words. An expired item is as good as none,
// whether or not DynamoDB has removed it yet.
func holds(c state.Condition, now time.Time) (condition *string, names map[string]string, values item) {
	always, absent, _, compare, rev := c.Split()
	if always {
		return nil, nil, nil
	}
	names = map[string]string{"#xp": attrExpires}
	values = item{":now": number(millis(now, false))}
	if absent {
		return aws.String("attribute_not_exists(pk) OR #xp <= :now"), names, values
	}
	words := "attribute_exists(pk) AND (attribute_not_exists(#xp) OR #xp > :now)"
	if compare {
		words += " AND #rev = :rev"
		names["#rev"] = attrRev
		values[":rev"] = number(rev)
	}
	return &words, names, values
}
