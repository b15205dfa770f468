// Command bundle packs files into a tar.gz as it is released. The same files give
// the same bytes: of a file only its contents go in, and whether it may be run.
//
//	bundle OUT.tar.gz FILE…
//
// They lie in a folder of the archive's own name.
package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "bundle: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 || !strings.HasSuffix(args[0], ".tar.gz") {
		return errors.New("wants the tar.gz to write and the files that go into it")
	}
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	return errors.Join(bundle(f, strings.TrimSuffix(filepath.Base(args[0]), ".tar.gz"), args[1:]), f.Close())
}

func bundle(w io.Writer, folder string, files []string) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		h := &tar.Header{Format: tar.FormatUSTAR, Typeflag: tar.TypeReg, Name: path.Join(folder, filepath.Base(name)),
			Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
		if info.Mode()&0o100 != 0 {
			h.Mode = 0o755
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(content); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), z.Close())
}
