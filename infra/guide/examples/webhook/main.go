// Command webhook receives events from Holdfast, believes only those that are
// signed, and handles each once. It needs the standard library only.
//
//	webhook 127.0.0.1:9000 whsec_…
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// tolerance is how old or early a request may be.
const tolerance = 5 * time.Minute

// genuine tells whether a request was signed with the key, and just now.
func genuine(h http.Header, body, key []byte) bool {
	at, err := strconv.ParseInt(h.Get("webhook-timestamp"), 10, 64)
	if age := time.Since(time.Unix(at, 0)); err != nil || age > tolerance || age < -tolerance {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", h.Get("webhook-id"), at, body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for _, signature := range strings.Fields(h.Get("webhook-signature")) {
		if hmac.Equal([]byte(signature), []byte(want)) {
			return true
		}
	}
	return false
}

// receiver answers Holdfast.
type receiver struct {
	key  []byte
	mu   sync.Mutex
	seen map[string]time.Time // ids of events, to be kept longer than tolerance
}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4<<20))
	if err != nil || !genuine(r.Header, body, rc.key) {
		http.Error(w, "not signed", http.StatusUnauthorized)
		return
	}
	var event struct {
		Type string
		Seq  uint64
		Data struct{ Text string }
	}
	if err := json.Unmarshal(body, &event); err != nil {
		http.Error(w, "not an event", http.StatusBadRequest)
		return
	}
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if _, twice := rc.seen[r.Header.Get("webhook-id")]; !twice {
		fmt.Println(event.Seq, event.Type, event.Data.Text) // here is what you do with it
		rc.seen[r.Header.Get("webhook-id")] = time.Now()
	}
	for id, at := range rc.seen {
		if time.Since(at) > 2*tolerance {
			delete(rc.seen, id)
		}
	}
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "webhook: wants an address and the secret; such as 127.0.0.1:9000 whsec_…")
		os.Exit(2)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(os.Args[2], "whsec_"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "webhook: the secret is not whsec_ and base64; make one with: echo \"whsec_$(openssl rand -base64 32)\"")
		os.Exit(2)
	}
	server := &http.Server{Addr: os.Args[1], Handler: &receiver{key: key, seen: map[string]time.Time{}}, ReadTimeout: 10 * time.Second}
	fmt.Println("waiting for events at", os.Args[1])
	fmt.Fprintln(os.Stderr, "webhook:", server.ListenAndServe())
	os.Exit(1)
}
