package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// The whole program against the simulated service: pairing, messages, a line
// that breaks, a server that fails, a restart. Waits are cut short.
func TestTheDemoTellsItsStory(t *testing.T) {
	var out, errs bytes.Buffer
	dir := t.TempDir()
	environ := []string{"HOLDFAST_STATE=sqlite:" + dir + "/of-somebody-else.db"}
	code := run(t.Context(), []string{"demo", "--backoff", "200ms", "--network-delay", "200ms", "--restart-delay", "200ms", "--keep", dir}, environ,
		IO{In: strings.NewReader(""), Out: &out, Err: &errs})
	if code != exitDone || errs.String() != "" {
		t.Fatalf("exit code %d, %s\n%s", code, errs.String(), out.String())
	}
	for _, want := range []string{"paired and online", "Ada has decrypted it", "TCP reset", "online again, by itself", "error 503", "online without a QR code", " 0 messages that a contact could not read, 0 moments"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	if _, err := os.Stat(dir + "/of-somebody-else.db"); !os.IsNotExist(err) {
		t.Errorf("the environment's database was touched: %v", err)
	}
	// What it left is sound.
	if r := drive(t, []string{"HOLDFAST_DATA_DIR=" + dir}, "sessions", "verify"); r.code != exitDone || r.out != "ok    default\n" {
		t.Errorf("verify: exit code %d, %s%s", r.code, r.out, r.err)
	}
}
