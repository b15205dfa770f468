package dynamo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/awsclient"
)

// The pauses between requests of one call: a random part of shortest, doubled
// with each, at most longest. Conflicting transactions are over in some 10 ms;
// throttling ends with the second that it is counted in.
const (
	shortest = 25 * time.Millisecond
	longest  = 400 * time.Millisecond
)

// do asks DynamoDB until it answers or RetryFor has passed, and then fails with
// state.ErrUnavailable. Answers that are final are returned as they are, with
// the SDK's words cut short. A request must be safe to repeat.
func (s *Store) do(ctx context.Context, method string, request func(context.Context) error) error {
	bound, cancel := context.WithTimeout(ctx, s.retryFor)
	defer cancel()
	err := s.ask(bound, s.retryFor/3, request)
	switch {
	case err == nil || final(err):
		return err
	case wrong(err):
		return fmt.Errorf("DynamoDB refuses the request: %w", short(err))
	case errors.Is(err, errClosed) || refused(err):
		return fmt.Errorf("%w: %s: %w", state.ErrUnavailable, method, s.explained(err))
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %s: %w", state.ErrUnavailable, method, ctx.Err())
	}
	return fmt.Errorf("%w: %s: gave up after %s: %w", state.ErrUnavailable, method, s.retryFor, s.explained(err))
}

var errClosed = errors.New("the store is closed")

// ask repeats a request, each time for as long as one says at most, until an
// answer would not change any more or the context ends. It returns the last error
// as the SDK does.
func (s *Store) ask(ctx context.Context, one time.Duration, request func(context.Context) error) error {
	last := ctx.Err()
	for pause := shortest; ; pause = min(2*pause, longest) {
		if s.closed.Load() {
			return errClosed
		}
		if ctx.Err() == nil {
			try, stop := context.WithTimeout(ctx, one)
			err := request(try)
			stop()
			if err == nil || final(err) || wrong(err) || refused(err) {
				return err
			}
			last = err
			if ctx.Err() == nil {
				s.onRetry(reason(err))
			}
		}
		if wait(ctx, rand.N(pause)) != nil {
			return last
		}
	}
}

// once asks a single time, for a third of RetryFor at most.
func (s *Store) once(ctx context.Context, method string, request func(context.Context) error) error {
	if s.closed.Load() {
		return fmt.Errorf("%w: %s: %w", state.ErrUnavailable, method, errClosed)
	}
	one, stop := context.WithTimeout(ctx, s.retryFor/3)
	defer stop()
	err := request(one)
	switch {
	case err == nil || final(err):
		return err
	case wrong(err):
		return fmt.Errorf("DynamoDB refuses the request: %w", short(err))
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %s: %w", state.ErrUnavailable, method, ctx.Err())
	case !refused(err):
		s.onRetry(reason(err)) // by the caller
	}
	return fmt.Errorf("%w: %s: %w", state.ErrUnavailable, method, s.explained(err))
}

// reason is why a request that failed is worth another try.
func reason(err error) string {
	of := RetryOther
	if cancelled := (*types.TransactionCanceledException)(nil); errors.As(err, &cancelled) {
		for _, r := range cancelled.CancellationReasons {
			switch code := aws.ToString(r.Code); {
			case slices.Contains(throttling, code):
				return RetryThrottled
			case code == "TransactionConflict":
				of = RetryConflict
			}
		}
		return of
	}
	var api smithy.APIError
	if !errors.As(err, &api) {
		return of
	}
	switch code := api.ErrorCode(); {
	case slices.Contains(throttling, code):
		return RetryThrottled
	case code == "TransactionConflictException", code == "TransactionInProgressException", code == "ReplicatedWriteConflictException":
		return RetryConflict
	}
	return of
}

// throttling are the names of it, of transactions' reasons and of errors.
var throttling = []string{"ProvisionedThroughputExceeded", "ProvisionedThroughputExceededException", "ThrottlingError",
	"ThrottlingException", "Throttling", "RequestLimitExceeded"}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// final says that an error is an answer that the caller has to interpret: a
// condition that failed, alone or in a transaction, or a token used before.
func final(err error) bool {
	if cancelled := (*types.TransactionCanceledException)(nil); errors.As(err, &cancelled) {
		return !retried(cancelled)
	}
	used, failed := (*types.IdempotentParameterMismatchException)(nil), (*types.ConditionalCheckFailedException)(nil)
	return errors.As(err, &used) || errors.As(err, &failed)
}

// Reasons for which DynamoDB cancels a transaction.
const (
	reasonNone      = "None"
	reasonCondition = "ConditionalCheckFailed"
)

// passing are the reasons for cancelling a transaction that pass by themselves.
var passing = []string{"TransactionConflict", "ProvisionedThroughputExceeded", "ThrottlingError", "RequestLimitExceeded", "InternalServerError"}

// retried says that a cancelled transaction is to be tried again. One whose
// first item, the fence, has failed is not; but another failed condition counts
// only once nothing else stood in the way, as the fence has not been looked at.
func retried(cancelled *types.TransactionCanceledException) bool {
	if holds := failedAt(cancelled); len(holds) > 0 && holds[0] == 0 {
		return false
	}
	return slices.ContainsFunc(cancelled.CancellationReasons, func(r types.CancellationReason) bool {
		return r.Code != nil && slices.Contains(passing, *r.Code)
	})
}

// failedAt are the items of a cancelled transaction whose conditions failed.
func failedAt(err error) []int {
	var cancelled *types.TransactionCanceledException
	if !errors.As(err, &cancelled) {
		return nil
	}
	var at []int
	for i, r := range cancelled.CancellationReasons {
		if r.Code != nil && *r.Code == reasonCondition {
			at = append(at, i)
		}
	}
	return at
}

// failedItem is what stood in the way of a transaction's item whose condition
// failed; nil if nothing was there. The item must have asked for it.
func failedItem(err error, at int) item {
	var cancelled *types.TransactionCanceledException
	if !errors.As(err, &cancelled) || at >= len(cancelled.CancellationReasons) {
		return nil
	}
	return cancelled.CancellationReasons[at].Item
}

// wrong says that the request itself is not as it should be: a fault of this
// package, or of the caller's; not a state of the store.
func wrong(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && (api.ErrorCode() == "ValidationException" || api.ErrorCode() == "SerializationException")
}

// refused says that asking again would get the same answer: no such table, key
// or permission. All else is worth another try: throttling, faults of
// the service, connections that broke and answers that did not come.
func refused(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return credentialsMissing(err)
	}
	var resp *awshttp.ResponseError
	if errors.As(err, &resp) && resp.HTTPStatusCode() >= http.StatusInternalServerError {
		return false
	}
	switch api.ErrorCode() {
	case "TransactionCanceledException": // final has let it through
		return false
	case "TransactionInProgressException", "TransactionConflictException", "ProvisionedThroughputExceededException",
		"RequestLimitExceeded", "ThrottlingException", "Throttling", "LimitExceededException", "InternalServerError",
		"InternalFailure", "ServiceUnavailable", "ServiceUnavailableException", "RequestTimeout", "RequestTimeoutException",
		"ReplicatedWriteConflictException":
		return false
	case "RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture":
		return false // the SDK has learnt from the answer what time it is
	case "InvalidSignatureException":
		skewed := strings.Contains(api.ErrorMessage(), "expired") || strings.Contains(api.ErrorMessage(), "not yet current")
		return !skewed
	}
	return true
}

// credentialsMissing says that no request was made for want of credentials.
func credentialsMissing(err error) bool {
	var op *smithy.OperationError
	return errors.As(err, &op) && strings.Contains(op.Err.Error(), "get identity: ") && !errors.Is(err, context.DeadlineExceeded)
}

// short cuts the SDK's words down to what went wrong.
func short(err error) error {
	if cancelled := (*types.TransactionCanceledException)(nil); errors.As(err, &cancelled) {
		var reasons []string
		for _, r := range cancelled.CancellationReasons {
			if r.Code == nil || *r.Code == reasonNone {
				continue
			}
			reason := *r.Code
			if r.Message != nil {
				reason += " (" + *r.Message + ")"
			}
			if !slices.Contains(reasons, reason) {
				reasons = append(reasons, reason)
			}
		}
		return fmt.Errorf("the transaction was cancelled: %s", strings.Join(reasons, ", "))
	}
	if missing := (*types.ResourceNotFoundException)(nil); errors.As(err, &missing) {
		return errors.New("a table or an index is missing in this region; holdfast doctor tells which")
	}
	return errors.New(awsclient.Short(err))
}

// explained is short, with what would help where there is something to say.
func (s *Store) explained(err error) error {
	return helped(err, fmt.Sprintf("reading and writing of %s and %s", s.fleet, s.signal))
}

// helped is explained where a call needs a certain permission. Where the service
// says which one is missing, that is what it takes.
func helped(err error, need string) error {
	if action, resource := awsclient.Denial(err); action != "" {
		need = action
		if resource != "" {
			need += " on " + resource
		}
	}
	advice := awsclient.Advice(err, need)
	if advice == "" {
		return short(err)
	}
	return fmt.Errorf("%w; %s", short(err), advice)
}
