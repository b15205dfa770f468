package dynamo

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
)

// clearedAtOnce is how many records a transaction deletes. Far more might exceed
// its 4 MB, should DynamoDB count what is deleted.
const clearedAtOnce = 12

// removing is the key of by-index that has the owner items of sessions that are
// removed and not cleared.
const removing = "removing"

// RemoveSession implements state.Owners. First, in one transaction, the owner
// item is marked as removed at the next epoch, which fences every commit, and
// META goes, with the wrapped keyset without which device state is unreadable.
// Then the other records are deleted. A call that fails on the way can be
// repeated with the same fence; Sweep or a new session of the name do the rest
// too.
func (s *Store) RemoveSession(ctx context.Context, f state.Fence) error {
	pk := pkSession + f.Session
	condition, names, values := ownedBy(f)
	names["#index"], names["#shard"], names["#dirty"] = attrIndex, attrShard, attrDirty
	values[":next"], values[":yes"], values[":removing"] = number(f.Epoch+1), yes(), text(removing)
	remove := func(table, sk string) types.TransactWriteItem {
		return types.TransactWriteItem{Delete: &types.Delete{TableName: &table, Key: itemKey(pk, sk)}}
	}
	err := s.transact(ctx, "RemoveSession", rand.Text(), []types.TransactWriteItem{
		{Update: &types.Update{
			TableName: &s.fleet, Key: itemKey(pk, skOwner), ConditionExpression: &condition,
			UpdateExpression:         aws.String("SET #epoch = :next, #removed = :yes, #dirty = :yes, #index = :removing REMOVE #owner, #shard"),
			ExpressionAttributeNames: names, ExpressionAttributeValues: values,
		}},
		remove(s.fleet, skSession),
		remove(s.fleet, state.Key{Kind: state.KindMeta}.String()),
	})
	fenced := fmt.Errorf("%s: %w", f, state.ErrFenced)
	if failed := failedAt(err); len(failed) > 0 {
		// It may be one's own removal, broken off before all was deleted.
		o, err := s.readOwner(ctx, "RemoveSession", f.Session)
		if err != nil {
			return err
		}
		if !o.dirty || o.Epoch != f.Epoch+1 {
			return fenced
		}
	} else if err := refusal(err, state.OfSession(f.Session), nil, fenced); err != nil {
		return err
	}
	return s.clear(ctx, "RemoveSession", f.Session, f.Epoch+1)
}

// Sweep finishes removals that broke off, because a process died on the way or the
// store could not be reached. It asks for half a unit where there are none; two
// that run at the same time do no harm.
func (s *Store) Sweep(ctx context.Context) error {
	found, err := s.owners(ctx, "Sweep", indexByIndex, attrIndex, []string{removing}, "", pageSize)
	if err != nil {
		return err
	}
	for _, listed := range found {
		// The index lags: what it says may be over, and the name be in use again.
		o, err := s.readOwner(ctx, "Sweep", listed.Session)
		if err != nil {
			return err
		}
		if !o.dirty {
			continue
		}
		if err := s.clear(ctx, "Sweep", o.Session, o.Epoch); err != nil {
			return fmt.Errorf("removal of session %s: %w", o.Session, err)
		}
	}
	return nil
}

// clear deletes what is left of a session that was removed, and notes that
// nothing is. Each transaction checks that the owner item is still that of the
// removal, at its epoch: two may clear at a time, and a slow one must not touch
// a new session of the name.
func (s *Store) clear(ctx context.Context, method, name string, epoch uint64) error {
	pk := pkSession + name
	names := map[string]string{"#epoch": attrEpoch, "#removed": attrRemoved}
	values := item{":epoch": number(epoch), ":yes": yes()}
	condition := aws.String("#epoch = :epoch AND #removed = :yes")
	check := types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{
		TableName: &s.fleet, Key: itemKey(pk, skOwner), ConditionExpression: condition,
		ExpressionAttributeNames: names, ExpressionAttributeValues: values,
	}}
	var batch []types.TransactWriteItem
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := s.transact(ctx, method, rand.Text(), append([]types.TransactWriteItem{check}, batch...))
		batch = batch[:0]
		return cleared(err, name)
	}
	for _, table := range []string{s.fleet, s.signal} {
		all := &dynamodb.QueryInput{
			TableName: &table, ConsistentRead: aws.Bool(true),
			KeyConditionExpression:    aws.String("pk = :pk"),
			ProjectionExpression:      aws.String("pk, sk"),
			ExpressionAttributeValues: item{":pk": text(pk)},
		}
		err := s.pages(ctx, method, all, func(it item) (bool, error) {
			sk := textOf(it, attrSK)
			if table == s.fleet && sk == skOwner {
				return true, nil
			}
			batch = append(batch, types.TransactWriteItem{Delete: &types.Delete{TableName: &table, Key: itemKey(pk, sk)}})
			if len(batch) < clearedAtOnce {
				return true, nil
			}
			return true, flush()
		})
		if err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	names = map[string]string{
		"#epoch": attrEpoch, "#removed": attrRemoved, "#dirty": attrDirty, "#index": attrIndex, "#order": attrOrder,
	}
	return cleared(s.transact(ctx, method, rand.Text(), []types.TransactWriteItem{{Update: &types.Update{
		TableName: &s.fleet, Key: itemKey(pk, skOwner), ConditionExpression: condition,
		UpdateExpression:         aws.String("REMOVE #dirty, #index, #order"),
		ExpressionAttributeNames: names, ExpressionAttributeValues: values,
	}}}), name)
}

// cleared reads the answer to a step of clear. That there is a new session by
// now means that somebody else has cleared everything.
func cleared(err error, name string) error {
	if len(failedAt(err)) > 0 {
		return nil
	}
	return refusal(err, state.OfSession(name), nil, nil)
}
