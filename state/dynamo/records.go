package dynamo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
)

// batchKeys is how many items one BatchGetItem may ask for.
const batchKeys = 100

// Get implements state.Records.
func (s *Store) Get(ctx context.Context, p state.Partition, key state.Key) (state.Record, error) {
	absent := fmt.Errorf("%s of %s: %w", key, p, state.ErrNotFound)
	pk, ok := partitionKey(p)
	if !ok || !utf8.ValidString(key.String()) || reserved(key.Kind) {
		return state.Record{}, absent
	}
	it, err := s.getItem(ctx, "Get", s.table(key.Kind), pk, key.String())
	if err != nil {
		return state.Record{}, err
	}
	if it == nil {
		return state.Record{}, absent
	}
	_, r, found, err := fromItem(it, s.now())
	if err != nil {
		return state.Record{}, err
	}
	if !found {
		return state.Record{}, absent
	}
	return r, nil
}

// getItem reads consistently; nil if the item is not there.
func (s *Store) getItem(ctx context.Context, method, table, pk, sk string) (item, error) {
	var it item
	err := s.do(ctx, method, func(ctx context.Context) error {
		out, err := s.client.GetItem(ctx, &dynamodb.GetItemInput{
			TableName: &table, Key: itemKey(pk, sk), ConsistentRead: aws.Bool(true), ReturnConsumedCapacity: s.countCapacity(),
		})
		if err != nil {
			return err
		}
		s.spentOne(Capacity{Method: method, Read: 1}, out.ConsumedCapacity)
		it = out.Item
		return nil
	})
	return it, err
}

// GetMany implements state.Records.
func (s *Store) GetMany(ctx context.Context, p state.Partition, keys []state.Key) ([]state.Record, error) {
	pk, ok := partitionKey(p)
	if !ok {
		return nil, nil
	}
	type place struct{ table, sk string }
	seen := make(map[place]struct{}, len(keys))
	var asked []place
	for _, key := range keys {
		at := place{s.table(key.Kind), key.String()}
		if _, twice := seen[at]; twice || !utf8.ValidString(at.sk) || reserved(key.Kind) {
			continue
		}
		seen[at] = struct{}{}
		asked = append(asked, at)
	}
	var out []state.Record
	for len(asked) > 0 {
		n := min(batchKeys, len(asked))
		ask := map[string]types.KeysAndAttributes{}
		for _, at := range asked[:n] {
			k := ask[at.table]
			k.ConsistentRead = aws.Bool(true)
			k.Keys = append(k.Keys, itemKey(pk, at.sk))
			ask[at.table] = k
		}
		asked = asked[n:]
		now := s.now()
		err := s.getBatch(ctx, "GetMany", ask, func(it item) error {
			_, r, found, err := fromItem(it, now)
			if err == nil && found {
				out = append(out, r)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// getBatch hands over what is there of one batch. DynamoDB answers it in parts
// where it is over 16 MB, or where capacity runs short; the clock of RetryFor
// starts anew with each part.
func (s *Store) getBatch(ctx context.Context, method string, ask map[string]types.KeysAndAttributes, take func(item) error) error {
	for pause := time.Duration(0); len(ask) > 0; pause = min(max(shortest, 2*pause), longest) {
		if pause > 0 {
			if err := wait(ctx, rand.N(pause)); err != nil {
				return fmt.Errorf("%w: %s: %w", state.ErrUnavailable, method, err)
			}
		}
		var answer *dynamodb.BatchGetItemOutput
		err := s.do(ctx, method, func(ctx context.Context) (err error) {
			answer, err = s.client.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: ask, ReturnConsumedCapacity: s.countCapacity()})
			return err
		})
		if err != nil {
			return err
		}
		s.spent(Capacity{Method: method, Read: leastRead(ask) - leastRead(answer.UnprocessedKeys)}, answer.ConsumedCapacity...)
		for _, items := range answer.Responses {
			pause = 0 // it goes on
			for _, it := range items {
				if err := take(it); err != nil {
					return err
				}
			}
		}
		ask = answer.UnprocessedKeys
	}
	return nil
}

// batches hands over what is there of items of the fleet's table, in no order.
// how is how they are read.
func (s *Store) batches(ctx context.Context, method string, keys []item, how types.KeysAndAttributes, take func(item) error) error {
	for some := range slices.Chunk(keys, batchKeys) {
		how.Keys = some
		if err := s.getBatch(ctx, method, map[string]types.KeysAndAttributes{s.fleet: how}, take); err != nil {
			return err
		}
	}
	return nil
}
