// Package whatsapp wraps the WhatsApp library's client: what the library calls
// back is turned into events for a session's mailbox, and what the session
// decides is turned into calls. No other package imports the library's client.
//
//	Service  once a process: endpoint, root key, ways out, version
//	  └─ Line  once a connection: one client, one number N, one end
//
// # A line
//
//	NewLine ──Connect──▶ open ──▶ (QR, pairing | login) ──▶ … ──▶ one terminal Signalled
//	                        └────────────── Cut or Close ──────▶ nothing more is said
//
// A line connects once. If Connect fails, its error says what was seen
// (ConnectError) and nothing is posted. After it has succeeded the line posts
// exactly one terminal Signalled when the connection ends, with the best
// explanation that arrived within a moment (end.go), unless the owner has cut
// or closed it before: then the owner knows.
//
// # What the library is not asked
//
// The library reconnects by itself, deletes its device, keeps its own
// keepalive and says little about why a connection ended. All of that is off
// or unused here. The end of its read loop, the nodes that come and go, and
// panics that it swallows are observed through the logger that it is given
// (logger.go), which also is the place where Store.BeforeSend commits what is
// staged before a frame leaves.
//
// # Losing nothing
//
// A received message is staged in the session's store from within the
// handler, and committed together with its ratchet before the receipt leaves.
// Any failure or panic in a handler drops what is staged and cuts the line, so
// that no acknowledgement can leave; the server delivers again.
package whatsapp
