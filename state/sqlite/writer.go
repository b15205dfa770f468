package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxBatch   = 512         // jobs in one transaction
	sweepEvery = time.Minute // by the store's clock, after a commit
	sweepLimit = 1000        // rows that a sweep beside commits removes at most
)

// writer owns the one connection that writes, and the goroutine that uses it.
type writer struct {
	s    *Store
	dsn  string
	busy time.Duration // how long a transaction waits for another process's to end
	turn *turn
	jobs chan *job

	running      bool
	halt         sync.Once
	waiting      atomic.Int64  // changes that were asked for and have not ended
	transactions atomic.Int64  // begun so far
	quit         chan struct{} // closed to stop
	done         chan struct{} // closed when run has ended

	// What follows is the goroutine's own, once it runs.
	db    *sql.DB
	conn  *sql.Conn
	st    writeStatements
	swept time.Time
}

// job is one change. do makes it within a transaction. It returns a refusal, in
// which case it has written nothing, or an error of the database.
type job struct {
	do    func(ctx context.Context, w *writer) error
	doing string
	taken atomic.Bool // by the writer, or by a caller that gave up
	done  chan error
}

// refusal is an answer of the contract, as opposed to a failure.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func newWriter(s *Store, dsn string, busy time.Duration, turn *turn) *writer {
	return &writer{s: s, dsn: dsn, busy: busy, turn: turn, jobs: make(chan *job), quit: make(chan struct{}), done: make(chan struct{})}
}

// submit has a change made and waits for its end. When ctx ends first the
// change may still happen: the error then says that the store did not answer.
func (w *writer) submit(ctx context.Context, doing string, do func(context.Context, *writer) error) error {
	j := &job{do: do, doing: doing, done: make(chan error, 1)}
	if err := ctx.Err(); err != nil {
		return w.s.failure(doing, err)
	}
	w.waiting.Add(1)
	defer w.waiting.Add(-1)
	select {
	case w.jobs <- j:
	case <-ctx.Done():
		return w.s.failure(doing, ctx.Err())
	case <-w.quit:
		return w.s.failure(doing, sql.ErrConnDone)
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		if j.taken.CompareAndSwap(false, true) {
			return w.s.failure(doing, ctx.Err())
		}
	}
	// It is being committed: its outcome is near, and worth more than a guess.
	return <-j.done
}

// run makes the changes until stop. All that wait at a moment share one
// transaction, and so one fsync.
func (w *writer) run() {
	defer close(w.done)
	batch := make([]*job, 0, maxBatch)
	for {
		batch = batch[:0]
		select {
		case <-w.quit:
			return
		case j := <-w.jobs:
			batch = append(batch, j)
		}
		// Those who were answered a moment ago are about to come back.
		runtime.Gosched()
		batch = w.serve(w.gather(batch))
		clear(batch)
		w.tidy()
	}
}

// gather adds what waits now to a batch.
func (w *writer) gather(batch []*job) []*job {
	for len(batch) < maxBatch {
		select {
		case j := <-w.jobs:
			batch = append(batch, j)
		default:
			return batch
		}
	}
	return batch
}

// serve makes the changes of a batch and answers each. Those that come while it
// waits for another process are added; it returns the batch as it was then.
func (w *writer) serve(batch []*job) []*job {
	var live []*job
	picked := false
	answers, err := w.transact(func() []*job {
		batch = w.gather(batch)
		live, picked = take(batch), true
		return live
	})
	if !picked {
		live = take(batch)
	}
	if err != nil && len(live) > 1 && errors.Is(err, errInJob) {
		// One of them cannot be made. The others shall not suffer from it.
		w.singly(live)
		return batch
	}
	for i, j := range live {
		if err != nil {
			j.done <- w.s.failure(j.doing, err)
			continue
		}
		j.done <- answers[i]
	}
	return batch
}

// singly makes each change in a transaction of its own.
func (w *writer) singly(jobs []*job) {
	var down error // why none can be made any more
	for i, j := range jobs {
		if down != nil {
			j.done <- w.s.failure(j.doing, down)
			continue
		}
		answers, err := w.transact(func() []*job { return jobs[i : i+1] })
		if err != nil {
			j.done <- w.s.failure(j.doing, err)
			if !errors.Is(err, errInJob) {
				down = err
			}
			continue
		}
		j.done <- answers[0]
	}
}

// take returns those jobs of a batch whose callers have not given up, in the
// batch's own memory.
func take(batch []*job) []*job {
	live := batch[:0]
	for _, j := range batch {
		if j.taken.CompareAndSwap(false, true) {
			live = append(live, j)
		}
	}
	return live
}

// errInJob marks a failure in one of the jobs, as opposed to one in the
// transaction around them.
var errInJob = errors.New("a change could not be made")

// transact makes changes in one transaction: those that pick returns when it has
// begun. Until then a caller can give up and know that nothing was done. On an
// error none was made, or, if the commit itself failed, it is unknown whether all
// or none were.
func (w *writer) transact(pick func() []*job) (answers []error, err error) {
	ctx := context.Background()
	if err := w.s.inPlace(); err != nil {
		return nil, err
	}
	if w.conn == nil {
		if err := w.connect(ctx, nil); err != nil {
			return nil, err
		}
	}
	begun := false
	defer func() {
		if err != nil && (begun || !isBusy(err)) {
			// What state the connection is in after an error depends on the
			// error. A new one has none.
			_, _ = w.st.rollback.ExecContext(ctx)
			_ = w.disconnect()
		}
	}()
	if err := w.begin(ctx); err != nil {
		return nil, err
	}
	begun = true
	w.transactions.Add(1)
	jobs := pick()
	answers = make([]error, len(jobs))
	for i, j := range jobs {
		err := j.do(ctx, w)
		var no refusal
		switch {
		case err == nil:
		case errors.As(err, &no):
			answers[i] = no.error
		default:
			return nil, fmt.Errorf("%w: %w", errInJob, err)
		}
	}
	if _, err := w.st.commit.ExecContext(ctx); err != nil {
		return nil, err
	}
	return answers, nil
}

// tidy removes some of what has expired, now and then.
func (w *writer) tidy() {
	now := w.s.now()
	if since := now.Sub(w.swept); since >= 0 && since < sweepEvery {
		return
	}
	w.swept = now
	j := &job{doing: "sweep", do: func(ctx context.Context, w *writer) error {
		n, err := w.sweep(ctx, now, sweepLimit)
		if n >= sweepLimit {
			w.swept = now.Add(time.Second - sweepEvery) // there is more
		}
		return err
	}}
	// A failure here is the next commit's to report.
	_, _ = w.transact(func() []*job { return []*job{j} })
}

// sweep removes records and tokens that have expired, at most about `most` of
// each, and returns how many of the more numerous sort went.
func (w *writer) sweep(ctx context.Context, now time.Time, most int) (int, error) {
	records, err := affected(w.st.expire.ExecContext(ctx, now.UnixNano(), most))
	if err != nil {
		return 0, err
	}
	tokens, err := affected(w.st.forget.ExecContext(ctx, most, now.Add(-tokenLife).UnixNano()))
	if err != nil {
		return 0, err
	}
	return max(records, tokens), nil
}

func affected(r sql.Result, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	return int(n), err
}

// Sweep removes everything that has expired. It is for idle times and tests:
// commits do the same, a little at a time.
func (s *Store) Sweep(ctx context.Context) error {
	for more := true; more; {
		err := s.writer.submit(ctx, "sweep", func(ctx context.Context, w *writer) error {
			n, err := w.sweep(ctx, s.now(), sweepLimit)
			more = n >= sweepLimit
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// connect opens the connection and prepares its statements. first, if given,
// runs before them.
func (w *writer) connect(ctx context.Context, first func(*sql.Conn) error) (err error) {
	defer func() {
		if err != nil {
			_ = w.disconnect()
		}
	}()
	if w.db, err = sql.Open("sqlite", w.dsn); err != nil {
		return w.s.failure("open", err)
	}
	w.db.SetMaxOpenConns(1)
	if w.conn, err = w.db.Conn(ctx); err != nil {
		return w.s.failure("open", err)
	}
	if first != nil {
		if err := first(w.conn); err != nil {
			return w.s.failure("open", err)
		}
	}
	if err := w.st.prepare(ctx, w.conn); err != nil {
		return w.s.failure("open", err)
	}
	// From now on it is begin that waits.
	if _, err := w.conn.ExecContext(ctx, "PRAGMA busy_timeout = 0"); err != nil {
		return w.s.failure("open", err)
	}
	return nil
}

func (w *writer) disconnect() error {
	errs := []error{w.st.all.close()}
	if w.conn != nil {
		errs = append(errs, w.conn.Close())
	}
	if w.db != nil {
		errs = append(errs, w.db.Close())
	}
	w.conn, w.db = nil, nil
	return errors.Join(errs...)
}

// stop ends the goroutine after the batch that it is at.
func (w *writer) stop() {
	w.halt.Do(func() {
		close(w.quit)
		if w.running {
			<-w.done
		}
	})
}
