// Package adminapi is the admin HTTP API: it shows what sessions are and says
// what they should be. It stands on the store alone. It never calls a worker:
// what an operator wants is written as the session's SPEC and as a command, and
// the session's owner finds both there (see package state). That is why the
// same handler serves `holdfast dev`, `holdfast admin` and the Lambda, and why
// it works while no worker is alive: what must not wait for one then is carried
// out through Config.Offline (see package infra/fleet).
//
// # What it writes
//
// Each write is one Store.Update of the session's partition: SPEC where the
// wanted state changes (Rev is its Generation, and the write is conditional on
// it), one CMD record (condition Absent) listed in state.CommandIndex of the
// owner as last read, an OB record for a message, and one AUD record. Writers of
// CMD and OB records set Rev to one more than they read and make their write
// conditional on what they read (state.AtRev); new records have Rev 1.
//
// What is done to the fleet (drain, stopped) goes through state.Members, with an
// AUD record in the fleet's partition before it.
//
// # Places of what is sealed
//
// With the fleet keyset, each for its own record: settings for SPEC, identity
// for STATUS, the QR text for QR, an event for EV#seq, a message's content for
// OB#id, a command's secrets for CMD#id.
package adminapi
