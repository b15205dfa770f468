// Package transfer moves a session from one store to another, in a sealed file,
// so that what was paired at home goes on in the cloud without a QR, and back.
//
//	source                                          target
//	own it (hand-over, or claim)
//	mark META as moved        ── commit ──┐
//	read all, write the file, fsync       │         read the whole file
//	detach what is left to send           │         own the session, or make it
//	retire the credentials    ── commit ──┘         mark META as being imported
//	release                                         objects, then records
//	                                                META, SPEC, STATUS ── one commit
//	                                                release: a worker connects
//
// # Never two live copies
//
// From the first commit on nobody at the source opens the credentials: the next
// owner finds the mark and parks the session with the cause `moved`. The file
// comes into being after that. The other way round, META of the target names no
// credentials before everything else is there.
//
// Where the process can die, and what is found then:
//
//	source, before the mark       the session as it was; workers take it up
//	source, after the mark        parked as moved; the same export run again goes on
//	source, after the file        the same; the file is whole, and written again
//	source, after the retirement  done
//	target, before the last commit  parked: a half import; the same import run again ends it
//	target, after it              done
//
// The credentials stay at the source for the time of a quarantine, sealed. TakeBack
// brings them back when the file was lost before it was imported anywhere; whether
// it was, nobody here can know.
//
// # What goes along
//
// Spec with its settings, status with its cooldowns, credentials and keyset, all
// device state, events with the cursors of their sinks (sequence numbers go on
// without a gap), the outbox, dead letters. Commands and the audit stay. Session
// name and keyset id are part of what everything is sealed for, so both stay the
// same. What the fleet keyset sealed is sealed anew for the target's.
//
// # The file
//
// A line in the clear with format and export id, then an age file
// (age-encryption.org/v1) for a passphrase or for recipients. What is in it is
// authenticated and its end is known, so a file that was cut short or altered is
// refused before anything is written.
package transfer
