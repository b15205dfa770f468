package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.mau.fi/whatsmeow"
	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
)

// Logout asks the server to unlink this device. The stored device is left to
// the caller, and the line says nothing more of its end: the server closes it.
func (l *Line) Logout(ctx context.Context) error {
	l.seen.mu.Lock()
	jid := l.seen.jid
	l.seen.mu.Unlock()
	if jid.IsEmpty() {
		return whatsmeow.ErrNotLoggedIn
	}
	if !l.LoggedIn() {
		return whatsmeow.ErrNotConnected
	}
	l.end.silence()
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Settings.QueryTimeout)
	defer cancel()
	_, err := l.cli.DangerousInternals().SendIQ(ctx, whatsmeow.DangerousInfoQuery{
		Namespace: "md",
		Type:      "set",
		To:        types.ServerJID,
		NoRetry:   true,
		Content: []waBinary.Node{{
			Tag:   "remove-companion-device",
			Attrs: waBinary.Attrs{"jid": jid, "reason": "user_initiated"},
		}},
	})
	var lost *whatsmeow.DisconnectedError
	if errors.As(err, &lost) && lost.Node != nil && lost.Node.Tag == "stream:error" {
		return nil // the server has dropped the device before it answered
	}
	if err != nil {
		return fmt.Errorf("asking the server to unlink the device: %w", err)
	}
	return nil
}

// ErrPairCode is in the chain of every error of PairPhone.
var ErrPairCode = errors.New("pairing code")

// PairPhone asks for a code of eight characters that is typed on the phone with
// that number. It waits until the line shows QR codes; the code is good as long
// as they are.
func (l *Line) PairPhone(ctx context.Context, phone string) (string, error) {
	jid, err := parseRecipient(phone)
	if err != nil || jid.Server != types.DefaultUserServer {
		return "", fmt.Errorf("%w: %w", ErrPairCode, orNumber(err))
	}
	select {
	case <-l.qr.shown:
	case <-l.readOver:
		return "", fmt.Errorf("%w: %w", ErrPairCode, whatsmeow.ErrNotConnected)
	case <-ctx.Done():
		return "", fmt.Errorf("%w: no QR code was shown in time: %w", ErrPairCode, context.Cause(ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Settings.QueryTimeout)
	defer cancel()
	client, display := l.svc.companion()
	code, err := l.cli.PairPhone(ctx, jid.User, true, client, display)
	if err != nil {
		var iq *whatsmeow.IQError
		if errors.As(err, &iq) && iq.Code != 0 {
			return "", fmt.Errorf("%w: the server refused it with %d; check the number, and wait before trying again", ErrPairCode, iq.Code)
		}
		return "", fmt.Errorf("%w: %s", ErrPairCode, Redact(err.Error()))
	}
	return code, nil
}

func orNumber(err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: must be a phone number", ErrRecipient)
}

// companion is how this device names itself for a pairing by code. The server
// checks the name: a common browser, and in brackets a common system.
func (s *Service) companion() (whatsmeow.PairClientType, string) {
	client, browser := whatsmeow.PairClientSafari, "Safari"
	switch strings.ToUpper(s.cfg.Platform) {
	case "CHROME":
		client, browser = whatsmeow.PairClientChrome, "Chrome"
	case "FIREFOX":
		client, browser = whatsmeow.PairClientFirefox, "Firefox"
	case "EDGE":
		client, browser = whatsmeow.PairClientEdge, "Edge"
	case "OPERA":
		client, browser = whatsmeow.PairClientOpera, "Opera"
	}
	system := "Mac OS"
	switch name := strings.ToLower(s.cfg.DeviceName); {
	case strings.HasPrefix(name, "windows"):
		system = "Windows"
	case strings.HasPrefix(name, "linux"), strings.HasPrefix(name, "ubuntu"):
		system = "Linux"
	}
	return client, browser + " (" + system + ")"
}
