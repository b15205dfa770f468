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
//	signal  S#shop   SESS#…         v, rev
//
// An item expires at xp, in milliseconds since 1970, rounded up. Every condition
// and every read looks at that, because DynamoDB removes items up to days after
// their ttl (the same moment in seconds, rounded up).
//
// Listings come from two sparse indexes. by-index has the items with an ix, in
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
// What DynamoDB may refuse for a moment (transaction conflicts, throttling, its
// own errors) and what was not answered is repeated under the same client request
// token, with jittered pauses, until Options.RetryFor has passed; then the call
// fails with state.ErrUnavailable. DynamoDB knows a token for ten minutes after
// the transaction that it came with, so that a commit whose answer was lost does
// not happen twice.
//
// # Permissions
//
// On both tables and their indexes: GetItem, BatchGetItem, Query, PutItem,
// UpdateItem, DeleteItem, ConditionCheckItem; for Check also DescribeTable and
// DescribeTimeToLive; for Create also CreateTable and UpdateTimeToLive.
//
// # What it does not promise
//
// A Query or a GetMany that runs beside a commit may see one of its records as it
// was and another as it is: DynamoDB reads each item at a moment of its own. What
// it sees after a commit has returned is the whole commit. Only owners write what
// they own and read it under their own epoch, so that none reads beside its own
// writes.
package dynamo
