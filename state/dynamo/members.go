package dynamo

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
)

// The two words of a LIFE item.
const (
	alive = "alive"
	dead  = "dead"
)

// lives is the check that an incarnation may be an owner. LIFE is written at
// birth and at death, so that it meets nothing but other checks.
func (s *Store) lives(incarnation string) types.TransactWriteItem {
	return types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{
		TableName: &s.fleet, Key: itemKey(pkWorker+incarnation, skLife), ConditionExpression: aws.String("#life = :alive"),
		ExpressionAttributeNames:            map[string]string{"#life": attrLife},
		ExpressionAttributeValues:           item{":alive": text(alive)},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}}
}

func isDead(incarnation string) error {
	return fmt.Errorf("worker %s: %w", incarnation, state.ErrDead)
}

func notRemembered(incarnation string) error {
	return fmt.Errorf("worker %s: %w", incarnation, state.ErrNotFound)
}

// rosterChange counts a change of the roster, and does to its ids what add says.
func (s *Store) rosterChange(add string, incarnation string) types.TransactWriteItem {
	u := &types.Update{
		TableName: &s.fleet, Key: itemKey(pkFleet, skRoster),
		UpdateExpression:          aws.String("ADD #rev :one"),
		ExpressionAttributeNames:  map[string]string{"#rev": attrRev},
		ExpressionAttributeValues: item{":one": number[uint64](1)},
	}
	if add != "" {
		*u.UpdateExpression += add
		u.ExpressionAttributeNames["#ids"] = attrIDs
		u.ExpressionAttributeValues[":id"] = &types.AttributeValueMemberSS{Value: []string{incarnation}}
	}
	return types.TransactWriteItem{Update: u}
}

// What is done to the ids of the roster beside counting.
const (
	sameIDs   = ""
	withID    = ", #ids :id"
	withoutID = " DELETE #ids :id"
)

// Join implements state.Members. The incarnation takes a number first and joins
// with it in a transaction: many may join at once, as in a deployment, and a
// number read before would keep all but one of them waiting each time. A number
// whose taker died on the way is left out.
func (s *Store) Join(ctx context.Context, incarnation string, info state.MemberInfo) (state.Member, error) {
	if err := state.CheckIncarnation(incarnation); err != nil {
		return state.Member{}, err
	}
	said, err := json.Marshal(info)
	if err != nil {
		return state.Member{}, fmt.Errorf("worker %s: what it says of itself: %w", incarnation, err)
	}
	exists := fmt.Errorf("worker %s: %w", incarnation, state.ErrExists)
	joined, err := s.nextJoin(ctx, incarnation)
	if taken := (*types.ConditionalCheckFailedException)(nil); errors.As(err, &taken) {
		return state.Member{}, exists
	}
	if err != nil {
		return state.Member{}, err
	}
	born := func(sk string, with item) types.TransactWriteItem {
		it := itemKey(pkWorker+incarnation, sk)
		for name, v := range with {
			it[name] = v
		}
		return types.TransactWriteItem{Put: &types.Put{TableName: &s.fleet, Item: it, ConditionExpression: aws.String("attribute_not_exists(pk)")}}
	}
	err = s.transact(ctx, "Join", rand.Text(), []types.TransactWriteItem{
		born(skBeat, item{attrBeats: number[uint64](1)}),
		born(skLife, item{attrLife: text(alive)}),
		born(skReg, item{attrInfo: text(string(said)), attrJoined: number(joined)}),
		s.rosterChange(withID, incarnation),
	})
	if len(failedAt(err)) > 0 {
		return state.Member{}, exists
	}
	if err := wholly(err, incarnation); err != nil {
		return state.Member{}, err
	}
	return state.Member{Incarnation: incarnation, Joined: joined, Beats: 1, Info: info}, nil
}

// nextJoin takes the next number of those that join.
func (s *Store) nextJoin(ctx context.Context, incarnation string) (uint64, error) {
	var after item
	err := s.do(ctx, "Join", func(ctx context.Context) error {
		out, err := s.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
			TableName: &s.fleet, Key: itemKey(pkFleet, skRoster),
			UpdateExpression:          aws.String("ADD #joins :one"),
			ConditionExpression:       aws.String("NOT contains(#ids, :id)"),
			ExpressionAttributeNames:  map[string]string{"#joins": attrJoins, "#ids": attrIDs},
			ExpressionAttributeValues: item{":one": number[uint64](1), ":id": text(incarnation)},
			ReturnValues:              types.ReturnValueUpdatedNew, ReturnConsumedCapacity: s.countCapacity(),
		})
		if err != nil {
			return err
		}
		s.spentOne(Capacity{Method: "Join", Write: 1}, out.ConsumedCapacity)
		after = out.Attributes
		return nil
	})
	if err != nil {
		return 0, err
	}
	n, err := unsigned(after, attrJoins)
	if err != nil {
		return 0, damagedRoster(attrJoins)
	}
	return n, nil
}

// wholly is refusal for a transaction about an incarnation, none of whose
// conditions have failed.
func wholly(err error, incarnation string) error {
	if err == nil || errors.Is(err, state.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("worker %s: %w", incarnation, short(err))
}

// Beat implements state.Members. It is one request, for the caller's deadline or
// a third of RetryFor.
func (s *Store) Beat(ctx context.Context, incarnation string, load state.Load) error {
	if state.CheckIncarnation(incarnation) != nil {
		return isDead(incarnation)
	}
	said, err := json.Marshal(load)
	if err != nil {
		return fmt.Errorf("worker %s: its load: %w", incarnation, err)
	}
	err = s.once(ctx, "Beat", func(ctx context.Context) error {
		out, err := s.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
			TableName: &s.fleet, Key: itemKey(pkWorker+incarnation, skBeat),
			UpdateExpression:          aws.String("SET #load = :load ADD #hb :one"),
			ConditionExpression:       aws.String("attribute_exists(pk) AND attribute_not_exists(#dead)"),
			ExpressionAttributeNames:  map[string]string{"#load": attrLoad, "#hb": attrBeats, "#dead": attrDead},
			ExpressionAttributeValues: item{":load": text(string(said)), ":one": number[uint64](1)},
			ReturnConsumedCapacity:    s.countCapacity(),
		})
		if err == nil {
			s.spentOne(Capacity{Method: "Beat", Write: 1}, out.ConsumedCapacity)
		}
		return err
	})
	if failed := (*types.ConditionalCheckFailedException)(nil); errors.As(err, &failed) {
		return isDead(incarnation)
	}
	return err
}

// DeclareDead implements state.Members.
func (s *Store) DeclareDead(ctx context.Context, incarnation string, seen uint64) error {
	old, err := s.die(ctx, "DeclareDead", incarnation, func(u *types.Update) {
		*u.ConditionExpression += " AND #hb = :seen"
		u.ExpressionAttributeNames["#hb"] = attrBeats
		u.ExpressionAttributeValues[":seen"] = number(seen)
	})
	switch {
	case err != nil || old == nil:
		return err
	case old.there && !old.dead:
		return fmt.Errorf("worker %s has beaten since: %w", incarnation, state.ErrConflict)
	}
	return nil
}

// DeclareStopped implements state.Members.
func (s *Store) DeclareStopped(ctx context.Context, incarnation string) error {
	old, err := s.die(ctx, "DeclareStopped", incarnation, nil)
	if err == nil && old != nil && !old.there {
		return notRemembered(incarnation)
	}
	return err
}

// die marks an incarnation dead in HB and LIFE, if it is alive and on further
// conditions. Where one failed, old is what HB was.
func (s *Store) die(ctx context.Context, method, incarnation string, further func(*types.Update)) (old *beatItem, err error) {
	if state.CheckIncarnation(incarnation) != nil {
		return &beatItem{}, nil
	}
	u := &types.Update{
		TableName: &s.fleet, Key: itemKey(pkWorker+incarnation, skBeat),
		UpdateExpression:                    aws.String("SET #dead = :yes"),
		ConditionExpression:                 aws.String("attribute_exists(pk) AND attribute_not_exists(#dead)"),
		ExpressionAttributeNames:            map[string]string{"#dead": attrDead},
		ExpressionAttributeValues:           item{":yes": yes()},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	if further != nil {
		further(u)
	}
	life := itemKey(pkWorker+incarnation, skLife)
	life[attrLife] = text(dead)
	err = s.transact(ctx, method, rand.Text(), []types.TransactWriteItem{
		{Update: u}, {Put: &types.Put{TableName: &s.fleet, Item: life}}, s.rosterChange(sameIDs, ""),
	})
	if failed := failedAt(err); len(failed) > 0 {
		was, err := fromBeatItem(incarnation, failedItem(err, failed[0]))
		return &was, err
	}
	return nil, wholly(err, incarnation)
}

// Drain implements state.Members.
func (s *Store) Drain(ctx context.Context, incarnation string, wanted bool) error {
	if state.CheckIncarnation(incarnation) != nil {
		return notRemembered(incarnation)
	}
	u := &types.Update{
		TableName: &s.fleet, Key: itemKey(pkWorker+incarnation, skReg),
		UpdateExpression:         aws.String("REMOVE #drain"),
		ConditionExpression:      aws.String("attribute_exists(#drain)"),
		ExpressionAttributeNames: map[string]string{"#drain": attrDrain},
	}
	if wanted {
		u.UpdateExpression = aws.String("SET #drain = :yes")
		u.ConditionExpression = aws.String("attribute_not_exists(#drain)")
		u.ExpressionAttributeValues = item{":yes": yes()}
	}
	err := s.transact(ctx, "Drain", rand.Text(), []types.TransactWriteItem{
		s.lives(incarnation), {Update: u}, s.rosterChange(sameIDs, ""),
	})
	failed := failedAt(err)
	switch {
	case len(failed) == 0:
		return wholly(err, incarnation)
	case failed[0] > 0:
		return nil // it is so already
	case failedItem(err, 0) == nil:
		return notRemembered(incarnation)
	}
	return isDead(incarnation)
}

// Forget implements state.Members.
func (s *Store) Forget(ctx context.Context, incarnation string) error {
	if state.CheckIncarnation(incarnation) != nil {
		return nil
	}
	remove := func(sk string) *types.Delete {
		return &types.Delete{TableName: &s.fleet, Key: itemKey(pkWorker+incarnation, sk)}
	}
	hb := remove(skBeat)
	hb.ConditionExpression = aws.String("attribute_exists(#dead)")
	hb.ExpressionAttributeNames = map[string]string{"#dead": attrDead}
	hb.ReturnValuesOnConditionCheckFailure = types.ReturnValuesOnConditionCheckFailureAllOld
	err := s.transact(ctx, "Forget", rand.Text(), []types.TransactWriteItem{
		{Delete: hb}, {Delete: remove(skLife)}, {Delete: remove(skReg)}, s.rosterChange(withoutID, incarnation),
	})
	if failed := failedAt(err); len(failed) > 0 {
		if failedItem(err, failed[0]) == nil {
			return nil
		}
		return fmt.Errorf("worker %s is alive: %w", incarnation, state.ErrConflict)
	}
	return wholly(err, incarnation)
}

// Roster implements state.Members. The list is read before the members, so that
// what it says of them is at least as new as its revision: a change in between is
// seen twice and never missed.
func (s *Store) Roster(ctx context.Context) (state.Roster, error) {
	it, err := s.getItem(ctx, "Roster", s.fleet, pkFleet, skRoster)
	if err != nil || it == nil {
		return state.Roster{}, err
	}
	var r state.Roster
	if r.Revision, err = unsignedOr0(it, attrRev); err != nil {
		return state.Roster{}, damagedRoster(attrRev)
	}
	var keys []item
	members := map[string]*state.Member{}
	for _, id := range setOf(it, attrIDs) {
		members[id] = &state.Member{Incarnation: id}
		keys = append(keys, itemKey(pkWorker+id, skBeat), itemKey(pkWorker+id, skReg))
	}
	found := map[string]int{}
	err = s.batches(ctx, "Roster", keys, types.KeysAndAttributes{ConsistentRead: aws.Bool(true)}, func(it item) error {
		id, sk := incarnationOf(it), textOf(it, attrSK)
		m := members[id]
		if m == nil {
			return nil
		}
		found[id]++
		if sk == skBeat {
			b, err := fromBeatItem(id, it)
			m.Beats, m.Dead, m.Load = b.beats, b.dead, b.load
			return err
		}
		n, err := unsigned(it, attrJoined)
		if err != nil {
			return damagedMember(id, attrJoined)
		}
		m.Joined, m.Drain = n, isTrue(it, attrDrain)
		m.Info = said[state.MemberInfo](it, attrInfo)
		return nil
	})
	if err != nil {
		return state.Roster{}, err
	}
	for id, m := range members {
		if found[id] == 2 { // else it was forgotten since
			r.Members = append(r.Members, *m)
		}
	}
	slices.SortFunc(r.Members, func(a, b state.Member) int {
		return cmp.Or(cmp.Compare(a.Joined, b.Joined), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	return r, nil
}

// Watch implements state.Members. It reads at half the price, and what it reads
// may lag behind: a counter that a late replica shows standing still is compared
// with the real one by DeclareDead, and a revision that comes late is there with
// the next look. What a replica does not have yet is asked for again, consistently:
// that an incarnation is not remembered must not be an error of reading.
func (s *Store) Watch(ctx context.Context, incarnations []string) (state.Pulse, error) {
	p := state.Pulse{Beats: make(map[string]state.Beats, len(incarnations))}
	take := func(it item) (err error) {
		if textOf(it, attrSK) == skRoster {
			if p.Revision, err = unsignedOr0(it, attrRev); err != nil {
				return damagedRoster(attrRev)
			}
			return nil
		}
		b, err := fromBeatItem(incarnationOf(it), it)
		if err == nil {
			p.Beats[incarnationOf(it)] = state.Beats{Count: b.beats, Dead: b.dead, Load: b.load}
		}
		return err
	}
	keys := []item{itemKey(pkFleet, skRoster)}
	asked := map[string]bool{}
	for _, id := range incarnations {
		if !asked[id] && state.CheckIncarnation(id) == nil {
			asked[id] = true
			keys = append(keys, itemKey(pkWorker+id, skBeat))
		}
	}
	how := types.KeysAndAttributes{
		ProjectionExpression:     aws.String("pk, sk, #rev, #hb, #dead, #load"),
		ExpressionAttributeNames: map[string]string{"#rev": attrRev, "#hb": attrBeats, "#dead": attrDead, "#load": attrLoad},
	}
	if err := s.batches(ctx, "Watch", keys, how, take); err != nil {
		return state.Pulse{}, err
	}
	missing := slices.DeleteFunc(keys[1:], func(key item) bool {
		_, there := p.Beats[incarnationOf(key)]
		return there
	})
	how.ConsistentRead = aws.Bool(true)
	if err := s.batches(ctx, "Watch", missing, how, take); err != nil {
		return state.Pulse{}, err
	}
	return p, nil
}

// beatItem is what an HB item holds.
type beatItem struct {
	there bool
	beats uint64
	dead  bool
	load  state.Load
}

func fromBeatItem(incarnation string, it item) (beatItem, error) {
	if it == nil {
		return beatItem{}, nil
	}
	beats, err := unsigned(it, attrBeats)
	if err != nil {
		return beatItem{}, damagedMember(incarnation, attrBeats)
	}
	return beatItem{there: true, beats: beats, dead: isTrue(it, attrDead), load: said[state.Load](it, attrLoad)}, nil
}

// said is what an incarnation says of itself. What another release says and this
// one cannot read is left out: who is alive must not depend on it.
func said[T any](it item, attribute string) T {
	var v, none T
	if json.Unmarshal([]byte(textOf(it, attribute)), &v) != nil {
		return none
	}
	return v
}

func damagedMember(incarnation, attribute string) error {
	return fmt.Errorf("worker %s: %w: the attribute %s of its items is not a number", incarnation, state.ErrCorrupt, attribute)
}

func damagedRoster(attribute string) error {
	return fmt.Errorf("roster: %w: its attribute %s is not a number", state.ErrCorrupt, attribute)
}
