package dynamo

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
)

type item = map[string]types.AttributeValue

// Partition keys.
const (
	pkFleet   = "FLEET"
	pkSession = "S#" // and the session's name
	pkWorker  = "W#" // and the incarnation
)

// Sort keys that are no record's: two in every session's partition, one in the
// fleet's. As kinds of records they are refused.
const (
	skOwner   = "OWNER"
	skSession = "SESSION"
	skRoster  = "ROSTER"
)

// Sort keys in an incarnation's partition, where there are no records.
const (
	skBeat = "HB"
	skLife = "LIFE"
	skReg  = "REG"
)

// reserved says that a kind would be the store's own.
func reserved(k state.Kind) bool { return k == skOwner || k == skSession || k == skRoster }

// maxIndex bounds the name of an index, in bytes. DynamoDB's bound of a
// partition key is 2,048.
const maxIndex = 1024

// partitionKey is false for a partition that is neither a session's nor the fleet's.
func partitionKey(p state.Partition) (pk string, ok bool) {
	if name, ok := p.Session(); ok {
		return pkSession + name, true
	}
	return pkFleet, p == state.Fleet
}

func partitionOf(pk string) state.Partition {
	if name, ok := strings.CutPrefix(pk, pkSession); ok {
		return state.OfSession(name)
	}
	return state.Partition(pk)
}

func keyOf(sk string) state.Key {
	kind, id, _ := strings.Cut(sk, "#")
	return state.Key{Kind: state.Kind(kind), ID: id}
}

// order is where a record stands among those of its index. A space sorts before
// whatever the name of a session or the word of a kind is made of.
func order(pk string, key state.Key) string { return pk + " " + key.String() }

func indexKey(name string) string { return "i/" + name }

func (s *Store) table(k state.Kind) string {
	if k.DeviceState() {
		return s.signal
	}
	return s.fleet
}

// storable refuses keys that DynamoDB cannot hold. It is asked before anything
// is sent, because the SDK would send other text in their place.
func storable(writes []state.Write) error {
	for _, w := range writes {
		switch {
		case !utf8.ValidString(w.Key.String()) || !utf8.ValidString(w.Index):
			return fmt.Errorf("record %q: its id or index is not UTF-8", w.Key)
		case reserved(w.Key.Kind):
			return fmt.Errorf("record kind %s: is the store's own", w.Key.Kind)
		case len(w.Index) > maxIndex:
			return fmt.Errorf("%w: the index of %s has %d bytes, at most %d", state.ErrTooLarge, w.Key, len(w.Index), maxIndex)
		}
	}
	return nil
}

func text(v string) *types.AttributeValueMemberS { return &types.AttributeValueMemberS{Value: v} }

func number[N int64 | uint64](n N) *types.AttributeValueMemberN {
	return &types.AttributeValueMemberN{Value: fmt.Sprint(n)}
}

func yes() *types.AttributeValueMemberBOOL { return &types.AttributeValueMemberBOOL{Value: true} }

func itemKey(pk, sk string) item { return item{attrPK: text(pk), attrSK: text(sk)} }

// millis is a moment as items hold it: rounded up for a deadline, so that none
// comes early, and down for the present.
func millis(t time.Time, up bool) int64 {
	ms := t.UnixMilli()
	if up && t.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return ms
}

func toItem(pk string, r state.Record) item {
	it := itemKey(pk, r.Key.String())
	it[attrValue] = &types.AttributeValueMemberB{Value: r.Value}
	if r.Value == nil {
		it[attrValue] = &types.AttributeValueMemberB{Value: []byte{}} // the SDK takes nil for no attribute at all
	}
	it[attrRev] = number(r.Rev)
	if !r.Expires.IsZero() {
		ms := millis(r.Expires, true)
		it[attrExpires] = number(ms)
		it[attrTTL] = number(max(1, (ms+999)/1000))
	}
	if r.Index != "" {
		it[attrIndex] = text(indexKey(r.Index))
		it[attrOrder] = text(order(pk, r.Key))
	}
	return it
}

// fromItem reads a record; found is false where it has expired.
func fromItem(it item, now time.Time) (p state.Partition, r state.Record, found bool, err error) {
	pk, sk := textOf(it, attrPK), textOf(it, attrSK)
	p, r.Key = partitionOf(pk), keyOf(sk)
	damaged := func(attribute string) error {
		return fmt.Errorf("%s of %s: %w: its attribute %s is missing or not what it should be", r.Key, p, state.ErrCorrupt, attribute)
	}
	v, ok := it[attrValue].(*types.AttributeValueMemberB)
	if !ok {
		return p, r, false, damaged(attrValue)
	}
	r.Value = v.Value
	if r.Rev, err = unsigned(it, attrRev); err != nil {
		return p, r, false, damaged(attrRev)
	}
	if _, expires := it[attrExpires]; expires {
		n, _ := it[attrExpires].(*types.AttributeValueMemberN)
		if n == nil {
			return p, r, false, damaged(attrExpires)
		}
		ms, err := strconv.ParseInt(n.Value, 10, 64)
		if err != nil {
			return p, r, false, damaged(attrExpires)
		}
		r.Expires = time.UnixMilli(ms).UTC()
		if millis(now, false) >= ms {
			return p, r, false, nil
		}
	}
	r.Index = strings.TrimPrefix(textOf(it, attrIndex), indexKey(""))
	return p, r, true, nil
}

func textOf(it item, attribute string) string {
	if v, ok := it[attribute].(*types.AttributeValueMemberS); ok {
		return v.Value
	}
	return ""
}

func unsigned(it item, attribute string) (uint64, error) {
	v, ok := it[attribute].(*types.AttributeValueMemberN)
	if !ok {
		return 0, fmt.Errorf("%w: no number %s", state.ErrCorrupt, attribute)
	}
	return strconv.ParseUint(v.Value, 10, 64)
}

// unsignedOr0 is unsigned for an attribute that may not be there.
func unsignedOr0(it item, attribute string) (uint64, error) {
	if it[attribute] == nil {
		return 0, nil
	}
	return unsigned(it, attribute)
}

func setOf(it item, attribute string) []string {
	if v, ok := it[attribute].(*types.AttributeValueMemberSS); ok {
		return v.Value
	}
	return nil
}

func incarnationOf(it item) string { return strings.TrimPrefix(textOf(it, attrPK), pkWorker) }

func isTrue(it item, attribute string) bool {
	v, ok := it[attribute].(*types.AttributeValueMemberBOOL)
	return ok && v.Value
}
