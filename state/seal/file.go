package seal

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"

	"github.com/holdfast-wa/holdfast/state"
)

const (
	fileHeader    = "holdfast master key v1"
	fileKeySize   = 32
	fileCheckSize = 8
	// maxKeyFile bounds what is read of a file that is not a key file.
	maxKeyFile = 4096
)

// fileMaster is a master key that lies in a file. The file is two lines: the
// header, and the key with a checksum in base64.
type fileMaster struct {
	id   string
	aead *subtle.AESGCM
}

// OpenFile reads a master key file. It refuses a file that others can read, one
// that is cut short or altered, and one that is something else; each error says
// which, and what to do. The error of a missing file wraps fs.ErrNotExist.
func OpenFile(path string) (Master, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("master key %s: %w: put the file back from where it is kept; without it nothing that was sealed can be read", path, fs.ErrNotExist)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("master key %s: %w: make it readable for this user alone (chown, chmod 600)", path, fs.ErrPermission)
	case err != nil:
		return nil, fmt.Errorf("master key %s: %w", path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("master key %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("master key %s: is not a regular file: name the file that holds the key", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("master key %s: others may access it (mode %04o): run chmod 600 %s", path, mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("master key %s: %w", path, err)
	}
	key, err := parseKeyFile(string(text))
	if err != nil {
		return nil, fmt.Errorf("master key %s: %w", path, err)
	}
	return newFileMaster(key)
}

// parseKeyFile checks and decodes the text of a key file.
func parseKeyFile(text string) ([]byte, error) {
	const restore = "put the right file back; without it nothing that was sealed can be read"
	header, body, _ := strings.Cut(text, "\n")
	switch {
	case header != fileHeader && strings.HasPrefix(fileHeader, header):
		return nil, fmt.Errorf("%w: the file is cut short: %s", state.ErrCorrupt, restore)
	case header != fileHeader && strings.HasPrefix(header, "holdfast master key v"):
		return nil, fmt.Errorf("%w: the file is of another version than this release reads: run the release that wrote it", state.ErrCorrupt)
	case header != fileHeader:
		return nil, fmt.Errorf("%w: this is not a master key file (its first line is not %q): %s", state.ErrCorrupt, fileHeader, restore)
	}
	const whole = fileKeySize + fileCheckSize
	body = strings.TrimSpace(body)
	b, err := base64.StdEncoding.DecodeString(body)
	switch {
	case len(body) < base64.StdEncoding.EncodedLen(whole):
		return nil, fmt.Errorf("%w: the file is cut short: %s", state.ErrCorrupt, restore)
	case err != nil, len(b) != whole, !bytes.Equal(b[fileKeySize:], checksum(b[:fileKeySize])):
		return nil, fmt.Errorf("%w: the file is garbled: %s", state.ErrCorrupt, restore)
	}
	return b[:fileKeySize], nil
}

// CreateFile makes a new master key and stores it in a new file of mode 0600,
// durably. The error if the file is there already wraps fs.ErrExist.
//
// The file appears under its name whole or not at all, however the process
// ends, where the file system has hard links.
func CreateFile(path string) (_ Master, err error) {
	key := make([]byte, fileKeySize)
	rand.Read(key)
	text := fileHeader + "\n" + base64.StdEncoding.EncodeToString(slices.Concat(key, checksum(key))) + "\n"

	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".master-*.tmp") // of mode 0600
	if err != nil {
		return nil, fmt.Errorf("master key %s: cannot be made: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, fmt.Errorf("master key %s: cannot be written: %w", path, err)
	}
	switch err := publish(f.Name(), path); {
	case errors.Is(err, fs.ErrExist):
		return nil, fmt.Errorf("master key %s: %w", path, fs.ErrExist)
	case err != nil:
		return nil, fmt.Errorf("master key %s: cannot be made: %w", path, err)
	}
	if err := syncDir(dir); err != nil {
		return nil, fmt.Errorf("master key %s: cannot be made durable: %w", path, err)
	}
	return newFileMaster(key)
}

// publish gives a file its name, unless that is taken. Where the file system
// knows no second names the name is taken by an empty file first.
func publish(temp, path string) error {
	err := os.Link(temp, path)
	if !errors.Is(err, syscall.EPERM) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Rename(temp, path))
}

// syncDir makes a new directory entry durable. File systems that cannot sync a
// directory say EINVAL; there is nothing more to be done on them.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

func newFileMaster(key []byte) (*fileMaster, error) {
	a, err := subtle.NewAESGCM(key)
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	sum := sha256.Sum256(slices.Concat([]byte("holdfast master key id\x00"), key))
	return &fileMaster{id: "file:" + hex.EncodeToString(sum[:8]), aead: a}, nil
}

func checksum(key []byte) []byte {
	sum := sha256.Sum256(slices.Concat([]byte("holdfast master key checksum\x00"), key))
	return sum[:fileCheckSize]
}

func (m *fileMaster) ID() string { return m.id }

func (m *fileMaster) Wrap(_ context.Context, plain []byte, context map[string]string) ([]byte, error) {
	head := WrapHead(m.id, nil)
	sealed, err := m.aead.Encrypt(plain, wrapAssociated(head, context))
	if err != nil {
		return nil, err
	}
	return append(head, sealed...), nil
}

func (m *fileMaster) Unwrap(_ context.Context, wrapped []byte, context map[string]string) ([]byte, error) {
	id, sealed, err := WrappedWith(wrapped)
	if err != nil {
		return nil, err
	}
	if id != m.id {
		return nil, WrongMaster(id, m.id)
	}
	plain, err := m.aead.Decrypt(sealed, wrapAssociated(WrapHead(id, nil), context))
	if err != nil {
		return nil, fmt.Errorf("%w: the wrapped keyset does not open with master key %q, which is the one that it names: damaged, or wrapped for another partition", state.ErrCorrupt, m.id)
	}
	return plain, nil
}

// wrapAssociated binds a wrapped keyset to its head and context.
func wrapAssociated(head []byte, context map[string]string) []byte {
	names := make([]string, 0, len(context))
	for name := range context {
		names = append(names, name)
	}
	slices.Sort(names)
	b := appendSized(nil, string(head))
	for _, name := range names {
		b = appendSized(appendSized(b, name), context[name])
	}
	return b
}
