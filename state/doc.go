// Package state is the core of Holdfast: the names, records, documents and
// errors that every other package shares, and the contract that a store of
// them keeps. It imports the standard library only. Stores (sqlite, memory,
// dynamo) import it; it imports none of them.
//
// # What a store holds
//
// A store is a set of partitions. Each session has one partition, and the
// fleet has one. A partition holds records: small opaque values under a Kind
// and an ID. Apart from the records, each session has one owner item: the
// worker incarnation that may write the session, and an epoch that grows with
// every change of owner and is never reset.
//
//	partition "S/shop-1"              partition "FLEET"
//	├─ owner   w-01J…  epoch 7        ├─ WAVERSION
//	├─ SPEC    wanted state           ├─ BREAKER
//	├─ STATUS  what is                ├─ KEYSET
//	├─ META    credential pointer     └─ …
//	├─ EV#…    events out
//	├─ OB#…    outbox
//	├─ CMD#…   commands
//	└─ SESS#… PK#… SK#…  sealed device state
//
// # The fencing rule
//
// Everything that a worker writes of a session goes through Store.Commit with
// a Fence of (session, owner, epoch). The commit is atomic and applies only if
// the owner item holds exactly that owner and epoch at that moment; otherwise
// nothing is written and ErrFenced is returned. A worker that has lost a
// session can therefore not write a byte of it, however late its writes come.
// The admin side never writes what a fence protects by its own hand: it writes
// SPEC, CMD, OB and AUD records with Store.Update, which is conditional on
// the records themselves and leaves the owner item alone.
//
// # Bounds
//
// A commit has at most MaxItems writes and MaxBytes of keys and values; a
// value has at most MaxValue bytes. Every store enforces them, the embedded
// one too, so that what works on one machine works in the cloud.
package state
