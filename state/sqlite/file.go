package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/holdfast-wa/holdfast/state"
)

const (
	// applicationID marks the file as Holdfast's: "Hold" as a number.
	applicationID = 0x486f6c64
	fileMagic     = "SQLite format 3\x00"
	// quickCheckUpTo is the size up to which a file is checked at every open.
	// Larger ones are checked after an unclean end only.
	quickCheckUpTo = 32 << 20

	damagedAdvice = "it is damaged and was left as it is; put a sound copy in its place, or move it away together with its -wal and -shm files to begin anew, with new QR codes"
	foreignAdvice = "it was left as it is; name another file"
)

// prepared is what prepare found.
type prepared struct {
	info    os.FileInfo
	suspect bool // small, or not closed cleanly: worth a check
}

// prepare makes the file if it is not there, with mode 0600, and looks at it
// before SQLite does.
func prepare(path string) (prepared, error) {
	var none prepared
	if info, err := os.Stat(path); err == nil {
		if info.IsDir() {
			return none, fmt.Errorf("%w: is a folder: name a file in it, such as %s", state.ErrUnavailable, filepath.Join(path, "holdfast.db"))
		}
		if !info.Mode().IsRegular() {
			return none, fmt.Errorf("%w: is not a regular file: name another", state.ErrUnavailable)
		}
		if opened.has(info) {
			return none, fmt.Errorf("%w: is open in this process already: close it first", state.ErrUnavailable)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return none, unusable("its folder cannot be made", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return none, unusable("it cannot be opened for writing", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return none, unusable("it cannot be looked at", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := f.Chmod(0o600); err != nil {
			return none, unusable("others may read it and that cannot be changed", err)
		}
	}
	if err := probe(filepath.Dir(path)); err != nil {
		return none, unusable("nothing can be written into its folder", err)
	}
	if info.Size() > 0 {
		head := make([]byte, len(fileMagic))
		if _, err := io.ReadFull(f, head); err != nil || string(head) != fileMagic {
			return none, fmt.Errorf("%w: is not a SQLite database, or its beginning is overwritten: %s", state.ErrCorrupt, foreignAdvice)
		}
	}
	suspect := info.Size() <= quickCheckUpTo
	if wal, err := os.Stat(path + "-wal"); err == nil && wal.Size() > 0 {
		suspect = true
	}
	return prepared{info, suspect && info.Size() > 0}, nil
}

// probe writes a file into the folder and removes it: SQLite needs to make
// files there, and says so late and in few words.
func probe(dir string) error {
	f, err := os.CreateTemp(dir, ".holdfast-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString("probe")
	return errors.Join(err, f.Close())
}

// unusable says why a file cannot be used and what would help.
func unusable(what string, err error) error {
	advice := "choose another place"
	switch {
	case errors.Is(err, fs.ErrPermission):
		advice = "give this user the right to write there, or choose another place"
	case errors.Is(err, syscall.EROFS):
		advice = "the file system is read-only; choose another place"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		advice = "the disk is full; free some space"
	}
	return fmt.Errorf("%w: %s: %w: %s", state.ErrUnavailable, what, err, advice)
}

// examine refuses what is not ours, newer or damaged, and returns the format of
// the rest, which is the number of migrations that it has had.
func (s *Store) examine(ctx context.Context, dsn string, suspect bool) (version int, err error) {
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return 0, s.failure("open", err)
	}
	defer func() {
		if e := db.Close(); e != nil && err == nil {
			err = s.failure("open", e)
		}
	}()
	db.SetMaxOpenConns(1)
	// All is read at one moment: another process may be making the file just now.
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return 0, s.failure("open", err)
	}
	defer tx.Rollback()
	var app, tables int
	for _, q := range []struct {
		query string
		into  *int
	}{
		{"PRAGMA application_id", &app},
		{"PRAGMA user_version", &version},
		{"SELECT count(*) FROM sqlite_schema", &tables},
	} {
		if err := tx.QueryRowContext(ctx, q.query).Scan(q.into); err != nil {
			return 0, s.failure("open", err)
		}
	}
	switch {
	case app != applicationID && (tables > 0 || version > 0):
		return 0, fmt.Errorf("state file %s: %w: is a SQLite database of another program: %s", s.path, state.ErrCorrupt, foreignAdvice)
	case version > len(migrations):
		return 0, fmt.Errorf("state file %s: %w: was written by a newer release (format %d, this one reads up to %d): run that release, or a newer one",
			s.path, state.ErrCorrupt, version, len(migrations))
	}
	if !suspect {
		return version, nil
	}
	return version, s.quickCheck(ctx, tx)
}

// quickCheck reads the whole structure of the file.
func (s *Store) quickCheck(ctx context.Context, c *sql.Tx) error {
	var verdict string
	if err := c.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return s.failure("check", err)
	}
	if verdict != "ok" {
		verdict = strings.Join(strings.Fields(verdict), " ")
		return fmt.Errorf("state file %s: check: %w: %s: %s", s.path, state.ErrCorrupt, verdict, damagedAdvice)
	}
	return nil
}

// migrations are the steps from one format to the next; the file's user_version
// says how many of them it has had. Steps are only ever added, and such that a
// process of the release before goes on to work if it has the file open.
var migrations = []string{`
CREATE TABLE owner (
	name        TEXT PRIMARY KEY,
	incarnation TEXT NOT NULL,
	epoch       INTEGER NOT NULL,
	removed     INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX owner_by ON owner (incarnation, name) WHERE removed = 0;

CREATE TABLE record (
	part    TEXT NOT NULL,
	kind    TEXT NOT NULL,
	id      BLOB NOT NULL,
	rev     INTEGER NOT NULL,
	expires INTEGER NOT NULL,
	listed  TEXT NOT NULL,
	value   BLOB NOT NULL
);
CREATE UNIQUE INDEX record_key ON record (part, kind, id);
CREATE INDEX record_listed ON record (listed, part, kind, id) WHERE listed <> '';
CREATE INDEX record_expires ON record (expires) WHERE expires <> 0;

CREATE TABLE token (
	n    INTEGER PRIMARY KEY,
	at   INTEGER NOT NULL,
	name TEXT NOT NULL
);
CREATE UNIQUE INDEX token_name ON token (name);
`, `
CREATE TABLE member (
	name   TEXT PRIMARY KEY,
	joined INTEGER NOT NULL,
	beats  INTEGER NOT NULL,
	dead   INTEGER NOT NULL,
	drain  INTEGER NOT NULL,
	info   BLOB,
	load   BLOB
) WITHOUT ROWID;

CREATE TABLE roster (
	one      INTEGER PRIMARY KEY CHECK (one = 1),
	revision INTEGER NOT NULL,
	joins    INTEGER NOT NULL
);
INSERT INTO roster (one, revision, joins) VALUES (1, 0, 0);
`}

// migrate takes the steps that the file has not had, all or none. found is the
// format that was seen; another process may have been faster.
func migrate(ctx context.Context, c *sql.Conn, found int, steps []string) (err error) {
	if found == len(steps) {
		return nil
	}
	if _, err := c.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, _ = c.ExecContext(ctx, "ROLLBACK") // best effort: the connection is closed next
		}
	}()
	var version int
	if err := c.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version < len(steps) {
		script := strings.Join(steps[version:], "\n") +
			fmt.Sprintf("\nPRAGMA application_id = %d;\nPRAGMA user_version = %d;", applicationID, len(steps))
		if _, err := c.ExecContext(ctx, script); err != nil {
			return fmt.Errorf("upgrading from format %d to %d: %w", version, len(steps), err)
		}
	}
	_, err = c.ExecContext(ctx, "COMMIT")
	return err
}
