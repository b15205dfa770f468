// Package standin is AWS without AWS: what a fleet of Holdfast workers needs of
// it, on loopback, for tests and to look at.
//
//	            ┌─ line w1 ─┐
//	worker 1 ──►│ toxiproxy │──► DynamoDB Local  (java, http; a database for the run)
//	worker 2 ──►│ one port a│──► versitygw       (S3 over TLS, one bucket that keeps versions)
//	worker 3 ──►│ service   │──► a fake KMS      (over TLS; it says that it is a fake)
//	            └───────────┘
//
// Each line has a port of its own to each service, so that one worker can be
// parted from one service while the others go on: refused, swallowed in one or
// both directions, throttled, or late.
//
// What it proves is that requests are right: DynamoDB Local is slow and knows no
// conflicts of transactions, and throttles only where a line does it in its place;
// the fake KMS checks no signature and no permission.
//
// It is a module of its own, so that the two hundred modules that versitygw and
// toxiproxy bring stay out of Holdfast's. One Standin a process: versitygw keeps
// its settings in variables of its packages.
package standin
