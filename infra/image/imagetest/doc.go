// Package imagetest builds what is released and runs it: the image and the Lambda
// function from two clones, which must give the same bytes, and then the image in
// podman, as it is meant to be run in production, against a simulated service.
//
// It is a module of its own so that `make test` does not build images. `make
// imagetest` runs it; buildah, podman, runc and git are wanted. What is built is
// the last commit: changes of the work tree are not in it.
package imagetest
