package units

// Counted is what `bin/bench -only units` counted last, with ten sessions, twenty
// short messages each way a session, and a webhook for all events.
var Counted = Counts{
	Received:      Use{Requests: 1, Write: 13.8},
	ReceivedAlone: Use{Requests: 2, Write: 16},
	Sent:          Use{Requests: 9.2, Read: 3.7, Write: 42},
	SentAlone:     Use{Requests: 10, Read: 3.7, Write: 44},
	SessionHour:   Use{},
	WorkerHour:    Use{Requests: 15640, Read: 7160, Write: 1800},
	WatchedHour:   Use{Read: 900},
	MemberHour:    Use{Read: 240},
	WorkerStart:   Use{Requests: 10.4, Read: 6.1, Write: 10},
	FirstLogin:    Use{Requests: 20.2, Read: 21.6, Write: 158.4, Keys: 1, Fetched: 1},
	Release:       Use{Requests: 2, Write: 20.2},
	Resume:        Use{Requests: 16.3, Read: 19.5, Write: 28.6, Keys: 1, Fetched: 1},
	HandOver:      Use{Requests: 22.7, Read: 23.2, Write: 40, Keys: 1, Fetched: 1},
	Takeover:      Use{Requests: 18.7, Read: 22.2, Write: 31.2, Keys: 1, Fetched: 1},
}
