package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// ErrRecipient is in the chain of every error about an address to send to.
var ErrRecipient = errors.New("recipient")

// ErrMessage is in the chain of every error about a message that cannot be sent.
var ErrMessage = errors.New("message")

// SendError is what a send fails with.
type SendError struct {
	Code      int  // of the server; 0 if it gave none
	Temporary bool // the same send may succeed later
	Err       error
}

func (e *SendError) Error() string {
	switch e.Code {
	case 0:
		return "sending: " + Redact(e.Err.Error())
	case CodeReachout:
		return "sending: refused with 463: this account may not write to new chats for now; wait until the restriction ends"
	}
	return "sending: refused with " + strconv.Itoa(e.Code)
}

// Unwrap gives the chain of errors.
func (e *SendError) Unwrap() error { return e.Err }

// CodeReachout is the code with which messages to new chats are refused while
// the account is restricted. It holds until the restriction ends, which
// ReachoutTimelock tells.
const CodeReachout = 463

// NewMessageID makes the id of a message to send. It is fixed before the first
// try, so that a second one after a crash repeats it.
func NewMessageID() string { return whatsmeow.GenerateMessageID() }

// ParseRecipient reads an address: a phone number with country code, with or
// without a plus, or a JID of a user (…@s.whatsapp.net, …@lid) or group (…@g.us).
func ParseRecipient(to string) (string, error) {
	jid, err := parseRecipient(to)
	if err != nil {
		return "", err
	}
	return jid.String(), nil
}

func parseRecipient(to string) (types.JID, error) {
	to = strings.TrimSpace(to)
	if to == "" {
		return types.EmptyJID, fmt.Errorf("%w: is empty; give a phone number with country code or a JID", ErrRecipient)
	}
	user, server, isJID := strings.Cut(to, "@")
	if !isJID {
		number := strings.NewReplacer(" ", "", "-", "", "(", "", ")", "").Replace(strings.TrimPrefix(to, "+"))
		if err := checkNumber(number); err != nil {
			return types.EmptyJID, err
		}
		return types.NewJID(number, types.DefaultUserServer), nil
	}
	if server == types.LegacyUserServer {
		server = types.DefaultUserServer
	}
	switch server {
	case types.DefaultUserServer:
		if err := checkNumber(user); err != nil {
			return types.EmptyJID, err
		}
	case types.HiddenUserServer:
		if !digitsOnly(user) || len(user) > 20 {
			return types.EmptyJID, fmt.Errorf("%w: a LID is digits before @lid, without a device", ErrRecipient)
		}
	case types.GroupServer:
		if len(user) > 64 || !digitsOnly(strings.Replace(user, "-", "", 1)) {
			return types.EmptyJID, fmt.Errorf("%w: a group is digits before @g.us", ErrRecipient)
		}
	default:
		return types.EmptyJID, fmt.Errorf("%w: the part after @ is not known; use s.whatsapp.net, lid or g.us", ErrRecipient)
	}
	return types.NewJID(user, server), nil
}

func checkNumber(number string) error {
	switch {
	case !digitsOnly(number):
		return fmt.Errorf("%w: a phone number is digits only, with country code, such as 4915112345678", ErrRecipient)
	case number[0] == '0':
		return fmt.Errorf("%w: a phone number begins with the country code, not with 0", ErrRecipient)
	case len(number) < 7 || len(number) > 15:
		return fmt.Errorf("%w: a phone number has 7 to 15 digits with country code, not %d", ErrRecipient, len(number))
	}
	return nil
}

func digitsOnly(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// SendText sends a text under the given id and returns the server's time of it.
// It is sent when the server has accepted it. Errors are *SendError, or wrap
// ErrRecipient.
func (l *Line) SendText(ctx context.Context, messageID, to, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, &SendError{Err: fmt.Errorf("%w: the text is empty", ErrMessage)}
	}
	return l.send(ctx, messageID, to, &waE2E.Message{Conversation: proto.String(text)})
}

// Send sends any message, given as protobuf JSON of WhatsApp's Message.
func (l *Line) Send(ctx context.Context, messageID, to string, message []byte) (time.Time, error) {
	m, err := parseMessage(message)
	if err != nil {
		return time.Time{}, &SendError{Err: err}
	}
	return l.send(ctx, messageID, to, m)
}

// CheckMessage tells whether Send could send this.
func CheckMessage(message []byte) error {
	_, err := parseMessage(message)
	return err
}

// parseMessage reads protobuf JSON. The parser's own error may quote the
// message, so it is not passed on.
func parseMessage(message []byte) (*waE2E.Message, error) {
	var m waE2E.Message
	if protojson.Unmarshal(message, &m) != nil {
		return nil, fmt.Errorf("%w: is not a WhatsApp message in protobuf JSON; field names are as in message.received", ErrMessage)
	}
	if proto.Size(&m) == 0 {
		return nil, fmt.Errorf("%w: has no content", ErrMessage)
	}
	return &m, nil
}

func (l *Line) send(ctx context.Context, messageID, to string, m *waE2E.Message) (time.Time, error) {
	jid, err := parseRecipient(to)
	if err != nil {
		return time.Time{}, &SendError{Err: err}
	}
	if messageID == "" {
		return time.Time{}, &SendError{Err: fmt.Errorf("%w: has no id", ErrMessage)}
	}
	if !l.LoggedIn() {
		return time.Time{}, &SendError{Temporary: true, Err: whatsmeow.ErrNotConnected}
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Settings.QueryTimeout)
	defer cancel()
	ctx, sent := l.store.Sending(ctx)
	defer sent()
	resp, err := l.cli.SendMessage(ctx, jid, m, whatsmeow.SendRequestExtra{ID: messageID, Timeout: l.cfg.Settings.QueryTimeout})
	if err != nil {
		return time.Time{}, sendError(err)
	}
	return resp.Timestamp, nil
}

// sendError sorts what the library says.
func sendError(err error) *SendError {
	e := &SendError{Err: err}
	var iq *whatsmeow.IQError
	var lost *whatsmeow.DisconnectedError
	switch {
	case errors.Is(err, whatsmeow.ErrServerReturnedError):
		e.Code = trailingNumber(err.Error())
		e.Temporary = passing(e.Code)
	case errors.As(err, &iq):
		e.Code = iq.Code
		e.Temporary = iq.Code == 0 || passing(iq.Code)
	case errors.As(err, &lost), errors.Is(err, whatsmeow.ErrNotConnected), errors.Is(err, whatsmeow.ErrMessageTimedOut),
		errors.Is(err, whatsmeow.ErrIQTimedOut), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.Is(err, errCut):
		e.Temporary = true
	case strings.Contains(err.Error(), "no LID found for"):
		e.Err = fmt.Errorf("%w: has no WhatsApp account", ErrRecipient)
	case errors.Is(err, whatsmeow.ErrNotLoggedIn), errors.Is(err, whatsmeow.ErrUnknownServer),
		errors.Is(err, whatsmeow.ErrRecipientADJID), errors.Is(err, whatsmeow.ErrBroadcastListUnsupported):
	default:
		// A store that failed, a socket that broke in a way without a name: the
		// next connection may do better.
		e.Temporary = true
	}
	return e
}

// passing says whether a refusal with this code is about the moment rather than
// about the message.
func passing(code int) bool {
	return code == 408 || code == 429 || code >= 500 && code < 600
}

func trailingNumber(s string) int {
	i := len(s)
	for i > 0 && isDigit(s[i-1]) {
		i--
	}
	n, _ := strconv.Atoi(s[i:])
	return n
}
