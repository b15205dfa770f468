package whatsapp

import (
	"strings"
	"testing"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
	"pgregory.net/rapid"
)

func TestRedact(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain words stay", "failed to dial after 3 tries", "failed to dial after 3 tries"},
		{"a number", "to 4915112345678 now", "to …78 now"},
		{"with a plus", "to +4915112345678", "to …78"},
		{"as people write it", "call +49 (151) 123-456-78.", "call …78."},
		{"a JID with a device", "4915112345678:12@s.whatsapp.net", "…78:12@s.whatsapp.net"},
		{"six digits stay", "code 123456", "code 123456"},
		{"a date stays", "since 2026-11-21 20:59:43", "since 2026-11-21 20:59:43"},
		{"an address stays", "dial tcp 192.168.100.200:443: refused", "dial tcp 192.168.100.200:443: refused"},
		{"a short address stays", "dial tcp 127.0.0.1:443: refused", "dial tcp 127.0.0.1:443: refused"},
		{"a key", "key " + strings.Repeat("Ab1/", 11) + " end", "key […] end"},
		{"a QR text", "qr https://wa.me/settings/linked_devices#2@abc," + strings.Repeat("x9", 22) + "=,1", "qr https://wa.me/settings/linked_devices#2@abc,[…],1"},
		{"empty", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Redact(c.in); got != c.want {
				t.Errorf("Redact(%q) = %q, want %q", c.in, got, c.want)
			}
		})
	}
}

// Whatever stands around it, a phone number is never left whole.
func TestRedactLeavesNoNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.StringMatching(`[1-9][0-9]{6,14}`).Draw(t, "number")
		text := rapid.String().Draw(t, "before") + number + rapid.String().Draw(t, "after")
		if got := Redact(text); strings.Contains(got, number) {
			t.Fatalf("Redact(%q) = %q still holds the number", text, got)
		}
	})
}

func TestRedactArgShowsNoContent(t *testing.T) {
	node := waBinary.Node{
		Tag: "message",
		Attrs: waBinary.Attrs{
			"id": "3EB0AA", "from": types.NewJID("4915112345678", types.DefaultUserServer), "notify": "Ada Lovelace",
		},
		Content: []waBinary.Node{{Tag: "body", Content: []byte("hello")}},
	}
	for _, arg := range []any{node, &node} {
		got := redactArg(arg).(string)
		if got != `<message id="3EB0AA"> body` {
			t.Errorf("a node is shown as %q", got)
		}
	}
	if got := redactArg([]byte("secret")); got != "[6 bytes]" {
		t.Errorf("bytes are shown as %v", got)
	}
}
