package main

import (
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// As in the image: a system without any certificate.
func TestRootsWhereTheSystemHasNone(t *testing.T) {
	const inside = "HOLDFAST_TEST_ROOTS"
	if os.Getenv(inside) == "" {
		none := filepath.Join(t.TempDir(), "none")
		cmd := exec.Command(os.Args[0], "-test.run=^TestRootsWhereTheSystemHasNone$", "-test.count=1")
		cmd.Env = append(os.Environ(), inside+"=1", "SSL_CERT_FILE="+none, "SSL_CERT_DIR="+none)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	known, unknown := 0, 0
	for root := range bundle.Roots() {
		c, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		// Some have bounds that they do not meet themselves, or have run out.
		if _, err := c.Verify(x509.VerifyOptions{}); err == nil {
			known++
		} else {
			unknown++
		}
	}
	if known < 50 {
		t.Errorf("%d roots are trusted, %d are not", known, unknown)
	}
}
