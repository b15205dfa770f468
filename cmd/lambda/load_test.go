package main

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// Answers and requests of the size at which Lambda itself would give up.
func TestSizes(t *testing.T) {
	s := newServices(t)
	o := s.session("shop", "w-1")
	text, err := json.Marshal(map[string]string{"text": strings.Repeat("ä\"", 40_000)})
	if err != nil {
		t.Fatal(err)
	}
	const events = 30 // of 240 KB each, as the answer has them
	for seq := uint64(1); seq <= events; seq++ {
		id := state.EventID(seq)
		ev := state.Event{ID: "01JD8Q3W2N5C7G9K1M4P6R8T0V", Type: state.EventMessage, Time: time.Now(), Session: "shop", Epoch: 1, Seq: seq, Data: text}
		plain, err := json.Marshal(ev)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := s.keyset.Seal(seal.Place{Partition: state.OfSession("shop"), Kind: state.KindEvent, ID: id}, plain)
		if err != nil {
			t.Fatal(err)
		}
		s.commit(o, state.KindEvent, id, state.StoredEvent{V: state.Format, ID: ev.ID, Type: ev.Type, At: ev.Time, Sealed: sealed})
	}
	f := s.start()
	var p adminapi.Problem
	out := f.invoke(request("GET", "/api/sessions/shop/events?limit=100", "viewer-secret", ""))
	if r := out.decode(t, &p); r.StatusCode != http.StatusRequestEntityTooLarge || p.Code != adminapi.CodeAnswerTooLarge || !strings.Contains(p.Detail, "limit") || r.Headers["x-request-id"] == "" {
		t.Errorf("an answer of more than 6 MB: %d %+v", r.StatusCode, p)
	}
	var page adminapi.EventPage
	out = f.invoke(request("GET", "/api/sessions/shop/events?limit=20", "viewer-secret", ""))
	if r := out.decode(t, &page); r.StatusCode != http.StatusOK || len(page.Events) != 20 || len(out.body) < 4<<20 {
		t.Errorf("an answer of %d bytes: %d", len(out.body), r.StatusCode)
	}
	// Files to send, which are binary and go to the vault.
	upload := func(size int) outcome {
		return f.invoke(request("POST", "/api/sessions/shop/media?fileName=a.bin", "operator-secret", base64.StdEncoding.EncodeToString(make([]byte, size)),
			header("content-type", "application/octet-stream"), func(e map[string]any) { e["isBase64Encoded"] = true }))
	}
	var kept adminapi.Upload
	if r := upload(4<<20).decode(t, &kept); r.StatusCode != http.StatusCreated || kept.Size != 4<<20 || s.count("s3.PUT") < 2 {
		t.Errorf("an upload of 4 MB: %d %s, %d objects", r.StatusCode, r.Body, s.count("s3.PUT"))
	}
	if r := upload(4<<20+100_000).decode(t, &p); r.StatusCode != http.StatusRequestEntityTooLarge || p.Code != adminapi.CodeTooLarge {
		t.Errorf("an upload of more: %d %+v", r.StatusCode, p)
	}
	// As large as Lambda lets a request be.
	body := base64.StdEncoding.EncodeToString(make([]byte, 4<<20))
	out = f.invoke(request("POST", "/api/sessions", "operator-secret", body, func(e map[string]any) { e["isBase64Encoded"] = true }))
	if r := out.decode(t, &p); r.StatusCode != http.StatusRequestEntityTooLarge || p.Code != adminapi.CodeTooLarge {
		t.Errorf("a request of 4 MB: %d %+v", r.StatusCode, p)
	}
}

// One process takes one event after the other.
func TestManyInvocations(t *testing.T) {
	s := newServices(t)
	s.session("shop", "w-1")
	f := s.start("HOLDFAST_API_RATE=0")
	rate := func(n int, event string) float64 {
		began := time.Now()
		for range n {
			if r := f.invoke(event).decode(t, nil); r.StatusCode != http.StatusOK {
				t.Fatalf("%d: %s", r.StatusCode, r.Body)
			}
		}
		return float64(n) / time.Since(began).Seconds()
	}
	t.Logf("%.0f invocations/s without the store, %.0f with DynamoDB Local",
		rate(1000, request("GET", "/api/openapi.json", "", "")), rate(100, request("GET", "/api/sessions", "viewer-secret", "")))
	if strings.Contains(f.log.String(), "panic") || s.count("kms.Decrypt") != 1 {
		t.Errorf("%d questions to the master key; the log:\n%s", s.count("kms.Decrypt"), f.log)
	}
}

// How long our own code takes from the start of the process until it asks for its
// first event, and until it has answered one that needs no service: under 300 ms.
// A machine that is busy with something else delays any start, so the best one
// counts, and it has many tries.
func TestColdStart(t *testing.T) {
	const bound, few, many = 300 * time.Millisecond, 7, 60

	environ := []string{"AWS_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=none", "HOLDFAST_STATE=dynamodb:test",
		"HOLDFAST_VAULT=s3://bucket", "HOLDFAST_MASTER_KEY=awskms:" + masterARN, "HOLDFAST_API_KEYS=" + keyList()[0]}
	if _, err := bootstrap(); err != nil {
		t.Fatal(err)
	}
	var ready, answered []time.Duration
	for i := 0; i < few || i < many && slices.Min(answered) > bound; i++ {
		began := time.Now()
		f := start(t, environ...)
		select {
		case <-f.asked:
		case err := <-f.ended:
			t.Fatalf("it has ended: %v\n%s", err, f.log)
		case <-time.After(time.Minute):
			t.Fatal("it asks for no event")
		}
		ready = append(ready, time.Since(began))
		// Refused before anything of AWS would be needed.
		f.invoke(refusedAtOnce).decode(t, nil)
		answered = append(answered, time.Since(began))
	}
	slices.Sort(ready)
	slices.Sort(answered)
	t.Logf("ready for events after %v (median of %d; best %v), first answer after %v (best %v)",
		ready[len(ready)/2], len(ready), ready[0], answered[len(ready)/2], answered[0])
	if answered[0] > bound {
		t.Errorf("the best of %d starts took %v until its first answer, want %v at most", len(ready), answered[0], bound)
	}
}

var refusedAtOnce = request("GET", "api/nowhere", "", "")
