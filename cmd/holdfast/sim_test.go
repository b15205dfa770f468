package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// What --write-config writes is all that a worker needs, and phones scan also
// for a holdfast whose data folder is made later.
func TestSimWritesAConfigAndScansWhatStartsLater(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	config, data := filepath.Join(dir, "sim.yaml"), filepath.Join(dir, "data")
	listen, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	reader, writer := io.Pipe()
	var errs lockedBuffer
	done := make(chan int, 1)
	go func() {
		code := run(ctx, []string{"sim", "--write-config", config, "--autoscan=http://" + listen, "--data-dir", data}, nil,
			IO{In: strings.NewReader(""), Out: writer, Err: &errs})
		writer.Close()
		done <- code
	}()
	if _, err := bufio.NewReader(reader).ReadBytes('\n'); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if info, err := os.Stat(config); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	dev := make(chan int, 1)
	var out, log lockedBuffer
	go func() {
		dev <- run(ctx, []string{"dev", "--config", config, "--data-dir", data, "--listen", listen}, nil, IO{In: strings.NewReader(""), Out: &out, Err: &log})
	}()
	for !strings.Contains(out.String(), `"type":"session.paired"`) {
		select {
		case <-ctx.Done():
			t.Fatalf("no phone has scanned the code\n%s\n%s", log.String(), errs.String())
		case code := <-dev:
			t.Fatalf("dev has ended with %d: %s", code, log.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	cancel()
	if code := <-dev; code != exitDone {
		t.Errorf("dev: exit code %d, %s", code, log.String())
	}
	if code := <-done; code != exitDone {
		t.Errorf("sim: exit code %d, %s", code, errs.String())
	}
}

func TestSimSaysWhatCannotBeWritten(t *testing.T) {
	r := drive(t, nil, "sim", "--write-config", filepath.Join(t.TempDir(), "none", "sim.yaml"))
	if r.code != exitFailed || !strings.Contains(r.err, "sim.yaml: cannot be written: no such file or directory; ") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("exit code %d, %s", r.code, r.err)
	}
	// A fault that waiting does not cure ends it.
	r = drive(t, nil, "sim", "--autoscan=no-url")
	if r.code != exitUsage || !strings.Contains(r.err, "is no URL with a host") {
		t.Errorf("exit code %d, %s", r.code, r.err)
	}
}
