package wasim_test

import (
	"context"
	"fmt"
	"time"

	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types/events"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/infra/wasim/memstore"
	"github.com/holdfast-wa/holdfast/infra/wasim/wasimtest"
)

// A client pairs, receives, sends, and comes back without a QR.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	s, err := wasim.New(wasim.Options{QuietPhone: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := s.Start(); err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	dev := memstore.New() // the store; it outlives the client
	cli := wasimtest.Client(s, dev)
	texts := make(chan string, 8)
	cli.AddEventHandler(func(evt any) {
		if m, ok := evt.(*events.Message); ok {
			texts <- m.Message.GetConversation()
		}
	})
	d, err := wasimtest.Pair(ctx, s, "491700000001", cli)
	if err != nil {
		fmt.Println("pair:", err)
		return
	}
	fmt.Println("paired as device", d.JID().Device)

	ann := s.Contact("491700000002")
	if _, err := ann.SendText(ctx, "491700000001", "hello"); err != nil {
		fmt.Println("send:", err)
	}
	fmt.Println("received:", <-texts)
	if _, err := cli.SendMessage(ctx, ann.PN(), &waE2E.Message{Conversation: proto.String("hello yourself")}); err != nil {
		fmt.Println("send:", err)
	}
	r, err := ann.WaitText(ctx, "hello yourself")
	fmt.Println("the contact read:", r.Text, err)

	// The process dies; a message arrives meanwhile; another process resumes.
	cli.Disconnect()
	_ = d.WaitOffline(ctx)
	if _, err := ann.SendText(ctx, "491700000001", "are you there?"); err != nil {
		fmt.Println("send:", err)
	}
	again := wasimtest.Client(s, dev)
	again.AddEventHandler(func(evt any) {
		if m, ok := evt.(*events.Message); ok {
			texts <- m.Message.GetConversation()
		}
	})
	if err := wasimtest.Connect(ctx, again); err != nil {
		fmt.Println("resume:", err)
	}
	select {
	case text := <-texts:
		fmt.Println("after the restart:", text)
	case <-ctx.Done():
	}
	fmt.Println("drained:", d.WaitDrained(ctx))
	again.Disconnect()

	truth := s.Truth()
	fmt.Println("pairings:", len(truth.Pairings), "anomalies:", len(truth.Anomalies))
	// Output:
	// paired as device 1
	// received: hello
	// the contact read: hello yourself <nil>
	// after the restart: are you there?
	// drained: <nil>
	// pairings: 1 anomalies: 0
}
