package dynamo

import (
	"math"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Capacity is what one answered request cost, in DynamoDB's units. A request
// that was not answered, or was refused, is not told, though it costs as well.
//
// It is what DynamoDB says, but at least what its price list says of the
// request: DynamoDB Local counts one item of a transaction, no check, and
// nothing for what it did not find.
type Capacity struct {
	Method string  // of state.Store, such as "Commit"
	Read   float64 // 4 KiB, read consistently, is 1; else a half
	Write  float64 // 1 KiB of an item is 1, within a transaction 2; so is a check
}

// spent tells what a request cost over tables and indexes: at least what is
// given, whose kind is also that of what DynamoDB calls neither read nor write.
func (s *Store) spent(least Capacity, costs ...types.ConsumedCapacity) {
	if s.onCapacity == nil {
		return
	}
	c := Capacity{Method: least.Method}
	for _, cost := range costs {
		switch {
		case cost.ReadCapacityUnits != nil || cost.WriteCapacityUnits != nil:
			c.Read += aws.ToFloat64(cost.ReadCapacityUnits)
			c.Write += aws.ToFloat64(cost.WriteCapacityUnits)
		case least.Write > 0:
			c.Write += aws.ToFloat64(cost.CapacityUnits)
		default:
			c.Read += aws.ToFloat64(cost.CapacityUnits)
		}
	}
	c.Read, c.Write = max(c.Read, least.Read), max(c.Write, least.Write)
	s.onCapacity(c)
}

func (s *Store) spentOne(least Capacity, cost *types.ConsumedCapacity) {
	if cost == nil {
		s.spent(least)
		return
	}
	s.spent(least, *cost)
}

// leastWrite is what a transaction costs if what it replaces or deletes is no
// larger than what it puts, and no record moves from an index to another. What
// AWS writes down leaves open whether a transaction doubles the writes of indexes,
// too; DynamoDB Local does, and so does this.
func leastWrite(items []types.TransactWriteItem) float64 {
	units := 0.0
	for _, it := range items {
		if it.Put == nil {
			units += 2
			continue
		}
		entries := 1.0 // of the table and its indexes
		for _, key := range []string{attrIndex, attrShard} {
			if _, indexed := it.Put.Item[key]; indexed {
				entries++
			}
		}
		if before, ok := it.Put.ExpressionAttributeValues[":owner"].(*types.AttributeValueMemberS); ok && before.Value != textOf(it.Put.Item, attrOwner) {
			entries++ // the owner's entry moves: one is deleted and one is put
		}
		units += 2 * entries * math.Ceil(float64(itemSize(it.Put.Item))/1024)
	}
	return units
}

// leastRead is what a batch costs if no item is over 4 KiB.
func leastRead(ask map[string]types.KeysAndAttributes) float64 {
	units := 0.0
	for _, k := range ask {
		if aws.ToBool(k.ConsistentRead) {
			units += float64(len(k.Keys))
		} else {
			units += float64(len(k.Keys)) / 2
		}
	}
	return units
}

// itemSize is an item's size in bytes, as DynamoDB counts it.
func itemSize(it item) int {
	n := 0
	for name, v := range it {
		n += len(name)
		switch v := v.(type) {
		case *types.AttributeValueMemberS:
			n += len(v.Value)
		case *types.AttributeValueMemberB:
			n += len(v.Value)
		case *types.AttributeValueMemberN:
			n += len(v.Value)/2 + 2 // two digits a byte
		default:
			n++
		}
	}
	return n
}

// Meter sums up what requests cost. Its Add is an Options.OnCapacity. The zero
// Meter is ready.
type Meter struct {
	mu    sync.Mutex
	total map[string]Usage
}

// Usage is what the requests of one method cost together.
type Usage struct {
	Requests    int
	Read, Write float64 // units
}

// Add counts one request.
func (m *Meter) Add(c Capacity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.total == nil {
		m.total = map[string]Usage{}
	}
	u := m.total[c.Method]
	u.Requests++
	u.Read += c.Read
	u.Write += c.Write
	m.total[c.Method] = u
}

// Take returns what was counted by method since it was last taken.
func (m *Meter) Take() map[string]Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	total := m.total
	m.total = nil
	return total
}
