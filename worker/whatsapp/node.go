package whatsapp

import (
	"strconv"
	"strings"
	"time"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-wa/holdfast/worker/policy"
)

// failureSignal reads a <failure>: why the server refused the login.
func failureSignal(n *waBinary.Node) policy.Signal {
	sig := policy.Signal{Kind: policy.SignalFailure, Code: number(n, "reason"), Text: word(n, "message")}
	if sig.Text == "" {
		sig.Text = strings.TrimSpace(word(n, "logout_message_header") + " " + word(n, "logout_message_subtext"))
	}
	if sig.Code == 402 {
		sig.Expire = max(0, time.Duration(number(n, "expire"))*time.Second)
		if reason := number(n, "code"); reason != 0 {
			sig.Text = strings.TrimSpace(sig.Text + " (ban reason " + strconv.Itoa(reason) + ")")
		}
	}
	sig.Text = Redact(clip(sig.Text))
	return sig
}

// streamErrorSignal reads a <stream:error>: why the server ends the connection.
func streamErrorSignal(n *waBinary.Node) policy.Signal {
	sig := policy.Signal{Kind: policy.SignalStreamError, Code: number(n, "code")}
	var said []string
	for _, child := range n.GetChildren() {
		switch child.Tag {
		case "conflict":
			sig.Conflict = word(&child, "type")
		case "text":
			if content, ok := child.Content.([]byte); ok {
				said = append(said, string(content))
			}
		default:
			said = append(said, child.Tag)
		}
	}
	if code := word(n, "code"); code != "" && sig.Code == 0 {
		said = append(said, "code "+code)
	}
	sig.Text = Redact(clip(strings.Join(said, " ")))
	return sig
}

// clip bounds a text that the server chose.
func clip(text string) string {
	const most = 300
	text = strings.ToValidUTF8(strings.TrimSpace(text), "�")
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// word is an attribute that is a string, empty if it is none.
func word(n *waBinary.Node, name string) string {
	s, _ := n.Attrs[name].(string)
	return s
}

// number is an attribute that is a number, 0 if it is none.
func number(n *waBinary.Node, name string) int {
	switch v := n.Attrs[name].(type) {
	case string:
		i, _ := strconv.Atoi(v)
		return i
	case int:
		return v
	case int64:
		return int(v)
	}
	return 0
}

// moment is an attribute that is a time in Unix seconds, zero if it is none.
func moment(n *waBinary.Node, name string) time.Time {
	if s := number(n, name); s > 0 {
		return time.Unix(int64(s), 0)
	}
	return time.Time{}
}

// author is who a stanza came from: the participant in a group, else the sender.
func author(n *waBinary.Node) types.JID {
	for _, name := range []string{"participant", "from"} {
		switch v := n.Attrs[name].(type) {
		case types.JID:
			return v
		case *types.JID:
			if v != nil {
				return *v
			}
		}
	}
	return types.EmptyJID
}

// patchesOfPhone tells whether an answer holds app state patches that the
// account's phone (device 0) made.
func patchesOfPhone(n *waBinary.Node) bool {
	for _, sync := range n.GetChildren() {
		if sync.Tag != "sync" {
			continue
		}
		for _, collection := range sync.GetChildren() {
			patches := collection.GetChildByTag("patches")
			for _, patch := range patches.GetChildren() {
				content, ok := patch.Content.([]byte)
				if device, told := patchDevice(content); ok && told && device == 0 {
					return true
				}
			}
		}
	}
	return false
}

// patchDevice reads the number of the device that made a patch (field 8 of
// SyncdPatch) without decoding the rest.
func patchDevice(patch []byte) (device uint64, told bool) {
	const deviceIndex = 8
	for len(patch) > 0 {
		field, kind, n := protowire.ConsumeTag(patch)
		if n < 0 {
			return 0, false
		}
		patch = patch[n:]
		if field == deviceIndex && kind == protowire.VarintType {
			v, n := protowire.ConsumeVarint(patch)
			return v, n > 0
		}
		if n = protowire.ConsumeFieldValue(field, kind, patch); n < 0 {
			return 0, false
		}
		patch = patch[n:]
	}
	return 0, false
}
