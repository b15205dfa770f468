//go:build !race

package wasim_test

// raceEnabled tells that the race detector runs.
const raceEnabled = false
