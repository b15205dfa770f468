package wasim

import (
	"context"
	"fmt"
	"time"

	"go.mau.fi/libsignal/ecc"

	"go.mau.fi/whatsmeow/store"
)

// Enrol links a device without a QR: it registers the keys of dev, an unpaired
// device of a client's store, and writes into it what a pairing would have
// (ID, LID, Account, Platform, the phone's identity), saving it as the library
// does. Made for benches that connect a thousand clients.
func (s *Server) Enrol(ctx context.Context, number string, dev *store.Device) (*Device, error) {
	number, err := digits(number)
	if err != nil {
		return nil, err
	}
	if dev.ID != nil {
		return nil, fmt.Errorf("%w: device: is paired already", ErrInput)
	}
	s.mu.Lock()
	u := s.user(number)
	d := s.newDevice(u)
	d.noise, d.identity = *dev.NoiseKey.Pub, *dev.IdentityKey.Pub
	d.regID, d.skeyID, d.skey, d.skeySig = dev.RegistrationID, dev.SignedPreKey.KeyID, *dev.SignedPreKey.Pub, *dev.SignedPreKey.Signature
	d.greeted = true
	s.mu.Unlock()
	account, err := u.sign(d)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	message := append([]byte{6, 1}, account.Details...)
	message = append(message, d.identity[:]...)
	message = append(message, account.AccountSignatureKey...)
	signature := ecc.CalculateSignature(ecc.NewDjbECPrivateKey(*dev.IdentityKey.Priv), message)
	account.DeviceSignature = signature[:]
	jid := d.jid
	dev.ID, dev.LID, dev.Account, dev.Platform = &jid, d.lid, account, "android"
	if err := dev.Save(ctx); err != nil {
		dev.ID = nil
		return nil, fmt.Errorf("enrol: %w", err)
	}
	if err := dev.LIDs.PutLIDMapping(ctx, d.lid, d.jid); err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	if err := dev.Identities.PutIdentity(ctx, u.lidJID(0).SignalAddress().String(), *u.peer.store.IdentityKey.Pub); err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u.devices[d.jid.Device] = d
	keep(&s.truth, s.opt.MaxRecords, &s.truth.pairings, Pairing{Account: number, Device: d.jid.String(), By: "enrol", At: s.opt.Now()})
	s.notify()
	return d, nil
}

// EnrolReady is Enrol of a device whose prekeys, count of them (at least 5, or
// the client uploads more), are on the server already: a client that logs in
// spends no time on making 812 of them.
func (s *Server) EnrolReady(ctx context.Context, number string, dev *store.Device, count uint32) (*Device, error) {
	d, err := s.Enrol(ctx, number, dev)
	if err != nil {
		return nil, err
	}
	made, err := dev.PreKeys.GetOrGenPreKeys(ctx, count)
	if err != nil {
		return nil, fmt.Errorf("enrol: prekeys: %w", err)
	}
	if len(made) == 0 {
		return d, nil
	}
	if err := dev.PreKeys.MarkPreKeysAsUploaded(ctx, made[len(made)-1].KeyID); err != nil {
		return nil, fmt.Errorf("enrol: prekeys: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range made {
		d.prekeys = append(d.prekeys, preKey{id: k.KeyID, pub: *k.Pub})
	}
	d.left = len(made)
	return d, nil
}

// Watch scans, as number's phone, every QR text that fetch shows, until ctx
// ends. It asks once per interval (default 1 s). An error of fetch, or an
// empty text, means that none is shown now; scan errors go to report, which
// may be nil.
func (s *Server) Watch(ctx context.Context, number string, every time.Duration, fetch func(context.Context) (string, error), report func(*Device, error)) error {
	phone, err := s.phone(number)
	if err != nil {
		return err
	}
	def(&every, time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := ""
	for {
		if code, err := fetch(ctx); err == nil && code != "" && code != last {
			last = code
			wait, cancel := context.WithTimeout(ctx, 30*time.Second)
			d, err := phone.Scan(wait, code)
			cancel()
			if report != nil && ctx.Err() == nil {
				report(d, err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
