// Package browsertest drives the console in a headless Chromium, against the
// program itself: `holdfast dev` beside `holdfast sim`, each as a process. What an
// operator does is done with the mouse or the keyboard alone, and the QR is read
// from the picture on the screen.
//
// It is a module of its own, so that the DevTools protocol and a reader of QR codes
// stay out of Holdfast's. `go test` in this folder runs it. The settings:
//
//	HOLDFAST_CHROMIUM     the browser; by itself chromium, chromium-browser or google-chrome
//	HOLDFAST_BINARY       the program; by itself it is built from the tree
//	HOLDFAST_SCREENSHOTS  a folder that keeps pictures of the views; none by itself
//	HOLDFAST_REQUIRE_ALL  1: without a browser the tests fail instead of being skipped
package browsertest
