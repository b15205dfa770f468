package dynamolocal

import (
	"errors"
	"net/http"
	"os"
	"testing"
	"time"
)

// It answers while it runs, keeps its tables in the folder that it is given, and
// is gone after Stop.
func TestStartAndStop(t *testing.T) {
	required := os.Getenv("HOLDFAST_REQUIRE_ALL") == "1"
	dir := t.TempDir()
	p, err := Start(t.Context(), Options{Fetch: required, Dir: dir})
	if err != nil && !required {
		t.Skipf("without DynamoDB Local: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Get(p.URL)
	if err != nil {
		t.Error(err)
	} else {
		_ = resp.Body.Close()
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if resp, err := client.Get(p.URL); err == nil {
		t.Error("it still answers", resp.Body.Close())
	}
}

func TestNothingIsFetchedUnasked(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("HOME", cache)
	if _, err := Start(t.Context(), Options{}); !errors.Is(err, ErrMissing) && os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Error(err)
	}
	if left, err := os.ReadDir(cache); err != nil || len(left) > 0 {
		t.Errorf("the cache holds %v, %v", left, err)
	}
}
