// Command lambda is the admin side as an AWS Lambda function, for the runtime
// provided.al2023: the admin API behind API Gateway, the hint that a task has
// stopped, and the sweep that raises what nobody is left to say. Package
// infra/gateway has what it does with each event; this one reads the settings and
// puts the parts together.
//
// Settings are HOLDFAST_ variables. Those that it shares with a worker have the
// worker's names and meanings; any other one than these is refused, because
// somebody believes it to be in force:
//
//	HOLDFAST_STATE              dynamodb:PREFIX, required
//	HOLDFAST_VAULT              s3://BUCKET/PREFIX, required
//	HOLDFAST_MASTER_KEY         awskms:ARN, required; HOLDFAST_MASTER_KEY_OLD with it
//	HOLDFAST_TAKEOVER           the workers', by itself 12s
//	HOLDFAST_PROFILE            the workers', and the single values of a profile:
//	                            what settings of sessions are checked against
//	HOLDFAST_WEBHOOK_ALLOW_PRIVATE, HOLDFAST_MEDIA_ALLOW_PRIVATE  likewise, by itself false
//	HOLDFAST_API_RATE           requests a second of a caller, in each process of the
//	                            function, 500
//	HOLDFAST_AWS_ENDPOINT_DYNAMODB, _S3, _KMS, HOLDFAST_LOG_LEVEL  as there
//
//	HOLDFAST_GATEWAY_AUTH       whose word is taken: a list of keys, jwt and iam; by
//	                            itself keys. Name jwt or iam only where every route
//	                            to the function has that authorizer
//	HOLDFAST_API_KEYS           NAME:ROLE:SHA256HEX,…; required for keys
//	HOLDFAST_IAM_ROLES          ARN-PATTERN=ROLE,…; required for iam
//	HOLDFAST_WORKER_CONTAINER   of the ECS task, by itself holdfast
//	HOLDFAST_UNOWNED_AFTER      without a live owner until a session is raised, 2m
//	HOLDFAST_PAIRING_AFTER      of pairing until it is raised, 10m
//
// The function's role needs what a worker's needs on the tables (DescribeTable,
// reads, PutItem, UpdateItem, DeleteItem), kms:Decrypt and, for a store that was
// never used, kms:Encrypt on the key, and s3:ListBucket, s3:GetObject,
// s3:PutObject, s3:DeleteObject and those of versions in the vault. Nothing of KMS
// is asked before the first request, of S3 before the first upload, or the first
// disconnect without workers. An upload may have 4 MB.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/aws/aws-lambda-go/lambda"
)

// release is set by the linker: -ldflags "-X main.release=v1.2.3".
var release = "devel"

func main() {
	h, err := handler(context.Background(), os.Environ(), os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "holdfast: %v\n", err)
		os.Exit(1)
	}
	lambda.Start(h)
}

// handler is the function: metrics and log lines end up in the same stream.
func handler(ctx context.Context, environ []string, metrics, logs io.Writer) (lambda.Handler, error) {
	c, err := fromEnvironment(environ)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: c.logLevel}))
	return newOffice(ctx, c, metrics, log)
}
