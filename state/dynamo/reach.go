package dynamo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/awsclient"
)

// Reach asks DynamoDB once and tells two kinds of failure apart, which Ping does
// not. One that may pass by itself (no answer, throttling, a fault of the service)
// wraps state.ErrUnavailable. Any other one stays until somebody changes
// something: credentials, the clock. What Check tells better is no failure here: a
// table that is missing, a permission.
func (s *Store) Reach(ctx context.Context) error {
	_, err := s.client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &s.fleet})
	missing := (*types.ResourceNotFoundException)(nil)
	switch {
	case err == nil, errors.As(err, &missing), awsclient.Denied(err):
		return nil
	case awsclient.Passing(err):
		return fmt.Errorf("DynamoDB in %s: %w: %w", s.place, state.ErrUnavailable, helped(err, ""))
	}
	return fmt.Errorf("DynamoDB in %s: %w", s.place, helped(err, ""))
}

// Identity tells these tables from others that have their names: it is made of
// the ids that DynamoDB gave them when they were made. A table that was restored
// from a backup has another one. DynamoDB Local gives none; there the moment at
// which a table was made takes its place. It needs DescribeTable.
// state.ErrUnavailable if DynamoDB does not say.
func (s *Store) Identity(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	var ids []string
	for _, d := range s.tables {
		l := s.describe(ctx, d)
		cannot := func(why any) error {
			return fmt.Errorf("%w: the id of table %s cannot be had: %v", state.ErrUnavailable, d.Name, why)
		}
		switch {
		case l.missing:
			return "", cannot("it does not exist in " + s.place + "; create it with the Terraform module or `holdfast doctor --create-tables`")
		case l.err != nil:
			return "", cannot(helped(l.err, "dynamodb:DescribeTable on it"))
		case aws.ToString(l.table.TableId) != "":
			ids = append(ids, *l.table.TableId)
		case l.table.CreationDateTime != nil:
			ids = append(ids, l.table.CreationDateTime.UTC().Format(time.RFC3339Nano))
		default:
			return "", cannot("the service says neither an id nor when it was made")
		}
	}
	return strings.Join(ids, "+"), nil
}
