package wasim

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
)

func TestSplitFrames(t *testing.T) {
	one, two := joinFrame([]byte("one")), joinFrame(bytes.Repeat([]byte("x"), 70000))
	got, err := splitFrames(append(append([]byte{}, one...), two...))
	if err != nil || len(got) != 2 || string(got[0]) != "one" || len(got[1]) != 70000 {
		t.Errorf("%d frames, %v", len(got), err)
	}
	for _, bad := range [][]byte{{0}, {0, 0, 5, 1}, one[:len(one)-1]} {
		if _, err := splitFrames(bad); !errors.Is(err, errFrame) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestParseStanzaRefuses(t *testing.T) {
	deep := bytes.Repeat([]byte{248, 2, 19, 248, 1}, maxDepth+2)
	for name, bad := range map[string][]byte{
		"nothing": nil, "flags alone": {0}, "a list that is not there": {0, 249, 255, 255, 1},
		"too deep": append([]byte{0}, deep...), "no zlib": {2, 1, 2, 3}, "tag is a list": {0, 248, 1, 248, 1, 248, 1, 3},
		"a list of lies": {0, 248, 2, 19, 249, 255, 255}, "trailing": {0, 248, 1, 19, 19},
	} {
		if n, err := parseStanza(bad); !errors.Is(err, errStanza) {
			t.Errorf("%s: %v %v", name, n, err)
		}
	}
}

// FuzzParseStanza: whatever comes in, parsing neither panics nor takes more
// than what is there; and what parses is written and read again the same.
func FuzzParseStanza(f *testing.F) {
	for _, n := range []waBinary.Node{
		{Tag: "iq", Attrs: waBinary.Attrs{"id": "1.2-3", "xmlns": "w:p", "type": "get", "to": types.ServerJID}},
		{Tag: "message", Attrs: waBinary.Attrs{"to": types.NewADJID("491700000001", 0, 7)}, Content: []waBinary.Node{{Tag: "enc", Content: []byte{1, 2, 3}}}},
		{Tag: "receipt", Attrs: waBinary.Attrs{"id": strings.Repeat("AB", 200), "to": types.NewADJID("123", 1, 9)}},
	} {
		plain, err := marshal(n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plain)
	}
	f.Add([]byte{0, 249, 255, 255, 19})
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parseStanza(data)
		if err != nil {
			return
		}
		plain, err := marshal(*n)
		if err != nil {
			return
		}
		again, err := parseStanza(plain)
		if err == nil && again.Tag != n.Tag {
			t.Errorf("%v became %v", n, again)
		}
	})
}

// FuzzSplitFrames: the frames are the message, cut.
func FuzzSplitFrames(f *testing.F) {
	f.Add(joinFrame([]byte("x")))
	f.Fuzz(func(t *testing.T, data []byte) {
		frames, err := splitFrames(data)
		if err != nil {
			return
		}
		var back []byte
		for _, fr := range frames {
			back = append(back, joinFrame(fr)...)
		}
		if !bytes.Equal(back, data) {
			t.Errorf("%x became %x", data, back)
		}
	})
}

// FuzzParseQR: a QR text is a link or its tail, nothing else.
func FuzzParseQR(f *testing.F) {
	key := strings.Repeat("A", 43) + "="
	f.Add("https://wa.me/settings/linked_devices#ref," + key + "," + key + "," + key + ",1")
	f.Fuzz(func(t *testing.T, code string) {
		q, err := parseQR(code)
		if err == nil && (q.ref == "" || len(q.noise) != 32 || len(q.identity) != 32 || len(q.adv) != 32) {
			t.Errorf("%+v", q)
		}
	})
}

func TestNoiseRefusesGarbage(t *testing.T) {
	id := newServerKeys([32]byte{7})
	none := func() ([]byte, error) { return []byte{1, 2, 3}, nil }
	for _, hello := range [][]byte{nil, {1}, {0x12, 0x02, 0x0a, 0x00}} {
		_, _, _, _, err := respond(id, nil, []byte("WA"), hello, func([]byte) error { return nil }, none)
		if !errors.Is(err, errHandshake) {
			t.Errorf("%x: %v", hello, err)
		}
	}
	if !reflect.DeepEqual(id, newServerKeys([32]byte{7})) {
		t.Error("the same seed makes other keys")
	}
}
