package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the driver that quickCheck opens the file with
)

// The checks of doctor on this machine. They make nothing that was not there.

const (
	spaceWarn = 500 << 20 // bytes; a thousand sessions with a week of events need about that much
	spaceFail = 32 << 20
	filesWarn = 4096
)

// memory looks at the limits of the process.
func (d *doctor) memory() {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	// Go raises the soft limit to the hard one by itself.
	if limit.Max < filesWarn {
		d.say("files", levelWarn, "raise it (ulimit -Hn, LimitNOFILE=)", "this process may open %d files, and each session needs one", limit.Max)
		return
	}
	d.say("files", levelOK, "", "this process may open %d files", limit.Max)
}

func (d *doctor) dataFolder() {
	const check = "data folder"
	dir := d.cfg.DataDir
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		parent := existingParent(dir)
		if err := probe(parent); err != nil {
			d.fault(check, fmt.Errorf("%s is not there yet, and %w", dir, err))
			return
		}
		d.say(check, levelOK, "", "%s will be made at the first start", dir)
		d.space(parent)
		return
	}
	if err != nil {
		d.fault(check, writeFault(dir, "cannot be read", err))
		return
	}
	if !info.IsDir() {
		d.say(check, levelFail, "remove the file, or set --data-dir elsewhere", "%s is a file", dir)
		return
	}
	if err := probe(dir); err != nil {
		d.fault(check, err)
		return
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		d.say(check, levelWarn, "run: chmod 700 "+dir, "%s can be written by others (mode %04o)", dir, mode)
	} else {
		d.say(check, levelOK, "", "%s can be written", dir)
	}
	d.space(dir)
}

// existingParent is the nearest folder above that exists.
func existingParent(dir string) string {
	for {
		up := filepath.Dir(dir)
		if _, err := os.Stat(up); err == nil || up == dir {
			return up
		}
		dir = up
	}
}

func (d *doctor) space(dir string) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return
	}
	free := s.Bavail * uint64(s.Bsize)
	level, do := levelOK, ""
	switch {
	case free < spaceFail:
		level, do = levelFail, "free some space: without it nothing can be committed and sessions disconnect"
	case free < spaceWarn:
		level, do = levelWarn, "free some space"
	}
	d.say("space", level, do, "%d MiB are free at %s", free>>20, dir)
}

func (d *doctor) masterKey(ctx context.Context) {
	const check = "master key"
	if d.cfg.MasterKey.Scheme == "awskms" {
		d.kmsKey(ctx)
		return
	}
	path := d.cfg.MasterKey.Path
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if used := sealedAlready(d.cfg); used != "" {
			d.say(check, levelFail, "put the file back from your backup", "%s is missing, but %s was sealed with one", path, used)
			return
		}
		d.say(check, levelOK, "", "%s will be made at the first start", path)
		return
	}
	m, _, err := masterKey(ctx, d.cfg, func() (string, error) { return path, nil })
	if err != nil {
		d.say(check, levelFail, "without the right key nothing that was sealed can be read", "%v", err)
		return
	}
	d.master = m
	d.say(check, levelOK, "", "%s is readable for this user alone (key %s); keep a copy apart from the data", path, m.ID())
}

func (d *doctor) apiKey() {
	const check = "api key"
	if len(d.cfg.APIKeys) > 0 {
		d.say(check, levelOK, "", "%d keys in api-keys", len(d.cfg.APIKeys))
		return
	}
	_, err := readKeyFile(filepath.Join(d.cfg.DataDir, apiKeyFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.say(check, levelOK, "", "will be made at the first start of holdfast dev")
	case err != nil:
		d.fault(check, err)
	default:
		d.say(check, levelOK, "", "%s is readable for this user alone", filepath.Join(d.cfg.DataDir, apiKeyFile))
	}
}

func (d *doctor) store(ctx context.Context) {
	const check = "state"
	if d.cfg.State.Scheme == "dynamodb" {
		d.tables(ctx)
		return
	}
	path := d.cfg.State.Path
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		d.say(check, levelOK, "", "%s will be made at the first start", path)
		return
	}
	if err != nil {
		d.fault(check, writeFault(path, "cannot be read", err))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := quickCheck(ctx, path); err != nil {
		d.say(check, levelFail, "stop holdfast, keep a copy of the file, and put a backup in its place", "%s: %v", path, err)
		return
	}
	d.say(check, levelOK, "", "%s is sound (%d KiB)", path, info.Size()>>10)
}

// quickCheck has SQLite look through a database file without changing it. A
// worker may be using the file meanwhile.
func quickCheck(ctx context.Context, path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	name := url.URL{Scheme: "file", Path: abs, RawQuery: "mode=ro&_pragma=busy_timeout(5000)"}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return fmt.Errorf("cannot be opened: %w", err)
	}
	defer db.Close()
	var answer string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&answer); err != nil {
		return fmt.Errorf("cannot be read as a database: %w", err)
	}
	if answer != "ok" {
		return fmt.Errorf("is damaged: %s", answer)
	}
	return nil
}

func (d *doctor) vault(ctx context.Context) {
	const check = "vault"
	if d.cfg.Vault.Scheme == "s3" {
		d.bucket(ctx)
		return
	}
	path := d.cfg.Vault.Path
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		d.say(check, levelOK, "", "%s will be made at the first start", path)
		return
	}
	if err := probe(path); err != nil {
		d.fault(check, err)
		return
	}
	d.say(check, levelOK, "", "%s can be written", path)
}
