package sqlite

import (
	"context"
	"database/sql"
	"errors"
)

// preparer is a connection or a pool of them.
type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// A record is live if it does not expire or expires later than the time given.
const (
	live    = "(expires = 0 OR expires > ?)"
	columns = "rev, expires, listed, value"
	// Of a left join: a row without a member has an empty name.
	memberColumns = "ifnull(member.name, ''), ifnull(member.joined, 0), ifnull(member.beats, 0)," +
		" ifnull(member.dead, 0), ifnull(member.drain, 0), member.info, member.load"
)

// readStatements are those of the readers.
type readStatements struct {
	all statements

	get, ascending, descending, listed *sql.Stmt
	owner, ownedBy, sessions           *sql.Stmt
	roster, watch                      *sql.Stmt
}

func (r *readStatements) prepare(ctx context.Context, p preparer) error {
	return r.all.prepare(ctx, p, map[**sql.Stmt]string{
		&r.get: "SELECT " + columns + " FROM record WHERE part = ? AND kind = ? AND id = ? AND " + live,
		&r.ascending: "SELECT id, " + columns + " FROM record WHERE part = ? AND kind = ? AND id >= ? AND id < ? AND " + live +
			" ORDER BY id LIMIT ?",
		&r.descending: "SELECT id, " + columns + " FROM record WHERE part = ? AND kind = ? AND id >= ? AND id < ? AND " + live +
			" ORDER BY id DESC LIMIT ?",
		&r.listed: "SELECT part, kind, id, " + columns + " FROM record WHERE listed = ? AND listed <> '' AND (part, kind, id) > (?, ?, ?) AND " + live +
			" ORDER BY part, kind, id LIMIT ?",
		&r.owner:    "SELECT incarnation, epoch FROM owner WHERE name = ? AND removed = 0",
		&r.ownedBy:  "SELECT name, incarnation, epoch FROM owner WHERE incarnation = ? AND removed = 0 AND name > ? ORDER BY name LIMIT ?",
		&r.sessions: "SELECT name, incarnation, epoch FROM owner WHERE removed = 0 AND name > ? ORDER BY name LIMIT ?",
		&r.roster:   "SELECT roster.revision, " + memberColumns + " FROM roster LEFT JOIN member ORDER BY member.joined",
		&r.watch: "SELECT roster.revision, " + memberColumns + " FROM roster LEFT JOIN member" +
			" ON member.name IN (SELECT value FROM json_each(?))",
	})
}

// writeStatements are those of the writer.
type writeStatements struct {
	all statements

	begin, commit, rollback      *sql.Stmt
	owner, setOwner, clear       *sql.Stmt
	rev, put, del                *sql.Stmt
	spent, spend, expire, forget *sql.Stmt

	member, number, revise, join *sql.Stmt
	beat, die, drain, remove     *sql.Stmt
}

func (w *writeStatements) prepare(ctx context.Context, p preparer) error {
	return w.all.prepare(ctx, p, map[**sql.Stmt]string{
		&w.begin:    "BEGIN IMMEDIATE",
		&w.commit:   "COMMIT",
		&w.rollback: "ROLLBACK",

		&w.owner: "SELECT incarnation, epoch, removed FROM owner WHERE name = ?",
		&w.setOwner: "INSERT INTO owner (name, incarnation, epoch, removed) VALUES (?, ?, ?, ?)" +
			" ON CONFLICT (name) DO UPDATE SET incarnation = excluded.incarnation, epoch = excluded.epoch, removed = excluded.removed",
		&w.clear: "DELETE FROM record WHERE part = ?",

		&w.rev: "SELECT rev FROM record WHERE part = ? AND kind = ? AND id = ? AND " + live,
		&w.put: "INSERT INTO record (part, kind, id, rev, expires, listed, value) VALUES (?, ?, ?, ?, ?, ?, ?)" +
			" ON CONFLICT (part, kind, id) DO UPDATE SET rev = excluded.rev, expires = excluded.expires, listed = excluded.listed, value = excluded.value",
		&w.del: "DELETE FROM record WHERE part = ? AND kind = ? AND id = ?",

		&w.spent:  "SELECT at FROM token WHERE name = ?",
		&w.spend:  "INSERT INTO token (at, name) VALUES (?, ?)",
		&w.expire: "DELETE FROM record WHERE rowid IN (SELECT rowid FROM record WHERE expires <> 0 AND expires <= ? LIMIT ?)",
		// Tokens are numbered in order of time: the oldest are looked at only.
		&w.forget: "DELETE FROM token WHERE n IN (SELECT n FROM (SELECT n, at FROM token ORDER BY n LIMIT ?) WHERE at < ?)",

		&w.member: "SELECT beats, dead, drain FROM member WHERE name = ?",
		&w.number: "UPDATE roster SET revision = revision + 1, joins = joins + 1 RETURNING joins",
		&w.revise: "UPDATE roster SET revision = revision + 1",
		&w.join:   "INSERT INTO member (name, joined, beats, dead, drain, info) VALUES (?, ?, ?, 0, 0, ?)",
		&w.beat:   "UPDATE member SET beats = beats + 1, load = ? WHERE name = ? AND dead = 0",
		&w.die:    "UPDATE member SET dead = 1 WHERE name = ?",
		&w.drain:  "UPDATE member SET drain = ? WHERE name = ?",
		&w.remove: "DELETE FROM member WHERE name = ?",
	})
}

// statements are closed before their connections: SQLite keeps a connection
// that has any, and with it the file and its WAL.
type statements []*sql.Stmt

func (s *statements) prepare(ctx context.Context, p preparer, queries map[**sql.Stmt]string) error {
	for into, query := range queries {
		st, err := p.PrepareContext(ctx, query)
		if err != nil {
			return err
		}
		*into = st
		*s = append(*s, st)
	}
	return nil
}

func (s *statements) close() error {
	var errs []error
	for _, st := range *s {
		errs = append(errs, st.Close())
	}
	*s = nil
	return errors.Join(errs...)
}
