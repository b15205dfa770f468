// Package dynamo keeps state in DynamoDB, for fleets: a state.Store over two
// tables, PREFIX-fleet for the control plane and PREFIX-signal for sealed device
// state. Tables says what they are made of.
//
// # Items
//
// Each record is an item. Its partition key is the partition, its sort key the
// record's key, so that a session's records lie side by side and sort by kind
// and id:
//
//	table   pk       sk             attributes
//	fleet   S#shop   OWNER          owner, epoch, shard; removed and dirty once it is removed
//	fleet   S#shop   SESSION        nothing: it is there as long as the session is
//	fleet   S#shop   STATUS         v (the value), rev
//	fleet   S#shop   CMD#01J…       v, rev, xp and ttl where it expires, ix and ord where it is indexed
//	fleet   FLEET    F#WAVERSION    v, rev
//	fleet   FLEET    ROSTER         ids (of all incarnations), rev, joins
//	fleet   W#w-1    HB             hb (the heartbeat counter), load, dead
//	fleet   W#w-1    LIFE           life: alive or dead
//	fleet   W#w-1    REG            info, joined, drain
//	signal  S#shop   SESS#…         v, rev
//
// An item expires at xp, in milliseconds since 1970, rounded up. Every condition
// and every read looks at that, because DynamoDB removes items up to days after
// their ttl (the same moment in seconds, rounded up).
//
// The load rides on the heartbeat, which costs one unit either way. LIFE says
// what HB says of death and nothing else, because it is what claims and hand-overs
// check: it must not be written every other second. All changes of the roster, of
// LIFE and of dead are made in the same transactions.
//
// Listings come from two sparse indexes of the fleet's table. by-index has the items with an ix, in
// the order of ord: records under "i/" and the name of their index, owner items
// under "o/" and their incarnation, those of unowned sessions spread over
// "unowned#0" to "unowned#3", those of removals under way under "removing".
// by-shard has the owner items of all sessions that are not removed, spread over
// "all#0" to "all#3". Both lag behind by a moment, as the contract allows for
// Indexed and OwnedBy; here Sessions lags as well.
//
// # Writing
//
// A commit is one TransactWriteItems over both tables: a check of the owner item
// (owner, epoch, not removed), then the writes. Nothing but a change of owner
// writes the owner item, so commits of a session do not meet its admin commands.
// An update checks the SESSION item in its place, which only creation and removal
// write: it can therefore not put a record into a session that is gone, and meets
// no commit either.
//
// A claim is one transaction of a check of the claimant's LIFE and up to 25 owner
// items, each under the fence of the owner before; a hand-over the same of one. Two
// transactions that name one item may refuse each other, so that each worker had
// better claim with one call at a time; those that meet all the same are repeated.
// A heartbeat alone is never repeated, because the owner's trust runs from when it
// was sent.
//
// What DynamoDB may refuse for a moment (transaction conflicts, throttling, its
// own errors) and what was not answered is repeated under the same client request
// token, with jittered pauses, until Options.RetryFor has passed; then the call
// fails with state.ErrUnavailable. DynamoDB knows a token for ten minutes after
// the transaction that it came with, so that a commit whose answer was lost does
// not happen twice.
//
// # Permissions
//
// On both tables and the fleet's indexes: GetItem, BatchGetItem, Query, PutItem,
// UpdateItem, DeleteItem, ConditionCheckItem; for Identity, Reach and Check also
// DescribeTable, for Check also DescribeTimeToLive; for Create also CreateTable and
// UpdateTimeToLive. Check tries all but the last two.
//
// # What it does not promise
//
// A Query or a GetMany that runs beside a commit may see one of its records as it
// was and another as it is: DynamoDB reads each item at a moment of its own. What
// it sees after a commit has returned is the whole commit. Only owners write what
// they own and read it under their own epoch, so that none reads beside its own
// writes.
package dynamo
