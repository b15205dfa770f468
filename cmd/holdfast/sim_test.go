package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestSimSaysWhereItIs(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	var errs bytes.Buffer
	done := make(chan int, 1)
	seed := strings.Repeat("0a", 32)
	go func() {
		code := run(ctx, []string{"sim", "--seed", seed}, nil, IO{In: strings.NewReader(""), Out: writer, Err: &errs})
		writer.Close()
		done <- code
	}()
	line, err := bufio.NewReader(reader).ReadBytes('\n')
	if err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	var where struct{ URL, ControlURL, RootKey string }
	if err := json.Unmarshal(line, &where); err != nil || !strings.HasPrefix(where.URL, "ws://127.0.0.1:") || len(where.RootKey) != 64 {
		t.Fatalf("%v: %s", err, line)
	}
	client := newHTTPClient()
	defer client.CloseIdleConnections()
	resp, err := client.Get(where.ControlURL + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("control answers %s", resp.Status)
	}
	// A worker takes what sim printed, and doctor finds it.
	r := drive(t, []string{"HOLDFAST_WHATSAPP_URL=" + where.URL, "HOLDFAST_WHATSAPP_ROOT_KEY=" + where.RootKey, "HOLDFAST_DATA_DIR=" + t.TempDir()},
		"doctor", "--listen", "127.0.0.1:0")
	if r.code != exitDone || !strings.Contains(r.out, "answers 200 OK") {
		t.Errorf("doctor: exit code %d\n%s%s", r.code, r.out, r.err)
	}
	// The port is in use now.
	taken := drive(t, nil, "sim", "--listen", strings.TrimSuffix(strings.TrimPrefix(where.URL, "ws://"), "/ws/chat"))
	if taken.code != exitFailed || !strings.Contains(taken.err, "holdfast: sim: cannot start: ") || strings.Count(taken.err, "\n") != 1 {
		t.Errorf("port in use: exit code %d, %s", taken.code, taken.err)
	}
	cancel()
	if code := <-done; code != exitDone || errs.String() != "" {
		t.Errorf("exit code %d, %s", code, errs.String())
	}
}

func TestSimRefusesAWrongSeed(t *testing.T) {
	if r := drive(t, nil, "sim", "--seed", "abc"); r.code != exitUsage || !strings.Contains(r.err, "--seed: is not 64 hex digits") {
		t.Errorf("exit code %d, %s", r.code, r.err)
	}
}
