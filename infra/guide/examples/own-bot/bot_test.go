// Package ownbot is an example: a bot that is a whatsmeow client of its own, and
// its test against the simulated service.
package ownbot

import (
	"context"
	"testing"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types/events"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/infra/wasim/wasimtest"
)

// serve is the bot under test: it answers ping with pong.
func serve(ctx context.Context, cli *whatsmeow.Client) {
	cli.AddEventHandler(func(evt any) {
		if m, ok := evt.(*events.Message); ok && m.Message.GetConversation() == "ping" {
			_, _ = cli.SendMessage(ctx, m.Info.Chat, &waE2E.Message{Conversation: proto.String("pong")})
		}
	})
}

func TestBotAnswers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	service, err := wasim.New(wasim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	defer service.Close()

	cli := wasimtest.Client(service, nil) // a client with its device in memory, pointed at the service
	serve(ctx, cli)
	if _, err := wasimtest.Pair(ctx, service, "491700000001", cli); err != nil {
		t.Fatal(err)
	}
	defer cli.Disconnect()

	contact := service.Contact("491700000002")
	if _, err := contact.SendText(ctx, "491700000001", "ping"); err != nil {
		t.Fatal(err)
	}
	if _, err := contact.WaitText(ctx, "pong"); err != nil {
		t.Fatal(err)
	}
	if odd := service.Truth().Anomalies; len(odd) > 0 {
		t.Errorf("the service found this odd: %v", odd)
	}
}
