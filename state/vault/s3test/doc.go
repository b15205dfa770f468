// Package s3test runs the suite for vaults against a real S3 server: versitygw,
// in this process, over TLS, with signatures checked and versions kept.
//
// It is a module of its own, so that the hundred modules that versitygw brings
// stay out of Holdfast's. `go test ./...` in this folder runs it.
package s3test
