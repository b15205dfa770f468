// Command echo-bot answers every text that a session receives. It follows the
// session's events, answers by the admin API, and misses nothing while it runs:
// after a broken line it goes on behind the last message that it has answered.
//
//	echo-bot http://127.0.0.1:8080/api/sessions/default data/api.key
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

type bot struct{ session, key, last string }

type event struct {
	ID   string `json:"id"`
	Data struct {
		ID, Chat, Text string
		FromMe         bool
	} `json:"data"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "echo-bot: wants the session's URL and the file of an API key; such as http://127.0.0.1:8080/api/sessions/default data/api.key")
		os.Exit(2)
	}
	key, err := os.ReadFile(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo-bot:", err)
		os.Exit(1)
	}
	b := bot{session: os.Args[1], key: strings.TrimSpace(string(key))}
	for ; ; time.Sleep(2 * time.Second) {
		fmt.Fprintln(os.Stderr, "echo-bot:", b.follow(), "- trying again")
	}
}

// follow answers what comes in until the line breaks.
func (b *bot) follow() error {
	stream, err := b.ask(http.MethodGet, "/events?type=message.received", nil)
	if err != nil {
		return err
	}
	defer stream.Body.Close()
	fmt.Println("following", b.session)
	lines := bufio.NewScanner(stream.Body)
	lines.Buffer(nil, 1<<20)
	for seq := ""; lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		var e event
		switch {
		case field == "id":
			seq = value
			continue
		case field != "data" || json.Unmarshal([]byte(value), &e) != nil || e.Data.FromMe || e.Data.Text == "":
			continue
		}
		// With the event's id as the key, an event that comes twice is answered once.
		answer := map[string]string{"to": e.Data.Chat, "replyTo": e.Data.ID, "text": "You said: " + e.Data.Text, "idempotencyKey": e.ID}
		taken, err := b.ask(http.MethodPost, "/messages", answer)
		if err != nil {
			return err
		}
		_ = taken.Body.Close()
		b.last = seq
	}
	return errors.Join(errors.New("the stream has ended"), lines.Err())
}

// ask makes a request of the admin API.
func (b *bot) ask(method, path string, body any) (*http.Response, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest(method, b.session+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	r.Header = http.Header{"X-Api-Key": {b.key}, "Content-Type": {"application/json"}}
	if method == http.MethodGet {
		r.Body, r.ContentLength = http.NoBody, 0
		r.Header.Set("Accept", "text/event-stream")
		r.Header["Last-Event-ID"] = []string{b.last}
	}
	answer, err := http.DefaultClient.Do(r)
	if err == nil && answer.StatusCode/100 != 2 {
		_ = answer.Body.Close()
		err = fmt.Errorf("%s %s: %s", method, path, answer.Status)
	}
	return answer, err
}
