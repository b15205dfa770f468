package dynamo

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
)

// shards is over how many keys of an index the sessions are spread that would
// else be under one: a key takes 1,000 writes a second. It is part of the format.
const shards = 4

func shard(session string) string {
	h := fnv.New32a()
	h.Write([]byte(session))
	return strconv.Itoa(int(h.Sum32() % shards))
}

// ownerIndex is the key that an owner item is under in by-index.
func ownerIndex(session, incarnation string) string {
	if incarnation == "" {
		return "unowned#" + shard(session)
	}
	return "o/" + incarnation
}

func allIndex(session string) string { return "all#" + shard(session) }

func toOwnerItem(o state.Owner) item {
	it := itemKey(pkSession+o.Session, skOwner)
	it[attrOwner] = text(o.Incarnation)
	it[attrEpoch] = number(o.Epoch)
	it[attrIndex] = text(ownerIndex(o.Session, o.Incarnation))
	it[attrShard] = text(allIndex(o.Session))
	it[attrOrder] = text(o.Session)
	return it
}

// ownerItem is what is stored of a session's owner.
type ownerItem struct {
	state.Owner
	there   bool // an item; the session may have been removed
	removed bool
	dirty   bool
}

func fromOwnerItem(it item) (ownerItem, error) {
	if it == nil {
		return ownerItem{}, nil
	}
	name, _ := partitionOf(textOf(it, attrPK)).Session()
	epoch, err := unsigned(it, attrEpoch)
	if err != nil {
		return ownerItem{}, fmt.Errorf("owner of session %s: %w: its epoch is not a number", name, state.ErrCorrupt)
	}
	return ownerItem{
		Owner: state.Owner{Session: name, Incarnation: textOf(it, attrOwner), Epoch: epoch},
		there: true, removed: isTrue(it, attrRemoved), dirty: isTrue(it, attrDirty),
	}, nil
}

func (s *Store) readOwner(ctx context.Context, method, session string) (ownerItem, error) {
	it, err := s.getItem(ctx, method, s.fleet, pkSession+session, skOwner)
	if err != nil {
		return ownerItem{}, err
	}
	return fromOwnerItem(it)
}

// Owner implements state.Owners.
func (s *Store) Owner(ctx context.Context, session string) (state.Owner, error) {
	o, err := s.readOwner(ctx, "Owner", session)
	if err != nil {
		return state.Owner{}, err
	}
	if !o.there || o.removed {
		return state.Owner{}, fmt.Errorf("session %s: %w", session, state.ErrNotFound)
	}
	return o.Owner, nil
}

// CreateSession implements state.Owners. Where a session of the name was removed,
// what may be left of it is deleted first.
func (s *Store) CreateSession(ctx context.Context, name string, writes []state.Write) error {
	if err := state.CheckName(name); err != nil {
		return err
	}
	if err := checked(writes, false); err != nil {
		return err
	}
	old, err := s.readOwner(ctx, "CreateSession", name)
	if err != nil {
		return err
	}
	exists := fmt.Errorf("session %s: %w", name, state.ErrExists)
	put := &types.Put{
		TableName: &s.fleet, Item: toOwnerItem(state.Owner{Session: name, Epoch: old.Epoch + 1}),
		ConditionExpression: aws.String("attribute_not_exists(pk)"),
	}
	if old.there {
		if !old.removed {
			return exists
		}
		if old.dirty {
			if err := s.clear(ctx, "CreateSession", name, old.Epoch); err != nil {
				return err
			}
		}
		put.ConditionExpression = aws.String("#removed = :yes AND #epoch = :epoch AND attribute_not_exists(#dirty)")
		put.ExpressionAttributeNames = map[string]string{"#removed": attrRemoved, "#epoch": attrEpoch, "#dirty": attrDirty}
		put.ExpressionAttributeValues = item{":yes": yes(), ":epoch": number(old.Epoch)}
	}
	pk := pkSession + name
	items := []types.TransactWriteItem{
		{Put: put},
		{Put: &types.Put{TableName: &s.fleet, Item: itemKey(pk, skSession)}},
	}
	err = s.transact(ctx, "CreateSession", rand.Text(), append(items, s.items(pk, writes, s.now())...))
	if failed := failedAt(err); len(failed) > 0 && failed[0] > 0 {
		return fmt.Errorf("%s of %s: %w", writes[failed[0]-len(items)].Key, state.OfSession(name), state.ErrConflict)
	}
	// Whoever was faster has made one since it was read.
	return refusal(err, state.OfSession(name), writes, exists)
}

// Claim implements state.Owners. Its transaction checks the LIFE item of the one
// who claims: two that check the same item may refuse each other for a moment, so
// that a worker had better make one claim at a time.
func (s *Store) Claim(ctx context.Context, to string, from ...state.Owner) ([]state.Owner, error) {
	if err := state.CheckClaims(from, to); err != nil {
		return nil, err
	}
	items := []types.TransactWriteItem{s.lives(to)}
	var claimed []state.Owner
	for _, f := range from {
		o, put := s.gives(f.Fence(), to)
		claimed, items = append(claimed, o), append(items, put)
	}
	err := s.transact(ctx, "Claim", rand.Text(), items)
	if failed := failedAt(err); len(failed) > 0 {
		if failed[0] == 0 {
			return nil, isDead(to)
		}
		return nil, fmt.Errorf("%s: %w", from[failed[0]-1].Fence(), state.ErrFenced)
	}
	if err := wholly(err, to); err != nil {
		return nil, err
	}
	return claimed, nil
}

// HandOver implements state.Owners.
func (s *Store) HandOver(ctx context.Context, f state.Fence, to string) (state.Owner, error) {
	if err := state.CheckIncarnation(to); err != nil {
		return state.Owner{}, fmt.Errorf("hand-over: %w", err)
	}
	o, put := s.gives(f, to)
	err := s.transact(ctx, "HandOver", rand.Text(), []types.TransactWriteItem{put, s.lives(to)})
	if failed := failedAt(err); len(failed) > 0 {
		if failed[0] == 0 {
			return state.Owner{}, fmt.Errorf("%s: %w", f, state.ErrFenced)
		}
		return state.Owner{}, isDead(to)
	}
	if err := wholly(err, to); err != nil {
		return state.Owner{}, err
	}
	return o, nil
}

// Release implements state.Owners. It is a transaction of one item for its token:
// with a lost answer a plain update would find itself refused by its own success.
func (s *Store) Release(ctx context.Context, f state.Fence) error {
	_, put := s.gives(f, "")
	err := s.transact(ctx, "Release", rand.Text(), []types.TransactWriteItem{put})
	return refusal(err, state.OfSession(f.Session), nil, fmt.Errorf("%s: %w", f, state.ErrFenced))
}

// gives changes the owner of a session, under the fence of the one before.
func (s *Store) gives(f state.Fence, to string) (state.Owner, types.TransactWriteItem) {
	o := state.Owner{Session: f.Session, Incarnation: to, Epoch: f.Epoch + 1}
	condition, names, values := ownedBy(f)
	return o, types.TransactWriteItem{Put: &types.Put{
		TableName: &s.fleet, Item: toOwnerItem(o),
		ConditionExpression: &condition, ExpressionAttributeNames: names, ExpressionAttributeValues: values,
	}}
}

// OwnedBy implements state.Owners.
func (s *Store) OwnedBy(ctx context.Context, incarnation, after string, limit int) ([]state.Owner, error) {
	listed := []string{ownerIndex("", incarnation)}
	if incarnation == "" {
		listed = sharded("unowned#")
	}
	return s.owners(ctx, "OwnedBy", indexByIndex, attrIndex, listed, after, limited(limit))
}

// Sessions implements state.Owners. Unlike what other stores list, it may lag
// behind by a moment.
func (s *Store) Sessions(ctx context.Context, after string, limit int) ([]state.Owner, error) {
	return s.owners(ctx, "Sessions", indexByShard, attrShard, sharded("all#"), after, limited(limit))
}

func sharded(prefix string) []string {
	var all []string
	for i := range shards {
		all = append(all, prefix+strconv.Itoa(i))
	}
	return all
}

// owners lists the owner items under some keys of an index, in order of name.
// Each key is asked for a whole page, as all of it may be under one: of what four
// keys answer a quarter is used, which at 120 bytes a session costs little.
func (s *Store) owners(ctx context.Context, method, index, attribute string, under []string, after string, limit int) ([]state.Owner, error) {
	found, err := together(len(under), func(i int) ([]state.Owner, error) {
		var out []state.Owner
		err := s.indexPages(ctx, method, index, attribute, under[i], after, limit, func(it item) (bool, error) {
			o, err := fromOwnerItem(it)
			if err == nil {
				out = append(out, o.Owner)
			}
			return len(out) < limit, err
		})
		return out, err
	})
	if err != nil {
		return nil, err
	}
	all := slices.Concat(found...)
	slices.SortFunc(all, func(a, b state.Owner) int { return cmp.Compare(a.Session, b.Session) })
	return all[:min(limit, len(all))], nil
}
