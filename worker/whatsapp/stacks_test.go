package whatsapp

import "bytes"

type stack struct{ client, server bool }

// splitStacks sorts goroutines by whose code is on them.
func splitStacks(dump []byte) []stack {
	var out []stack
	for g := range bytes.SplitSeq(dump, []byte("\n\n")) {
		out = append(out, stack{
			client: bytes.Contains(g, []byte("go.mau.fi/whatsmeow")) || bytes.Contains(g, []byte("worker/whatsapp.(*Line)")) ||
				bytes.Contains(g, []byte("coder/websocket")),
			server: bytes.Contains(g, []byte("infra/wasim.(")),
		})
	}
	return out
}
