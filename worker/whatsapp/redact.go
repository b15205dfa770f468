package whatsapp

import (
	"fmt"
	"strings"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
)

const (
	longestDigits = 6  // a run of digits above this may be a phone number
	longestToken  = 40 // a run of letters and digits above this may be a key, a QR text or content
	keptDigits    = 2
)

// Redact takes out of a text what may be a phone number or a secret: of a run
// of more than 6 digits the last 2 are left; after a plus, spaces, dashes and
// brackets between the digits do not end the run (elsewhere they would make
// numbers of dates). A run of more than 40 characters of base64 or hex is
// dropped.
func Redact(text string) string {
	var b strings.Builder
	b.Grow(len(text))
	for i := 0; i < len(text); {
		if n := tokenRun(text[i:]); n > longestToken {
			b.WriteString("[…]")
			i += n
			continue
		}
		if isDigit(text[i]) || (text[i] == '+' && i+1 < len(text) && isDigit(text[i+1])) {
			n, digits := digitRun(text[i:])
			if digits > longestDigits {
				b.WriteString("…")
				b.WriteString(lastDigits(text[i : i+n]))
			} else {
				b.WriteString(text[i : i+n])
			}
			i += n
			continue
		}
		b.WriteByte(text[i])
		i++
	}
	return b.String()
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// tokenRun is the length of what looks like one piece of base64 or hex at the
// start of s.
func tokenRun(s string) int {
	n := 0
	for n < len(s) {
		c := s[n]
		if !isDigit(c) && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '+' && c != '/' && c != '=' && c != '_' {
			break
		}
		n++
	}
	return n
}

// digitRun is the length of a number as people write phone numbers at the
// start of s, and how many digits it has. It ends with a digit.
func digitRun(s string) (length, digits int) {
	phone := s[0] == '+'
	separated := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case isDigit(c):
			digits++
			length = i + 1
			separated = false
		case i == 0 && c == '+':
		case phone && (c == '(' || c == ')'):
		case phone && (c == ' ' || c == '-') && !separated:
			separated = true
		default:
			return length, digits
		}
	}
	return length, digits
}

func lastDigits(s string) string {
	digits := make([]byte, 0, len(s))
	for i := range len(s) {
		if isDigit(s[i]) {
			digits = append(digits, s[i])
		}
	}
	return string(digits[max(0, len(digits)-keptDigits):])
}

// redactArg makes an argument of a library's log message fit to be printed.
// Nodes become their outline: their content is never shown.
func redactArg(arg any) any {
	switch v := arg.(type) {
	case *waBinary.Node:
		return outline(v)
	case waBinary.Node:
		return outline(&v)
	case []byte:
		return fmt.Sprintf("[%d bytes]", len(v))
	case types.JID:
		return Redact(v.String())
	case nil:
		return nil
	case error:
		return Redact(v.Error())
	case fmt.Stringer:
		return Redact(v.String())
	case string:
		return Redact(v)
	}
	return arg
}

// outline shows what kind of node this is: its tag, type, class, code and the
// tags of its children.
func outline(n *waBinary.Node) string {
	if n == nil {
		return "<nil>"
	}
	var b strings.Builder
	b.WriteByte('<')
	b.WriteString(n.Tag)
	for _, name := range []string{"id", "type", "class", "code", "reason", "xmlns", "error"} {
		if v, ok := n.Attrs[name]; ok {
			fmt.Fprintf(&b, " %s=%q", name, Redact(fmt.Sprint(v)))
		}
	}
	b.WriteByte('>')
	for i, child := range n.GetChildren() {
		if i == 8 {
			b.WriteString(" …")
			break
		}
		b.WriteString(" ")
		b.WriteString(child.Tag)
	}
	return b.String()
}
