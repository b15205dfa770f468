// Package imagetest builds what is released and runs it: images, programs and the
// Lambda function from two clones, which must give the same bytes; the images are
// pushed to a registry, and one of them runs in podman, as it is meant to be run in
// production, against a simulated service.
//
// It is a module of its own so that `make test` does not build images. `make
// imagetest` runs it; git, make, buildah, podman, runc and docker-registry are
// wanted. A test without one of them is skipped, and fails with
// HOLDFAST_REQUIRE_ALL=1. What is built is the last commit: changes of the work tree
// are not in it. Containers are run by root, with sudo where the test is not root's.
package imagetest
