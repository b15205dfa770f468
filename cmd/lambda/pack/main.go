// Command pack puts the function into a zip file as Lambda takes it: one file
// named bootstrap that may be run. The same function gives the same bytes, so
// that a deployment changes only when the function does.
package main

import (
	"archive/zip"
	"compress/flate"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "pack: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("wants the function and the zip file to write")
	}
	function, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(args[1]), 0o750); err != nil {
		return err
	}
	f, err := os.Create(args[1])
	if err != nil {
		return err
	}
	sum := sha256.New()
	if err := errors.Join(pack(io.MultiWriter(f, sum), function), f.Close()); err != nil {
		return err
	}
	// As Terraform and Lambda write it: source_code_hash.
	_, err = fmt.Fprintf(out, "%s %s\n", args[1], base64.StdEncoding.EncodeToString(sum.Sum(nil)))
	return err
}

// packed is the time of the file in the zip, the earliest that the format has.
var packed = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

func pack(w io.Writer, function []byte) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) })
	h := &zip.FileHeader{Name: "bootstrap", Method: zip.Deflate, Modified: packed}
	h.SetMode(0o755)
	f, err := z.CreateHeader(h)
	if err != nil {
		return err
	}
	if _, err := f.Write(function); err != nil {
		return err
	}
	return z.Close()
}
