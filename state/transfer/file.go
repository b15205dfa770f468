package transfer

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
)

const (
	// fileFormat is the version of the file. It stands in the first line, so that a
	// newer file is recognised without a key.
	fileFormat = 1
	magic      = "holdfast-export/"
	maxLine    = 64
	// maxFrame bounds one entry: the largest object and its encoding.
	maxFrame = 64 << 20
)

// head is the first entry: what there is one of.
type head struct {
	V          int                 `json:"v"`      // fileFormat
	Format     int                 `json:"format"` // of the documents, state.Format
	ID         string              `json:"id"`     // of the export, as in the first line
	Session    string              `json:"session"`
	At         time.Time           `json:"at"`
	From       string              `json:"from,omitempty"` // what wrote it, for people
	KeysetID   string              `json:"keysetId"`
	Keyset     []byte              `json:"keyset"` // unwrapped
	Credential state.ObjectPointer `json:"credential"`
	PreKeyHigh uint32              `json:"preKeyHigh,omitempty"`
	Spec       json.RawMessage     `json:"spec,omitempty"`
	Settings   []byte              `json:"settings,omitempty"` // opened
	Status     json.RawMessage     `json:"status,omitempty"`
	Identity   []byte              `json:"identity,omitempty"` // opened
}

// object is an object of the vault. One that the fleet keyset sealed, for an event
// or an upload, is opened.
type object struct {
	Name  string `json:"name"`
	Body  []byte `json:"body"`
	Event string `json:"event,omitempty"` // record id of the event that it was sealed for
	Media string `json:"media,omitempty"` // likewise of the upload
}

// record is a record of the session. Of a document with a part that the fleet
// keyset sealed, that part is opened and beside it.
type record struct {
	Kind    state.Kind `json:"kind"`
	ID      string     `json:"id,omitempty"`
	Value   []byte     `json:"value"`
	Rev     uint64     `json:"rev,omitempty"`
	Expires time.Time  `json:"expires,omitzero"`
	Index   string     `json:"index,omitempty"`
	Opened  []byte     `json:"opened,omitempty"`
}

// end is the last entry.
type end struct {
	Objects int `json:"objects"`
	Records int `json:"records"`
}

// entry is one of the four.
type entry struct {
	Head   *head   `json:"head,omitempty"`
	Object *object `json:"object,omitempty"`
	Record *record `json:"record,omitempty"`
	End    *end    `json:"end,omitempty"`
}

// writer writes entries into a temporary file, which publish gives its name.
type writer struct {
	path string
	file *os.File
	buf  *bufio.Writer
	age  io.WriteCloser
	end  end
}

// newWriter begins a file beside path.
func newWriter(path, id string, lock Lock) (w *writer, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".holdfast-export-*.tmp") // of mode 0600
	if err != nil {
		return nil, fmt.Errorf("file %s: cannot be made: %w; check the folder", path, bare(err))
	}
	w = &writer{path: path, file: f, buf: bufio.NewWriterSize(f, 64<<10)}
	defer func() {
		if err != nil {
			w.discard()
		}
	}()
	if _, err := fmt.Fprintf(w.buf, "%s%d %s\n", magic, fileFormat, id); err != nil {
		return nil, w.failed(err)
	}
	if w.age, err = age.Encrypt(w.buf, lock.recipients...); err != nil {
		return nil, fmt.Errorf("file %s: sealing it: %w", path, err)
	}
	return w, nil
}

func (w *writer) failed(err error) error {
	advice := "check the folder"
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		advice = "the disk is full: free some space and run it again"
	}
	return fmt.Errorf("file %s: cannot be written: %w; %s", w.path, bare(err), advice)
}

func (w *writer) put(e entry) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if len(body) > maxFrame {
		return fmt.Errorf("file %s: an entry of %d bytes: %w", w.path, len(body), state.ErrTooLarge)
	}
	switch {
	case e.Object != nil:
		w.end.Objects++
	case e.Record != nil:
		w.end.Records++
	}
	if _, err := w.age.Write(binary.BigEndian.AppendUint32(nil, uint32(len(body)))); err != nil {
		return w.failed(err)
	}
	if _, err := w.age.Write(body); err != nil {
		return w.failed(err)
	}
	return nil
}

// publish ends the file, makes it durable and gives it its name. A file of the
// name is replaced only if again says so.
func (w *writer) publish(again bool) (size int64, err error) {
	if err := w.put(entry{End: &w.end}); err != nil {
		return 0, err
	}
	err = errors.Join(w.age.Close(), w.buf.Flush(), w.file.Sync())
	if info, statErr := w.file.Stat(); statErr == nil {
		size = info.Size()
	}
	if err = errors.Join(err, w.file.Close()); err != nil {
		return 0, w.failed(err)
	}
	if again {
		err = os.Rename(w.file.Name(), w.path)
	} else {
		err = link(w.file.Name(), w.path)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return 0, fileError(w.path, ErrThere, "name another")
	case err != nil:
		return 0, w.failed(err)
	}
	if err := syncDir(filepath.Dir(w.path)); err != nil {
		return 0, w.failed(err)
	}
	return size, nil
}

// discard removes what publish has not named.
func (w *writer) discard() {
	_ = w.file.Close()
	_ = os.Remove(w.file.Name())
}

// link gives a file a name that nobody has, where the file system has second
// names; else it is renamed if the name was free a moment ago.
func link(temp, path string) error {
	err := os.Link(temp, path)
	if !errors.Is(err, syscall.EPERM) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	return os.Rename(temp, path)
}

// syncDir makes a new directory entry durable, where that can be done.
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

// bare leaves out what an error of the file system repeats of the path.
func bare(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	if link, ok := errors.AsType[*os.LinkError](err); ok {
		return link.Err
	}
	return err
}

// fileID reads the export id out of the first line of a file.
func fileID(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return readLine(bufio.NewReader(f))
}

func readLine(r *bufio.Reader) (string, error) {
	line := make([]byte, 0, maxLine)
	for {
		b, err := r.ReadByte()
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		if err != nil || b == '\n' || len(line) == maxLine {
			break
		}
		line = append(line, b)
	}
	text := string(line)
	if len(text) < len(magic) && text != "" && strings.HasPrefix(magic, text) {
		return "", ErrDamaged
	}
	rest, ok := strings.CutPrefix(text, magic)
	if !ok {
		return "", ErrNotOne
	}
	version, id, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(version)
	switch {
	case err != nil:
		return "", ErrDamaged
	case n > fileFormat:
		return "", fmt.Errorf("%w: it has format %d, this one reads %d", ErrNewer, n, fileFormat)
	}
	if _, err := ulid.ParseStrict(id); err != nil {
		return "", ErrDamaged
	}
	return id, nil
}

// readFile hands the entries of a file to do, head first; end is checked and not
// handed on. Errors of the file say what is wrong with it; those of do come back as
// they are.
func readFile(path string, key Key, do func(entry) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("file %s: cannot be read: %w", path, bare(err))
	}
	defer f.Close()
	buf := bufio.NewReaderSize(f, 64<<10)
	id, err := readLine(buf)
	switch {
	case errors.Is(err, ErrNewer):
		return fileError(path, err, "import it with that release")
	case err != nil:
		return fileError(path, err, "give the file as it was written")
	}
	plain, err := age.Decrypt(buf, key.identities...)
	if err != nil {
		return fileError(path, opening(err), "give the passphrase or the identity that it was sealed for, and the file as it was written")
	}
	in := bufio.NewReaderSize(plain, 64<<10)
	var seen end
	for first := true; ; first = false {
		e, err := next(in)
		if err != nil {
			return fileError(path, fmt.Errorf("%w (%w)", ErrDamaged, err), "give the file as it was written")
		}
		if first != (e.Head != nil) {
			return fileError(path, ErrDamaged, "give the file as it was written")
		}
		switch {
		case e.Head != nil:
			if e.Head.V > fileFormat || e.Head.Format > state.Format {
				return fileError(path, ErrNewer, "import it with that release")
			}
			if e.Head.ID != id {
				return fileError(path, fmt.Errorf("%w: its first line is of another export", ErrDamaged), "give the file as it was written")
			}
		case e.Object != nil:
			seen.Objects++
		case e.Record != nil:
			seen.Records++
		case e.End != nil:
			if _, err := in.ReadByte(); *e.End != seen || !errors.Is(err, io.EOF) {
				return fileError(path, ErrDamaged, "give the file as it was written")
			}
			return nil
		default:
			return fileError(path, fmt.Errorf("%w: it holds what this release does not know", ErrNewer), "import it with the release that wrote it")
		}
		if err := do(e); err != nil {
			return err
		}
	}
}

// opening tells a key that does not fit from a file that is damaged.
func opening(err error) error {
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return ErrKey
	}
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		return ErrKey
	}
	return fmt.Errorf("%w (%w)", ErrDamaged, err)
}

func next(in *bufio.Reader) (entry, error) {
	var e entry
	var size [4]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return e, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxFrame {
		return e, fmt.Errorf("an entry of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(in, body); err != nil {
		return e, err
	}
	return e, json.Unmarshal(body, &e)
}
