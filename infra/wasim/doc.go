// Package wasim is a simulated WhatsApp service that an unmodified
// go.mau.fi/whatsmeow client can pair with, log in to, receive from and send
// through. It is for Holdfast's own tests and demo, and for people who test
// their bots without a phone: it breaks the line on demand in every way that
// the real service does, and keeps the truth about what then happened.
//
// # The picture
//
//	whatsmeow client ──ws──▶ /ws/chat ─ noise.go ─ conn.go ─┬─ pairing.go  QR, device-identity, 515
//	                                                        ├─ login.go    success, offline queue, kick
//	                                                        ├─ iq.go       prekeys, usync, pings …
//	                                                        └─ message.go  acks, receipts, routing
//	Phone, Contact (Go, HTTP) ─▶ peer.go (Signal) ─▶ mailbox.go ─▶ device's socket
//	Fault (Go, HTTP) ─▶ fault.go, strikes at connect, login, send, delivery, or now
//	everything ─▶ truth.go ─▶ Truth (Go), GET /truth (HTTP)
//
// One mutex of the Server guards all state; a peer has one of its own around
// its Signal sessions, taken before the server's and never inside it. Frames
// leave through a queue per socket, so that a client which does not read
// stalls nobody else.
//
// # From Go
//
//	s, err := wasim.New(wasim.Options{})
//	err = s.Start()                       // loopback, a free port
//	defer s.Close()
//	s.URL()                               // ws://127.0.0.1:PORT/ws/chat
//	s.RootKeyHex()                        // to be set as whatsmeow.WACertPubKey
//	d, err := s.Phone("491700000001").Scan(ctx, qrText)
//	c := s.Contact("491700000002")
//	id, err := c.SendText(ctx, "491700000001", "hello")
//	r, err := c.WaitText(ctx, "the answer")
//	s.Inject(wasim.Fault{Kind: wasim.StreamError, Code: 503, Now: true})
//	s.Truth()
//
// Enrol and EnrolReady link a device of a client's store without a QR, for
// benches that connect a thousand of them.
//
// # Faults
//
// A Fault is armed for one device, for an account, for sockets that are being
// paired, or for everybody; it strikes Times times, or until it is cleared, at
// the stage that its Kind names, or with Now on the live sockets at once. Who
// connects is not known before the Noise handshake has ended, so faults of that
// stage (refuse, half_open, certificate_expired …) cannot be aimed. All armed
// states (mute, zombie, no_pong, delay) take hold of a login together; of the
// other kinds, the first of a stage strikes. What was held back by a state is
// delivered when it is cleared.
//
// # What it does not simulate
//
// App state is always empty. Groups do not change. Calls, newsletters, status
// posts, broadcast lists and business queries are not there; an unknown query
// is answered with error 501 and recorded as an anomaly. A passkey can be
// demanded, not satisfied. Nothing outlives the process: after a restart every
// client is refused with failure 401.
//
// Package wasimtest points a bare whatsmeow client at a Server. Servers of one
// process share a root key unless Options.RootSeed says otherwise, because
// whatsmeow keeps the key that it trusts in one variable.
//
// # The secret of a QR text
//
// A QR text carries a secret that never passes the server, so a simulated
// phone must be handed the text (Phone.Scan, POST /scan). Server.Watch polls
// whatever shows it (Holdfast's GET /api/sessions/NAME/qr, say) and scans each
// new one.
//
// # Over HTTP
//
// Server.Handler serves the control API: JSON in, JSON out. An error is
// {"error": "what: why; what to do"} with status 400 (bad input, unknown
// field), 404 (no such thing), 409 (not now) or 504 (waited in vain).
//
//	GET    /                            url, control, rootKey, revision, counts
//	GET    /accounts                    accounts, their lid and devices
//	POST   /scan                        {"qr", "number", "waitSeconds"?}: pair as that number's phone; answers the device
//	POST   /link                        {"code", "number", "waitSeconds"?}: type an eight-character code on that number's phone
//	GET    /devices                     each device: jid, lid, online, pending, prekeys left
//	DELETE /devices/{jid}               unlink on the phone: device_removed, credentials die
//	POST   /devices/{jid}/drop          {"how": "close|tcp|reset|streamend"}
//	POST   /devices/{jid}/node          {"tag", "attrs", "children" | "text" | "base64"}: any stanza
//	GET    /contacts                    contacts, what each received and could not decrypt
//	POST   /contacts                    {"number", "name"?, "reply"?}: make one; reply is an automatic answer, {} in it stands for the text
//	POST   /contacts/{number}/send      {"to", "text", "group"?, "count"?, "by"?}: answers ids
//	POST   /contacts/{number}/read      {"ids", "to"}: a read receipt
//	GET    /contacts/{number}/received  ?text=…&waitSeconds=…: waits for that text
//	POST   /groups                      {"subject", "members"}: answers the group's jid
//	GET    /groups
//	POST   /faults                      a Fault; answers its id
//	GET    /faults                      those that are armed, with what is left of each
//	DELETE /faults                      clears all
//	DELETE /faults/{id}
//	POST   /revision                    {"revision", "minimum"?}: of the version page, and the oldest that may log in
//	GET    /truth                       Truth; ?device=JID narrows it
//	POST   /truth/reset                 forgets the records so far (not the devices)
//	GET    /healthz
//
// In a {jid} or "to" a whole device JID, a phone number or a LID user may stand.
package wasim
