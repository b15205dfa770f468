package dynamotest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/holdfast-wa/holdfast/state/dynamo/dynamolocal"
)

// requireAll is the variable under which no test may excuse itself.
const requireAll = "HOLDFAST_REQUIRE_ALL"

// shared starts the process once. It ends with the test program, and not before:
// the process lives by a pipe that must not be collected.
var shared = sync.OnceValues(func() (*dynamolocal.Process, error) {
	// The ordinary test command needs no network, and whoever fetches it should
	// know that its licence is for holders of an AWS account.
	p, err := dynamolocal.Start(context.Background(), dynamolocal.Options{Fetch: os.Getenv(requireAll) == "1"})
	switch {
	case errors.Is(err, dynamolocal.ErrMissing):
		return nil, fmt.Errorf("%w; with %s=1 it is fetched by npm into there", err, requireAll)
	case err != nil:
		return nil, err
	}
	return p, nil
})
