package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.mau.fi/whatsmeow"
)

func TestParseRecipient(t *testing.T) {
	for in, want := range map[string]string{
		"4915112345678":                "4915112345678@s.whatsapp.net",
		"+4915112345678":               "4915112345678@s.whatsapp.net",
		" +49 (151) 1234-5678 ":        "4915112345678@s.whatsapp.net",
		"4915112345678@s.whatsapp.net": "4915112345678@s.whatsapp.net",
		"4915112345678@c.us":           "4915112345678@s.whatsapp.net",
		"120363000000000001@g.us":      "120363000000000001@g.us",
		"491511234567-1600000000@g.us": "491511234567-1600000000@g.us",
		"8800000002@lid":               "8800000002@lid",
	} {
		if got, err := ParseRecipient(in); err != nil || got != want {
			t.Errorf("ParseRecipient(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "   ", "ada", "+", "123", "0151123456789", "12345678901234567", "4915112345678:3@s.whatsapp.net",
		"4915112345678@example.com", "status@broadcast", "x@g.us", "-@g.us", "@lid", "8800000002:1@lid", "49151\n12345678",
	} {
		got, err := ParseRecipient(in)
		if !errors.Is(err, ErrRecipient) {
			t.Errorf("ParseRecipient(%q) = %q, %v", in, got, err)
		} else if strings.Contains(err.Error(), "4915112345678@") {
			t.Errorf("the number is in %q", err)
		}
	}
}

func TestSendErrors(t *testing.T) {
	for _, c := range []struct {
		name      string
		err       error
		code      int
		temporary bool
	}{
		{"restricted", fmt.Errorf("%w 463", whatsmeow.ErrServerReturnedError), 463, false},
		{"bad stanza", fmt.Errorf("%w 479", whatsmeow.ErrServerReturnedError), 479, false},
		{"too many", fmt.Errorf("%w 429", whatsmeow.ErrServerReturnedError), 429, true},
		{"their fault", fmt.Errorf("%w 503", whatsmeow.ErrServerReturnedError), 503, true},
		{"not there", fmt.Errorf("asking: %w", whatsmeow.ErrIQNotFound), 404, false},
		{"not now", fmt.Errorf("asking: %w", whatsmeow.ErrIQServiceUnavailable), 503, true},
		{"no line", whatsmeow.ErrNotConnected, 0, true},
		{"lost", &whatsmeow.DisconnectedError{Action: "message send"}, 0, true},
		{"no ack", whatsmeow.ErrMessageTimedOut, 0, true},
		{"too late", context.DeadlineExceeded, 0, true},
		{"cut", errCut, 0, true},
		{"nobody", errors.New("no LID found for 4915112345678@s.whatsapp.net from server"), 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := sendError(c.err)
			if got.Code != c.code || got.Temporary != c.temporary {
				t.Errorf("code %d, temporary %v", got.Code, got.Temporary)
			}
			if text := got.Error(); strings.Contains(text, "4915112345678") || strings.Contains(text, "\n") {
				t.Errorf("text %q", text)
			}
		})
	}
}

func TestSendWithoutAConnection(t *testing.T) {
	f := newFakeStore()
	l, _ := loose(t, f, nil)
	_, err := l.SendText(t.Context(), NewMessageID(), "4915112345678", "hello")
	var sending *SendError
	if !errors.As(err, &sending) || !sending.Temporary {
		t.Errorf("got %v", err)
	}
	for _, c := range []struct{ id, to, text string }{{"A", "nobody", "x"}, {"A", "4915112345678", ""}, {"", "4915112345678", "x"}} {
		_, err := l.SendText(t.Context(), c.id, c.to, c.text)
		if !errors.As(err, &sending) || sending.Temporary {
			t.Errorf("SendText(%q, %q, %q): %v", c.id, c.to, c.text, err)
		}
	}
	if len(f.seen()) != 0 {
		t.Errorf("the store saw %v", f.seen())
	}
}
