package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestTheAPIGetsItsPathsAsTheyCame: a mux before it would redirect some of them.
func TestTheAPIGetsItsPathsAsTheyCame(t *testing.T) {
	var seen string
	api := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = "api " + r.URL.Path })
	rest := http.NewServeMux()
	rest.HandleFunc("/", func(http.ResponseWriter, *http.Request) { seen = "rest" })
	h := withAPI(api, rest)
	for target, want := range map[string]string{
		"/api/sessions":           "api /api/sessions",
		"/api/sessions/%2e%2e/qr": "api /api/sessions/../qr",
		"/api//sessions":          "api /api//sessions",
		"/api/./me":               "api /api/./me",
		"/apiary":                 "rest",
		"/health":                 "rest",
	} {
		seen = ""
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
		if seen != want || w.Code != http.StatusOK {
			t.Errorf("%s: %q, HTTP %d; want %q", target, seen, w.Code, want)
		}
	}
}
