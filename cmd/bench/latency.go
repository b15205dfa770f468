package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net/url"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// openSlow opens a SQLite file whose every statement and commit takes d longer,
// as over a network. What begins a transaction costs nothing extra.
func openSlow(path string, d time.Duration) *sql.DB {
	q := url.Values{"_txlock": {"immediate"}}
	// As durable as Holdfast's own file.
	for _, p := range []string{"foreign_keys(1)", "journal_mode(wal)", "synchronous(full)", "busy_timeout(30000)"} {
		q.Add("_pragma", p)
	}
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}
	return sql.OpenDB(slowConnector{u.String(), d})
}

type slowConnector struct {
	dsn string
	d   time.Duration
}

// Connect implements driver.Connector.
func (c slowConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.Driver().Open(c.dsn)
	if err != nil {
		return nil, err
	}
	full, ok := conn.(fullConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("the driver's %T lacks what is slowed down", conn)
	}
	return &slowConn{full, c.d}, nil
}

// Driver implements driver.Connector.
func (slowConnector) Driver() driver.Driver { return registered() }

// registered is the driver as its package has set it up.
var registered = sync.OnceValue(func() driver.Driver {
	db, err := sql.Open("sqlite", ":memory:") // opens nothing yet
	if err != nil {
		panic(err)
	}
	defer db.Close()
	return db.Driver()
})

// fullConn is what the driver's connections can do.
type fullConn interface {
	driver.Conn
	driver.ExecerContext
	driver.QueryerContext
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

type slowConn struct {
	fullConn
	d time.Duration
}

func (c *slowConn) travel() {
	if c.d > 0 {
		time.Sleep(c.d)
	}
}

// ExecContext implements driver.ExecerContext.
func (c *slowConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.travel()
	return c.fullConn.ExecContext(ctx, query, args)
}

// QueryContext implements driver.QueryerContext.
func (c *slowConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.travel()
	return c.fullConn.QueryContext(ctx, query, args)
}

// BeginTx implements driver.ConnBeginTx.
func (c *slowConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	tx, err := c.fullConn.BeginTx(ctx, o)
	if err != nil {
		return nil, err
	}
	return slowTx{tx, c}, nil
}

type slowTx struct {
	driver.Tx
	c *slowConn
}

// Commit implements driver.Tx.
func (t slowTx) Commit() error {
	t.c.travel()
	return t.Tx.Commit()
}
