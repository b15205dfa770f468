package dynamo

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/holdfast-wa/holdfast/state"
)

// pageBytes ends a page of a query early. DynamoDB answers 1 MB at a time.
const pageBytes = 8 << 20

// Query implements state.Records.
func (s *Store) Query(ctx context.Context, p state.Partition, q state.Query) (state.Page, error) {
	pk, ok := partitionKey(p)
	if !ok || !utf8.ValidString(string(q.Kind)) {
		return state.Page{}, nil
	}
	if !utf8.ValidString(q.After) {
		return state.Page{}, fmt.Errorf("query of %s: %q, to go on after, is not an id", q.Kind, q.After)
	}
	from, to := span(q)
	if from > to {
		return state.Page{}, nil
	}
	limit := limited(q.Limit)
	in := &dynamodb.QueryInput{
		TableName: aws.String(s.table(q.Kind)), ConsistentRead: aws.Bool(true), ScanIndexForward: aws.Bool(!q.Descending),
		KeyConditionExpression:    aws.String("pk = :pk AND sk BETWEEN :from AND :to"),
		ExpressionAttributeValues: item{":pk": text(pk), ":from": text(from), ":to": text(to)},
		// One more tells whether there is more, and one is After itself.
		Limit: aws.Int32(int32(min(limit, 10*pageSize) + 2)),
	}
	var page state.Page
	size := 0
	err := s.pages(ctx, "Query", in, func(it item) (bool, error) {
		key := keyOf(textOf(it, attrSK))
		if key.Kind != q.Kind || !strings.HasPrefix(key.ID, q.Prefix) || q.After != "" && key.ID == q.After {
			return true, nil
		}
		if reserved(key.Kind) {
			return true, nil
		}
		_, r, found, err := fromItem(it, s.now())
		if err != nil || !found {
			return true, err
		}
		if len(page.Records) == limit || size > pageBytes {
			page.More = true
			return false, nil
		}
		size += len(r.Value)
		page.Records = append(page.Records, r)
		return true, nil
	})
	if err != nil {
		return state.Page{}, err
	}
	return page, nil
}

// span is the range of sort keys, both ends included, that a query's records
// are in. It may hold a few others, at its ends.
func span(q state.Query) (from, to string) {
	whole := whole(q.Prefix)
	from, to = string(q.Kind), string(q.Kind)+"#"+whole
	if whole != "" {
		from = to
	}
	to = past(to)
	if q.After == "" {
		return from, to
	}
	after := string(q.Kind) + "#" + q.After
	if q.Descending {
		return from, min(to, after)
	}
	return max(from, after), to
}

// whole is a prefix without what of its last character is not there.
func whole(prefix string) string {
	for !utf8.ValidString(prefix) && prefix != "" {
		prefix = prefix[:len(prefix)-1]
	}
	return prefix
}

// past is the least text that is greater than all that begin with a prefix.
// The prefix has a character below the last one of Unicode.
func past(prefix string) string {
	r := []rune(prefix)
	for r[len(r)-1] == utf8.MaxRune {
		r = r[:len(r)-1]
	}
	if r[len(r)-1]++; r[len(r)-1] == 0xD800 {
		r[len(r)-1] = 0xE000 // surrogates are no characters
	}
	return string(r)
}

// pages hands over what a query finds, item by item, until take says that it
// has enough.
func (s *Store) pages(ctx context.Context, method string, in *dynamodb.QueryInput, take func(item) (more bool, err error)) error {
	in.ReturnConsumedCapacity = s.countCapacity()
	for {
		var out *dynamodb.QueryOutput
		err := s.do(ctx, method, func(ctx context.Context) (err error) {
			out, err = s.client.Query(ctx, in)
			return err
		})
		if err != nil {
			return err
		}
		least := Capacity{Method: method, Read: 0.5}
		if aws.ToBool(in.ConsistentRead) {
			least.Read = 1
		}
		s.spentOne(least, out.ConsumedCapacity)
		for _, it := range out.Items {
			if more, err := take(it); !more || err != nil {
				return err
			}
		}
		if len(out.LastEvaluatedKey) == 0 {
			return nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

// Indexed implements state.Records. Device state is in no index, and its table
// has none.
func (s *Store) Indexed(ctx context.Context, index string, after *state.Indexed, limit int) ([]state.Indexed, error) {
	if index == "" || !utf8.ValidString(index) {
		return nil, nil
	}
	start := ""
	if after != nil {
		pk, _ := partitionKey(after.Partition)
		start = order(pk, after.Key)
	}
	limit = limited(limit)
	var all []state.Indexed
	err := s.indexPages(ctx, "Indexed", indexByIndex, attrIndex, indexKey(index), start, limit, func(it item) (bool, error) {
		p, r, found, err := fromItem(it, s.now())
		if err == nil && found {
			all = append(all, state.Indexed{Partition: p, Record: r})
		}
		return len(all) < limit, err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// indexPages hands over the items under one key of an index of the fleet's table,
// in order, from behind start.
func (s *Store) indexPages(ctx context.Context, method, index, attribute, key, start string, limit int, take func(item) (bool, error)) error {
	in := &dynamodb.QueryInput{
		TableName: &s.fleet, IndexName: &index,
		KeyConditionExpression:    aws.String("#key = :key"),
		ExpressionAttributeNames:  map[string]string{"#key": attribute},
		ExpressionAttributeValues: item{":key": text(key)},
		Limit:                     aws.Int32(int32(min(limit, 10*pageSize))),
	}
	if start != "" {
		*in.KeyConditionExpression += " AND #order > :start"
		in.ExpressionAttributeNames["#order"] = attrOrder
		in.ExpressionAttributeValues[":start"] = text(start)
	}
	return s.pages(ctx, method, in, take)
}

// together does n things at the same time.
func together[R any](n int, do func(int) (R, error)) ([]R, error) {
	type answer struct {
		at  int
		r   R
		err error
	}
	answers := make(chan answer, n)
	for i := range n {
		go func() {
			r, err := do(i)
			answers <- answer{i, r, err}
		}()
	}
	all, errs := make([]R, n), make([]error, n)
	for range n {
		a := <-answers
		all[a.at], errs[a.at] = a.r, a.err
	}
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
