package wasim

import (
	"bytes"
	"context"

	"go.mau.fi/libsignal/state/record"
)

// keepingArchive decrypts as an official app does: a session state that a message
// was tried on, and was not of, stays as it was. The library moves the ratchet of
// each state that it tries, and stores them all.
func (p *peer) keepingArchive(address string, decrypt func() error) error {
	ctx := context.Background()
	before := p.record(ctx, address)
	if err := decrypt(); err != nil || before == nil {
		return err
	}
	after := p.record(ctx, address)
	if after == nil {
		return nil
	}
	was := append([]*record.StateStructure{before.SessionState}, before.PreviousStates...)
	archive := make([]*record.StateStructure, 0, len(after.PreviousStates))
	for _, s := range after.PreviousStates {
		for _, old := range was {
			if bytes.Equal(old.SenderBaseKey, s.SenderBaseKey) {
				s = old
				break
			}
		}
		if !bytes.Equal(s.SenderBaseKey, after.SessionState.SenderBaseKey) {
			archive = append(archive, s)
		}
	}
	after.PreviousStates = archive
	return p.store.Sessions.PutSession(ctx, address, serializer.Session.Serialize(after))
}

// record reads the sessions with an address, nil where there are none.
func (p *peer) record(ctx context.Context, address string) *record.SessionStructure {
	b, err := p.store.Sessions.GetSession(ctx, address)
	if err != nil || b == nil {
		return nil
	}
	r, err := serializer.Session.Deserialize(b)
	if err != nil {
		return nil
	}
	return r
}
