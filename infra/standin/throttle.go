package standin

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// throttler answers in the place of DynamoDB that there are too many requests,
// which DynamoDB Local never does.
type throttler struct {
	server *http.Server
	count  atomic.Int64
}

func startThrottler(address string) (*throttler, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	t := &throttler{}
	t.server = &http.Server{Handler: t, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = t.server.Serve(l) }()
	return t, nil
}

func (t *throttler) stop() { _ = t.server.Close() }

// The ways in which DynamoDB refuses a single request for its number. Which of
// them comes depends on what has run out: the table's throughput, the account's,
// or the rate of one API.
var throttled = []string{"ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"}

const (
	dynamoTypes = "com.amazonaws.dynamodb.v20120810#"
	tooMany     = "The level of configured provisioned throughput for the table was exceeded"
)

func (t *throttler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := t.count.Add(1)
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 16<<20))
	answer := map[string]any{"__type": dynamoTypes + throttled[n%int64(len(throttled))], "message": tooMany}
	if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".TransactWriteItems") && n%2 == 0 {
		// A transaction is cancelled as a whole, and says so of one of its items.
		answer = map[string]any{"__type": dynamoTypes + "TransactionCanceledException",
			"Message":             "Transaction cancelled, please refer cancellation reasons for specific reasons [None, ThrottlingError]",
			"CancellationReasons": []map[string]string{{"Code": "None"}, {"Code": "ThrottlingError", "Message": tooMany}}}
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.Header().Set("X-Amzn-Requestid", fmt.Sprintf("THROTTLED%020d", n))
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(answer)
}
